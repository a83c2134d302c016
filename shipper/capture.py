"""Core. The first sentence: read what is new, add it to the totals, record it.

Strategy: ids decide what is new. A window's rows, its totals and `captured` become durable in one transaction
(record.py), so whatever ends a capture, the next one goes on behind the last window recorded.
"""

from collections.abc import Generator, Iterable, Iterator

from shipper.errors import ConfigError
from shipper.fold import Folded, fold, shown
from shipper.guard import Taken, take
from shipper.ledger import Done, Ledger
from shipper.model import ALWAYS, Care, Job, Moment, Observation, Progress, Span
from shipper.recheck import recheck
from shipper.record import add, close
from shipper.recount import recount, repair
from shipper.reset import check
from shipper.retention import after, ceil, floor, placed
from shipper.revisit import revisit
from shipper.scan import Captured, Noticed, Source, walk_back
from shipper.search import time_at
from shipper.seen import Seen
from shipper.shape import places_of, shape_of

CAREFUL = Care()
COMPLETE_SECONDS = 60  # how often it is noted that nothing is new


def capture(
    job: Job,
    horizon: Observation,
    *,
    source: Source,
    ledger: Ledger,
    now: int,
    is_trusted: bool = True,
    care: Care = CAREFUL,
    seen: Seen | None = None,
) -> Generator[Captured | Noticed | None, None, None]:
    """Capture what the table holds up to the horizon; yield after each transaction, and None after other reading.

    Whoever iterates may stop after any step. now is our wall clock, epoch seconds; while clocks are not to be trusted,
    nothing is closed, and a job without a time column leaves its rows for later. seen is shared by jobs of one table
    that have the same horizon.

    Raises:
        SourceReset: the table has gone back below what was captured.
    """
    seen = seen or Seen(source)
    # while the clocks differ, the source's decides where rows belong: what is ours to decide waits
    moment = Moment(now if is_trusted else horizon.time, is_trusted)
    now = moment.now
    progress = yield from _resumed(job, horizon, now, seen=seen, ledger=ledger, care=care)
    if not is_trusted and job.query.time is None:
        return
    if progress.shape != shape_of(job):
        progress = yield from _reshaped(job, horizon, progress, source=source, ledger=ledger)
    closes = close(job, progress, horizon.time, now) if is_trusted else None
    if job.revisit is not None:
        yield from revisit(job, horizon, progress, seen=seen, ledger=ledger, moment=moment, closes=closes)
        return

    # what was there before, and belongs to the slots that the new rows fall in
    if progress.recount_from is not None:
        yield from recount(job, horizon, progress, source=source, ledger=ledger, moment=moment)

    # rows that came late: where there are any, and the slots that they fall in
    if is_trusted:  # by a clock that is wrong a window may be dropped too early
        yield from recheck(job, horizon.time, seen=seen, ledger=ledger, care=care)
    for window in ledger.repairs(job.name):
        captured = progress.captured
        yield from repair(job, window, horizon, captured, source=source, ledger=ledger, moment=moment)

    # the new rows
    reading = take(job, horizon, progress, seen=seen, ledger=ledger, care=care)
    yield from _new_rows(job, horizon, progress, reading, seen=seen, ledger=ledger, moment=moment, closes=closes)

    # nothing new: that is worth a record when a bucket closes, and once a minute
    if horizon.id == progress.captured and (closes or horizon.time >= progress.complete_until + COMPLETE_SECONDS):
        done = Done({}, complete_until=horizon.time)
        tally = add(job, None, Folded(), ledger=ledger, moment=moment, done=done, closes=closes)
        yield Captured(None, 0, tally)


def _new_rows(
    job: Job,
    horizon: Observation,
    progress: Progress,
    reading: Iterable[Taken | Noticed],
    *,
    seen: Seen,
    ledger: Ledger,
    moment: Moment,
    closes: Span | None,
) -> Iterator[Captured | Noticed]:
    """Fold and record what is new, window by window."""
    span, bucket = shown(job, now=moment.now, source_time=horizon.time), _bucket(job, horizon, progress)
    for taken in reading:
        if isinstance(taken, Noticed):
            yield taken
            continue
        window, rows, recorded = taken
        if bucket is not None:
            rows = [row._replace(bucket=bucket) for row in rows]
        folded = fold(rows, span, job.kinds)
        done, closing = Done({}, recorded=recorded), None
        if window.upto == horizon.id:
            fingerprint = seen.fingerprint(job, window.upto)
            done, closing = done._replace(complete_until=horizon.time, fingerprint=fingerprint), closes
        tally = add(job, window, folded, ledger=ledger, moment=moment, done=done, closes=closing, bucket=bucket)
        yield Captured(window, folded.rows, tally)


def _resumed(
    job: Job, horizon: Observation, now: int, *, seen: Seen, ledger: Ledger, care: Care
) -> Generator[Noticed, None, Progress]:
    """Return what a job goes on from: begun if it is new, reset if its table went back."""
    progress = ledger.progress(job.name)
    if progress is None:
        progress = begun(job, horizon, seen.source, now)
        ledger.begin(job, progress)
        yield Noticed("job.begun", {"start": job.start, "captured": progress.captured})
    was_reset = yield from check(job, horizon, progress, seen=seen, ledger=ledger, care=care)
    return ledger.progress(job.name) or progress if was_reset else progress


def _bucket(job: Job, horizon: Observation, progress: Progress) -> int | None:
    """Return the bucket that all rows of a job without a time column are in: that of the observation."""
    if job.query.time is not None:
        return None
    return max(progress.not_before, floor(horizon.time, job.query.bucket))


def begun(job: Job, horizon: Observation, source: Source, now: int) -> Progress:
    """Say where a new job begins.

    Its first slot must be whole, else it would overwrite what stands there: with a time column the rows of the slot
    that are already in the table are counted, too; without one all rows up to the first whole bucket fall into that.
    """
    captured, begins = _start(job, horizon, source)
    length = job.query.bucket
    not_before = ceil(horizon.time, length)
    recount_from, low = None, captured
    if job.query.time is not None and begins is not None:
        place = placed(job.archives, floor(begins, length), now)
        recount_from = place and place[0]
        if place is not None and job.revisit is not None:
            span = Span(place[0], ALWAYS.end)
            low = walk_back(job, captured, span, source=source, open_above=0)
    return Progress(
        captured=captured,
        complete_until=0,
        closed_until=(recount_from or 0) if job.query.time else not_before,
        not_before=not_before,
        recount_from=recount_from,
        low=low,
        shape=shape_of(job),
        places=places_of(job),
        since=not_before if job.query.time is None else recount_from or floor(begins or 0, length),
    )


def _start(job: Job, horizon: Observation, source: Source) -> tuple[int, int | None]:
    """Return the last id that is not to be counted, and the time from which slots are to be whole."""
    match job.start:
        case "now":
            return horizon.id, horizon.time
        case "beginning":
            return 0, 0 if job.revisit is not None else None
        case start if start > horizon.id:
            raise ConfigError(
                f"begin job {job.name}: start = {start} is beyond the largest id of {job.query.table}, {horizon.id}",
                hint='Write the last id that is not to be counted, "now" or "beginning".',
            )
        case start:
            begins = time_at(job, start, source=source)
            return start, None if begins is None else min(begins, horizon.time)


def _reshaped(
    job: Job, horizon: Observation, progress: Progress, *, source: Source, ledger: Ledger
) -> Generator[Noticed, None, Progress]:
    """Let a job go on that counts something else now, or elsewhere.

    Where names and times stay, the slots still in state are counted again; else the new ones begin behind the last
    window, because a row could move into a slot that is not counted again, or out of it.
    """
    length, since = job.query.bucket, None
    is_known = bool(progress.shape)  # a state of an older version does not say
    if is_known:
        yield Noticed("job.changed", {"captured": progress.captured})
    if is_known and job.query.time is not None and progress.places == places_of(job):
        oldest = ledger.lowest(job.name, ALWAYS)
        # what is older was not whole before: passed, or counted by another definition
        since = ceil(max(oldest[0], progress.since), length) if oldest else None
    low = progress.low
    if job.revisit is not None:
        low = walk_back(job, progress.captured, Span(since or horizon.time, ALWAYS.end), source=source, open_above=0)
    whole = after(horizon.time, length) if since is None else since
    changed = progress._replace(
        not_before=after(horizon.time, length) if is_known else 0,
        recount_from=progress.recount_from if since is None else since,
        since=max(progress.since, whole) if is_known else progress.since,
        low=low,
        shape=shape_of(job),
        places=places_of(job),
    )
    ledger.reshape(job.name, changed)
    return changed
