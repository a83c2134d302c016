"""Rows that are found by one thing beside another, each counted once: by a look, a recount, a backfill or a seek."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import NOW, horizon
from life import UNIT, Life, redefined, wanted

from shipper.core.capture import capture
from shipper.core.errors import SourceReset
from shipper.core.id_set import ids_of
from shipper.core.model import Job, Span

HOUR, DAY = 3600, 86400
TICKS = replace(wanted(time=None, template="ticks.{action}.{measure}"), name="ticks")
OWN = wanted(sql="SELECT a statement of one's own, which the fake reads as any other")


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """Give an empty table."""
    life = Life(tmp_path)
    yield life
    life.state.close()


def add(life: Life, *ids: int, ago: int = 0) -> None:
    """Add rows with these ids."""
    for one in ids:
        life.source.insert(one, life.created(ago), "login")


def look(life: Life, *jobs: Job, upto: int | None = None) -> None:
    """Capture up to an id that was seen, or to the table's largest; deliver nothing."""
    for job in jobs:
        seen = horizon(upto or life.source.observe(job.query).id, time=life.now)
        list(capture(job, seen, source=life.source, ledger=life.state, now=life.now))


def pass_time(life: Life, job: Job, looks: int, every: int = 60) -> None:
    """Look again and again."""
    for _ in range(looks):
        life.now += every
        look(life, job)


def stored(life: Life, job: str = "events") -> dict[int, int]:
    """Return totals by seconds since NOW."""
    statement = "SELECT slot, value FROM total JOIN series ON series.id = series WHERE job = ? ORDER BY slot"
    rows = life.state._connection.execute(statement, (job,)).fetchall()
    return {slot - NOW: int(value) for slot, value in rows}


def is_late(life: Life, job: str = "ticks") -> dict[int, list[int]]:
    """Return which ids are known to have come late, by the seconds since NOW of their slots."""
    return {late.slot - NOW: ids_of(late.words) for late in life.state.late_ids(job)}


def clock_id(when: int) -> int:
    """Return an id that holds the time at which it was given, as of a snowflake: far from all others."""
    return (when - 1_400_000_000) << 22


def test_rows_of_a_run(life: Life) -> None:
    """A statement of one's own counts a run of ids: late rows in it are counted with it, whether they are due or not.

    Three rows of one transaction lie in one run, and are asked for at different times (8 rows were 9).
    Mutant: remember those only that were due.
    """
    job = replace(OWN, every=30)
    add(life, 1, 2, 3, 4)
    look(life, job)
    seen = 4
    for seconds in range(30, 600, 30):
        life.now = NOW + seconds
        seen = {60: 12, 180: 20}.get(seconds, seen)  # two largest ids, whose rows were deleted before they were read
        if seconds == 270:
            add(life, 30)
            seen = 30
        if seconds == 300:
            add(life, 8, 15, 25)
        look(life, job, upto=seen)
        assert sum(stored(life).values()) == (4 if seconds < 270 else 5 if seconds < 300 else 8)

    assert life.state.late_rows("events") == 3


def test_late_rows_that_a_recount_finds(life: Life) -> None:
    """Late rows of one word of ids are all known once a recount has counted them, of a statement of one's own, too.

    Mutant: keep one id of a word (6 rows were 7).
    """
    add(life, 1, 2, 5, 6)
    look(life, OWN)
    life.now += 60
    look(life, OWN)
    add(life, 3, 4, ago=60)
    look(life, redefined(OWN))
    assert stored(life) == {0: 6}
    assert not life.state.position("events").has_gaps
    pass_time(life, redefined(OWN), 10)

    assert stored(life) == {0: 6}


def test_late_row_ahead_beside_a_recount(life: Life) -> None:
    """A late row with a time ahead of all that can be shown stays a gap for a recount: a look counts it as such.

    Mutant: take it for counted (7 rows were 6, and none rejected).
    """
    add(life, 1, 2, 3, 5, 6, 7)
    look(life, wanted())
    pass_time(life, wanted(), 1)
    add(life, 4, ago=-2 * HOUR)
    look(life, redefined(wanted()))
    pass_time(life, redefined(wanted()), 30)

    assert (stored(life), life.rejected()) == ({0: 6}, {"future": 1})
    assert not life.state.position("events").has_gaps


def test_late_row_beside_a_backfill_of_ticks(life: Life) -> None:
    """A row that comes late, of a job without a time, is not counted by a backfill of the slot that its id lies in.

    The next look counts it. Mutant: count all ids of the slot (8 rows were 9).
    """
    add(life, 1, 2, 3, 4, 6, 7, 8)
    look(life, TICKS)
    pass_time(life, TICKS, 2)
    add(life, 5)
    life.backfill(TICKS, Span(NOW, NOW + 60))
    assert stored(life, "ticks") == {0: 7}
    pass_time(life, TICKS, 10)

    assert stored(life, "ticks") == {0: 7, 240: 1}
    assert is_late(life) == {240: [5]}


def test_late_ids_as_long_as_a_slot_needs_them(life: Life) -> None:
    """Which ids came late is known as long as there is a slot that they would be counted in without that.

    Mutants: forget them with the slot in which they were counted (8 rows were 9); never forget them.
    """
    add(life, 1, 2, 3, 4, 6, 7, 8)
    look(life, TICKS)
    life.now += 2 * HOUR
    add(life, 5)
    look(life, TICKS)
    life.deliver()
    pass_time(life, TICKS, 4)
    before = {0: 7, 2 * HOUR: 1}
    assert (stored(life, "ticks"), is_late(life)) == (before, {2 * HOUR: [5]})

    # a backfill has touched the first slot, so it is kept longer than that of the late row
    life.backfill(TICKS, Span(NOW, NOW + 60))
    life.deliver()
    changed = "UPDATE slot SET changed = CASE slot WHEN ? THEN 2 ELSE 1 END * ?"
    life.state._connection.execute(changed, (NOW, 2**40))
    while life.state.housekeeping.prune("ticks", unit=UNIT, before=2**40 + 1):
        pass
    assert is_late(life) == {2 * HOUR: [5]}
    life.backfill(TICKS, Span(NOW, NOW + 60))
    assert stored(life, "ticks") == {0: 7}

    life.deliver()
    while life.state.housekeeping.prune("ticks", unit=UNIT, before=2**50):
        pass
    assert (stored(life, "ticks"), is_late(life)) == ({}, {})


def test_changed_behind_a_backlog(life: Life) -> None:
    """A job that looks back counts all its slots again when it changes, behind a chunk of rows that are open.

    Mutant: look for them down from captured only (8 rows were 0).
    """
    job = wanted(chunk=10, lookback=300)
    for number in range(1, 9):
        add(life, number, ago=1200 - 60 * number)
    look(life, job)
    for number in range(9, 25):
        life.source.insert(number, None, "login")
    for seconds in (60, 600, 60):
        life.now += seconds
        look(life, job)
    before = {60 * number - 1200: 1 for number in range(1, 9)}
    assert stored(life) == before
    life.now += 60
    look(life, redefined(job))

    assert stored(life) == before


def test_changed_with_ids_of_a_clock(life: Life) -> None:
    """Slots are found whose ids are far from the newest, of a row that has just been begun.

    Mutant: go down from captured in ids, not in rows (60 rows were 0).
    """
    job = wanted(lookback=300)
    for number in range(60, 0, -1):
        add(life, clock_id(NOW - 60 * number), ago=60 * number)
    life.now += 1
    look(life, job)
    life.now += 60
    life.source.insert(clock_id(life.now), None, "login")
    look(life, job)
    pass_time(life, job, 1)
    before = {-60 * number: 1 for number in range(60, 0, -1)}
    assert stored(life) == before
    life.now += 60
    look(life, redefined(job))

    assert stored(life) == before


def test_first_slot_with_ids_of_a_clock(life: Life) -> None:
    """The slot in which a job begins is whole, though its newest row has an older time, and ids are far apart.

    Mutant: look for its rows in so many ids (41 rows were 1).
    """
    life.now += 50
    job = wanted(start="now", chunk=1000)
    for second in range(40):
        add(life, clock_id(NOW + second), ago=50 - second)
    add(life, clock_id(NOW + 45), ago=DAY)
    look(life, job)
    add(life, clock_id(NOW + 50))
    look(life, job)

    assert stored(life) == {0: 41}


@pytest.mark.parametrize(
    ("job", "left"),
    [(wanted(), 21), (TICKS, 21), (wanted(lookback=600), 20)],
    ids=["timed", "without a time", "looks back"],
)
def test_newest_row_deleted(life: Life, job: Job, left: int) -> None:
    """A newest row that was deleted holds a job until others follow, whether it knows rows by their times or not.

    Mutant: let only a known row that has its time end that.
    """
    add(life, *range(1, 21))
    look(life, job)
    life.source.rows.pop()
    life.now += 60
    with pytest.raises(SourceReset):
        look(life, job)
    add(life, 21)
    life.now += 60
    look(life, job)

    assert sum(stored(life, job.name).values()) == left
