"""Where a new job begins, and which ids it does not wait for there.

Strategy: the first slot must be whole, else it would overwrite what stands there. So with a time column the rows of the
slot that are already in the table are counted, too; without one all rows up to the first whole bucket fall into that.
Ids of rows in flight are gaps from the beginning, and are counted when they appear.

Where a job goes on that is to leave rows out: forward only, and with whole slots.

Strategy: as a new job begins. The slot in which it goes on is counted whole, rows that it passes included, for what it
sends takes the place of what stands there; a job without a time column puts the rows until its next whole bucket into
that. Slots between stay as they are: no zeros say that somebody has looked.
"""

from collections.abc import Iterator
from typing import NamedTuple

from shipper.core.errors import ConfigError, ShipperError
from shipper.core.id_set import Words
from shipper.core.model import ALWAYS, Job, Observation, Progress, Span, Window, definition_digest, path_digest
from shipper.core.position import Position, new_position
from shipper.core.retention import ceil, floor, placed
from shipper.core.rows.table import Source, each_window, time_at, walk_back

ROWS_BEFORE = 1_000_000
"""Among so many of the newest rows an id that is missing may be that of a row in flight: half a second's work."""


def begin_job(job: Job, horizon: Observation, source: Source, now: int) -> tuple[Progress, Position]:
    """Say where a new job begins."""
    captured, begins = _start(job, horizon, source)
    length = job.query.bucket
    not_before = ceil(horizon.time, length)
    recount_from, low = None, captured
    if job.query.time is not None and begins is not None:
        place = placed(job.archives, floor(begins, length), now)
        recount_from = place and place[0]
        if place is not None and job.lookback is not None:
            low = walk_back(job, captured, Span(place[0], ALWAYS.end), source=source)
    since = not_before if job.query.time is None else recount_from or floor(begins or 0, length)
    progress = Progress(
        captured=captured,
        complete_until=0,
        zero_filled_until=(recount_from or 0) if job.query.time else not_before,
        not_before=not_before,
        recount_from=recount_from,
        low=low,
        definition_digest=definition_digest(job),
        path_digest=path_digest(job),
        since=since,
        begins=since if job.query.time else 0,
        bucket=length,
    )
    return progress, passed(job, captured, source=source, is_floor=job.start != "now")


def passed(job: Job, upto: int, *, source: Source, before: Position | None = None, is_floor: bool = False) -> Position:
    """Return the position of a job that goes on behind an id: rows that are there by now are not its own.

    Those that appear later are, unless the id is to be a floor, below which nothing is. What the job has counted up to
    where it stood before stays so.
    """
    if before is not None:
        position = before
        for window, words in _windows(job, before.captured, upto, source=source):
            position = position.with_window(window, words)
        return position
    if is_floor or upto == 0:
        return new_position(upto, upto, ())
    oldest = source.nth_id(job.query, Window(0, upto), ROWS_BEFORE, is_backward=True)
    floor_id = 0 if oldest is None else oldest - 1
    return new_position(upto, floor_id, (words for _, words in _windows(job, floor_id, upto, source=source)))


def _windows(job: Job, after: int, upto: int, *, source: Source) -> Iterator[tuple[Window, Words]]:
    """Yield which ids there are; rows of a job with `lookback` that are not complete are still to be counted."""

    def read(window: Window) -> tuple[Words, int]:
        words = source.words(job.query, window, None if job.lookback is None else ALWAYS)
        return words, len(words)

    yield from each_window(job, after, upto, read, source=source)


def _start(job: Job, horizon: Observation, source: Source) -> tuple[int, int | None]:
    """Return the last id that is not to be counted, and the time from which slots are to be whole."""
    match job.start:
        case "now":
            return horizon.id, horizon.time
        case "beginning":
            return 0, 0 if job.lookback is not None else None
        case start if start > horizon.id:
            raise ConfigError(
                f"begin job {job.name}: start = {start} is beyond the largest id of {job.query.table}, {horizon.id}",
                hint='Write the last id that is not to be counted, "now" or "beginning".',
            )
        case start:
            begins = time_at(job, start, source=source)
            return start, None if begins is None else min(begins, horizon.time)


_BACK = "What was counted stays: `--back DURATION` and `shipper backfill` count it again."


class Target(NamedTuple):
    """Where a job is to go on."""

    captured: int
    slot: int | None
    """The first slot that is counted again, whole, and so are all after it; None for a job without a time column."""
    not_before: int
    """The first bucket of a job without a time column."""


def by_id(job: Job, upto: int, progress: Progress, horizon: Observation, *, source: Source, now: int) -> Target:
    """Go on behind an id: its rows up to that are passed.

    Raises:
        ShipperError: the job cannot go there.
    """
    if job.lookback is not None:
        raise ShipperError(
            f"move job {job.name}: an id says nothing of rows that are completed later",
            hint="Give a time, or `end`.",
        )
    if upto > horizon.id:
        raise ShipperError(
            f"move job {job.name}: {upto} is beyond the largest id of {job.query.table}, {horizon.id}",
            hint="Give an id that the table holds, a time, or `end`.",
        )
    if upto <= progress.captured:
        raise ShipperError(f"move job {job.name}: rows up to {progress.captured} are counted already", hint=_BACK)
    if job.query.time is None:
        return _timeless(job, upto, horizon)
    begins = time_at(job, upto, source=source)
    return _timed(job, upto, horizon.time if begins is None else min(begins, horizon.time), now)


def by_time(job: Job, time: int, progress: Progress, horizon: Observation, *, source: Source, now: int) -> Target:
    """Go on with the slot that holds a time: rows that have come, but for those of it and later, are passed.

    Raises:
        ShipperError: the job cannot go there.
    """
    if time > horizon.time:
        raise ShipperError(f"move job {job.name}: that is in the future of its source", hint="Give `end`.")
    if job.query.time is None or job.query.sql is not None:
        raise ShipperError(
            f"move job {job.name}: times of single rows are not known of it", hint="Give an id, or `end`."
        )
    if time < progress.complete_until - (job.lookback or 0):
        raise ShipperError(f"move job {job.name}: rows of then are counted already", hint=_BACK)
    target = _timed(job, progress.captured, time, now)
    if job.lookback is not None:  # the time is its guide: it looks at no row of before
        return target
    span = Span(time if target.slot is None else target.slot, ALWAYS.end)
    return target._replace(captured=_before(job, span, progress.captured, horizon.id, source))


def by_end(job: Job, progress: Progress, horizon: Observation, *, now: int) -> Target:
    """Go on with what comes from now on; rows in flight come from now on, too."""
    if job.query.time is not None and job.lookback is not None:
        return _timed(job, progress.captured, horizon.time, now)
    if job.query.time is None:
        return _timeless(job, horizon.id, horizon)
    return _timed(job, horizon.id, horizon.time, now)


def _timeless(job: Job, upto: int, horizon: Observation) -> Target:
    return Target(upto, None, (horizon.time // job.query.bucket + 1) * job.query.bucket)


def _timed(job: Job, upto: int, begins: int, now: int) -> Target:
    place = placed(job.archives, floor(begins, job.query.bucket), now)
    return Target(upto, place and place[0], 0)


def _before(job: Job, span: Span, after: int, upto: int, source: Source) -> int:
    """Return the id below the first row of a span; upto where there is none."""

    def read(window: Window) -> tuple[int | None, int]:
        found = source.first_in(job.query, window, span)
        return found, 0 if found is None else 1

    for _, found in each_window(job, after, upto, read, source=source):
        if found is not None:
            return found - 1
    return upto
