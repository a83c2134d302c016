"""Connections to a database, and the snapshots on them.

Sessions are read-only, in UTC and autocommit: a transaction ends with its statement. Snapshots are the exception: they
last a moment and end before anything is sent, because an open reader blocks ALTER TABLE, which then blocks every
INSERT. If this process is stopped within a snapshot, the server ends it.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count as counted_up
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from shipper.core.errors import QueryRefused, SourceUnavailable
from shipper.source.access import Access
from shipper.source.dialects.databases import DIALECTS
from shipper.source.dialects.dialect import Dialect

PING_SECONDS = 1.0
"""A connection is pinged if it was not used for this time."""
SNAPSHOT_SECONDS = 0.1
"""Age from which jobs begin a new snapshot: an ALTER TABLE waits for the old one, and every INSERT behind that."""
RETRIED = "The next tick tries again."
_NUMBERS = counted_up(1)


class _Thread(threading.local):
    """A thread's connection, and the snapshot that is open on it."""

    connection: sa.Connection | None = None
    number = 0
    """Number of the connection; 0 where the next call takes another one."""
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


class Connections:
    """The connections to one database, at most one for each thread."""

    def __init__(self, name: str, access: Access, *, threads: int) -> None:
        """Prepare an engine without connecting."""
        self.engine = _engine(access, threads=threads)
        self.dialect = DIALECTS[access.kind]
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
            SourceUnavailable: no answer, not in time, or the snapshot has ended.
            QueryRefused: the database rejects the statement.
        """
        if self._thread.depth and self._thread.begun is None:
            raise SourceUnavailable(f"{step}: its snapshot has ended", hint=RETRIED)
        try:
            with self._taken() as connection:
                yield connection
        except sa.exc.TimeoutError as error:
            raise SourceUnavailable(
                f"{step}: all connections to {self._name} are busy", hint="Raise `connections` of the source."
            ) from error
        except sa.exc.DBAPIError as error:
            raise _translated(self.dialect, error, step) from error
        except (sa.exc.StatementError, OverflowError) as error:
            message = str(error).partition("\n")[0]
            raise QueryRefused(f"{step}: {message}", hint="Check the values of `where`.") from error
        except RuntimeError as error:  # a driver that lacks a module
            hints = [hint for word, hint in self.dialect.MISSING_MODULES.items() if word in str(error)]
            if not hints:
                raise
            raise QueryRefused(f"{step}: {error}", hint=hints[0]) from error

    def check_snapshot(self, connection: sa.Connection, table: str, *, reads_others: bool) -> None:
        """Check that the tables which were read are as the snapshot knows them; reads_others: not only this table.

        Raises:
            SourceUnavailable: one of them was rewritten after the snapshot began.
        """
        rewrites = self.dialect.REWRITES
        if rewrites is None or self._thread.begun is None or not (reads_others or table in self._lockless):
            return
        if rewrites.is_rewritten(connection):
            raise SourceUnavailable(f"look at {table}: a table was rewritten meanwhile", hint=RETRIED)

    def server_of(self, connection: sa.Connection) -> str | None:
        """Return the server's unique name, None where it has none; each connection asks once."""
        if "server" not in connection.info:
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

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.engine.dispose()

    @contextmanager
    def _taken(self) -> Iterator[sa.Connection]:
        thread = self._thread
        if thread.begun is not None and not thread.depth:
            self._end_snapshot()  # statements outside see new rows
        if thread.connection is None:
            thread.connection, thread.number = self.engine.connect(), next(_NUMBERS)
        is_kept = False
        try:
            yield thread.connection
            is_kept = thread.holders > 0
        finally:
            if not is_kept:
                self._end_snapshot("ROLLBACK")
                self._release()

    def _may_join(self, table: str, since: float) -> bool:
        begun = self._thread.begun
        is_young = begun is not None and begun >= since and time.monotonic() - begun < SNAPSHOT_SECONDS
        return is_young and self._thread.table == table

    def _begin_snapshot(self, table: str) -> None:
        dialect = self.dialect
        with self.connected(f"look at {table}") as connection:
            # read the server's name before: within the transaction, a rejection would end it
            self.server_of(connection)
            begun = time.monotonic()
            connection.exec_driver_sql(dialect.BEGIN)
            self._thread.begun, self._thread.table = begun, table
            # lock the table; begin again where that is not allowed
            if dialect.REWRITES is None or table in self._lockless:
                return
            if not dialect.REWRITES.lock(connection, table):
                self._lockless.add(table)
                connection.exec_driver_sql("ROLLBACK")
                connection.exec_driver_sql(dialect.BEGIN)

    def _end_snapshot(self, how: str = "COMMIT") -> None:
        thread = self._thread
        if thread.begun is None:
            return
        thread.begun = None
        thread.answers.clear()
        if thread.connection is None:
            return
        try:
            thread.connection.exec_driver_sql(how)
        except sa.exc.SQLAlchemyError:  # it ends with its connection, which may be gone already
            connection, thread.connection, thread.number = thread.connection, None, 0
            with suppress(sa.exc.SQLAlchemyError):
                connection.invalidate()
                connection.close()

    def _release(self) -> None:
        self._end_snapshot()
        connection, self._thread.connection, self._thread.number = self._thread.connection, None, 0
        if connection is not None:
            connection.close()


def _engine(access: Access, *, threads: int) -> sa.Engine:
    """Return an engine that has not connected yet."""
    dialect = DIALECTS[access.kind]
    engine = sa.create_engine(
        dialect.url(access),
        isolation_level="AUTOCOMMIT",
        # as many connections as threads: one beyond the pool would be opened and closed at every use
        pool_size=threads,
        max_overflow=0,
        pool_timeout=access.timeout,
        # a statement is a transaction by itself: there is nothing to roll back
        skip_autocommit_rollback=True,
        connect_args=dialect.arguments(access),
        poolclass=sa.pool.QueuePool,
    )
    sa.event.listen(engine, "connect", lambda connection, _: dialect.prepare(connection, access))
    sa.event.listen(engine, "checkin", _note_use)
    sa.event.listen(engine, "checkout", partial(_ping, engine))
    return engine


def _note_use(_: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
    entry.info["used"] = time.monotonic()


def _ping(engine: sa.Engine, connection: DBAPIConnection, entry: ConnectionPoolEntry, *_: object) -> None:
    """Ping a connection that was not used for a while; if it is gone, the pool opens another one."""
    if time.monotonic() - entry.info.get("used", math.inf) < PING_SECONDS:
        return
    try:
        is_there = engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise sa.exc.DisconnectionError(str(error)) from error
    if not is_there:
        raise sa.exc.DisconnectionError


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


def _translated(dialect: Dialect, error: sa.exc.DBAPIError, step: str) -> SourceUnavailable | QueryRefused:
    """Return a driver's error as ours: the first line of its message, without the statement and its values."""
    original = error.orig
    arguments = original.args if original else ()
    message = str(arguments[-1] if arguments else original).partition("\n")[0]
    meanings = [dialect.ERRORS[code] for code in dialect.codes(original) if code in dialect.ERRORS]
    meanings += [meaning for words, meaning in dialect.WORDS.items() if words in message]
    if not meanings:
        return SourceUnavailable(f"{step}: {message}")
    kind, hint = meanings[0]
    return kind(f"{step}: {message}", hint=hint)
