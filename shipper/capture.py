"""Core. The first sentence: read what is new, add it to the totals, record it.

Strategy: ids decide what is new. A window's rows, its totals and `captured` become durable in one transaction
(ledger.py), so whatever ends a capture, the next one goes on behind the last window recorded.
"""

from collections.abc import Generator

from shipper.errors import ConfigError, SourceReset
from shipper.fold import Folded, fold, shown
from shipper.ledger import Ledger, add, close
from shipper.model import ALWAYS, Job, Moment, Observation, Progress, Row, Span
from shipper.recount import recount
from shipper.retention import floor, placed
from shipper.revisit import revisit
from shipper.scan import Captured, Source, scan, walk_back
from shipper.shape import places_of, shape_of

COMPLETE_SECONDS = 60  # how often it is noted that nothing is new


def capture(
    job: Job, horizon: Observation, *, source: Source, ledger: Ledger, now: int, is_trusted: bool = True
) -> Generator[Captured | None, None, None]:
    """Capture what the table holds up to the horizon; yield after each transaction, and None after other reading.

    Whoever iterates may stop after any step. now is our wall clock, epoch seconds; while clocks are not to be trusted,
    nothing is closed, and a job without a time column leaves its rows for later.

    Raises:
        SourceReset: the table has gone back below what was captured.
    """
    # while the clocks differ, the source's decides where rows belong: what is ours to decide waits
    moment = Moment(now if is_trusted else horizon.time, is_trusted)
    now = moment.now
    progress = ledger.progress(job.name)
    if progress is None:
        progress = _begun(job, horizon, source, now)
        ledger.begin(job, progress)
    _check(job, horizon, progress)
    if not is_trusted and job.query.time is None:
        return
    if progress.shape != shape_of(job):
        progress = _reshaped(job, horizon, progress, source=source, ledger=ledger)
        ledger.reshape(job.name, progress)
    closes = close(job, progress, horizon.time, now) if is_trusted else None
    if job.revisit is not None:
        yield from revisit(job, horizon, progress, source=source, ledger=ledger, moment=moment, closes=closes)
        return

    # what was there before, and belongs to the slots that the new rows fall in
    if progress.recount_from is not None:
        yield from recount(job, horizon, progress, source=source, ledger=ledger, moment=moment)

    # the new rows, window by window
    span = shown(job, now=now, source_time=horizon.time)
    for window, rows in scan(job, progress.captured, horizon.id, source=source):
        folded = fold(_timed(job, rows, horizon, progress), span, job.kinds)
        until, closing = (horizon.time, closes) if window.upto == horizon.id else (None, None)
        tally = add(job, window, folded, ledger=ledger, moment=moment, complete_until=until, closes=closing)
        yield Captured(window, folded.rows, tally)

    # nothing new: that is worth a record when a bucket closes, and once a minute
    if horizon.id == progress.captured and (closes or horizon.time >= progress.complete_until + COMPLETE_SECONDS):
        tally = add(job, None, Folded(), ledger=ledger, moment=moment, complete_until=horizon.time, closes=closes)
        yield Captured(None, 0, tally)


def _timed(job: Job, rows: list[Row], horizon: Observation, progress: Progress) -> list[Row]:
    """Put the rows of a job without a time column into the bucket of the observation."""
    if job.query.time is not None:
        return rows
    bucket = max(progress.not_before, floor(horizon.time, job.query.bucket))
    return [row._replace(bucket=bucket) for row in rows]


def _check(job: Job, horizon: Observation, progress: Progress) -> None:
    if horizon.id < progress.captured:
        raise SourceReset(
            f"observe {job.query.table}: its largest id is {horizon.id}, but {progress.captured} was captured",
            hint="Was the table emptied or restored, or is this another server? Rows with ids up to "
            f"{progress.captured} count as captured and are not read again; a job under another name, with another "
            "`name`, begins anew.",
        )


def _begun(job: Job, horizon: Observation, source: Source, now: int) -> Progress:
    """Say where a new job begins.

    Its first slot must be whole, else it would overwrite what stands there: with a time column the rows of the slot
    that are already in the table are counted, too; without one all rows up to the first whole bucket fall into that.
    """
    captured, begins = _start(job, horizon, source)
    length = job.query.bucket
    not_before = -(-horizon.time // length) * length
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
            return start, source.newest(job.query, start)[1]


def _reshaped(job: Job, horizon: Observation, progress: Progress, *, source: Source, ledger: Ledger) -> Progress:
    """Say how a job goes on that counts something else now, or elsewhere.

    Where names and times stay, the slots still in state are counted again; else the new ones begin behind the last
    window, because a row could move into a slot that is not counted again, or out of it.
    """
    length, since = job.query.bucket, None
    is_known = bool(progress.shape)  # a state of an older version does not say
    if is_known and job.query.time is not None and progress.places == places_of(job):
        oldest = ledger.lowest(job.name, 0)
        since = -(-oldest[0] // length) * length if oldest else None
    low = progress.low
    if job.revisit is not None:
        low = walk_back(job, progress.captured, Span(since or horizon.time, ALWAYS.end), source=source, open_above=0)
    return progress._replace(
        not_before=(horizon.time // length + 1) * length if is_known else 0,
        recount_from=progress.recount_from if since is None else since,
        low=low,
        shape=shape_of(job),
        places=places_of(job),
    )
