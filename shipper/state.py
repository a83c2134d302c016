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
from typing import Any, Self

from shipper.errors import StateCorrupt
from shipper.lock import lock
from shipper.model import Changed, Job, Note, Position, Sent, Standing, Waiting, Window
from shipper.recording import Recording
from shipper.schema import NOW, prepare, reader, translated

BUSY_SECONDS = 5  # somebody with a client of their own may hold the file for a moment
HISTORY_ROWS = 10_000  # a week of a commit a minute; a few hundred KB

_BEGIN = f"""
    INSERT INTO watermark (job, source, id_table, id_column, value, captured, updated)
    VALUES (?, ?, ?, ?, ?, ?, {NOW})"""
_COMPLETE = """
    UPDATE watermark SET complete_until = strftime('%Y-%m-%dT%H:%M:%SZ', :until, 'unixepoch')
    WHERE job = :job AND unixepoch(COALESCE(complete_until, 0)) <= :until - 60"""

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
    WHERE job = :job AND (length(:value), :value) > (length(value), value)"""
_HISTORY = f"INSERT INTO history (job, value, committed) VALUES (?, ?, {NOW})"
_FORGET_HISTORY = "DELETE FROM history WHERE id <= (SELECT MAX(id) FROM history) - ?"
_PROVE = """
    UPDATE total SET changed = 0
    WHERE changed = 1 AND revision > ? AND revision <= ? AND step = ? AND slot >= ?"""

_KEEP = "INSERT INTO sent (after, upto, stage, confirmed, due, oldest) VALUES (?, ?, ?, ?, ?, ?)"

_POSITION = "SELECT source, id_table, id_column, value, captured, complete_until, updated FROM watermark"
_STANDING = """
    SELECT job, (
        SELECT COUNT(*) FROM total JOIN series ON series.id = total.series
        WHERE total.changed = 1 AND series.job = watermark.job), (
        SELECT json_group_object(cause, rows) FROM unshown WHERE unshown.job = watermark.job),
        source, id_table, id_column, value, captured, complete_until, updated
    FROM watermark"""


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
            row = connection.execute(f"{_POSITION} WHERE job = ?", (job,)).fetchone()
        return _position(row) if row else None

    def captured(self, job: str) -> int | None:
        """Return how far a job has captured; None when it is new."""
        position = self.position(job)
        return position.captured if position else None

    def begin(self, job: Job, captured: int) -> None:
        """Store a new job that stands at captured, delivered."""
        identity = (job.name, job.source, job.query.table, job.query.id, str(captured), str(captured))
        with self._writing(f"begin job {job.name}") as connection:
            connection.execute(_BEGIN, identity)

    def complete(self, job: str, until: int) -> None:
        """Note that everything up to a time is captured: see shipper.capture.Ledger. To the minute, to spare writes."""
        with self._writing(f"complete job {job}") as connection:
            connection.execute(_COMPLETE, {"job": job, "until": until})

    @contextmanager
    def recording(self, job: str, window: Window) -> Iterator[Recording]:
        """Open the transaction that records a window: see shipper.capture.Ledger."""
        with self._mutex:  # until the revision is counted: a note between would see captured, but not its totals
            with self._writing(f"record {job} {window}") as connection:
                recording = Recording(connection, job, window, self._revision + 1)
                yield recording
                if not recording.is_written:
                    raise StateCorrupt(
                        f"record {job} {window}: captured is elsewhere now",
                        hint="Something else has written to the state file; is it shared with another shipper?",
                    )
            self._revision += 1

    def note(self, after: int, upto: int | None = None) -> Note:
        """Note what changed: see shipper.courier.Outbox."""
        with self._reading("note what changed") as connection:
            upto = self._revision if upto is None else upto
            waiting = connection.execute(_WAITING, (after, upto)).fetchall() if upto > after else []
            behind = connection.execute("SELECT job, captured FROM watermark WHERE value <> captured").fetchall()
        return Note(upto, {job: int(captured) for job, captured in behind}, [Waiting(*row) for row in waiting])

    def changed(self, slot: int, step: int, *, after: int, upto: int, beyond: int, limit: int) -> list[Changed]:
        """Return, by series, the changed totals of one slot with a revision in (after, upto], series > beyond."""
        what = {"slot": slot, "step": step, "after": after, "upto": upto, "beyond": beyond, "limit": limit}
        with self._reading("read what changed") as connection:
            return [Changed(*row) for row in connection.execute(_CHANGED, what)]

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
                _KEEP, ((one.after, one.upto, one.stage, int(one.confirmed), int(one.due), one.oldest) for one in sent)
            )

    def take_sent(self) -> list[Sent]:
        """Return what was kept, and forget it: if this process is killed, all that is not proven is sent again."""
        with self._writing("take what was sent") as connection:
            sent = [
                Sent(*row) for row in connection.execute("SELECT after, upto, stage, confirmed, due, oldest FROM sent")
            ]
            connection.execute("DELETE FROM sent")
        self._revision = max([self._revision, *(one.upto for one in sent)])
        return sent

    def prove(self, *, after: int, upto: int, step: int, oldest: int) -> None:
        """Hold what still has a revision in (after, upto] for delivered for good, from a slot on."""
        with self._writing("prove totals") as connection:
            connection.execute(_PROVE, (after, upto, step, oldest))

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


def standings(path: str) -> dict[str, Standing]:
    """Read how far each job has come, by job, without disturbing the process that holds the state.

    Raises:
        StateCorrupt: it is damaged, foreign or newer.
        ConfigError: there is no such file, or it may not be read.
    """
    with reader(path) as connection:
        rows = connection.execute(_STANDING).fetchall()
    return {
        job: Standing(_position(position), unproven, json.loads(unshown)) for job, unproven, unshown, *position in rows
    }


def _position(row: Sequence[Any]) -> Position:
    source, table, identity, value, captured, complete_until, updated = row
    return Position(source, table, identity, int(value), int(captured), complete_until, updated)
