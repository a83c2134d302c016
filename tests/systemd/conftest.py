"""Wheels that are built once for all machines, and the lock for booting them."""

import fcntl
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import pytest
from systemd.machine import host_release, wheels


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let an operator choose the Debian of the machines, instead of the host's; this adds the walk, of minutes."""
    parser.addoption(
        "--debian", metavar="RELEASE", help="the Debian to boot, as in trixie; walk as a new operator, too"
    )


@pytest.fixture(scope="session")
def debian_release(request: pytest.FixtureRequest) -> str:
    """Return the name of the Debian to boot."""
    name: str | None = request.config.getoption("--debian")
    return name or host_release()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, debian_release: str) -> Path:
    """Build the wheels that deploy/install installs."""
    return wheels(tmp_path_factory.mktemp("wheels"), debian_release)


@pytest.fixture(scope="module", autouse=True)
def _turn() -> Iterator[None]:
    """Boot machines in one process at a time, because they share a tree and the host's control groups."""
    with Path(gettempdir(), "shipper-tests-systemd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
