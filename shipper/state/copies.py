"""Copies of the state: a scratch copy for a preview, backups, and the restore from one.

Strategy: a restore checks the copy before anything changes, and keeps the present state beside it. It holds the lock
all the time: no service can start with half of it. A kill leaves the present state, or the restored one.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from shipper.core.errors import ConfigError, ShipperError, StateCorrupt
from shipper.core.measures import Value
from shipper.core.model import Group, JobStatus
from shipper.state.access import enter
from shipper.state.lock import holder, lock
from shipper.state.queries import job_statuses
from shipper.state.remote.mirror import all_rows
from shipper.state.remote.moved import FURTHER, application_of, gather, invalid, make_durable, make_file_durable
from shipper.state.remote.working_copy import build
from shipper.state.schema import APPLICATION_ID, RESTORE, WORKING_COPY, prepare, reader, translated
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
    with private_folder(path) as folder:
        copy = f"{folder}/copy.db"
        if _exists(Path(path)):
            _copy(path, copy)
        with ScratchState(copy) as state:
            yield state


def back_up(path: str, output: BinaryIO) -> None:
    """Write a copy of the state, also beside the process that holds it; raises as `scratch_state` does."""
    with private_folder(path) as folder:
        copy = f"{folder}/copy.db"
        _copy(path, copy)
        with Path(copy).open("rb") as file:
            shutil.copyfileobj(file, output)


@contextmanager
def private_folder(path: str) -> Iterator[str]:
    """Yield a temporary directory of the user that owns the state's directory, or of this one."""
    enter(path)  # first, else the directory would be root's
    with TemporaryDirectory(prefix="shipper-") as folder:
        yield folder


def is_in_use(path: str) -> bool:
    """Whether a process on this machine works with a complete working copy at a path.

    Raises:
        StateBusy: the file cannot be read.
        ConfigError: this user may not read it.
    """
    if holder(path) is None or application_of(path) != WORKING_COPY:
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
    """Create a file for a copy, which only this user may read; it may exist if it is empty.

    Raises:
        ConfigError: it exists, or cannot be created.
    """
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"create {name}: {error.strerror}", hint="Name a file in a directory that this user may write."
        ) from error
    if os.fstat(descriptor).st_size:
        os.close(descriptor)
        raise ConfigError(f"create {name}: it exists already", hint="Name another file, or remove this one first.")
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


Agree = Callable[[Mapping[str, JobStatus]], None]
"""Function that gets the jobs of a copy before anything changes; it may raise."""


def restore(name: str, path: str, *, agree: Agree) -> str | None:
    """Put a copy in the place of the state; return where the replaced state is kept, None if there was none.

    Raises:
        StateBusy: the service, or another command, uses the state.
        StateCorrupt: the copy is damaged, or is no state of this program and of this version.
        ConfigError: this user may not read the copy, or not write the state.
    """
    scratch = f"{path}.restoring"
    with ExitStack() as opened:
        copy = opened.enter_context(_readable(name))  # first: root becomes another user by the lock
        opened.enter_context(closing(lock(path)))
        opened.callback(_remove, scratch)
        _write(copy, scratch)
        agree(_checked(scratch, name))
        kept = _set_aside(path)
        Path(scratch).rename(path)
        make_durable(Path(path).parent)
    return kept


def restore_into(name: str, path: str, lead: "Callable[[], StateDatabase]", *, agree: Agree) -> str | None:
    """Put a copy in the place of a state in a database; return where the replaced one is kept, None if there was none.

    lead returns the database once this process leads there; path is that of the working copy. Raises as `restore` does.

    Raises:
        ConfigError: the state was moved to a file.
    """
    scratch = f"{path}.restoring"
    with ExitStack() as opened:
        copy = opened.enter_context(_readable(name))
        opened.enter_context(closing(lock(path)))
        opened.callback(_remove, scratch)
        _write(copy, scratch)
        agree(_checked(scratch, name))
        database = opened.enter_context(closing(lead()))
        if database.move is not None:
            raise invalid(database.move)
        kept = f"{path}.{_replaced()}" if database.version else None
        if kept is not None:
            build(kept, database.version, database.rows(), application=APPLICATION_ID)
            make_file_durable(kept)
        connection = opened.enter_context(closing(sqlite3.connect(scratch, isolation_level=None)))
        prepare(connection, scratch)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        database.replace(all_rows(connection), version)
    return kept


def _replaced() -> str:
    return f"replaced-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def _readable(name: str) -> BinaryIO:
    try:
        if Path(f"{name}-wal").exists() and Path(f"{name}-wal").stat().st_size:
            raise ConfigError(f"restore {name}: it has a file {name}-wal, so it may be in use", hint=_NO_COPY)
        return Path(name).open("rb")
    except OSError as error:
        raise ConfigError(f"restore {name}: {error.strerror}", hint=_NO_COPY) from error


def _write(copy: BinaryIO, scratch: str) -> None:
    """Copy the copy beside the state, where it can be checked and renamed."""
    _remove(scratch)
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(copy, file)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise ConfigError(f"write {scratch}: {error.strerror}", hint="Free disk space in that directory.") from error


def _checked(scratch: str, name: str) -> dict[str, JobStatus]:
    """Return the jobs of a copy; errors name it."""
    try:
        with translated(f"restore {name}"), closing(_frozen(scratch)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (damage,) = connection.execute("PRAGMA quick_check").fetchone()
        if application != APPLICATION_ID:
            raise StateCorrupt(f"restore {name}: this is no state of shipper", hint=_NO_COPY)
        if damage != "ok":
            raise StateCorrupt(f"restore {name}: it is damaged: {damage}", hint="Restore another copy.")
        with reader(scratch):  # also checks its version
            pass
        return job_statuses(scratch)
    except ShipperError as error:
        is_damaged = error.hint is not None and error.hint.startswith(RESTORE)
        raise type(error)(str(error).replace(scratch, name), hint=_ANOTHER if is_damaged else error.hint) from error


def _frozen(file: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{Path(file).absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _set_aside(path: str) -> str | None:
    """Keep the present state, also a damaged one, under another name; return that."""
    gather(path)
    if not Path(path).exists():
        return None
    kept = f"{path}.{_replaced()}"
    os.link(path, kept)
    for suffix in FURTHER:
        with suppress(FileNotFoundError):
            Path(path + suffix).rename(kept + suffix)
    return kept


def _remove(file: str) -> None:
    with suppress(FileNotFoundError):
        Path(file).unlink()
