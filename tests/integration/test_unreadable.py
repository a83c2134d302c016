"""Rows with which a query fails, where they meet recounts, lookback and backfill: the sums and counters stay exact."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import NOW
from looks import Looks, wanted
from tables import DATABASES, on, on_postgresql

from shipper.core.model import ALWAYS, Job, Names, Now, Span
from shipper.core.repair.backfill import backfill
from shipper.core.rows.slots import rows_by_ids
from shipper.core.rows.table import Context, purged_until, time_at
from shipper.source.database import Source

LABEL = {
    "mariadb": "IF(outcome = 'bad', 18446744073709551615 + id, 'x')",
    "postgresql": "CASE WHEN outcome = 'bad' THEN CAST(CAST(outcome AS integer) AS text) ELSE 'x' END",
    "sqlite": "CASE WHEN outcome = 'bad' THEN json_extract(outcome, '$.a') ELSE 'x' END",
}
"""An expression that fails with a row."""
STATEMENT = """SELECT created_at AS bucket, {label} AS action, COUNT(*) AS count FROM audit_trail
    WHERE id > :after AND id <= :upto GROUP BY created_at, id"""
TIME = "action::json ->> 'at'"
BAD = [2, 5]


@pytest.fixture(params=DATABASES)
def looks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Looks]:
    """Give an empty table on each kind of database."""
    with closing(on(request.param, request, tmp_path)) as table, closing(Looks(table, tmp_path)) as made:
        yield made


@pytest.fixture
def postgresql_looks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Looks]:
    """Give an empty table on PostgreSQL, where times can fail."""
    server = request.getfixturevalue("postgresql")
    with closing(on_postgresql(server)) as table, closing(Looks(table, tmp_path)) as made:
        yield made


def labelled(looks: Looks, **changed: Any) -> Job:
    """Return a job whose label fails with some rows."""
    return of_query(looks, wanted(**changed), by_sql=(("action", LABEL[looks.table.kind]),))


def of_query(looks: Looks, one: Job, **changed: Any) -> Job:
    """Return a job with a changed query, prepared."""
    return replace(one, query=looks.table.prepared(replace(one.query, **changed)))


def write(looks: Looks, *ids: int, ago: int = 0, column: str = "created_at") -> None:
    """Insert rows; those of BAD are unreadable."""
    for identity in ids:
        looks.table.execute(
            f"INSERT INTO audit_trail (id, {column}, action, outcome) VALUES (%s, %s, 'x', %s)",
            (identity, looks.created(ago), "bad" if identity in BAD else "ok"),
        )


def correct(looks: Looks) -> None:
    """Make all rows readable."""
    looks.table.execute("UPDATE audit_trail SET outcome = 'ok'")


def counted(looks: Looks, one: Job) -> tuple[int, dict[str, int]]:
    """Return a job's total, and its rejected rows."""
    return looks.total(one), looks.rejected(one)


def test_first_slot(looks: Looks) -> None:
    """An unreadable row that a new job finds in its first slot is counted. Mutant: recount without it."""
    write(looks, 1, 2, 3)
    job = labelled(looks, start="now")
    looks.look(job)
    looks.look(job)
    assert counted(looks, job) == (2, {"unreadable": 1})


def test_changed_condition(looks: Looks) -> None:
    """Rows become unreadable, and readable again, by another condition. Mutant: drop them in the recount."""
    write(looks, 1, 2, 3)
    plain = wanted()
    looks.look(plain)
    fails = replace(plain, query=replace(plain.query, where_sql=f"{LABEL[looks.table.kind]} = 'x'"))
    for _ in range(2):
        looks.look(fails)
        assert counted(looks, fails) == (2, {"unreadable": 1})
        looks.look(plain)
        assert counted(looks, plain) == (3, {})


def test_corrected_within_lookback(looks: Looks) -> None:
    """A row that is corrected within `lookback` is counted, without a restart. Mutant: never read it again."""
    job = labelled(looks, time="end_date", lookback=600)
    write(looks, 1, 2, 3, column="end_date")
    looks.look(job)
    assert counted(looks, job) == (2, {"unreadable": 1})
    correct(looks)
    looks.look(job)
    assert counted(looks, job) == (3, {})


def test_older_than_lookback(looks: Looks) -> None:
    """An unreadable row stays counted after its time has left the lookback. Mutant: count those of the span only."""
    job = labelled(looks, time="end_date", lookback=600)
    write(looks, 1, 2, 3, column="end_date")
    looks.look(job)
    looks.now += 3600
    write(looks, 4, column="end_date")
    write(looks, 5, ago=3000, column="end_date")
    for _ in range(3):
        looks.look(job)
        looks.now += 60
    assert counted(looks, job) == (3, {"unreadable": 2})


def test_late_and_unknown(looks: Looks) -> None:
    """After a restart, slots of a job without time are counted again in spite of an unreadable late row.

    Mutant: read late ids only together.
    """
    job = labelled(looks, time=None, late=3600)
    write(looks, 1, 3, 4)
    looks.look(job)
    write(looks, 2)
    looks.look(job)
    assert counted(looks, job) == (3, {"unreadable": 1})
    with closing(Source("app", looks.table.access)) as anew:
        slots, position = looks.state.slots(job.name), looks.state.position(job.name)
        late = looks.state.late_ids(job.name)
        parts = list(rows_by_ids(job, slots, late, ALWAYS, source=anew, position=position))
    assert sum(row.rows for rows in parts for row in rows if not row.is_unreadable) == 3


def test_custom_sql(looks: Looks) -> None:
    """A new job with custom sql begins in spite of an unreadable row. Mutant: search its times without that case."""
    write(looks, 1, 2, 3)
    sql = STATEMENT.format(label=LABEL[looks.table.kind])
    job = of_query(looks, wanted(start="now"), sql=sql, time="bucket")
    looks.look(job)
    assert looks.total(job) == 2


def test_other_column_without_new_rows(looks: Looks) -> None:
    """A job that is given another time column continues with the next row. Mutant: compare times of both columns."""
    write(looks, 1, 3)
    looks.table.execute("UPDATE audit_trail SET end_date = %s", (looks.created(60),))
    looks.look(wanted())
    ends = wanted(time="end_date")
    looks.look(ends)
    write(looks, 4, column="end_date")
    looks.look(ends)
    assert looks.total(ends) == 3


@pytest.mark.parametrize("lookback", [None, 600])
def test_row_without_time_beside(postgresql_looks: Looks, lookback: int | None) -> None:
    """A row without a time is not blamed for an unreadable one near it, and is completed later.

    Mutants: set it aside for the error of a check; check within a snapshot.
    """
    looks = postgresql_looks
    plain = wanted(start="now", lookback=lookback, template="events.{measure}")
    job = of_query(looks, plain, time="time_sql", time_sql=TIME, by=())

    def put(identity: int, text: str) -> None:
        looks.table.execute("INSERT INTO audit_trail (id, action) VALUES (%s, %s)", (identity, text))
        looks.look(job)

    good = f'{{"at": "{looks.created()}"}}'
    looks.look(job)
    for identity, text in enumerate((good, "no json", "{}"), 1):
        put(identity, text)
    assert counted(looks, job) == (1, {"unreadable": 1} | ({} if lookback else {"no_time": 1}))
    looks.table.execute("UPDATE audit_trail SET action = %s", (good,))
    put(4, good)
    assert counted(looks, job) == ((4, {}) if lookback else (2, {"unreadable": 1, "no_time": 1}))


def test_readable_time_of_unreadable_row(postgresql_looks: Looks) -> None:
    """A row keeps its time if only the condition fails. Mutant: take each `time_sql` of such rows for unreadable."""
    looks = postgresql_looks
    job = of_query(looks, wanted(), time="time_sql", time_sql="created_at + INTERVAL '0 s'")
    write(looks, 1, 2, 3)
    looks.look(job)
    fails = replace(job, query=replace(job.query, where_sql=f"{LABEL['postgresql']} = 'x'"))
    looks.look(fails)
    assert counted(looks, fails) == (2, {"unreadable": 1})


def test_times_beside_unreadable_ones(postgresql_looks: Looks) -> None:
    """One unreadable time neither hides all others from a backfill nor moves a start. Mutant: ALWAYS for them."""
    looks = postgresql_looks
    job = of_query(looks, wanted(), time="time_sql", time_sql=TIME)
    good = f'{{"at": "{looks.created()}"}}'
    for identity in range(10, 30):
        text = "no json" if identity in {10, 29} else good
        looks.table.execute("INSERT INTO audit_trail (id, action) VALUES (%s, %s)", (identity, text))
    assert purged_until(job, 29, source=looks.table) == NOW
    assert time_at(job, 29, source=looks.table) == NOW


@pytest.mark.parametrize("lookback", [600, None])
def test_corrected_along_a_time(looks: Looks, lookback: int | None) -> None:
    """Along a time, too, a bad row does not stop others; corrected, `lookback` or a backfill counts it.

    Mutants: read again in the snapshot that the error has ended; never read it again; keep it under a query with names;
    forget its bucket.
    """
    looks.table.execute("CREATE INDEX at_index ON audit_trail (created_at)")
    names = (Names("action", (("x", "named"),)),)
    by_sql = (("action", LABEL[looks.table.kind]),)
    job = of_query(looks, wanted(lookback=lookback), id="created_at", by_sql=by_sql, names=names)
    write(looks, 1, 3)
    write(looks, 2, ago=30)
    looks.look(job)
    assert counted(looks, job) == (2, {"unreadable": 1})
    correct(looks)
    if lookback is None:
        progress, horizon = looks.state.progress(job.name), looks.table.observe(job.query)
        assert progress is not None
        context = Context(job, looks.table, looks.state, Now(looks.now, is_trusted=True))
        span = Span(looks.now - 600, looks.now + 60)
        list(backfill(context, span, [], replace(horizon, time=looks.now), progress))
    looks.look(job)
    assert counted(looks, job) == (3, {})
