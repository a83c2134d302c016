"""The file of a state that is in a database: the working copy, and the marks of a move.

Each process that leads makes the working copy again, an SQLite file.

Strategy: a move has three steps, each of which is all or nothing. The database gets the rows with a token, and with the
mark that they are not valid yet, or not any more. The file gets the same token and is marked as moved, or loses both.
The last mark makes the destination valid. After a kill in between, the tokens show which step was the last; a process
that leads on the machine of the file then does the rest.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from shipper.core.errors import ConfigError, LeaseLost, StateBusy, StateCorrupt, os_errors
from shipper.core.lease import BEATS
from shipper.state.remote.mirror import Mirror, all_rows, load
from shipper.state.schema import APPLICATION_ID, MOVED, VERSIONS, WORKING_COPY, prepare, translated

if TYPE_CHECKING:
    from shipper.state.remote.database import StateDatabase
    from shipper.state.remote.session import Move

_FURTHER = ("-wal", "-shm")
"""Ends of the names of files that belong to an open state."""
FILES = ("", *_FURTHER, "-journal")
"""Ends of the names of all files that a state may have."""
STILL_SECONDS = 60.0  # without processor time, as where a disk hangs; as long as the watchdog of the unit
_TOKEN = "move_token"  # noqa: S105 - the name of a setting
_UNPROVEN = "SELECT DISTINCT slot FROM total WHERE changed = 1"


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


def mark(connection: sqlite3.Connection, token: str | None) -> None:
    """Mark an open file as moved, durably: no process starts with it. Without a token it is a state again."""
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM setting WHERE name = ?", (_TOKEN,))
    if token is not None:
        connection.execute("INSERT INTO setting (name, value) VALUES (?, ?)", (_TOKEN, token))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID if token is None else MOVED}")
    connection.execute("COMMIT")


def unmark(path: str) -> None:
    """Make a file that was marked as moved a state again, durably."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        mark(connection, None)


def set_aside(path: str, reason: str, *, keep: Callable[[str, str], None] = os.rename) -> str:
    """Keep a state, also a damaged one, under another name, so that another file has room; return that name.

    With os.link as keep, its path has it, too, until another file takes its place.

    Raises:
        ConfigError: this user, or the file system, cannot do it.
    """
    uri = f"{Path(path).absolute().as_uri()}?mode=rw"
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # one file then has all of it
    kept = dated(path, reason)
    with os_errors(f"keep {path} as {kept}", f"Move {path} away yourself, and repeat the command."):
        keep(path, kept)
    for suffix in _FURTHER:
        with suppress(FileNotFoundError):
            Path(path + suffix).rename(kept + suffix)
    make_durable(Path(path).parent)
    return kept


def dated(path: str, reason: str) -> str:
    """Return the name under which a state is kept for a reason, from now on; no file has it yet."""
    name = f"{path}.{reason}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    return next(one for one in (name, *(f"{name}-{number}" for number in range(2, 99))) if not Path(one).exists())


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
        set_aside(path, "moved")


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


def make_durable(*paths: str | Path) -> None:
    """Make files that were written without syncs durable, or the new names in a directory."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def store(path: str, database: "StateDatabase", move: "Move | None" = None) -> None:
    """Store all rows of a file in the database; with a move they are not valid there yet, and the file is marked."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prepare(connection, path)
        database.replace(all_rows(connection), len(VERSIONS), move)
        if move is not None:
            mark(connection, move.token)


@contextmanager
def renewing(database: "StateDatabase") -> Iterator[None]:
    """Renew the lease during a block that may take longer: it loads all rows, or converts them.

    A block that hangs loses the lease: another machine may do better. Then the next use of the database raises.
    """
    has_ended, work = threading.Event(), time.pthread_getcpuclockid(threading.get_ident())

    def renew() -> None:
        done, done_at = -1.0, 0.0
        with suppress(LeaseLost):
            while not has_ended.wait(database.lease.seconds / BEATS):
                if (now := time.clock_gettime(work)) > done:
                    done, done_at = now, time.monotonic()
                elif time.monotonic() - done_at > STILL_SECONDS:
                    return
                database.beat()

    thread = threading.Thread(target=renew, name="lease")
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


@contextmanager
def led(lead: "Callable[[], StateDatabase]") -> Iterator["StateDatabase"]:
    """Lead in a database during a block, however long it takes; lead returns it once this process leads there."""
    with closing(lead()) as database, renewing(database):
        yield database


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
    if version > len(VERSIONS):
        raise StateCorrupt(
            f"open the state's database: it has version {version}, this program knows only {len(VERSIONS)}",
            hint="Run the newer shipper on this machine, too.",
        )
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    with translated(f"load the state into {path}"), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # the file is made again after a kill or a power failure, so only its kind need be durable
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute(f"PRAGMA application_id = {application}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for statement in chain.from_iterable(VERSIONS[:version]):
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
            f"open state {path}: this file is itself a state, but [state] database names a state in PostgreSQL",
            hint="Move it into the database: `shipper admin state move --to database`; or move the file away.",
        )


def follow(connection: sqlite3.Connection, database: "StateDatabase") -> Mirror:
    """Let the database follow the working copy from now on; store all rows there if their tables have changed.

    Raises:
        LeaseLost: the database does not answer, or another process leads.
    """
    connection.execute("PRAGMA synchronous = OFF")  # what is durable is in the database
    if database.version != len(VERSIONS):
        database.replace(all_rows(connection), len(VERSIONS))
    database.beat()  # a slow machine took long for the file
    return Mirror(connection)


def discard(path: str) -> None:
    """Remove the working copy at a path, if there is one."""
    if application_of(path) == MOVED:
        return
    for suffix in FILES:
        Path(path + suffix).unlink(missing_ok=True)


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
