"""What is built once for all machines."""

from pathlib import Path

import pytest
from systemd.machine import wheels


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheels that deploy/install installs."""
    return wheels(tmp_path_factory.mktemp("wheels"))
