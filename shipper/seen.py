"""Core. What the jobs of a table that are captured together see of it: what all would ask is asked once.

Strategy: evidence must be older than the rows that are read with it, and may be older by any time; so what one job has
seen before it read a window is good for the others, too. A window in which every id has its row needs none at all, and
that is known from its counts alone.
"""

from shipper.model import Evidence, Fingerprint, Job, Query, Row, Window
from shipper.scan import Source, fingerprint_of


class Seen:
    """One look at one table, up to one horizon."""

    def __init__(self, source: Source, *, has_gaps: bool = False) -> None:
        """has_gaps says whether ids were missing in the newest window of the look before."""
        self.has_gaps = has_gaps
        self.is_rechecked = False
        """Were the recorded windows looked at?"""
        self.source = source
        self._complete: Window | None = None
        self._evidence: dict[Window, Evidence] = {}
        self._fingerprints: dict[tuple[int, str | None, bool], Fingerprint] = {}

    def read(self, query: Query, window: Window, begins: int, *, passes: bool = False) -> tuple[list[Row], Evidence]:
        """Read all rows of a window, and return what its ids were before that: a checksum of those above begins.

        When rows are in flight nothing is read, unless they are to be passed.
        """
        source, is_recorded = self.source, begins >= window.upto
        if self._is_complete(window) or (is_recorded and source.unguarded(query) is not None):
            return source.read(query, window), Evidence(None)

        # mostly every id has its row, and counting them says so: nothing is in flight, nothing can come late
        if not self.has_gaps:
            rows = source.read(query, window) if query.is_whole else None
            found = source.count(query, window) if rows is None else sum(row.rows for row in rows)
            if found == window.upto - window.after:
                self._complete = window
                return source.read(query, window) if rows is None else rows, Evidence(None)
            self.has_gaps = True

        # from here on more is asked first, until no id is missing any more
        evidence = self._seen_before(query, window)
        if evidence.checksum is None:
            self.has_gaps = False
        elif evidence.in_flight and not passes:
            return [], evidence
        elif begins > window.after:
            checksum = None if is_recorded else source.checksum(query, Window(begins, window.upto))
            evidence = evidence._replace(checksum=checksum)
        return source.read(query, window), evidence

    def fingerprint(self, job: Job, upto: int) -> Fingerprint:
        """Return by what the table is known again up to an id: see shipper.scan.fingerprint_of."""
        key = (upto, None if job.query.sql else job.query.time, job.revisit is None)
        if key not in self._fingerprints:
            self._fingerprints[key] = fingerprint_of(job, self.source, upto)
        return self._fingerprints[key]

    def _is_complete(self, window: Window) -> bool:
        known = self._complete
        return known is not None and known.after <= window.after and window.upto <= known.upto

    def _seen_before(self, query: Query, window: Window) -> Evidence:
        if window not in self._evidence:
            self._evidence[window] = self.source.evidence(query, window)
        return self._evidence[window]
