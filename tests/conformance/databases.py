"""The table of the cases on each kind of database, with the application's sessions."""

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import sqlalchemy as sa
from servers import SCHEMAS, MariaDB, PostgreSQL
from table import COLUMNS, Event

from shipper.source.access import Access
from shipper.source.database import Source

INSERT = f"INSERT INTO audit_trail ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"


class Database(Protocol):
    """An audit_trail that the application writes and the source reads."""

    source: Source

    def execute(self, statement: str, rows: Iterable[tuple[object, ...]] = ((),)) -> None:
        """Run a statement for each row of values, and commit."""

    def in_flight(self, rows: Iterable[Event]) -> AbstractContextManager[None]:
        """Insert rows in a separate transaction, which commits at the end of the block."""

    def close(self) -> None:
        """Close all connections."""


class OnMariaDB:
    """The table on MariaDB or MySQL."""

    def __init__(self, server: MariaDB) -> None:
        url = server.make_database("conformance")
        self._connection, self._other = (server.connect("conformance") for _ in range(2))
        self.source = Source("app", Access(sa.make_url(url), timeout=30))
        self.execute("ALTER TABLE audit_trail ADD amount DECIMAL(40, 6)")
        self.execute("ALTER TABLE audit_trail ADD ratio DOUBLE, MODIFY action VARCHAR(400)")

    def execute(self, statement: str, rows: Iterable[tuple[object, ...]] = ((),)) -> None:
        """Run a statement for each row of values, and commit."""
        with self._connection.cursor() as cursor:
            for row in rows:
                cursor.execute(statement, row or None)

    @contextmanager
    def in_flight(self, rows: Iterable[Event]) -> Iterator[None]:
        """Insert rows in a separate transaction, which commits at the end of the block."""
        with self._other.cursor() as cursor:
            self._other.begin()
            for row in rows:
                cursor.execute(INSERT, row.values)
            yield
            self._other.commit()

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()
        self._other.close()
        self.source.close()


class OnPostgreSQL:
    """The table on PostgreSQL."""

    def __init__(self, server: PostgreSQL) -> None:
        url = server.make_database("conformance")
        self._connection, self._other = (server.connect("conformance") for _ in range(2))
        self.source = Source("app", Access(sa.make_url(url), timeout=30))
        self.execute("ALTER TABLE audit_trail ADD amount NUMERIC(40, 6)")
        self.execute("ALTER TABLE audit_trail ADD ratio DOUBLE PRECISION, ALTER action TYPE VARCHAR(400)")

    def execute(self, statement: str, rows: Iterable[tuple[object, ...]] = ((),)) -> None:
        """Run a statement for each row of values, and commit."""
        for row in rows:
            self._connection.execute(statement.encode(), row or None)

    @contextmanager
    def in_flight(self, rows: Iterable[Event]) -> Iterator[None]:
        """Insert rows in a separate transaction, which commits at the end of the block."""
        with self._other.transaction():
            for row in rows:
                self._other.execute(INSERT.encode(), row.values)
            yield

    def close(self) -> None:
        """Close all connections."""
        self._connection.close()
        self._other.close()
        self.source.close()


class OnSQLite:
    """The table on SQLite."""

    def __init__(self, folder: Path, schema: str) -> None:
        self._file = folder / "app.db"
        self.source = Source("app", Access(sa.make_url(f"sqlite:///{self._file}"), timeout=30))
        self.execute("PRAGMA journal_mode = WAL")  # otherwise a writer blocks readers
        self.execute(schema)
        self.execute("ALTER TABLE audit_trail ADD amount NUMERIC")
        self.execute("ALTER TABLE audit_trail ADD ratio REAL")

    def execute(self, statement: str, rows: Iterable[tuple[object, ...]] = ((),)) -> None:
        """Run a statement for each row of values, and commit."""
        with closing(sqlite3.connect(self._file)) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")
            for row in rows:
                connection.execute(statement.replace("%s", "?"), row)

    @contextmanager
    def in_flight(self, rows: Iterable[Event]) -> Iterator[None]:
        """Insert rows in a separate transaction, which commits at the end of the block."""
        with closing(sqlite3.connect(self._file, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT.replace("%s", "?"), [row.values for row in rows])
            yield
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close all connections."""
        self.source.close()


@contextmanager
def opened(kind: str, request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Provide the table on a kind of database."""
    database: Database
    if kind == "sqlite":
        database = OnSQLite(factory.mktemp("sqlite"), SCHEMAS["sqlite"])
    elif kind == "postgresql":
        database = OnPostgreSQL(request.getfixturevalue("postgresql"))
    else:
        database = OnMariaDB(request.getfixturevalue(kind))
    yield database
    database.close()


@contextmanager
def memory_folder() -> Iterator[Path]:
    """Provide a folder in memory, where fsync costs nothing."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def insert(database: Database, rows: list[Event]) -> None:
    """Insert rows, and commit them."""
    values: list[tuple[Any, ...]] = [row.values for row in rows]
    database.execute(INSERT, values)
