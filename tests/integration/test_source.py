"""The source edge on real databases."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from builders import query
from contract import FAR, SourceContract
from servers import MariaDB

from shipper.errors import QueryRefused, SourceUnavailable
from shipper.model import MAX_ID, Condition, Observation, Query, Row, Window
from shipper.source import Source

INSERT = "INSERT INTO audit_trail (id, created_at, action, outcome) VALUES (%s, %s, %s, %s)"


class Table:
    """A real table, read through the edge and written beside it."""

    def __init__(self, source: Source, execute: Any) -> None:
        self.source = source
        self.execute = execute

    def insert(self, id: int, created_at: str | None, action: str | None, outcome: str = "ok") -> None:  # noqa: A002
        """Add a row in a session of its own, committed."""
        self.execute(INSERT, (id, created_at, action, outcome))

    def observe(self, query: Query) -> Observation:
        """Ask the edge."""
        return self.source.observe(query)

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """Ask the edge."""
        return self.source.first_id(query, after, upto)

    def read(self, query: Query, window: Window) -> list[Row]:
        """Ask the edge."""
        return self.source.read(query, window)


class TestMariaDB(SourceContract):
    """MariaDB keeps the contract."""

    @pytest.fixture
    def table(self, mariadb: MariaDB, database: str) -> Iterator[Table]:
        """Give an empty table."""

        def execute(statement: str, values: tuple[Any, ...]) -> None:
            with mariadb.connect("app") as connection, connection.cursor() as cursor:
                cursor.execute(statement, values)

        with closing(Source("app", database, timeout=30)) as source:
            yield Table(source, execute)

    def test_read_largest_unsigned_id(self, table: Table) -> None:
        """Ids go to 2^64 - 1, beyond every signed integer."""
        table.insert(MAX_ID - 1, "2026-11-01 00:00:00", "login")

        assert table.observe(query()).id == MAX_ID - 1
        assert [row.rows for row in table.read(query(), Window(MAX_ID - 2, MAX_ID))] == [1]

    def test_observe_time_is_epoch_utc(self, table: Table) -> None:
        """The source's time is that of an epoch clock, whatever the server's zone."""
        table.execute("SET GLOBAL time_zone = %s", ("+05:30",))
        try:
            assert abs(table.observe(query()).time - time.time()) < 5
        finally:
            table.execute("SET GLOBAL time_zone = %s", ("SYSTEM",))

    def test_read_columns_named_like_labels(self, table: Table) -> None:
        """A column called bucket is not taken for our bucket."""
        table.execute("ALTER TABLE audit_trail ADD bucket INT DEFAULT 7", ())
        table.insert(1, "2026-11-01 00:00:10", "login")
        table.insert(2, "2026-11-01 00:01:10", "login")

        assert len(table.read(query(), FAR)) == 2

    def test_session_cannot_write(self, table: Table) -> None:
        """A session of ours refuses to write even where the grants would allow it."""
        with pytest.raises(Exception, match="READ ONLY"), table.source._engine.connect() as connection:
            connection.exec_driver_sql("DELETE FROM audit_trail")

    def test_session_holds_no_transaction(self, table: Table, mariadb: MariaDB) -> None:
        """After a read nothing is open that could block an ALTER TABLE, and through it every INSERT."""
        table.insert(1, "2026-11-01 00:00:00", "login")
        table.read(query(), FAR)
        with mariadb.connect("app") as connection, connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_trx")

            assert cursor.fetchone() == (0,)
            cursor.execute("SET lock_wait_timeout = 1")
            cursor.execute("ALTER TABLE audit_trail ADD extra INT")

    def test_slow_query_ended_by_server(self, mariadb: MariaDB, database: str) -> None:
        """A statement beyond the limit is ended on the server, and reported as unavailable."""
        with mariadb.connect("app") as connection, connection.cursor() as cursor:
            cursor.execute("CREATE VIEW slow AS SELECT audit_trail.*, SLEEP(30) AS pause FROM audit_trail")
            cursor.execute("INSERT INTO audit_trail (action) VALUES ('login')")
            with (
                closing(Source("app", database, timeout=1)) as source,
                pytest.raises(SourceUnavailable, match="exceed"),
            ):
                source.read(query(table="slow", by=("pause",)), FAR)
            cursor.execute("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(30)%'")

            assert cursor.fetchone() == (1,)  # the one that asks

    def test_no_such_table(self, table: Table) -> None:
        """A missing table is refused, with the database's own words."""
        with pytest.raises(QueryRefused, match=r"observe nothing: .*doesn't exist"):
            table.observe(query(table="nothing"))

    def test_wrong_password(self, mariadb: MariaDB) -> None:
        """A refused login says so and shows no password."""
        url = f"mysql+pymysql://nobody:secret@127.0.0.1:{mariadb.port}/app"
        with closing(Source("app", url, timeout=5)) as source, pytest.raises(QueryRefused) as caught:
            source.observe(query())

        assert "Access denied" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "user and password in the option file" in str(caught.value.hint)

    def test_server_restart(self, tmp_path: Path) -> None:
        """A server that goes away is unavailable, and read again on the same edge once it is back."""
        server = MariaDB(tmp_path)
        try:
            with closing(Source("app", server.make_database("app"), timeout=5)) as source:
                source.observe(query())
                server.stop()
                with pytest.raises(SourceUnavailable):
                    source.observe(query())
                server.start()

                assert source.observe(query()).id == 0
        finally:
            server.stop()

    def test_many_threads(self, table: Table) -> None:
        """As many threads as connections read at once."""
        table.insert(1, "2026-11-01 00:00:00", "login")
        with closing(Source("app", table.source._engine.url.render_as_string(), timeout=10, threads=4)) as source:
            rows: list[Row] = []
            threads = [threading.Thread(target=lambda: rows.extend(source.read(query(), FAR))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        assert [row.rows for row in rows] == [1, 1, 1, 1]


class TestSQLite(SourceContract):
    """SQLite keeps the contract."""

    @pytest.fixture
    def table(self, tmp_path: Path) -> Iterator[Table]:
        """Give an empty table."""
        file = tmp_path / "app.db"

        def execute(statement: str, values: tuple[Any, ...] = ()) -> None:
            with closing(sqlite3.connect(file)) as connection, connection:
                connection.execute(statement.replace("%s", "?"), values)

        execute("CREATE TABLE audit_trail (id INTEGER PRIMARY KEY, created_at TEXT, action TEXT, outcome TEXT)")
        with closing(Source("app", f"sqlite:///{file}", timeout=5)) as source:
            yield Table(source, execute)

    def test_no_such_table(self, table: Table) -> None:
        """A missing table is refused."""
        with pytest.raises(QueryRefused, match="no such table"):
            table.observe(query(table="nothing"))

    def test_no_such_file(self, tmp_path: Path) -> None:
        """A mistyped path is told, and makes no empty database."""
        file = tmp_path / "typo.db"
        source = Source("app", f"sqlite:///{file}", timeout=5)
        with closing(source), pytest.raises(SourceUnavailable, match="unable to open") as caught:
            source.observe(query())

        assert "exist" in str(caught.value.hint)
        assert not file.exists()

    def test_values_that_do_not_fit(self, table: Table) -> None:
        """A value that the database cannot take is refused."""
        with pytest.raises(QueryRefused):
            table.read(query(where=(Condition("id", (2**70,)),)), FAR)

    def test_session_cannot_write(self, table: Table) -> None:
        """A session of ours refuses to write."""
        with pytest.raises(Exception, match="readonly"), table.source._engine.connect() as connection:
            connection.exec_driver_sql("DELETE FROM audit_trail")


def test_source_name_shows_no_credentials() -> None:
    """What is printed of a source names host and database only."""
    source = Source("app", "mysql+pymysql://me:secret@db1.internal:3307/app", timeout=5)

    assert str(source) == "mysql db1.internal:3307/app"
