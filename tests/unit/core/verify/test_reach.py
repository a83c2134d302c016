"""Reach of a comparison, to the second: the requested span, the slots that are left out, where rows are looked for."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
from builders import NOW, job, progress
from fakes import FakeSource

from shipper.core.ledger import JobSnapshot, Name, Slot
from shipper.core.measures import COUNT, Kind
from shipper.core.model import ALWAYS, Archive, Job, Offsets, Progress, SeriesData, Span
from shipper.core.retention import Part
from shipper.core.verify.reconcile import Comparison, Counted, compare_job, compare_series, requested_span

MINUTE, HOUR, DAY = 60, 3600, 86_400
ARCHIVES = (Archive(MINUTE, 7 * DAY), Archive(HOUR, 365 * DAY))
PATH = "events.login.count"
LOGIN = Name(PATH, ("login",), COUNT)
TICKS = job(time=None, archives=ARCHIVES)


class Web:
    """A graphite-web that answers with one value for each step, or with none."""

    def __init__(self, value: float | None = None, step: int | None = None, paths: Sequence[str] = (PATH,)) -> None:
        self._value = value
        self._step = step
        self._paths = paths

    def held(self, paths: Sequence[str], span: Span, step: int) -> Iterator[tuple[str, SeriesData]]:
        """Yield the values, as shipper.graphite.render_api.Readback.held."""
        step = self._step or step
        start = span.start - span.start % step
        for path in self._paths:
            yield path, SeriesData(start, step, [self._value] * -(-(span.end - start) // step))


def read_snapshot(
    job_progress: Progress, *, names: Sequence[Name] = (), slots: Sequence[Slot] = (), pruned: Span | None = None
) -> JobSnapshot:
    """Build a snapshot of a job."""
    offsets = Offsets("app", "audit_trail", "id", job_progress.captured, job_progress.captured, None, "")
    return JobSnapshot(offsets, job_progress, list(names), list(slots), [pruned] if pruned else [])


def table(*rows: tuple[int, int | None]) -> FakeSource:
    """Build a table of logins, given by id and seconds before now."""
    source = FakeSource(is_time_indexed=False)
    for number, ago in rows:
        when = None if ago is None else datetime.fromtimestamp(NOW - ago, UTC).strftime("%Y-%m-%d %H:%M:%S")
        source.insert(number, when, "login")
    return source


def before_now(span: Span) -> tuple[int, int]:
    """Return a span as seconds before now."""
    return NOW - span.start, NOW - span.end


@pytest.mark.parametrize(
    ("start", "end", "changed", "expected"),
    [
        # default: a day, from the first complete slot on
        (None, None, {}, (DAY, 0)),
        (None, None, {"complete_until": NOW - 1}, (DAY + 60, 60)),
        (None, None, {"complete_until": NOW - 3 * DAY}, (4 * DAY, 3 * DAY)),
        (None, None, {"complete_until": NOW - 1, "bucket": 300}, (DAY + 240, 240)),
        (None, None, {"since": NOW - DAY - 60}, (DAY, 0)),
        (None, None, {"since": NOW - DAY}, (DAY, 0)),
        (None, None, {"since": NOW - DAY + 60}, (DAY - 60, 0)),
        (None, None, {"since": NOW - 90}, (60, 0)),
        (None, None, {"since": NOW}, (0, 0)),
        (None, None, {"since": NOW + 120}, (0, 0)),
        (None, None, {"recount_from": NOW - 600}, (DAY, 0)),
        # a start: from its slot on, up to where the job is complete
        (600, None, {}, (600, 0)),
        (599, None, {}, (600, 0)),
        (601, None, {}, (660, 0)),
        (600, None, {"since": NOW - 60}, (600, 0)),
        (600, None, {"complete_until": NOW - 600}, (600, 540)),
        (600, None, {"complete_until": NOW - 3 * DAY}, (600, 540)),
        (600, None, {"complete_until": NOW - 480}, (600, 480)),
        # an end: the slots of a day that end by then
        (None, 120, {}, (DAY + 120, 120)),
        (None, 119, {}, (DAY + 120, 120)),
        (None, 120, {"since": NOW - 180}, (180, 120)),
        (None, 120, {"since": NOW - 120}, (180, 120)),
        (None, 120, {"since": NOW}, (180, 120)),
        (None, -600, {"since": NOW - 600}, (600, -600)),
        # both
        (600, 120, {"since": NOW}, (600, 120)),
        (599, 61, {"complete_until": 0}, (600, 120)),
        (50, 10, {}, (60, 0)),
    ],
)
def test_requested_span(start: int | None, end: int | None, changed: dict[str, int], expected: tuple[int, int]) -> None:
    """A span that is given is requested completely; the default is the complete slots of the job, up to a day.

    Mutants: limit a given start; a day before now; nothing, where only one end is given; half slots.
    """
    changed = {"complete_until": NOW} | changed
    one = job(archives=ARCHIVES, bucket=changed.pop("bucket", 60))
    ends = (None if start is None else NOW - start, None if end is None else NOW - end)

    assert before_now(requested_span(one, progress(one, **changed), *ends)) == expected


@pytest.mark.parametrize(
    ("start", "end", "slots"), [(None, None, 0), (NOW, None, 1), (None, NOW, 1), (NOW, NOW + 600, 10)]
)
def test_requested_span_of_a_job_that_has_not_started(start: int | None, end: int | None, slots: int) -> None:
    """Without a given time, no slot of a new job is requested."""
    span = requested_span(job(archives=ARCHIVES), None, start, end)

    assert (span.end - span.start) // MINUTE == slots


@pytest.mark.parametrize(
    ("start", "end", "changed", "expected", "left_out"),
    [
        (600, 0, {}, [(600, 0, MINUTE)], {}),
        (600, 120, {}, [(600, 120, MINUTE)], {}),
        # up to where it is complete, to the second
        (600, 0, {"complete_until": NOW - 1}, [(600, 60, MINUTE)], {"incomplete": 1}),
        (600, 0, {"complete_until": NOW - 60}, [(600, 60, MINUTE)], {"incomplete": 1}),
        (600, 0, {"complete_until": NOW - 599}, [], {"incomplete": 10}),
        (600, 0, {"complete_until": NOW - 540}, [(600, 540, MINUTE)], {"incomplete": 9}),
        (600, 0, {"complete_until": NOW - 9000}, [], {"incomplete": 10}),
        (600, -600, {}, [(600, 0, MINUTE)], {"incomplete": 10}),
        (-600, -1200, {}, [], {"incomplete": 10}),
        # slots that wait for a recount
        (600, 0, {"recount_from": NOW - 120}, [(600, 120, MINUTE)], {"incomplete": 2}),
        (600, 0, {"recount_from": NOW - 600}, [], {"incomplete": 10}),
        (600, 0, {"recount_from": NOW + 60, "complete_until": NOW - 60}, [(600, 60, MINUTE)], {"incomplete": 1}),
        # from the first complete slot on
        (600, 0, {"since": NOW - 600}, [(600, 0, MINUTE)], {}),
        (600, 0, {"since": NOW - 540}, [(540, 0, MINUTE)], {"not_whole": 1}),
        (600, 0, {"since": NOW - 541}, [(540, 0, MINUTE)], {"cut": 1}),
        (600, 0, {"since": NOW}, [], {"not_whole": 10}),
        (600, 0, {"since": NOW + 600}, [], {"not_whole": 10}),
        (600, 0, {"since": NOW - 120, "complete_until": NOW - 300}, [], {"not_whole": 8, "incomplete": 2}),
        (600, 120, {"since": NOW - 60}, [], {"not_whole": 8}),
        (
            600,
            0,
            {"since": NOW - 480, "recount_from": NOW - 180},
            [(480, 180, MINUTE)],
            {"not_whole": 2, "incomplete": 3},
        ),
    ],
)
def test_reach(
    start: int, end: int, changed: dict[str, int], expected: list[tuple[int, int, int]], left_out: dict[str, int]
) -> None:
    """Each requested slot is compared or left out, once.

    Mutants: compare the slot that is not complete, or the one in which the job started; count a slot by two reasons.
    """
    one = job(archives=ARCHIVES)
    known = read_snapshot(progress(one, **({"complete_until": NOW} | changed)))
    comparison = compare_job(one, known, NOW - start, NOW - end, source=FakeSource(), graphite=Web(paths=()), now=NOW)

    assert [(*before_now(part.span), part.step) for part in comparison.parts] == expected
    assert comparison.left_out == left_out
    assert comparison.requested == (start - end) // MINUTE
    assert comparison.compared * MINUTE == sum(one - other for one, other, _ in expected)


WEEK_AGO, YEAR_AGO = (NOW - ARCHIVES[0].duration) // HOUR * HOUR, (NOW - ARCHIVES[1].duration) // HOUR * HOUR


@pytest.mark.parametrize(
    ("span", "second", "expected", "left_out"),
    [
        # the hour that leaves the finest archive, with ten minutes before and after its end
        (Span(WEEK_AGO - HOUR, WEEK_AGO + 3 * HOUR), 599, [(-1, -1, HOUR), (1, 3, MINUTE)], {"cut": 120}),
        (Span(WEEK_AGO - HOUR, WEEK_AGO + 3 * HOUR), 600, [(-1, 0, HOUR), (1, 3, MINUTE)], {"cut": 60}),
        (Span(WEEK_AGO - HOUR, WEEK_AGO + 3 * HOUR), 2999, [(-1, 0, HOUR), (1, 3, MINUTE)], {"cut": 60}),
        (Span(WEEK_AGO - HOUR, WEEK_AGO + 3 * HOUR), 3000, [(-1, 0, HOUR), (2, 3, MINUTE)], {"cut": 120}),
        # an hour of which parts are requested
        (Span(WEEK_AGO - 3 * HOUR + 60, WEEK_AGO - HOUR - 60), 840, [], {"cut": 118}),
        (Span(WEEK_AGO - 3 * HOUR, WEEK_AGO - HOUR - 60), 840, [(-3, -2, HOUR)], {"cut": 59}),
    ],
)
def test_edge_of_the_finest_archive(
    span: Span, second: int, expected: list[tuple[int, int, int]], left_out: dict[str, int]
) -> None:
    """Slots that wait around the end of an archive are left out. Mutants: no margin; one on the wrong side."""
    now = NOW - NOW % HOUR + second
    one = job(archives=ARCHIVES)
    known = read_snapshot(progress(one, complete_until=now))
    comparison = compare_job(one, known, span.start, span.end, source=FakeSource(), graphite=Web(paths=()), now=now)
    hours = [
        ((part.span.start - WEEK_AGO) // HOUR, (part.span.end - WEEK_AGO) // HOUR, part.step)
        for part in comparison.parts
    ]

    assert hours == [part for part in expected if part[0] < part[1]]
    assert comparison.left_out == left_out


@pytest.mark.parametrize(
    ("second", "first", "left_out"),
    [
        (839, 3, {"too_old": 143, "cut": 37}),
        (2999, 3, {"too_old": 179, "cut": 1}),
        (3000, 4, {"too_old": 180, "cut": 60}),
    ],
)
def test_end_of_the_last_archive(second: int, first: int, left_out: dict[str, int]) -> None:
    """Slots that the last archive drops before all replays are sent are too old. Mutant: no room for replays."""
    now = NOW - NOW % HOUR + second
    one = job(archives=ARCHIVES)
    known = read_snapshot(progress(one, complete_until=now))
    asks = (YEAR_AGO, YEAR_AGO + 5 * HOUR)
    comparison = compare_job(one, known, *asks, source=FakeSource(), graphite=Web(paths=()), now=now)

    assert [part.span for part in comparison.parts] == [Span(YEAR_AGO + first * HOUR, YEAR_AGO + 5 * HOUR)]
    assert comparison.left_out == left_out
    assert comparison.compared == (5 - first) * 60


@pytest.mark.parametrize(
    ("pruned", "expected"),
    [((900, 540), [(540, 0)]), ((540, 480), [(600, 540), (480, 0)]), ((600, 0), []), ((599, 541), [(540, 0)])],
)
def test_pruned(pruned: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    """Pruned slots are left out only of jobs without a time column, in complete slots."""
    gone, job_progress = Span(NOW - pruned[0], NOW - pruned[1]), progress(TICKS, complete_until=NOW)
    comparison = _ten_minutes(TICKS, read_snapshot(job_progress, pruned=gone))
    timed = _ten_minutes(job(archives=ARCHIVES), read_snapshot(job_progress, pruned=gone))

    assert [before_now(part.span) for part in comparison.parts] == expected
    assert comparison.left_out["pruned"] == 10 - sum(one - other for one, other in expected) // MINUTE
    assert (timed.compared, timed.left_out) == (10, {})


def _ten_minutes(one: Job, known: JobSnapshot, web: Web | None = None, source: FakeSource | None = None) -> Comparison:
    asks = (NOW - 600, NOW)
    return compare_job(one, known, *asks, source=source or FakeSource(), graphite=web or Web(paths=()), now=NOW)


@pytest.mark.parametrize(
    ("step", "left_out"), [(30, {}), (60, {}), (120, {}), (300, {"other_step": 5}), (HOUR, {"other_step": 10})]
)
def test_longer_steps_in_graphite(step: int, left_out: dict[str, int]) -> None:
    """Where Graphite answers with longer slots, those that the span cuts are left out and counted.

    Mutant: count them as compared. NOW is 14 minutes past the hour, an even number.
    """
    one = job(archives=ARCHIVES)
    known = read_snapshot(progress(one, complete_until=NOW), names=[LOGIN])

    assert _ten_minutes(one, known, Web(step=step)).left_out == left_out


@pytest.mark.parametrize(
    ("requested", "left_out", "is_less"), [(0, 0, False), (1, 1, True), (4, 2, False), (5, 3, True), (7200, 7198, True)]
)
def test_less_than_half(requested: int, left_out: int, is_less: bool) -> None:  # noqa: FBT001 - a table
    """Half is enough, also of nothing. Mutants: half is too little; nothing is."""
    comparison = Comparison([], Counter(cut=left_out), requested=requested)

    assert comparison.compared == requested - left_out
    assert comparison.is_mostly_left_out is is_less


@pytest.mark.parametrize(
    ("slot", "purged_upto", "is_purged"),
    [(0, -1, False), (0, 0, True), (60, 59, False), (60, 60, True), (60, 61, True), (120, ALWAYS.end, True)],
)
def test_slot_of_the_oldest_row(slot: int, purged_upto: int, is_purged: bool) -> None:  # noqa: FBT001 - a table
    """A slot that begins at the time up to which rows are purged may lack some. Mutant: only slots before it."""
    comparison, part = Comparison([], Counter()), Part(Span(slot, slot + 60), 60)
    compare_series(
        part, "a", Counted(Kind.COUNT, {slot: 1}), SeriesData(slot, 60, [2.0]), into=comparison, purged_upto=purged_upto
    )

    assert (comparison.purged, len(comparison.differences)) == ((1, 0) if is_purged else (0, 1))


@pytest.mark.parametrize(
    ("kind", "more", "less"),
    [(Kind.COUNT, 3.0, 1.0), (Kind.MAX, 3.0, 1.0), (Kind.MIN, 1.0, 3.0), (Kind.DISTINCT, 3.0, 1.0)],
)
@pytest.mark.parametrize("is_purged", [True, False])
def test_values_of_more_rows(kind: Kind, more: float, less: float, *, is_purged: bool) -> None:
    """Rows that are gone explain what they could have changed. Mutant: they explain any minimum."""
    comparison, part = Comparison([], Counter()), Part(Span(0, 60), 60)
    compare_series(
        part,
        "a",
        Counted(kind, {0: 2}),
        SeriesData(0, 60, [more if is_purged else less]),
        into=comparison,
        purged_upto=ALWAYS.end,
    )

    assert (comparison.purged, len(comparison.differences)) == ((1, 0) if is_purged else (0, 1))


@pytest.mark.parametrize(("after", "is_purged"), [(2, True), (3, True), (4, False), (5, False)])
def test_slot_of_the_lowest_id(after: int, is_purged: bool) -> None:  # noqa: FBT001 - a table
    """Without a time column a slot may lack rows if its first id is below the ids that the table surely has.

    Here these are 5 and above: the first ids that are left are 3, 4 and 5. Mutants: one more, one less.
    """
    job_progress = progress(TICKS, 9, complete_until=NOW)
    known = read_snapshot(job_progress, names=[LOGIN], slots=[Slot(NOW - 600, MINUTE, after, 9)])
    comparison = _ten_minutes(TICKS, known, Web(9.0), table((3, None), (4, None), (5, None)))

    assert comparison.purged == (1 if is_purged else 0)


@pytest.mark.parametrize(
    ("rows", "after", "counted"),
    [
        # the ids of the slot include a row far below the rows of its time
        ([(1, 600), (2, 9000), (3, 9000), (4, 600)], 0, 2),
        ([(1, 600), (2, 9000), (3, 9000), (4, 600)], 1, 1),
        # rows up to an hour older
        ([(1, 600), (2, 4200), (3, 600)], 2, 2),
        ([(1, 600), (2, 4201), (3, 600)], 2, 1),
        # both; rows above captured are not compared
        ([(1, 600), (2, 9000), (3, 600), (4, 700), (5, 600), (10, 600)], 0, 3),
    ],
)
def test_where_its_rows_are(rows: list[tuple[int, int]], after: int, counted: int) -> None:
    """Rows are read from the lower of two ids: the one of the state, and the one of rows up to an hour older.

    Mutants: either alone; a minute less than an hour; from the first id on.
    """
    one = job(archives=ARCHIVES, chunk=1)
    known = read_snapshot(progress(one, 9, complete_until=NOW), slots=[Slot(NOW - 600, MINUTE, after, 9)])
    (difference,) = _ten_minutes(one, known, source=table(*rows)).differences

    assert (difference.slot, difference.source, difference.graphite) == (NOW - 600, counted, None)


def test_slot_outside_the_span() -> None:
    """Ids of slots that were not requested do not matter. Mutant: the ids of all slots."""
    one = job(archives=ARCHIVES, chunk=1)
    slots = [Slot(NOW - 660, MINUTE, 0, 9), Slot(NOW - 600, MINUTE, 1, 9), Slot(NOW, MINUTE, 0, 9)]
    known = read_snapshot(progress(one, 9, complete_until=NOW), slots=slots)
    (difference,) = _ten_minutes(one, known, source=table((1, 600), (2, 9000), (3, 600))).differences

    assert difference.source == 1
