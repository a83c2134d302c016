"""What a look at a table finds: rows, and exactly which ids they have.

Strategy: a window in which every id has its row is known from its own count, if ids are unique: nothing can appear in
it any more, so neither a snapshot nor a list of ids is needed. Anywhere else the ids and the counts come from one
snapshot, so that the set of counted ids and the totals can never disagree. What the jobs of a table would all ask is
asked once: within a snapshot by the source, of a window without gaps here.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from shipper.core.errors import QueryRefused
from shipper.core.id_set import Gaps, Words, size_of, union_of
from shipper.core.model import Fingerprint, Job, Observation, Progress, Query, Row, Window
from shipper.core.position import Position
from shipper.core.rows.table import Source, fingerprint_of

EVERY_SECONDS = 60
"""So often rows without an id are counted, and it is noted that nothing is new."""


class Found(NamedTuple):
    """What a window holds."""

    rows: list[Row]
    words: Words | None
    """Which ids are there; None for all of them."""


class TableLook:
    """One look at one table, up to one horizon; shared by the jobs that are due with it."""

    def __init__(self, source: Source, horizon: Observation, *, has_gaps: bool = False) -> None:
        """has_gaps says whether ids were missing in the newest window of the look before."""
        self.source = source
        self.horizon = horizon
        self.has_gaps = has_gaps
        self._complete: tuple[int, Window] | None = None
        """A window without gaps, as a connection has seen it."""
        self._fingerprints: dict[tuple[int, str | None, bool], Fingerprint] = {}
        self._without_id: int | None = None

    def read(self, query: Query, window: Window) -> Found:
        """Count all rows of a window above captured."""
        if not self.has_gaps and self.source.is_unique(query):
            rows = self._without_gaps(query, window)
            if rows is not None:
                return Found(rows, None)
            self.has_gaps = True

        # from here on ids are asked for, too, until none is missing any more
        with self.source.snapshot(query, since=self.horizon.clock):
            words, rows = self.source.words(query, window), self.source.read(query, window)
        counted = sum(row.rows for row in rows)
        if query.is_whole and counted != size_of(words):
            raise QueryRefused(
                f"read {query.table} {window}: {counted} rows have {size_of(words)} ids",
                hint=f"No two rows may have the same {query.id}; and its engine must have transactions (InnoDB).",
            )
        if size_of(words) == window.upto - window.after:
            self.has_gaps = False
        return Found(rows, words)

    def appeared(self, query: Query, position: Position, asks: Gaps) -> Words:
        """Return which gaps have rows by now; within a snapshot, so that the rows can be counted that they are."""
        there: dict[int, int] = {}
        for after, upto in asks.ranges:
            there = union_of(there, self.source.words(query, Window(after, upto)))
        if asks.ids:
            there = union_of(there, self.source.words(query, tuple(asks.ids)))
        return position.counted.missing(there)

    def fingerprint(self, job: Job, upto: int) -> Fingerprint:
        """Return by what the table is known again up to an id: see shipper.core.rows.table.fingerprint_of."""
        key = (upto, None if job.query.sql else job.query.time, job.lookback is None)
        if key not in self._fingerprints:
            with self._beside(job.query):
                self._fingerprints[key] = fingerprint_of(job, self.source, upto)
        return self._fingerprints[key]

    def without_id(self, query: Query, progress: Progress) -> int | None:
        """Count the table's rows whose id is none, so that no window holds them; None but for the first of a minute."""
        if self.horizon.time // EVERY_SECONDS == progress.complete_until // EVERY_SECONDS:
            return None
        if self._without_id is None:
            with self._beside(query):
                self._without_id = self.source.uncountable(query)
        return self._without_id

    def _beside(self, query: Query) -> AbstractContextManager[None]:
        """Ask within the snapshot that is open where ids are missing: asked outside, it would end that."""
        return self.source.snapshot(query, since=self.horizon.clock) if self.has_gaps else nullcontext()

    def _without_gaps(self, query: Query, window: Window) -> list[Row] | None:
        """Count a window without a snapshot; None if an id is missing."""
        size = window.upto - window.after
        with self.source.held():  # on one connection: behind a proxy another may be to a server that has seen less
            if not query.is_whole and self._complete != (self.source.connection_number, window):
                if self.source.count(query, window) < size:
                    return None
                self._complete = self.source.connection_number, window
            rows = self.source.read(query, window)
        return rows if not query.is_whole or sum(row.rows for row in rows) == size else None
