"""Wheels that are built once for all machines, and the lock for booting them."""

import fcntl
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import pytest
from systemd.machine import wheels


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheels that deploy/install installs."""
    return wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module", autouse=True)
def _turn() -> Iterator[None]:
    """Boot machines in one process at a time, because they share a tree and the host's control groups."""
    with Path(gettempdir(), "shipper-tests-systemd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
