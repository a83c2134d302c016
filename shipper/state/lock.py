"""One shipper a state: a lock on a file beside it, which the kernel gives back however its holder ends."""

import fcntl
import os
import time
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from shipper.core.errors import ConfigError, StateBusy

TRIES, PAUSE_SECONDS = 10, 0.05


def lock(path: str) -> BinaryIO:
    """Take the lock beside the state file, and return it; closing it gives the lock back.

    Raises:
        StateBusy: another process has it.
        ConfigError: the lock cannot be written there.
    """
    descriptor = make(f"{path}.lock", 0o644)
    try:
        _flock(descriptor)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 20, 0).decode().partition("\n")[0] or "unknown"
        os.close(descriptor)
        raise StateBusy(
            f"open state {path}: another shipper has it, process {holder}",
            hint="Two would destroy each other's totals: stop the other, or give this one its own [state] path.",
        ) from error
    _write(descriptor, str(os.getpid()))
    return os.fdopen(descriptor, "r+b", buffering=0)


def make(path: str, mode: int) -> int:
    """Open a file to write it, made if need be, and return its descriptor.

    Made by root it belongs to whom its directory belongs: the service could not use root's.

    Raises:
        ConfigError: it cannot be written there.
    """
    is_new = not os.path.exists(path)  # noqa: PTH110 - a path is a text here
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    except OSError as error:
        raise ConfigError(
            f"open state {path}: {error.strerror}",
            hint="[state] path and its directory must exist and be writable for this user.",
        ) from error
    if is_new and os.geteuid() == 0:
        folder = os.stat(os.path.dirname(path) or ".")  # noqa: PTH116, PTH120
        os.fchown(descriptor, folder.st_uid, folder.st_gid)
    return descriptor


def announce(held: BinaryIO, address: str) -> None:
    """Say at the lock where its holder can be asked."""
    _write(held.fileno(), f"{os.getpid()}\n{address}")


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


def _flock(descriptor: int) -> None:
    """Take the lock; a moment's patience, because somebody may just be asking for its `holder`."""
    for _ in range(TRIES):
        with suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(PAUSE_SECONDS)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Holder(NamedTuple):
    """Who holds a state."""

    process: int
    address: str | None
    """Its control socket; None where it has none."""


def holder(path: str) -> Holder | None:
    """Return who holds the state; None when nobody does.

    Raises:
        ConfigError: this user may not know.
    """
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"read lock {path}.lock: {error.strerror}", hint="Ask as the user that shipper runs as, or as root."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        process, _, address = os.pread(descriptor, 5000, 0).decode().partition("\n")
        return Holder(int(process or 0), address or None)
    else:
        return None
    finally:
        os.close(descriptor)
