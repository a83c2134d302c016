"""Engines: sessions that are set up completely, and errors of drivers as ours.

Strategy: a session inherits nothing that changes what a statement means. Its settings are applied before SQLAlchemy
asks the server how to quote, and read back; and again after each pause, because a proxy may have reset them, or have
led the connection to another server. A session that differs is replaced by a new one, which differs or not.
"""

import logging
import math
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

from shipper.core.errors import QueryRefused, RowRefused, ShipperError, SourceUnavailable, printable
from shipper.source.access import GRACE_SECONDS, Access, LoginRefused
from shipper.source.dialects.by_name import dialect_named
from shipper.source.dialects.dialect import CHECK_TYPES, SLOW, SMALLER, Dialect, Meaning
from shipper.source.limits import (
    MOST_COLUMNS,
    MOST_VALUES,
    AnswerTooLarge,
    AnswerTooLate,
    AnswerUnusable,
    Meter,
    check_rows,
)

logging.getLogger("sqlalchemy").addHandler(logging.NullHandler())  # else errors go to the terminal as they are

PING_SECONDS = 1.0
"""A connection's session is read back if it was not used for this time."""
STATEMENTS = 5000
"""Compiled statements that are kept, of 15 KB each: to compile one takes longer than to run it."""
FEW_ROWS = MOST_VALUES // MOST_COLUMNS
"""Number of rows that cannot be too many."""


class DriverFailure(Exception):
    """An exception of a driver that is none of its documented errors; the cause is the original."""


class BadParameter(Exception):
    """A value of `where` that a driver cannot send; the cause is its error."""


def engine_of(access: Access, *, threads: int) -> sa.Engine:
    """Return an engine that has not connected yet."""
    dialect = dialect_named(access.kind)
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
        query_cache_size=STATEMENTS,
    )
    sa.event.listen(engine, "do_connect", partial(_open, dialect, access))
    sa.event.listen(engine, "connect", partial(_set_up, dialect, access), insert=True)
    sa.event.listen(engine, "checkin", _note_use)
    sa.event.listen(engine, "checkout", partial(_read_back, engine, dialect))
    sa.event.listen(engine, "after_cursor_execute", _check_shape)
    sa.event.listen(engine, "handle_error", _failure)
    return engine


def connect(engine: sa.Engine) -> sa.Connection:
    """Take a connection of an engine, or open one.

    Raises:
        DriverFailure: the driver raised what it does not document.
    """
    try:
        return engine.connect()
    except (sa.exc.SQLAlchemyError, ShipperError):
        raise
    except Exception as error:
        raise DriverFailure from error


@contextmanager
def translated(dialect: Dialect, step: str, *, source: str) -> Iterator[None]:
    """Raise errors of SQLAlchemy and of drivers in the block as ours.

    No error keeps, in the frames that it has left, the answer about which it is: frames and errors refer to each other,
    and the next collection of garbage may come after a dozen such answers.

    Raises:
        SourceUnavailable: no answer, not in time, or none that can be understood.
        QueryRefused: the database rejects the statement.
    """
    try:
        with _ours_in(dialect, step, source):
            yield
    except ShipperError as error:
        cause: BaseException | None = error.__cause__
        while cause is not None:
            traceback.clear_frames(cause.__traceback__)
            cause.__traceback__ = None  # from Python 3.13 on, a frame that was cleared still refers to its caller
            cause = cause.__cause__ or cause.__context__
        raise


@contextmanager
def _ours_in(dialect: Dialect, step: str, source: str) -> Iterator[None]:
    try:
        yield
    except sa.exc.TimeoutError as error:
        hint = "Raise `connections` of the source."
        raise SourceUnavailable(f"{step}: all connections to {source} are busy", hint=hint) from error
    except sa.exc.DBAPIError as error:
        ours = _ours(dialect, error.orig or error, step)
        is_of_login = error.statement is None and type(ours) is QueryRefused
        raise (LoginRefused(str(ours), hint=ours.hint) if is_of_login else ours) from error
    except dialect.DRIVER_ERROR as error:
        raise _ours(dialect, error, step) from error
    except DriverFailure as error:
        raise _ours(dialect, error.__cause__ or error, step) from error
    except (sa.exc.StatementError, BadParameter) as error:
        message = printable(str(error.__cause__ or error).partition("\n")[0])
        raise QueryRefused(f"{step}: {message}", hint="Check the values of `where`.") from error
    # an answer without the rows or columns that each server gives, or with other values
    except (sa.exc.InvalidRequestError, AnswerUnusable, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise SourceUnavailable(f"{step}: unusable answer: {printable(str(error))}", hint=UNUSABLE) from error


LARGE_VALUES = "Leave out rows with very large values, by `where` or `where_sql`."
UNUSABLE = "Check that `url` names the database itself: a proxy before it may be the cause."
_LIMITS: Mapping[type[BaseException], Meaning] = {
    AnswerTooLarge: (RowRefused, SMALLER),
    AnswerTooLate: (SourceUnavailable, SLOW),
    AnswerUnusable: (SourceUnavailable, UNUSABLE),
}
_LONGEST = 4096
"""Length to which the text of an error is read."""


def _ours(dialect: Dialect, error: BaseException, step: str) -> SourceUnavailable | QueryRefused:
    """Return a driver's error as ours: one line of its message, without the statement and its values."""
    text = str(error.args[-1] if error.args else error)[:_LONGEST]
    lines = text.splitlines() or [""]
    # psycopg lists the failures of all addresses of a host
    message = printable(lines[-1] if lines[0].endswith(":") else lines[0])
    meanings = [_LIMITS[type(error)]] if type(error) in _LIMITS else []
    is_expected = bool(meanings) or isinstance(error, dialect.DRIVER_ERROR)
    codes = dialect.codes(error) if isinstance(error, dialect.DRIVER_ERROR) else ()
    meanings += [dialect.ERRORS[code] for code in codes if code in dialect.ERRORS]
    meanings += [meaning for words, meaning in dialect.WORDS.items() if words in message]
    if isinstance(error, MemoryError):  # of SQLite
        return RowRefused(f"{step}: out of memory", hint=LARGE_VALUES)
    if isinstance(error, UnicodeError):
        meanings.append((RowRefused, CHECK_TYPES))
    kind, hint = meanings[0] if meanings else (SourceUnavailable, None if is_expected else UNUSABLE)
    return kind(f"{step}: {message if is_expected else f'{type(error).__name__}: {message}'}", hint=hint)


def _open(
    dialect: Dialect, access: Access, _: sa.Dialect, entry: ConnectionPoolEntry, __: object, arguments: dict[str, Any]
) -> DBAPIConnection | None:
    """Open a connection with a meter, which is open from its first use on."""
    meter = entry.info["meter"] = Meter(access.timeout + GRACE_SECONDS)
    return dialect.connect(access, arguments, meter)


def _set_up(dialect: Dialect, access: Access, connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    """Apply the settings of a new session, and read them back."""
    session = dialect.prepare(connection, access)
    entry.info["session"] = session
    check_settings(dialect, connection, session.settings)


def check_settings(dialect: Dialect, connection: DBAPIConnection, settings: Mapping[str, object]) -> None:
    """Read settings back.

    Raises:
        QueryRefused: one has another value.
    """
    actual = dialect.read_back(connection, settings)
    for name, value in settings.items():
        if actual.get(name) != value:
            raise QueryRefused(
                f"set up a session: {name} is {actual.get(name)!r} instead of {value!r}",
                hint="Connect to the database itself, or let the proxy keep the settings of a session.",
            )


def _note_use(_: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
    entry.info["used"] = time.monotonic()


def _read_back(
    engine: sa.Engine, dialect: Dialect, connection: DBAPIConnection, entry: ConnectionPoolEntry, *_: object
) -> None:
    """Check a session that was not used for a while; if it is gone or has changed, the pool opens another one."""
    entry.info["meter"].open()
    if time.monotonic() - entry.info.get("used", math.inf) < PING_SECONDS:
        return
    settings = entry.info["session"].settings
    try:
        if settings:
            is_same = dialect.read_back(connection, settings) == settings
        else:
            is_same = engine.dialect.do_ping(connection)
    except Exception as error:  # of whatever class: the connection cannot be used
        raise sa.exc.DisconnectionError(str(error)) from error
    if not is_same:
        raise sa.exc.DisconnectionError


def _check_shape(_: sa.Connection, cursor: DBAPICursor, __: str, ___: object, context: Any, *____: object) -> None:
    """Check the columns of an answer, and how much Python would make of its rows, before it does."""
    columns = len(cursor.description or ())
    if isinstance(context.invoked_statement, sa.Select | sa.CompoundSelect):
        selected = len(context.compiled._result_columns)  # noqa: SLF001
        if columns != selected:
            raise AnswerUnusable(f"{columns} columns instead of {selected}")
    if cursor.rowcount > FEW_ROWS:
        check_rows(cursor.rowcount, columns)


def _failure(context: ExceptionContext) -> DriverFailure | BadParameter | None:
    """Tell a driver's undocumented exceptions from bugs of ours, and close the connection, whose state is unknown."""
    error = context.original_exception
    is_documented = context.sqlalchemy_exception is not None or isinstance(error, sa.exc.SQLAlchemyError)
    if is_documented or not isinstance(error, Exception):
        return None
    if isinstance(error, OverflowError) and context.dialect.name == "sqlite":  # before it runs anything
        return BadParameter()
    context.is_disconnect, context.invalidate_pool_on_disconnect = True, False
    return DriverFailure()
