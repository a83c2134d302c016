"""Copies of the state: a scratch copy for a preview, backups, and the restore from one.

Strategy: a restore checks the copy before anything changes, and keeps the present state beside it. It holds the lock
all the time: no service can start with half of it. A kill leaves the present state, or the restored one.
"""

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from shipper.core.errors import ConfigError, ShipperError, StateCorrupt, os_errors
from shipper.core.measures import Value
from shipper.core.model import Group, JobStatus
from shipper.state.access import enter
from shipper.state.lock import holder, lock
from shipper.state.queries import job_statuses
from shipper.state.remote import working_copy
from shipper.state.schema import APPLICATION_ID, RESTORE, WORKING_COPY, reader, translated
from shipper.state.store import State
from shipper.state.values import group_of, loaded

if TYPE_CHECKING:
    from shipper.state.remote.database import StateDatabase

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
    """Yield a copy of a state, or an empty one if there is none; it is deleted at the end.

    Raises:
        StateCorrupt: the state is damaged, foreign or newer.
        ConfigError: this user may not read it.
    """
    with private_file(path) as copy:
        if _exists(Path(path)):
            _copy(path, copy)
        with ScratchState(copy) as state:
            yield state


def back_up(path: str, output: BinaryIO) -> None:
    """Write a copy of the state, also beside the process that holds it; raises as `scratch_state` does."""
    with private_file(path) as copy:
        _copy(path, copy)
        with Path(copy).open("rb") as file:
            shutil.copyfileobj(file, output)


@contextmanager
def private_file(path: str) -> Iterator[str]:
    """Yield the path of a temporary file, for the user that owns the state's directory, or for this one."""
    enter(path)  # first, else the directory would be root's
    with TemporaryDirectory(prefix="shipper-") as folder:
        yield f"{folder}/copy.db"


def is_in_use(path: str) -> bool:
    """Whether a process on this machine works with a complete working copy at a path.

    Raises:
        StateBusy: the file cannot be read.
        ConfigError: this user may not read it.
    """
    if holder(path) is None or working_copy.application_of(path) != WORKING_COPY:
        return False
    with reader(path) as connection:
        is_complete: bool = connection.execute("PRAGMA user_version").fetchone()[0] > 0
    return is_complete


def _copy(path: str, copy: str) -> None:
    with reader(path) as original, closing(sqlite3.connect(copy)) as copied:
        original.backup(copied)
        copied.execute(f"PRAGMA application_id = {APPLICATION_ID}")  # not that of a working copy


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True  # `reader` reports the error


_NO_COPY = "Name a file that `shipper backup` has written, or that an earlier restore has kept."
_ANOTHER = "Restore another copy: a file that `shipper backup` has written, or that an earlier restore has kept."


def new_file(name: str) -> BinaryIO:
    """Create a file for a copy, which only this user may read; it may exist if it is this user's, and empty.

    Raises:
        ConfigError: it exists, or cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe may have no reader
    with os_errors(f"create {name}", "Name a file in a directory that this user may write."):
        file = os.fdopen(os.open(name, flags, 0o600), "wb")
    # /dev/null must keep its mode, and the owner of a pipe or of another file could read the copy
    status = os.fstat(file.fileno())
    is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    if status.st_size or not is_ours:
        file.close()
        hint = "Name another file, or remove this one first." if is_ours else "Name another file."
        raise ConfigError(f"create {name}: it exists already", hint=hint)
    os.fchmod(file.fileno(), 0o600)
    return file


Agree = Callable[[Mapping[str, JobStatus]], None]
"""Function that gets the jobs of a copy before anything changes; it may raise."""


def restore(name: str, path: str, *, agree: Agree) -> str | None:
    """Put a copy in the place of the state; return where the replaced state is kept, None if there was none.

    Raises:
        StateBusy: the service, or another command, uses the state.
        StateCorrupt: the copy is damaged, or is no state of this program and of this version.
        ConfigError: this user may not read the copy, or not write the state.
    """
    with _agreed(name, path, agree) as scratch:
        kept = working_copy.set_aside(path, "replaced", keep=os.link) if Path(path).exists() else None
        if kept is None:
            _remove(path)  # a -wal file of a state that was removed: SQLite would mix it into the copy
        Path(scratch).rename(path)
        working_copy.make_durable(Path(path).parent)
    return kept


def restore_into(name: str, path: str, lead: "Callable[[], StateDatabase]", *, agree: Agree) -> str | None:
    """Put a copy in the place of a state in a database; return where the replaced one is kept, None if there was none.

    lead returns the database once this process leads there; path is that of the working copy. Raises as `restore` does.

    Raises:
        ConfigError: the state was moved to a file.
    """
    with _agreed(name, path, agree) as scratch, working_copy.led(lead) as database:
        if database.move is not None:
            raise working_copy.invalid(database.move)
        kept = working_copy.dated(path, "replaced") if database.version else None
        if kept is not None:
            working_copy.build(kept, database.version, database.rows(), application=APPLICATION_ID)
            working_copy.make_durable(kept, Path(kept).parent)
        working_copy.store(scratch, database)
    return kept


@contextmanager
def _agreed(name: str, path: str, agree: Agree) -> Iterator[str]:
    """Yield a file beside the state with the content of a copy that is checked and agreed to, under the lock."""
    scratch = f"{path}.restoring"
    # the copy first: root becomes another user by the lock
    with _readable(name) as copy, closing(lock(path)):
        try:
            _write(copy, scratch)
            agree(_checked(scratch, name))
            yield scratch
        finally:
            _remove(scratch)


def _readable(name: str) -> BinaryIO:
    with os_errors(f"restore {name}", _NO_COPY, denied="Let this user read the file, or run the command as root."):
        if Path(f"{name}-wal").exists() and Path(f"{name}-wal").stat().st_size:
            raise ConfigError(f"restore {name}: it has a file {name}-wal, so it may be in use", hint=_NO_COPY)
        file = os.fdopen(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe or a device may have no end
        file.close()
        raise ConfigError(f"restore {name}: not a regular file", hint=_NO_COPY)
    return file


def _write(copy: BinaryIO, scratch: str) -> None:
    """Copy the copy beside the state, where it can be checked and renamed."""
    _remove(scratch)  # a kill has left its -wal file, too, which SQLite would take for that of this copy
    with os_errors(f"write {scratch}", "Free disk space in that directory.", denied="Let its owner write there."):
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(copy, file)
            file.flush()
            os.fsync(descriptor)


def _checked(scratch: str, name: str) -> dict[str, JobStatus]:
    """Return the jobs of a copy; errors name it."""
    try:
        uri = f"{Path(scratch).absolute().as_uri()}?mode=ro&immutable=1"
        with translated(f"restore {name}"), closing(sqlite3.connect(uri, uri=True)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (damage,) = connection.execute("PRAGMA quick_check").fetchone()
        if application != APPLICATION_ID:
            raise StateCorrupt(f"restore {name}: this is no state of shipper", hint=_NO_COPY)
        if damage != "ok":
            raise StateCorrupt(f"restore {name}: it is damaged: {damage}", hint="Restore another copy.")
        return job_statuses(scratch)  # also checks its version
    except ShipperError as error:
        is_damaged = error.hint is not None and error.hint.startswith(RESTORE)
        raise type(error)(str(error).replace(scratch, name), hint=_ANOTHER if is_damaged else error.hint) from error


def _remove(path: str) -> None:
    for suffix in working_copy.FILES:
        Path(path + suffix).unlink(missing_ok=True)
