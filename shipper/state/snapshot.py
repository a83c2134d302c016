"""A copy of the state, to see what would become of it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from shipper.core.measures import Value
from shipper.core.model import Group
from shipper.state.recording import loaded
from shipper.state.schema import reader
from shipper.state.store import State

_NEWEST = "SELECT COALESCE(MAX(revision), 0) FROM total"
_CHANGES = """
    SELECT path, "group", total.value, slot, total.changed = 2 FROM total JOIN series ON series.id = total.series
    WHERE job = ? AND total.changed <> 0 AND revision > ? ORDER BY slot DESC, path"""


class Change(NamedTuple):
    """A total that is to be sent."""

    path: str
    group: Group
    value: Value
    slot: int
    is_parked: bool
    """Does it wait until its archive may receive it?"""


class ScratchState(State):
    """A state whose end nobody sees."""

    def __init__(self, path: str) -> None:
        """Open the copy."""
        super().__init__(path)
        with self._reading("read revisions") as connection:  # of what is deferred or proven, too
            (self._revision,) = connection.execute(_NEWEST).fetchone()
        self._began = self._revision

    def changes(self, job: str) -> list[Change]:
        """Return which totals of a job have changed since it was opened, the newest slot first."""
        with self._reading("read what changed") as connection:
            rows = connection.execute(_CHANGES, (job, self._began)).fetchall()
        return [
            Change(path, tuple(json.loads(group)), loaded(value), slot, bool(is_parked))
            for path, group, value, slot, is_parked in rows
        ]


@contextmanager
def scratch_state(path: str) -> Iterator[ScratchState]:
    """Give a copy of the state, or an empty one where none is; it is gone at the end.

    Raises:
        StateCorrupt: the state is damaged, foreign or newer.
        ConfigError: it may not be read.
    """
    with TemporaryDirectory(prefix="shipper-") as folder:
        copy = f"{folder}/copy.db"
        if _exists(Path(path)):
            with reader(path) as original, closing(sqlite3.connect(copy)) as copied:
                original.backup(copied)
        with ScratchState(copy) as state:
            yield state


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True  # who reads it says so
