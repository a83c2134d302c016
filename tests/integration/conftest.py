"""Real servers, one of each for the whole run; a database and a series tree for each test."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphite_web import GraphiteWeb
from harness import Shipper
from servers import MariaDB, PostgreSQL
from two_machines import Machine, machine

from shipper.demo.carbon_cache import CarbonCache


@pytest.fixture
def database(mariadb: MariaDB) -> str:
    """Make an empty audit_trail; give the URL of its database, `app`."""
    return mariadb.make_database("app")


@pytest.fixture
def carbon_cache(tmp_path: Path) -> Iterator[CarbonCache]:
    """Run a private carbon-cache that keeps a value a minute."""
    server = CarbonCache(tmp_path / "carbon", retentions="1m:1d")
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def graphite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CarbonCache, GraphiteWeb]]:
    """Run a Carbon and a graphite-web beside it; tests have paths of their own, and what is in wrong.* is averaged."""
    root = tmp_path_factory.mktemp("carbon")
    carbon = CarbonCache(root, retentions="1m:1d,1h:30d")
    rules = root / "conf/storage-aggregation.conf"
    wrong = "[wrong]\npattern = ^wrong\\.\nxFilesFactor = 0.5\naggregationMethod = average\n\n"
    rules.write_text(wrong + rules.read_text())
    web = GraphiteWeb(tmp_path_factory.mktemp("web"), root=root)
    carbon.start()
    web.start()
    yield carbon, web
    web.stop()
    carbon.close()


@pytest.fixture
def shipper_app(tmp_path: Path, database: str, carbon_cache: CarbonCache) -> Iterator[Shipper]:
    """Give the program, configured for the database and the carbon-cache of this test."""
    program = Shipper(tmp_path, url=database, port=carbon_cache.port)
    yield program
    program.stop(signal.SIGKILL)


@pytest.fixture
def states(postgresql: PostgreSQL) -> PostgreSQL:
    """Give a server with an empty database for states, and one with rows."""
    postgresql.make_database("states")
    postgresql.make_database("app")
    with postgresql.connect("app") as connection:
        connection.execute(
            "INSERT INTO audit_trail (created_at, action) SELECT now() - interval '2 minutes', 'login' "
            "FROM generate_series(1, 5)"
        )
    return postgresql


@pytest.fixture
def first(tmp_path: Path, states: PostgreSQL, carbon_cache: CarbonCache) -> Iterator[Machine]:
    """Give a machine."""
    one = machine(tmp_path / "first", states, carbon_cache)
    yield one
    one.stop(signal.SIGKILL)


@pytest.fixture
def second(tmp_path: Path, states: PostgreSQL, carbon_cache: CarbonCache) -> Iterator[Machine]:
    """Give another machine."""
    one = machine(tmp_path / "second", states, carbon_cache)
    yield one
    one.stop(signal.SIGKILL)
