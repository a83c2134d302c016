"""Edge. SQLite: watermarks, totals (which are the outbox), the owners of paths; what survives a crash.

Strategy: one writer, one connection, explicit BEGIN IMMEDIATE, WAL with synchronous=FULL, so that whatever a
`with` block has left is on disk whole, and whatever it has not left never happened. Another process is kept out
by a lock on a file beside the state, which the kernel releases however we end.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from shipper.errors import StateCorrupt
from shipper.ledger import Slot
from shipper.model import ALWAYS, Fingerprint, Job, Position, Progress, RecordedWindow, Span, Window
from shipper.seek import Target
from shipper.state import rechecks
from shipper.state.keeping import forget, move, prune, rename
from shipper.state.outbox import Outbox
from shipper.state.recording import Recording
from shipper.state.schema import NOW
from shipper.state.standing import POSITION, PROGRESS, position_of, progress_of

_BEGIN = f"""
    INSERT INTO watermark (job, source, id_table, id_column, value, captured, updated)
    VALUES (?, ?, ?, ?, ?, ?, {NOW})"""
_RESHAPE = """
    INSERT OR REPLACE INTO job (job, shape, places, closed_until, not_before, recount_from, low, since)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_LOWEST = """
    SELECT MIN(slot), (
        SELECT after FROM (
            SELECT after FROM slot WHERE job = :job AND slot >= :start AND slot < :end
            UNION ALL
            SELECT after FROM unshown_in WHERE job = :job AND bucket >= MAX(:start, 0) AND bucket < :end)
        ORDER BY length(after), after LIMIT 1)
    FROM slot WHERE job = :job AND slot >= :start AND slot < :end"""

_SEEK = (
    # the courier commits it once all that is in the totals is delivered
    f"UPDATE watermark SET captured = :captured, updated = {NOW} WHERE job = :job",
    """
    UPDATE job SET recount_from = :slot, not_before = MAX(not_before, :not_before), held_since = NULL,
        closed_until = MAX(closed_until, :not_before, COALESCE(:slot, 0)),
        since = MAX(since, :not_before, COALESCE(:slot, 0))
    WHERE job = :job""",
)


class State(Outbox):
    """The state file, held by this process alone: what captures need of it, and the outbox."""

    def position(self, job: str) -> Position | None:
        """Return how far a job has come; None when it is new."""
        with self._reading("read position") as connection:
            row = connection.execute(f"{POSITION} WHERE job = ?", (job,)).fetchone()
        return position_of(row) if row else None

    def progress(self, job: str) -> Progress | None:
        """Return what the job goes on from: see shipper.ledger.Ledger."""
        with self._reading("read progress") as connection:
            row = connection.execute(PROGRESS, (job,)).fetchone()
        return progress_of(row) if row else None

    def begin(self, job: Job, progress: Progress) -> None:
        """Store a new job that stands at captured, delivered."""
        captured = str(progress.captured)
        with self._writing(f"begin job {job.name}", may_wait=True) as connection:
            connection.execute(_BEGIN, (job.name, job.source, job.query.table, job.query.id, captured, captured))
            connection.execute(_RESHAPE, _reshaping(job.name, progress))

    def reshape(self, job: str, progress: Progress) -> None:
        """Store a changed shape, and what follows from it."""
        with self._writing(f"reshape job {job}", may_wait=True) as connection:
            connection.execute(_RESHAPE, _reshaping(job, progress))

    def lowest(self, job: str, span: Span) -> tuple[int, int] | None:
        """Return the oldest slot that has totals, and the id above which their rows are: see shipper.ledger.Ledger."""
        with self._reading("read slots") as connection:
            slot, after = connection.execute(_LOWEST, {"job": job, "start": span.start, "end": span.end}).fetchone()
        return None if slot is None else (slot, int(after))

    def slots(self, job: str, *, span: Span = ALWAYS, window: Window | None = None) -> list[Slot]:
        """Return the slots of a span, with rows of a window: see shipper.ledger.Ledger."""
        with self._reading("read slots") as connection:
            return rechecks.slots(connection, job, span, window)

    def hold(self, job: str, since: int) -> None:
        """Remember since when a row in flight holds the job up: see shipper.ledger.Ledger."""
        with self._writing(f"hold job {job}", may_wait=True) as connection:
            connection.execute("UPDATE job SET held_since = ? WHERE job = ?", (since, job))

    def recorded_upto(self, job: Job, window: Window) -> int:
        """Return how far recorded windows cover a window from its beginning: see shipper.ledger.Ledger."""
        with self._reading("read recorded windows") as connection:
            return rechecks.recorded_upto(connection, job, window)

    def due(self, job: Job, now: int, *, early: int, late: int) -> list[RecordedWindow]:
        """Return the recorded windows that are due: see shipper.ledger.Ledger."""
        with self._reading("read recorded windows") as connection:
            return rechecks.due(connection, job, now, early, late)

    def rechecked(self, job: Job, before: RecordedWindow, then: RecordedWindow | None, *, late_rows: int) -> bool:
        """Store what becomes of a recorded window: see shipper.ledger.Ledger."""
        with self._writing(f"recheck {job.query.table} {before.window}", may_wait=True) as connection:
            return rechecks.rechecked(connection, job, before, then, late_rows)

    def repairs(self, job: str) -> list[Window]:
        """Return the windows whose rows the job is to count again."""
        with self._reading("read repairs") as connection:
            rows = connection.execute("SELECT after, upto FROM repair WHERE job = ?", (job,)).fetchall()
        return sorted((Window(int(after), int(upto)) for after, upto in rows), key=lambda window: window.after)

    def unshown_window(self, job: str, window: Window) -> Window:
        """Return a window with those around it for which rows are unshown: see shipper.ledger.Ledger."""
        with self._reading("read counters") as connection:
            return rechecks.unshown_window(connection, job, window)

    def fingerprint(self, job: str) -> Fingerprint | None:
        """Return by what the table was known when the job last captured."""
        with self._reading("read identity") as connection:
            return rechecks.fingerprint(connection, job)

    def distrust(self, job: str) -> None:
        """Remember that the table went back: see shipper.ledger.Ledger."""
        with self._writing(f"distrust the table of job {job}", may_wait=True) as connection:
            rechecks.distrust(connection, job)

    def reset(self, job: Job, captured: int, *, low: int, recount_from: int | None, since: int) -> None:
        """Let the job go on from another id: see shipper.ledger.Ledger."""
        with self._writing(f"reset job {job.name}", may_wait=True) as connection:
            rechecks.reset(connection, job, captured=captured, low=low, recount_from=recount_from, since=since)

    def seek(self, job: str, target: Target) -> None:
        """Let a job go on elsewhere."""
        where = {"job": job, "captured": str(target.captured), "slot": target.slot, "not_before": target.not_before}
        with self._writing(f"move job {job}") as connection:
            for statement in _SEEK:
                connection.execute(statement, where)
        self.recorded()

    def include(self, job: str, span: Span) -> None:
        """Remember that the slots of a span are whole, too, where it reaches to those that are."""
        statement = "UPDATE job SET since = MIN(since, ?) WHERE job = ? AND since <= ?"
        with self._writing(f"note what is whole of job {job}") as connection:
            connection.execute(statement, (span.start, job, span.end))

    def late_rows(self, job: Job) -> int:
        """Return how many rows of the job's table came late so far."""
        table = (job.source, job.query.table, job.query.id)
        statement = "SELECT rows FROM late WHERE (source, id_table, id_column) = (?, ?, ?)"
        with self._reading("read late rows") as connection:
            row = connection.execute(statement, table).fetchone()
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

    def horizon_at(self, job: str, time: int) -> int:
        """Return the newest horizon that stood at a time, and forget older ones: see shipper.ledger.Ledger."""
        with self._writing("read horizons", may_wait=True) as connection:
            newest = "SELECT time, id FROM horizon WHERE job = ? AND time <= ? ORDER BY time DESC LIMIT 1"
            row = connection.execute(newest, (job, time)).fetchone()
            if row:
                connection.execute("DELETE FROM horizon WHERE job = ? AND time < ?", (job, row[0]))
        return int(row[1]) if row else 0

    @contextmanager
    def recording(self, job: str, window: Window | None) -> Iterator[Recording]:
        """Open the transaction that records a window, or none: see shipper.ledger.Ledger."""
        with self._mutex:  # until the revision is counted: a note between would see captured, but not its totals
            step = f"record {job} {window or ''}".rstrip()
            with self._writing(step, may_wait=True) as connection:
                self._registry.trim()
                recording = Recording(connection, self._registry, job, window, self._revision + 1)
                yield recording
                if not recording.is_written:
                    raise StateCorrupt(
                        f"{step}: captured is elsewhere now",
                        hint="Something else has written to the state file; is it shared with another shipper?",
                    )
            self._revision += 1
        self.recorded()

    def prune(self, job: str, *, unit: int, before: int) -> int:
        """Forget a job's slots that were last changed before a time, in whole units of that length, seconds.

        What is not proven stays. Return how many units were forgotten: not many at once, since others wait meanwhile.
        """
        with self._writing(f"prune job {job}") as connection:
            rechecks.forget(connection, job)
            return prune(connection, job, unit, before)

    def rename(self, job: Job, configured: Iterable[str]) -> str | None:
        """Give a new job all that belongs to one that left the configuration, if both count and name the same.

        Return the name of that one, None if there is none.
        """
        with self._writing(f"rename to {job.name}") as connection:
            self._registry.forget()
            return rename(connection, job, set(configured))

    def move(self, before: str, after: str) -> None:
        """Give all that belongs to a job to another name, which loses what it had."""
        with self._writing(f"rename job {before} to {after}") as connection:
            self._registry.forget()
            forget(connection, after)
            move(connection, before, after)

    def forget(self, job: str) -> None:
        """Drop all that belongs to a job."""
        with self._writing(f"forget job {job}") as connection:
            self._registry.forget()
            forget(connection, job)


def _reshaping(job: str, progress: Progress) -> tuple[object, ...]:
    instants = (progress.closed_until, progress.not_before, progress.recount_from)
    return (job, progress.shape, progress.places, *instants, str(progress.low), progress.since)
