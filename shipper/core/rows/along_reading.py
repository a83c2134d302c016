"""Reads the rows of jobs along a time: in windows of whole minutes, in halves where that fails.

Labels are values, without names. A second that cannot be read is set aside, and the rows beside it are read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from shipper.core.errors import QueryRefused, RowRefused, TooManyGroups
from shipper.core.ledger import Ledger, Minute
from shipper.core.model import ALWAYS, Job, Query, Row, Span, Window
from shipper.core.retention import after, floor
from shipper.core.rows.start import MINUTE
from shipper.core.rows.table import SECONDS, Source

LONG_SECONDS = 3600
"""Longest window where minutes are kept: each minute that differs is a statement within one snapshot."""
MOST_LABELS = 10_000
"""Most labels in the groups of a minute, and about as many in one record: the state keeps all of them."""
MOST_CHANGED = 50_000
"""Most labels in the minutes that a recount changes at once: 40 MB until they are stored."""

_FEWER = "Group `by` fewer columns, or by columns with fewer values; or give the table an integer key."

T = TypeVar("T")


def windows(job: Job, span: Span, source: Source, *, ledger: Ledger | None = None) -> Iterator[Window]:
    """Yield windows of whole minutes, each of about `chunk` rows at most.

    They contain all rows, and with a ledger also all minutes that it keeps.
    """
    start = span.start
    while start < span.end:
        end = span.end
        if end - start > SECONDS:
            first = source.first_id(job.query, start - 1, end - 1)
            known = ledger.first_minute(job.name, Window(start - 1, end - 1)) if ledger is not None else None
            start = floor(first if known is None else min(first, known), MINUTE)
            end = end if ledger is None else min(end, start + LONG_SECONDS)
            last = source.nth_id(job.query, Window(start - 1, end - 1), job.chunk)
            end = end if last is None else min(end, after(last, MINUTE))
        yield Window(start - 1, end - 1)
        start = end


def _plain(job: Job) -> Query:
    """Return a job's query without names: a name may change, and the minutes that are kept must be comparable."""
    return replace(job.query, names=())


def readable(job: Job, window: Window, source: Source, work: Callable[[], T]) -> T:
    """Do work in a snapshot; if a second of the window cannot be read, set it aside, and do the work again."""
    try:
        return work()
    except RowRefused:  # the snapshot has ended with it
        for _ in read_along(job, window, source):
            pass
        return work()


def read_along(job: Job, window: Window, source: Source, span: Span = ALWAYS) -> Iterator[tuple[Window, list[Row]]]:
    """Read a window, or its halves if it cannot be read; a second that cannot be read is set aside.

    Call it outside of a snapshot, which an error would end. Labels are values, without names.
    """
    query = _plain(job)
    while True:
        try:
            rows = source.read(query, window, span)
        except RowRefused as error:
            if window.upto - window.after > 1:
                for half in _halves(window):
                    yield from read_along(job, half, source, span)
                return
            source.set_aside(query, window.upto, error)
        else:
            yield window, rows
            return


def by_minutes(job: Job, window: Window, source: Source, span: Span = ALWAYS) -> Iterator[tuple[int, list[Row]]]:
    """Read a window of whole minutes, like `read_along`; yield the last second and the rows of whole minutes.

    Raises:
        QueryRefused: a minute has too many groups.
    """
    rows: list[Row] = []
    for part, more in read_along(job, window, source, span):
        rows += more
        if part.upto - part.after < MINUTE:
            check_groups(job, len(rows), part.upto)
        if part.upto % MINUTE == MINUTE - 1:
            yield part.upto, rows
            rows = []


def changed_buckets(job: Job, span: Span, known: Mapping[int, tuple[int, int]], source: Source) -> Iterator[Span]:
    """Yield the buckets of rows in minutes that have changed since the last look at them."""
    for window in windows(job, span, source):
        present = source.minutes(job.query, window)
        for start in [start for start, numbers in present.items() if known.get(start) != numbers]:
            for _, rows in by_minutes(job, Window(start - 1, start + MINUTE - 1), source):
                buckets = {row.bucket for row in rows if row.bucket is not None}
                yield from (Span(bucket, bucket + job.query.bucket) for bucket in buckets)


def read_minute(job: Job, window: Window, source: Source, span: Span = ALWAYS) -> list[Row]:
    """Read a minute within a snapshot, or parts of it.

    Raises:
        QueryRefused: it has too many groups.
    """
    try:
        rows = source.read(_plain(job), window, span)
    except TooManyGroups:
        rows = [row for half in _halves(window) for row in read_minute(job, half, source, span)]
    check_groups(job, len(rows), window.upto)
    return rows


def _halves(window: Window) -> tuple[Window, Window]:
    """Return the halves of a window, in whole minutes if it is longer than one."""
    seconds = window.upto - window.after
    middle = window.after + (seconds // 2 if seconds <= MINUTE else seconds // 2 // MINUTE * MINUTE or MINUTE)
    return Window(window.after, middle), Window(middle, window.upto)


def check_groups(job: Job, groups: int, second: int) -> None:
    """Check how many groups there are in the minute of a second.

    Raises:
        QueryRefused: they have more than MOST_LABELS labels.
    """
    most = MOST_LABELS // max(1, len(job.query.by))
    if groups > most:
        minute = f"{second // 3600 % 24:02}:{second // 60 % 60:02}"
        raise QueryRefused(
            f"read {job.query.table} along {job.query.id}: more than {most} groups in the minute {minute}",
            hint=_FEWER,
        )


def check_changed(job: Job, minutes: Iterable[Minute]) -> None:
    """Check how many labels there are in the minutes that a recount changes at once.

    Raises:
        QueryRefused: they have more than MOST_CHANGED labels.
    """
    most = MOST_CHANGED // max(1, len(job.query.by))
    if sum(len(minute.groups) for minute in minutes) > most:
        raise QueryRefused(
            f"recount {job.query.table} along {job.query.id}: more than {most} groups in the minutes that changed",
            hint=_FEWER,
        )
