"""A scratch copy of the state, for a preview."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from shipper.core.measures import Value
from shipper.core.model import Group
from shipper.state.schema import reader
from shipper.state.store import State
from shipper.state.values import loaded

_NEWEST = "SELECT COALESCE(MAX(revision), 0) FROM total"
_CHANGES = """
    SELECT path, "group", total.value, slot, total.changed = 2 FROM total JOIN series ON series.id = total.series
    WHERE job = ? AND total.changed <> 0 AND revision > ? ORDER BY slot DESC, path"""


class Change(NamedTuple):
    """A total to send."""

    path: str
    group: Group
    value: Value
    slot: int
    is_deferred: bool
    """Whether it waits until its archive may receive it."""


class ScratchState(State):
    """A state of which only the changes are read."""

    def __init__(self, path: str) -> None:
        """Open the copy."""
        super().__init__(path)
        with self.reading("read revisions") as connection:  # deferred and proven totals have them, too
            (self.revision,) = connection.execute(_NEWEST).fetchone()
        self._began = self.revision

    def changes(self, job: str) -> list[Change]:
        """Return a job's totals that have changed since the copy was opened, newest slot first."""
        with self.reading("read what changed") as connection:
            rows = connection.execute(_CHANGES, (job, self._began)).fetchall()
        return [
            Change(path, tuple(json.loads(group)), loaded(value), slot, bool(is_deferred))
            for path, group, value, slot, is_deferred in rows
        ]


@contextmanager
def scratch_state(path: str) -> Iterator[ScratchState]:
    """Yield a copy of the state, or an empty one if there is none; it is deleted at the end.

    Raises:
        StateCorrupt: the state is damaged, foreign or newer.
        ConfigError: this user may not read it.
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
        return True  # `reader` reports the error
