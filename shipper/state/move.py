"""Moves of the state between a file and a database, while no service runs; kills in between: see working_copy.py."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from shipper.core.errors import ConfigError
from shipper.state.lock import lock
from shipper.state.outbox import AGAIN
from shipper.state.remote import working_copy
from shipper.state.remote.session import Move
from shipper.state.schema import WORKING_COPY, prepare, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from shipper.state.remote.database import StateDatabase


def into_database(path: str, lead: "Callable[[], StateDatabase]", *, place: str) -> str:
    """Move the state of a file into the database; return where the file is kept.

    lead returns the database once this process leads there.

    Raises:
        StateBusy: another process uses the file.
        ConfigError: there is no such state, or the database has one already.
    """
    with closing(lock(path)), translated(f"move state {path}"), working_copy.led(lead) as database:
        token = working_copy.token_of(path)
        if token is None:
            _check_vacant(path, database, place)
            working_copy.store(path, database, Move("in", uuid4().hex, place))
        elif database.move is None or token != database.move.token:
            raise ConfigError(
                f"move state {path}: it was moved into a database already",
                hint=f"Start the service if {database} has that state; otherwise correct [state] database.",
            )
        database.mark_moved(None)
        return working_copy.set_aside(path, "moved")


def into_file(path: str, lead: "Callable[[], StateDatabase]", *, place: str) -> None:
    """Move the state from the database into a file; lead is that of `into_database`.

    Raises:
        StateBusy: another process uses the file.
        StateCorrupt: there is a separate state already.
        ConfigError: the database has no state.
    """
    with closing(lock(path)), translated(f"move state {path}"), working_copy.led(lead) as database:
        move, token = database.move, working_copy.token_of(path)
        if move is None:
            if not database.version:
                raise ConfigError(
                    f"move state: {database} has no state named {database.name}",
                    hint="Check [state] database and name.",
                )
            token = uuid4().hex
            _write(path, database, token)
            database.mark_moved(Move("out", token, place))
        elif move.direction != "out" or move.token != token:
            raise working_copy.invalid(move)
        working_copy.unmark(path)


def _check_vacant(path: str, database: "StateDatabase", place: str) -> None:
    """Check that there is a file to move, and no state in the database that would be lost."""
    if not Path(path).exists():
        raise ConfigError(
            f"move state {path}: there is no such file", hint="Check [state] path; a new state needs no move."
        )
    move = database.move
    if move is not None and move.direction == "in" and move.place != place:
        raise working_copy.invalid(move)
    if move is None and database.version:
        raise ConfigError(
            f"move state {path}: {database} has a state named {database.name} already",
            hint="Choose another [state] name; or replace that state by this file: "
            f"`shipper restore {path}`, then move the file away.",
        )


def _write(path: str, database: "StateDatabase", token: str) -> None:
    """Write all rows of the database to a file that is marked as moved."""
    # what a process may have sent late goes out again
    slots = [*working_copy.unproven_slots(path), *database.beat()[0]]
    working_copy.fill(path, database)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prepare(connection, path, application=WORKING_COPY)
        (revision,) = connection.execute("SELECT COALESCE(MAX(revision), 0) FROM total").fetchone()
        connection.execute(AGAIN, (revision + 1, json.dumps(slots)))
        working_copy.mark(connection, token)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the file was written without syncs
    working_copy.make_durable(path, Path(path).parent)
