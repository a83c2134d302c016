"""Connections to a database, and the snapshots on them.

Sessions are read-only, in UTC and autocommit: a transaction ends with its statement. Snapshots are the exception: they
last a moment and end before anything is sent, because an open reader blocks ALTER TABLE, which then blocks every
INSERT. If this process is stopped within a snapshot, the server ends it.

Behind a pooler, each transaction may run in another session: there, each statement is a transaction, and each
transaction brings its settings along.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count as counted_up
from typing import Any

import sqlalchemy as sa

from shipper.core.errors import QueryRefused, SourceUnavailable
from shipper.source.access import Access
from shipper.source.connections.engine import DriverFailure, check_settings, connect, engine_of, translated
from shipper.source.connections.turns import Turns, Wait
from shipper.source.dialects.by_name import dialect_named
from shipper.source.dialects.dialect import WAIT, Dialect, Session

SNAPSHOT_SECONDS = 0.1
"""Age from which jobs begin a new snapshot: an ALTER TABLE waits for the old one, and every INSERT behind that."""
_NUMBERS = counted_up(1)


class _Thread(threading.local):
    """A thread's connection, and the snapshot that is open on it."""

    connection: sa.Connection | None = None
    turn: ExitStack
    """The turn in which the connection is used."""
    is_background = False
    """Whether its statements count as background work; those of captures, which come first, do not."""
    wait: Wait | None = None
    """Wait of background work for its turn."""
    number = 0
    """Number of the connection; 0 where the next call may use another one."""
    holders = 0
    """How many blocks keep the connection."""
    begun: float | None = None
    """Start of the open snapshot, by the monotonic clock."""
    table = ""
    """The table that the snapshot was opened for."""
    depth = 0
    """How many blocks are within the snapshot."""
    answers: dict[Any, Any]
    """Answers within the snapshot: all jobs of the table share them."""

    def __init__(self) -> None:
        self.answers = {}
        self.turn = ExitStack()


class Connections:
    """The connections to one database, at most one for each thread."""

    def __init__(self, name: str, access: Access, *, threads: int, background: float) -> None:
        """Prepare an engine without connecting; background is the share of the time for background work."""
        self.turns = Turns(threads, background)
        self.engine = engine_of(access, threads=threads)
        self.dialect = dialect_named(access.kind)
        self._name = name
        self._lockless: set[str] = set()
        """Tables that cannot be locked."""
        self._thread = _Thread()

    @property
    def number(self) -> int:
        """Return the number of this thread's connection."""
        return self._thread.number

    @property
    def is_in_snapshot(self) -> bool:
        """Return whether this thread is within a snapshot."""
        return self._thread.depth > 0

    @contextmanager
    def background(self, wait: Wait | None) -> Iterator[None]:
        """Run the statements of this thread within as background work, each in its turn, for which `wait` waits.

        Without `wait` they only count as such: who holds the lock of a job has waited before.
        """
        self._thread.is_background, self._thread.wait = True, wait
        try:
            yield
        finally:
            self._thread.is_background, self._thread.wait = False, None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Run all statements of this thread within on one connection: to take one costs as much as a statement."""
        thread = self._thread
        thread.holders += 1
        try:
            yield
        finally:
            thread.holders -= 1
            if not thread.holders:
                self._release()

    @contextmanager
    def snapshot(self, table: str, *, since: float) -> Iterator[None]:
        """Run all statements of this thread within on one snapshot, which begins after `since`, a monotonic time."""
        thread = self._thread
        with self.held():
            if not thread.depth and not self._may_join(table, since):
                self._end_snapshot()
                self._begin_snapshot(table)
            thread.depth += 1
            try:
                yield
            finally:
                thread.depth -= 1

    @contextmanager
    def connected(self, step: str) -> Iterator[sa.Connection]:
        """Yield this thread's connection, and translate errors.

        Raises:
            SourceUnavailable: no usable answer, not in time, or the snapshot has ended.
            QueryRefused: the database rejects the statement.
        """
        if self._thread.depth and self._thread.begun is None:
            raise SourceUnavailable(f"{step}: the snapshot has ended", hint=WAIT)
        with translated(self.dialect, step, source=self._name), self._taken() as connection, self._begun(connection):
            yield connection

    @property
    def has_types(self) -> bool:
        """Whether its columns have types: a column of times then has nothing else."""
        return self.dialect.CATALOG.has_types

    def check_snapshot(self, connection: sa.Connection, table: str, *, reads_others: bool) -> None:
        """Check that the tables which were read are as the snapshot knows them; reads_others: not only this table.

        Raises:
            SourceUnavailable: one of them was rewritten after the snapshot began.
        """
        rewrites = self.dialect.REWRITES
        if rewrites is None or self._thread.begun is None or not (reads_others or table in self._lockless):
            return
        if connection.exec_driver_sql(rewrites.rewritten).scalar_one():
            raise SourceUnavailable(
                f"read {table}: a table was changed by TRUNCATE or ALTER TABLE during the reading", hint=WAIT
            )

    def server_of(self, connection: sa.Connection) -> str | None:
        """Return the server's unique name, None where it has none; each connection asks once, a shared one often."""
        may_differ = _session_of(connection).is_shared and self._thread.begun is None
        if may_differ or "server" not in connection.info:
            connection.info["server"] = _server_of(self.dialect, connection)
        server: str | None = connection.info["server"]
        return server

    def recall(self, key: object) -> Any:
        """Return an answer that was given within this snapshot."""
        return self._thread.answers.get(key) if self._thread.depth else None

    def remember(self, key: object, answer: object) -> None:
        """Keep an answer until the snapshot ends."""
        if self._thread.depth:
            self._thread.answers[key] = answer

    @contextmanager
    def _taken(self) -> Iterator[sa.Connection]:
        thread = self._thread
        if thread.begun is not None and not thread.depth:
            self._end_snapshot()  # statements outside see new rows
        if thread.connection is None:
            thread.connection = self._new_connection()
            thread.number = 0 if _session_of(thread.connection).is_shared else next(_NUMBERS)
        is_kept = False
        try:
            yield thread.connection
            is_kept = thread.holders > 0
        finally:
            if not is_kept:
                self._end_snapshot("ROLLBACK")
                self._release()

    @contextmanager
    def _begun(self, connection: sa.Connection) -> Iterator[None]:
        """Run a statement in a separate transaction where sessions keep no settings."""
        local = _session_of(connection).local
        if local is None or self._thread.begun is not None:
            yield
            return
        try:
            connection.exec_driver_sql(f"{self.dialect.BEGIN_SINGLE}; {local}")
            yield
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.invalidate()  # its transaction may be open
            raise

    def _may_join(self, table: str, since: float) -> bool:
        begun = self._thread.begun
        is_young = begun is not None and begun >= since and time.monotonic() - begun < SNAPSHOT_SECONDS
        return is_young and self._thread.table == table

    def _begin_snapshot(self, table: str) -> None:
        dialect = self.dialect
        with translated(dialect, f"look at {table}", source=self._name), self._taken() as connection:
            # read the server's name before: within the transaction, a rejection would end it
            with self._begun(connection):
                self.server_of(connection)
            session = _session_of(connection)
            begin = "; ".join(filter(None, (dialect.BEGIN, session.local)))
            begun = time.monotonic()
            connection.exec_driver_sql(begin)
            self._thread.begun, self._thread.table = begun, table
            if session.is_shared and session.settings:
                try:
                    check_settings(dialect, connection.connection, session.settings)
                except QueryRefused:
                    connection.invalidate()
                    raise
            # lock the table; begin again where that is not allowed
            if dialect.REWRITES is None or table in self._lockless:
                return
            if not dialect.REWRITES.lock(connection, table):
                self._lockless.add(table)
                connection.exec_driver_sql("ROLLBACK")
                connection.exec_driver_sql(begin)

    def _end_snapshot(self, how: str = "COMMIT") -> None:
        thread = self._thread
        if thread.begun is None or thread.connection is None:
            return
        thread.begun = None
        thread.answers.clear()
        try:
            thread.connection.exec_driver_sql(how)
        except (sa.exc.SQLAlchemyError, DriverFailure):  # it ends with its connection, which may be gone already
            connection, thread.connection, thread.number = thread.connection, None, 0
            with thread.turn, suppress(sa.exc.SQLAlchemyError):
                connection.invalidate()
                connection.close()

    def _new_connection(self) -> sa.Connection:
        """Return a connection for this thread, in its turn, which lasts until the connection is released."""
        thread = self._thread
        with ExitStack() as turn:
            if thread.wait is not None:
                self.turns.wait(thread.wait)
            if thread.is_background:
                turn.enter_context(self.turns.charged())
            turn.enter_context(self.turns.taken())
            connection = connect(self.engine)
            thread.turn = turn.pop_all()
        return connection

    def _release(self) -> None:
        self._end_snapshot()
        connection, self._thread.connection, self._thread.number = self._thread.connection, None, 0
        if connection is not None:
            with self._thread.turn:
                connection.close()


def _session_of(connection: sa.Connection) -> Session:
    """Return the session that was set up for a connection."""
    session: Session = connection.info["session"]
    return session


def _server_of(dialect: Dialect, connection: sa.Connection) -> str | None:
    statement = dialect.identity(connection.dialect)
    if statement is None:
        return None
    try:
        return str(connection.exec_driver_sql(statement).scalar_one())
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:
            raise
        return None  # an older version has no name, or this user may not read it
