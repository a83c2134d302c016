"""Minutes of jobs along a time: what their tables held when each minute was last counted."""

import json
import sqlite3
from collections.abc import Mapping

from shipper.core.ledger import Held, Minute
from shipper.core.model import Group, Window
from shipper.state.values import group, integer, loaded, stored

_READ = "SELECT start, rows, checksum, held FROM minute WHERE job = ? AND start > ? AND start <= ?"
_WRITE = "INSERT OR REPLACE INTO minute (job, start, rows, checksum, held) VALUES (?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM minute WHERE job = ? AND start <= ? - 59"


def read(connection: sqlite3.Connection, job: str, window: Window) -> dict[int, Minute]:
    """Return the minutes that begin in a window, by their start."""
    rows = connection.execute(_READ, (job, window.after, window.upto))
    return {start: Minute(number, int(checksum), _groups(held)) for start, number, checksum, held in rows}


def write(connection: sqlite3.Connection, job: str, minutes: Mapping[int, Minute], floor: int) -> None:
    """Store minutes, and forget those that end at or before the floor."""
    rows = [(job, start, one.rows, str(one.checksum), _json(one)) for start, one in minutes.items()]
    connection.executemany(_WRITE, rows)
    connection.execute(_FORGET, (job, floor))


def _json(minute: Minute) -> str:
    return json.dumps(
        [
            [bucket, group, rows, [value if value is None else stored(value) for value in values], left_out]
            for (bucket, group), (rows, values, left_out) in minute.groups.items()
        ]
    )


def _groups(text: str) -> dict[tuple[int, Group], Held]:
    return {
        (integer(bucket), group(labels)): Held(
            integer(rows),
            tuple(None if value is None else loaded(value) for value in values),
            {column: integer(number) for column, number in dict(left).items()},
        )
        for bucket, labels, rows, values, left in json.loads(text)
    }
