"""Where a new job begins, and which ids it does not wait for there.

Strategy: the first slot must be whole, else it would overwrite what stands there. So with a time column the rows of the
slot that are already in the table are counted, too; without one all rows up to the first whole bucket fall into that.
Ids of rows in flight are gaps from the beginning, and are counted when they appear.
"""

from collections.abc import Iterator

from shipper.core.errors import ConfigError
from shipper.core.id_set import Words
from shipper.core.model import ALWAYS, Job, Observation, Progress, Span, Window
from shipper.core.position import Position, new_position
from shipper.core.retention import ceil, floor, placed
from shipper.core.rows.search import time_at
from shipper.core.rows.table import Source, each_window, walk_back
from shipper.core.shape import places_of, shape_of

ROWS_BEFORE = 1_000_000
"""Among so many of the newest rows an id that is missing may be that of a row in flight: half a second's work."""


def begun(job: Job, horizon: Observation, source: Source, now: int) -> tuple[Progress, Position]:
    """Say where a new job begins."""
    captured, begins = _start(job, horizon, source)
    length = job.query.bucket
    not_before = ceil(horizon.time, length)
    recount_from, low = None, captured
    if job.query.time is not None and begins is not None:
        place = placed(job.archives, floor(begins, length), now)
        recount_from = place and place[0]
        if place is not None and job.revisit is not None:
            low = walk_back(job, captured, Span(place[0], ALWAYS.end), source=source)
    since = not_before if job.query.time is None else recount_from or floor(begins or 0, length)
    progress = Progress(
        captured=captured,
        complete_until=0,
        closed_until=(recount_from or 0) if job.query.time else not_before,
        not_before=not_before,
        recount_from=recount_from,
        low=low,
        shape=shape_of(job),
        places=places_of(job),
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
    """Yield which ids there are; rows of a job with `revisit` that are not complete are still to be counted."""

    def read(window: Window) -> tuple[Words, int]:
        words = source.words(job.query, window, None if job.revisit is None else ALWAYS)
        return words, len(words)

    yield from each_window(job, after, upto, read, source=source)


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
