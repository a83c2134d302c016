"""Backfill: a recount that an operator asks for, of any time that Graphite can show, pruned or never counted.

Strategy: recounted slots must be complete, because their totals overwrite the values in Graphite. Therefore the span is
rounded out to complete slots of the archive that receives them; if it cuts a group of slots that were pruned together,
to all of that group, which may be merged into one slot of a coarser archive. Times whose rows may have been purged are
left out.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from typing import NamedTuple

from shipper.core.ledger import Minute, RecordUpdate, Slot
from shipper.core.model import Job, Key, Observation, Progress, RejectReason, Span, Window
from shipper.core.repair.recount import RECOUNTED, Recounted, low_for, recount_windows
from shipper.core.retention import ceil, enclosing, floor
from shipper.core.rows.along_minutes import recount_along
from shipper.core.rows.folding import fold, folded_within_limit, shown_span
from shipper.core.rows.slots import rows_by_ids
from shipper.core.rows.table import CaptureStep, Context
from shipper.core.rows.totals import replace

LONG_SECONDS = 3600
"""Longest part of a backfill, unless a unit is longer."""
MOST_TOTALS = 100_000
"""Totals of a part, as far as units allow: 50 MB."""


class Limits(NamedTuple):
    """Limits of what can be recounted of a job."""

    shows: Span
    """The buckets that Graphite can show."""
    pruned: Sequence[Span]
    unit: int
    """Length of the groups of slots that are pruned together, in seconds."""
    purged_until: int
    """Time up to which rows of the table may have been purged; -1 if none were."""
    begins: int = 0
    """First slot of the job; once a span before it is recounted, the time between the two counts as pruned."""
    slots: Sequence[Slot] = ()
    """Stored slots of coarser archives, also of those that Graphite had earlier."""


def aligned(job: Job, span: Span, limits: Limits, *, now: int) -> Span | None:
    """Return the complete slots that contain a span, None if none of it can be recounted."""
    bucket, (shows, pruned, unit, purged_until, begins, _) = job.query.bucket, limits
    start, end = floor(max(span.start, shows.start), bucket), ceil(min(span.end, shows.end), bucket)
    if start >= end:
        return None
    start, end = _around(job, start, limits, now).start, _end(job, end - bucket, limits, now)
    if now < span.end:  # a slot of now may reach further than one of the buckets ahead, and is not to be cut
        end = max(end, _end(job, floor(now, bucket), limits, now))
    if any(one.start < start < one.end for one in pruned):
        start = floor(start, unit)
    if end < begins:
        end = min(ceil(end, unit), ceil(begins, bucket))
    elif any(one.start < end < one.end for one in pruned):
        end = min(ceil(end, unit), _end(job, ceil(shows.end, bucket) - bucket, limits, now))
    # incomplete slots at the oldest time of Graphite, and of the table, stay as they are
    if start < shows.start:
        start = ceil(shows.start, unit)
    if start <= purged_until:
        is_pruned = any(purged_until in one for one in pruned)
        start = ceil(purged_until + 1, unit) if is_pruned else _end(job, floor(purged_until, bucket), limits, now)
    return Span(start, end) if start < end else None


def pieces(span: Span, unit: int, *, seconds: int = LONG_SECONDS) -> Iterator[Span]:
    """Divide a span into parts of one transaction each: of this length, or a unit if that is longer."""
    length = max(unit, min(LONG_SECONDS, seconds) // unit * unit)
    start = span.start
    while start < span.end:
        end = min(floor(start, length) + length, span.end)
        yield Span(start, end)
        start = end


def backfill(
    context: Context,
    span: Span,
    windows: Sequence[Window],
    horizon: Observation,
    progress: Progress,
    *,
    cleared: Collection[Key] = (),
) -> Generator[CaptureStep | None, None, None]:
    """Recount complete slots whose rows are in these windows, up to captured; yield None while reading.

    `cleared` are places for which Graphite is known to hold a value: they become 0 if they have no rows.
    """
    job, source, ledger, moment = context
    places, position = shown_span(job, now=moment.now, source_time=horizon.time), ledger.position(job.name)
    again, minutes = Recounted(folded_within_limit(job, ledger)), dict[int, Minute]()
    source.retry(job.query)
    if job.query.is_along:
        again.folded, minutes = yield from recount_along(context, span, places)
    elif job.query.time is None:
        slots, late = ledger.slots(job.name, span=span), ledger.late_ids(job.name)
        for rows in rows_by_ids(job, slots, late, span, source=source, position=position):
            fold(rows, places, job.kinds, into=again.folded)
            yield None
    else:
        captured = [Window(one.after, min(one.upto, position.captured)) for one in windows]
        again = yield from recount_windows(context, captured, span, places, position)

    shows = dict.fromkeys((RejectReason.TOO_LATE, *RECOUNTED), span)
    shows |= {RejectReason.FUTURE: Span(span.start, min(span.end, ceil(places.end, job.query.bucket)))}
    zero_fill = Span(span.start, min(span.end, progress.zero_filled_until)) if job.zeros is not None else None
    low = low_for(context, span, again.new)
    done = RecordUpdate(position.with_ids(again.new), again.folded.unreadable, low=low, shows=shows, minutes=minutes)
    tally = replace(
        context,
        span,
        again.folded,
        done,
        ids=again.ids,
        zero_fill=zero_fill,
        is_asked=True,
        cleared=[key for key in cleared if key.slot in span],
    )
    yield CaptureStep(None, again.folded.rows, tally, is_rest=False)


def _end(job: Job, bucket: int, limits: Limits, now: int) -> int:
    """Return the end of the slot that contains a bucket, or of the bucket, whichever is later."""
    return max(bucket + job.query.bucket, _around(job, bucket, limits, now).end)


def _around(job: Job, bucket: int, limits: Limits, now: int) -> Span:
    """Return the span of the slot that contains a bucket: that of an archive, or a stored one, whichever is longer."""
    stored = [Span(one.slot, one.slot + one.step) for one in limits.slots if one.slot <= bucket < one.slot + one.step]
    return max([enclosing(job.archives, bucket, now), *stored], key=lambda span: span.end - span.start)
