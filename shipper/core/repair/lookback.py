"""Lookback: rows that are inserted at the start of something, and completed (their time is set) at its end.

Strategy: a row without its time is a gap like any other, and is counted when it is completed, wherever its time lies.
Completed rows may still change: each look recounts every bucket since `lookback` before the last successful look. A row
that is completed within that span is only recounted, one outside of it is only added, never both.

`low` makes the SQL faster: all rows that may still change or be completed are above it. Rows without a time that are
older than `max_age` when `low` moves above them are rejected as `never_completed`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from shipper.core.id_set import IdSet, Words, clipped, ids_of, size_of, union_of
from shipper.core.ledger import RecordUpdate
from shipper.core.model import ALWAYS, Job, Observation, Progress, Rejection, RejectReason, Row, Span, Window
from shipper.core.position import Position
from shipper.core.repair.recount import RECOUNTED, first_whole, lookback_from, received, slots_ahead
from shipper.core.retention import floor
from shipper.core.rows.folding import FAR, Folded, fold, folded_within_limit, read_undivided, shown_span, widen
from shipper.core.rows.look import TableLook
from shipper.core.rows.table import CaptureStep, Context, Size, each_window
from shipper.core.rows.totals import replace


@dataclass(slots=True)
class _Cycle:
    """Rows that a look has read: those of the span, and new ones before it, with their ids."""

    span: Folded
    before: Folded = field(default_factory=Folded)
    in_span: Words = field(default_factory=dict)
    new_before: Words = field(default_factory=dict)
    open: Words = field(default_factory=dict)
    """Ids of rows that may be completed later."""
    was_ahead: Words = field(default_factory=dict)
    """Ids of new rows before the span that an earlier look may have counted among those of the future."""
    has_rejected: bool = False
    """Whether rows of the future before the span stay rejected, because a definition without lookback did that."""


def lookback(
    context: Context, progress: Progress, *, look: TableLook, zero_fill: Span | None
) -> Iterator[CaptureStep | None]:
    """Recount the buckets of the span, and add rows that were completed before it; yield None while reading."""
    job, _, ledger, moment = context
    horizon, captured = look.horizon, progress.captured
    before, late = ledger.position(job.name), max(job.late, job.max_age)
    position = before.at_look(horizon, every=job.every, late=late)
    places = shown_span(job, now=moment.now, source_time=horizon.time)
    # slots that are incomplete, as those of the table before a reset, cannot be recounted
    bucket = max(progress.since, lookback_from(job, progress))
    since = first_whole(progress, received(job, bucket, job.query.bucket, ledger, moment.now))
    # slots that are ahead of a clock that was set back stay as they are
    ahead = slots_ahead(job, since, places.end, job.query.bucket, ledger)
    span = Span(since, ahead.start if ahead else ALWAYS.end)
    look.source.retry(job.query)

    # read all rows above low, or above the lowest late row; a span that begins with a coarser slot may need more
    appeared = _appeared(job, position, before, look, low=progress.low, late=late)
    low = progress.low if since >= bucket else _low_of(context, span, progress.low)
    low = min([low, *(one - 1 for one in ids_of(appeared)[:1])])
    cycle = _Cycle(folded_within_limit(job, ledger))
    if low < horizon.id:
        yield from _read(context, Window(low, horizon.id), span, places, known=position.counted, look=look, into=cycle)

    # move low up to the first row that is in the span, or that is incomplete and young
    passed, never = _passed(job, position, cycle, progress.low if ahead else horizon.id)
    decided = position.counted.missing(union_of(union_of(cycle.in_span, cycle.new_before), never))
    window = Window(captured, horizon.id) if horizon.id > captured else None
    is_left = bool(clipped(cycle.was_ahead, 0, captured)) and not cycle.has_rejected
    future = min(span.start, places.end) if is_left else span.start
    position = position.with_ids(decided) if window is None else position.with_window(window, decided)
    done = RecordUpdate(
        position.give_up_old_gaps(late, most=passed),
        _rejected(cycle, span, places, size_of(never)),
        horizon.time,
        low=passed if horizon.time >= progress.complete_until else _low_before(context, horizon, low),
        ids_within=Window(low, horizon.id) if low < horizon.id else None,
        is_recounted=True,
        is_lookback=True,
        shows=dict.fromkeys((RejectReason.TOO_OLD, RejectReason.TOO_LATE, *RECOUNTED), span)
        | {RejectReason.FUTURE: Span(future, span.end if ahead else FAR + 1)},
        fingerprint=look.fingerprint(job, horizon.id),
        late_rows=size_of(appeared),
        outside=look.outside(job.query, progress),
    )
    tally = replace(context, span, cycle.span, done, window=window, beside=cycle.before, zero_fill=zero_fill)
    # one step, after which nothing is left to do
    yield CaptureStep(window, cycle.span.rows + cycle.before.rows, tally, is_rest=False, late_rows=done.late_rows)


def _passed(job: Job, position: Position, cycle: _Cycle, upto: int) -> tuple[int, Words]:
    """Return the id up to which no row changes any more, and the ids of rows that will never be completed."""
    oldest = position.id_at(job.max_age)
    young = [one for one in ids_of(cycle.open) if one > oldest][:1]
    passed = min([upto + 1, *young, *ids_of(cycle.in_span)[:1]]) - 1
    return passed, position.counted.missing(clipped(cycle.open, 0, passed)) if passed else {}


def _low_before(context: Context, horizon: Observation, low: int) -> int:
    """Return `low` where a clock was set back: the next span begins earlier, and its rows may be below this one's."""
    since = floor(horizon.time - (context.job.lookback or 0), context.job.query.bucket)
    return _low_of(context, Span(since, ALWAYS.end), low)


def _low_of(context: Context, span: Span, low: int) -> int:
    """Return an id above which all rows of a span are, at most `low`."""
    known = context.ledger.lowest(context.job.name, span)
    return low if known is None else min(low, known[1])


def _appeared(job: Job, position: Position, before: Position, look: TableLook, *, low: int, late: int) -> Words:
    """Ask for the gaps below low that are due; rows above it are read anyway."""
    gaps = position.gaps_due(before, late, most=low)
    if not gaps.ranges and not gaps.ids:
        return {}
    with look.source.snapshot(job.query, since=look.horizon.clock):
        return look.source.appeared(job.query, position.counted, gaps)


def _read(
    context: Context, window: Window, span: Span, places: Span, *, known: IdSet, look: TableLook, into: _Cycle
) -> Iterator[None]:
    """Read all rows above low."""
    job, source, cycle = context.job, look.source, into
    query = job.query

    def read(part: Window) -> tuple[tuple[dict[int | None, Words], list[Row], Words, list[Row]], Size]:
        with source.snapshot(query, since=look.horizon.clock):
            by = dict(source.words_by(query, part))
            new: Words = {}
            for bucket in [one for one in by if one is not None and one < span.start]:
                there = by.pop(bucket)
                words = known.missing(there)
                if bucket + query.bucket > places.end:
                    cycle.was_ahead = union_of(cycle.was_ahead, words)
                    cycle.has_rejected |= bucket >= places.end and size_of(words) < size_of(there)
                if bucket < places.end:
                    new = union_of(new, words)
                else:  # the span begins ahead, and so is the row: it is open until its time comes
                    by[None] = union_of(by.get(None, {}), words)
            rows = source.read(query, part, span)
            rows_before = source.read(query, tuple(ids_of(new))) if new else []
        size = Size(sum(map(size_of, by.values())) + size_of(new), len(rows))
        return (by, rows, new, rows_before), size

    ids: dict[int, Window] = {}
    for part, (by, rows, new, rows_before) in each_window(job, window.after, window.upto, read, source=source):
        fold(rows, places, job.kinds, into=cycle.span)
        fold(rows_before, places, job.kinds, into=cycle.before)
        cycle.new_before = union_of(cycle.new_before, new)
        for bucket, words in by.items():
            if bucket is None or bucket >= min(places.end, span.end):
                cycle.open = union_of(cycle.open, words)
            else:
                cycle.in_span = union_of(cycle.in_span, words)
                widen(ids, [bucket], part)
        yield
    yield from read_undivided(job, ids, places, source=source, into=cycle.span)


def _rejected(cycle: _Cycle, span: Span, places: Span, never: int) -> Counter[Rejection]:
    """Return the rejected rows: all of the span, and the new ones before it."""
    rejected = cycle.span.rejected.copy()
    rejected.pop(Rejection(RejectReason.NO_TIME), None)
    # rows whose time is unreadable, too, are in each span until they are completed or given up
    rejected[Rejection(RejectReason.UNREADABLE, span.end - 1)] = rejected.pop(Rejection(RejectReason.UNREADABLE), 0)
    # rows that are too old, until the span has passed them: the first one contains all of the table's history
    rejected[Rejection(RejectReason.TOO_OLD, places.start - 1)] = rejected.pop(Rejection(RejectReason.TOO_OLD), 0)
    rejected[Rejection(RejectReason.NEVER_COMPLETED)] = never
    for one, rows in cycle.before.rejected.items():
        is_unreadable = one.reason is RejectReason.UNREADABLE
        rejected[one if is_unreadable else Rejection(RejectReason.TOO_LATE, one.bucket)] += rows
    return rejected
