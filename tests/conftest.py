"""What all tests share: Hypothesis profiles, and a clean environment."""

import gc
import os
from collections.abc import Iterator

import pytest
from debian import UnavailableError
from hypothesis import HealthCheck, Phase, settings
from servers import MariaDB, MySQL, PostgreSQL, mysqld

settings.register_profile("dev", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deterministic", parent=settings.get_profile("ci"), derandomize=True, database=None)
settings.register_profile(
    "mutants", max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


LONG = (
    *("fault", "test_day.py", "test_install.py", "test_mending.py", "test_machine.py"),
    *("test_bench.py", "test_service.py", "test_conformance.py", "test_databases.py", "test_check.py", "test_cli.py"),
    *("test_mutants.py", "test_operations.py", "test_exactness.py", "test_floors.py", "test_year.py"),
)
"""What takes longest, in the order in which it is begun when several processes test."""


NO_MYSQL = "no MySQL"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that requires MySQL."""
    parser.addoption("--require-mysql", action="store_true", help="fail without MySQL, instead of skipping its tests")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark; get MySQL before anything runs if it is required."""
    config.addinivalue_line("markers", "on_mysql: run the test on MySQL, too")
    if config.getoption("--require-mysql") and not hasattr(config, "workerinput"):
        try:
            mysqld()
        except UnavailableError as error:
            remedy = "Check the network, or set SHIPPER_MYSQLD to the path of a mysqld"
            raise pytest.UsageError(f"--require-mysql: {NO_MYSQL}: {error}\n{remedy}.") from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests with the mark on both servers."""
    if "mariadb" in metafunc.fixturenames and metafunc.definition.get_closest_marker("on_mysql"):
        metafunc.parametrize("mariadb", ["mariadb_server", "mysql"], ids=["mariadb", "mysql"], indirect=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Write, below everything else, that tests did not run for want of MySQL."""
    yield
    skipped = sum(NO_MYSQL in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ()))
    if skipped:
        terminalreporter.section("NOT RUN ON MYSQL", yellow=True)
        terminalreporter.write_line(
            f"No MySQL here: {skipped} test{'s' * (skipped > 1)} skipped, for the reason above."
        )
        terminalreporter.write_line("A network, or SHIPPER_MYSQLD=/path/to/mysqld, lets them run.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: next((n for n, name in enumerate(LONG) if name in item.path.parts), len(LONG)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take the tests themselves, which live as long as the session, out of all later garbage collections."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _all_is_closed() -> Iterator[None]:
    """Let sockets, files and processes that a module has left open fail in this module, not in a later one."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's systemd and shipper variables out."""
    systemds = ("CREDENTIALS_DIRECTORY", "JOURNAL_STREAM", "NOTIFY_SOCKET", "RUNTIME_DIRECTORY", "STATE_DIRECTORY")
    for name in (*systemds, "WATCHDOG_PID", "WATCHDOG_USEC", "SHIPPER_CONFIG", "SHIPPER_LOG_FORMAT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def mariadb(request: pytest.FixtureRequest) -> MariaDB:
    """Provide a private MariaDB; tests with the mark `on_mysql` run again with a MySQL in its place."""
    server: MariaDB = request.getfixturevalue(getattr(request, "param", "mariadb_server"))
    return server


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """Run a private MariaDB."""
    server = MariaDB(tmp_path_factory.mktemp("mariadb"), ["--skip-ssl"])  # newer ones make a certificate
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MySQL]:
    """Run a private MySQL, or skip the test where it cannot be had."""
    try:
        mysqld()
    except UnavailableError as error:
        pytest.skip(f"{NO_MYSQL}: {error}")
    server = MySQL(tmp_path_factory.mktemp("mysql"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """Run a private PostgreSQL."""
    server = PostgreSQL()
    yield server
    server.close()
