"""The source edge on real databases."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from builders import job, query
from contract import FAR, SourceContract
from servers import MariaDB, PostgreSQL, free_port
from tables import DATABASES, Table, on, on_mariadb, on_postgresql, on_sqlite

from shipper.core.errors import QueryRefused, SourceUnavailable
from shipper.core.id_set import Gaps, ids_of
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import ALWAYS, MAX_ID, Condition, RejectedValue, Row, Window
from shipper.core.rows.folding import Folded, fold
from shipper.core.rows.table import scan
from shipper.source.access import Access
from shipper.source.database import Source
from shipper.source.inspection import Examination

MEASURED_KINDS = tuple(kind for kind in Kind if kind.is_divisible)
MEASURED = query(measures=tuple(Measure(kind, kind, None if kind is Kind.COUNT else "x") for kind in MEASURED_KINDS))
LARGEST = 2**64 - 1
LONG = Decimal("12345678901234567890123456789012345.123456789012345678901234567891")

SUMMED = Decimal("24691357802469135780246913578024689.246913578024691357802469135782")  # two of it, less 1


def source_at(url: str, *, timeout: int = 30, threads: int = 1, **access: Any) -> Source:
    """Return a source on a URL."""
    return Source("app", Access(sa.make_url(url), timeout, **access), threads=threads)


def measured(table: Table, kind: str, *values: object) -> tuple[tuple[object, ...], tuple[RejectedValue, ...]]:
    """Return count, sum, max and min of a column of that type, and its rejected values: the same in each statement."""
    table.execute(f"ALTER TABLE audit_trail ADD x {kind}", ())
    for number, value in enumerate(values, 1):
        insert = "INSERT INTO audit_trail (id, created_at, action, x) VALUES (%s, '2026-11-01', 'login', %s)"
        table.execute(insert, (number, value))
    (row,) = table.read(MEASURED, FAR)
    at_once = table.read_at_once(MEASURED, FAR, Gaps([], []))
    assert at_once is not None
    assert at_once[0] == [row]
    return row.values, row.rejected_values


def folded_of(table: Table) -> Folded:
    """Read all rows in windows that are short enough for their sums."""
    folded = Folded()
    for _, rows in scan(replace(job(), query=MEASURED), 0, 100, source=table):
        fold(rows, ALWAYS, MEASURED_KINDS, into=folded)
    return folded


def assert_measured(table: Table, kind: str, values: tuple[object, ...], expected: Any) -> None:
    """Compare values with the expected ones; None accepts any values. No value may be rejected."""
    if expected is QueryRefused:
        with pytest.raises(QueryRefused):
            measured(table, kind, *values)
        return
    actual, rejected = measured(table, kind, *values)
    assert rejected == ()
    assert expected is None or expected == actual


@pytest.mark.on_mysql
class TestMariaDB(SourceContract):
    """MariaDB and MySQL keep the contract."""

    @pytest.fixture
    def table(self, mariadb: MariaDB) -> Iterator[Table]:
        """Give an empty table."""
        with closing(on_mariadb(mariadb)) as table:
            yield table

    def test_read_largest_unsigned_id(self, table: Table) -> None:
        """Ids go to 2^64 - 1, beyond every signed integer. Mutants: `id / 64`; bits with a sign."""
        for number in (MAX_ID, MAX_ID - 1, MAX_ID - 64):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert table.observe(query()).id == MAX_ID
        assert [row.rows for row in table.read(query(), Window(MAX_ID - 2, MAX_ID))] == [2]
        assert ids_of(table.words(query(), Window(0, MAX_ID))) == [MAX_ID - 64, MAX_ID - 1, MAX_ID]
        assert ids_of(table.words(query(), (MAX_ID - 64, MAX_ID))) == [MAX_ID - 64, MAX_ID]
        assert table.nth_id(query(), Window(0, MAX_ID), 2, is_backward=True) == MAX_ID - 1

    @pytest.mark.parametrize(
        ("kind", "values", "expected"),
        [
            ("DOUBLE", (5.5, 2.25, None, -1e300), (4, Decimal("-1E300"), 5.5, Decimal("-1E300"))),
            ("FLOAT", (0.5, 3e38), None),
            ("FLOAT", (1234567.125, 16777215), (2, Decimal("18011782.125"), 16777215, Decimal("1234567.125"))),
            ("BIT(20)", (5, 7), (2, 12, 7, 5)),
            ("INT", (5, -7, None), (3, -2, 5, -7)),
            ("BIGINT", (-(2**63), 2**63 - 1, 2**63 - 1), (3, 2**63 - 2, 2**63 - 1, -(2**63))),
            ("BIGINT UNSIGNED", (LARGEST, LARGEST, 0), (3, 2 * LARGEST, LARGEST, 0)),
            ("DECIMAL(65,30)", (LONG, LONG, -1), (3, SUMMED, LONG, -1)),
            ("VARCHAR(9)", ("abc",), QueryRefused),
            ("DATETIME", ("2026-11-01",), QueryRefused),
            ("BLOB", (b"1",), QueryRefused),
        ],
    )
    def test_read_types(self, table: Table, kind: str, values: tuple[object, ...], expected: Any) -> None:
        """Numbers that Carbon can hold are exact, in every type; other values are rejected.

        Mutants: compare a time with a number, which leaves it out; CAST(x AS DOUBLE) in Fit; a NULL without a type
        in it, with which the largest FLOAT has six digits.
        """
        assert_measured(table, kind, values, expected)

    def test_read_unfit(self, table: Table) -> None:
        """A value that Carbon could not hold is left out of its group's measures, and reported; the row is counted.

        Mutants: without Fit; without the lower end; MIN(id) of all rows for the first.
        """
        values, rejected = measured(table, "DOUBLE", 5.5, -1e305, 2.0, 1.7e308)

        assert values == (4, Decimal("7.5"), Decimal("5.5"), 2)
        assert rejected == (RejectedValue("x", 2, "-1e+305", 2),)

    def test_read_bytes(self, table: Table) -> None:
        """Bytes that are not text are separate groups. Mutant: convert them, and all become '?'."""
        table.execute("ALTER TABLE audit_trail MODIFY action VARBINARY(20)", ())
        names = [b"\xff", b"\xfe", b"?", b"a\0b", "\u4e16".encode(), b"a"]
        for number, name in enumerate(names, 1):
            table.execute("INSERT INTO audit_trail (id, action) VALUES (%s, %s)", (number, name))

        groups = {row.group[0]: row.rows for row in table.read(query(), FAR)}
        assert groups == dict.fromkeys(["ff", "fe", "?", "610062", "\u4e16", "a"], 1)

    def test_read_latin(self, table: Table) -> None:
        """Text of another character set is the same text. Mutant: cast all columns to bytes."""
        table.execute("ALTER TABLE audit_trail MODIFY action VARCHAR(20) CHARACTER SET latin1", ())
        table.insert(1, None, "caf\u00e9")

        assert [row.group for row in table.read(query(), FAR)] == [("caf\u00e9",)]

    @pytest.mark.parametrize("type_", ["TIME", "DATE", "DATETIME(6)", "TIMESTAMP NULL"])
    def test_sum_of_times(self, table: Table, type_: str) -> None:
        """A sum of times is refused before a row is read: it would be that of their digits.

        Mutant: leave it to the result, which is a number.
        """
        table.execute(f"ALTER TABLE audit_trail ADD spent {type_}")
        table.insert(1, "2026-11-01 00:00:10", "login")

        with pytest.raises(QueryRefused, match="spent contains times, which are no measures") as caught:
            table.prepared(query(measures=(Measure("spent", Kind.SUM, "spent"),)))
        assert "TIME_TO_SEC(spent)" in (caught.value.hint or "")

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
        """Our sessions reject writes even where the grants would allow them."""
        with pytest.raises(Exception, match="READ ONLY"), table.connections.engine.connect() as connection:
            connection.exec_driver_sql("DELETE FROM audit_trail")

    def test_session_holds_no_transaction(self, table: Table, mariadb: MariaDB) -> None:
        """After a read no transaction is open that could block an ALTER TABLE, and with it every INSERT."""
        table.insert(1, "2026-11-01 00:00:00", "login")
        table.read(query(), FAR)
        with mariadb.connect("app") as connection, connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_trx")

            assert cursor.fetchone() == (0,)
            cursor.execute("SET lock_wait_timeout = 1")
            cursor.execute("ALTER TABLE audit_trail ADD extra INT")

    def test_slow_query_ended_by_server(self, mariadb: MariaDB, database: str) -> None:
        """The server ends a statement that runs too long, and the source is unavailable."""
        with mariadb.connect("app") as connection, connection.cursor() as cursor:
            cursor.execute("CREATE VIEW slow AS SELECT audit_trail.*, SLEEP(30) AS pause FROM audit_trail")
            cursor.execute("INSERT INTO audit_trail (action) VALUES ('login')")
            with (
                closing(source_at(database, timeout=1)) as source,
                pytest.raises(SourceUnavailable, match="exceed"),
            ):
                source.read(query(table="slow", by=("pause",)), FAR)
            cursor.execute("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(30)%'")

            assert cursor.fetchone() == (1,)  # this statement

    @pytest.mark.parametrize(
        ("lag_query", "expected"), [("SELECT 3", 3), ("SELECT -1", 0), ("SELECT 1.5", 1.5), ("SELECT '7'", 7)]
    )
    def test_lag(self, database: str, lag_query: str, expected: float) -> None:
        """The lag of a replica is the result of its lag_query."""
        with closing(source_at(database, lag_query=lag_query)) as source:
            assert source.lag() == expected

    @pytest.mark.parametrize(
        ("lag_query", "error"),
        [
            ("SELECT NULL", SourceUnavailable),
            ("SELECT 1 FROM DUAL WHERE 1 = 0", SourceUnavailable),
            ("SELECT 'much'", QueryRefused),
            ("SELECT nothing", QueryRefused),
        ],
    )
    def test_lag_unknown(self, database: str, lag_query: str, error: type[Exception]) -> None:
        """A lag that is unknown or not a number is an error."""
        with closing(source_at(database, lag_query=lag_query)) as source, pytest.raises(error, match="read lag"):
            source.lag()

    def test_no_such_table(self, table: Table) -> None:
        """A missing table is rejected with the database's message."""
        with pytest.raises(QueryRefused, match=r"read nothing: .*doesn't exist"):
            table.observe(query(table="nothing"))

    def test_text_that_the_column_cannot_have(self, table: Table) -> None:
        """A condition with such a text is a mistake in the configuration, with a hint."""
        table.execute("ALTER TABLE audit_trail MODIFY action VARCHAR(20) CHARACTER SET latin1")
        condition = Condition("action", "not", ("\u4e16",))
        with pytest.raises(QueryRefused, match=r"Illegal mix of collations|Cannot convert string") as caught:
            table.read(query(where=(condition,)), FAR)

        assert "character set" in str(caught.value.hint)

    def test_wrong_password(self, mariadb: MariaDB) -> None:
        """A rejected login is reported without the password."""
        url = f"mysql+pymysql://nobody:secret@127.0.0.1:{mariadb.port}/app"
        with closing(source_at(url, timeout=5, tls="off")) as source, pytest.raises(QueryRefused) as caught:
            source.observe(query())

        assert "Access denied" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "user and password: in the option file" in str(caught.value.hint)

    def test_server_restart(self, mariadb: MariaDB, tmp_path: Path) -> None:
        """A server that stops is unavailable, and the same source reads it again when it is back."""
        server = type(mariadb)(tmp_path)
        try:
            with closing(source_at(server.make_database("app"), timeout=5)) as source:
                source.observe(query())
                server.stop()
                with pytest.raises(SourceUnavailable):
                    source.observe(query())
                server.start()

                assert source.observe(query()).id == 0
        finally:
            server.stop()

    def test_many_threads(self, table: Table) -> None:
        """Each connection serves a thread at the same time."""
        table.insert(1, "2026-11-01 00:00:00", "login")
        with closing(source_at(table.connections.engine.url.render_as_string(), timeout=10, threads=4)) as source:
            rows: list[Row] = []
            threads = [threading.Thread(target=lambda: rows.extend(source.read(query(), FAR))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        assert [row.rows for row in rows] == [1, 1, 1, 1]


class TestPostgreSQL(SourceContract):
    """PostgreSQL keeps the contract."""

    @pytest.fixture
    def table(self, postgresql: PostgreSQL) -> Iterator[Table]:
        """Give an empty table."""
        with closing(on_postgresql(postgresql)) as table:
            yield table

    def test_read_infinity(self, table: Table) -> None:
        """An infinite time has no bucket. Mutant: leave isfinite out."""
        table.insert(1, "infinity", "login")

        assert [row.bucket for row in table.read(query(), FAR)] == [None]

    @pytest.mark.parametrize(
        ("kind", "values", "expected"),
        [
            ("FLOAT8", (5.5, 2.25, None, -1e300), (4, Decimal("-1E300"), 5.5, Decimal("-1E300"))),
            ("FLOAT4", (0.5, 0.25), (2, Decimal("0.75"), Decimal("0.5"), Decimal("0.25"))),
            ("FLOAT4", (2**24, 1, 1), (3, 2**24 + 2, 2**24, 1)),
            ("SMALLINT", (-(2**15), 5), (2, 5 - 2**15, 5, -(2**15))),
            ("INT", (-(2**31), 2**31 - 1, None), (3, -1, 2**31 - 1, -(2**31))),
            ("BIGINT", (2**63 - 1, 2**63 - 1, -(2**63)), (3, 2**63 - 2, 2**63 - 1, -(2**63))),
            ("NUMERIC", (LONG, LONG, -1), (3, SUMMED, LONG, -1)),
            ("NUMERIC", (Decimal("1E-9000"), 1), (2, 1, 1, 0)),
            ("TEXT", ("abc",), QueryRefused),
            ("TIMESTAMP", ("2026-11-01",), QueryRefused),
            ("BOOLEAN", (True,), QueryRefused),
            ("INTERVAL", ("1 day",), QueryRefused),
        ],
    )
    def test_read_types(self, table: Table, kind: str, values: tuple[object, ...], expected: Any) -> None:
        """Numbers that Carbon can hold are exact, in every type; other values are rejected.

        Mutants: a CAST to FLOAT8 in Fit; no end of places; add up a FLOAT4 as such, with seven digits.
        """
        assert_measured(table, kind, values, expected)

    @pytest.mark.parametrize(
        ("kind", "bad"),
        [
            ("FLOAT8", ["NaN", "Infinity", "-Infinity", "1e305", "-1e305"]),
            ("FLOAT4", ["NaN", "Infinity", "-Infinity"]),
            ("NUMERIC", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e301"]),
        ],
    )
    def test_read_unfit(self, table: Table, kind: str, bad: list[str]) -> None:
        """A value that Carbon could not hold is left out of its group's measures, and reported; the row is counted.

        Mutants: without Fit; ABS(x) > 1e300 on the upper end only.
        """
        values, rejected = measured(table, kind, 5.5, *bad, 2.0)

        assert values == (2 + len(bad), Decimal("7.5"), Decimal("5.5"), 2)
        assert [(one.column, one.rows, one.id) for one in rejected] == [("x", len(bad), 2)]
        assert rejected[0].value in {"nan", "NaN"}

    @pytest.mark.parametrize("kind", ["FLOAT4", "FLOAT8", "NUMERIC"])
    def test_sum_beyond_its_type(self, table: Table, kind: str) -> None:
        """A sum beyond its type is added up here. Mutant: halves that overlap."""
        table.execute(f"ALTER TABLE audit_trail ADD x {kind}")
        for number in range(1, 10):
            table.execute("INSERT INTO audit_trail (id, created_at, x) VALUES (%s, '2026-11-01', 3e38)", (number,))
        folded = folded_of(table)

        ((_, values),) = folded.cells.values()
        assert [float(value or 0) for value in values] == pytest.approx([9, 27e38, 3e38, 3e38], rel=1e-6)

    def test_expression_beyond_its_type(self, table: Table) -> None:
        """An expression that overflows for a single row is rejected. Mutant: halve for ever."""
        table.insert(1, "2026-11-01", "login")
        with pytest.raises(QueryRefused, match="out of range") as caught:
            table.read(query(where_sql="CAST(id AS int) + 2147483647 > 0"), Window(0, 9))

        assert "expressions of the job" in str(caught.value.hint)

    def test_hint_of_wrong_type(self, table: Table) -> None:
        """A measure of a text column has a hint about its type. Mutant: the hint about missing names."""
        with pytest.raises(QueryRefused, match="operator does not exist") as caught:
            measured(table, "TEXT", "abc")

        assert "Measure a numeric column" in str(caught.value.hint)

    @pytest.mark.parametrize(
        ("where", "where_sql"),
        [((Condition("action", "in", (5,)),), None), ((), "missing(action)"), ((), "-action > 1")],
    )
    def test_hint_of_wrong_type_elsewhere(
        self, table: Table, where: tuple[Condition, ...], where_sql: str | None
    ) -> None:
        """A hint speaks of measures only where one is wrong."""
        with pytest.raises(QueryRefused, match="does not exist") as caught:
            table.read(query(where=where, where_sql=where_sql), FAR)

        assert "column's type" in str(caught.value.hint)
        assert "easure" not in str(caught.value.hint)

    def test_read_time_with_zone(self, table: Table) -> None:
        """A column with a time zone needs no `time_zone`."""
        table.execute("ALTER TABLE audit_trail ALTER created_at TYPE TIMESTAMPTZ")
        table.insert(1, "2026-11-01 12:34:56+02:00", "login")

        assert [row.bucket for row in table.read(query(), FAR)] == [1793529240]

    def test_session_cannot_write(self, table: Table) -> None:
        """Our sessions reject writes."""
        with pytest.raises(Exception, match="read-only"), table.connections.engine.connect() as connection:
            connection.exec_driver_sql("DELETE FROM audit_trail")

    def test_session_holds_no_transaction(self, table: Table, postgresql: PostgreSQL) -> None:
        """After a read no transaction is open that could block an ALTER TABLE."""
        table.read(query(), FAR)
        with postgresql.connect("app") as connection:
            row = connection.execute(b"SELECT COUNT(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'").fetchone()

        assert row == (0,)

    def test_slow_query_ended_by_server(self, postgresql: PostgreSQL) -> None:
        """The server ends a statement that runs too long, and the source is unavailable."""
        url = postgresql.make_database("app")
        with postgresql.connect("app") as connection:
            connection.execute(b"CREATE VIEW slow AS SELECT *, pg_sleep(30)::text AS pause FROM audit_trail")
            connection.execute(b"INSERT INTO audit_trail (action) VALUES ('login')")
        with closing(source_at(url, timeout=1)) as source, pytest.raises(SourceUnavailable, match="statement timeout"):
            source.read(query(table="slow", by=("pause",)), FAR)

    @pytest.mark.parametrize(
        ("changes", "hint"), [({"table": "nothing"}, "Check the names"), ({"by": ("nobody",)}, "Check the names")]
    )
    def test_refused(self, table: Table, changes: dict[str, Any], hint: str) -> None:
        """A missing name is rejected with a hint."""
        with pytest.raises(QueryRefused, match="does not exist") as caught:
            table.read(query(**changes), FAR)

        assert hint in str(caught.value.hint)

    @pytest.mark.parametrize(("user", "database"), [("stranger", "app"), ("root", "nowhere")])
    def test_connection_refused(self, table: Table, postgresql: PostgreSQL, user: str, database: str) -> None:
        """A missing login or database is rejected without showing the password."""
        url = f"postgresql+psycopg://{user}:secret@127.0.0.1:{postgresql.port}/{database}"
        with (
            closing(source_at(url, timeout=5)) as source,
            pytest.raises(QueryRefused, match="does not exist") as caught,
        ):
            source.observe(query())

        assert "secret" not in str(caught.value)

    def test_server_is_down(self) -> None:
        """A server that is down is unavailable, with a hint."""
        url = f"postgresql+psycopg://root@127.0.0.1:{free_port()}/app"
        with closing(source_at(url, timeout=5)) as source, pytest.raises(SourceUnavailable) as caught:
            source.observe(query())

        assert "Check that the database is up" in str(caught.value.hint)


class TestSQLite(SourceContract):
    """SQLite keeps the contract."""

    @pytest.fixture
    def table(self, tmp_path: Path) -> Iterator[Table]:
        """Give an empty table."""
        with closing(on_sqlite(tmp_path / "app.db", is_wal=True, timeout=5)) as table:
            yield table

    def test_no_such_table(self, table: Table) -> None:
        """A missing table is rejected."""
        with pytest.raises(QueryRefused, match="no such table"):
            table.observe(query(table="nothing"))

    def test_no_such_file(self, tmp_path: Path) -> None:
        """A mistyped path is reported, and creates no empty database."""
        file = tmp_path / "typo.db"
        source = source_at(f"sqlite:///{file}", timeout=5)
        with closing(source), pytest.raises(SourceUnavailable, match="unable to open") as caught:
            source.observe(query())

        assert "exist" in str(caught.value.hint)
        assert not file.exists()

    @pytest.mark.timeout(30)
    def test_file_without_an_end(self, tmp_path: Path) -> None:
        """A pipe in the place of the file is not waited for. Mutant: let SQLite open it."""
        os.mkfifo(tmp_path / "app.db")
        with (
            closing(source_at(f"sqlite:///{tmp_path}/app.db", timeout=1)) as source,
            pytest.raises(SourceUnavailable, match="a pipe or a device"),
        ):
            source.observe(query())

    @pytest.mark.timeout(30)
    def test_slow_query_ended_by_itself(self, tmp_path: Path) -> None:
        """A view without an end costs the time-out; the connection can be used again. Mutant: no progress handler."""
        with closing(sqlite3.connect(tmp_path / "app.db")) as table:
            endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n WHERE id < 0"
            table.execute(f"CREATE VIEW endless AS {endless}")
            table.execute("CREATE TABLE audit_trail (id INTEGER PRIMARY KEY)")
        with closing(source_at(f"sqlite:///{tmp_path}/app.db", timeout=1)) as source:
            with pytest.raises(SourceUnavailable, match="interrupted") as caught:
                source.observe(query(table="endless"))
            time.sleep(1.1)

            assert "raise `timeout`" in str(caught.value.hint)
            assert source.observe(query()).id == 0

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ((5.5, 2.25, None, -1e300), (4, Decimal("-1E300"), 5.5, Decimal("-1E300"))),
            ((2**62, 2**62 - 1, -(2**63)), (3, -1, 2**62, -(2**63))),
            ((5, "7"), QueryRefused),
            (("abc",), QueryRefused),
            ((b"\xff",), QueryRefused),
        ],
    )
    def test_read_types(self, table: Table, values: tuple[object, ...], expected: Any) -> None:
        """Numbers that Carbon can hold are exact; other values are rejected.

        Mutants: compare without CAST, where a text is greater than every number; CAST(x AS REAL) in Fit.
        """
        assert_measured(table, "", values, expected)

    def test_read_unfit(self, table: Table) -> None:
        """A value that Carbon could not hold is left out of its group's measures, and reported; the row is counted.

        Mutants: without Fit, where the sum of both infinities is NULL; without the lower end.
        """
        values, rejected = measured(table, "", 5.5, 9e999, -9e999, "1e400", 1e305, 2)

        assert values == (6, Decimal("7.5"), Decimal("5.5"), 2)
        assert rejected == (RejectedValue("x", 4, "inf", 2),)

    @pytest.mark.parametrize("value", [2**62, -(2**62)])
    def test_sum_beyond_its_type(self, table: Table, value: int) -> None:
        """A sum beyond SQLite's integers is added up here, exactly. Mutants: no halves; TOTAL."""
        table.execute("ALTER TABLE audit_trail ADD x")
        for number in range(1, 10):
            row = (number, value + number)
            table.execute("INSERT INTO audit_trail (id, created_at, x) VALUES (%s, '2026-11-01', %s)", row)
        folded = folded_of(table)

        assert [cell.values[:2] for cell in folded.cells.values()] == [(9, 9 * value + 45)]

    @pytest.mark.parametrize("is_custom", [False, True])
    def test_read_bytes(self, table: Table, is_custom: bool) -> None:  # noqa: FBT001 - a column of the table
        """A text that is not UTF-8 is a group, and hides no other group. Mutant: sqlite3's own text_factory."""
        for number, name in enumerate([b"\xff", b"a\0b", b"\xf0\x9f", b"a"], 1):
            table.execute("INSERT INTO audit_trail (id, action) VALUES (%s, CAST(%s AS TEXT))", (number, name))
        sql = "SELECT action, COUNT(*) AS count FROM audit_trail WHERE id > :after AND id <= :upto GROUP BY action"
        counted = query(sql=sql, time=None, measures=(COUNT,)) if is_custom else query()

        groups = {row.group[0]: row.rows for row in table.read(counted, FAR)}
        assert groups == dict.fromkeys(["\\xff", "a\0b", "\\xf0\\x9f", "a"], 1)

    def test_values_that_do_not_fit(self, table: Table) -> None:
        """A value that the database cannot take is rejected."""
        with pytest.raises(QueryRefused):
            table.read(query(where=(Condition("id", "in", (2**70,)),)), FAR)

    def test_session_cannot_write(self, table: Table) -> None:
        """Our sessions reject writes."""
        with pytest.raises(Exception, match="readonly"), table.connections.engine.connect() as connection:
            connection.exec_driver_sql("DELETE FROM audit_trail")


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize(("columns", "is_leading"), [("", False), ("action, created_at", False), ("created_at", True)])
def test_index_of_time(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, columns: str, *, is_leading: bool
) -> None:
    """Only an index that begins with the time finds the rows of a span, in UTC, where a column has one type.

    Mutants: any index; any time zone; on SQLite, too.
    """
    with closing(on(kind, request, tmp_path)) as table:
        if columns:
            table.execute(f"CREATE INDEX any_index ON audit_trail ({columns})", ())

        assert table.has_index_of_time(query()) is (is_leading and kind != "sqlite")
        assert not table.has_index_of_time(query(time_zone="Europe/Berlin"))
        assert not table.has_index_of_time(query(time_sql="created_at"))
        assert not table.has_index_of_time(query(time=None))


def test_source_name_shows_no_credentials() -> None:
    """The name of a source shows host and database only."""
    source = source_at("mysql+pymysql://me:secret@db1.internal:3307/app", timeout=5)

    assert str(source) == "mysql db1.internal:3307/app"


@pytest.mark.parametrize("kind", DATABASES)
def test_plan_of_a_statement_of_any_width(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """A plan is read whatever the number of columns of the statement. Mutant: read it as the statement's result."""
    with closing(on(kind, request, tmp_path)) as table:
        table.insert(1, "2026-11-01 00:00:00", "login")
        with closing(Examination("app", Access(sa.make_url(table.url), 30))) as source:
            plans = set()
            for width in range(12):
                names = tuple(f"label_{number}" for number in range(width))
                wide = query(by=names, by_sql=tuple((name, "action") for name in names))
                plans.add(source.plan(source.prepared(wide), Window(0, 9)).text)

    assert len(plans) == 1
