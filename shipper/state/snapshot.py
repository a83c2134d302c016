"""Copies of the state: a scratch copy for a preview, and backups."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple

from shipper.core.measures import Value
from shipper.core.model import Group
from shipper.state.access import enter
from shipper.state.schema import reader
from shipper.state.store import State
from shipper.state.values import group_of, loaded

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
            return [
                Change(path, group_of(group), loaded(value), slot, bool(is_deferred))
                for path, group, value, slot, is_deferred in connection.execute(_CHANGES, (job, self._began))
            ]


@contextmanager
def scratch_state(path: str) -> Iterator[ScratchState]:
    """Yield a copy of the state, or an empty one if there is none; it is deleted at the end.

    Raises:
        StateCorrupt: the state is damaged, foreign or newer.
        ConfigError: this user may not read it.
    """
    with _folder(path) as folder:
        copy = f"{folder}/copy.db"
        if _exists(Path(path)):
            _copy(path, copy)
        with ScratchState(copy) as state:
            yield state


def back_up(path: str, output: BinaryIO) -> None:
    """Write a copy of the state, also beside the process that holds it; raises as `scratch_state` does."""
    with _folder(path) as folder:
        copy = f"{folder}/copy.db"
        _copy(path, copy)
        with Path(copy).open("rb") as file:
            shutil.copyfileobj(file, output)


@contextmanager
def _folder(path: str) -> Iterator[str]:
    """Yield a temporary directory of the user that owns the state's directory, or of this one."""
    enter(path)  # first, else the directory would be root's
    with TemporaryDirectory(prefix="shipper-") as folder:
        yield folder


def _copy(path: str, copy: str) -> None:
    with reader(path) as original, closing(sqlite3.connect(copy)) as copied:
        original.backup(copied)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True  # `reader` reports the error
