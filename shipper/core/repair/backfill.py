"""A recount that somebody asks for: whole slots of any time that Graphite can show, pruned or never counted.

Strategy: what is counted again must be whole, for the total takes the place of what stands there. So the span grows to
whole slots of the archive that receives them; where it cuts what was pruned together, to all of that, since it may be
merged into one slot of a coarser archive; and it leaves alone whatever the table may not hold any more.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from typing import NamedTuple

from shipper.core.ledger import Ledger, RecordUpdate
from shipper.core.model import Job, Key, Now, Observation, Progress, RejectReason, Span, Window
from shipper.core.repair.recount import Recounted, recount_windows
from shipper.core.retention import ceil, enclosing, floor
from shipper.core.rows.slots import rows_of_slots
from shipper.core.rows.table import CaptureStep, Source
from shipper.core.rows.totals import fold, replace, shown_span


class Limits(NamedTuple):
    """What can be counted again of a job."""

    shows: Span
    """The buckets that Graphite can show."""
    pruned: Sequence[Span]
    unit: int
    """How much is pruned together, seconds."""
    purged_until: int
    """Up to this time the table may lack rows that it had; -1 where it has all."""


def aligned(job: Job, span: Span, limits: Limits, *, now: int) -> Span | None:
    """Return the whole slots that hold a span, None where none of it can be counted again."""
    bucket, (shows, pruned, unit, purged_until) = job.query.bucket, limits
    start, end = floor(max(span.start, shows.start), bucket), ceil(min(span.end, shows.end), bucket)
    if start >= end:
        return None
    start, end = enclosing(job.archives, start, now).start, _end(job, end - bucket, now)
    if any(one.start < start < one.end for one in pruned):
        start = floor(start, unit)
    if any(one.start < end < one.end for one in pruned):
        end = ceil(end, unit)
    # what can be shown ends somewhere, and so do the rows of the table: slots that are not whole stay as they are
    if start < shows.start:
        start = ceil(shows.start, unit)
    if start <= purged_until:
        is_pruned = any(purged_until in one for one in pruned)
        start = ceil(purged_until + 1, unit) if is_pruned else _end(job, floor(purged_until, bucket), now)
    return Span(start, end) if start < end else None


def pieces(span: Span, unit: int) -> Iterator[Span]:
    """Divide a span into what is counted in one transaction: an hour, or a unit where that is longer."""
    length = max(unit, 3600 // unit * unit)
    start = span.start
    while start < span.end:
        end = min(floor(start, length) + length, span.end)
        yield Span(start, end)
        start = end


def backfill(
    job: Job,
    span: Span,
    windows: Sequence[Window],
    horizon: Observation,
    progress: Progress,
    *,
    source: Source,
    ledger: Ledger,
    moment: Now,
    cleared: Collection[Key] = (),
) -> Generator[CaptureStep | None, None, None]:
    """Count whole slots again, whose rows are in these windows up to captured; yield None while reading.

    cleared are places of which Graphite is known to hold something: 0 from now on, where no row is for them.
    """
    places, position = shown_span(job, now=moment.now, source_time=horizon.time), ledger.position(job.name)
    again = Recounted()
    if job.query.time is None:
        for rows in rows_of_slots(job, span, source=source, ledger=ledger):
            fold(rows, places, job.kinds, into=again.folded)
            yield None
    else:
        captured = [Window(one.after, min(one.upto, position.captured)) for one in windows]
        again = yield from recount_windows(job, captured, span, places, position, source=source)

    shows = {RejectReason.FUTURE: Span(span.start, min(span.end, places.end)), RejectReason.TOO_LATE: span}
    zero_fill = Span(span.start, min(span.end, progress.zero_filled_until)) if job.zeros is not None else None
    tally = replace(
        job,
        span,
        again.folded,
        RecordUpdate(position.with_ids(again.new), shows=shows),
        window=None,
        ids=again.ids,
        ledger=ledger,
        moment=moment,
        zero_fill=zero_fill,
        is_asked=True,
        cleared=[key for key in cleared if key.slot in span],
    )
    yield CaptureStep(None, again.folded.rows, tally, is_rest=False)


def _end(job: Job, bucket: int, now: int) -> int:
    """Return where the slot ends that a bucket is in, or the bucket, where that is longer."""
    return max(bucket + job.query.bucket, enclosing(job.archives, bucket, now).end)
