"""Unit tests touch no network."""

from pathlib import Path

import pytest
from pytest_socket import disable_socket

HERE = Path(__file__).parent


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse sockets to the tests of this folder, which the hook is called for among others."""
    if HERE in item.path.parents:
        disable_socket(allow_unix_socket=True)
