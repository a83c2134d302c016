"""The marks of a move between a file and a database: which of the two has the state, however the move ended.

Strategy: a move has three steps, each of which is all or nothing. The database gets the rows with a token, and with the
mark that they are not valid yet, or not any more. The file gets the same token and is marked as moved, or loses both.
The last mark makes the destination valid. After a kill in between, the tokens show which step was the last; a process
that leads on the machine of the file then does the rest.
"""

import os
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from shipper.core.errors import ConfigError, StateBusy
from shipper.state.schema import APPLICATION_ID, MOVED, WORKING_COPY

if TYPE_CHECKING:
    from shipper.state.remote.database import StateDatabase
    from shipper.state.remote.session import Move

FURTHER = ("-wal", "-shm")
"""Ends of the names of files that belong to an open state."""
_TOKEN = "move_token"  # noqa: S105 - the name of a setting


def application_of(path: str) -> int | None:
    """Return the kind of a state file, None if there is no file.

    Raises:
        StateBusy: it cannot be read.
    """
    if not Path(path).exists():
        return None
    try:
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as connection:
            kind: int = connection.execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.Error as error:
        with suppress(OSError), Path(path).open("rb") as file:
            if int.from_bytes(file.read(72)[68:], "big") == WORKING_COPY:
                return WORKING_COPY  # a power failure has left its beginning: it is made again anyway
        raise StateBusy(f"open state {path}: {error}", hint="Check the owner and the mode of the file.") from error
    return kind


def token_of(path: str) -> str | None:
    """Return the token of a file that is marked as moved; None of another one.

    Raises:
        StateBusy: it cannot be read.
    """
    if application_of(path) != MOVED:
        return None
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT value FROM setting WHERE name = ?", (_TOKEN,)).fetchone()
    return row[0] if row else ""


def mark(connection: sqlite3.Connection, token: str) -> None:
    """Mark an open file as moved, durably: no process starts with it."""
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", (_TOKEN, token))
    connection.execute(f"PRAGMA application_id = {MOVED}")
    connection.execute("COMMIT")


def unmark(path: str) -> None:
    """Make a file that was marked as moved a state again, durably."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM setting WHERE name = ?", (_TOKEN,))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")


def set_aside(path: str) -> str:
    """Keep a file that is marked as moved under another name, so that a working copy has room; return that name."""
    gather(path)
    kept = f"{path}.moved-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    Path(path).rename(kept)
    for suffix in FURTHER:
        with suppress(FileNotFoundError):
            Path(path + suffix).rename(kept + suffix)
    make_durable(Path(path).parent)
    return kept


def gather(path: str) -> None:
    """Let one file have all of a state; a damaged one stays as it is."""
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True)) as connection,
    ):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def settle(path: str, database: "StateDatabase") -> None:
    """Do the rest of a move that was interrupted; for the leader, which holds the lock beside the file.

    Raises:
        ConfigError: the rows of the database are not valid.
    """
    move, token = database.move, token_of(path)
    if move is not None and move.token == token:
        if move.direction == "out":
            unmark(path)
        else:
            database.mark_moved(None)
            move = None
    if move is not None:
        raise invalid(move)
    if token is not None:
        set_aside(path)


def invalid(move: "Move") -> ConfigError:
    """Return the error of a process that needs the rows of a database which are not valid."""
    if move.direction == "out":
        return ConfigError(
            f"use the state in the database: it was moved to {move.place}",
            hint="Start the service on that machine without [state] database; or move the state back: on that "
            "machine, run `shipper admin state move --to database`.",
        )
    return ConfigError(
        f"use the state in the database: its move from {move.place} was interrupted",
        hint="Repeat it on that machine: `shipper admin state move --to database`.",
    )


def make_file_durable(path: str) -> None:
    """Make a file that was written without syncs durable, and its name."""
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())
    make_durable(Path(path).parent)


def make_durable(folder: Path) -> None:
    """Make new names in a directory durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
