"""What a source holds beside what Graphite holds: the proof of the promise.

Strategy: the totals in the state are no part of it. The rows up to captured are counted again, Graphite is asked for
every series that the job ever had, and both are added up to slots of the archive that answers: that is the one which
covers the beginning of what is asked, so time is cut where archives end.

Two sides of a series, slot by slot: what was counted in the source, and what Graphite holds.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from shipper.core.ledger import JobSnapshot, Name
from shipper.core.measures import Kind, Value, combined
from shipper.core.model import ALWAYS, Group, Job, Progress, Row, SeriesData, Span
from shipper.core.paths import Directory
from shipper.core.retention import Part, ceil, coalesced, floor, oldest_shown, parts, without
from shipper.core.rows.slots import rows_by_ids
from shipper.core.rows.table import Source, late_seconds, purged_below, purged_until, scan, walk_back
from shipper.core.rows.totals import Folded, fold
from shipper.core.verify.canary import AGGREGATIONS

EXACT = 2**53  # up to it each integer is a double of its own
NEAR = 1e-9  # doubles that were added up in another order differ by less

Number = TypeVar("Number", Value, float)


class Counted(NamedTuple):
    """What the source has of a series: how its values are put together, and what was counted, by bucket."""

    kind: Kind
    values: dict[int, Value]


class Difference(NamedTuple):
    """A slot of a series in which they are not equal; None where one of them has nothing."""

    slot: int
    step: int
    path: str
    source: Value | None
    graphite: float | None


@dataclass(slots=True)
class Comparison:
    """What a comparison came to."""

    parts: list[Part]
    """What was compared, oldest first."""
    left_out: Counter[str]
    """How many slots of the finest archive were not, by reason."""
    asked: int = 0
    """How many slots of the finest archive were asked for."""
    equal: int = 0
    """How many values are equal."""
    purged: int = 0
    """How many are left out, because the source no longer has all of their rows."""
    differences: list[Difference] = field(default_factory=list)

    @property
    def compared(self) -> int:
        """Return how many slots of the finest archive were compared."""
        return self.asked - self.left_out.total()

    @property
    def is_mostly_left_out(self) -> bool:
        """Was less than half of what was asked for compared?"""
        return 2 * self.compared < self.asked

    @property
    def spans(self) -> list[Span]:
        """Return when they differ, adjoining slots as one."""
        return coalesced(Span(one.slot, one.slot + one.step) for one in self.differences)


def compare(
    part: Part, path: str, counted: Counted, kept: SeriesData | None, *, into: Comparison, whole_after: int
) -> int:
    """Compare a series in the slots of a part; up to whole_after the source may lack rows that it had.

    Return how much of the part that is, seconds: less than all where Graphite's slots are longer, and cut by its ends.
    """
    kept = kept or SeriesData(0, part.step, ())
    kind, unit = counted.kind, max(part.step, kept.step)
    source = _slots(counted.values.items(), unit, partial(combined, kind))
    graphite = _slots(kept.items(), unit, AGGREGATIONS[kind.aggregation])
    whole = Span(ceil(part.span.start, unit), floor(part.span.end, unit))
    for slot in sorted(slot for slot in source.keys() | graphite.keys() if slot in whole):
        ours, theirs = source.get(slot), graphite.get(slot)
        if _is_equal(kind, ours, theirs):
            into.equal += 1
        elif slot <= whole_after and _has_more(kind, ours, theirs):
            into.purged += 1
        else:
            into.differences.append(Difference(slot, unit, path, ours, theirs))
    return max(0, whole.end - whole.start)


def _slots(
    values: Iterable[tuple[int, Number]], unit: int, combine: Callable[[list[Number]], Number]
) -> dict[int, Number]:
    """Put values together by slots of that length."""
    found: dict[int, list[Number]] = {}
    for time, value in values:
        found.setdefault(floor(time, unit), []).append(value)
    return {slot: combine(values) for slot, values in found.items()}


def _is_equal(kind: Kind, ours: Value | None, theirs: float | None) -> bool:
    """Are they the same to Whisper, which keeps doubles? Nothing is as good as 0 where values are added up."""
    if ours is None or theirs is None:
        return kind.is_additive and not ours and not theirs
    if isinstance(ours, int) and abs(ours) <= EXACT:
        return ours == theirs
    return math.isclose(float(ours), theirs, rel_tol=NEAR)


def _has_more(kind: Kind, ours: Value | None, theirs: float | None) -> bool:
    """Does Graphite hold what rows that are gone would explain?"""
    return theirs is not None and (ours is None or kind is Kind.MIN or theirs > ours)


DAY_SECONDS = 86_400
MOST_CELLS = 500_000  # are counted at once: 150 MB


class Graphite(Protocol):
    """Whoever says what Graphite holds."""

    def held(self, paths: Sequence[str], span: Span, step: int) -> Iterator[tuple[str, SeriesData]]:
        """Yield what it holds of each path that it knows, in a span of slots of step seconds.

        Raises:
            ReadbackFailed: no answer.
        """


def asked(job: Job, progress: Progress | None, start: int | None, end: int | None) -> Span:
    """Return the whole slots of the finest archive that somebody asks for, of a job that has begun or not.

    Those that end by the end, or, where none is named, by the time up to which the job is complete. Where no start is
    named, from a day before that on, or from where the job's slots begin to be whole: what it never counted was not
    asked for. Whoever names one of the two asks for one slot at least.
    """
    step, complete, since = job.archives[0].step, 0, ALWAYS.end
    if progress is not None:
        complete, since = floor(progress.complete_until, job.query.bucket), ceil(progress.since, step)
    upto = complete if end is None else floor(end, step)
    if start is not None:
        return Span(floor(start, step), max(upto, floor(start, step) + step))
    least = 0 if end is None else step
    return Span(min(max(floor(upto - DAY_SECONDS, step), since), upto - least), upto)


def compared(
    job: Job, book: JobSnapshot, start: int | None, end: int | None, *, source: Source, graphite: Graphite, now: int
) -> Comparison:
    """Compare a job in the slots that are asked for."""
    span, step = asked(job, book.progress, start, end), job.archives[0].step
    found = Comparison(*_reach(job, book, span, now), asked=(span.end - span.start) // step)
    whole_after = _whole_after(job, book, source)
    for part in found.parts:
        for piece, folded in _counts(job, part, book, source):
            series = _by_series(job, folded, book.names)
            least = _length([piece])
            for path, kept in graphite.held(list(series), piece.span, piece.step):
                if path in series:
                    counted = series.pop(path)
                    least = min(least, compare(piece, path, counted, kept, into=found, whole_after=whole_after))
            for path, counted in series.items():
                compare(piece, path, counted, None, into=found, whole_after=whole_after)
            found.left_out["other_step"] += (_length([piece]) - least) // step
    found.left_out = +found.left_out
    return found


def _reach(job: Job, book: JobSnapshot, span: Span, now: int) -> tuple[list[Part], Counter[str]]:
    """Return what can be compared, and how many slots of the finest archive cannot, and why."""
    progress, (start, end) = book.progress, (span.start, span.end)
    until = progress.complete_until if progress.recount_from is None else progress.recount_from
    latest = floor(min(until, progress.complete_until), job.query.bucket)
    first = min(max(start, progress.since), end)
    last = min(max(first, latest), end)
    found = parts(job.archives, Span(first, last), now)
    known = found if job.query.time else [rest for part in found for rest in without(part, book.pruned)]

    step = job.archives[0].step
    seconds = {
        "not_whole": first - start,
        "incomplete": end - last,
        "too_old": max(0, min(last, oldest_shown(job.archives, now)) - first),
        "pruned": _length(found) - _length(known),
    }
    slots = Counter({reason: length // step for reason, length in seconds.items()})
    slots["cut"] = (end - start - _length(known)) // step - slots.total()
    return known, slots


def _length(found: Iterable[Part]) -> int:
    return sum(part.span.end - part.span.start for part in found)


def _whole_after(job: Job, book: JobSnapshot, source: Source) -> int:
    """Return up to which time the source may lack rows that it had; -1 where none are gone."""
    captured = book.progress.captured
    if job.query.time is not None:
        return purged_until(job, captured, source=source)
    below = purged_below(job, captured, source=source)
    return max((slot.slot for slot in book.slots if slot.after + 1 < below), default=-1)


def _counts(job: Job, part: Part, book: JobSnapshot, source: Source) -> Iterator[tuple[Part, Folded]]:
    """Count the rows of a part again, half by half where there are more cells than can be held."""
    folded = _counted(job, part, book, source)
    if folded is not None:
        yield part, folded
        return
    middle = floor((part.span.start + part.span.end) // 2, part.step)
    for half in (Span(part.span.start, middle), Span(middle, part.span.end)):
        yield from _counts(job, part._replace(span=half), book, source)


def _counted(job: Job, part: Part, book: JobSnapshot, source: Source) -> Folded | None:
    """Count the rows of a part again; None where that is too much at once."""
    folded = Folded()
    can_be_halved = part.span.end - part.span.start > part.step
    for rows in _rows(job, part, book, source):
        fold((row for row in rows if row.bucket is not None), part.span, job.kinds, into=folded)
        if can_be_halved and len(folded.cells) > MOST_CELLS:
            return None
    return folded


def _rows(job: Job, part: Part, book: JobSnapshot, source: Source) -> Iterator[list[Row]]:
    """Read the rows of a part, up to captured: those that came later are in no total of that time."""
    if job.query.time is None:
        yield from rows_by_ids(job, book.slots, book.late, part.span, source=source)
        return
    if part.step % job.query.bucket == 0:  # fewer of them, and the same slots
        job = replace(job, query=replace(job.query, bucket=part.step))
    # rows that were missed may have lower ids than those that were counted
    since = Span(part.span.start - late_seconds(job), ALWAYS.end)
    low = walk_back(job, book.progress.captured, since, source=source)
    low = min([low, *(slot.after for slot in book.slots if slot.slot in part.span)])
    for _, rows in scan(job, low, book.progress.captured, source=source, span=part.span):
        yield rows


def _by_series(job: Job, folded: Folded, names: Iterable[Name]) -> dict[str, Counted]:
    """Return what was counted by series: those that the job ever had, and those that it should have."""
    directory = Directory(job, names)
    found = {name.path: Counted(name.measure.kind, {}) for name in names}
    paths: dict[Group, list[str]] = {}
    for (group, bucket), cell in folded.cells.items():
        if group not in paths:
            paths[group] = directory.paths(group)
        for path, measure, value in zip(paths[group], job.query.measures, cell.values, strict=False):
            if value is not None:  # groups beyond the limit share their paths
                _, cells = found.setdefault(path, Counted(measure.kind, {}))
                cells[bucket] = combined(measure.kind, [value, *([cells[bucket]] if bucket in cells else [])])
    return found
