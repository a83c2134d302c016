"""What all tests share: Hypothesis profiles, and a clean environment."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from servers import MariaDB, PostgreSQL

settings.register_profile("dev", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deterministic", parent=settings.get_profile("ci"), derandomize=True, database=None)
settings.register_profile(
    "mutants", max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


LONG = (
    *("fault", "test_day.py", "test_install.py", "test_mutants.py", "test_mending.py", "test_machine.py"),
    *("test_bench.py", "test_service.py", "test_conformance.py"),
)
"""What takes longest, in the order in which it is begun when several processes test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: next((n for n, name in enumerate(LONG) if name in item.path.parts), len(LONG)))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's systemd and shipper variables out."""
    systemds = ("CREDENTIALS_DIRECTORY", "JOURNAL_STREAM", "NOTIFY_SOCKET", "RUNTIME_DIRECTORY", "STATE_DIRECTORY")
    for name in (*systemds, "WATCHDOG_PID", "WATCHDOG_USEC", "SHIPPER_CONFIG", "SHIPPER_LOG_FORMAT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """Run a private MariaDB."""
    server = MariaDB(tmp_path_factory.mktemp("mariadb"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """Run a private PostgreSQL."""
    server = PostgreSQL()
    yield server
    server.close()
