"""Core. The first sentence: read what is new, add it to the totals, record it.

Strategy: a window's rows, its totals and `captured` become durable in one transaction, so a process killed at any
instruction has either counted the window or not. Nothing else adds to a total.
"""

from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from shipper.errors import BadMetric, ConfigError, SourceReset
from shipper.fold import Folded, add, bucket_of, fold, shown
from shipper.model import COUNT, Archive, Cause, Group, Job, Key, Observation, Query, Row, Window
from shipper.render import own_path
from shipper.window import next_window


class Source(Protocol):
    """What capture needs of a database."""

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """Return the smallest id in (after, upto] that the table holds, upto if it holds none.

        Raises:
            SourceUnavailable, QueryRefused: as read.
        """

    def read(self, query: Query, window: Window) -> list[Row]:
        """Count the window's rows by bucket and group.

        Raises:
            SourceUnavailable: no answer, or not in time.
            QueryRefused: the database will not run it.
        """


class Recording(Protocol):
    """One open transaction on the state; all of it becomes durable, or nothing."""

    def claim(self, path: str, group: Group) -> bool:
        """Make the path this job's group's if it is nobody's; return whether it is the group's now."""

    def totals(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Return the totals that exist among keys, whose paths are claimed."""

    def write(self, totals: Mapping[Key, int], unshown: Mapping[Cause, int], complete_until: int | None) -> None:
        """Store the new totals, add to the counters, and set captured to the window's upper end."""


class Ledger(Protocol):
    """What capture needs of the state."""

    def captured(self, job: str) -> int | None:
        """Return how far the job has captured; None when it is new."""

    def begin(self, job: Job, captured: int) -> None:
        """Store a new job that stands at captured, delivered."""

    def complete(self, job: str, until: int) -> None:
        """Note that everything up to a time of the source is captured, though nothing was new."""

    def recording(self, job: str, window: Window) -> AbstractContextManager[Recording]:
        """Open the transaction that records a window; it commits at the end of the block.

        Raises:
            StateCorrupt: captured is not where the window begins.
            StateBusy: the state cannot be written now.
        """


@dataclass(frozen=True, slots=True)
class Captured:
    """What one window brought."""

    window: Window
    rows: int
    unshown: Mapping[Cause, int]


def capture(
    job: Job, horizon: Observation, *, source: Source, ledger: Ledger, archive: Archive, now: int
) -> Generator[Captured, None, None]:
    """Capture, window by window, what the table holds up to the horizon; yield after each that is recorded.

    Whoever iterates may stop after any window. now is our wall clock, epoch seconds.

    Raises:
        SourceReset: the table has gone back below what was captured.
    """
    captured = ledger.captured(job.name)
    if captured is None:
        captured = _start(job, horizon)
        ledger.begin(job, captured)
    if horizon.id == captured:
        ledger.complete(job.name, horizon.time)
    if horizon.id < captured:
        raise SourceReset(
            f"observe {job.query.table}: its largest id is {horizon.id}, but {captured} was captured",
            hint=f"Was the table emptied or restored, or is this another server? Rows with ids up to {captured} count "
            "as captured and are not read again; a job under another name, with another `name`, begins anew.",
        )
    span = shown(archive, now=now, source_time=horizon.time, bucket=job.query.bucket)
    first = None
    while captured < horizon.id:
        window = next_window(captured, horizon.id, chunk=job.chunk, first=first)
        rows = source.read(job.query, window)
        if job.query.time is None:
            rows = [row._replace(bucket=bucket_of(horizon.time, job.query.bucket)) for row in rows]
        folded = fold(rows, span)
        complete_until = horizon.time if window.upto == horizon.id else None
        unshown = record(job, window, folded, ledger=ledger, step=archive.step, complete_until=complete_until)
        yield Captured(window, folded.rows, unshown)
        captured = window.upto
        # behind an empty window there may be a hole: purged rows, or a jump of the ids by 10^12
        first = None if rows or captured == horizon.id else source.first_id(job.query, captured, horizon.id)


def record(
    job: Job, window: Window, folded: Folded, *, ledger: Ledger, step: int, complete_until: int | None
) -> Mapping[Cause, int]:
    """Add a window to the totals, in one transaction; return all its rows that cannot be shown, by cause."""
    unshown = folded.unshown.copy()
    with ledger.recording(job.name, window) as recording:
        changes: dict[Key, int] = {}
        for (group, slot), rows in folded.counts.items():
            try:
                path = own_path(job, group, COUNT, claim=recording.claim)
            except BadMetric:
                unshown[Cause.REFUSED] += rows
            else:
                changes[Key(path, slot, step)] = rows
        recording.write(add(recording.totals(changes), changes), unshown, complete_until)
    return unshown


def _start(job: Job, horizon: Observation) -> int:
    match job.start:
        case "now":
            return horizon.id
        case "beginning":
            return 0
        case start if start > horizon.id:
            raise ConfigError(
                f"begin job {job.name}: start = {start} is beyond the largest id of {job.query.table}, {horizon.id}",
                hint='Write the last id that is not to be counted, "now" or "beginning".',
            )
        case start:
            return start
