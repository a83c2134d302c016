"""Start of a new job, and of a job that skips rows (seek): its first id and slot, and the ids that it must not count.

Strategy: the first slot must be complete, because its total overwrites the value in Graphite. Therefore a job with a
time column also counts the rows of that slot that are already in the table; a job without one puts all rows up to its
first full bucket into that bucket. Rows in flight at the start are gaps, and are counted when they appear.

A seek goes forward only, and starts like a new job. Slots between stay as they are: they are not zero-filled, because
nothing has looked at them.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from shipper.core import durations
from shipper.core.errors import ConfigError, ShipperError
from shipper.core.id_set import IdSet, Words, size_of
from shipper.core.model import (
    ALWAYS,
    Fingerprint,
    Job,
    Observation,
    Progress,
    Span,
    Window,
    definition_digest,
    path_digest,
    time_digest,
)
from shipper.core.position import Position, new_position
from shipper.core.retention import after, ceil, floor, place_of
from shipper.core.rows.table import Size, Source, each_window, fingerprint_of, time_at, walk_back

MINUTE = 60
BEGINNING = 59
"""Position before all rows: those of the first minute of 1970, and earlier ones, count as rows without a time."""
_REPEATED_SECONDS = 7200  # a clock that is set back repeats an hour
ROWS_BEFORE = 1_000_000
"""Number of newest rows among which a missing id may be a row in flight: half a second's work."""


def begin_job(
    job: Job, horizon: Observation, source: Source, now: int
) -> tuple[Progress, Position, Fingerprint | None]:
    """Return the progress and the position of a new job, and what identifies its table; None along a time."""
    length, recount_from = job.query.bucket, None
    not_before = ceil(horizon.time, length)
    if job.query.is_along:
        captured, since = _start_along(job, horizon, source)
        low, zero_filled_until = captured, since
    else:
        captured, begins = _start(job, horizon, source)
        low = captured
        if job.query.time is not None and begins is not None:
            place = place_of(job.archives, floor(begins, length), now)
            recount_from = place and place[0]
            if place is not None and job.lookback is not None:
                low = walk_back(job, captured, Span(place[0], ALWAYS.end), source=source)
        since = not_before if job.query.time is None else recount_from or floor(begins or 0, length)
        zero_filled_until = (recount_from or 0) if job.query.time else not_before
    progress = Progress(
        captured=captured,
        complete_until=0,
        zero_filled_until=zero_filled_until,
        not_before=not_before,
        recount_from=recount_from,
        low=low,
        definition_digest=definition_digest(job),
        path_digest=path_digest(job),
        time_digest=time_digest(job),
        since=since,
        begins=since if job.query.time else 0,
        bucket=length,
        multiple=length,
    )
    position = position_behind(job, captured, source=source, is_floor=job.start != "now")
    # the table may be emptied and filled again before the job has counted a row
    return progress, position, None if job.query.is_along else fingerprint_of(job, source, captured)


def _start_along(job: Job, horizon: Observation, source: Source) -> tuple[int, int]:
    """Return the last second that is not counted, and the first bucket: a job counts whole ones from now on, or all."""
    since = _first_bucket(job, horizon.time) if job.start == "now" else 0
    captured = BEGINNING
    if since:
        captured = source.local(job.query, since) - 1
    elif horizon.id:  # rows in flight may be older than the first row
        first = min(source.first_id(job.query, BEGINNING, horizon.id), horizon.id - kept_seconds(job))
        captured = max(BEGINNING, floor(first, MINUTE) - 1)
    return captured, since


def kept_seconds(job: Job) -> int:
    """Return for how long minutes are kept."""
    # with lookback values follow the table from the start of a bucket
    recounted = 0 if job.lookback is None else job.lookback + job.query.bucket
    return max(job.late, recounted) + repeated_seconds(job)


def repeated_seconds(job: Job) -> int:
    """Return how far the clock of a time column may be set back."""
    return 0 if job.query.time_zone == "UTC" else _REPEATED_SECONDS


def _first_bucket(job: Job, moment: int) -> int:
    """Return the start of the bucket that holds a time, or of an earlier one, which is also that of a minute."""
    return floor(moment, math.lcm(MINUTE, job.query.bucket))


def position_at(captured: int, before: Position | None = None) -> Position:
    """Return the position of a job that continues behind a second, and looks at nothing before it again."""
    return replace(before or Position(captured, IdSet(0, 0)), captured=captured, counted=IdSet(captured, captured))


def position_behind(
    job: Job, upto: int, *, source: Source, before: Position | None = None, is_floor: bool = False
) -> Position:
    """Return the position of a job that starts behind an id: it does not count rows that are there already.

    It counts rows that appear later, unless the id is to be a floor. Ids that it counted before stay counted.
    """
    if job.query.is_along:
        return position_at(upto, before)
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
    """Yield windows with the ids of their rows; of a job with `lookback` only rows that have their time."""

    def read(window: Window) -> tuple[Words, Size]:
        words = source.words(job.query, window, None if job.lookback is None else ALWAYS)
        return words, Size(size_of(words))

    yield from each_window(job, after, upto, read, source=source)


def _start(job: Job, horizon: Observation, source: Source) -> tuple[int, int | None]:
    """Return the last id that is not counted, and the time from which slots must be complete."""
    match job.start:
        case "now":
            return horizon.id, horizon.time
        case "beginning":
            return 0, 0 if job.lookback is not None else None
        case start if start > horizon.id:
            raise ConfigError(
                f"start job {job.name}: start = {start} is above the largest id of {job.query.table}, {horizon.id}",
                hint='Set `start` to "now", "beginning", or an id after which to start.',
            )
        case start:
            begins = time_at(job, start, source=source)
            return start, None if begins is None else min(begins, horizon.time)


_BACK = "To recount them, use `shipper backfill`."


class Target(NamedTuple):
    """Place from which a job continues."""

    captured: int
    slot: int | None
    """First slot that is recounted, with all later ones; None for a job without a time column."""
    not_before: int
    """First bucket of a job without a time column."""


def by_id(job: Job, upto: int, progress: Progress, horizon: Observation, *, source: Source, now: int) -> Target:
    """Return the target behind an id: rows up to it are skipped.

    Raises:
        ShipperError: the job cannot continue there.
    """
    if job.lookback is not None or job.query.is_along:
        reason = "its `id` is a time:" if job.query.is_along else "with `lookback`"
        raise ShipperError(
            f"skip rows of job {job.name}: {reason} it cannot skip by id",
            hint="Give a time, or `end`.",
        )
    if upto > horizon.id:
        raise ShipperError(
            f"skip rows of job {job.name}: {upto} is above the largest id of {job.query.table}, {horizon.id}",
            hint="Give an id of the table, a time, or `end`.",
        )
    if upto <= progress.captured:
        raise ShipperError(
            f"skip rows of job {job.name}: rows up to id {progress.captured} are counted already", hint=_BACK
        )
    begins = None if job.query.time is None else time_at(job, upto, source=source)
    moment = horizon.time if begins is None else min(begins, horizon.time)
    return _target(job, upto, moment, progress, now)


def by_time(job: Job, time: int, progress: Progress, horizon: Observation, *, source: Source, now: int) -> Target:
    """Return the target at the slot of a time: rows before that slot are skipped.

    Raises:
        ShipperError: the job cannot continue there.
    """
    if time > horizon.time:
        ahead = durations.show(time - horizon.time)
        raise ShipperError(f"skip rows of job {job.name}: that time is {ahead} in the future", hint="Give `end`.")
    if job.query.time is None or job.query.sql is not None:
        raise ShipperError(f"skip rows of job {job.name}: it has no `time` column", hint="Give an id, or `end`.")
    if time < progress.complete_until - (job.lookback or 0):
        raise ShipperError(f"skip rows of job {job.name}: rows of that time are counted already", hint=_BACK)
    if job.query.is_along:
        slot = _first_bucket(job, time)
        return Target(max(progress.captured, source.local(job.query, slot) - 1), slot, 0)
    target = _target(job, progress.captured, time, progress, now)
    if job.lookback is not None:  # it reads by time, and no row from before
        return target
    span = Span(time if target.slot is None else target.slot, ALWAYS.end)
    return target._replace(captured=_before(job, span, progress.captured, horizon.id, source))


def by_end(job: Job, progress: Progress, horizon: Observation, *, now: int) -> Target:
    """Return the target behind all rows; rows in flight are still counted."""
    upto = horizon.id if job.lookback is None else progress.captured  # with lookback it reads by time
    return _target(job, upto, horizon.time, progress, now)


def next_bucket(job: Job, progress: Progress, moment: int) -> int:
    """Return the first bucket after a moment, and, of a job without a time column, after all that may have its rows.

    Such a job counts ahead of time once it has started, or was moved.
    """
    return after(max(moment, progress.not_before) if job.query.time is None else moment, job.query.bucket)


def _target(job: Job, upto: int, moment: int, progress: Progress, now: int) -> Target:
    if job.query.time is None:
        return Target(upto, None, next_bucket(job, progress, moment))
    place = place_of(job.archives, floor(moment, job.query.bucket), now)
    return Target(upto, place and place[0], 0)


def _before(job: Job, span: Span, after: int, upto: int, source: Source) -> int:
    """Return the id below the first row of a span; upto if there is none."""

    def read(window: Window) -> tuple[int | None, Size]:
        first_id = source.first_in(job.query, window, span)
        return first_id, Size(0 if first_id is None else 1)

    for _, first_id in each_window(job, after, upto, read, source=source):
        if first_id is not None:
            return first_id - 1
    return upto
