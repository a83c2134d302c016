"""Sessions in the database of a state: the server behind one, who leads there, and errors with their remedies."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import psycopg
from psycopg import sql

from shipper.core.errors import ConfigError, StateCorrupt, printable

OLDEST = 140_000
"""Oldest version of the server: it has idle_session_timeout."""
ENCODINGS = ("UTF8", "SQL_ASCII")
"""Encodings of a database that stores any character."""
NO_ANSWER = "Check that PostgreSQL runs and that [state] database names it."
READ_ONLY = (
    "Name the server that takes writes, or all servers, in [state] database. If it is named already, one of its "
    "settings makes it read-only: run SHOW default_transaction_read_only."
)
START_REPLICA = (
    "Start the replica, or repair its replication: see pg_stat_replication. If there is no replica any more, set "
    "synchronous_standby_names to ''."
)
_WAITS = "Look in pg_stat_activity of PostgreSQL for a lock, and in its log for a slow disk or replica."


class ReplicaSilent(psycopg.OperationalError):
    """The server has written alone: the replica that may replace it would not know of that."""


_REMEDIES: Mapping[type[psycopg.Error], str] = {
    psycopg.errors.ReadOnlySqlTransaction: READ_ONLY,
    psycopg.errors.DiskFull: "Free disk space on the server of PostgreSQL.",
    psycopg.errors.QueryCanceled: _WAITS,
    psycopg.errors.LockNotAvailable: _WAITS,
    ReplicaSilent: START_REPLICA,
}

_LEADER = """
    SELECT
        CASE WHEN lease.pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted) THEN leader END,
        term, version, configuration, extract(epoch FROM since), extract(epoch FROM clock_timestamp() - beat),
        move, move_token, move_place
    FROM lease"""
_STAND_BY = """
    SELECT application_name FROM pg_stat_activity
    WHERE datname = current_database() AND starts_with(application_name, %(prefix)s)
        AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)"""


class Move(NamedTuple):
    """A move of the state between a file and the database."""

    direction: str
    """Direction `in`: the file is valid until it is marked as moved; or `out`: it is valid from now on."""
    token: str
    """A text that is also in the file."""
    place: str
    """Host and path of the file."""


class Leadership(NamedTuple):
    """Who leads, as the database knows it."""

    leader: str | None
    """Host of the process; None if its session has ended."""
    term: int
    version: int
    """Version of the rows; 0 without any."""
    configuration: str
    """Digest of its configuration."""
    since: float
    """When it began to lead, in epoch seconds."""
    silence: float
    """Time since its last beat, in seconds, by the clock of the database."""
    move: Move | None
    """The move that makes the rows invalid; None if they are valid."""


@runtime_checkable
class Limited(Protocol):
    """A connection that limits the time of each answer itself, since a server may be silent."""

    def allow(self, seconds: float) -> None:
        """Let each answer take that long from now on."""


def allow(session: "psycopg.Connection[tuple[Any, ...]]", seconds: float) -> None:
    """Let each answer take that long, on a connection that has a limit."""
    if isinstance(session, Limited):
        session.allow(seconds)


@contextmanager
def unusable_answers() -> Iterator[None]:
    """Raise what an answer without the rows, columns and values of a statement causes as an error of the database."""
    try:
        yield
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
        raise psycopg.DataError(f"unusable answer: {error}") from error


def row_of(cursor: "psycopg.Cursor[tuple[Any, ...]]") -> tuple[Any, ...]:
    """Return the only row of an answer."""
    row = cursor.fetchone()
    if row is None:
        raise psycopg.DataError("unusable answer: no row")
    return row


def move_of(direction: str | None, token: str | None, place: str | None) -> Move | None:
    """Return the move that the database tells of; None if there is none."""
    return None if direction is None else Move(direction, token or "", place or "")


def check_server(session: "psycopg.Connection[tuple[Any, ...]]") -> None:
    """Check that a session is that of one server process, which has the settings and characters that a state needs.

    Raises:
        StateCorrupt: a pooler is in between.
        ConfigError: the server is too old, or the database cannot store all characters.
    """
    for _ in range(2):  # a pooler gives its clients other numbers, or each statement another process
        if row_of(session.execute("SELECT pg_backend_pid()"))[0] != session.info.backend_pid:
            raise StateCorrupt(
                "open the state's database: [state] database names a pooler, and the lock needs a separate session",
                hint="Name PostgreSQL itself in [state] database.",
            )
    if session.info.server_version < OLDEST:
        raise ConfigError(
            f"open the state's database: it is PostgreSQL {session.info.server_version // 10_000}, and a state needs "
            f"{OLDEST // 10_000} or newer",
            hint="Name a newer PostgreSQL in [state] database.",
        )
    encoding = session.info.parameter_status("server_encoding")
    if encoding not in ENCODINGS:
        raise ConfigError(
            f"open the state's database: its encoding is {encoding}, which lacks characters that names may have",
            hint="Make another one: CREATE DATABASE ... ENCODING UTF8 TEMPLATE template0;",
        )


def set_path(session: "psycopg.Connection[tuple[Any, ...]]", schema: str) -> None:
    """Let names of tables in statements be those of a schema."""
    session.execute(sql.SQL("SET search_path = {}, pg_catalog").format(sql.Identifier(schema)))


def leadership_in(session: "psycopg.Connection[tuple[Any, ...]]") -> Leadership | None:
    """Return who leads; None if no process ever did."""
    try:
        row = session.execute(_LEADER).fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    if row is None or row[4] is None:
        return None
    leader, term, version, configuration, since, silence, *move = row
    return Leadership(leader, term, version, configuration, float(since), float(silence), move_of(*move))


def standing_by_in(session: "psycopg.Connection[tuple[Any, ...]]", name: str) -> dict[str, str]:
    """Return the hosts that stand by for a state, each with the beginning of its configuration's digest."""
    prefix = f"shipper {name} "
    sessions = session.execute(_STAND_BY, {"prefix": prefix}).fetchall()
    names = (name.removeprefix(prefix).rpartition(" ") for (name,) in sessions)
    return {host: digest for host, _, digest in names}


def remedy_of(error: psycopg.Error, schema: str, database: str, user: str) -> str:
    """Return what an operator can do about an error of the database."""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        grants = grants_of(schema, database, user, has_schema="for database" not in str(error))
        return f"Run in that database: {grants}"
    return next((remedy for kind, remedy in _REMEDIES.items() if isinstance(error, kind)), NO_ANSWER)


def grants_of(schema: str, database: str, user: str, *, has_schema: bool) -> str:
    """Return the statements, a line each, that let a user keep a state."""
    named, role, within = (sql.Identifier(name).as_string(None) for name in (schema, user, database))
    if not has_schema:
        return f"GRANT CREATE ON DATABASE {within} TO {role};"
    return f"GRANT ALL ON SCHEMA {named} TO {role};\nGRANT ALL ON ALL TABLES IN SCHEMA {named} TO {role};"


def is_unconfirmed(notice: "psycopg.errors.Diagnostic") -> bool:
    """Whether the server says that it has committed alone: the wait for its synchronous replica was cut short."""
    return notice.source_function == "SyncRepWaitForLSN"


def message_of(error: Exception) -> str:
    """Return the message of an error, on one line."""
    lines = str(error).splitlines() or [type(error).__name__]
    return printable(lines[-1] if lines[0].endswith(":") else lines[0])
