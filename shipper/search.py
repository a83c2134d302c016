"""Core. Where in a table a span of time is.

Strategy: ids and times grow together by and large only, and a recount that misses a row takes it away. So each chunk
of ids is asked between which times its rows are, which is a good deal cheaper than to count them; what a span needs are
the chunks that reach into it.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from shipper.model import Job, Query, Span, Window
from shipper.window import next_window


class Source(Protocol):
    """What a search needs of a database; each call may raise SourceUnavailable or QueryRefused."""

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """Return the smallest id in (after, upto] that the table holds, upto if it holds none."""

    def times(self, query: Query, window: Window) -> Span | None:
        """Return a span that all times of the window's rows are in, whatever the conditions; None without any."""


class Chunk(NamedTuple):
    """Ids, and a span that the times of their rows are in."""

    window: Window
    times: Span


def chunks(job: Job, after: int, upto: int, *, source: Source) -> Iterator[Chunk | None]:
    """Yield the chunks of (after, upto] with rows that have a time, in order; None for one without."""
    first = None
    while after < upto:
        window = next_window(after, upto, chunk=job.chunk, first=first)
        times = source.times(job.query, window)
        yield Chunk(window, times) if times is not None else None
        after = window.upto
        first = source.first_id(job.query, after, upto) if times is None and after < upto else None


def windows_in(found: Iterable[Chunk], span: Span) -> list[Window]:
    """Return the ids of chunks that reach into a span; those that adjoin as one window."""
    windows: list[Window] = []
    for window, times in found:
        if times.start >= span.end or span.start >= times.end:
            continue
        begins = windows.pop().after if windows and windows[-1].upto == window.after else window.after
        windows.append(Window(begins, window.upto))
    return windows
