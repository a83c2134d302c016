"""Edge. SQLite: watermarks, totals (which are the outbox), the owners of paths; what survives a crash.

Strategy: one writer, one connection, explicit BEGIN IMMEDIATE, WAL with synchronous=FULL, so that whatever a
`with` block has left is on disk whole, and whatever it has not left never happened. Another process is kept out
by a lock on a file beside the state, which the kernel releases however we end.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Self

from shipper.errors import StateCorrupt
from shipper.ledger import CountedUnshown, Slot
from shipper.model import (
    ALWAYS,
    Changed,
    Fingerprint,
    Job,
    Note,
    Position,
    Progress,
    RecordedWindow,
    Sent,
    Span,
    Waiting,
    Window,
)
from shipper.state import rechecks
from shipper.state.keeping import merge, prune, rename
from shipper.state.lock import lock
from shipper.state.recording import Recording, loaded
from shipper.state.schema import NOW, prepare, translated
from shipper.state.standing import POSITION, position_of

BUSY_SECONDS = 5  # somebody with a client of their own may hold the file for a moment
HISTORY_ROWS = 10_000  # a week of a commit a minute; a few hundred KB

_BEGIN = f"""
    INSERT INTO watermark (job, source, id_table, id_column, value, captured, updated)
    VALUES (?, ?, ?, ?, ?, ?, {NOW})"""
_RESHAPE = """
    INSERT OR REPLACE INTO job (job, shape, places, closed_until, not_before, recount_from, low)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
_PROGRESS = """
    SELECT captured, COALESCE(unixepoch(complete_until), 0), closed_until, not_before, recount_from, low,
        shape, places, held_since
    FROM watermark JOIN job USING (job) WHERE job = ?"""
_LOWEST = """
    SELECT MIN(slot), (
        SELECT after FROM slot WHERE job = :job AND slot >= :start AND slot < :end
        ORDER BY length(after), after LIMIT 1)
    FROM slot WHERE job = :job AND slot >= :start AND slot < :end"""

_WAITING = """
    SELECT series.job, total.slot, total.step, COUNT(*)
    FROM total INDEXED BY total_changed JOIN series ON series.id = total.series
    WHERE total.changed = 1 AND total.revision > ? AND total.revision <= ?
    GROUP BY series.job, total.slot, total.step ORDER BY total.slot DESC, total.step, series.job"""
_CHANGED = """
    SELECT total.series, series.job, series.path, total.value
    FROM total JOIN series ON series.id = total.series
    WHERE total.slot = :slot AND total.step = :step AND total.series > :beyond
        AND total.changed = 1 AND total.revision > :after AND total.revision <= :upto
    ORDER BY total.series LIMIT :limit"""
# It cannot move back, nor beyond captured (a CHECK of the table).
_COMMIT = f"""
    UPDATE watermark SET value = :value, updated = {NOW}
    WHERE job = :job AND (length(:value), :value) > (length(value), value)
        AND (length(:value), :value) <= (length(captured), captured)"""
_HISTORY = f"INSERT INTO history (job, value, committed) VALUES (?, ?, {NOW})"
_FORGET_HISTORY = "DELETE FROM history WHERE id <= (SELECT MAX(id) FROM history) - ?"
_PROVE = "UPDATE total SET changed = 0 WHERE changed = 1 AND revision > ? AND revision <= ?"
_RELEASE = "UPDATE total SET changed = 1, revision = ? WHERE changed = 2 AND step = ? AND slot <= ?"
_RETARGET = "UPDATE total SET changed = 1, revision = ? WHERE changed <> 2"
_PARK = "UPDATE total SET changed = 2 WHERE changed = 1 AND slot = ? AND step = ?"
_PARKED = """
    SELECT DISTINCT series.job FROM total INDEXED BY total_parked JOIN series ON series.id = total.series
    WHERE total.changed = 2"""

_MADE = """
    UPDATE series SET is_made = 1 WHERE is_made = 0 AND id IN (
        SELECT series FROM total INDEXED BY total_changed WHERE changed = 1 AND revision > ? AND revision <= ?)"""
_NEW = """
    SELECT COUNT(*) FROM series WHERE is_made = 0 AND EXISTS (
        SELECT 1 FROM series WHERE is_made = 0 AND id IN (
            SELECT series FROM total INDEXED BY total_changed WHERE changed = 1 AND revision > ? AND revision <= ?))"""
_PROVE_SERIES = """
    UPDATE total SET changed = 0 WHERE slot = ? AND step = ? AND series IN (SELECT value FROM json_each(?))
        AND changed = 1 AND revision > ? AND revision <= ?"""
_MADE_SERIES = "UPDATE series SET is_made = 1 WHERE is_made = 0 AND id IN (SELECT value FROM json_each(?))"

_KEEP = "INSERT INTO sent (after, upto, stage, confirmed, due, repeats, reads) VALUES (?, ?, ?, ?, ?, ?, ?)"


class State:
    """The state file, held by this process alone."""

    def __init__(self, path: str) -> None:
        """Open or make the file.

        Raises:
            StateBusy: another process holds it, or it cannot be written.
            StateCorrupt: it is damaged, foreign or newer.
        """
        self.path = path
        self._mutex = threading.RLock()  # one connection for all threads
        with ExitStack() as opened, translated(f"open state {path}"):
            self._lock = opened.enter_context(lock(path))
            # group values are nobody else's business; SQLite gives its -wal and -shm the same mode
            os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._connection = opened.enter_context(closing(connection))
            prepare(self._connection, path)
            (self._revision,) = self._connection.execute(
                "SELECT COALESCE(MAX(revision), 0) FROM total WHERE changed = 1"
            ).fetchone()
            opened.pop_all()  # all went well: they stay open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let others have it."""
        with self._mutex:
            self._connection.close()
            self._lock.close()

    def position(self, job: str) -> Position | None:
        """Return how far a job has come; None when it is new."""
        with self._reading("read position") as connection:
            row = connection.execute(f"{POSITION} WHERE job = ?", (job,)).fetchone()
        return position_of(row) if row else None

    def progress(self, job: str) -> Progress | None:
        """Return what the job goes on from: see shipper.ledger.Ledger."""
        with self._reading("read progress") as connection:
            row = connection.execute(_PROGRESS, (job,)).fetchone()
        if row is None:
            return None
        captured, complete_until, closed_until, not_before, recount_from, low, *others = row
        return Progress(int(captured), complete_until, closed_until, not_before, recount_from, int(low), *others)

    def begin(self, job: Job, progress: Progress) -> None:
        """Store a new job that stands at captured, delivered."""
        captured = str(progress.captured)
        with self._writing(f"begin job {job.name}") as connection:
            connection.execute(_BEGIN, (job.name, job.source, job.query.table, job.query.id, captured, captured))
            connection.execute(_RESHAPE, _reshaping(job.name, progress))

    def reshape(self, job: str, progress: Progress) -> None:
        """Store a changed shape, and what follows from it."""
        with self._writing(f"reshape job {job}") as connection:
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
        with self._writing(f"hold job {job}") as connection:
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
        with self._writing(f"recheck {job.query.table} {before.window}") as connection:
            return rechecks.rechecked(connection, job, before, then, late_rows)

    def repairs(self, job: str) -> list[Window]:
        """Return the windows whose rows the job is to count again."""
        with self._reading("read repairs") as connection:
            rows = connection.execute("SELECT after, upto FROM repair WHERE job = ?", (job,)).fetchall()
        return sorted((Window(int(after), int(upto)) for after, upto in rows), key=lambda window: window.after)

    def counted_unshown(self, job: str, window: Window) -> CountedUnshown:
        """Return what was counted as unshown in the job's windows that overlap one."""
        with self._reading("read counters") as connection:
            return rechecks.counted_unshown(connection, job, window)

    def fingerprint(self, job: str) -> Fingerprint | None:
        """Return by what the table was known when the job last captured."""
        with self._reading("read identity") as connection:
            return rechecks.fingerprint(connection, job)

    def distrust(self, job: str) -> None:
        """Remember that the table went back: see shipper.ledger.Ledger."""
        with self._writing(f"distrust the table of job {job}") as connection:
            rechecks.distrust(connection, job)

    def reset(self, job: Job, captured: int, *, low: int, recount_from: int | None) -> None:
        """Let the job go on from another id: see shipper.ledger.Ledger."""
        with self._writing(f"reset job {job.name}") as connection:
            rechecks.reset(connection, job, captured, low, recount_from)

    def horizon_at(self, job: str, time: int) -> int:
        """Return the newest horizon that stood at a time, and forget older ones: see shipper.ledger.Ledger."""
        with self._writing("read horizons") as connection:
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
            with self._writing(step) as connection:
                position = connection.execute("SELECT captured FROM watermark WHERE job = ?", (job,)).fetchone()
                recording = Recording(connection, job, int(position[0]) if position else 0, window, self._revision + 1)
                yield recording
                if not recording.is_written:
                    raise StateCorrupt(
                        f"{step}: captured is elsewhere now",
                        hint="Something else has written to the state file; is it shared with another shipper?",
                    )
            self._revision += 1

    def note(self, after: int, upto: int | None = None) -> Note:
        """Note what changed: see shipper.courier.Outbox."""
        with self._reading("note what changed") as connection:
            upto = self._revision if upto is None else upto
            waiting = connection.execute(_WAITING, (after, upto)).fetchall() if upto > after else []
            behind = connection.execute("SELECT job, captured FROM watermark WHERE value <> captured").fetchall()
            parked = connection.execute(_PARKED).fetchall() if behind else []
        return Note(
            upto,
            {job: int(captured) for job, captured in behind},
            [Waiting(*row) for row in waiting],
            frozenset(job for (job,) in parked),
        )

    def changed(self, slot: int, step: int, *, after: int, upto: int, beyond: int, limit: int) -> list[Changed]:
        """Return, by series, the changed totals of one slot with a revision in (after, upto], series > beyond."""
        what = {"slot": slot, "step": step, "after": after, "upto": upto, "beyond": beyond, "limit": limit}
        with self._reading("read what changed") as connection:
            rows = connection.execute(_CHANGED, what).fetchall()
        return [Changed(series, job, path, loaded(value)) for series, job, path, value in rows]

    def commit(self, watermarks: Mapping[str, int]) -> None:
        """Store watermarks durably; none moves back."""
        with self._writing("commit watermarks") as connection:
            for job, value in watermarks.items():
                if connection.execute(_COMMIT, {"job": job, "value": str(value)}).rowcount:
                    connection.execute(_HISTORY, (job, str(value)))
            connection.execute(_FORGET_HISTORY, (HISTORY_ROWS,))

    def keep_sent(self, sent: Iterable[Sent]) -> None:
        """Keep what was delivered and is to be sent again; its times are wall-clock, epoch seconds."""
        with self._writing("keep what was sent") as connection:
            connection.executemany(
                _KEEP,
                (
                    (one.after, one.upto, one.stage, int(one.confirmed), int(one.due), one.repeats, int(one.reads))
                    for one in sent
                ),
            )

    def take_sent(self) -> list[Sent]:
        """Return what was kept, and forget it: if this process is killed, all that is not proven is sent again."""
        with self._writing("take what was sent") as connection:
            rows = connection.execute("SELECT after, upto, stage, confirmed, due, repeats, reads FROM sent").fetchall()
            connection.execute("DELETE FROM sent")
        sent = [
            Sent(after, upto, stage, confirmed, due, repeats, bool(reads))
            for after, upto, stage, confirmed, due, repeats, reads in rows
        ]
        self._revision = max([self._revision, *(one.upto for one in sent)])
        return sent

    def prove(self, *, after: int, upto: int) -> None:
        """Hold what still has a revision in (after, upto] for delivered for good."""
        with self._writing("prove totals") as connection:
            connection.execute(_MADE, (after, upto))
            connection.execute(_PROVE, (after, upto))

    def prove_series(self, slot: int, step: int, series: Sequence[int], *, after: int, upto: int) -> None:
        """Hold some totals of a slot for delivered for good: see shipper.courier.Outbox."""
        with self._writing("prove totals") as connection:
            connection.execute(_PROVE_SERIES, (slot, step, json.dumps(series), after, upto))
            connection.execute(_MADE_SERIES, (json.dumps(series),))

    def count_new(self, after: int, upto: int) -> int:
        """Return how many series were never proven, if a range of revisions has any: see shipper.courier.Outbox."""
        with self._reading("count new series") as connection:
            count: int = connection.execute(_NEW, (after, upto)).fetchone()[0]
        return count

    def release(self, ripe: Iterable[tuple[int, int]]) -> None:
        """Let parked totals go out, as changed just now: of each step up to a slot."""
        with self._changing("release totals") as connection:
            connection.executemany(_RELEASE, ((self._revision + 1, step, slot) for step, slot in ripe))

    def park(self, slot: int, step: int) -> None:
        """Keep the changed totals of a slot back, until they are released."""
        with self._writing("park totals") as connection:
            connection.execute(_PARK, (slot, step))

    def merge(self, slot: int, step: int, into: tuple[int, int] | None) -> dict[str, int]:
        """Merge a slot's changed totals, and all finer ones, into a slot of a coarser archive, parked.

        Into None they are given up: no archive would hold them. Return how many rows that were, by job.
        """
        with self._changing("merge totals") as connection:
            return merge(connection, slot, step, into, self._revision + 1)

    def prune(self, job: str, *, unit: int, before: int) -> int:
        """Forget a job's slots that were last changed before a time, in whole units of that length, seconds.

        What is not proven stays. Return how many units were forgotten: not many at once, since others wait meanwhile.
        """
        with self._writing(f"prune job {job}") as connection:
            rechecks.forget(connection, job)
            return prune(connection, job, unit, before)

    def retarget(self, carbon: str) -> bool:
        """Hold every total for changed if Carbon is another than before; return whether it is."""
        with self._changing("look at the target") as connection:
            row = connection.execute("SELECT value FROM setting WHERE name = 'carbon'").fetchone()
            connection.execute("INSERT OR REPLACE INTO setting (name, value) VALUES ('carbon', ?)", (carbon,))
            is_other = row is not None and row[0] != carbon
            if is_other:
                connection.execute(_RETARGET, (self._revision + 1,))
                connection.execute("UPDATE series SET is_made = 0")
                connection.execute("DELETE FROM sent")
        return is_other

    def rename(self, job: Job, configured: Iterable[str]) -> str | None:
        """Give a new job all that belongs to one that left the configuration, if both count and name the same.

        Return the name of that one, None if there is none.
        """
        with self._writing(f"rename to {job.name}") as connection:
            return rename(connection, job, set(configured))

    @contextmanager
    def _changing(self, step: str) -> Iterator[sqlite3.Connection]:
        """Write with a revision of its own: self._revision + 1."""
        with self._mutex:
            with self._writing(step) as connection:
                yield connection
            self._revision += 1

    @contextmanager
    def _reading(self, step: str) -> Iterator[sqlite3.Connection]:
        with self._mutex, translated(step):
            yield self._connection

    @contextmanager
    def _writing(self, step: str) -> Iterator[sqlite3.Connection]:
        with self._mutex, translated(step):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise


def _reshaping(job: str, progress: Progress) -> tuple[object, ...]:
    instants = (progress.closed_until, progress.not_before, progress.recount_from)
    return (job, progress.shape, progress.places, *instants, str(progress.low))
