"""Core. How counts become totals: added by a capture, replaced by a recount.

Strategy: each of these is one transaction that begins where the job's `captured` stands, so a process killed at any
instruction has either counted a window or not. Nothing else changes what a total comes to.
"""

from collections import Counter

from shipper.errors import BadMetric
from shipper.fold import MOST, Folded, total
from shipper.ledger import CountedUnshown, Done, Ledger, Recording, Tally
from shipper.model import Cause, Group, Job, Key, Kind, Moment, Progress, Refusal, Span, Value, Window
from shipper.render import brief, is_clean, own_path
from shipper.retention import floor, is_ripe, placed

OTHER = "_other"
"""The group of all groups beyond `limits.series`."""


def add(
    job: Job,
    window: Window | None,
    folded: Folded,
    *,
    ledger: Ledger,
    moment: Moment,
    done: Done,
    closes: Span | None,
    bucket: int | None = None,
) -> Tally:
    """Add a window to the totals, in one transaction; without a time column its rows are in one bucket."""
    with ledger.recording(job.name, window) as recording:
        tally = Tally(folded.unshown.copy(), refused=folded.refused.copy())
        if bucket is not None and (place := _place(job, bucket, recording, moment.now)):
            recording.mark(*place)
        for (key, kind), values in _keyed(job, folded, recording, tally, moment.now).items():
            value = _together(key, kind, recording.take(key), values, tally)
            if value is not None:
                _put(job, recording, key, value, moment)
        _close(job, recording, closes, moment.now)
        unshown_in = CountedUnshown(window, tally.unshown) if window else None
        closed_until = closes.end if closes else None
        recording.write(done._replace(unshown=tally.unshown, closed_until=closed_until, unshown_in=unshown_in))
    return tally


def replace(
    job: Job,
    span: Span,
    folded: Folded,
    done: Done,
    *,
    window: Window | None,
    ledger: Ledger,
    moment: Moment,
    closes: Span | None = None,
) -> Tally:
    """Set the totals of all slots of a span, in one transaction; one that nothing was found for becomes 0."""
    with ledger.recording(job.name, window) as recording:
        tally = Tally(Counter(done.unshown), refused=folded.refused.copy())
        found = _keyed(job, folded, recording, tally, moment.now)
        for (key, kind), values in found.items():
            recording.take(key)
            value = _together(key, kind, [], values, tally)
            if value is not None:
                _put(job, recording, key, value, moment)
        measures = [measure.name for measure in job.query.measures]
        for key in set(recording.stored(span, measures)) - {key for key, _ in found}:
            _put(job, recording, key, 0, moment)
        if not done.replaces:  # what cannot be shown was counted when it was captured
            tally.unshown = Counter(done.unshown)
        _close(job, recording, closes, moment.now)
        recording.write(done._replace(unshown=tally.unshown, closed_until=closes.end if closes else None))
    return tally


def amend(job: Job, present: Folded, before: CountedUnshown, done: Done, *, ledger: Ledger, moment: Moment) -> Tally:
    """Set what is counted as unshown in a window to what it is by now, in one transaction."""
    with ledger.recording(job.name, None) as recording:
        tally = Tally(present.unshown.copy())
        _keyed(job, present, recording, tally, moment.now)
        unshown_in = CountedUnshown(before.window, tally.unshown.copy())
        tally.unshown.subtract(before.rows)
        recording.write(done._replace(unshown=tally.unshown, unshown_in=unshown_in))
    return tally


def close(job: Job, progress: Progress, until: int, now: int) -> Span | None:
    """Return the buckets that close when everything up to a time of the source is captured; None if none do."""
    if job.zeros is None:
        return None
    length = job.query.bucket
    first = max(progress.closed_until, floor(max(until, now) - job.keep, length))
    span = Span(first, floor(until, length))
    return span if span.start < span.end else None


def _close(job: Job, recording: Recording, closes: Span | None, now: int) -> None:
    """Store the zeros of buckets that close; an archive that is not the finest gets none."""
    if closes is None or job.zeros is None:
        return
    declared = [path for group in job.groups for path in _paths(job, group, recording, Tally(), 0) or []]
    # up to its first rows a job has no zeros, but for the groups that it declares: those may be days, and many series
    first = closes.start - 1 if declared else recording.first_seen()
    for bucket in range(closes.start, closes.end, job.query.bucket):
        if first is None or bucket <= first:
            continue
        place = _place(job, bucket, recording, now)
        if place is not None and place[1] == job.archives[0].step and not recording.is_pruned(bucket):
            recording.close(*place, seen_since=bucket - job.zeros, declared=declared)


def _keyed(
    job: Job, folded: Folded, recording: Recording, tally: Tally, now: int
) -> dict[tuple[Key, Kind], list[Value]]:
    """Find the totals that cells belong to; count what has none."""
    keyed: dict[tuple[Key, Kind], list[Value]] = {}
    named: dict[Group, list[str] | None] = {}
    seen: dict[int, set[str]] = {}
    for (group, bucket), cell in folded.cells.items():
        place = _place(job, bucket, recording, now)
        if place is None or recording.is_pruned(bucket):
            tally.unshown[Cause.TOO_OLD if place is None else Cause.TOO_LATE] += cell.rows
            continue
        if group not in named:
            named[group] = _paths(job, group, recording, tally, cell.rows)
        paths = named[group]
        if paths is None:
            tally.unshown[Cause.REFUSED] += cell.rows
            continue
        for path, measure, value in zip(paths, job.query.measures, cell.values, strict=True):
            if value is not None:
                keyed.setdefault((Key(path, *place), measure.kind), []).append(value)
        seen.setdefault(bucket, set()).update(paths)
    for bucket, seen_paths in seen.items():
        recording.see(bucket, seen_paths)
    return keyed


def _place(job: Job, bucket: int, recording: Recording, now: int) -> tuple[int, int] | None:
    """Return the slot and step of a bucket; what has gone to a coarser archive once stays there."""
    for archive in reversed(job.archives[1:]):
        slot = floor(bucket, archive.step)
        if recording.has_gone(slot, archive.step):
            return slot, archive.step
    return placed(job.archives, bucket, now)


def _paths(job: Job, group: Group, recording: Recording, tally: Tally, rows: int) -> list[str] | None:
    """Return the path of each measure of a group; None when Carbon could not hold one."""
    is_new = not recording.has_group(group)
    if is_new and recording.count_groups() >= job.max_groups:
        tally.other_rows += rows
        tally.other = group if tally.other is None else tally.other
        group, is_new = (OTHER,) * len(group), False
    try:
        paths = [own_path(job, group, measure, claim=recording.claim) for measure in job.query.measures]
    except BadMetric:
        tally.nameless = group if tally.nameless is None else tally.nameless
        return None
    if is_new and not is_clean(group):
        tally.cleaned.append((paths[0], group))
    return paths


def _together(key: Key, kind: Kind, before: list[Value], values: list[Value], tally: Tally) -> Value | None:
    """Put values together with what was there; without them, and told, where Carbon could not hold that."""
    value = total(kind, [*before, *values])
    if -MOST <= value <= MOST:
        return value
    tally.refused.append(Refusal(key.path, len(values), brief(value)))
    return total(kind, before) if before else None


def _put(job: Job, recording: Recording, key: Key, value: Value, moment: Moment) -> None:
    # by a clock that may be wrong no slot has left an archive for certain
    now = moment.now if moment.is_trusted else 0
    ripe = is_ripe(job.archives, key.slot, key.step, bucket=job.query.bucket, now=now)
    recording.put(key, value, is_ripe=ripe)
