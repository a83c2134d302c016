"""Comparison of the source with Graphite: the proof that each series has the count of its rows.

Strategy: the comparison does not use the totals of the state. It counts the rows up to captured again, reads every
series that the job ever had from Graphite, and adds both up in slots of the archive that answers. Graphite answers with
the archive that covers the start of a request, so time is cut where archives end.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from shipper.core.id_set import size_of
from shipper.core.ledger import JobSnapshot, Name
from shipper.core.measures import Kind, Value, combined
from shipper.core.model import ALWAYS, Group, Job, Progress, Row, SeriesData, Span, Window
from shipper.core.paths import Directory
from shipper.core.retention import Part, ceil, coalesce, floor, oldest_shown, parts, without
from shipper.core.rows.along_minutes import changed_buckets, minutes_of, window_of
from shipper.core.rows.folding import Folded, fold, read_undivided, widen
from shipper.core.rows.search import windows_by_index
from shipper.core.rows.slots import read_counted, rows_by_ids, uncounted
from shipper.core.rows.table import Size, Source, each_window, late_seconds, purged_below, purged_until, scan, walk_back
from shipper.core.verify.canary import AGGREGATIONS

EXACT = 2**53
"""Integers up to this one are different doubles."""
NEAR = 1e-9
"""Relative difference of doubles that were added up in another order, at most."""
ROUNDED = 1e-12
"""Rounding error of a sum of doubles, relative to the largest of them, at most."""
DAY_SECONDS = 86_400
MOST_CELLS = 500_000
"""Maximum number of cells counted at once: 150 MB."""

Number = TypeVar("Number", Value, float)


class Counted(NamedTuple):
    """Values of a series, by bucket, counted in the source."""

    kind: Kind
    values: dict[int, Value]


class Difference(NamedTuple):
    """A slot of a series in which source and Graphite differ; None where one of them has no value."""

    slot: int
    step: int
    path: str
    source: Value | None
    graphite: float | None
    kind: Kind


@dataclass(slots=True)
class Comparison:
    """Result of a comparison."""

    parts: list[Part]
    """Ranges of time that were compared, oldest first."""
    left_out: Counter[str]
    """Number of slots of the finest archive that were not compared, by reason."""
    requested: int = 0
    """Number of slots of the finest archive that were requested."""
    equal: int = 0
    """Number of equal values."""
    purged: int = 0
    """Number of values left out because the source no longer has all of their rows."""
    differences: list[Difference] = field(default_factory=list)
    late_rows: int = 0
    """Number of rows that appeared late and are left out, because the job has yet to ask for their ids."""

    @property
    def compared(self) -> int:
        """Return the number of slots of the finest archive that were compared."""
        return self.requested - self.left_out.total()

    @property
    def is_mostly_left_out(self) -> bool:
        """Whether less than half of the requested slots were compared."""
        return 2 * self.compared < self.requested

    @property
    def spans(self) -> list[Span]:
        """Return the spans in which they differ; adjoining slots are one span."""
        return coalesce(Span(one.slot, one.slot + one.step) for one in self.differences)


def compare_series(
    part: Part, path: str, counted: Counted, data: SeriesData | None, *, into: Comparison, purged_upto: int
) -> int:
    """Compare a series in the slots of a part; slots up to purged_upto may lack rows in the source.

    Return the length that was compared, in seconds: less than the part where Graphite's slots are longer than those of
    the part, and cut by its ends.
    """
    # add both up in the longer of the two steps: Graphite may not have the configured one
    data = data or SeriesData(0, part.step, ())
    kind, unit = counted.kind, max(part.step, data.step)
    source = _slots(counted.values.items(), unit, partial(combined, kind))
    sizes = _slots(((time, abs(float(value))) for time, value in counted.values.items()), unit, AGGREGATIONS["max"])
    graphite = _slots(data.items(), unit, AGGREGATIONS[kind.aggregation])

    # compare complete slots only
    span = Span(ceil(part.span.start, unit), floor(part.span.end, unit))
    for slot in sorted(slot for slot in source.keys() | graphite.keys() if slot in span):
        ours, theirs = source.get(slot), graphite.get(slot)
        if _is_equal(kind, ours, theirs, rounded=ROUNDED * sizes.get(slot, 0.0)):
            into.equal += 1
        elif slot <= purged_upto and _is_of_more(kind, ours, theirs):
            into.purged += 1
        else:
            into.differences.append(Difference(slot, unit, path, ours, theirs, kind))
    return max(0, span.end - span.start)


def _slots(
    values: Iterable[tuple[int, Number]], unit: int, combine: Callable[[list[Number]], Number]
) -> dict[int, Number]:
    """Combine values in slots of that length."""
    slots: dict[int, list[Number]] = {}
    for time, value in values:
        slots.setdefault(floor(time, unit), []).append(value)
    return {slot: combine(values) for slot, values in slots.items()}


def _is_equal(kind: Kind, ours: Value | None, theirs: float | None, *, rounded: float) -> bool:
    """Whether the values are equal for Whisper, which stores doubles. Where no rows are a 0, no value equals it."""
    if ours is None or theirs is None:
        return kind.has_zero and not ours and not theirs
    if isinstance(ours, int) and abs(ours) <= EXACT:
        # decimals may add up to a whole number, and their doubles nearly do
        return ours == theirs or (theirs % 1 != 0 and abs(ours - theirs) <= rounded)
    return math.isclose(float(ours), theirs, rel_tol=NEAR, abs_tol=rounded)


def _is_of_more(kind: Kind, ours: Value | None, theirs: float | None) -> bool:
    """Whether purged rows can explain the difference."""
    return theirs is not None and (ours is None or kind.has_more(theirs, ours))


class Graphite(Protocol):
    """The comparison's view of Graphite."""

    def held(self, paths: Sequence[str], span: Span, step: int) -> Iterator[tuple[str, SeriesData]]:
        """Yield the values of each path that Graphite knows, in a span of slots of step seconds.

        Raises:
            ReadbackFailed: Graphite does not answer.
        """


def requested_span(
    job: Job, progress: Progress | None, start: int | None, end: int | None, *, length: int = DAY_SECONDS
) -> Span:
    """Return the span to compare, in slots of the finest archive; without progress the job has not started.

    The default end is the time up to which the job is complete. The default start is `length` seconds before the end,
    but not before the job's first complete slot: slots that it never counted are not requested by default. With a start
    or an end, the span has at least one slot.
    """
    step, complete, since = job.archives[0].step, 0, ALWAYS.end
    if progress is not None:
        complete, since = floor(progress.complete_until, job.query.bucket), ceil(progress.since, step)
    upto = complete if end is None else floor(end, step)
    if start is not None:
        return Span(floor(start, step), max(upto, floor(start, step) + step))
    least = 0 if end is None else step
    return Span(min(max(floor(upto - length, step), since), upto - least), upto)


def compare_job(
    job: Job,
    snapshot: JobSnapshot,
    start: int | None,
    end: int | None,
    *,
    source: Source,
    graphite: Graphite,
    now: int,
    cells: int = MOST_CELLS,
) -> Comparison:
    """Compare a job in the requested slots; cells is the maximum number of them counted at once."""
    # which slots can be compared, and which of them may have lost rows
    snapshot = _with_changes(job, snapshot, source)
    span, step = requested_span(job, snapshot.progress, start, end), job.archives[0].step
    comparison = Comparison(*_reach(job, snapshot, span, now), requested=(span.end - span.start) // step)
    purged_upto = _purged_upto(job, snapshot, source)
    for part in comparison.parts:
        for piece, folded in _pieces(job, part, snapshot, source, cells):
            # series that Graphite knows
            series = _by_series(job, folded, snapshot.names)
            least = _length([piece])
            for path, data in graphite.held(list(series), piece.span, piece.step):
                if path in series:
                    counted = series.pop(path)
                    length = compare_series(piece, path, counted, data, into=comparison, purged_upto=purged_upto)
                    least = min(least, length)

            # all other series, which differ in each slot with rows
            for path, counted in series.items():
                compare_series(piece, path, counted, None, into=comparison, purged_upto=purged_upto)
            comparison.left_out["other_step"] += (_length([piece]) - least) // step
        comparison.late_rows += _late_rows(job, part, snapshot, source)
    comparison.left_out = +comparison.left_out
    return comparison


def _with_changes(job: Job, snapshot: JobSnapshot, source: Source) -> JobSnapshot:
    """Add slots that lack rows because minutes have changed since the last look at them, along a time."""
    if snapshot.position is None or not job.query.is_along:
        return snapshot
    upto = max(snapshot.progress.captured, source.local(job.query, snapshot.progress.complete_until))
    minutes = minutes_of(snapshot.position.counted.floor, upto)
    return snapshot._replace(lacking=[*snapshot.lacking, *changed_buckets(job, minutes, snapshot.minutes, source)])


def _reach(job: Job, snapshot: JobSnapshot, span: Span, now: int) -> tuple[list[Part], Counter[str]]:
    """Return the parts that can be compared, and the number of slots of the finest archive that cannot, by reason."""
    # the job has counted all rows of its slots from `since` up to where it is complete or waits for a recount
    progress, (start, end) = snapshot.progress, (span.start, span.end)
    until = progress.complete_until if progress.recount_from is None else progress.recount_from
    latest = floor(min(until, progress.complete_until), job.query.bucket)
    first = min(max(start, progress.since), end)
    last = min(max(first, latest), end)

    # Graphite shows them where no archive ends; without a time column, the ids of pruned slots are not known
    shown = parts(job.archives, Span(first, last), now)
    complete = [rest for part in shown for rest in without(part, snapshot.lacking)]
    known = complete if job.query.time else [rest for part in complete for rest in without(part, snapshot.pruned)]

    # each other slot has one reason; those that no other reason explains are cut by the end of an archive
    step = job.archives[0].step
    seconds = {
        "not_whole": first - start,
        "incomplete": end - last + _length(shown) - _length(complete),
        "too_old": max(0, min(last, oldest_shown(job.archives, now)) - first),
        "pruned": _length(complete) - _length(known),
    }
    slots = Counter({reason: length // step for reason, length in seconds.items()})
    slots["cut"] = (end - start - _length(known)) // step - slots.total()
    return known, slots


def _length(ranges: Iterable[Part]) -> int:
    return sum(part.span.end - part.span.start for part in ranges)


def _purged_upto(job: Job, snapshot: JobSnapshot, source: Source) -> int:
    """Return the newest slot or time that may lack rows, because the source has purged them; -1 without a purge."""
    captured = snapshot.progress.captured
    if job.query.time is not None:
        return purged_until(job, captured, source=source)
    below = purged_below(job, captured, source=source)
    return max((slot.slot for slot in snapshot.slots if slot.after + 1 < below), default=-1)


def _pieces(job: Job, part: Part, snapshot: JobSnapshot, source: Source, cells: int) -> Iterator[tuple[Part, Folded]]:
    """Count the rows of a part again, half by half where there are more cells than memory should hold."""
    folded = _count(job, part, snapshot, source, cells)
    if folded is not None:
        yield part, folded
        return
    middle = floor((part.span.start + part.span.end) // 2, part.step)
    for half in (Span(part.span.start, middle), Span(middle, part.span.end)):
        yield from _pieces(job, part._replace(span=half), snapshot, source, cells)


def _count(job: Job, part: Part, snapshot: JobSnapshot, source: Source, cells: int) -> Folded | None:
    """Count the rows of a part again; None where it has too many cells and can be halved."""
    folded = Folded(sharing=Directory(job, snapshot.names).sharing)
    can_be_halved = part.span.end - part.span.start > part.step
    ids: dict[int, Window] = {}
    for window, rows in _rows(job, part, snapshot, source):
        fold((row for row in rows if row.bucket is not None), part.span, job.kinds, into=folded)
        if window is not None:
            widen(ids, {row.bucket for row in rows if row.bucket is not None}, window)
        if can_be_halved and len(folded.cells) > cells:
            return None
    for _ in read_undivided(job, ids, part.span, source=source, into=folded):
        pass  # the cells are what is wanted
    return folded


def _rows(job: Job, part: Part, snapshot: JobSnapshot, source: Source) -> Iterator[tuple[Window | None, list[Row]]]:
    """Read the rows of a part, up to captured: rows above it are not counted yet; with a time, give their window."""
    # without a time column, a slot is known by its ids
    if job.query.time is None:
        slots, late, position = snapshot.slots, snapshot.late, snapshot.position
        for rows in rows_by_ids(job, slots, late, part.span, source=source, position=position):
            yield None, rows
        return

    windows = _windows(job, part.span, snapshot, source)
    # buckets as long as the slots of the part: fewer cells, and the same sums
    if part.step % job.query.bucket == 0 and job.query.is_divisible:
        job = replace(job, query=replace(job.query, bucket=part.step))
    for window in windows:
        if snapshot.position is None or job.query.is_along:
            yield from scan(job, window.after, window.upto, source=source, span=part.span)
            continue
        read = partial(read_counted, job, source=source, position=snapshot.position, span=part.span)
        yield from each_window(job, window.after, window.upto, read, source=source)


def _late_rows(job: Job, part: Part, snapshot: JobSnapshot, source: Source) -> int:
    """Return the number of rows of a part that are left out because they are not counted yet."""
    position = snapshot.position
    if position is None or job.query.is_along or job.query.time is None:  # these have no such rows in counted slots
        return 0

    def read(window: Window) -> tuple[int, Size]:
        rows = size_of(uncounted(job, window, position, source, part.span))
        return rows, Size(rows, 1)

    windows = _windows(job, part.span, snapshot, source)
    return sum(rows for one in windows for _, rows in each_window(job, one.after, one.upto, read, source=source))


def _windows(job: Job, span: Span, snapshot: JobSnapshot, source: Source) -> list[Window]:
    """Return windows that contain all rows of a span, up to captured."""
    if job.query.is_along:
        window = window_of(job, span, source)
        return [window] if window is not None else []
    if (windows := windows_by_index(job, snapshot.progress.captured, span, source=source)) is not None:
        return windows
    # The lowest id by the state, or by time, whichever is lower: rows that no capture has seen may have lower ids than
    # those that were counted.
    captured, since = snapshot.progress.captured, Span(span.start - late_seconds(job), ALWAYS.end)
    low = walk_back(job, captured, since, source=source)
    low = min([low, *(slot.after for slot in snapshot.slots if slot.slot in span)])
    return [Window(low, captured)] if low < captured else []


def _by_series(job: Job, folded: Folded, names: Iterable[Name]) -> dict[str, Counted]:
    """Return the counted values by series: those that its measures ever had, and those that they should have."""
    directory = Directory(job, names)
    # a measure that the job no longer has keeps the values that it got: nothing counts its rows now
    present = {measure.name for measure in job.query.measures}
    series = {name.path: Counted(name.measure.kind, {}) for name in names if name.measure.name in present}
    paths: dict[Group, list[str]] = {}
    for (group, bucket), cell in folded.cells.items():
        if group not in paths:
            paths[group] = directory.paths(group)
        for path, measure, value in zip(paths[group], job.query.measures, cell.values, strict=False):
            # groups beyond the limit share their paths
            if value is not None and (measure.kind.is_divisible or not directory.shares(group)):
                _, cells = series.setdefault(path, Counted(measure.kind, {}))
                cells[bucket] = combined(measure.kind, [value, *([cells[bucket]] if bucket in cells else [])])
    return series
