"""Core. What a look at a table finds: rows, and exactly which ids they have.

Strategy: a window in which every id has its row is known from its own count, if ids are unique: nothing can appear in
it any more, so neither a snapshot nor a list of ids is needed. Anywhere else the ids and the counts come from one
snapshot, so that the set of counted ids and the totals can never disagree. What the jobs of a table would all ask is
asked once: within a snapshot by the source, of a window without gaps here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from shipper.errors import QueryRefused
from shipper.idset import Words, size_of
from shipper.model import COUNT, Fingerprint, Job, Observation, Query, Row, Window
from shipper.scan import Source, fingerprint_of


class Found(NamedTuple):
    """What a window holds."""

    rows: list[Row]
    tally: Mapping[int | None, int]
    """How many rows it has by bucket, whatever the conditions."""
    words: Words | None
    """Which ids are there; None for all of them."""


class Seen:
    """One look at one table, up to one horizon; shared by the jobs that are due with it."""

    def __init__(self, source: Source, horizon: Observation, *, has_gaps: bool = False) -> None:
        """has_gaps says whether ids were missing in the newest window of the look before."""
        self.source = source
        self.horizon = horizon
        self.has_gaps = has_gaps
        self._tallies: dict[tuple[Window, Query], Mapping[int | None, int]] = {}
        self._fingerprints: dict[tuple[int, str | None, bool], Fingerprint] = {}

    def read(self, query: Query, window: Window) -> Found:
        """Count all rows of a window above captured."""
        if not self.has_gaps and self.source.is_unique(query):
            found = self._without_gaps(query, window)
            if found is not None:
                return found
            self.has_gaps = True

        # from here on ids are asked for, too, until none is missing any more
        with self.source.snapshot(query, since=self.horizon.clock):
            words = self.source.words(query, window)
            rows = self.source.read(query, window)
            tally = tally_of(query, rows) if query.is_whole else self.source.tally(query, window)
        check_ids(query, window, words, tally)
        if size_of(words) == window.upto - window.after:
            self.has_gaps = False
        return Found(rows, tally, words)

    def fingerprint(self, job: Job, upto: int) -> Fingerprint:
        """Return by what the table is known again up to an id: see shipper.scan.fingerprint_of."""
        key = (upto, None if job.query.sql else job.query.time, job.revisit is None)
        if key not in self._fingerprints:
            self._fingerprints[key] = fingerprint_of(job, self.source, upto)
        return self._fingerprints[key]

    def _without_gaps(self, query: Query, window: Window) -> Found | None:
        """Count a window without a snapshot; None if an id is missing."""
        if query.is_whole:
            rows = self.source.read(query, window)
            tally = tally_of(query, rows)
        else:
            tally = self._tally(query, window)
            if tally.total() < window.upto - window.after:
                return None
            rows = self.source.read(query, window)
        return Found(rows, tally, None) if tally.total() == window.upto - window.after else None

    def _tally(self, query: Query, window: Window) -> Counter[int | None]:
        """Count rows before the conditions, for all jobs with the same buckets."""
        key = (window, replace(query.ids_only, time=None if query.sql else query.time, measures=(COUNT,)))
        if key not in self._tallies:
            self._tallies[key] = self.source.tally(query, window)
        return Counter(self._tallies[key])


def tally_of(query: Query, rows: list[Row]) -> Counter[int | None]:
    """Return how many rows there are by bucket, of a query without conditions."""
    assert query.sql is None
    tally = Counter[int | None]()
    for row in rows:
        tally[row.bucket] += row.rows
    return tally


def check_ids(query: Query, window: Window, words: Words, tally: Counter[int | None]) -> None:
    """Refuse to go on where rows and ids, of one snapshot, are not as many.

    Raises:
        QueryRefused: two rows have one id, or the table's engine knows no snapshots and rows were written meanwhile.
    """
    if tally.total() != size_of(words):
        raise QueryRefused(
            f"read {query.table} {window}: {tally.total()} rows have {size_of(words)} ids",
            hint=f"No two rows may have the same {query.id}; and its engine must have transactions (InnoDB).",
        )
