"""Distinct values: a slot with new rows is counted again, all of it; the number of rows is exact at every step."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, horizon
from fakes import FakeWeb
from life import ARCHIVES, Life, wanted

from shipper.core.capture import capture
from shipper.core.errors import SourceUnavailable
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Condition, Job, Query, Row, Span, Window
from shipper.core.repair.reset import After, restarted
from shipper.core.rows.table import CaptureStep
from shipper.core.verify.reconcile import compare_job
from shipper.state.queries import read_snapshot
from shipper.state.store import State

MINUTE, HOUR, DAY = 60, 3600, 86400
USERS = Measure("users", Kind.DISTINCT, "outcome")
MIDNIGHT = NOW - NOW % DAY


def users(measures: tuple[Measure, ...] = (COUNT, USERS), **changed: Any) -> Job:
    """Build a job that counts rows, and distinct outcomes."""
    return wanted(measures=measures, by=(), template="events.{measure}", **changed)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """Give a table without rows."""
    life = Life(tmp_path)
    yield life
    life.state.close()


def stored(life: Life, measure: str = "users") -> dict[int, int]:
    """Return totals by seconds since NOW."""
    statement = "SELECT slot, value FROM total JOIN series ON series.id = series WHERE path = ? ORDER BY slot, step"
    rows = life.state._connection.execute(statement, (f"events.{measure}",)).fetchall()
    return {slot - NOW: int(value) for slot, value in rows}


def test_windows_are_not_added_up(life: Life) -> None:
    """A user in several windows of one slot counts once. Mutants: a rule that adds; a fold that takes the maximum."""
    life.insert(*[(0, "login", name) for name in ("x", "y", "x", "z", "x", "z")])
    life.ship(users(chunk=2))
    assert stored(life) == {0: 3}
    assert stored(life, "count") == {0: 6}

    life.insert((0, "login", "y"), (0, "login", "w"))
    life.now += 1
    life.ship(users(chunk=2))
    assert stored(life) == {0: 4}
    assert stored(life, "count") == {0: 8}
    assert life.minutes("events.users") == {0: 4}


def test_open_slot_every_sixtieth(life: Life) -> None:
    """A day is recounted every 24 minutes while rows arrive, and once more when it is over; rows count at once.

    Mutants: recount at each look; never after the end; wait for the rest of the sixtieth after the end.
    """
    job = users(bucket=DAY)
    life.now = MIDNIGHT + DAY - 130 * MINUTE
    recounted = []
    for minute in range(0, 140, 2):
        life.insert((0 if life.now < MIDNIGHT + DAY else life.now - MIDNIGHT - DAY + 1, "login", f"user{minute}"))
        before = stored(life)
        life.ship(job)
        assert sum(stored(life, "count").values()) == minute // 2 + 1
        if stored(life) != before:
            recounted.append(minute)
        life.now += 120

    assert recounted == [0, 24, 48, 72, 96, 120, 130]
    assert stored(life) == {MIDNIGHT - NOW: 66}
    life.now += 24 * MINUTE
    life.ship(job)
    assert stored(life) == {MIDNIGHT - NOW: 70}


def test_late_row(life: Life) -> None:
    """A row that appears below captured recounts its slot. Mutant: note new rows above captured only."""
    life.source.begin(1, life.created(60), "login", "late")
    life.given = 1
    life.insert((60, "login", "x"), (0, "login", "x"))
    life.ship(users())
    assert stored(life) == {-60: 1, 0: 1}
    life.source.commit()
    life.now += 10
    life.ship(users())

    assert stored(life) == {-60: 2, 0: 1}
    assert stored(life, "count") == {-60: 2, 0: 1}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_crash_before_the_recount(life: Life, steps: int) -> None:
    """What a slot lacks is known after a crash at any step. Mutant: note it in memory."""
    life.insert((0, "login", "x"), (0, "login", "y"))
    run = capture(users(), horizon(2, time=life.now), source=life.source, ledger=life.state, now=life.now)
    for number, _ in enumerate(run, 1):
        if number == steps:
            break
    run.close()
    life.state.close()
    life.state = State(str(life.folder / "shipper.db"))
    life.now += 1
    life.ship(users())

    assert stored(life) == {0: 2}
    assert stored(life, "count") == {0: 2}


@pytest.mark.parametrize("measures", [(COUNT, USERS), (USERS,)])
def test_rows_that_are_gone(life: Life, measures: tuple[Measure, ...]) -> None:
    """If rows of a slot are gone, its value stays, others go on; rows that no measure shows are rejected.

    Mutants: look for rows that are gone before reading only; take the larger value; let the count stay, too.
    """
    job = users(measures)
    life.insert((60, "login", "x"), (60, "login", "y"), (60, "login", "z"))
    life.ship(job)
    life.source.rows = life.source.rows[1:]
    life.insert((60, "login", "w"), (60, "login", "v"), (0, "login", "x"))
    life.now += 10
    life.ship(job)

    assert stored(life) == {-60: 3, 0: 1}
    assert life.limited() == [{"span": Span(NOW - 60, NOW), "slots": 1}]
    if len(measures) > 1:
        assert stored(life, "count") == {-60: 5, 0: 1}
        assert life.rejected() == {}
    else:
        assert life.rejected() == {"not_recounted": 2}
    life.now += 60
    life.ship(job)
    assert life.limited() == []


def test_adjoining_slots_of_which_one_lacks_rows(life: Life) -> None:
    """Slots that are read together are judged one by one. Mutant: leave all of them."""
    life.insert(*[(minutes * 60, "login", "x") for minutes in (3, 2, 1)])
    life.ship(users(chunk=1))  # ids of each slot are known exactly
    assert stored(life) == {-180: 1, -120: 1, -60: 1}
    del life.source.rows[1]
    life.insert(*[(minutes * 60, "login", "y") for minutes in (3, 2, 1)])
    life.now += 5
    life.ship(users(chunk=1))

    # the row that is gone is within the ids of the first two
    assert stored(life) == {-180: 1, -120: 1, -60: 2}
    assert stored(life, "count") == {-180: 2, -120: 2, -60: 2}
    assert [one["span"].start - NOW for one in life.limited()] == [-120, -180]


def test_statement_that_fails(life: Life) -> None:
    """A statement that takes too long runs once in a sixtieth of its bucket; rows count, other slots do not wait.

    Mutants: try at each look; try the newest first for ever.
    """
    job, attempts = users(bucket=HOUR), []
    read, newest = life.source.read_undivided, NOW - NOW % HOUR

    def failing(query: Query, window: Window, span: Span) -> list[Row]:
        attempts.append((life.now - NOW, span.start - newest))
        if span.start == newest:
            raise SourceUnavailable("too long")
        return read(query, window, span)

    life.source.read_undivided = failing  # type: ignore[method-assign]
    life.insert((NOW - newest + 2 * HOUR, "login", "x"), (NOW - newest, "login", "x"))
    for _ in range(8):
        with suppress(SourceUnavailable):
            life.ship(job)
        life.now += 15
    assert attempts == [(0, 0), (15, -2 * HOUR), (60, 0)]
    life.source.read_undivided = read  # type: ignore[method-assign]
    life.ship(job)

    assert stored(life) == {newest - NOW - 2 * HOUR: 1, newest - NOW: 1}
    assert stored(life, "count") == {newest - NOW - 2 * HOUR: 1, newest - NOW: 1}


def test_groups_beyond_the_limit(life: Life) -> None:
    """Groups that share a path have no distinct values: two parts of one user would be two.

    Mutants: add them up; take their maximum.
    """
    job = replace(wanted(measures=(COUNT, USERS), template="events.{action}.{measure}"), max_groups=1)
    life.insert((0, "a", "x"), (0, "b", "x"), (0, "c", "x"), (0, "c", "y"))
    life.ship(job)

    assert life.sums() == {"events.a.count": 1, "events.a.users": 1, "events._other.count": 3}
    assert reconciled(life, job) == []


def test_nulls(life: Life) -> None:
    """NULL is no value; where there are rows and no values, there is a 0. Mutant: count NULL."""
    job = users((COUNT, Measure("users", Kind.DISTINCT, "duration_ms")))
    life.insert((60, "login", "ok"), (0, "login", "ok"), (0, "login", "ok"))
    life.source.rows[0]["duration_ms"] = 5
    life.ship(job)

    assert stored(life) == {-60: 1, 0: 0}


def test_zeros(life: Life) -> None:
    """Quiet buckets get a 0, but not those that lack rows, until they are recounted.

    Mutants: fill with zeros what lacks rows; never fill it.
    """
    job = wanted(measures=(COUNT, USERS), template="events.{action}.{measure}", zeros=DAY)
    life.insert((120, "a", "x"), (120, "b", "x"))
    life.ship(job)
    life.now += 60
    life.insert((60, "a", "x"))
    steps = capture(job, horizon(3, time=life.now), source=life.source, ledger=life.state, now=life.now)
    for step in steps:
        if isinstance(step, CaptureStep) and step.window is not None:
            break
    steps.close()
    before = {(action, ago): int(ago == -120) for action in "ab" for ago in (-120, -60)}
    statement = "SELECT path, slot, value FROM total JOIN series ON series.id = series WHERE path LIKE '%users'"

    def shown() -> dict[tuple[str, int], int]:
        rows = life.state._connection.execute(statement)
        return {(path.split(".")[1], slot - NOW): value for path, slot, value in rows}

    assert shown() == before
    life.ship(job)
    assert shown() == before | {("a", 0): 1, ("b", 0): 0}
    life.now += 60
    life.ship(job)
    assert shown() == before | {("a", 0): 1, ("b", 0): 0, ("a", 60): 0, ("b", 60): 0}


def test_coarser_archive(life: Life) -> None:
    """A slot of a coarser archive has its largest bucket; a late row recounts each of them.

    Mutants: add the buckets up; count the distinct values of the hour; recount the late row's minute only.
    """
    hour = NOW - NOW % HOUR - 2 * HOUR
    life.insert(*[(NOW - hour - minute * 60, "login", name) for minute, name in ((0, "x"), (0, "y"), (1, "x"))])
    life.insert((NOW - hour - 120, "login", "z"))
    job = users(keep=30 * DAY)
    life.ship(job)
    assert stored(life) == {hour - NOW: 2, hour + 60 - NOW: 1, hour + 120 - NOW: 1}
    life.now += 7 * DAY
    life.deliver()
    for name in ("x", "a", "b"):
        life.insert((life.now - hour - 60, "login", name))
    life.ship(job)

    assert stored(life) == {hour - NOW: 3}
    assert stored(life, "count") == {hour - NOW: 7}
    life.now += DAY
    life.deliver()
    assert life.carbon.zoom(ARCHIVES[1])["events.count"][hour] == 7


def test_recount_that_waits_until_a_coarser_archive(life: Life) -> None:
    """Slots that still lacked rows when they moved have their largest bucket, too. Mutant: recount each by itself."""
    hour = NOW - NOW % HOUR - 2 * HOUR
    life.insert(*[(NOW - hour - minute * 60, "login", name) for minute, name in ((5, "x"), (5, "y"), (0, "x"))])
    steps = capture(users(), horizon(3, time=life.now), source=life.source, ledger=life.state, now=life.now)
    for step in steps:
        if isinstance(step, CaptureStep):
            break
    steps.close()
    assert len(life.state.lacking("events")) == 2
    life.now += 7 * DAY
    life.ship(users())

    assert stored(life) == {hour - NOW: 2}
    assert life.state.lacking("events") == []


def test_measure_added(life: Life) -> None:
    """A new measure of a job is counted for the slots that are in the state, except where rows are gone.

    Mutants: read it window by window; leave what the former definition noted.
    """
    life.insert(*[(60 * minutes, "login", name) for minutes in (3, 2, 1) for name in "xxy"])
    life.ship(users((COUNT,)))
    life.now += 60
    life.ship(users(chunk=2))
    assert stored(life) == {-180: 2, -120: 2, -60: 2}
    assert stored(life, "count") == {-180: 3, -120: 3, -60: 3}
    assert life.state.lacking("events") == []

    life.ship(users((COUNT,)))
    assert life.state.lacking("events") == []


def test_other_groups_while_a_slot_lacks_rows(life: Life) -> None:
    """A slot that only the former definition could complete is reported. Mutant: forget it silently."""
    job = users(bucket=DAY)
    life.insert((60, "login", "x"))
    life.ship(job)
    life.insert((30, "login", "y"))
    life.ship(job)  # within a sixtieth of its bucket
    assert life.state.lacking("events")
    other = replace(job, query=replace(job.query, by=("action",)), template="events.{action}.{measure}")
    life.ship(other)

    assert len(life.limited()) == 1
    assert stored(life) == {MIDNIGHT - NOW: 1}
    assert life.state.lacking("events") == []


def test_condition_changed(life: Life) -> None:
    """A changed condition recounts distinct values with all others."""
    life.insert((60, "a", "x"), (60, "b", "y"), (60, "b", "z"))
    life.ship(users())
    life.now += 60
    life.ship(users(where=(Condition("action", "in", ("b",)),)))

    assert stored(life) == {-60: 2}
    life.ship(users(where=(Condition("action", "in", ("c",)),)))
    assert stored(life) == {-60: 0}


def test_backfill(life: Life) -> None:
    """A backfill counts distinct values at once, also lower ones. Mutants: only note that they lack rows; the gate."""
    job = users()
    life.insert(*[(2 * HOUR, "login", name) for name in "xyz"])
    life.ship(job)
    assert stored(life) == {-2 * HOUR: 3}
    del life.source.rows[0]
    life.backfill(job, Span(NOW - 3 * HOUR, NOW - HOUR))

    assert stored(life) == {-2 * HOUR: 2}
    assert reconciled(life, job) == []
    life.now += MINUTE
    life.insert((2 * HOUR, "login", "w"))
    steps = capture(job, horizon(4, time=life.now), source=life.source, ledger=life.state, now=life.now)
    next(step for step in steps if isinstance(step, CaptureStep))
    steps.close()
    assert life.state.lacking("events")
    life.backfill(job, Span(NOW - 3 * HOUR, NOW))
    assert life.state.lacking("events") == []


def reconciled(life: Life, job: Job) -> list[Any]:
    """Return the differences of the last two hours."""
    life.now += 120
    life.ship(job)
    known = read_snapshot(life.state.path, job.name, Span(0, life.now))
    assert known is not None
    if not job.query.is_divisible:
        life.carbon.kinds["users"] = "max"
    compared = compare_job(
        job, known, life.now - 3 * HOUR, None, source=life.source, graphite=FakeWeb(life.carbon), now=life.now
    )
    assert compared.compared > 0
    return compared.differences


def test_reconcile(life: Life) -> None:
    """Reconcile counts distinct values of each bucket from the source. Mutants: read them by chunk; by part."""
    life.insert(*[(minutes * 60, "login", name) for minutes in (30, 29, 5) for name in "xxyz"])
    assert reconciled(life, users(chunk=3)) == []
    life.source.rows[0]["outcome"] = "changed"
    (difference,) = reconciled(life, users(chunk=3))

    assert (difference.slot, difference.path) == (NOW - 1800, "events.users")
    assert (difference.source, difference.graphite) == (4, 3)


def test_reconcile_before_a_recount(life: Life) -> None:
    """Reconcile does not compare a slot that lacks rows: it is not complete. Mutant: report it as different."""
    job = users(bucket=HOUR)
    hour = NOW - NOW % HOUR - HOUR
    life.insert((NOW - hour, "login", "x"))
    life.ship(job)
    life.now += 1
    life.insert((life.now - hour, "login", "y"))
    life.ship(job)
    assert life.state.lacking("events")
    known = read_snapshot(life.state.path, job.name, Span(0, life.now))
    assert known is not None
    life.carbon.kinds["users"] = "max"
    compared = compare_job(job, known, hour, None, source=life.source, graphite=FakeWeb(life.carbon), now=life.now)

    assert compared.differences == []
    assert compared.left_out["incomplete"] == 1


def test_pruning_waits(life: Life) -> None:
    """A slot that lacks rows is not pruned. Mutant: prune it."""
    job = users(bucket=DAY)
    life.insert((60, "login", "x"))
    life.ship(job)
    life.insert((30, "login", "y"))
    life.ship(job)
    life.state._connection.execute("UPDATE slot SET changed = 0")
    life.state._connection.execute("UPDATE total SET changed = 0")
    assert life.state.housekeeping.prune("events", unit=DAY, before=NOW + 3 * DAY) == 0
    life.now += DAY
    life.ship(job)
    life.state._connection.execute("UPDATE slot SET changed = 0")
    life.state._connection.execute("UPDATE total SET changed = 0")

    assert stored(life) == {MIDNIGHT - NOW: 2}
    assert life.state.housekeeping.prune("events", unit=DAY, before=NOW + 3 * DAY) > 0


def test_reset(life: Life) -> None:
    """Slots with rows of a table that was emptied stay as they are. Mutant: recount them from the new table."""
    job = users()
    life.insert((60, "login", "x"), (60, "login", "y"))
    life.ship(job)
    progress, position = life.state.progress("events"), life.state.position("events")
    assert progress is not None
    life.source.rows.clear()
    life.given = 0
    begins = restarted(job, After.EMPTIED, progress, position, horizon(0, time=life.now), source=life.source)
    life.state.reset("events", **begins._asdict())
    life.now += 60
    life.insert((120, "login", "z"), (0, "login", "z"))
    life.ship(job)

    assert stored(life) == {-60: 2, 60: 1}
    assert stored(life, "count") == {-60: 3, 60: 1}
    assert life.limited() == [{"span": Span(NOW - 60, NOW), "slots": 1}]


def test_rename_and_forget(life: Life) -> None:
    """What a slot lacks follows its job."""
    job = users(bucket=DAY)
    life.insert((60, "login", "x"))
    life.ship(job)
    life.insert((30, "login", "y"))
    life.ship(job)
    noted = life.state.lacking("events")
    life.state.housekeeping.move("events", "others")
    assert life.state.lacking("others") == noted != []
    assert life.state.lacking("events") == []
    life.state.housekeeping.forget("others")
    assert life.state.lacking("others") == []


def test_change_while_rows_are_lacking(life: Life) -> None:
    """A slot that lacks rows, and that a changed definition cannot count, gets no 0. Mutant: fill it."""
    life.insert((MINUTE, "login", "x"))
    life.ship(users(zeros=DAY))
    life.insert((0, "login", "x"), (0, "login", "y"))
    life.now += 1
    steps = capture(users(zeros=DAY), horizon(3, time=life.now), source=life.source, ledger=life.state, now=life.now)
    next(steps)
    steps.close()
    del life.source.rows[1]
    life.now += 2 * MINUTE
    life.ship(users(zeros=DAY, where=(Condition("outcome", "in", ("x", "y")),)))

    assert stored(life, "count")[0] == 2
    assert 0 not in stored(life)


def test_longer_bucket_of_which_a_row_is_gone(life: Life) -> None:
    """A bucket that stayed as it was, since it was not over, does so at the next change: no row is in two.

    Mutant: take it for one as short as the others (280 rows were 262).
    """
    life.now = NOW // HOUR * HOUR

    def minutes(number: int, bucket: int) -> None:
        for _ in range(number):
            life.insert((30, "login", "ok"), (30, "login", "bad"))
            life.now += 60
            life.ship(users(bucket=bucket))

    minutes(15, HOUR)
    minutes(60, 120)
    del life.source.rows[4]
    minutes(56, 300)

    assert life.sums()["events.count"] == 262
