"""Where a job goes on that is to leave rows out: forward only, and with whole slots.

Strategy: as a new job begins. The slot in which it goes on is counted whole, rows that it passes included, for what it
sends takes the place of what stands there; a job without a time column puts the rows until its next whole bucket into
that. Slots between stay as they are: no zeros say that somebody has looked.
"""

from typing import NamedTuple

from shipper.core.errors import ShipperError
from shipper.core.model import ALWAYS, Job, Observation, Progress, Span, Window
from shipper.core.retention import floor, placed
from shipper.core.rows.search import time_at
from shipper.core.rows.table import Source, each_window

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
    if job.revisit is not None:
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
    if time < progress.complete_until - (job.revisit or 0):
        raise ShipperError(f"move job {job.name}: rows of then are counted already", hint=_BACK)
    target = _timed(job, progress.captured, time, now)
    if job.revisit is not None:  # the time is its guide: it looks at no row of before
        return target
    span = Span(time if target.slot is None else target.slot, ALWAYS.end)
    return target._replace(captured=_before(job, span, progress.captured, horizon.id, source))


def by_end(job: Job, progress: Progress, horizon: Observation, *, now: int) -> Target:
    """Go on with what comes from now on; rows in flight come from now on, too."""
    if job.query.time is not None and job.revisit is not None:
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
