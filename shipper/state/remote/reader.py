"""The state in PostgreSQL, as commands read it beside the leader: they need no lease, and write nothing."""

import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple

import psycopg

from shipper.core.errors import StateBusy
from shipper.state.remote.session import (
    Leadership,
    allow,
    check_server,
    grants_of,
    is_unconfirmed,
    leadership_in,
    message_of,
    remedy_of,
    row_of,
    set_path,
    standing_by_in,
    unusable_answers,
)
from shipper.state.remote.working_copy import build, invalid
from shipper.state.schema import APPLICATION_ID, prepare, translated

_RIGHTS = """
    SELECT to_regnamespace(quote_ident(%(name)s)) IS NOT NULL, has_database_privilege(current_database(), 'CREATE'),
        COALESCE((SELECT has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE')
            FROM pg_namespace WHERE nspname = %(name)s), false)"""
_TABLE_RIGHTS = """
    SELECT has_table_privilege(pg_class.oid, 'SELECT') AND has_table_privilege(pg_class.oid, 'INSERT')
        AND has_table_privilege(pg_class.oid, 'UPDATE') AND has_table_privilege(pg_class.oid, 'DELETE')
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = %(name)s AND relkind = 'r'"""
ROUND_TRIPS = 5
APPLICATION = "shipper command"
REPLICA_SECONDS = 3  # the shortest lease: what takes longer may end it
CANCEL_SECONDS = 5
READ_SECONDS = 600  # more than a state with millions of rows needs
LOCK_SECONDS = 10  # that another session may keep a table, as VACUUM FULL does


class Probe(NamedTuple):
    """The facts that decide whether a database can keep the state."""

    user: str
    round_trip_seconds: float
    synchronous: str
    """synchronous_standby_names: servers that a commit waits for; empty if there are none."""
    is_replicated: bool
    """Whether a commit was confirmed by such a server, if there are any, within REPLICA_SECONDS."""
    missing: str | None
    """SQL that gives the user the rights which it lacks; None if it has them."""
    leadership: Leadership | None
    """Who leads; None if no process ever did."""


class StateReader:
    """The state in PostgreSQL, read only."""

    def __init__(
        self, connect: Callable[[str], "psycopg.Connection[tuple[Any, ...]]"], *, label: str, name: str
    ) -> None:
        """Connect nowhere yet; the arguments are those of `StateDatabase`."""
        self._connect, self._label, self._name = connect, label, name

    def __str__(self) -> str:
        return self._label

    def leadership(self) -> Leadership | None:
        """Return who leads; None if no process ever did.

        Raises:
            StateBusy: the database does not answer, or cannot be used.
        """
        with self._session("ask who leads") as session:
            return leadership_in(session)

    def standing_by(self) -> dict[str, str]:
        """Return the hosts that stand by, each with the beginning of its configuration's digest.

        Raises:
            StateBusy: the database does not answer, or cannot be used.
        """
        with self._session("ask who stands by") as session:
            return standing_by_in(session, self._name)

    def probe(self) -> Probe:
        """Return the facts that decide whether the database can keep the state.

        Raises:
            StateBusy: it does not answer, or cannot be used.
            StateCorrupt: a pooler is in between.
            ConfigError: it is too old.
        """
        with self._session("check the state") as session:
            times = [_duration(session) for _ in range(ROUND_TRIPS)]
            (names,) = row_of(session.execute("SHOW synchronous_standby_names"))
            is_replicated = not names.strip() or _is_replicated(session)
            missing = _missing_rights(session, self._name)
            leadership = leadership_in(session) if missing is None else None
            return Probe(session.info.user, min(times), names.strip(), is_replicated, missing, leadership)

    def copy(self, path: str) -> None:
        """Write the state, as it is at one moment, to a new file; an empty one if there is no state yet.

        Raises:
            StateBusy: the database does not answer, or cannot be used.
            StateCorrupt: a newer program wrote the state.
            ConfigError: the state was moved to a file, or its move from one was interrupted.
        """
        with self._session("read the state") as session, session.transaction():
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            leadership = leadership_in(session)
            if leadership is not None and leadership.move is not None:
                raise invalid(leadership.move)
            version = leadership.version if leadership is not None else 0
            allow(session, READ_SECONDS)
            with closing(_rows(session)) as rows:  # an error in between ends the copy, else the rollback waits for it
                build(path, version, rows if leadership is not None else (), application=APPLICATION_ID)
        with translated(f"load the state into {path}"), closing(sqlite3.connect(path, isolation_level=None)) as copy:
            prepare(copy, path)  # an older program may lead

    @contextmanager
    def _session(self, step: str) -> Iterator["psycopg.Connection[tuple[Any, ...]]"]:
        login = ("", "")
        try:
            with closing(self._connect(APPLICATION)) as session, unusable_answers():
                session.autocommit = True
                login = (session.info.dbname, session.info.user)
                check_server(session)
                session.execute(f"SET statement_timeout = '{READ_SECONDS}s'; SET lock_timeout = '{LOCK_SECONDS}s'")
                set_path(session, self._name)
                yield session
        except psycopg.Error as error:
            hint = remedy_of(error, self._name, *login)
            raise StateBusy(f"{step} in the state's database: {message_of(error)}", hint=hint) from error


def _duration(session: "psycopg.Connection[tuple[Any, ...]]") -> float:
    began = time.monotonic()
    session.execute("SELECT 1")
    return time.monotonic() - began


def _is_replicated(session: "psycopg.Connection[tuple[Any, ...]]") -> bool:
    """Return whether a synchronous replica confirms a commit in time; it changes no table."""
    cut_short: list[bool] = []
    session.add_notice_handler(lambda notice: cut_short.append(is_unconfirmed(notice)))
    session.execute("SET synchronous_commit = on")

    def end() -> None:
        with suppress(psycopg.Error):  # a server that does not take it does not answer either
            session.cancel_safe(timeout=CANCEL_SECONDS)

    # no time-out of the server ends this wait; if it is cancelled, the server sends a notice
    cancel = threading.Timer(REPLICA_SECONDS, end)
    cancel.start()
    try:
        session.execute("SELECT pg_logical_emit_message(true, 'shipper check', '')")
    finally:
        cancel.cancel()
        cancel.join()  # else a cancel on its way would end the next statement
    return not any(cut_short)


def _missing_rights(session: "psycopg.Connection[tuple[Any, ...]]", schema: str) -> str | None:
    has_schema, may_make, may_use = row_of(session.execute(_RIGHTS, {"name": schema}))
    tables = session.execute(_TABLE_RIGHTS, {"name": schema}).fetchall()
    if may_use and all(may for (may,) in tables) if has_schema else may_make:
        return None
    return grants_of(schema, session.info.dbname, session.info.user, has_schema=has_schema)


def _rows(session: "psycopg.Connection[tuple[Any, ...]]") -> Generator[tuple[str, str]]:
    with session.cursor().copy('COPY (SELECT "table", "values" FROM state ORDER BY "table") TO STDOUT') as copy:
        copy.set_types(["text", "text"])
        yield from copy.rows()
