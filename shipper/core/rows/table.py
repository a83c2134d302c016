"""Reading a table by ids, window by window, and finding the ids whose rows lie in a span of time; events and steps.

Strategy of the search: ids and times grow together only roughly, and a recount that misses a row would remove it from
its total. Therefore each chunk of ids is asked for its oldest and newest time, which is much cheaper than counting it;
a span needs the chunks that reach into it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from math import ceil
from typing import Literal, NamedTuple, Protocol, TypeVar

from shipper.core.errors import RowRefused, TooManyGroups
from shipper.core.id_set import Gaps, IdSet
from shipper.core.ledger import Ledger, RecordResult
from shipper.core.model import ALWAYS, Fingerprint, Ids, Job, Now, Query, Row, Span, Window, adjoined

KNOWN_ROWS = 16
"""Rows by which a table is recognized; some of them may be deleted."""
MOST_LABELS = 5_000
"""Labels in one answer; where a window has more, less of it is read: the longest need 40 MB until they are stored."""
GROWTH = 1.25  # of windows behind one that was too large: what was too much may continue
FULL = 0.9  # of its labels, by those of the window before
SPARSE = 8  # if a window lacks seven ids in eight, the next one is measured in rows

SECONDS = 600
"""A window of this length needs no limit of rows, along a time."""

Content = TypeVar("Content")


class Source(Protocol):
    """The database, as the core needs it.

    Each call may raise SourceUnavailable (no answer, or not in time) or QueryRefused (it rejects the statement).
    """

    @property
    def connection_number(self) -> int:
        """Number of the connection that this thread uses; it changes with the connection, and is 0 behind a pooler."""

    def held(self) -> AbstractContextManager[None]:
        """Keep one connection for all calls of this thread in the block."""

    def snapshot(self, query: Query, *, since: float = ...) -> AbstractContextManager[None]:
        """Let all calls of this thread in the block see the table as of one moment, taken after `since`.

        `since` is a reading of the monotonic clock. The block must be short and must not send anything.
        """

    def is_unique(self, query: Query) -> bool:
        """Return whether the catalogue proves that no two rows have the same id."""

    def uncountable(self, query: Query) -> int:
        """Return the number of rows whose id is NULL or below 1: no window contains them."""

    def local(self, query: Query, moment: int) -> int:
        """Return the second that the time column has at a moment, by its time zone."""

    def minutes(self, query: Query, window: Window) -> Mapping[int, tuple[int, int]]:
        """Return the minutes of a window that have rows, along a time: the number of rows, and a checksum of times."""

    def beyond(self, query: Query, second: int) -> int:
        """Return the number of rows after a second, along a time."""

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """Return the smallest id of the table in (after, upto], upto if there is none."""

    def nth_id(self, query: Query, window: Window, rows: int, *, is_backward: bool = False) -> int | None:
        """Return the id of the n-th row of a window, from its end if backward; None if it has fewer rows."""

    def newest(self, query: Query, upto: int) -> tuple[int, int | None]:
        """Return the largest id of the table up to `upto`, and the time of its row; id 0 if there is none."""

    def first_in(self, query: Query, window: Window, span: Span) -> int | None:
        """Return the smallest id in the window whose row has a bucket in the span, conditions ignored; None if none."""

    def ids_in(self, query: Query, window: Window, span: Span) -> tuple[Window, int] | None:
        """Return the smallest window with all of a window's rows in a span, conditions ignored, and their number.

        Return None if there are none. Without an index of the time it reads the entire table.
        """

    def has_index_of_time(self, query: Query) -> bool:
        """Return whether an index finds the rows of a span."""

    def times(self, query: Query, window: Window) -> Span | None:
        """Return a span that contains all times of the window's rows, conditions ignored; None if there are none."""

    def read(self, query: Query, rows: Window | Ids, span: Span = ALWAYS) -> list[Row]:
        """Count rows by bucket and group: those with a bucket in the span, and those without a time.

        Custom sql reads windows only, not ids.

        Raises:
            RowRefused: fewer rows at once may work.
        """

    def read_at_once(self, query: Query, window: Window, gaps: Gaps) -> tuple[list[Row], Mapping[int, int]] | None:
        """Count the rows of a window as `read` does, and return, as words, which ids of it and of the gaps have rows.

        All of it is of one moment, without a snapshot. None where one statement cannot tell this; it raises as `read`
        and `words` do.
        """

    def renamed(self, query: Query, rows: list[Row]) -> list[Row]:
        """Return rows with the names of label values, which `read` returns for a query with `names`."""

    def set_aside(self, query: Query, identity: int, error: RowRefused) -> None:
        """Let `read` return a row as unreadable from now on.

        Raises:
            QueryRefused: the query fails without rows, too, or there are too many unreadable rows.
        """

    def retry(self, query: Query) -> None:
        """Let `read` count rows that were set aside and can be read now. Call it outside of a snapshot."""

    def read_undivided(self, query: Query, window: Window, span: Span) -> list[Row]:
        """Count the indivisible measures of each bucket in a span, in one statement; other values are None, rows 0.

        The window must contain all rows of these buckets.
        """

    def count(self, query: Query, window: Window) -> int:
        """Return the number of rows in the window, conditions ignored."""

    def words(self, query: Query, rows: Window | Ids, span: Span | None = None) -> Mapping[int, int]:
        """Return the ids that have rows, as words; with a span, only those with a bucket in it.

        Raises:
            QueryRefused: two rows have the same id.
        """

    def appeared(self, query: Query, counted: IdSet, gaps: Gaps) -> Mapping[int, int]:
        """Return, as words, the ids of gaps that have rows and are not counted; it raises as `words` does."""

    def words_by(self, query: Query, rows: Window | Ids) -> Mapping[int | None, Mapping[int, int]]:
        """Return the ids that have rows, as words, by bucket; rows without a time are under None."""

    def fingerprint(self, query: Query, upto: int, *, more: int = 0) -> Fingerprint:
        """Return what identifies the table: its server, and its newest KNOWN_ROWS rows up to an id, or more."""


class Context(NamedTuple):
    """Job of a capture or a recount, with what it reads and writes."""

    job: Job
    source: Source
    ledger: Ledger
    moment: Now


class Event(NamedTuple):
    """An event of the log that a capture raises."""

    event: str
    details: Mapping[str, int | str | Span]
    """Fields of the event; the log shows a span as start and end, in UTC."""
    level: Literal["info", "warning"]


class CaptureStep(NamedTuple):
    """One transaction of a capture."""

    window: Window | None
    """None when no id is new."""
    rows: int
    tally: RecordResult
    is_rest: bool = True
    """Whether it is safe to stop after this step: the next capture does not repeat it."""
    late_rows: int = 0
    """Number of rows that appeared below captured."""


class Size(NamedTuple):
    """Size of what was read of a window."""

    rows: int
    groups: int = 0


def size_of_rows(rows: Sequence[Row]) -> Size:
    """Return the size of some counts."""
    return Size(sum(row.rows for row in rows), len(rows))


def most_groups(query: Query, labels: int) -> int:
    """Return how many groups have a number of labels."""
    return labels // max(1, len(query.by))


def each_window(
    job: Job, after: int, upto: int, read: Callable[[Window], tuple[Content, Size]], *, source: Source
) -> Iterator[tuple[Window, Content]]:
    """Read all of (after, upto] in order, window by window; `read` also returns the size of the content.

    A window has at most `chunk` ids, or `chunk` rows where most ids are missing; along a time it has about `chunk`
    rows. Behind one of which only a part could be read, windows are as short as that part, and grow again, if their
    groups allow that.
    """
    is_along, share = job.query.is_along, 1.0
    size, is_sparse, most = SECONDS if is_along else job.chunk, is_along, most_groups(job.query, MOST_LABELS)
    while after < upto:
        end = min(after + ceil(size * share), upto)
        if is_sparse and end < upto:  # purged rows, a jump of the ids by 10^12, ids that are no sequence
            end = source.nth_id(job.query, Window(after, upto), ceil(job.chunk * share)) or upto
        part, (content, (rows, groups)) = _shrinking(job, Window(after, end), read, source)
        yield part, content
        growth = GROWTH if part.upto == end else (part.upto - after) / (end - after)
        share *= min(growth, FULL * most / groups) if groups else growth
        share = min(max(share, 1 / size), 1.0)
        after, is_sparse = part.upto, is_along or rows * SPARSE < part.upto - part.after


def _shrinking(job: Job, window: Window, read: Callable[[Window], Content], source: Source) -> tuple[Window, Content]:
    """Read a window, or a beginning of it, halved or shorter, that can be read; return that part with its content.

    A window has about `chunk` rows, or ids. A single row that cannot be read is set aside.
    """
    while True:
        try:
            return window, read(window)
        except RowRefused as error:
            size = window.upto - window.after
            if size == 1:
                source.set_aside(job.query, window.upto, error)
                continue
            part = size // 2
            if isinstance(error, TooManyGroups):  # if all of its rows are of as many groups
                part = min(part, max(1, size * error.rows // min(size, job.chunk)))
            window = Window(window.after, window.after + part)


def scan(job: Job, after: int, upto: int, *, source: Source, span: Span = ALWAYS) -> Iterator[tuple[Window, list[Row]]]:
    """Read all windows of (after, upto] in order."""

    def read(window: Window) -> tuple[list[Row], Size]:
        rows = source.read(job.query, window, span)
        return rows, size_of_rows(rows)

    yield from each_window(job, after, upto, read, source=source)


def walk_back(job: Job, upto: int, span: Span, *, source: Source) -> int:
    """Return an id at or below upto; the rows of the span are above it.

    Ids and times grow together roughly: the first chunk without a row of the span ends the search.
    """
    low = upto
    while upto > 0:
        # measured in rows: snowflake ids are far apart
        oldest = source.nth_id(job.query, Window(0, upto), job.chunk, is_backward=True)
        window = Window(0 if oldest is None else oldest - 1, upto)
        first_id = source.first_in(job.query, window, span)
        if first_id is None:
            break
        low, upto = first_id - 1, window.after
    return low


def fingerprint_of(job: Job, source: Source, upto: int, *, more: int = 0) -> Fingerprint:
    """Return what identifies the table; of jobs with `lookback` without times, which may be set later."""
    fingerprint = source.fingerprint(job.query, upto, more=more)
    return fingerprint if job.lookback is None else timeless(fingerprint)


def timeless(fingerprint: Fingerprint) -> Fingerprint:
    """Return a fingerprint of ids alone."""
    return fingerprint._replace(rows=tuple((identity, None) for identity, _ in fingerprint.rows))


FEW = 8
"""Number of first rows that show from when on the table has all its rows."""
LATE_SECONDS = 3600
NARROW = 1000  # ids; where the first rows have no time


class Chunk(NamedTuple):
    """Window of ids, and a span that contains the times of its rows."""

    window: Window
    times: Span


def chunks(job: Job, after: int, upto: int, *, source: Source) -> Iterator[Chunk | None]:
    """Yield the chunks of (after, upto] in order; None for a chunk without rows that have a time."""

    def read(window: Window) -> tuple[Span | None, Size]:
        times = source.times(job.query, window)
        return times, Size(0 if times is None else job.chunk)

    for window, times in each_window(job, after, upto, read, source=source):
        yield Chunk(window, times) if times is not None else None


def windows_in(parts: Iterable[Chunk], span: Span) -> list[Window]:
    """Return the windows of chunks that reach into a span; adjoining ones as one window."""
    windows = (window for window, times in parts if times.start < span.end and span.start < times.end)
    return [Window(*ids) for ids in adjoined((one.after, one.upto) for one in windows)]


def late_seconds(job: Job) -> int:
    """Return how much later than others of the same time a row with a lower id may have been written, in seconds."""
    return LATE_SECONDS if job.lookback is None else job.max_age


def purged_below(job: Job, upto: int, *, source: Source) -> int:
    """Return the id below which rows of the table may have been purged, 0 if its first ids are complete."""
    first = _first_ids(job, upto, source)
    if not first:
        return upto + 1
    return 0 if first == list(range(1, len(first) + 1)) else first[-1]


def purged_until(job: Job, upto: int, *, source: Source) -> int:
    """Return the time up to which rows of the table may have been purged, -1 if its first ids are complete.

    Rows are purged in the order of ids or of times, and the first remaining rows show how far that went. One row alone
    does not: it may be kept for a special reason, or have no time.
    """
    first = _first_ids(job, upto, source)
    if first == list(range(1, len(first) + 1)):
        return -1 if first else ALWAYS.end
    spans = [source.times(job.query, Window(one - 1, one)) for one in first]
    if ends := [span.end for span in spans if span is not None]:
        return max(ends) - 1
    rest = chunks(replace(job, chunk=min(NARROW, job.chunk)), first[-1], upto, source=source)
    return next((one.times.end - 1 for one in rest if one is not None), ALWAYS.end)


def time_at(job: Job, upto: int, *, source: Source) -> int | None:
    """Return the time of the row with an id, or of the newest row before it; None if none is near."""
    time = source.newest(job.query, upto)[1]
    if time is None and upto > 0:
        times = source.times(job.query, Window(max(0, upto - job.chunk), upto))
        return None if times is None else times.end - 1
    return time


def _first_ids(job: Job, upto: int, source: Source) -> list[int]:
    """Return the first few ids of the table."""
    ids: list[int] = []
    last, _ = source.newest(job.query, upto)
    while len(ids) < FEW and (ids[-1] if ids else 0) < last:
        ids.append(source.first_id(job.query, ids[-1] if ids else 0, last))
    return ids
