"""Spans that are counted again: what grows to whole slots, what stays as it is, and that nothing doubles."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from builders import NOW, horizon, job, points
from life import ARCHIVES, Life, wanted

from shipper.core.errors import DeliveryFailed, StateCorrupt
from shipper.core.id_set import words_of
from shipper.core.ledger import RecordUpdate
from shipper.core.model import Archive, Job, Key, Now, Span, Window
from shipper.core.repair.backfill import Limits, aligned, backfill, pieces
from shipper.core.rows.table import Chunk, Context, chunks, windows_in

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

    assert aligned(one, asked, limits(one), now=NOW) == expected


@pytest.mark.parametrize("bucket", [60, 600, 3600])
@pytest.mark.parametrize("hours", [1, 2, 3])
def test_aligned_span_stays(bucket: int, hours: int) -> None:
    """A planned span is complete as it is, also with an archive of few hours: else no piece would be as planned.

    Mutant: end with the last bucket that can be shown, whatever slot the present one is in.
    """
    one = wanted(bucket=bucket)
    one = replace(one, archives=(Archive(60, hours * HOUR), Archive(HOUR, DAY), Archive(DAY, 400 * DAY)))
    now = NOW // HOUR * HOUR + 900
    reach = Limits(Span(NOW - 364 * DAY, now + min(bucket + 300, 600) + 1), (), DAY, -1)
    planned = aligned(one, Span(NOW - 7 * DAY, now), reach, now=now)
    assert planned is not None

    assert aligned(one, planned, reach, now=now) == planned


def test_aligned_span_of_longer_buckets_stays() -> None:
    """So does one that ends where a job began with shorter buckets: with the bucket. Mutant: with the beginning."""
    one, first = wanted(bucket=900), NOW // HOUR * HOUR
    reach = Limits(Span(NOW - 364 * DAY, NOW + 601), (), HOUR, -1, first + 960)
    planned = aligned(one, Span(first + 60, first + 120), reach, now=NOW + HOUR)

    assert planned == Span(first, first + 1800)
    assert aligned(one, planned, reach, now=NOW + HOUR) == planned


def limits(one: Job, *, pruned: tuple[Span, ...] = (), oldest: int = -1) -> Limits:
    """Say that Graphite shows a year, up to some minutes from now."""
    return Limits(Span(NOW - 364 * DAY, NOW + 361), pruned, HOUR, oldest)


def test_what_was_pruned_together_is_counted_together() -> None:
    """An edge within what was pruned moves to that of a unit, which may be merged into one slot one day.

    Mutants: leave it where it is; move the edges of spans that hold all of it.
    """
    one, asked = wanted(), Span(PRUNED.start + 60, PRUNED.end - 60)

    assert aligned(one, asked, limits(one, pruned=(PRUNED,)), now=NOW) == PRUNED
    around = Span(PRUNED.start - 60, PRUNED.end + 60)
    assert aligned(one, around, limits(one, pruned=(PRUNED,)), now=NOW) == around


def test_what_may_be_purged_stays() -> None:
    """The slot of the table's oldest row, and all before, are left alone: rows may be gone that were counted.

    Mutant: begin with the oldest row itself.
    """
    one, oldest = wanted(), PRUNED.start + 90

    assert aligned(one, Span(oldest - 600, NOW), limits(one, oldest=oldest), now=NOW) == Span(oldest + 30, NOW)
    some = aligned(one, Span(oldest - 600, NOW), limits(one, pruned=(PRUNED,), oldest=oldest), now=NOW)
    assert some == Span(PRUNED.start + HOUR, NOW)
    assert aligned(one, Span(oldest - 600, oldest - 60), limits(one, oldest=oldest), now=NOW) is None


@pytest.mark.parametrize(
    ("start", "known", "expected"),
    [
        # the slot that the table's oldest row is in, to the second
        (600, {"oldest": NOW - 601}, 600),
        (600, {"oldest": NOW - 600}, 540),
        (600, {"oldest": NOW - 541}, 540),
        (600, {"oldest": NOW - 540}, 480),
        (600, {"oldest": -1}, 600),
        # the first bucket that Graphite shows: from the next unit on where its slot is not all shown
        (600, {"shows": NOW - 600}, 600),
        (600, {"shows": NOW - 660}, 600),
        (720, {"shows": NOW - 660}, 660),
        (600, {"shows": NOW - 599}, -2760),
        # all of an hour that was pruned, from its first slot on
        (PRUNED.start + 60, {"pruned": PRUNED}, PRUNED.start),
        (PRUNED.start, {"pruned": PRUNED}, PRUNED.start),
        (PRUNED.end - 60, {"pruned": PRUNED}, PRUNED.end - HOUR),
        (PRUNED.end, {"pruned": PRUNED}, PRUNED.end),
        # where the oldest row is in what was pruned the whole unit stays
        (PRUNED.start, {"pruned": PRUNED, "oldest": PRUNED.start}, PRUNED.start + HOUR),
        (PRUNED.start, {"pruned": PRUNED, "oldest": PRUNED.start - 1}, PRUNED.start),
        (PRUNED.start, {"pruned": PRUNED, "oldest": PRUNED.start + HOUR - 1}, PRUNED.start + HOUR),
        (PRUNED.start, {"pruned": PRUNED, "oldest": PRUNED.start + HOUR}, PRUNED.start + 2 * HOUR),
        (PRUNED.end, {"pruned": PRUNED, "oldest": PRUNED.end}, PRUNED.end + 60),
    ],
)
def test_first_slot(start: int, known: dict[str, Any], expected: int) -> None:
    """Each of the bounds alone, to the second; those below a day are seconds before now.

    Mutants: begin with the slot of the oldest row where that is its first second; with a bucket that is cut.
    """
    one, (start, expected) = wanted(), (NOW - at if at < DAY else at for at in (start, expected))
    known = {"oldest": -1, "shows": NOW - 364 * DAY} | known
    pruned = (known["pruned"],) if "pruned" in known else ()
    found = aligned(
        one,
        Span(start, NOW + 2 * HOUR),
        Limits(Span(known["shows"], NOW + DAY), pruned, HOUR, known["oldest"]),
        now=NOW,
    )

    assert found == Span(expected, NOW + 2 * HOUR)


@pytest.mark.parametrize(
    ("end", "known", "expected"),
    [
        (NOW, {}, NOW),
        (NOW - 1, {}, NOW),
        (NOW + 1, {}, NOW + 60),
        (NOW, {"shows": NOW}, NOW),
        (NOW, {"shows": NOW - 1}, NOW),
        (NOW, {"shows": NOW - 60}, NOW - 60),
        (PRUNED.end - 60, {"pruned": PRUNED}, PRUNED.end),
        (PRUNED.end, {"pruned": PRUNED}, PRUNED.end),
        (PRUNED.start + 60, {"pruned": PRUNED}, PRUNED.start + HOUR),
        (PRUNED.start, {"pruned": PRUNED}, PRUNED.start),
        (PRUNED.end - 120, {"begins": PRUNED.end + 60}, PRUNED.end),
        (PRUNED.end - 120, {"begins": PRUNED.end - 60}, PRUNED.end - 60),
        (PRUNED.end - 120, {"begins": PRUNED.end - 120}, PRUNED.end - 120),
        (PRUNED.end - 120, {"begins": PRUNED.end - 180}, PRUNED.end - 120),
    ],
)
def test_last_slot(end: int, known: dict[str, Any], expected: int) -> None:
    """The end grows to a whole slot that can be shown, and to all of a unit that was pruned, or is before the job.

    Mutant: no limit before the job: then its first piece makes the plan of the last one wrong.
    """
    known = {"shows": NOW + 361, "begins": 0} | known
    pruned = (known["pruned"],) if "pruned" in known else ()
    shows = Span(NOW - 364 * DAY, known["shows"])
    start = PRUNED.start - HOUR

    assert aligned(wanted(), Span(start, end), Limits(shows, pruned, HOUR, -1, known["begins"]), now=NOW) == Span(
        start, expected
    )


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
    for number in range(150):
        life.source.insert(10**9 + number, life.created(60), "login")
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

    Mutants: leave what is pruned alone; add to the totals; keep counting them as rejected.
    """
    life.ship(wanted())
    life.state.housekeeping.prune("events", unit=HOUR, before=10**10)
    life.now += 3 * DAY
    life.insert((3 * DAY + 60, "login", "ok"), (0, "totp", "ok"))
    life.ship(wanted())
    assert (life.sums()["events.login.count"], life.rejected()) == (3, {"too_late": 1})
    for _ in range(2):
        life.backfill(wanted(), span(HOUR, -60))
        life.deliver()
        assert (life.sums()["events.login.count"], life.rejected()) == (4, {})
    life.insert((3 * DAY + 60, "login", "ok"))
    life.ship(wanted())

    assert (life.sums()["events.login.count"], life.rejected()) == (5, {})


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
    closed = life.state.progress("events").zero_filled_until  # type: ignore[union-attr] # it has begun
    life.carbon.deliver(points(b"events.login.count 7 %d\n" % (NOW + 120)))
    life.carbon.flush()
    life.backfill(quiet, Span(NOW + 60, NOW + 180))
    life.deliver()

    assert life.minutes("events.login.count")[-120] == 0
    assert life.state.progress("events").zero_filled_until == closed  # type: ignore[union-attr] # it has begun


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


def test_late_rows_of_ticks(life: Life) -> None:
    """Late rows of a job without a time are counted again where they were counted, whatever their ids.

    Mutants: where their ids are; in both; nowhere.
    """
    life.given = 7
    life.insert((0, "login", "ok"))
    life.ship(TICKS)
    life.now += 120
    life.source.insert(6, None, "login")
    life.source.insert(7, None, "late")
    life.ship(TICKS)
    before = life.minutes("ticks.login.count"), life.minutes("ticks.late.count")
    life.carbon = life.new_carbon("two")
    life.backfill(TICKS, span(600, -600))
    life.deliver()

    assert (life.minutes("ticks.login.count"), life.minutes("ticks.late.count")) == before
    assert life.sums() == {"ticks.login.count": 5, "ticks.totp.count": 2, "ticks.late.count": 1}


@pytest.mark.parametrize("finds", ["the backfill", "the next look"])
def test_late_row_beside_a_backfill(life: Life, finds: str) -> None:
    """A late row is counted once, whoever finds it first; one outside of the span stays new.

    Mutants: leave the set as it is; add what was not counted.
    """
    life.given = 7
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    if finds == "the backfill":
        life.source.insert(6, life.created(60), "late")
        life.source.insert(7, life.created(HOUR), "late")
    life.backfill(wanted(), span(600, -600))
    assert life.state.position("events").has_gaps
    if finds == "the next look":
        life.source.insert(6, life.created(60), "late")
        life.source.insert(7, life.created(HOUR), "late")
    for _ in range(5):
        life.now += 60
        life.ship(wanted())

    assert life.minutes("events.late.count") == {60: 1, HOUR: 1}
    assert not life.state.position("events").has_gaps


def test_backfill_beside_an_older_position(life: Life) -> None:
    """A look from before a backfill was recorded records nothing: that counted the same row. Mutant: all the same."""
    life.given = 6
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    before = life.state.position("events")
    life.source.insert(6, life.created(60), "late")
    life.backfill(wanted(), span(600, -600))
    with (
        pytest.raises(StateCorrupt, match="the position has changed meanwhile"),
        life.state.recording("events", None) as recording,
    ):
        recording.write(RecordUpdate(before.with_ids(words_of([6]))))


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
        life.carbon.deliver(points(b"%s 7 %d\n" % (path, slot)))
    life.carbon.flush()
    cleared = [
        Key(path, slot, step) for slot, step in ((NOW - 600, 60), (hour, HOUR)) for path in (*_PATHS, "other.count")
    ]
    life.backfill(wanted(), Span(hour, hour + HOUR), Span(NOW - 600, NOW - 540), cleared=cleared)
    life.deliver()

    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2, "other.count": 7}


@pytest.mark.parametrize(
    ("recount_windows", "left"),
    [
        (Span(NOW - 660, NOW - 600), {600: 7, 540: 7, 480: 7}),
        (Span(NOW - 600, NOW - 540), {600: 0, 540: 7, 480: 7}),
        (Span(NOW - 600, NOW - 480), {600: 0, 540: 0, 480: 7}),
        (Span(NOW - 540, NOW - 420), {600: 7, 540: 0, 480: 0}),
    ],
)
def test_cleared_bars_outside(life: Life, recount_windows: Span, left: dict[int, int]) -> None:
    """What is to be cleared is cleared in the span that is counted again, not before it and not from its end on.

    Mutants: clear all of it; the slot at the end, too; not the one at the start.
    """
    life.ship(wanted())
    for ago in (600, 540, 480):
        life.carbon.deliver(points(b"events.login.count 7 %d\n" % (NOW - ago)))
    life.carbon.flush()
    cleared = [Key("events.login.count", NOW - ago, 60) for ago in (600, 540, 480, 60)]
    life.backfill(wanted(), recount_windows, cleared=cleared)
    life.deliver()
    bars = life.minutes("events.login.count")

    assert {ago: bars[ago] for ago in (600, 540, 480)} == left
    assert bars[60] == 1  # which has a row


@pytest.mark.parametrize(
    ("recount_windows", "left"),
    [
        (Span(NOW - 660, NOW - 600), 3),
        (Span(NOW - 600, NOW - 540), 2),
        (Span(NOW - 600, NOW - 480), 1),
        (Span(NOW - 540, NOW - 480), 2),
        (Span(NOW - 540, NOW), 1),
        (Span(NOW - 600, NOW), 0),
    ],
)
def test_counters_outside(life: Life, recount_windows: Span, left: int) -> None:
    """Rows that were too late stay counted as that before the span and from its end on.

    Mutants: forget those of older slots, or of newer ones, too.
    """
    life.ship(wanted())
    life.state._connection.execute("INSERT INTO pruned VALUES ('events', ?, ?)", (NOW - HOUR, NOW - 300))
    life.insert((600, "login", "ok"), (540, "login", "ok"), (480, "login", "ok"))
    life.ship(wanted())
    assert life.rejected() == {"too_late": 3}
    _count_again(life, wanted(), recount_windows, [Window(0, life.given)])

    assert life.rejected().get("too_late", 0) == left
    assert life.sums()["events.login.count"] == 3 + 3 - left


def _count_again(life: Life, one: Job, span: Span, windows: list[Window], *, zero_filled_until: int = 0) -> None:
    """Count a span again as it is, and deliver."""
    progress = life.state.progress(one.name)
    assert progress is not None
    seen, moment = horizon(progress.captured, time=life.now), Now(life.now)
    progress = progress._replace(zero_filled_until=zero_filled_until or progress.zero_filled_until)
    list(backfill(Context(one, life.source, life.state, moment), span, windows, seen, progress))
    life.deliver()


def test_rows_beside_the_span(life: Life) -> None:
    """Of the ids that are read only rows of the span are counted: others of their slots may be elsewhere.

    Mutant: count all that is read.
    """
    life.source.rows.clear()
    life.given = 0
    life.insert(*[(120, "login", "ok")] * 3, (60, "login", "ok"))
    life.ship(wanted())
    _count_again(life, wanted(), Span(NOW - 60, NOW), [Window(2, 4)])

    assert life.minutes("events.login.count") == {120: 3, 60: 1}


def test_ids_of_what_was_counted_again(life: Life) -> None:
    """A slot knows among which ids its rows are, window by window. Mutants: of all that were read; none."""
    life.ship(wanted())
    life.state._connection.execute("DELETE FROM slot")
    _count_again(life, wanted(), Span(NOW - 120, NOW + 60), [Window(1, 3), Window(4, 5)])

    slots = life.state.slots("events", span=Span(NOW - 120, NOW + 60))
    assert {(slot.after, slot.upto) for slot in slots} == {(1, 3), (4, 5)}


def test_pieces_clear_their_own(life: Life) -> None:
    """What was counted again in one piece is not cleared by the next. Mutant: each piece clears all."""
    life.ship(wanted())
    before = life.minutes("events.login.count")
    cleared = [Key("events.login.count", NOW - ago, 60) for ago in before]
    life.backfill(wanted(), Span(NOW - 3 * HOUR, NOW + 60), cleared=cleared)
    life.deliver()

    assert life.minutes("events.login.count") == before


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (NOW + 60, NOW + 120, {60}),
        (NOW + 60, NOW + 240, {60, 120, 180}),
        (NOW + 60, NOW + 300, {60, 120, 180}),
        (NOW + 180, NOW + 360, {180}),
        (NOW + 240, NOW + 360, set()),
    ],
)
def test_zeros_of_what_is_closed(life: Life, start: int, end: int, expected: set[int]) -> None:
    """Zeros are written in the span, and up to where buckets are closed: nobody has looked at what comes after.

    Mutants: in all of the span; up to where buckets are closed; a bucket more; none.
    """
    quiet = wanted(zeros=DAY)
    life.ship(quiet)
    life.now += 240
    _count_again(life, quiet, Span(start, end), [], zero_filled_until=NOW + 240)

    assert {-ago for ago in life.minutes("events.login.count") if ago < 0} == expected


@pytest.mark.parametrize(
    ("later", "span_", "left"),
    [
        (0, Span(NOW, NOW + 5 * HOUR), 1),  # its bucket cannot be shown yet
        (0, Span(NOW + 4 * HOUR, NOW + 4 * HOUR + 60), 1),
        (4 * HOUR - 361, Span(NOW, NOW + 5 * HOUR), 1),
        (4 * HOUR - 360, Span(NOW, NOW + 5 * HOUR), 0),
        (5 * HOUR, Span(NOW + 4 * HOUR + 60, NOW + 5 * HOUR), 1),
        (5 * HOUR, Span(NOW + 4 * HOUR, NOW + 5 * HOUR), 0),
        (5 * HOUR, Span(NOW, NOW + 4 * HOUR), 1),
    ],
)
def test_row_of_the_future_stays(life: Life, later: int, span_: Span, left: int) -> None:
    """A row stays counted as one of the future until its bucket can be shown, and is in the span.

    Mutants: take it for shown with its span; without it.
    """
    life.insert((-4 * HOUR, "login", "ok"))
    life.ship(wanted())
    assert life.rejected() == {"future": 1}
    life.now += later
    _count_again(life, wanted(), span_, [Window(0, 6)])

    assert life.rejected().get("future", 0) == left


def test_row_of_the_future(life: Life) -> None:
    """A row that was in the future is found where its time has come, though its id is low.

    Mutant: look for it among the ids of its slot's other rows.
    """
    one = wanted(chunk=1)
    life.insert((-4 * HOUR, "login", "ok"))
    life.ship(one)
    assert life.rejected() == {"future": 1}
    life.now += 5 * HOUR
    life.insert((HOUR, "totp", "ok"), (0, "totp", "ok"))
    life.ship(one)
    low = life.state.lowest("events", Span(NOW + 3 * HOUR, NOW + 5 * HOUR))
    assert low is not None
    assert low[1] < 6
    life.backfill(one, Span(NOW + 3 * HOUR, NOW + 5 * HOUR))
    life.deliver()

    assert (life.sums()["events.login.count"], life.rejected()) == (4, {})


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


def test_rows_of_before_a_change_with_lookback(life: Life) -> None:
    """Slots that a backfill makes complete are read by the next look, too (5 rows were 0). Mutant: leave `low`."""
    opened = wanted(lookback=DAY, max_age=DAY)
    changed = replace(opened, template="new.{action}.{measure}")
    for one in (opened, changed, changed):
        life.ship(one)
        life.now += 60
    everything = Span(NOW - DAY, life.now)
    life.backfill(changed, everything)
    life.state.include("events", everything)
    life.ship(changed)

    assert life.sums() == {"new.login.count": 3, "new.totp.count": 2}


def test_unreadable_row_of_before_a_change_with_lookback(life: Life) -> None:
    """A row that no query can read stays counted as rejected. Mutants: look for slots alone; begin with captured."""
    opened, rows = wanted(lookback=DAY, max_age=DAY), life.source.rows[:1]
    changed = replace(opened, query=replace(opened.query, bucket=300))
    life.source.rows = []
    life.source.unreadable.add(1)
    life.ship(opened)
    life.ship(changed)
    life.source.rows = rows
    life.ship(changed)
    everything = Span(NOW - DAY, NOW + 60)
    life.backfill(changed, everything)
    life.state.include("events", everything)
    life.now += 60
    life.ship(changed)

    assert life.rejected() == {"unreadable": 1}
