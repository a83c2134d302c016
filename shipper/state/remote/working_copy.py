"""The working copy: the SQLite file of a state that is in a database, made again by each process that leads."""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from shipper.core.errors import StateBusy, StateCorrupt
from shipper.state.remote.mirror import Mirror, all_rows, load
from shipper.state.remote.moved import application_of, settle
from shipper.state.schema import MIGRATIONS, MOVED, SCHEMA, WORKING_COPY, translated

if TYPE_CHECKING:
    from shipper.state.remote.database import StateDatabase

_FILES = ("", "-wal", "-shm", "-journal")
_UNPROVEN = "SELECT DISTINCT slot FROM total WHERE changed = 1"


def fill(path: str, database: "StateDatabase") -> None:
    """Make the working copy at a path from the rows of the database; for the holder of the lock beside it.

    Raises:
        StateCorrupt: the file there is a separate state, or a newer program wrote the rows.
        ConfigError: the state was moved to a file, or its move from one was interrupted.
        LeaseLost: the database does not answer, or another process leads.
    """
    check_free(path)
    settle(path, database)
    if slots := unproven_slots(path):
        database.ask_again(slots)
    discard(path)
    build(path, database.version, database.rows(), application=WORKING_COPY)


def build(path: str, version: int, rows: Iterable[tuple[str, str]], *, application: int) -> None:
    """Make a file of rows, of that version and not durably.

    Raises:
        StateCorrupt: a newer program wrote the rows.
    """
    if version > 1 + len(MIGRATIONS):
        raise StateCorrupt(
            f"open the state's database: it has version {version}, this program knows {1 + len(MIGRATIONS)}",
            hint="Run the newer shipper on this machine, too.",
        )
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    with translated(f"load the state into {path}"), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # the file is made again after a kill or a power failure, so only its kind need be durable
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute(f"PRAGMA application_id = {application}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for statements in (SCHEMA, *MIGRATIONS)[:version]:
            for statement in statements:
                connection.execute(statement)
        load(connection, rows)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")


def check_free(path: str) -> None:
    """Reject a file that is neither a working copy nor marked as moved: it must not be overwritten.

    Raises:
        StateCorrupt: there is a separate state.
    """
    # an empty one is left by a kill just after it was made
    if application_of(path) not in {None, WORKING_COPY, MOVED} and Path(path).stat().st_size:
        raise StateCorrupt(
            f"open state {path}: this file is a separate state, and [state] database names another",
            hint="Move it into the database: `shipper admin state move --to database`; or move the file away.",
        )


def follow(connection: sqlite3.Connection, database: "StateDatabase") -> Mirror:
    """Let the database follow the working copy from now on; store all rows there if their tables have changed.

    Raises:
        LeaseLost: the database does not answer, or another process leads.
    """
    connection.execute("PRAGMA synchronous = OFF")  # what is durable is in the database
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != database.version:
        database.replace(all_rows(connection), version)
    database.beat()  # a slow machine took long for the file
    return Mirror(connection)


def discard(path: str) -> None:
    """Remove the working copy at a path, if there is one."""
    if application_of(path) == MOVED:
        return
    for suffix in _FILES:
        with suppress(FileNotFoundError):
            Path(path + suffix).unlink()


def unproven_slots(path: str) -> list[int]:
    """Return the slots of a working copy whose totals its process may have sent last, or be about to send.

    Empty where there is none, or none that can be read.
    """
    try:
        if application_of(path) != WORKING_COPY:
            return []
        with closing(sqlite3.connect(path)) as connection:
            return [slot for (slot,) in connection.execute(_UNPROVEN)]
    except (sqlite3.Error, StateBusy):
        return []
