"""Restore of the state from a copy, and files for copies.

Strategy: the copy is checked before anything changes, and the present state is kept beside. The lock is held all the
time, so no service can start with half of it. A kill leaves the present state, or the restored one.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from shipper.core.errors import ConfigError, ShipperError, StateCorrupt
from shipper.core.model import JobStatus
from shipper.state.database import lock
from shipper.state.queries import job_statuses
from shipper.state.schema import APPLICATION_ID, reader, translated

_FURTHER = ("-wal", "-shm")  # files that belong to an open state
_NO_COPY = "Name a file that `shipper backup` has written, or that an earlier restore has kept."


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


def restore(name: str, path: str, *, agree: Callable[[Mapping[str, JobStatus]], None]) -> str | None:
    """Put a copy in the place of the state; return where the replaced state is kept, None if there was none.

    Calls agree with the jobs in the copy before anything changes; it may raise.

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
        _make_durable(Path(path).parent)
    return kept


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
        raise type(error)(str(error).replace(scratch, name), hint=error.hint) from error


def _frozen(file: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{Path(file).absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _set_aside(path: str) -> str | None:
    """Keep the present state, also a damaged one, under another name; return that."""
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True)) as connection,
    ):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # then one file holds all of it
    if not Path(path).exists():
        return None
    kept = f"{path}.replaced-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    os.link(path, kept)
    for suffix in _FURTHER:
        with suppress(FileNotFoundError):
            Path(path + suffix).rename(kept + suffix)
    return kept


def _remove(file: str) -> None:
    with suppress(FileNotFoundError):
        Path(file).unlink()


def _make_durable(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
