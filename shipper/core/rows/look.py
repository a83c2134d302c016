"""One look at a table: the rows of a window, and exactly which ids they have.

Strategy: if ids are unique and a window has as many rows as ids, nothing can appear in it any more: it needs no
snapshot and no list of ids. In all other windows ids and counts come from one snapshot, so the set of counted ids and
the totals never disagree. Jobs of one table ask only once for what they all need.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from shipper.core.errors import QueryRefused
from shipper.core.id_set import Gaps, Words, size_of, union_of
from shipper.core.model import Fingerprint, Job, Observation, Progress, Query, RejectReason, Row, Window
from shipper.core.position import Position
from shipper.core.rows.table import Source, fingerprint_of

EVERY_SECONDS = 60
"""Interval in which rows without an id are counted, and in which a record says that nothing is new, in seconds."""


class Content(NamedTuple):
    """Content of a window."""

    rows: list[Row]
    words: Words | None
    """Ids that have rows; None means all of them."""


class TableLook:
    """One look at one table up to one horizon, shared by the jobs that are due."""

    def __init__(self, source: Source, horizon: Observation, *, has_gaps: bool = False) -> None:
        """Make a look; has_gaps: whether ids were missing in the newest window of the look before."""
        self.source = source
        self.horizon = horizon
        self.has_gaps = has_gaps
        self._complete: tuple[int, Window] | None = None
        """Newest window without gaps, with the number of the connection that saw it."""
        self._fingerprints: dict[object, Fingerprint] = {}
        self._without_id: int | None = None

    def read(self, query: Query, window: Window) -> Content:
        """Count all rows of a window above captured."""
        if not self.has_gaps and self.source.is_unique(query):
            rows = self._without_gaps(query, window)
            if rows is not None:
                return Content(rows, None)
            self.has_gaps = True

        # ask for ids, too, until a window has no gaps
        with self.source.snapshot(query, since=self.horizon.clock):
            words, rows = self.source.words(query, window), self.source.read(query, window)
        counted = sum(row.rows for row in rows)
        if query.is_whole and counted != size_of(words):
            raise QueryRefused(
                f"read {query.table}, {window}: {counted} rows, but {size_of(words)} different ids",
                hint=f"Make {query.id} unique; on MySQL and MariaDB the engine must be InnoDB.",
            )
        if size_of(words) == window.upto - window.after:
            self.has_gaps = False
        return Content(rows, words)

    def appeared(self, query: Query, position: Position, gaps: Gaps) -> Words:
        """Return the gaps that have rows now. The caller holds a snapshot, in which it also counts these rows."""
        words: dict[int, int] = {}
        for after, upto in gaps.ranges:
            words = union_of(words, self.source.words(query, Window(after, upto)))
        if gaps.ids:
            words = union_of(words, self.source.words(query, tuple(gaps.ids)))
        return position.counted.missing(words)

    def fingerprint(self, job: Job, upto: int) -> Fingerprint:
        """Return what identifies the table, by its newest rows up to an id."""
        query = job.query
        times = (query.time, query.time_unit, query.time_sql) if query.sql is None else None  # as ids_by_time
        key = (upto, times, job.lookback is None)
        if key not in self._fingerprints:
            with self._beside(job.query):
                self._fingerprints[key] = fingerprint_of(job, self.source, upto)
        return self._fingerprints[key]

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
        return self.source.snapshot(query, since=self.horizon.clock) if self.has_gaps else nullcontext()

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
