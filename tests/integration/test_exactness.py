"""What once lost or doubled rows, on real databases: every id counts exactly once, whatever comes in between.

Each test is a run that an earlier way of knowing what is counted had wrong: one by ranges of ids, numbers of rows and
checksums. The first number in a docstring is what the table holds, the second what was delivered then.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import NOW
from looks import Looks, brief, wanted
from tables import DATABASES, on

from shipper.core.errors import QueryRefused, ShipperError, SourceReset
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Condition, Span
from shipper.core.repair.reset import After
from shipper.core.rows.table import scan

LATE = 6 * 3600
EVENTS = wanted(late=LATE)
ENDS = wanted("ends", time="end_date", lookback=600, max_age=86400, late=LATE)
TICKS = wanted("ticks", time=None, late=LATE)


@pytest.fixture(params=DATABASES)
def looks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Looks]:
    """Give an empty table on each kind of database, at which nobody has looked yet."""
    with closing(on(request.param, request, tmp_path)) as table, closing(Looks(table, tmp_path)) as made:
        yield made


def test_open_row_ends_before_the_span(looks: Looks) -> None:
    """A row that was seen open, and gets an end older than `lookback`, is counted: 4, were 3.

    Mutants: take open rows that were seen for counted, or for never completed as soon as they are below the span.
    """
    looks.insert([1, 2, 3], ago=60, column="end_date")
    looks.table.insert(4, looks.created(), "login")
    looks.look(ENDS)
    assert looks.total(ENDS) == 3
    looks.now += 3600
    looks.insert([5], column="end_date")
    looks.look(ENDS)
    looks.look(ENDS)  # the span is behind the others by now
    looks.table.execute("UPDATE audit_trail SET end_date = %s WHERE id = 4", (looks.created(1800),))
    looks.look(ENDS)

    assert looks.slots(ENDS) == {60: 3, 1800 - 3600: 1, -3600: 1}
    looks.now += 60
    looks.look(ENDS)
    assert looks.total(ENDS) == 5


def test_transaction_longer_than_lookback(looks: Looks) -> None:
    """A row that commits long after the span of its time was last counted is counted: 16, were 15.

    Mutant: no gaps for these jobs.
    """
    with looks.table.session() as execute:
        if looks.table.kind != "sqlite":  # there it would keep all others from writing
            execute("BEGIN")
            looks.put(execute, 8, ago=30, column="end_date")
        looks.insert([*range(1, 8), *range(9, 17)], ago=30, column="end_date")
        for _ in range(4):
            looks.look(ENDS)
            looks.now += 1200
        assert looks.total(ENDS) == 15
        if looks.table.kind == "sqlite":
            looks.put(execute, 8, ago=4830, column="end_date")
        else:
            execute("COMMIT")
    for _ in range(9):  # it is old: asked for at growing distances
        looks.now += 120
        looks.look(ENDS)

    assert looks.slots(ENDS) == {60: 16}
    assert looks.ids(ENDS) == list(range(1, 17))


@pytest.mark.parametrize("changed", [{"time_zone": "Europe/Berlin"}, {"bucket": 3600}, {"time_zone": "Asia/Kolkata"}])
def test_late_row_after_another_definition(looks: Looks, changed: dict[str, Any]) -> None:
    """A row that comes late, after a job's times were corrected, is added by itself: 100, were 199.

    Mutant: count the slot of a late row again.
    """
    looks.insert([*range(1, 40), *range(41, 101)], ago=30)
    looks.look(EVENTS)
    looks.now += 120
    other = replace(EVENTS, query=replace(EVENTS.query, **changed))
    looks.look(other)
    looks.insert([40], ago=130)
    looks.look(other)
    looks.now += 3600
    looks.look(other)

    shown, rejected = looks.total(other), looks.rejected(other)
    assert shown + sum(rejected.values()) == 100
    assert looks.ids(other) == list(range(1, 101))


@pytest.mark.parametrize("how", ["now", "restored"])
def test_beginning_beside_an_open_transaction(looks: Looks, how: str) -> None:
    """Rows in flight where a job begins, or goes on behind what was restored, are counted: 23, were 22.

    Mutant: begin with all ids up to captured as counted.
    """
    events = replace(EVENTS, start="now")
    looks.look(events)
    with looks.table.session() as execute:
        if looks.table.kind != "sqlite":  # there it would keep all others from writing
            execute("BEGIN")
            looks.put(execute, 11)
        looks.insert([*range(1, 11), *range(12, 24)])
        if how == "restored":
            looks.reset(events, After.RESTORED)
        else:
            looks.state.housekeeping.forget(events.name)
        looks.look(events)
        if looks.table.kind != "sqlite":
            execute("COMMIT")
        else:
            looks.put(execute, 11)
    looks.look(events)
    looks.look(events)

    assert looks.total(events) == {"now": 23, "restored": 1}[how]  # what was restored is counted already


def test_two_jobs_pass_a_gap_at_different_times(looks: Looks) -> None:
    """Each of two jobs on one table counts a late row, whoever looked at what when: 3, were 2.

    Mutant: what one job knows of the table serves the other.
    """
    other = wanted("others", by=("outcome",), template="others.{outcome}.{measure}", late=LATE)
    with looks.table.session() as execute:
        if looks.table.kind != "sqlite":
            execute("BEGIN")
            looks.put(execute, 2, ago=5)
        looks.insert([1], ago=5)
        looks.look(EVENTS)
        looks.insert([3], ago=5)
        looks.look(EVENTS)
        looks.look(other, EVENTS)
        if looks.table.kind != "sqlite":
            execute("COMMIT")
        else:
            looks.put(execute, 2, ago=5)
    looks.look(EVENTS)
    looks.now += 30
    looks.look(other)

    assert (looks.total(EVENTS), looks.total(other)) == (3, 3)
    looks.look(EVENTS, other)
    assert (looks.total(EVENTS), looks.total(other)) == (3, 3)


def test_one_job_is_behind_when_a_row_comes_late(looks: Looks) -> None:
    """A late row that one job finds while another is still on its way there counts in both: 1000, were 999.

    Mutant: windows are recorded for all jobs of a table.
    """
    slow = wanted("slow", chunk=100, template="slow.{action}.{measure}", late=LATE)
    looks.insert([*range(1, 450), *range(451, 1001)], ago=5)
    looks.look(EVENTS)
    looks.look(slow, steps=4)  # it begins, and counts three windows
    assert (looks.total(EVENTS), looks.total(slow)) == (999, 300)
    looks.insert([450], ago=5)
    looks.look(EVENTS, slow, steps=2)
    looks.look(slow, EVENTS)

    assert (looks.total(EVENTS), looks.total(slow)) == (1000, 1000)


def test_rows_deleted_and_one_late(looks: Looks) -> None:
    """Two rows of a window that are deleted hide none that comes late: 18, were 17.

    Mutants: compare numbers of rows; leave what came late out of the set.
    """
    looks.insert([*range(1, 10), *range(11, 19)], ago=5)
    looks.look(EVENTS)
    assert looks.total(EVENTS) == 17
    looks.table.execute("DELETE FROM audit_trail WHERE id IN (3, 4)")
    looks.insert([10], ago=5)
    looks.look(EVENTS)
    looks.look(EVENTS)

    assert looks.slots(EVENTS) == {60: 18}


def test_purged_and_one_late(looks: Looks) -> None:
    """A late row among rows of which most were purged is added: 60, were 3. Mutant: count its slot again."""
    looks.insert([*range(1, 10), *range(11, 61)], ago=5)
    looks.look(EVENTS)
    assert looks.total(EVENTS) == 59
    looks.table.execute("DELETE FROM audit_trail WHERE id < 59")
    looks.look(EVENTS)
    looks.insert([10], ago=5)
    looks.look(EVENTS)

    assert looks.slots(EVENTS) == {60: 60}


@pytest.mark.parametrize("late", [LATE, 60])
def test_purged_and_another_definition(looks: Looks, late: int) -> None:
    """Rows that were purged stay counted when a job's definition changes, and what is left is told: 600, were 300.

    It is less where ids are known one by one than where it is known how many they were.
    Mutant: count again what the table still holds.
    """
    events = replace(EVENTS, late=late, every=60)
    for number in range(10):
        looks.insert(range(1 + 60 * number, 61 + 60 * number), ago=5)
        looks.look(events)
        looks.now += 60
    looks.look(events)
    looks.look(events)
    assert looks.total(events) == 600
    looks.table.execute("DELETE FROM audit_trail WHERE id <= 300")
    measures = (COUNT, Measure("rows", Kind.SUM, "id"))
    other = replace(events, query=replace(events.query, measures=measures))
    noticed = looks.look(other)

    assert [one.event for one in noticed] == ["recount.limited"], brief(noticed)
    assert looks.slots(other) == {60 - 60 * number: 60 for number in range(10)}
    end, left, rows = (NOW + 240, 5, sum(range(301, 601))) if late == LATE else (NOW + 540, 10, 0)
    assert noticed[0].details == {"span": Span(NOW - 60, end), "slots": left}
    assert looks.total(other, "rows") == rows


@pytest.mark.parametrize("what", [After.EMPTIED, After.RESTORED])
def test_emptied(looks: Looks, what: After) -> None:
    """A table that is emptied holds its jobs; whatever is said then, what was delivered stays: 9818, were 0.

    Mutant: a reset that counts the slots of before again.
    """
    looks.insert(range(1, 819), ago=120)
    for ago in (86400, 2 * 86400, 3 * 86400):
        looks.insert(range(1 + 3000 * ago // 86400, 3001 + 3000 * ago // 86400), ago=ago)
    looks.look(EVENTS)
    before = looks.slots(EVENTS)
    assert looks.total(EVENTS) == 9818
    looks.table.execute("DELETE FROM audit_trail" if looks.table.kind == "sqlite" else "TRUNCATE TABLE audit_trail")
    for _ in range(2):
        with pytest.raises(SourceReset):
            looks.look(EVENTS)
    looks.now += 60
    looks.insert([1, 2], ago=2)
    with pytest.raises(SourceReset):
        looks.look(EVENTS)
    assert looks.slots(EVENTS) == before
    looks.reset(EVENTS, what)
    looks.insert([3], ago=2)
    looks.look(EVENTS)
    looks.look(EVENTS)

    new = {After.EMPTIED: 3, After.RESTORED: 1}[what]
    assert looks.slots(EVENTS) == {**before, 60 - 60: new}


def test_clock_goes_back_without_a_time(looks: Looks) -> None:
    """Without a time column a source's clock that goes back, and a late row, double nothing: 40, were 60.

    Mutant: slots as ranges of ids that are counted again.
    """
    looks.insert(range(1, 21))
    looks.look(TICKS)
    looks.now -= 120
    looks.insert([*range(21, 30), *range(31, 41)])
    looks.look(TICKS)
    looks.insert([30])
    looks.look(TICKS)

    assert looks.total(TICKS) == 40
    looks.now += 300
    looks.look(TICKS)
    assert looks.total(TICKS) == 40


def test_rotated(looks: Looks) -> None:
    """A table that another one takes the place of, with ids that go on, is told, with what nobody can account for.

    20 rows, of which 15 were counted, were silent.
    """
    looks.insert(range(1, 16), ago=5)
    looks.look(EVENTS)
    looks.insert(range(16, 21), ago=5)
    like = {"sqlite": "CREATE TABLE audit_trail AS SELECT * FROM older WHERE 0"}
    looks.table.execute("ALTER TABLE audit_trail RENAME TO older")
    looks.table.execute(like.get(looks.table.kind, "CREATE TABLE audit_trail (LIKE older)"))
    if looks.table.kind == "mariadb":
        looks.table.execute("DROP TABLE audit_trail")
        looks.table.execute("CREATE TABLE audit_trail LIKE older")
    looks.insert(range(21, 26), ago=5)
    noticed = looks.look(EVENTS)

    assert brief(noticed) == 'source.rotated {"captured": 15, "first": 21}'
    assert looks.slots(EVENTS) == {60: 20}
    assert looks.look(EVENTS) == []


def test_end_is_written_twice(looks: Looks) -> None:
    """Within `lookback` a row whose end is written a second time counts once, where it is now: 1, were 2.

    Later it stays where it was counted first, too: that is documented with `lookback`.
    """
    looks.insert([1], ago=60, column="end_date")
    looks.look(ENDS)
    looks.now += 300
    looks.table.execute("UPDATE audit_trail SET end_date = %s", (looks.created(),))
    looks.look(ENDS)
    assert looks.slots(ENDS) == {-300: 1}
    looks.now += 3600
    looks.look(ENDS)
    looks.table.execute("UPDATE audit_trail SET end_date = %s", (looks.created(),))
    looks.look(ENDS)

    assert looks.slots(ENDS) == {-300: 1, -3900: 1}


@pytest.mark.parametrize("where", [(), (Condition("outcome", "in", ("ok",)),)])
@pytest.mark.parametrize("time", ["created_at", None])
def test_ids_given_twice(looks: Looks, where: tuple[Condition, ...], time: str | None) -> None:
    """Ids that are not unique are refused, instead of rows lost: at once, or with the first that is there twice.

    Mutant: take a window of as many rows as ids for one without gaps, though nothing proves that ids are unique.
    """
    job = wanted("twice", time=time, where=where, late=LATE)
    looks.table.loosen()
    looks.insert([1, 2, 3, 4], ago=5)
    looks.look(job)
    assert looks.total(job) == 4
    looks.insert([6, 6, 8, 8], ago=5)  # as many rows as ids
    with pytest.raises(QueryRefused, match="have"):
        looks.look(job)
    assert looks.total(job) == 4


def test_ids_that_are_none(looks: Looks) -> None:
    """Rows with ids that are no ids are not counted, and a table can be asked for them. Mutant: count up from -1."""
    looks.table.loosen()
    looks.insert([-1, 0, 1, 2], ago=5)
    looks.table.insert(None, looks.created(5), "login")
    looks.look(EVENTS)

    assert looks.total(EVENTS) == 2
    assert looks.table.uncountable(EVENTS.query) == 3


CANNOT = {
    "mariadb": "IF(action = 'bad', 18446744073709551615 + id, 0) = 0",
    "mysql": "IF(action = 'bad', 18446744073709551615 + id, 0) = 0",
    "postgresql": "CASE WHEN action = 'bad' THEN CAST(action AS integer) ELSE 0 END = 0",
    "sqlite": "CASE WHEN action = 'bad' THEN json_extract(action, '$.a') ELSE 0 END = 0",
}
"""A condition that fails with a row."""


def test_row_that_cannot_be_read(looks: Looks) -> None:
    """Rows with which the query fails are counted by cause; those beside them, early and late, go to Graphite.

    A recount does not count them again, and a reconcile reads the rest, too. Mutants: fail; count no late ones.
    """
    kind = looks.table.kind
    events = replace(EVENTS, query=replace(EVENTS.query, where_sql=CANNOT[kind]))
    looks.insert([*range(1, 4), *range(5, 9), *range(12, 21)], ago=30)
    looks.table.insert(4, looks.created(30), "bad")
    looks.table.insert(11, looks.created(30), "bad")
    looks.look(events)
    assert looks.total(events) == 16
    looks.insert([10], ago=30)
    looks.table.insert(9, looks.created(30), "bad")
    looks.look(events)

    assert (looks.total(events), looks.rejected(events)) == (17, {"unreadable": 3})
    assert looks.ids(events) == list(range(1, 21))
    measures = (COUNT, Measure("rows", Kind.SUM, "id"))
    looks.look(replace(events, query=replace(events.query, measures=measures)))
    assert (looks.total(events), looks.rejected(events)) == (17, {"unreadable": 3})
    rows = [row for _, part in scan(events, 0, 20, source=looks.table) for row in part]
    assert sum(row.rows for row in rows if not row.is_unreadable) == 17


def test_condition_that_fails_always(looks: Looks) -> None:
    """A mistake in the configuration stops the job: it is no row's. Mutant: set the rows aside one by one."""
    never = "no such function(id) > 0" if looks.table.kind == "sqlite" else "1 / (id - id) > 0 AND nonsense(id)"
    events = replace(EVENTS, query=replace(EVENTS.query, where_sql=never))
    looks.insert(range(1, 9), ago=30)
    with pytest.raises(ShipperError):
        looks.look(events)

    assert looks.ids(events) == []


def test_too_many_rows_that_cannot_be_read(looks: Looks) -> None:
    """If a hundred rows are unreadable, an expression is wrong, and the job waits. Mutant: set all rows aside."""
    events = replace(EVENTS, query=replace(EVENTS.query, where_sql=CANNOT[looks.table.kind]))
    for number in range(1, 103):
        looks.table.insert(number, looks.created(30), "bad")
    with pytest.raises(QueryRefused, match="100 rows are unreadable, the last at id 101"):
        looks.look(events)


@pytest.mark.parametrize("looks", ["mariadb", "mysql"], indirect=True)
def test_dates_that_do_not_exist(looks: Looks) -> None:
    """Zero dates in the result of custom sql are rows without a time; those beside them are counted."""
    times = "CASE id WHEN 1 THEN '0000-00-00' WHEN 2 THEN '2026-11-00 10:00:00' ELSE CAST(created_at AS CHAR) END"
    statement = f"SELECT {times} AS bucket, action, 1 AS count FROM audit_trail WHERE id > :after AND id <= :upto"
    events = replace(EVENTS, query=replace(EVENTS.query, sql=statement, time="bucket"))
    looks.insert(range(1, 6), ago=30)
    looks.look(events)

    assert (looks.total(events), looks.rejected(events)) == (3, {"no_time": 2})
