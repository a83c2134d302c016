"""Edge. One shipper a state: a lock on a file beside it, which the kernel gives back however its holder ends."""

import fcntl
import os
import time
from contextlib import suppress
from typing import BinaryIO

from shipper.errors import ConfigError, StateBusy

TRIES, PAUSE_SECONDS = 10, 0.05


def lock(path: str) -> BinaryIO:
    """Take the lock beside the state file, and return it; closing it gives the lock back.

    Raises:
        StateBusy: another process has it.
        ConfigError: the lock cannot be made there.
    """
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(
            f"open state {path}: {error.strerror}",
            hint="The directory of [state] path must exist and be writable for this user.",
        ) from error
    try:
        _flock(descriptor)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 20, 0).decode() or "unknown"
        os.close(descriptor)
        raise StateBusy(
            f"open state {path}: another shipper has it, process {holder}",
            hint="Two would destroy each other's totals: stop the other, or give this one its own [state] path.",
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return os.fdopen(descriptor, "r+b", buffering=0)


def _flock(descriptor: int) -> None:
    """Take the lock; a moment's patience, because somebody may just be asking for its `holder`."""
    for _ in range(TRIES):
        with suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(PAUSE_SECONDS)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holder(path: str) -> int | None:
    """Return the process that holds the state; None when nobody does.

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
        return int(os.pread(descriptor, 20, 0) or 0)
    else:
        return None
    finally:
        os.close(descriptor)
