"""Spans that are counted again: what grows to whole slots, what stays as it is, and that nothing doubles."""

from dataclasses import replace
from itertools import pairwise

import pytest
from builders import NOW, job
from life import ARCHIVES, Life, wanted

from shipper.backfill import Limits, pieces, widened
from shipper.errors import DeliveryFailed
from shipper.model import Archive, Job, Key, Span, Window
from shipper.search import Chunk, chunks, windows_in

HOUR, DAY = 3600, 86400
TICKS = replace(wanted(time=None, zeros=DAY, template="ticks.{action}.{measure}"), name="ticks")
EDGE = ARCHIVES[0].duration
PAST = NOW - EDGE - DAY
_PATHS = ("events.login.count", "events.totp.count")
PRUNED = Span(NOW // HOUR * HOUR - 10 * HOUR, NOW // HOUR * HOUR - 2 * HOUR)


def span(start: int, end: int) -> Span:
    """Return a span by seconds before now."""
    return Span(NOW - start, NOW - end)


@pytest.mark.parametrize(
    ("asked", "changed", "expected"),
    [
        (span(130, 70), {}, span(180, 60)),
        (span(130, 70), {"bucket": 300}, Span((NOW - 130) // 300 * 300, (NOW - 70) // 300 * 300 + 300)),
        (Span(PAST + 60, PAST + 120), {}, Span(PAST // HOUR * HOUR, PAST // HOUR * HOUR + HOUR)),
        (span(60, -9 * DAY), {}, Span(NOW - 60, NOW + 420)),
        (span(-9 * DAY, -10 * DAY), {}, None),
        (span(500 * DAY, 400 * DAY), {}, None),
    ],
    ids=["whole minutes", "whole buckets", "a coarser archive's", "up to what can be shown", "future", "too old"],
)
def test_widened(asked: Span, changed: dict[str, int], expected: Span | None) -> None:
    """A span becomes the whole slots that receive it."""
    one = wanted(**changed)

    assert widened(one, asked, limits(one), now=NOW) == expected


def limits(one: Job, *, pruned: tuple[Span, ...] = (), oldest: int = -1) -> Limits:
    """Say that Graphite shows a year, up to some minutes from now."""
    return Limits(Span(NOW - 364 * DAY, NOW + 361), pruned, HOUR, oldest)


def test_what_was_pruned_together_is_counted_together() -> None:
    """An edge within what was pruned moves to that of a unit, which may be merged into one slot one day.

    Mutants: leave it where it is; move the edges of spans that hold all of it.
    """
    one, asked = wanted(), Span(PRUNED.start + 60, PRUNED.end - 60)

    assert widened(one, asked, limits(one, pruned=(PRUNED,)), now=NOW) == PRUNED
    around = Span(PRUNED.start - 60, PRUNED.end + 60)
    assert widened(one, around, limits(one, pruned=(PRUNED,)), now=NOW) == around


def test_what_may_be_purged_stays() -> None:
    """The slot of the table's oldest row, and all before, are left alone: rows may be gone that were counted.

    Mutant: begin with the oldest row itself.
    """
    one, oldest = wanted(), PRUNED.start + 90

    assert widened(one, Span(oldest - 600, NOW), limits(one, oldest=oldest), now=NOW) == Span(oldest + 30, NOW)
    some = widened(one, Span(oldest - 600, NOW), limits(one, pruned=(PRUNED,), oldest=oldest), now=NOW)
    assert some == Span(PRUNED.start + HOUR, NOW)
    assert widened(one, Span(oldest - 600, oldest - 60), limits(one, oldest=oldest), now=NOW) is None


@pytest.mark.parametrize(("unit", "length"), [(60, HOUR), (HOUR, HOUR), (DAY, DAY), (420, 8 * 420)])
def test_pieces_tile(unit: int, length: int) -> None:
    """Pieces cover a span, and end where units do. Mutant: begin to count at the span's start."""
    whole = Span(PRUNED.start // unit * unit + unit, PRUNED.end // unit * unit + 3 * unit)
    found = list(pieces(whole, unit))

    assert (found[0].start, found[-1].end) == (whole.start, whole.end)
    assert all(one.end == other.start for one, other in pairwise(found))
    assert all(one.end % length == 0 for one in found[:-1])


def test_search_finds_all_rows(life: Life) -> None:
    """A row far from its neighbours is found, across a hole of the ids. Mutant: end where a chunk has none."""
    life.source.rows.clear()
    life.source.insert(5, life.created(HOUR), "login")
    life.source.insert(10**9, life.created(60), "login")
    life.source.insert(10**9 + 500, None, "login")
    life.source.insert(10**12, life.created(HOUR), "late")
    found = list(chunks(wanted(), 0, 10**12, source=life.source))
    windows = windows_in([one for one in found if one], span(HOUR, HOUR - 1))

    assert len(found) < 10
    assert all(any(number in range(one.after + 1, one.upto + 1) for one in windows) for number in (5, 10**12))
    assert not any(10**9 in range(one.after + 1, one.upto + 1) for one in windows)


def test_windows_adjoin() -> None:
    """Chunks that reach into a span are read as one, where they adjoin; those that end where it begins are not."""
    found = [Chunk(Window(10 * n, 10 * n + 10), Span(NOW + n, NOW + n + 1)) for n in range(5)]

    assert windows_in(found, Span(NOW + 1, NOW + 3)) == [Window(10, 30)]
    assert windows_in([found[0], found[2]], Span(NOW, NOW + 9)) == [Window(0, 10), Window(20, 30)]


def test_hole_in_graphite(life: Life) -> None:
    """What Graphite lost is sent again, whole, though the totals are what they were. Mutant: send what changed only."""
    life.ship(wanted())
    life.carbon = life.new_carbon("two")
    assert life.sums() == {}
    life.backfill(wanted(), span(2 * HOUR, -60))
    life.deliver()

    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}


def test_what_was_pruned_is_counted_again(life: Life) -> None:
    """Rows that came too late for pruned slots are shown after a backfill, once; and captures add to it.

    Mutants: leave what is pruned alone; add to the totals; keep counting them as unshown.
    """
    life.ship(wanted())
    life.state.prune("events", unit=HOUR, before=10**10)
    life.now += 3 * DAY
    life.insert((3 * DAY + 60, "login", "ok"), (0, "totp", "ok"))
    life.ship(wanted())
    assert (life.sums()["events.login.count"], life.unshown()) == (3, {"too_late": 1})
    for _ in range(2):
        life.backfill(wanted(), span(HOUR, -60))
        life.deliver()
        assert (life.sums()["events.login.count"], life.unshown()) == (4, {})
    life.insert((3 * DAY + 60, "login", "ok"))
    life.ship(wanted())

    assert (life.sums()["events.login.count"], life.unshown()) == (5, {})


def test_time_before_the_job(life: Life) -> None:
    """What was never counted, because the job began later, can be had. Mutant: begin with slots that are known."""
    late = wanted(start="now")
    life.insert((3 * DAY, "login", "ok"))
    life.ship(late)
    assert life.sums() == {"events.totp.count": 1}
    life.backfill(late, span(4 * DAY, 0))
    life.deliver()

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}
    assert life.state.progress("events").captured == life.given  # type: ignore[union-attr] # it has begun


def test_wrong_bars_become_zero(life: Life) -> None:
    """A bar in Graphite that no row is for becomes 0, where the job writes zeros; the job's zeros go on as they were.

    Mutants: write no zeros; let the closing of buckets begin there again.
    """
    quiet = wanted(zeros=DAY)
    life.ship(quiet)
    life.insert((0, "login", "ok"))
    life.now += 600
    life.ship(quiet)
    closed = life.state.progress("events").closed_until  # type: ignore[union-attr] # it has begun
    life.carbon.deliver(b"events.login.count 7 %d\n" % (NOW + 120))
    life.carbon.flush()
    life.backfill(quiet, Span(NOW + 60, NOW + 180))
    life.deliver()

    assert life.minutes("events.login.count")[-120] == 0
    assert life.state.progress("events").closed_until == closed  # type: ignore[union-attr] # it has begun


def test_ticks(life: Life) -> None:
    """A job without a time counts the ids of its slots again. Mutant: read by time."""
    life.ship(TICKS)
    life.now += 120
    life.insert((0, "login", "ok"))
    life.ship(TICKS)
    before = life.sums()
    life.carbon = life.new_carbon("two")
    life.backfill(TICKS, span(600, -600))
    life.deliver()

    assert life.sums() == before


def test_ticks_that_were_merged(life: Life) -> None:
    """Ids of a slot that has gone to a coarser archive are not counted with those of its parts. Mutant: all slots."""
    life.ship(TICKS)
    life.carbon.kill()
    life.now += 60
    life.insert((0, "login", "ok"))
    with pytest.raises(DeliveryFailed):
        life.ship(TICKS)
    life.carbon.start()
    life.now += 8 * DAY
    for _ in range(2):  # merged, then sent
        life.ship(TICKS)
    before = life.sums()
    life.backfill(TICKS, Span(NOW - HOUR, NOW + HOUR))
    life.deliver()

    assert life.sums() == before


def test_coarse_slots(life: Life) -> None:
    """Beyond the finest archive whole hours are counted, and Graphite's hours hold them. Mutant: minutes there."""
    old = job(archives=(Archive(60, 2 * DAY), Archive(HOUR, 365 * DAY)), start="now")
    life.insert((3 * DAY, "login", "ok"), (3 * DAY + 300, "login", "ok"))
    life.ship(old)
    life.backfill(old, Span(NOW - 3 * DAY, NOW - 3 * DAY + 1))
    life.deliver()
    hours = life.carbon.zoom(ARCHIVES[1])["events.login.count"]

    assert sum(value for slot, value in hours.items() if slot < NOW - DAY) == 2


def test_cleared_bars(life: Life) -> None:
    """A bar that no row is for becomes 0 where somebody knows of it: minutes and hours, and nobody else's.

    Mutants: clear nothing; clear what is not the job's.
    """
    life.ship(wanted())
    hour = (NOW - 8 * DAY) // HOUR * HOUR
    for path, slot in ((b"events.login.count", NOW - 600), (b"events.login.count", hour), (b"other.count", NOW - 600)):
        life.carbon.deliver(b"%s 7 %d\n" % (path, slot))
    life.carbon.flush()
    cleared = [
        Key(path, slot, step) for slot, step in ((NOW - 600, 60), (hour, HOUR)) for path in (*_PATHS, "other.count")
    ]
    life.backfill(wanted(), Span(hour, hour + HOUR), Span(NOW - 600, NOW - 540), cleared=cleared)
    life.deliver()

    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2, "other.count": 7}


def test_row_of_the_future(life: Life) -> None:
    """A row that was in the future is found where its time has come, though its id is low.

    Mutant: look for it among the ids of its slot's other rows.
    """
    one = wanted(chunk=1)
    life.insert((-4 * HOUR, "login", "ok"))
    life.ship(one)
    assert life.unshown() == {"future": 1}
    life.now += 5 * HOUR
    life.insert((HOUR, "totp", "ok"), (0, "totp", "ok"))
    life.ship(one)
    low = life.state.lowest("events", Span(NOW + 3 * HOUR, NOW + 5 * HOUR))
    assert low is not None
    assert low[1] < 6
    life.backfill(one, Span(NOW + 3 * HOUR, NOW + 5 * HOUR))
    life.deliver()

    assert (life.sums()["events.login.count"], life.unshown()) == (4, {})


def test_merged_slots_without_a_time(life: Life) -> None:
    """An hour that was counted again knows the ids of its minutes, for comparisons. Mutant: know none."""
    for _ in range(3):
        life.ship(TICKS)
        life.now += 60
        life.insert((0, "login", "ok"))
    life.ship(TICKS)
    life.now += 8 * DAY
    life.ship(TICKS)
    life.backfill(TICKS, Span(NOW, NOW + 300))
    hour = [slot for slot in life.state.slots("ticks", span=Span(NOW, NOW + 300)) if slot.step == HOUR]

    assert [(slot.after, slot.upto) for slot in hour] == [(0, 8)]


def test_begins_behind_a_row_without_a_time(life: Life) -> None:
    """The slot in which a job begins is whole, whatever the row at which it begins lacks. Mutant: begin at the id."""
    late = wanted(start=6)
    life.source.insert(6, None, "login")
    life.insert((0, "login", "ok"), (0, "totp", "ok"))
    life.source.rows[-2]["id"], life.source.rows[-1]["id"] = 7, 8
    life.ship(late)

    assert life.sums() == {"events.login.count": 1, "events.totp.count": 2}
