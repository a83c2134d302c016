"""Zero-fill: which finished buckets get a 0 for series without rows; state/recording.py selects the series.

`replaced` in totals.py writes those of a recount.
"""

from collections.abc import Callable

from shipper.core.ledger import Recording, RecordResult
from shipper.core.model import Job, Progress, Span
from shipper.core.paths import claim_paths
from shipper.core.retention import floor


def zero_fill_due(job: Job, progress: Progress, until: int, now: int) -> Span | None:
    """Return the buckets to zero-fill once all rows up to a time of the source are captured; None if there are none."""
    if job.zeros is None:
        return None
    length = job.query.bucket
    first = max(progress.zero_filled_until, floor(max(until, now) - job.keep, length))
    span = Span(first, floor(until, length))
    return span if span.start < span.end else None


def zero_fill_buckets(
    job: Job, recording: Recording, due: Span | None, place_of: Callable[[int], tuple[int, int] | None]
) -> None:
    """Store zeros for finished buckets; coarser archives get none."""
    if due is None or job.zeros is None:
        return
    names = claim_paths(job, dict.fromkeys(job.groups, 0), recording, RecordResult()) if job.groups else {}
    declared = [path for paths in names.values() for path in paths or []]
    measures = [measure.name for measure in job.query.measures]  # nothing counts those that the job had before
    # before its first rows a job has no zeros, except for declared groups: days of many series would cost too much
    first = due.start - 1 if declared else recording.first_seen()
    for bucket in range(due.start, due.end, job.query.bucket):
        if first is None or bucket <= first:
            continue
        place = place_of(bucket)
        if place is not None and place[1] == job.archives[0].step and not recording.is_pruned(bucket, place[1]):
            seen_since = bucket - job.zeros
            recording.zero_fill(*place, seen_since=seen_since, measures=measures, declared=declared)
