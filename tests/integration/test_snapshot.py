"""Snapshots of real databases beside real transactions: the rows that a look sees, the statements that it blocks."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from builders import query
from harness import wait_for
from servers import MariaDB, PostgreSQL
from tables import DATABASES, Table, on, on_mariadb, on_postgresql, on_sqlite

from shipper.core.errors import QueryRefused, SourceUnavailable
from shipper.core.id_set import Gaps, IdSet, ids_of, words_of
from shipper.core.measures import Kind, Measure
from shipper.core.model import Names, Query, Window
from shipper.source.access import Access
from shipper.source.database import Source
from shipper.source.dialects.by_name import dialect_named

FAR = Window(0, 10**6)
SOON_SECONDS = 10.0
IDS = {
    "primary key": ("", True),
    "composite primary key": ("PRIMARY KEY (id, outcome)", False),
    "unique index": ("UNIQUE (id)", True),
    "composite unique index": ("UNIQUE (outcome, id), UNIQUE (id, outcome)", False),
    "plain index": ("INDEX", False),
    "nothing": (None, False),
}
OWN = {
    "postgresql": [
        ("CREATE UNIQUE INDEX own ON audit_trail (id) WHERE outcome = 'ok'", False),
        ("CREATE UNIQUE INDEX own ON audit_trail ((id + 0))", False),
        ("CREATE UNIQUE INDEX own ON audit_trail (id) INCLUDE (outcome)", True),
        ("CREATE UNIQUE INDEX own ON audit_trail (outcome, (id + 0))", False),
    ],
    "sqlite": [
        ("CREATE UNIQUE INDEX own ON audit_trail (id) WHERE outcome = 'ok'", False),
        ("CREATE UNIQUE INDEX own ON audit_trail (id + 0)", False),
        ("CREATE UNIQUE INDEX own ON audit_trail (id)", True),
    ],
    "mariadb": [
        ("CREATE UNIQUE INDEX own ON audit_trail (outcome(3), id)", False),
        ("CREATE UNIQUE INDEX own ON audit_trail (id)", True),
    ],
}


@pytest.fixture(params=DATABASES)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    """Give an empty table on each kind of database."""
    with closing(on(request.param, request, tmp_path)) as table:
        yield table


@pytest.fixture
def on_servers(table: Table) -> Table:
    """Give the table on servers, where other sessions may change it meanwhile."""
    if table.kind == "sqlite":
        pytest.skip("a file has one writer")
    return table


def is_waiting(table: Table) -> bool:
    """Return whether a session waits for a lock on a table."""
    statements = {
        "mariadb": "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for table metadata%'",
        "postgresql": "SELECT COUNT(*) FROM pg_locks WHERE NOT granted",
    }
    ((waiting,),) = table.execute(statements[table.kind])
    return bool(waiting)


def begin_job(table: Table, statement: str) -> threading.Thread:
    """Run a statement on a thread, and return once it waits for a lock."""
    thread = threading.Thread(target=table.execute, args=(statement,), daemon=True)
    thread.start()
    wait_for(lambda: is_waiting(table), f"a lock: {statement}")
    return thread


@pytest.mark.parametrize("name", IDS)
def test_is_unique(table: Table, name: str) -> None:
    """Only an index of just the id proves that ids are unique. Mutant: any index that begins with the id."""
    keys, is_proven = IDS[name]
    if keys != "":
        table.execute("DROP TABLE audit_trail")
        own = f", {keys}" if keys and keys != "INDEX" else ""
        table.execute(f"CREATE TABLE audit_trail (id BIGINT NOT NULL, outcome VARCHAR(16) NOT NULL{own})")
    if keys == "INDEX":
        table.execute("CREATE INDEX own ON audit_trail (id)")

    assert table.is_unique(query()) is is_proven


def test_late_id_that_is_no_integer(tmp_path: Path) -> None:
    """If SQLite's id is no integer, it counts as the integer below, as in a window, or is rejected beside that.

    Mutants: an index in bytes that is no integer; take it for the integer, without a comparison.
    """
    with closing(on_sqlite(tmp_path / "app.db")) as table:
        table.execute("DROP TABLE audit_trail")
        table.execute("CREATE TABLE audit_trail (id INT PRIMARY KEY)")
        table.execute("INSERT INTO audit_trail VALUES (1), (5.5), (9)")
        gaps = Gaps([(1, 9)], [])
        alone = ids_of(table.appeared(query(), IdSet(0, 1), gaps))
        table.execute("INSERT INTO audit_trail VALUES (5)")

        assert table.is_unique(query())
        assert alone == [5, 9]
        with pytest.raises(QueryRefused, match="3 rows have only 2 different values"):
            table.appeared(query(), IdSet(0, 1).added(words_of([5])), gaps)


def test_many_ranges(tmp_path: Path) -> None:
    """Gaps in more ranges than a UNION of SQLite may have are asked for one by one. Mutant: in one statement."""
    with closing(on_sqlite(tmp_path / "app.db")) as table:
        table.insert(5, None, "login")
        gaps = Gaps([(10 * one, 10 * one + 6) for one in range(600)], [])

        assert ids_of(table.appeared(query(), IdSet(0, 0), gaps)) == [5]
        assert table.read_at_once(query(), Window(6000, 6001), gaps) is None


def test_is_unique_own(table: Table) -> None:
    """An index of some rows or of an expression proves nothing; one of a nullable id does, because NULL is no id.

    Mutants: without indpred, without indexprs, without partial.
    """
    table.loosen()
    for statement, is_proven in OWN[table.kind]:
        table.execute(statement)
        with closing(Source("app", Access(sa.make_url(table.url), 30))) as source:
            assert source.is_unique(query()) is is_proven, statement
        table.execute("DROP INDEX own ON audit_trail" if table.kind == "mariadb" else "DROP INDEX own")


def test_is_unique_of_a_view(table: Table) -> None:
    """Ids of a view may repeat. Mutant: the key of the view's table."""
    table.execute("CREATE VIEW shown AS SELECT * FROM audit_trail UNION ALL SELECT * FROM audit_trail")
    table.insert(1, None, "login")

    assert not table.is_unique(query(table="shown"))
    with pytest.raises(QueryRefused), table.snapshot(query(table="shown")):
        table.words(query(table="shown"), FAR)


def test_is_unique_with_heirs(postgresql: PostgreSQL) -> None:
    """The key of a table does not cover the tables that inherit from it. Mutant: without pg_inherits."""
    with closing(on_postgresql(postgresql)) as table:
        table.execute("CREATE TABLE older () INHERITS (audit_trail)")
        table.execute("INSERT INTO audit_trail (id) VALUES (1), (2)")
        table.execute("INSERT INTO older (id) VALUES (2)")

        assert not table.is_unique(query())


def test_rows_in_flight(table: Table) -> None:
    """A look sees a row once it is committed, within a snapshot and outside; and no row that was rolled back.

    Mutant: READ UNCOMMITTED.
    """
    insert = "INSERT INTO audit_trail (id, action) VALUES ({}, 'late')"
    if table.kind != "sqlite":  # there it would wait for the transaction
        with table.in_flight(insert.format(7)):
            table.insert(8, None, "login")
    table.insert(9, None, "login")
    with table.in_flight(insert.format(5), insert.format(6)) as execute, table.snapshot(query()):
        before = ids_of(table.words(query(), FAR))
        assert 9 in before
        assert not {5, 6, 7} & set(before)
        execute("COMMIT")
        assert ids_of(table.words(query(), FAR)) == ids_of(table.words(query(), (*range(1, 20),))) == before

    assert ids_of(table.words(query(), FAR)) == sorted([5, 6, *before])


def test_jobs_share_answers(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """All jobs in one snapshot of a table read its ids once; the next snapshot reads them again.

    Mutants: remember beyond the snapshot; remember nothing.
    """
    monkeypatch.setattr("shipper.source.connections.connection.SNAPSHOT_SECONDS", 60.0)  # however slow this machine is
    statements: list[str] = []
    sa.event.listen(table.connections.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    by_action, by_outcome = query(), query(by=("outcome",))
    with table.held():
        with table.snapshot(by_action):
            words = table.words(by_action, FAR)
        number = len(statements)
        with table.snapshot(by_outcome):
            assert table.words(by_outcome, FAR) == words
        assert len(statements) == number
        table.insert(1, None, "login")
        with table.snapshot(by_outcome, since=time.monotonic()):
            assert table.words(by_outcome, FAR) == {0: 2}


def scatter(table: Table, first: int) -> None:
    """Insert rows of which no two ids share a word."""
    rows = ", ".join(f"({first + number * 70}, 'login', 'ok')" for number in range(1200))
    table.execute(f"INSERT INTO audit_trail (id, action, outcome) VALUES {rows}")


def test_scattered_ids(table: Table) -> None:
    """Ids that share no word are listed, exactly, from the second time on, gaps and all.

    Mutants: take a list that the server has cut for all of it; never list.
    """
    scatter(table, 1)
    statements: list[str] = []
    sa.event.listen(table.connections.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    expected = [number * 70 + 1 for number in range(1200)]

    assert [ids_of(table.words(query(), FAR)) for _ in range(2)] == [expected, expected]
    assert ["GROUP BY" in statement for statement in statements] == [True, False]
    assert table.words(query(), Window(1, 70)) == {}


@pytest.mark.parametrize("longest", [1000, 7 * 600, 7 * 1200 - 3])
def test_cut_list_of_ids(mariadb: MariaDB, longest: int) -> None:
    """A list that is too long for the server comes to all ids all the same, wherever it is cut.

    Mutant: count the ids only.
    """
    with closing(on_mariadb(mariadb)) as table:
        scatter(table, 100_001)
        cut = f"SET SESSION group_concat_max_len = {longest}"
        sa.event.listen(table.connections.engine, "connect", lambda connection, _: connection.cursor().execute(cut))

        listed = [ids_of(table.words(query(), FAR)) for _ in range(2)]
        assert listed == [[number * 70 + 100_001 for number in range(1200)]] * 2


def test_statement_after_an_error_within(table: Table) -> None:
    """Statements after an error within the same snapshot fail: their rows would be of another moment.

    Mutant: run them outside the snapshot.
    """
    with table.held():
        with table.snapshot(query()):
            with pytest.raises(QueryRefused):
                table.read(query(by=("missing",)), FAR)
            with pytest.raises(SourceUnavailable, match="the snapshot has ended"):
                table.count(query(), FAR)
        assert table.count(query(), FAR) == 0


def test_number_of_a_connection(table: Table) -> None:
    """The number of the connection changes as soon as the next statement takes another connection.

    Mutants: the number of the last connection; a number for each statement.
    """
    with table.held():
        table.count(query(), FAR)
        first = table.connection_number
        table.count(query(), FAR)
        assert table.connection_number == first
        with pytest.raises(QueryRefused):
            table.read(query(by=("missing",)), FAR)
        assert table.connection_number != first
        table.count(query(), FAR)
        assert table.connection_number != first


def test_truncate_waits_for_a_look(on_servers: Table) -> None:
    """A TRUNCATE waits for the look that reads the table, which sees all rows, and for no longer.

    Mutant: without LOCK TABLE on PostgreSQL, where the first statement would find nothing.
    """
    table = on_servers
    table.insert(1, None, "login")
    with table.held(), table.snapshot(query()):
        if table.kind == "mariadb":  # there, the first statement locks the table
            assert table.count(query(), FAR) == 1
        truncating = begin_job(table, "TRUNCATE TABLE audit_trail")
        assert ids_of(table.words(query(), FAR)) == [1]
        assert [row.rows for row in table.read(query(), FAR)] == [1]
    truncating.join(SOON_SECONDS)

    assert not truncating.is_alive()
    assert table.count(query(), FAR) == 0


@pytest.mark.parametrize("how", ["TRUNCATE TABLE audit_trail", "ALTER TABLE audit_trail MODIFY duration_ms BIGINT"])
def test_definition_changed(mariadb: MariaDB, how: str) -> None:
    """A look at a table that was emptied or altered after the snapshot began fails, instead of missing rows.

    The next look is right.
    """
    with closing(on_mariadb(mariadb)) as table:
        table.insert(1, None, "login")
        with table.held():
            with pytest.raises(SourceUnavailable, match="definition has changed"), table.snapshot(query()):
                table.execute(how)
                table.words(query(), FAR)

            with table.snapshot(query()):
                assert ids_of(table.words(query(), FAR)) == ([] if "TRUNCATE" in how else [1])


@pytest.mark.parametrize("engine", ["MyISAM", "Aria", "MEMORY"])
def test_engine_without_transactions(mariadb: MariaDB, engine: str) -> None:
    """A table without transactions is rejected; the ALTER TABLE of the hint fixes it.

    A row that is inserted between ids and counts would be in the totals, and counted twice once its id is seen.
    Mutants: reject nothing; MyISAM alone.
    """
    with closing(on_mariadb(mariadb)) as table:
        accepted = table.prepared(query())
        table.execute(f"ALTER TABLE audit_trail ENGINE = {engine}")
        with pytest.raises(QueryRefused):
            table.prepared(query(table="app.audit_trail"))
        with pytest.raises(QueryRefused, match=f"its engine, {engine}, has no transactions") as caught:
            table.prepared(query())
        hint = str(caught.value.hint)
        assert hint == "Give it an engine with transactions: ALTER TABLE `app`.`audit_trail` ENGINE = InnoDB;"
        table.execute(hint.partition(": ")[2])
        assert table.prepared(query()) == accepted


@pytest.mark.parametrize("depth", [1, 2])
def test_engine_behind_a_view(mariadb: MariaDB, depth: int) -> None:
    """So is a view of such a table, also through another view; the ALTER TABLE of the hint fixes it.

    Mutants: look at the engine of the view, which has none; follow one view only; take each table of the server.
    """
    with closing(on_mariadb(mariadb)) as table:
        table.execute("CREATE TABLE other (id INT PRIMARY KEY) ENGINE = MyISAM")
        table.execute("CREATE VIEW seen1 AS SELECT one.* FROM audit_trail AS one")
        table.execute("CREATE VIEW seen2 AS SELECT other.* FROM seen1 AS other")
        wanted = query(table=f"seen{depth}")
        accepted = table.prepared(wanted)
        table.execute("ALTER TABLE audit_trail ENGINE = MyISAM")
        with pytest.raises(QueryRefused, match=r"the engine of app\.audit_trail, MyISAM, has no") as caught:
            table.prepared(wanted)
        hint = str(caught.value.hint)
        assert hint == "Give it an engine with transactions: ALTER TABLE `app`.`audit_trail` ENGINE = InnoDB;"
        table.execute(hint.partition(": ")[2])
        assert table.prepared(wanted) == accepted


def test_rewritten(postgresql: PostgreSQL) -> None:
    """An ALTER TABLE that rewrites the table waits for the look. Mutant: without LOCK TABLE, which sees no rows."""
    with closing(on_postgresql(postgresql)) as table:
        table.insert(1, None, "login")
        alter = "ALTER TABLE audit_trail ALTER duration_ms TYPE bigint"
        with table.held(), table.snapshot(query()):
            altering = begin_job(table, alter)
            assert ids_of(table.words(query(), FAR)) == [1]
        altering.join(SOON_SECONDS)

        assert not altering.is_alive()
        assert ids_of(table.words(query(), FAR)) == [1]


def test_grants_on_columns(postgresql: PostgreSQL) -> None:
    """A snapshot needs only the grants of `shipper admin grants`: SELECT on columns. Mutant: LOCK TABLE or nothing."""
    with closing(on_postgresql(postgresql)) as table:
        table.insert(1, "2026-11-01 00:00:00", "login")
        table.execute("DROP ROLE IF EXISTS reader")
        table.execute("CREATE ROLE reader LOGIN")
        table.execute("GRANT SELECT (id, created_at, action) ON audit_trail TO reader")
        url = f"postgresql+psycopg://reader@127.0.0.1:{postgresql.port}/app"
        try:
            with closing(Source("app", Access(sa.make_url(url), 30))) as source:
                for _ in range(2):
                    with source.snapshot(query()):
                        assert ids_of(source.words(query(), FAR)) == [1]
                        assert [row.rows for row in source.read(query(), FAR)] == [1]
        finally:
            table.execute("DROP OWNED BY reader")
            table.execute("DROP ROLE reader")


@contextmanager
def reading(table: Table, *grants: str) -> Iterator[Source]:
    """Give a source whose user has only these grants."""
    for statement in ("DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN", *grants):
        table.execute(statement)
    url = sa.make_url(table.url).set(username="reader")
    try:
        with closing(Source("app", Access(url, 30))) as source:
            yield source
    finally:
        table.execute("DROP OWNED BY reader")
        table.execute("DROP ROLE reader")


QUESTIONS: dict[str, Callable[[Source, Query], object]] = {
    "rows": lambda source, of: source.read(of, FAR),
    "ids": lambda source, of: source.words(of, FAR),
    "late ids": lambda source, of: source.appeared(of, IdSet(0, 0), Gaps([(0, 9)], [])),
    "late ids, one by one": lambda source, of: source.appeared(of, IdSet(0, 0), Gaps([], [1, 3])),
}


@pytest.mark.parametrize("asked", QUESTIONS)
@pytest.mark.parametrize("path", ["audit_trail", "shown"])
@pytest.mark.parametrize("how", ["TRUNCATE audit_trail", "ALTER TABLE audit_trail ALTER duration_ms TYPE bigint"])
def test_rewritten_without_a_lock(postgresql: PostgreSQL, path: str, how: str, asked: str) -> None:
    """If a table that cannot be locked, or a view's table, is rewritten after the snapshot began, the look fails.

    An empty answer about ids would give gaps up whose rows are there. Mutants: pg_relation_filenode as of the
    snapshot; check the file of the named table only; check rows only.
    """
    with closing(on_postgresql(postgresql)) as table:
        table.insert(1, "2026-11-01 00:00:00", "login")
        table.execute("CREATE VIEW shown AS SELECT id, created_at, action FROM audit_trail")
        grant = f"GRANT SELECT (id, created_at, action) ON {path} TO reader"
        with reading(table, grant) as source:
            on_path = query(table=path)
            with (
                pytest.raises(SourceUnavailable, match="a table was changed by TRUNCATE or ALTER TABLE"),
                source.snapshot(on_path),
            ):
                settle(source)
                table.execute(how)
                QUESTIONS[asked](source, on_path)


def settle(source: Source) -> None:
    """Begin the snapshot without reading a table."""
    with source.connections.connected("begin") as connection:
        connection.exec_driver_sql("SELECT 1")


def beside_customers(table: Table) -> None:
    """Add a table with partitions that custom SQL joins, a function that reads it, and four rows."""
    table.execute("CREATE TABLE customers (id int, name varchar(9)) PARTITION BY RANGE (id)")
    table.execute("CREATE TABLE customers_1 PARTITION OF customers FOR VALUES FROM (0) TO (3)")
    table.execute("CREATE TABLE customers_2 PARTITION OF customers FOR VALUES FROM (3) TO (99)")
    table.execute("INSERT INTO customers SELECT n, 'x' FROM generate_series(1, 9) AS n")
    table.execute(
        "CREATE FUNCTION is_known(bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS "
        "'BEGIN RETURN EXISTS (SELECT 1 FROM customers WHERE id = $1); END'"
    )
    for number in (1, 2, 4, 5):
        table.insert(number, "2026-11-01 00:00:00", "login")


JOINED = (
    "SELECT created_at, action, COUNT(*) AS count FROM audit_trail JOIN customers USING (id) "
    "WHERE audit_trail.id > :after AND audit_trail.id <= :upto GROUP BY 1, 2"
)
CUSTOM_SQL = {
    "sql": query(sql=JOINED, measures=(Measure("count", Kind.SUM, "count"),)),
    "where_sql": query(where_sql="id IN (SELECT id FROM customers)"),
    "function": query(where_sql="is_known(id)"),
    "by_sql": query(by_sql=(("action", "(SELECT name FROM customers WHERE id = audit_trail.id)"),)),
    "names": query(names=(Names("action", sql="SELECT id, name FROM customers"),)),
}
REWRITES = {
    "altered": ("ALTER TABLE customers ALTER name TYPE text USING name || 'y'",),
    "a partition": ("ALTER TABLE customers_2 ALTER name SET STORAGE PLAIN", "VACUUM FULL customers_2"),
    "filled again": ("TRUNCATE customers", "INSERT INTO customers SELECT n, 'x' FROM generate_series(1, 9) AS n"),
    "another partition": (
        "DROP TABLE customers_2",
        "CREATE TABLE customers_2 PARTITION OF customers FOR VALUES FROM (3) TO (99)",
        "INSERT INTO customers SELECT n, 'x' FROM generate_series(3, 9) AS n",
    ),
}


@pytest.mark.parametrize("how", REWRITES)
@pytest.mark.parametrize("kind", CUSTOM_SQL)
def test_joined_table_rewritten(postgresql: PostgreSQL, kind: str, how: str) -> None:
    """Custom SQL fails if a table that it joins was rewritten after the snapshot began.

    The joined table would look empty, and its rows would pass for counted. The next snapshot is right.
    Mutants: check nothing; take tables that the snapshot does not know for unchanged; check tables of `sql` only.
    """
    with closing(on_postgresql(postgresql)) as table:
        beside_customers(table)
        custom = CUSTOM_SQL[kind]
        with table.held():
            with (
                pytest.raises(SourceUnavailable, match="a table was changed by TRUNCATE or ALTER TABLE"),
                table.snapshot(custom),
            ):
                assert ids_of(table.words(custom, FAR)) == [1, 2, 4, 5]
                for statement in REWRITES[how]:
                    table.execute(statement)
                table.read(custom, FAR)

            with table.snapshot(custom):
                assert ids_of(table.words(custom, FAR)) == [1, 2, 4, 5]
                assert sum(row.rows for row in table.read(custom, FAR)) == 4


@pytest.mark.parametrize("kind", CUSTOM_SQL)
def test_joined_table_rewritten_outside(postgresql: PostgreSQL, kind: str) -> None:
    """Custom SQL that waits for an ALTER TABLE of a joined table fails, and succeeds the next time.

    A function sees the table as of the moment when its statement began to wait: without rows.
    Mutant: read without a snapshot, where rewrites are unknown.
    """
    with closing(on_postgresql(postgresql)) as table:
        beside_customers(table)
        results: list[int | str] = []

        def read() -> None:
            try:
                results.append(sum(row.rows for row in table.read(CUSTOM_SQL[kind], FAR)))
            except SourceUnavailable as error:
                results.append(str(error))

        with table.in_flight(*REWRITES["altered"]) as execute:
            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            wait_for(lambda: is_waiting(table), "a statement that waits")
            execute("COMMIT")
        reader.join(SOON_SECONDS)
        read()

        assert results == ["read audit_trail: a table was changed by TRUNCATE or ALTER TABLE during the reading", 4]


def test_server_without_a_name(postgresql: PostgreSQL) -> None:
    """A user who may not read the server's name can read the table. Mutant: read the name within the snapshot."""
    with closing(on_postgresql(postgresql)) as table:
        table.insert(1, "2026-11-01 00:00:00", "login")
        table.execute("REVOKE EXECUTE ON FUNCTION pg_control_system FROM PUBLIC")
        table.execute("DROP ROLE IF EXISTS reader")
        table.execute("CREATE ROLE reader LOGIN")
        table.execute("GRANT SELECT ON audit_trail TO reader")
        url = f"postgresql+psycopg://reader@127.0.0.1:{postgresql.port}/app"
        try:
            with closing(Source("app", Access(sa.make_url(url), 30))) as source, source.snapshot(query()):
                assert source.fingerprint(query(), 9).server is None
                assert ids_of(source.words(query(), FAR)) == [1]
        finally:
            table.execute("GRANT EXECUTE ON FUNCTION pg_control_system TO PUBLIC")
            table.execute("DROP OWNED BY reader")
            table.execute("DROP ROLE reader")


def test_other_kinds_of_tables(postgresql: PostgreSQL) -> None:
    """A materialized view and a partitioned table can be read, too. Mutant: LOCK TABLE or nothing."""
    with closing(on_postgresql(postgresql)) as table:
        table.insert(1, "2026-11-01 00:00:00", "login")
        table.execute("CREATE MATERIALIZED VIEW kept AS SELECT * FROM audit_trail")
        table.execute("CREATE TABLE parted (LIKE audit_trail) PARTITION BY RANGE (id)")
        table.execute("CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (9)")
        table.execute("INSERT INTO parted SELECT * FROM audit_trail")
        for name in ("kept", "parted", "public.parted"):
            with table.snapshot(query(table=name)):
                assert ids_of(table.words(query(table=name), FAR)) == [1], name


@pytest.mark.parametrize("table", ["mariadb", "postgresql"], indirect=True)  # MySQL has no such limit
def test_idle_snapshot_is_ended_by_the_server(on_servers: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends an idle snapshot, so that no statement waits for it; the next snapshot works.

    Mutant: no time-out of the server.
    """
    table = on_servers
    table.insert(1, None, "login")
    monkeypatch.setattr(dialect_named(table.kind), "IDLE_SECONDS", 1)
    with closing(Source("app", Access(sa.make_url(table.url), 30))) as source, source.held():
        with pytest.raises(SourceUnavailable), source.snapshot(query()):
            assert source.count(query(), FAR) == 1
            table.execute("ALTER TABLE audit_trail ADD extra INT")  # waits until the server has ended it
            source.count(query(), FAR)
        with source.snapshot(query()):
            assert source.count(query(), FAR) == 1


def test_killed_within_a_snapshot(on_servers: Table) -> None:
    """A look whose connection ends within a snapshot fails, and the next snapshot works."""
    table = on_servers
    kill = {
        "mariadb": "SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE command = 'Sleep'",
        "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shipper'",
    }[table.kind]
    table.insert(1, None, "login")
    with table.held():
        with pytest.raises(SourceUnavailable), table.snapshot(query()):
            assert table.count(query(), FAR) == 1
            with table.session() as execute:
                for (statement,) in execute(kill):
                    if table.kind == "mariadb":
                        execute(statement)
            table.insert(2, None, "login")
            table.count(query(), FAR)
        with table.snapshot(query()):
            assert table.count(query(), FAR) == 2


def test_isolation_that_others_chose(postgresql: PostgreSQL) -> None:
    """A statement that waits for an ALTER TABLE sees the rows, whatever the database's default isolation is.

    Mutant: keep the default, and the statement sees the old table, which has no rows now.
    """
    with closing(on_postgresql(postgresql)) as table:
        table.insert(7, None, "login")
        table.execute("ALTER DATABASE app SET default_transaction_isolation = 'repeatable read'")
        ids: list[int] = []
        with table.in_flight("ALTER TABLE audit_trail ALTER duration_ms TYPE bigint") as execute:
            reader = threading.Thread(target=lambda: ids.append(table.observe(query()).id), daemon=True)
            reader.start()
            wait_for(lambda: is_waiting(table), "a statement that waits")
            execute("COMMIT")
        reader.join(SOON_SECONDS)

        assert ids == [7]
