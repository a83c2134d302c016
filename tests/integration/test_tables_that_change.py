"""Tables that change under a running service: no row is lost or doubled, and errors are reported."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from harness import wait_for
from looks import Looks, brief, wanted
from servers import MariaDB, PostgreSQL
from tables import DATABASES, Table, on, on_mariadb, on_postgresql

from shipper.core.errors import QueryRefused, ShipperError, SourceUnavailable
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Job
from shipper.runtime.clocks import Clocks
from shipper.runtime.poller import PollingGroup, group_key
from shipper.runtime.worker import Worker

EVENTS = wanted(late=6 * 3600)
NAMING = {
    "outcome": wanted("named", by=("outcome",), template="named.{outcome}.{measure}", late=6 * 3600),
    "duration_ms": wanted("named", measures=(COUNT, Measure("ms", Kind.SUM, "duration_ms")), late=6 * 3600),
}
"""Jobs by the column that they name."""
COLUMNS = "id, created_at, end_date, action, outcome, duration_ms"
SOON_SECONDS = 10.0
LIKE = {
    "mariadb": "CREATE TABLE {} LIKE audit_trail",
    "postgresql": "CREATE TABLE {} (LIKE audit_trail INCLUDING ALL)",
}


def looks_at(request: pytest.FixtureRequest, kind: str, folder: Path) -> Iterator[Looks]:
    """Give an empty table that no job has read yet."""
    with closing(on(kind, request, folder)) as table, closing(Looks(table, folder)) as looks:
        yield looks


@pytest.fixture(params=DATABASES)
def looks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Looks]:
    """Give an empty table on each kind of database."""
    yield from looks_at(request, request.param, tmp_path)


@pytest.fixture(params=["mariadb", "mysql", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Looks]:
    """Give an empty table on each kind of server."""
    yield from looks_at(request, request.param, tmp_path)


def insert(looks: Looks, identity: int, *, table: str = "audit_trail") -> None:
    """Commit a row with values in the columns that stay."""
    statement = f"INSERT INTO {table} (id, created_at, action) VALUES (%s, %s, 'login')"
    looks.table.execute(statement, (identity, looks.created(5)))


class Between:
    """A source that runs a function right before a method is called for the given time."""

    def __init__(self, source: Table, name: str, run: Callable[[], object], number: int = 1) -> None:
        self._source, self._name, self._run, self._left = source, name, run, number

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._source, name)
        if name != self._name:
            return method

        def call(*arguments: Any, **keywords: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self._run()
            return method(*arguments, **keywords)

        return call


def beside(table: Table, statement: str) -> Callable[[], None]:
    """Return a function that runs a statement on a separate thread, and waits a moment for it."""

    def run() -> None:
        thread = threading.Thread(target=table.execute, args=(statement,), daemon=True)
        thread.start()
        thread.join(0.3)  # it ends, or waits for this look

    return run


@pytest.mark.parametrize("how", ["dropped", "renamed"])
@pytest.mark.parametrize("column", ["outcome", "duration_ms"])
def test_column_that_a_job_names(looks: Looks, how: str, column: str) -> None:
    """A job whose column is missing fails, with a hint; when the column is back, the job continues with all rows.

    Mutant: record a window whose query has failed.
    """
    job = NAMING[column]
    looks.insert([1, 2, 4], ago=5)
    looks.look(job)
    back = f"ALTER TABLE audit_trail RENAME COLUMN gone TO {column}"
    if how == "dropped":
        looks.table.execute(f"ALTER TABLE audit_trail DROP COLUMN {column}")
        back = f"ALTER TABLE audit_trail ADD {column} " + ("INT" if column == "duration_ms" else "VARCHAR(16)")
    else:
        looks.table.execute(f"ALTER TABLE audit_trail RENAME COLUMN {column} TO gone")
    for number in (3, 5):  # one in a gap
        insert(looks, number)
        with pytest.raises(QueryRefused) as caught:
            looks.look(job)
        assert "Check the names" in str(caught.value.hint)
    assert looks.total(job) == 3
    looks.table.execute(back)
    looks.look(job)
    looks.look(job)

    assert looks.total(job) == 5
    assert looks.ids(job) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("is_first", [True, False])
def test_column_that_others_do_not_name(looks: Looks, is_first: bool) -> None:  # noqa: FBT001 - in the line
    """The other jobs of the table continue, in the same look, whether their windows have gaps or not.

    Mutants: end the round with the first job that fails; keep a snapshot that has failed.
    """
    clocks = Clocks()
    workers = [
        Worker(job, looks.table, looks.state, clocks, unit=3600, timeout=30) for job in (NAMING["outcome"], EVENTS)
    ]
    polling_group = PollingGroup(group_key(EVENTS), looks.table, looks.state, clocks, max_skew=10**9, timeout=30)
    polling_group.join(workers if is_first else reversed(workers))
    looks.insert([1, 2, 4], ago=5)
    assert polling_group.observe()
    assert polling_group.capture()
    looks.table.execute("ALTER TABLE audit_trail RENAME COLUMN outcome TO gone")
    for number in (5, 3, 9):
        insert(looks, number)
        assert polling_group.observe()
        assert not polling_group.capture()
    assert looks.ids(EVENTS) == [1, 2, 3, 4, 5, 9]
    assert looks.ids(NAMING["outcome"]) == [1, 2, 4]
    looks.table.execute("ALTER TABLE audit_trail RENAME COLUMN gone TO outcome")
    assert polling_group.observe()
    assert polling_group.capture()

    for job in (EVENTS, NAMING["outcome"]):
        assert looks.ids(job) == [1, 2, 3, 4, 5, 9]
        assert looks.total(job) == 6


@pytest.mark.parametrize("way", ["triggers", "rowcopy"])
def test_online_schema_change(served: Looks, way: str) -> None:
    """A copy that replaces the table, with the same rows and one column more, is the same table.

    pt-online-schema-change copies by triggers, gh-ost by the binary log; rows are inserted meanwhile, some late.
    """
    looks, table = served, served.table
    looks.insert([*range(1, 40), *range(41, 50)], ago=5)
    looks.look(EVENTS)
    table.execute(LIKE[table.kind].format("copied"))
    table.execute(
        "ALTER TABLE copied ADD extra INT, ALTER COLUMN action TYPE VARCHAR(80)"
        if table.kind == "postgresql"
        else "ALTER TABLE copied ADD extra INT, MODIFY action VARCHAR(80)"
    )
    if way == "triggers":
        _mirrored(table)
    copy = f"INSERT INTO copied ({COLUMNS}) SELECT {COLUMNS} FROM audit_trail WHERE id > %s AND id <= %s"
    for start in range(0, 60, 20):
        table.execute(copy, (start, start + 20))
        if start == 20:
            looks.insert([60 + start], ago=4)
        looks.look(EVENTS)
    if way == "rowcopy":
        table.execute(f"INSERT INTO copied ({COLUMNS}) SELECT {COLUMNS} FROM audit_trail WHERE id > 60")
    _swapped(table)
    assert looks.look(EVENTS) == []
    looks.insert([40, 90], ago=3)
    assert looks.look(EVENTS) == []
    table.execute("DROP TABLE older")
    looks.look(EVENTS)

    assert looks.ids(EVENTS) == [*range(1, 50), 80, 90]
    assert looks.total(EVENTS) == 51
    assert table.execute("SELECT COUNT(*) FROM audit_trail") == [(51,)]


def _mirrored(table: Table) -> None:
    """Add a trigger that copies each new row."""
    values = ", ".join(f"NEW.{column}" for column in COLUMNS.split(", "))
    insert = f"INSERT INTO copied ({COLUMNS}) VALUES ({values})"
    if table.kind == "mariadb":
        table.execute(f"CREATE TRIGGER mirror AFTER INSERT ON audit_trail FOR EACH ROW {insert}")
        return
    table.execute(f"CREATE FUNCTION mirror() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {insert}; RETURN NULL; END$$")
    table.execute("CREATE TRIGGER mirror AFTER INSERT ON audit_trail FOR EACH ROW EXECUTE FUNCTION mirror()")


def _swapped(table: Table) -> None:
    """Replace the table by the copy, in one step."""
    if table.kind == "mariadb":
        table.execute("DROP TRIGGER IF EXISTS mirror")
        table.execute("RENAME TABLE audit_trail TO older, copied TO audit_trail")
        return
    with table.session() as execute:
        execute("BEGIN")
        execute("DROP TRIGGER IF EXISTS mirror ON audit_trail")
        execute("ALTER TABLE audit_trail RENAME TO older")
        execute("ALTER TABLE copied RENAME TO audit_trail")
        execute("COMMIT")


@pytest.mark.parametrize("name", ["snapshot", "words", "read"])
def test_swapped_during_a_look(served: Looks, name: str) -> None:
    """If a copy replaces the table during a look, no row is lost or doubled.

    Mutant: words and counts of different snapshots.
    """
    looks, table = served, served.table
    looks.insert([1, 2, 4], ago=5)
    looks.look(EVENTS)
    table.execute(LIKE[table.kind].format("copied"))
    looks.insert([3, 5, 7, 9], ago=5)

    def swap() -> None:
        table.execute(f"INSERT INTO copied ({COLUMNS}) SELECT {COLUMNS} FROM audit_trail")
        if table.kind == "mariadb":
            beside(table, "RENAME TABLE audit_trail TO older, copied TO audit_trail")()
        else:
            beside(table, "ALTER TABLE audit_trail RENAME TO older; ALTER TABLE copied RENAME TO audit_trail")()

    _attempt(looks, Between(table, name, swap))
    wait_for(lambda: _has(table, "older"), "the table that was renamed")
    assert looks.look(EVENTS) == []

    assert looks.ids(EVENTS) == [1, 2, 3, 4, 5, 7, 9]
    assert looks.total(EVENTS) == 7


def _has(table: Table, name: str) -> bool:
    asked = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = %s"
    return table.execute(asked, (name,)) == [(1,)]


def _attempt(looks: Looks, source: Any, job: Job = EVENTS) -> bool:
    """Look once, as a tick does, and return whether that succeeded; the next tick tries again."""
    try:
        looks.look(job, source=source)
    except (SourceUnavailable, QueryRefused):
        return False
    return True


@pytest.mark.parametrize("name", ["snapshot", "words", "read", "nth_id"])
@pytest.mark.parametrize(
    "change",
    [
        {
            "mariadb": "ALTER TABLE audit_trail MODIFY duration_ms BIGINT",
            "postgresql": "ALTER TABLE audit_trail ALTER duration_ms TYPE bigint",
        },
        {"mariadb": "ALTER TABLE audit_trail ENGINE = InnoDB", "postgresql": "VACUUM FULL audit_trail"},
        {"mariadb": "OPTIMIZE TABLE audit_trail", "postgresql": "CLUSTER audit_trail USING audit_trail_pkey"},
    ],
)
def test_rewritten_during_a_look(served: Looks, change: dict[str, str], name: str) -> None:
    """If the table is rewritten during a look, all its rows are counted once.

    Mutant: without LOCK TABLE on PostgreSQL.
    """
    looks, table = served, served.table
    looks.insert([1, 2, 4], ago=5)
    looks.look(EVENTS)
    looks.insert([3, 5, 7, 9], ago=5)
    _attempt(looks, Between(table, name, beside(table, change[table.kind])))
    wait_for(lambda: _attempt(looks, table), "a look behind the change")

    assert looks.ids(EVENTS) == [1, 2, 3, 4, 5, 7, 9]
    assert looks.total(EVENTS) == 7


@pytest.mark.parametrize("name", ["snapshot", "words", "read"])
def test_truncated_during_a_look(served: Looks, name: str) -> None:
    """If the table is emptied during a look, no total decreases; the look counts the rows that it has seen, or none.

    Mutant: without LOCK TABLE on PostgreSQL.
    """
    looks, table = served, served.table
    looks.insert([1, 2, 4], ago=5)
    looks.look(EVENTS)
    looks.insert([3, 5, 7, 9], ago=5)
    truncate = beside(table, "TRUNCATE TABLE audit_trail")
    _attempt(looks, Between(table, name, truncate))
    wait_for(lambda: table.execute("SELECT COUNT(*) FROM audit_trail") == [(0,)], "an empty table")
    with pytest.raises(ShipperError, match="largest id fell to 0"):
        looks.look(EVENTS)

    ids = looks.ids(EVENTS)
    assert looks.total(EVENTS) == len(ids)
    assert ids in ([1, 2, 4], [1, 2, 3, 4, 5, 7, 9], [1, 2, 3, 4])


def test_partitions(mariadb: MariaDB, tmp_path: Path) -> None:
    """Dropped and exchanged partitions lower no total; rows of added partitions are counted.

    Rows of an added partition at or below captured are late rows.
    """
    with closing(on_mariadb(mariadb)) as table, closing(Looks(table, tmp_path)) as looks:
        parts = "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))"
        table.execute(f"ALTER TABLE audit_trail {parts}")
        looks.insert([1, 2, 3, 11, 12], ago=5)
        looks.look(EVENTS)
        table.execute("ALTER TABLE audit_trail ADD PARTITION (PARTITION p2 VALUES LESS THAN (30))")
        table.execute("CREATE TABLE loaded LIKE audit_trail")
        table.execute("ALTER TABLE loaded REMOVE PARTITIONING")
        insert(looks, 21, table="loaded")
        table.execute("ALTER TABLE audit_trail EXCHANGE PARTITION p2 WITH TABLE loaded")
        looks.look(EVENTS)
        assert looks.total(EVENTS) == 6
        table.execute("ALTER TABLE audit_trail DROP PARTITION p0")
        insert(looks, 13, table="loaded")
        table.execute("ALTER TABLE audit_trail EXCHANGE PARTITION p1 WITH TABLE loaded")
        looks.insert([22], ago=5)
        noticed = looks.look(EVENTS)

        assert looks.ids(EVENTS) == [1, 2, 3, 11, 12, 13, 21, 22]
        assert (looks.total(EVENTS), brief(noticed)) == (8, "")


def test_partitions_detached(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """Partitions that are detached and attached again count once, and new ones when they are attached."""
    with closing(on_postgresql(postgresql)) as table, closing(Looks(table, tmp_path)) as looks:
        table.execute("ALTER TABLE audit_trail RENAME TO single")
        table.execute("CREATE TABLE audit_trail (LIKE single INCLUDING INDEXES) PARTITION BY RANGE (id)")
        for number in range(3):
            values = f"FOR VALUES FROM ({10 * number}) TO ({10 * number + 10})"
            table.execute(f"CREATE TABLE p{number} PARTITION OF audit_trail {values}")
        looks.insert([1, 2, 3, 11, 12], ago=5)
        looks.look(EVENTS)
        assert looks.total(EVENTS) == 5
        table.execute("ALTER TABLE audit_trail DETACH PARTITION p0")
        insert(looks, 4, table="p0")
        looks.insert([13, 21], ago=5)
        looks.look(EVENTS)
        assert looks.total(EVENTS) == 7
        table.execute("ALTER TABLE audit_trail ATTACH PARTITION p0 FOR VALUES FROM (0) TO (10)")
        looks.look(EVENTS)
        table.execute("ALTER TABLE audit_trail DETACH PARTITION p1 CONCURRENTLY")
        table.execute("DROP TABLE p1")
        looks.look(EVENTS)

        assert looks.ids(EVENTS) == [1, 2, 3, 4, 11, 12, 13, 21]
        assert looks.total(EVENTS) == 8


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["snapshot", "words", "read", "fingerprint", "count"])
def test_killed_during_a_look(served: Looks, name: str, number: int) -> None:
    """If the connection ends at any point of a look, no row is lost or doubled.

    Mutants: continue outside the snapshot; let SQLAlchemy's own errors through.
    """
    looks, table = served, served.table
    job = wanted(chunk=3, late=6 * 3600)
    looks.insert([1, 2, 4], ago=5)
    looks.look(job)
    looks.insert([3, 5, 7, 9, 11, 12, 13, 17], ago=5)
    with suppress(SourceUnavailable):
        looks.look(job, source=Between(table, name, lambda: kill(table), number))
    looks.look(job)

    assert looks.ids(job) == [1, 2, 3, 4, 5, 7, 9, 11, 12, 13, 17]
    assert looks.slots(job) == {60: 11}


def kill(table: Table) -> None:
    """End the connection of the look."""
    with table.session() as execute:
        if table.kind == "postgresql":
            execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shipper'")
            return
        own = "db = 'app' AND command = 'Sleep' AND id <> CONNECTION_ID()"
        for (statement,) in execute(f"SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE {own}"):
            execute(statement)


@pytest.mark.parametrize("has_gaps", [True, False])
def test_alter_beside_a_long_catch_up(served: Looks, has_gaps: bool) -> None:  # noqa: FBT001 - in the line
    """An ALTER TABLE, and the writers behind it, wait for one snapshot of a long catch-up, not for all of it.

    Mutant: join a snapshot however old it is.
    """
    looks, table = served, served.table
    ids = [number for number in range(1, 3001) if number % 7 or not has_gaps]
    looks.insert(ids, ago=5)
    job = wanted(chunk=10, late=6 * 3600)
    altering = threading.Thread(target=table.execute, args=("ALTER TABLE audit_trail ADD extra INT",), daemon=True)
    ended: list[bool] = []

    class Counting(Between):
        def __getattr__(self, name: str) -> Any:
            if name == "read":
                ended.append(altering.ident is not None and not altering.is_alive())
            return super().__getattr__(name)

    source = Counting(table, "read", altering.start, 5)
    if not _attempt(looks, source, job):  # altered between the start of a snapshot and its first statement
        looks.look(job, source=source)

    assert looks.total(job) == len(ids)
    assert ended.count(True) > len(ended) / 4
    altering.join(SOON_SECONDS)
