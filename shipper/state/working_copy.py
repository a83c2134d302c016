"""The working copy: the SQLite file of a state that is in a database, made again by each process that leads."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from shipper.core.errors import StateBusy, StateCorrupt
from shipper.state.mirror import Mirror, all_rows, load
from shipper.state.schema import MIGRATIONS, SCHEMA, WORKING_COPY, translated

if TYPE_CHECKING:
    from shipper.state.remote import StateDatabase

_FILES = ("", "-wal", "-shm", "-journal")
_UNPROVEN = "SELECT DISTINCT slot FROM total WHERE changed = 1"


def fill(path: str, database: "StateDatabase") -> None:
    """Make the working copy at a path from the rows of the database; for the holder of the lock beside it.

    Raises:
        StateCorrupt: the file there is a separate state, or a newer program wrote the rows.
        LeaseLost: the database does not answer, or another process leads.
    """
    check_free(path)
    if database.version > 1 + len(MIGRATIONS):
        raise StateCorrupt(
            f"open the state's database: it has version {database.version}, this program knows {1 + len(MIGRATIONS)}",
            hint="Run the newer shipper on this machine, too.",
        )
    discard(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    with translated(f"load the state into {path}"), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # a kill leaves a file that is made again, so nothing need be durable
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA application_id = {WORKING_COPY}")
        connection.execute("BEGIN")
        for statements in (SCHEMA, *MIGRATIONS)[: database.version]:
            for statement in statements:
                connection.execute(statement)
        load(connection, database.rows())
        connection.execute(f"PRAGMA user_version = {database.version}")
        connection.execute("COMMIT")


def check_free(path: str) -> None:
    """Reject a file that is no working copy: it must not be overwritten.

    Raises:
        StateCorrupt: there is a separate state.
    """
    file = Path(path)
    # an empty one is left by a kill just after it was made
    if file.exists() and file.stat().st_size and not is_working_copy(path):
        raise StateCorrupt(
            f"open state {path}: this file is a separate state, and [state] database names another",
            hint="Move it into the database: `shipper admin state move`; or move the file away.",
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
    return Mirror(connection)


def discard(path: str) -> None:
    """Remove the working copy at a path, if there is one."""
    for suffix in _FILES:
        with suppress(FileNotFoundError):
            Path(path + suffix).unlink()


def is_working_copy(path: str) -> bool:
    """Whether the file at a path is a working copy.

    Raises:
        StateBusy: it cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found: int = connection.execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.Error as error:
        raise StateBusy(f"open state {path}: {error}", hint="Check the owner and the mode of the file.") from error
    return found == WORKING_COPY


def unproven_slots(path: str) -> list[int]:
    """Return the slots of a working copy whose totals its process may have sent last, or be about to send.

    Empty where there is none, or none that can be read.
    """
    try:
        if not Path(path).exists() or not is_working_copy(path):
            return []
        with closing(sqlite3.connect(path)) as connection:
            return [slot for (slot,) in connection.execute(_UNPROVEN)]
    except (sqlite3.Error, StateBusy):
        return []
