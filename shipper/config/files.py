"""Reading of the files that an operator names: limited in size and time, whatever is at their path."""

import os
import select
import stat
import time
from codecs import BOM_UTF8
from pathlib import Path

MOST_BYTES = 4_000_000
"""Largest accepted file: about 10,000 jobs."""
READ_SECONDS = 10.0
"""Time in which a pipe must end, as that of `<(command)`."""
_PART_BYTES = 65_536


MAY_NOT_READ = "Let this user read the file; or run the command as root or as the service's user."


class UnreadableError(Exception):
    """Reason why a file cannot be read."""

    @property
    def remedy(self) -> str | None:
        """Remedy that does not depend on the kind of file; None if there is none."""
        return MAY_NOT_READ if isinstance(self.__cause__, PermissionError) else None


def read_text(file: str | Path) -> str:
    """Return the text of a file, without a byte order mark, and with lines that end as in Unix.

    Raises:
        UnreadableError: it is no readable text.
    """
    try:
        text = read_bytes(file).removeprefix(BOM_UTF8).decode()
    except UnicodeDecodeError:
        raise UnreadableError("it is not UTF-8 text") from None
    return text.replace("\r\n", "\n")


def read_bytes(file: str | Path) -> bytes:
    """Return the content of a file, or of a pipe.

    Raises:
        UnreadableError: it is neither, too large, or has no end.
    """
    try:
        # an open that waits for a writer could not be limited
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UnreadableError(getattr(error, "strerror", None) or str(error)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            raise UnreadableError("it is a directory" if stat.S_ISDIR(mode) else "it is a device")
        return _content(descriptor)
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    finally:
        os.close(descriptor)


def is_exposed(file: str | Path) -> bool:
    """Whether all users of this machine can read a file."""
    try:
        path = Path(file).resolve()
        return bool(path.stat().st_mode & stat.S_IROTH) and all(
            folder.stat().st_mode & stat.S_IXOTH for folder in path.parents
        )
    except OSError:
        return False


def _content(descriptor: int) -> bytes:
    content, deadline = bytearray(), time.monotonic() + READ_SECONDS
    readable = select.poll()
    readable.register(descriptor, select.POLLIN)
    while readable.poll(max(0.0, deadline - time.monotonic()) * 1000):
        part = os.read(descriptor, _PART_BYTES)
        if not part:
            return bytes(content)
        content += part
        if len(content) > MOST_BYTES:
            raise UnreadableError(f"it is larger than {MOST_BYTES // 1_000_000} MB")
    raise UnreadableError(f"it is a pipe that did not end within {READ_SECONDS:.0f} s")
