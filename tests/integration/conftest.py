"""Real servers, one of each for the whole run; a database and a series tree for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import MariaDB

from shipper.demo.carbon_cache import CarbonCache


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """Run a private MariaDB."""
    server = MariaDB(tmp_path_factory.mktemp("mariadb"))
    yield server
    server.stop()


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
