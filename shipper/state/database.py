"""The open state file: one connection for all threads, and its transactions."""

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

from shipper.core.errors import LeaseLost, ShipperError, StateBusy, StateCorrupt
from shipper.state.lock import announce, lock, make_file
from shipper.state.queries import CONFIRMED, pauses_of
from shipper.state.remote.working_copy import discard, fill, follow, renewing
from shipper.state.schema import APPLICATION_ID, UNWRITABLE, WORKING_COPY, decoded, prepare, translated
from shipper.state.series import Registry

if TYPE_CHECKING:
    from shipper.core.position import Position
    from shipper.state.remote.database import StateDatabase
    from shipper.state.remote.mirror import MirroredRow

BUSY_SECONDS = 5  # an operator's SQLite client may hold the file for a moment
GATHER_SECONDS = 0.25  # a capture waits no longer for a common commit


class Trouble(NamedTuple):
    """A failure of the state file that lasts."""

    error: ShipperError
    since: float
    failures: int


class _Committed(NamedTuple):
    """A commit of the file."""

    rows: "Sequence[MirroredRow]"
    """Changed rows, if there is a database."""
    calls: Sequence[Callable[[], None]]
    """Functions to call once it is durable."""


class StateFile:
    """The state file, held by this process alone.

    With a database, a commit of the file is durable once it is pushed. The mutex is free meanwhile, so that captures
    continue; one thread pushes what all have committed.
    """

    def __init__(self, path: str, database: "StateDatabase | None" = None) -> None:
        """Open the file; create it if there is none. With a database, which this process leads, it is a working copy.

        Raises:
            StateBusy: another process holds it, or its disk is full.
            StateCorrupt: it is damaged, foreign or newer.
            ConfigError: this user may not write there.
        """
        self.path = path
        self.commits = 0
        """Number of successful commits."""
        self.written_at = time.time()
        """When the state was last written, in epoch seconds."""
        self.trouble: Trouble | None = None
        """Failure of the state since then."""
        self._mutex = threading.RLock()  # one connection for all threads
        self._gathering = 0  # threads inside `gathering`
        self._failed_commits = 0
        self._begun = 0.0  # when the open transaction began
        self.losses = 0
        """Number of transactions that were lost, with all that threads wrote in them."""
        self._after_commit: list[Callable[[], None]] = []
        self._committed: deque[_Committed] = deque()
        """Commits that are not durable yet, in order: with a database, they are to be pushed."""
        self._finishing = threading.Lock()
        """Held by the thread that makes them durable, which does not ask for the mutex then."""
        self._is_ahead = False
        """Whether the file has commits that the database may lack."""
        with ExitStack() as opened, ExitStack() as opening, translated(f"open state {path}"):
            self._lock = opened.enter_context(lock(path))
            # group values are private; SQLite gives its -wal and -shm files the same mode
            self._database = database
            if database is not None:
                opened.callback(database.end_session)
                opening.enter_context(renewing(database))
                fill(path, database)
            os.close(make_file(path))
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._connection = opened.enter_context(closing(connection))
            prepare(self._connection, path, application=APPLICATION_ID if database is None else WORKING_COPY)
            self._mirror = None if database is None else follow(self._connection, database)
            self.registry = Registry(self._connection)
            self._positions: dict[str, Position] = {}
            """Position of each job, with the results of later looks."""
            self._stored: dict[str, Position] = {}
            """Position of each job as it is in the file."""
            newest = f"SELECT MAX(COALESCE(MAX(revision), 0), {CONFIRMED}) FROM total WHERE changed = 1"
            self.pauses: Mapping[str, int] = {}
            """Jobs that an operator paused, and since when, in epoch seconds."""
            self.load_pauses()
            self.steps = {step for (step,) in self._connection.execute("SELECT DISTINCT step FROM slot")}
            """Steps of all slots: those of the present archives, and of earlier ones."""
            self.revision: int = self._connection.execute(newest).fetchone()[0]
            """Newest revision of a total."""
            opened.pop_all()  # no error: lock and connection stay open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and release its lock."""
        with self._mutex:
            self._connection.close()
            if self._database is not None and self._database.close():
                discard(self.path)  # else the next start has to know what this process may have sent last
            self._lock.close()

    def announce(self, address: str) -> None:
        """Write the address of this process's control socket into the lock file."""
        announce(self._lock, address)

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Let the captures of a block wait for one common commit: at its end, or GATHER_SECONDS after the first.

        Any other write, and any read of the outbox, commits them, too. A kill before the commit undoes all of them.

        Raises:
            StateBusy: a commit failed; the rows are captured again.
        """
        with self._mutex:
            self._gathering += 1
            failed_commits = self._failed_commits
        try:
            yield
        finally:
            with self._translated("write counted rows to the state file"):
                with self._mutex:
                    self._gathering -= 1
                    self._commit()
                self._make_durable()
        if self._failed_commits != failed_commits:
            raise StateBusy(
                "write counted rows to the state file: the write that this job shares with others failed; the "
                "error logged just before or after this one has the cause",
                hint=UNWRITABLE,
            )

    @contextmanager
    def reading(self, step: str) -> Iterator[sqlite3.Connection]:
        """Keep other threads out while a block reads; step names it in errors."""
        with self._mutex, self._translated(step), decoded(step):
            yield self._connection

    @contextmanager
    def reading_durable(self, step: str) -> Iterator[sqlite3.Connection]:
        """Let a block read as `reading` does; what it can see is durable at its end."""
        with self.reading(step) as connection:
            self._commit()
            yield connection
        with self._translated(step):
            self._make_durable()

    @contextmanager
    def writing(self, step: str, *, may_wait: bool = False, has_revision: bool = False) -> Iterator[sqlite3.Connection]:
        """Write all of a block or nothing, durably at its end; with may_wait, at the commit of `gathering`.

        With has_revision, its totals have a new revision: revision + 1 inside of the block.
        """
        is_over = True
        with self._translated(step):
            try:
                with self._mutex:
                    try:
                        with self._saved() as connection:
                            yield connection
                        # before another thread reads: it would see captured without its totals
                        self.revision += has_revision
                    finally:
                        is_over = not (may_wait and self._gathering and time.monotonic() - self._begun < GATHER_SECONDS)
                        if is_over:
                            self._commit()
            finally:
                if is_over:
                    self._make_durable()

    @contextmanager
    def _saved(self) -> Iterator[sqlite3.Connection]:
        """Undo a block that fails: it does so alone, without the captures that wait for the same commit."""
        connection = self._connection
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
            self._begun = time.monotonic()
        connection.execute("SAVEPOINT written")
        try:
            yield connection
            connection.execute("RELEASE written")
        except BaseException:
            self.forget_cached()
            if connection.in_transaction:
                connection.execute("ROLLBACK TO written")
                connection.execute("RELEASE written")
            else:  # on a full disk SQLite has rolled back already
                self._lose()
            raise

    @contextmanager
    def _translated(self, step: str) -> Iterator[None]:
        """Translate SQLite's errors, and remember them until the next commit."""
        try:
            with translated(step):
                yield
        except (StateBusy, StateCorrupt) as error:
            since, failures = (self.trouble.since, self.trouble.failures) if self.trouble else (time.time(), 0)
            self.trouble = Trouble(error, since, failures + 1)
            raise

    def load_pauses(self) -> None:
        """Read which jobs are paused, after a change."""
        with self.reading("read pauses") as connection:
            self.pauses = pauses_of(connection)

    def forget_cached(self) -> None:
        """Drop the caches, because the file may differ from them now."""
        self.registry.forget()
        self._positions.clear()
        self._stored.clear()

    def _commit(self) -> None:
        """Commit the open transaction, if there is one; `_make_durable` follows, without the mutex."""
        if not self._connection.in_transaction:
            return
        try:
            rows = [] if self._mirror is None else self._mirror.take()
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._lose_lease(error)  # another machine may have space
            self._failed_commits += 1
            self._lose()
            self.forget_cached()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        calls, self._after_commit = self._after_commit, []
        self._committed.append(_Committed(rows, calls))

    def _make_durable(self) -> None:
        """Make durable what was committed until now, by all threads: push it, if there is a database.

        Raises:
            LeaseLost: it is unknown whether it is stored.
        """
        with self._finishing:
            commits = [self._committed.popleft() for _ in range(len(self._committed))]
            if self._database is not None:
                self._push(self._database, commits)
            if commits:
                self.commits += len(commits)
                self.written_at, self.trouble = time.time(), None
        if calls := [call for commit in commits for call in commit.calls]:
            with self._mutex:  # one at a time
                for call in calls:
                    call()

    def _push(self, database: "StateDatabase", commits: Sequence[_Committed]) -> None:
        # this file is made again at each start: it may be ahead of the database, but what is not pushed is not sent
        if self._is_ahead:
            raise LeaseLost("write the state: an earlier write was not stored")
        try:
            rows = {(row.table, row.key): row for commit in commits for row in commit.rows}
            database.push(list(rows.values()))
        except BaseException as error:
            self._is_ahead = True
            self._lose_lease(error)
            self._failed_commits += 1
            self.losses += 1
            raise

    def _lose_lease(self, error: BaseException) -> None:
        if self._database is not None:
            self._database.lose(LeaseLost(f"write the working copy {self.path}: {error}", hint=UNWRITABLE))

    def _lose(self) -> None:
        self.losses += 1
        self._after_commit.clear()

    def when_durable(self, call: Callable[[], None]) -> None:
        """Call once what was written until now is durable, or never if its commit fails."""
        with self._mutex:
            if self._connection.in_transaction:
                self._after_commit.append(call)
                return
            if self._database is not None and self._gathering:  # it may be on its way to the database
                self._committed.append(_Committed((), (call,)))
                return
        call()
