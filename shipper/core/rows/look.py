"""One look at a table: the rows of a window, and exactly which ids they have.

Strategy: if ids are unique and a window has as many rows as ids, nothing can appear in it any more: it needs no
snapshot and no list of ids. In all other windows ids and counts come from one snapshot, so the set of counted ids and
the totals never disagree. Jobs of one table ask only once for what they all need. A job that is alone on its table asks
for a short window, its ids and the gaps in one statement, which is of one moment by itself.
"""

from contextlib import AbstractContextManager, nullcontext, suppress
from typing import NamedTuple

from shipper.core.errors import QueryRefused, RowRefused
from shipper.core.id_set import Gaps, IdSet, Words, clipped, size_of
from shipper.core.model import Fingerprint, Job, Observation, Progress, Query, RejectReason, Row, Window
from shipper.core.position import Position
from shipper.core.rows.table import KNOWN_ROWS, MOST_LABELS, Source, fingerprint_of, most_groups

EVERY_SECONDS = 60
"""Interval in which rows without an id are counted, and in which a record says that nothing is new, in seconds."""


NEAR = 100
"""Ids between the known rows of a table and its newest ones, up to which one statement reads both."""
MOST_LISTED = 1000
"""Gaps that are asked for one by one in a statement that also counts."""


class Content(NamedTuple):
    """Content of a window."""

    rows: list[Row]
    words: Words | None
    """Ids that have rows; None means all of them."""


class _Ahead(NamedTuple):
    """Answers that were read before they were asked for."""

    position: Position
    """The job's position, below which no row has appeared."""
    window: Window | None
    """Rows above captured; None without any."""
    content: Content


class TableLook:
    """One look at one table up to one horizon, shared by the jobs that are due."""

    def __init__(self, source: Source, horizon: Observation, *, has_gaps: bool = False, is_alone: bool = False) -> None:
        """Make a look; has_gaps: whether ids were missing in the newest window of the look before.

        is_alone: whether only one job looks at the table.
        """
        self.source = source
        self.horizon = horizon
        self.has_gaps = has_gaps
        self.none_late: tuple[IdSet, Gaps] | None = None
        """Ids that a job had counted and gaps in which it found no row: the others need not ask the same."""
        self._is_alone = is_alone
        self._ahead: _Ahead | None = None
        self._complete: tuple[int, Window] | None = None
        """Newest window without gaps, with the number of the connection that saw it."""
        self._fingerprints: dict[object, Fingerprint] = {}
        self._without_id: int | None = None

    def read_ahead(self, job: Job, captured: int, before: Position) -> None:
        """Read the gaps that are due and all above captured in one statement, if that is worth it.

        Nothing is kept if a row has appeared in a gap: its count must be of the same moment.
        """
        self._ahead = None
        if not self._is_alone or job.query.is_along or job.lookback is not None:
            return
        ids, most = self.horizon.id - captured, min(job.chunk, most_groups(job.query, MOST_LABELS))
        gaps = before.at_look(self.horizon, every=job.every, late=job.late).gaps_due(before, job.late)
        if 0 <= ids <= most and len(gaps.ids) <= MOST_LISTED and (self.has_gaps or gaps.ranges or gaps.ids):
            with suppress(RowRefused):  # the usual way finds the row
                self._ahead = self._read_ahead(job.query, captured, before, gaps)

    def _read_ahead(self, query: Query, captured: int, before: Position, gaps: Gaps) -> _Ahead | None:
        if self.horizon.id == captured:
            return None if self.source.appeared(query, before.counted, gaps) else _Ahead(before, None, Content([], {}))
        window = Window(captured, self.horizon.id)
        answer = self.source.read_at_once(query, window, gaps)
        if answer is None or before.counted.missing(clipped(answer[1], 0, captured)):
            return None
        return _Ahead(before, window, Content(answer[0], clipped(answer[1], captured, window.upto)))

    def has_none_late(self, position: Position) -> bool:
        """Whether it is known that no row has appeared in the gaps of a position that are due."""
        return self._ahead is not None and self._ahead.position is position

    def read(self, query: Query, window: Window) -> Content:
        """Count all rows of a window above captured."""
        if self._ahead is not None and self._ahead.window == window:
            return self._checked(query, window, self._ahead.content)
        if not self.has_gaps and self.source.is_unique(query):
            rows = self._without_gaps(query, window)
            if rows is not None:
                return Content(rows, None)
            self.has_gaps = True

        # ask for ids, too, until a window has no gaps
        with self.source.snapshot(query, since=self.horizon.clock):
            words, rows = self.source.words(query, window), self.source.read(query, window)
        return self._checked(query, window, Content(rows, words))

    def _checked(self, query: Query, window: Window, content: Content) -> Content:
        """Return the content of a window whose ids were asked for; note whether it has gaps."""
        rows, words = content.rows, content.words or {}
        counted = sum(row.rows for row in rows)
        if query.is_whole and counted != size_of(words):
            raise QueryRefused(
                f"read {query.table}, {window}: {counted} rows, but {size_of(words)} different ids",
                hint=f"Make {query.id} unique; on MySQL and MariaDB the engine must be InnoDB.",
            )
        self.has_gaps = size_of(words) < window.upto - window.after
        return content

    def fingerprint(self, job: Job, upto: int) -> Fingerprint:
        """Return what identifies the table, by its newest rows up to an id."""
        key = _fingerprint_key(job, upto)
        if key not in self._fingerprints:
            with self._beside(job.query):
                self._read_fingerprints(job, upto)
        return self._fingerprints[key]

    def _read_fingerprints(self, job: Job, upto: int) -> None:
        """Read what identifies the table, with few ids up to the horizon also by the rows that are the newest there."""
        horizon, more = self.horizon.id, self.horizon.id - upto
        if 0 < more <= NEAR:
            newest = fingerprint_of(job, self.source, horizon, more=more)
            older = tuple(row for row in newest.rows if row[0] <= upto)
            if len(older) >= KNOWN_ROWS or len(newest.rows) < KNOWN_ROWS + more:  # else rows share ids
                for end, rows in ((upto, older), (horizon, newest.rows)):
                    self._fingerprints[_fingerprint_key(job, end)] = newest._replace(rows=rows[:KNOWN_ROWS])
                return
        self._fingerprints[_fingerprint_key(job, upto)] = fingerprint_of(job, self.source, upto)

    def outside(self, query: Query, progress: Progress) -> dict[RejectReason, int]:
        """Return the number of rows that no window contains, by reason; empty except once a minute."""
        if self.horizon.time // EVERY_SECONDS == progress.complete_until // EVERY_SECONDS:
            return {}
        return {RejectReason.NO_ID: self.count_without_id(query)}

    def count_without_id(self, query: Query) -> int:
        """Return the number of rows that have no id."""
        if self._without_id is None:
            with self._beside(query):
                self._without_id = self.source.uncountable(query)
        return self._without_id

    def _beside(self, query: Query) -> AbstractContextManager[None]:
        """Use the open snapshot where ids are missing: a statement outside of it would end it."""
        is_open = self.has_gaps and self._ahead is None
        return self.source.snapshot(query, since=self.horizon.clock) if is_open else nullcontext()

    def _without_gaps(self, query: Query, window: Window) -> list[Row] | None:
        """Count a window without a snapshot; None if an id is missing."""
        size = window.upto - window.after
        with self.source.held():  # on one connection: behind a proxy another one may lead to a server that is behind
            if not query.is_whole and self._complete != (self.source.connection_number, window):
                if self.source.count(query, window) < size or not self.source.connection_number:
                    return None  # behind a pooler, the next statement may see another server
                self._complete = self.source.connection_number, window
            rows = self.source.read(query, window)
        return rows if not query.is_whole or sum(row.rows for row in rows) == size else None


def _fingerprint_key(job: Job, upto: int) -> tuple[object, ...]:
    """Return what the rows of a fingerprint depend on."""
    query = job.query
    times = (query.time, query.time_unit, query.time_sql) if query.sql is None else None  # as ids_by_time
    return upto, times, job.lookback is None
