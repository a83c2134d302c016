"""Where in a table a span of time is.

Strategy: ids and times grow together by and large only, and a recount that misses a row takes it away. So each chunk
of ids is asked between which times its rows are, which is a good deal cheaper than to count them; what a span needs are
the chunks that reach into it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from shipper.core.model import ALWAYS, Job, Span, Window
from shipper.core.rows.table import Source, each_window

FEW = 8
"""By so many first rows it is known from when on the table has all."""
LATE_SECONDS = 3600
NARROW = 1000  # ids; where the first rows have no time


class Chunk(NamedTuple):
    """Ids, and a span that the times of their rows are in."""

    window: Window
    times: Span


def chunks(job: Job, after: int, upto: int, *, source: Source) -> Iterator[Chunk | None]:
    """Yield the chunks of (after, upto] with rows that have a time, in order; None for one without."""

    def read(window: Window) -> tuple[Span | None, int]:
        times = source.times(job.query, window)
        return times, 0 if times is None else job.chunk

    for window, times in each_window(job, after, upto, read, source=source):
        yield Chunk(window, times) if times is not None else None


def windows_in(found: Iterable[Chunk], span: Span) -> list[Window]:
    """Return the ids of chunks that reach into a span; those that adjoin as one window."""
    windows: list[Window] = []
    for window, times in found:
        if times.start >= span.end or span.start >= times.end:
            continue
        begins = windows.pop().after if windows and windows[-1].upto == window.after else window.after
        windows.append(Window(begins, window.upto))
    return windows


def late_seconds(job: Job) -> int:
    """Return how long after others of its time a row may have come, whose id is lower than theirs all the same."""
    return LATE_SECONDS if job.revisit is None else job.max_age


def purged_below(job: Job, upto: int, *, source: Source) -> int:
    """Return the id below which the table may lack rows that it had, 0 where its first ids are all there."""
    first = _first_ids(job, upto, source)
    if not first:
        return upto + 1
    return 0 if first == list(range(1, len(first) + 1)) else first[-1]


def purged_until(job: Job, upto: int, *, source: Source) -> int:
    """Return the time up to which the table may lack rows that it had, -1 where its first ids are all there.

    Rows are purged in the order of ids or of times, and the first that are left tell how far that went; one of them
    alone may be kept for a reason of its own, or have no time.
    """
    first = _first_ids(job, upto, source)
    if first == list(range(1, len(first) + 1)):
        return -1 if first else ALWAYS.end
    found = [source.times(job.query, Window(one - 1, one)) for one in first]
    if times := [one.end for one in found if one is not None]:
        return max(times) - 1
    rest = chunks(replace(job, chunk=min(NARROW, job.chunk)), first[-1], upto, source=source)
    return next((one.times.end - 1 for one in rest if one is not None), ALWAYS.end)


def time_at(job: Job, upto: int, *, source: Source) -> int | None:
    """Return the time of the row that stands at an id, or of the newest before it, None where none is near."""
    time = source.newest(job.query, upto)[1]
    if time is None and upto > 0:
        times = source.times(job.query, Window(max(0, upto - job.chunk), upto))
        return None if times is None else times.end - 1
    return time


def _first_ids(job: Job, upto: int, source: Source) -> list[int]:
    """Return the first few ids that the table holds."""
    found: list[int] = []
    last, _ = source.newest(job.query, upto)
    while len(found) < FEW and (found[-1] if found else 0) < last:
        found.append(source.first_id(job.query, found[-1] if found else 0, last))
    return found
