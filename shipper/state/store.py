"""SQLite: watermarks, totals (which are the outbox), the owners of paths; what survives a crash.

Strategy: one writer, one connection, explicit BEGIN IMMEDIATE, WAL with synchronous=FULL, so that whatever a
`with` block has left is on disk whole, and whatever it has not left never happened. Another process is kept out
by a lock on a file beside the state, which the kernel releases however we end.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from shipper.core.errors import StateCorrupt
from shipper.core.ledger import LateIds, Settled, Slot
from shipper.core.model import ALWAYS, Fingerprint, Job, Offsets, Progress, Span, Window
from shipper.core.position import Position
from shipper.core.rows.start import Target
from shipper.state import positions
from shipper.state.housekeeping import forget, move, prune, rename
from shipper.state.outbox import Outbox
from shipper.state.positions import slots
from shipper.state.queries import OFFSETS, PROGRESS, offsets_of, progress_of
from shipper.state.recording import Recording
from shipper.state.schema import NOW

_BEGIN = f"""
    INSERT INTO watermark (job, source, id_table, id_column, value, captured, updated)
    VALUES (?, ?, ?, ?, ?, ?, {NOW})"""
_REDEFINE = """
    INSERT OR REPLACE INTO job (
        job, definition_digest, path_digest, zero_filled_until, not_before, recount_from, low, since, begins, bucket)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_LOWEST = """
    SELECT COALESCE(MIN(slot), (
        SELECT MIN(bucket) FROM rejected_in
        WHERE job = :job AND reason = 'future' AND bucket >= :start AND bucket < :end)), (
        SELECT after FROM (
            SELECT after FROM slot WHERE job = :job AND slot >= :start AND slot < :end
            UNION ALL
            SELECT after FROM rejected_in WHERE job = :job AND bucket >= :start AND bucket < :end)
        ORDER BY length(after), after LIMIT 1)
    FROM slot WHERE job = :job AND slot >= :start AND slot < :end"""

_SEEK = (
    # the courier commits it once all that is in the totals is delivered
    f"UPDATE watermark SET captured = :captured, updated = {NOW} WHERE job = :job",
    """
    UPDATE job SET recount_from = :slot, not_before = MAX(not_before, :not_before),
        zero_filled_until = MAX(zero_filled_until, :not_before, COALESCE(:slot, 0)),
        since = MAX(since, :not_before, COALESCE(:slot, 0)), begins = MAX(begins, COALESCE(:slot, 0))
    WHERE job = :job""",
)
_RESET = (
    "DELETE FROM late WHERE job = :job",
    "DELETE FROM rejected_in WHERE job = :job",
    "UPDATE slot SET after = '0', upto = '0' WHERE job = :job",  # ids of before mean nothing any more
    # the courier commits it once all that is in the totals is delivered
    f"UPDATE watermark SET value = '0', captured = :captured, updated = {NOW} WHERE job = :job",
    """
    UPDATE job SET low = :low, since = MAX(since, :since),
        not_before = MAX(not_before, :since), -- a bucket with rows of both tables could not be counted again
        recount_from = NULL -- nor can slots of before
    WHERE job = :job""",
)


class State(Outbox):
    """The state file, held by this process alone: what captures need of it, and the outbox."""

    def offsets(self, job: str) -> Offsets | None:
        """Return how far a job has come; None when it is new."""
        with self._reading("read offsets") as connection:
            row = connection.execute(f"{OFFSETS} WHERE job = ?", (job,)).fetchone()
        return offsets_of(row) if row else None

    def progress(self, job: str) -> Progress | None:
        """Return what the job goes on from: see Ledger."""
        with self._reading("read progress") as connection:
            row = connection.execute(PROGRESS, (job,)).fetchone()
        return progress_of(row) if row else None

    def begin(self, job: Job, progress: Progress, position: Position) -> None:
        """Store a new job that stands at captured, delivered."""
        captured = str(progress.captured)
        with self._writing(f"begin job {job.name}", may_wait=True) as connection:
            connection.execute(_BEGIN, (job.name, job.source, job.query.table, job.query.id, captured, captured))
            connection.execute(_REDEFINE, _definition(job.name, progress))
            self._forget_cached()
            positions.begin(connection, job.name, position)

    def redefine(self, job: str, progress: Progress) -> None:
        """Store a changed definition, and what follows from it."""
        with self._writing(f"redefine job {job}", may_wait=True) as connection:
            connection.execute(_REDEFINE, _definition(job, progress))

    def lowest(self, job: str, span: Span) -> tuple[int, int] | None:
        """Return the oldest slot that has totals, and the id above which their rows are: see Ledger."""
        with self._reading("read slots") as connection:
            slot, after = connection.execute(_LOWEST, {"job": job, "start": span.start, "end": span.end}).fetchone()
        return None if slot is None else (slot, int(after))

    def position(self, job: str) -> Position:
        """Return which ids a job that has begun has counted."""
        with self._reading("read the position") as connection:
            if job not in self._positions:
                self._positions[job] = self._stored[job] = positions.read(connection, job)
            return self._positions[job]

    def note_look(self, job: str, position: Position) -> None:
        """Remember that a look found nothing: see Ledger."""
        with self._mutex:
            self._positions[job] = position

    def slots(self, job: str, *, span: Span = ALWAYS) -> list[Slot]:
        """Return the slots of a span: see Ledger."""
        with self._reading("read slots") as connection:
            return slots(connection, job, span)

    def settled(self, job: str) -> list[Settled]:
        """Return how many ids were counted at or below the floor: see Ledger."""
        with self._reading("read what is settled") as connection:
            return positions.settled(connection, job)

    def late_ids(self, job: str) -> list[LateIds]:
        """Return which ids came late: see Ledger."""
        with self._reading("read late rows") as connection:
            return positions.late_ids(connection, job)

    def fingerprint(self, job: str) -> Fingerprint | None:
        """Return by what the table was known when the job last captured."""
        with self._reading("read identity") as connection:
            return positions.fingerprint(connection, job)

    def distrust(self, job: str) -> None:
        """Remember that the table went back: see Ledger."""
        with self._writing(f"distrust the table of job {job}", may_wait=True) as connection:
            positions.distrust(connection, job)

    def seek(self, job: str, target: Target, position: Position) -> None:
        """Let a job go on elsewhere."""
        where = {"job": job, "captured": str(target.captured), "slot": target.slot, "not_before": target.not_before}
        with self._writing(f"move job {job}") as connection:
            for statement in _SEEK:
                connection.execute(statement, where)
            self._forget_cached()
            positions.begin(connection, job, position)
        self.recorded()

    def reset(self, job: str, position: Position, *, low: int, since: int, known: Fingerprint) -> None:
        """Let a job go on with a table whose ids mean other rows than before; slots are whole from since on.

        known says by what that is known.
        """
        where = {"job": job, "captured": str(position.captured), "low": str(low), "since": since}
        with self._writing(f"reset job {job}") as connection:
            for statement in _RESET:
                connection.execute(statement, where)
            self._forget_cached()
            positions.begin(connection, job, position)
            positions.identify(connection, job, known)
        self.recorded()

    def include(self, job: str, span: Span) -> None:
        """Remember that the slots of a span are whole, too, where it reaches to those that are."""
        statement = "UPDATE job SET since = MIN(since, ?) WHERE job = ? AND since <= ?"
        with self._writing(f"note what is whole of job {job}") as connection:
            connection.execute(statement, (span.start, job, span.end))

    def late_rows(self, job: str) -> int:
        """Return how many rows came late so far."""
        with self._reading("read late rows") as connection:
            row = connection.execute("SELECT late_rows FROM position WHERE job = ?", (job,)).fetchone()
        return row[0] if row else 0

    def pruned(self, job: str) -> list[Span]:
        """Return the times whose slots were pruned, in order."""
        with self._reading("read what was pruned") as connection:
            rows = connection.execute("SELECT start, end FROM pruned WHERE job = ? ORDER BY start", (job,)).fetchall()
        return [Span(*row) for row in rows]

    def remember(self, name: str, value: str | None) -> None:
        """Keep a word for later, or forget it."""
        with self._writing("keep a setting") as connection:
            connection.execute("DELETE FROM setting WHERE name = ?", (name,))
            if value is not None:
                connection.execute("INSERT INTO setting (name, value) VALUES (?, ?)", (name, value))

    def recall(self, name: str) -> str | None:
        """Return what is kept under a name."""
        with self._reading("read a setting") as connection:
            row = connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    @contextmanager
    def recording(self, job: str, window: Window | None) -> Iterator[Recording]:
        """Open the transaction that records a window, or none: see Ledger."""
        with self._mutex:  # until the revision is counted: a note between would see captured, but not its totals
            step = f"record {job} {window or ''}".rstrip()
            with self._writing(step, may_wait=True) as connection:
                self._registry.trim()
                before = self._stored_position(job)
                recording = Recording(
                    connection, self._registry, job, window, before=before, revision=self._revision + 1
                )
                yield recording
                if recording.after is None:
                    raise StateCorrupt(
                        f"{step}: captured is elsewhere now",
                        hint="Something else has written to the state file; is it shared with another shipper?",
                    )
                self._stored[job] = self._positions[job] = recording.after
            self._revision += 1
        self.recorded()

    def _stored_position(self, job: str) -> Position:
        if job not in self._stored:
            self._stored[job] = positions.read(self._connection, job)
        return self._stored[job]

    def prune(self, job: str, *, unit: int, before: int) -> int:
        """Forget a job's slots that were last changed before a time, in whole units of that length, seconds.

        What is not proven stays. Return how many units were forgotten: not many at once, since others wait meanwhile.
        """
        with self._writing(f"prune job {job}") as connection:
            return prune(connection, job, unit, before)

    def rename(self, job: Job, configured: Iterable[str]) -> str | None:
        """Give a new job all that belongs to one that left the configuration, if both count and name the same.

        Return the name of that one, None if there is none.
        """
        with self._writing(f"rename to {job.name}") as connection:
            self._forget_cached()
            return rename(connection, job, set(configured))

    def move(self, before: str, after: str) -> None:
        """Give all that belongs to a job to another name, which loses what it had."""
        with self._writing(f"rename job {before} to {after}") as connection:
            self._forget_cached()
            forget(connection, after)
            move(connection, before, after)

    def forget(self, job: str) -> None:
        """Drop all that belongs to a job."""
        with self._writing(f"forget job {job}") as connection:
            self._forget_cached()
            forget(connection, job)


def _definition(job: str, progress: Progress) -> tuple[object, ...]:
    digests = (progress.definition_digest, progress.path_digest)
    instants = (progress.zero_filled_until, progress.not_before, progress.recount_from)
    return (job, *digests, *instants, str(progress.low), progress.since, progress.begins, progress.bucket)
