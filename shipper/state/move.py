"""Moves of the state between a file and a database, while no service runs; see `moved` for a kill in the middle."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from shipper.core.errors import ConfigError
from shipper.state.lock import lock
from shipper.state.outbox import AGAIN
from shipper.state.remote.mirror import all_rows
from shipper.state.remote.moved import invalid, make_file_durable, mark, set_aside, token_of, unmark
from shipper.state.remote.session import Move
from shipper.state.remote.working_copy import fill, unproven_slots
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
    with closing(lock(path)), translated(f"move state {path}"), closing(lead()) as database:
        token = token_of(path)
        if token is None:
            _check_vacant(path, database, place)
            _copy(path, database, Move("in", uuid4().hex, place))
        elif database.move is None or token != database.move.token:
            raise ConfigError(
                f"move state {path}: it was moved into a database already",
                hint="Start the service with [state] database.",
            )
        database.mark_moved(None)
        return set_aside(path)


def into_file(path: str, lead: "Callable[[], StateDatabase]", *, place: str) -> None:
    """Move the state from the database into a file; lead is that of `into_database`.

    Raises:
        StateBusy: another process uses the file.
        StateCorrupt: there is a separate state already.
        ConfigError: the database has no state.
    """
    with closing(lock(path)), translated(f"move state {path}"), closing(lead()) as database:
        move, token = database.move, token_of(path)
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
            raise invalid(move)
        unmark(path)


def _check_vacant(path: str, database: "StateDatabase", place: str) -> None:
    """Check that there is a file to move, and no state in the database that would be lost."""
    if not Path(path).exists():
        raise ConfigError(
            f"move state {path}: there is no such file", hint="Check [state] path; a new state needs no move."
        )
    move = database.move
    if move is not None and move.direction == "in" and move.place != place:
        raise invalid(move)
    if move is None and database.version:
        raise ConfigError(
            f"move state {path}: {database} has a state named {database.name} already",
            hint="Choose another [state] name; or replace that state by this file: "
            f"`shipper restore {path}`, then move the file away.",
        )


def _copy(path: str, database: "StateDatabase", move: Move) -> None:
    """Write all rows of a file to the database, where they are not valid yet; then mark the file as moved."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prepare(connection, path)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        database.replace(all_rows(connection), version, move)
        mark(connection, move.token)


def _write(path: str, database: "StateDatabase", token: str) -> None:
    """Write all rows of the database to a file that is marked as moved."""
    slots = [*unproven_slots(path), *database.beat()[0]]  # what a process may have sent late goes out again
    fill(path, database)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prepare(connection, path, application=WORKING_COPY)
        (revision,) = connection.execute("SELECT COALESCE(MAX(revision), 0) FROM total").fetchone()
        connection.execute(AGAIN, (revision + 1, json.dumps(slots)))
        mark(connection, token)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the file was written without syncs
    make_file_durable(path)
