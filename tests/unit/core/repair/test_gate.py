"""What a recount leaves as it is: slots that rows are gone of, however the job came to count them, and when they go.

Each test counts rows, takes some away, changes what the job counts, and looks at what Graphite is told to hold.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import NOW, horizon
from life import UNIT, Life, redefined, wanted

from shipper.core.capture import capture
from shipper.core.ledger import Settled
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Archive, Job, Span
from shipper.core.rows.table import Event

HOUR = 3600


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """Give an empty table."""
    life = Life(tmp_path)
    yield life
    life.state.close()


def purge(life: Life, upto: int) -> None:
    """Delete rows up to an id."""
    life.source.rows = [row for row in life.source.rows if row["id"] > upto]


def stored(life: Life, measure: str = "count") -> dict[int, int]:
    """Return totals by seconds since NOW."""
    statement = "SELECT slot, value FROM total JOIN series ON series.id = series WHERE path = ? ORDER BY slot"
    rows = life.state._connection.execute(statement, (f"events.login.{measure}",)).fetchall()
    return {slot - NOW: int(value) for slot, value in rows}


def test_slots_of_a_backfill(life: Life) -> None:
    """Slots that a backfill has counted are not lowered when their rows were purged (100 rows were 55).

    Mutant: remember the ids of what is captured only.
    """
    job = wanted(start="now", chunk=10)
    for hours in range(10, 0, -1):
        life.insert(*[(hours * HOUR, "login", "ok")] * 10)
    life.ship(job)
    span = Span(NOW - 11 * HOUR, NOW)
    life.backfill(job, span)
    life.state.include("events", span)
    before = {-hours * HOUR: 10 for hours in range(10, 0, -1)}
    assert stored(life) == before
    purge(life, 50)
    life.now += 60
    life.ship(redefined(job))

    assert stored(life) == before
    assert life.limited() == [{"span": Span(NOW - 10 * HOUR, NOW - 6 * HOUR + 60), "slots": 5}]


def test_first_slot_of_a_job(life: Life) -> None:
    """The slot in which a job began holds rows from before; it is not lowered when those were purged (13 were 3).

    Mutant: remember the ids of what is captured only.
    """
    life.now += 30
    life.insert(*[(20, "login", "ok")] * 10)
    life.ship(wanted(start="now"))
    assert stored(life) == {0: 10}
    life.now += 60
    life.insert(*[(0, "login", "ok")] * 3)
    life.ship(wanted(start="now"))
    purge(life, 10)
    life.now += 60
    life.ship(redefined(wanted(start="now")))

    assert stored(life) == {0: 10, 60: 3}
    assert life.limited() == [{"span": Span(NOW, NOW + 60), "slots": 1}]


@pytest.mark.parametrize("step", range(8))
def test_purge_beside_a_recount(life: Life, step: int) -> None:
    """A purge lowers nothing, whatever a recount has read when it comes (200 rows were 100).

    Mutants: look for rows that are gone before reading only; after it only; keep what was read before they went.
    """
    for minutes in range(20, 0, -1):
        life.insert(*[(60 * minutes, "login", "ok")] * 10)
    life.ship(wanted(chunk=50))
    before = {-60 * minutes: 10 for minutes in range(20, 0, -1)}
    ids = {-60 * minutes: sum(range(201 - 10 * minutes, 211 - 10 * minutes)) for minutes in range(10, 0, -1)}
    assert stored(life) == before
    life.now += 60
    job = wanted(chunk=50, measures=(COUNT, Measure("ids", Kind.SUM, "id")))
    upto, reads = horizon(200, time=life.now), 0
    for found in capture(job, upto, source=life.source, ledger=life.state, now=life.now):
        if isinstance(found, Event):
            life.noticed.append(found)
        reads += found is None
        if reads == step:
            purge(life, 100)

    assert stored(life) == before
    assert stored(life, "ids") == ids
    left = [one["span"] for one in life.limited()]
    assert left == [Span(NOW - 1200, NOW - 600)]


def test_slot_that_would_be_cut(life: Life) -> None:
    """A slot that may be one of a coarser archive by now is left whole, or counted whole (60 rows were 59).

    Mutant: count again from the first bucket on behind the one that lacks a row.
    """
    archives = Archive(10, 6 * HOUR), Archive(60, 144 * HOUR)
    job = replace(wanted(every=10, bucket=10), archives=archives)
    life.now = NOW - 12 * HOUR
    for _ in range(6):
        life.insert(*[(0, "login", "ok")] * 10)
        ship(life, job)
        life.now += 10
    before = {-12 * HOUR + seconds: 10 for seconds in range(0, 60, 10)}
    assert stored(life) == before
    life.state._connection.execute("UPDATE total SET changed = 0")  # Graphite has it all
    life.now = NOW
    life.insert((0, "login", "ok"))
    ship(life, job)
    life.source.rows = [row for row in life.source.rows if row["id"] != 25]
    life.now += 60
    ship(life, redefined(job))

    assert stored(life) == before | {0: 1}
    assert life.limited() == [{"span": Span(NOW - 12 * HOUR, NOW - 12 * HOUR + 30), "slots": 1}]
    assert life.state.progress("events").since == NOW - 12 * HOUR + 60  # type: ignore[union-attr] # it has begun


def ship(life: Life, job: Job) -> None:
    """Capture, and deliver nothing."""
    upto = horizon(life.source.observe(job.query).id, time=life.now)
    steps = capture(job, upto, source=life.source, ledger=life.state, now=life.now)
    life.noticed += [step for step in steps if isinstance(step, Event)]


@pytest.mark.parametrize("purged", [0, 100])
def test_settled_as_long_as_its_slots(life: Life, purged: int) -> None:
    """How many old ids were counted is known as long as a slot has some of them: one that Carbon lacks stays for long.

    So its rows are counted again while they are there, and it is left when they are gone.
    Mutants: forget it with what is as old; never forget it.
    """
    job = wanted(late=HOUR)
    life.insert(*[(0, "login", "ok")] * 100)
    life.now += 30
    ship(life, job)
    for _ in range(70):
        life.now += 60
        life.insert((0, "login", "ok"))
        ship(life, job)
    before = {0: 100} | {60 * minutes: 1 for minutes in range(1, 71)}
    settled = [Settled(0, 110, 110)]
    assert (stored(life), life.state.settled("events")) == (before, settled)
    assert not life.state.housekeeping.prune("events", unit=UNIT, before=2**40)  # nothing was delivered
    assert life.state.settled("events") == settled
    purge(life, purged)
    life.now += 60
    ship(life, redefined(job))

    assert stored(life) == before
    assert life.limited() == ([{"span": Span(NOW, NOW + 660), "slots": 11}] if purged else [])
    life.deliver()
    while life.state.housekeeping.prune("events", unit=UNIT, before=2**40):
        pass
    assert (stored(life), life.state.settled("events")) == ({}, [])


def test_slots_below_all_that_is_known(life: Life) -> None:
    """Of ids below the one that a job began with nobody knows which it has counted: their slots are left as they are.

    Mutant: hold what is not known for there.
    """
    job = wanted(start=10, chunk=5)
    life.insert(*[(600, "login", "ok")] * 10, *[(60, "login", "ok")] * 5)
    life.ship(job)
    span = Span(NOW - 660, NOW)
    life.backfill(job, span)
    life.state.include("events", span)
    assert stored(life) == {-600: 10, -60: 5}
    purge(life, 4)
    life.ship(redefined(job))

    assert stored(life) == {-600: 10, -60: 5}
    assert life.limited() == [{"span": Span(NOW - 600, NOW - 540), "slots": 1}]


def test_lookback_slots(life: Life) -> None:
    """A job that looks back lowers what it looks back at, and nothing older when its rows were purged (60 were 30).

    Mutants: no gate; one for what is looked back at, too; know nothing of what was looked back at once.
    """
    job = wanted(lookback=300, chunk=5)
    for minutes in range(12, 0, -1):
        life.insert(*[(60 * minutes, "login", "ok")] * 5)
        life.source.insert(life.given + 1, None, "login")  # is never completed
        life.given += 1
    life.ship(job)
    before = {-60 * minutes: 5 for minutes in range(12, 0, -1)}
    assert stored(life) == before
    life.now += 60
    life.ship(job)
    purge(life, 20)
    life.source.rows = [row for row in life.source.rows if row["id"] != 61]
    life.now += 60
    life.ship(redefined(job))

    assert stored(life) == before | {-120: 4}
    assert life.limited() == [{"span": Span(NOW - 720, NOW - 240), "slots": 8}]
    life.source.rows[-1]["created_at"] = life.created(0)
    life.ship(redefined(job))
    assert stored(life) == before | {-120: 4, 120: 1}
