"""An audit_trail on a real database, seen from both sides: read by the edge, written by sessions beside it."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from servers import SCHEMAS, MariaDB, PostgreSQL

from shipper.source.access import Access
from shipper.source.database import Source

INSERT = "INSERT INTO audit_trail (id, created_at, action, outcome, duration_ms) VALUES (%s, %s, %s, %s, %s)"
KINDS = ("mariadb", "postgresql", "sqlite")
"""Kinds of SQL; MySQL's is MariaDB's."""
DATABASES = (*KINDS, "mysql")
_LOOSE = {
    "mariadb": ["ALTER TABLE audit_trail MODIFY id BIGINT NULL, DROP PRIMARY KEY, ADD KEY (id)"],
    "postgresql": [
        "ALTER TABLE audit_trail ALTER id DROP IDENTITY, DROP CONSTRAINT audit_trail_pkey, ALTER id DROP NOT NULL",
        "CREATE INDEX ids ON audit_trail (id)",
    ],
    "sqlite": ["DROP TABLE audit_trail", SCHEMAS["sqlite"].replace(" PRIMARY KEY", "")],
}

Execute = Callable[..., list[tuple[Any, ...]]]
"""Run a statement, with values for its %s; return its rows."""


@contextmanager
def executing(kind: str, connection: Any) -> Iterator[Execute]:
    """Give what runs statements on a connection of any driver."""
    with closing(connection.cursor()) as cursor:

        def execute(statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
            if kind == "postgresql":
                cursor.execute(statement.encode(), values or None)
            elif kind == "sqlite":
                cursor.execute(statement.replace("%s", "?"), values)
            else:
                cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

        yield execute


class Table(Source):
    """The edge of a real table, which is written beside it."""

    def __init__(self, kind: str, url: str, connect: Callable[[], Any], *, timeout: int = 30, threads: int = 1) -> None:
        """Connect reaches the database as its owner does, autocommit."""
        super().__init__("app", Access(sa.make_url(url), timeout), threads=threads)
        self.kind, self.url = kind, url
        self._connect = connect

    def execute(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a statement in a session of its own, committed; return its rows."""
        with self.session() as execute:
            return execute(statement, values)

    @contextmanager
    def session(self) -> Iterator[Execute]:
        """Give a session of the application's; what it has begun and not committed ends with it."""
        with closing(self._connect()) as connection, executing(self.kind, connection) as execute:
            yield execute

    @contextmanager
    def in_flight(self, *statements: str) -> Iterator[Execute]:
        """Hold a transaction open that has run some statements."""
        with self.session() as execute:
            for statement in ("BEGIN", *statements):
                execute(statement)
            yield execute

    def insert(
        self,
        id: int | None,  # noqa: A002
        created_at: str | None,
        action: str | None,
        outcome: str = "ok",
        duration_ms: int | None = None,
    ) -> None:
        """Add a row in a session of its own, committed."""
        self.execute(INSERT, (id, created_at, action, outcome, duration_ms))

    def loosen(self) -> None:
        """Let ids be given twice, be none, and be no numbers from 1 on."""
        for statement in _LOOSE[self.kind]:
            self.execute(statement)


def on(database: str, request: pytest.FixtureRequest, folder: Path) -> Table:
    """Make an empty table on one of DATABASES, whose server is a fixture."""
    if database == "sqlite":
        return on_sqlite(folder / "app.db", is_wal=True)
    server = request.getfixturevalue(database)
    return on_postgresql(server) if database == "postgresql" else on_mariadb(server)


def on_mariadb(server: MariaDB, *, name: str = "app", **options: Any) -> Table:
    """Make an empty table on MariaDB or MySQL."""
    return Table("mariadb", server.make_database(name), lambda: server.connect(name), **options)


def on_postgresql(server: PostgreSQL, *, name: str = "app", **options: Any) -> Table:
    """Make an empty table on PostgreSQL."""
    return Table("postgresql", server.make_database(name), lambda: server.connect(name), **options)


def on_sqlite(file: Path, *, is_wal: bool = False, **options: Any) -> Table:
    """Make an empty table on SQLite."""

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=30, isolation_level=None)

    with closing(connect()) as connection:
        connection.execute(f"PRAGMA journal_mode = {'WAL' if is_wal else 'DELETE'}")
        connection.execute(SCHEMAS["sqlite"])
    return Table("sqlite", f"sqlite:///{file}", connect, **options)
