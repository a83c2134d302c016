"""Core. Reading a table by ids: forwards over windows that tile, backwards to where a time began."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from shipper.ledger import Tally
from shipper.model import ALWAYS, Checksum, Evidence, Fingerprint, Job, Query, Row, Span, Window
from shipper.window import next_window


class Source(Protocol):
    """What captures need of a database; each call may raise SourceUnavailable or QueryRefused."""

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """Return the smallest id in (after, upto] that the table holds, upto if it holds none."""

    def newest(self, query: Query, upto: int) -> tuple[int, int | None]:
        """Return the largest id up to one that the table holds, and that row's time; 0 when it holds none."""

    def first_in(self, query: Query, window: Window, span: Span, *, open_above: int | None = None) -> int | None:
        """Return the smallest id of a row in the window with a bucket in the span, whatever the conditions.

        With open_above also of a row above that id which has no time yet. None when there is none.
        """

    def times(self, query: Query, window: Window) -> Span | None:
        """Return a span that all times of the window's rows are in, whatever the conditions; None without any."""

    def read(self, query: Query, window: Window, span: Span = ALWAYS) -> list[Row]:
        """Count the window's rows whose bucket is in the span, or that have no time, by bucket and group.

        Raises:
            SourceUnavailable: no answer, or not in time.
            QueryRefused: the database will not run it.
        """

    def count(self, query: Query, window: Window) -> int:
        """Return how many rows the window has, whatever the conditions."""

    def unguarded(self, query: Query) -> str | None:
        """Return why rows of this table that are in flight cannot be seen, None where they can."""

    def evidence(self, query: Query, window: Window) -> Evidence:
        """Return a checksum of the window's ids, and the rows in flight."""

    def checksum(self, query: Query, window: Window) -> Checksum:
        """Return a checksum of the window's ids, whatever the conditions."""

    def fingerprint(self, query: Query, upto: int) -> Fingerprint:
        """Return by what the table is known again: its server, and the newest rows up to an id."""


class Noticed(NamedTuple):
    """Something that an operator is to know: an event of the log, and what belongs to it."""

    event: str
    details: Mapping[str, int | str]


class Captured(NamedTuple):
    """One transaction of a capture."""

    window: Window | None
    """None when no id is new."""
    rows: int
    tally: Tally
    is_rest: bool = True
    """May the capture end here? What follows does not begin again what came before."""


def scan(job: Job, after: int, upto: int, *, source: Source, span: Span = ALWAYS) -> Iterator[tuple[Window, list[Row]]]:
    """Read all windows of (after, upto] in order."""
    first = None
    while after < upto:
        window = next_window(after, upto, chunk=job.chunk, first=first)
        rows = source.read(job.query, window, span)
        yield window, rows
        after = window.upto
        # behind an empty window there may be a hole: purged rows, or a jump of the ids by 10^12
        first = None if rows or after == upto else source.first_id(job.query, after, upto)


def walk_back(job: Job, upto: int, span: Span, *, source: Source, open_above: int | None = None) -> int:
    """Return an id at or below upto above which the rows of a span are.

    Ids and times grow together by and large: the first chunk without such a row ends the search.
    """
    low = upto
    while (newest := source.newest(job.query, upto)[0]) > 0:
        window = Window(max(0, newest - job.chunk), newest)
        found = source.first_in(job.query, window, span, open_above=open_above)
        if found is None:
            break
        low, upto = found - 1, window.after
    return low


def fingerprint_of(job: Job, source: Source, upto: int) -> Fingerprint:
    """Return by what the table is known again; a time that is set later is none to go by."""
    found = source.fingerprint(job.query, upto)
    return found if job.revisit is None else timeless(found)


def timeless(found: Fingerprint) -> Fingerprint:
    """Return a fingerprint by ids alone."""
    return found._replace(rows=tuple((identity, None) for identity, _ in found.rows))
