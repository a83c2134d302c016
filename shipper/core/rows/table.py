"""Reading a table by ids: forwards over windows that tile, backwards to where a time began.

Where in a table a span of time is.

Strategy: ids and times grow together by and large only, and a recount that misses a row takes it away. So each chunk
of ids is asked between which times its rows are, which is a good deal cheaper than to count them; what a span needs are
the chunks that reach into it.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal, NamedTuple, Protocol, TypeVar

from shipper.core.errors import Overflow
from shipper.core.ledger import RecordResult
from shipper.core.model import ALWAYS, Fingerprint, Ids, Job, Query, Row, Span, Window

SPARSE = 8  # a window that lacks seven ids in eight: the next one is measured in rows

Found = TypeVar("Found")


class Source(Protocol):
    """What captures need of a database; each call may raise SourceUnavailable or QueryRefused."""

    @property
    def connection_number(self) -> int:
        """Return a number that differs when the calls of this thread go to another connection."""

    def held(self) -> AbstractContextManager[None]:
        """Let all calls of this thread within have one connection."""

    def snapshot(self, query: Query, *, since: float = ...) -> AbstractContextManager[None]:
        """Let all calls of this thread within see the table as it is at one moment, which is after since.

        That is a reading of the monotonic clock. Nothing is sent within, and it lasts a moment only.
        """

    def is_unique(self, query: Query) -> bool:
        """Say whether the catalogue proves that no two rows have the same id."""

    def uncountable(self, query: Query) -> int:
        """Return how many rows have an id that is NULL or below 1, so that no window holds them."""

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """Return the smallest id in (after, upto] that the table holds, upto if it holds none."""

    def nth_id(self, query: Query, window: Window, rows: int, *, is_backward: bool = False) -> int | None:
        """Return the id of the row in a window that is the so-many-th; backward from its end. None with fewer rows."""

    def newest(self, query: Query, upto: int) -> tuple[int, int | None]:
        """Return the largest id up to one that the table holds, and that row's time; 0 when it holds none."""

    def first_in(self, query: Query, window: Window, span: Span) -> int | None:
        """Return the smallest id of a row in the window with a bucket in the span, whatever the conditions.

        None when there is none.
        """

    def times(self, query: Query, window: Window) -> Span | None:
        """Return a span that all times of the window's rows are in, whatever the conditions; None without any."""

    def read(self, query: Query, rows: Window | Ids, span: Span = ALWAYS) -> list[Row]:
        """Count rows whose bucket is in the span, or that have no time, by bucket and group; of a statement a window.

        Raises:
            SourceUnavailable: no answer, or not in time.
            QueryRefused: the database will not run it; Overflow: it may count fewer rows.
        """

    def count(self, query: Query, window: Window) -> int:
        """Return how many rows the window has, whatever the conditions."""

    def words(self, query: Query, rows: Window | Ids, span: Span | None = None) -> Mapping[int, int]:
        """Return which ids are there, as words; only those of rows with a bucket in the span, where there is one.

        Raises:
            QueryRefused: two rows have the same id.
        """

    def words_by(self, query: Query, rows: Window | Ids) -> Mapping[int | None, Mapping[int, int]]:
        """Return which ids are there, as words, by bucket; those of rows without a time under None."""

    def fingerprint(self, query: Query, upto: int) -> Fingerprint:
        """Return by what the table is known again: its server, and the newest rows up to an id."""


class Event(NamedTuple):
    """An event of the log that a capture raises."""

    event: str
    details: Mapping[str, int | str]
    level: Literal["info", "warning"]


class CaptureStep(NamedTuple):
    """One transaction of a capture."""

    window: Window | None
    """None when no id is new."""
    rows: int
    tally: RecordResult
    is_rest: bool = True
    """May the capture end here? What follows does not begin again what came before."""
    late_rows: int = 0
    """How many rows of the table appeared below captured."""


def windows(job: Job, after: int, upto: int, *, source: Source) -> Generator[Window, tuple[Window, int] | None, None]:
    """Yield windows that tile (after, upto], of at most `chunk` ids, or rows where most ids are missing.

    It is told which part of each was read, and how many rows that had.
    """
    size, is_sparse = job.chunk, False
    while after < upto:
        end = min(after + size, upto)
        if is_sparse and end < upto:  # purged rows, or a jump of the ids by 10^12; and ids that are no sequence
            end = source.nth_id(job.query, Window(after, upto), size) or upto
        told = yield Window(after, end)
        assert told is not None
        part, rows = told
        after, is_sparse = part.upto, rows * SPARSE < part.upto - part.after


def each_window(
    job: Job, after: int, upto: int, read: Callable[[Window], tuple[Found, int]], *, source: Source
) -> Iterator[tuple[Window, Found]]:
    """Read all of (after, upto] in order, window by window; read returns how many rows there were, too."""
    planned = windows(job, after, upto, source=source)
    window = next(planned, None)
    while window is not None:
        part, (found, rows) = shrinking(window, read)
        yield part, found
        try:
            window = planned.send((part, rows))
        except StopIteration:
            return


def shrinking(window: Window, read: Callable[[Window], Found]) -> tuple[Window, Found]:
    """Read a window, or as much of its beginning as has sums that fit; return which part that was.

    Raises:
        Overflow: the sum of one row alone does not.
    """
    while True:
        try:
            return window, read(window)
        except Overflow:
            if window.upto - window.after == 1:  # an expression of the job's own
                raise
            window = Window(window.after, (window.after + window.upto) // 2)


def scan(job: Job, after: int, upto: int, *, source: Source, span: Span = ALWAYS) -> Iterator[tuple[Window, list[Row]]]:
    """Read all windows of (after, upto] in order."""

    def read(window: Window) -> tuple[list[Row], int]:
        rows = source.read(job.query, window, span)
        return rows, sum(row.rows for row in rows)

    yield from each_window(job, after, upto, read, source=source)


def walk_back(job: Job, upto: int, span: Span, *, source: Source) -> int:
    """Return an id at or below upto above which the rows of a span are.

    Ids and times grow together by and large: the first chunk without such a row ends the search.
    """
    low = upto
    while upto > 0:
        # in rows: a clock's ids are far apart
        oldest = source.nth_id(job.query, Window(0, upto), job.chunk, is_backward=True)
        window = Window(0 if oldest is None else oldest - 1, upto)
        found = source.first_in(job.query, window, span)
        if found is None:
            break
        low, upto = found - 1, window.after
    return low


def fingerprint_of(job: Job, source: Source, upto: int) -> Fingerprint:
    """Return by what the table is known again; a time that is set later is none to go by."""
    found = source.fingerprint(job.query, upto)
    return found if job.lookback is None else timeless(found)


def timeless(found: Fingerprint) -> Fingerprint:
    """Return a fingerprint by ids alone."""
    return found._replace(rows=tuple((identity, None) for identity, _ in found.rows))


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
    return LATE_SECONDS if job.lookback is None else job.max_age


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
