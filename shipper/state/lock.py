"""The lock beside the state file: one process uses a state at a time, and others can find it."""

import fcntl
import os
import re
import time
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from shipper.core.errors import StateBusy, os_errors
from shipper.state.access import enter

TRIES, PAUSE_SECONDS = 10, 0.05


def lock(path: str) -> BinaryIO:
    """Take the lock beside the state file and return it; closing it releases the lock.

    The kernel releases it, too, however the process ends.

    Raises:
        StateBusy: another process has it.
        ConfigError: this user may not write the lock file.
    """
    enter(path)
    descriptor = make_file(f"{path}.lock")
    with suppress(PermissionError):  # other users could hold a lock that they can read
        os.fchmod(descriptor, 0o600)
    try:
        _flock(descriptor)
    except BlockingIOError as error:
        process = _holder(descriptor).process
        os.close(descriptor)
        raise StateBusy(
            f"open state {path}: process {process or '(unknown)'} uses it already; usually that is the service",
            hint="Wait until that process ends, or stop the service: systemctl stop shipper. "
            "Never run two shippers on the same series.",
        ) from error
    _write(descriptor, str(os.getpid()))
    return os.fdopen(descriptor, "r+b", buffering=0)


def announce(held: BinaryIO, address: str) -> None:
    """Write the address of this process's control socket into a lock file that it holds."""
    _write(held.fileno(), f"{os.getpid()}\n{address}")


def make_file(path: str) -> int:
    """Open a file for writing, create it for this user alone if needed, and return its descriptor.

    Raises:
        ConfigError: this user may not write there.
    """
    hint = "Make sure that the directory of [state] path exists and that this user may write there."
    with os_errors(f"open state {path}", hint):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


def _flock(descriptor: int) -> None:
    """Take the lock; try for half a second, because `holder` in another process takes it for a moment."""
    for _ in range(TRIES):
        with suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(PAUSE_SECONDS)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Holder(NamedTuple):
    """The process that holds a state."""

    process: int
    address: str | None
    """Its control socket; None if it has none."""


def holder(path: str) -> Holder | None:
    """Return which process holds the state; None if none does.

    Raises:
        ConfigError: this user may not read the lock file.
    """
    enter(path)
    with os_errors(f"read lock {path}.lock", "Run the command as root or as the service's user."):
        try:
            descriptor = os.open(f"{path}.lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> Holder:
    """Read the process that has the lock; 0 if the file says something else."""
    process, _, address = os.pread(descriptor, 5000, 0).decode(errors="replace").partition("\n")
    return Holder(int(process) if re.fullmatch("[0-9]{1,10}", process) else 0, address.replace("\0", "") or None)
