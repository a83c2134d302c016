"""The state: one SQLite file with watermarks, totals (which are the outbox) and the owners of paths.

Strategy: one process, one connection, explicit BEGIN IMMEDIATE, WAL with synchronous=FULL: at the end of a `with` block
all of it is on disk, and after an error or a kill inside of it none is. A lock on a file beside the state keeps other
processes out; the kernel releases it however the process ends.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from typing import TYPE_CHECKING

from typing_extensions import override

from shipper.core.errors import StateCorrupt
from shipper.core.ledger import Lacking, LateIds, Ledger, Minute, Settled, Slot
from shipper.core.model import ALWAYS, Fingerprint, Group, Job, Offsets, Progress, Span, Window
from shipper.core.position import Position
from shipper.core.rows.start import Target
from shipper.core.verify.audit import Audit
from shipper.state import positions, queries
from shipper.state.database import StateFile
from shipper.state.housekeeping import Housekeeping
from shipper.state.outbox import StateOutbox
from shipper.state.recording import StateRecording
from shipper.state.schema import ID_ORDER, NOW

if TYPE_CHECKING:
    from shipper.state.remote.database import StateDatabase

_BEGIN = f"""
    INSERT INTO watermark (job, source, id_table, id_column, value, captured, updated)
    VALUES (?, ?, ?, ?, ?, ?, {NOW})"""
_DEFINE = """
    INSERT OR REPLACE INTO job (
        job, definition_digest, path_digest, time_digest, zero_filled_until, not_before, recount_from, low, since,
        begins, bucket, multiple)
    VALUES (
        :job, :definition_digest, :path_digest, :time_digest, :zero_filled_until, :not_before, :recount_from, :low,
        :since, :begins, :bucket, :multiple)"""
# The lowest id above which all rows of a span are.
_BELOW = """
    SELECT after FROM (
        SELECT after FROM slot WHERE job = :job AND slot >= :start AND slot < :end
        UNION ALL
        SELECT after FROM rejected_in WHERE job = :job AND bucket >= :start AND bucket < :end)
    ORDER BY length(after), after LIMIT 1"""
# Oldest slot of a span (or bucket of rows of the future), and that id.
_LOWEST = f"""
    SELECT COALESCE(MIN(slot), (
        SELECT MIN(bucket) FROM rejected_in
        WHERE job = :job AND reason = 'future' AND bucket >= :start AND bucket < :end)), ({_BELOW})
    FROM slot WHERE job = :job AND slot >= :start AND slot < :end"""
_LACKING = "SELECT slot, step, lacking, recounted FROM slot WHERE job = ? AND lacking > 0 ORDER BY slot DESC, step"
# Counts below the floor, by ranges of ids.
_SETTLED = f"SELECT after, upto, rows FROM settled WHERE job = ? {ID_ORDER.format('after')}"
# Keeps the known fingerprint, marked as of a table that went back.
_DISTRUST = """
    INSERT INTO identity (job, server, rows, went_back) VALUES (?, NULL, '[]', 1)
    ON CONFLICT DO UPDATE SET went_back = 1 WHERE went_back = 0"""

_INCLUDE = f"""
    UPDATE job SET since = :start, low = COALESCE((
        SELECT after FROM ({_BELOW}) WHERE (length(after), after) < (length(low), low)), low)
    WHERE job = :job AND since > :start AND since <= :touches"""
_SEEK = (
    # the courier commits captured once all stored totals are delivered
    f"UPDATE watermark SET captured = :captured, updated = {NOW} WHERE job = :job",
    """
    UPDATE job SET recount_from = MAX(:slot, since), -- slots before may have rows of another table
        not_before = MAX(not_before, :not_before),
        zero_filled_until = MAX(zero_filled_until, :not_before, COALESCE(:slot, 0)),
        since = MAX(since, :not_before, COALESCE(:slot, 0)), begins = MAX(begins, COALESCE(:slot, 0))
    WHERE job = :job""",
)
_RESET = (
    "DELETE FROM setting WHERE name = 'backfill ' || :job",  # its pieces until now are of the old table
    "DELETE FROM late WHERE job = :job",
    "DELETE FROM rejected_in WHERE job = :job",
    "UPDATE slot SET after = '0', upto = '0' WHERE job = :job",  # ids of the old table mean nothing now
    # the courier commits captured once all stored totals are delivered
    f"UPDATE watermark SET value = '0', captured = :captured, updated = {NOW} WHERE job = :job",
    """
    UPDATE job SET low = :low,
        since = MAX(since, :since, -- slots that are ahead have rows of the old table, too
            COALESCE((SELECT MAX(slot + step) FROM slot WHERE slot.job = :job), 0)),
        not_before = MAX(not_before, :since), -- a bucket with rows of both tables could not be recounted
        recount_from = NULL -- nor could slots of the old table
    WHERE job = :job""",
)


class State(StateFile, Ledger):
    """The state file with the parts that use it: the ledger itself, the outbox, housekeeping."""

    def __init__(
        self, path: str, database: "StateDatabase | None" = None, *, recorded: Callable[[], None] = lambda: None
    ) -> None:
        """Open the file; create it if there is none. Raises as `StateFile` does.

        Calls recorded when there are new totals to deliver.
        """
        super().__init__(path, database)
        self._recorded = recorded
        self.outbox = StateOutbox(self)
        self.housekeeping = Housekeeping(self)

    def offsets(self, job: str) -> Offsets | None:
        """Return watermark and captured of a job; None if it is new."""
        with self.reading("read offsets") as connection:
            row = connection.execute(f"{queries.OFFSETS} WHERE job = ?", (job,)).fetchone()
            return queries.offsets_of(row) if row else None

    @override
    def progress(self, job: str) -> Progress | None:
        with self.reading("read progress") as connection:
            row = connection.execute(queries.PROGRESS, (job,)).fetchone()
            return queries.progress_of(row) if row else None

    @override
    def position(self, job: str) -> Position:
        with self.reading("read the position") as connection:
            if job not in self._positions:
                self._positions[job] = self._stored[job] = positions.read(connection, job)
            return self._positions[job]

    @override
    def note_look(self, job: str, position: Position) -> None:
        with self._mutex:
            self._positions[job] = position

    @override
    def begin(self, job: Job, progress: Progress, position: Position, known: Fingerprint | None) -> None:
        captured = str(progress.captured)
        with self.writing(f"begin job {job.name}", may_wait=True) as connection:
            connection.execute(_BEGIN, (job.name, job.source, job.query.table, job.query.key, captured, captured))
            connection.execute(_DEFINE, _definition(job.name, progress))
            self.forget_cached()
            positions.begin(connection, job.name, position)
            if known is not None:
                positions.identify(connection, job.name, known)

    @override
    def redefine(self, job: str, progress: Progress) -> None:
        with self.writing(f"redefine job {job}", may_wait=True) as connection:
            # by other times the buckets of rejected rows are unknown: they stay rejected; so are known times
            (digest,) = connection.execute("SELECT time_digest FROM job WHERE job = ?", (job,)).fetchone()
            if digest != progress.time_digest:
                connection.execute("DELETE FROM rejected_in WHERE job = ?", (job,))
                positions.forget_times(connection, job)
            connection.execute(_DEFINE, _definition(job, progress))
            connection.execute("UPDATE slot SET lacking = 0 WHERE job = ?", (job,))

    @override
    def lowest(self, job: str, span: Span) -> tuple[int, int] | None:
        with self.reading("read slots") as connection:
            slot, after = connection.execute(_LOWEST, {"job": job, "start": span.start, "end": span.end}).fetchone()
            return None if slot is None else (slot, int(after))

    @override
    def slots(self, job: str, *, span: Span = ALWAYS, longer_than: int = 0) -> list[Slot]:
        with self.reading("read slots") as connection:
            return queries.slots_of(connection, job, span, longer_than=longer_than)

    @override
    def lacking(self, job: str) -> list[Lacking]:
        with self.reading("read slots") as connection:
            return [Lacking(*row) for row in connection.execute(_LACKING, (job,))]

    @override
    def settled(self, job: str) -> list[Settled]:
        with self.reading("read counts below the floor") as connection:
            rows = connection.execute(_SETTLED, (job,))
            return [Settled(int(after), int(upto), count) for after, upto, count in rows]

    @override
    def late_ids(self, job: str) -> list[LateIds]:
        with self.reading("read late rows") as connection:
            return queries.late_ids_of(connection, job)

    def late_rows(self, job: str) -> int:
        """Return how many rows came late so far."""
        with self.reading("read late rows") as connection:
            row = connection.execute("SELECT late_rows FROM position WHERE job = ?", (job,)).fetchone()
        return row[0] if row else 0

    @override
    def pruned(self, job: str) -> list[Span]:
        with self.reading("read pruned times") as connection:
            rows = connection.execute("SELECT start, end FROM pruned WHERE job = ? ORDER BY start", (job,)).fetchall()
        return [Span(*row) for row in rows]

    @override
    def fingerprint(self, job: str) -> Fingerprint | None:
        with self.reading("read table identity") as connection:
            row = connection.execute("SELECT server, rows, went_back FROM identity WHERE job = ?", (job,)).fetchone()
            return None if row is None else Fingerprint(row[0], positions.identity_rows(row[1]), bool(row[2]))

    @override
    def distrust(self, job: str) -> None:
        with self.writing(f"mark the table of job {job} as reset", may_wait=True) as connection:
            connection.execute(_DISTRUST, (job,))

    def seek(self, job: str, target: Target, position: Position) -> None:
        """Let a job continue at another id."""
        values = {"job": job, "captured": str(target.captured), "slot": target.slot, "not_before": target.not_before}
        with self.writing(f"move job {job}") as connection:
            for statement in _SEEK:
                connection.execute(statement, values)
            self.forget_cached()
            positions.begin(connection, job, position)
            positions.forget_empty(connection, job)
        self._recorded()

    def reset(self, job: str, position: Position, *, low: int, since: int, known: Fingerprint) -> None:
        """Let a job continue with another table, whose ids mean other rows; slots are complete from since on.

        known is the fingerprint of the new table.
        """
        values = {"job": job, "captured": str(position.captured), "low": str(low), "since": since}
        with self.writing(f"reset job {job}") as connection:
            for statement in _RESET:
                connection.execute(statement, values)
            self.forget_cached()
            positions.begin(connection, job, position)
            positions.identify(connection, job, known)
        self._recorded()

    def include(self, job: str, span: Span) -> None:
        """Mark the slots of a span as complete, if they touch those that are; a lookback reads their rows, too."""
        values = {"job": job, "start": span.start, "touches": span.end, "end": ALWAYS.end}
        with self.writing(f"mark slots of job {job} as complete") as connection:
            connection.execute(_INCLUDE, values)

    def pause(self, jobs: Iterable[str], *, since: int) -> None:
        """Pause jobs, as an operator asked; those that are paused already keep their time."""
        with self.writing("pause jobs") as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO pause (job, since) VALUES (?, ?)", [(job, since) for job in jobs]
            )
        self.load_pauses()

    def resume(self, jobs: Iterable[str]) -> None:
        """End the pauses of jobs."""
        with self.writing("resume jobs") as connection:
            connection.executemany("DELETE FROM pause WHERE job = ?", [(job,) for job in jobs])
        self.load_pauses()

    def keep_audit(self, job: str, audit: Audit) -> None:
        """Keep the result of a job's newest audit, instead of the one before."""
        values = (job, *astuple(audit))
        with self.writing(f"keep the audit of job {job}") as connection:
            connection.execute(f"INSERT OR REPLACE INTO audit VALUES ({', '.join('?' * len(values))})", values)

    def remember(self, name: str, value: str | None) -> None:
        """Keep a setting; None deletes it."""
        with self.writing("keep a setting") as connection:
            connection.execute("DELETE FROM setting WHERE name = ?", (name,))
            if value is not None:
                connection.execute("INSERT INTO setting (name, value) VALUES (?, ?)", (name, value))

    def recall(self, name: str) -> str | None:
        """Return a setting."""
        with self.reading("read a setting") as connection:
            row = connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    @override
    def groups(self, job: str, groups: Collection[Group]) -> tuple[int, set[Group]]:
        with self.reading("read series"):
            return self.registry.count_groups(job), self.registry.groups(job, groups)

    @override
    def minutes(self, job: str, window: Window) -> dict[int, Minute]:
        with self.reading("read minutes") as connection:
            return positions.read_minutes(connection, job, window)

    @override
    def first_minute(self, job: str, window: Window) -> int | None:
        with self.reading("read minutes") as connection:
            return positions.first_minute(connection, job, window)

    @override
    @contextmanager
    def recording(self, job: str, window: Window | None) -> Iterator[StateRecording]:
        step = f"record {job} {window or ''}".rstrip()
        with self.writing(step, may_wait=True, has_revision=True) as connection:
            self.registry.trim()
            before = self._stored.get(job) or positions.read(connection, job)
            recording = StateRecording(connection, self, job, window, before)
            yield recording
            if recording.after is None:
                raise StateCorrupt(
                    f"{step}: the position has changed meanwhile",
                    hint="Make sure that no other shipper uses this state file.",
                )
            self._stored[job] = self._positions[job] = recording.after
        self._recorded()


def _definition(job: str, progress: Progress) -> dict[str, object]:
    return {**progress._asdict(), "job": job, "low": str(progress.low)}
