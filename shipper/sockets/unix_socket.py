"""Unix sockets to listen at: made safely, however long their path is, and whatever is there already."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class UnixSocket(socket.socket):
    """A listening unix socket at a path, however long the path is."""

    def __init__(self, path: str, *, mode: int) -> None:
        """Listen; replace the socket of a killed process, but neither that of a running one nor any other file.

        Raises:
            OSError: it is not possible.
            ValueError: the path has a NUL.
        """
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.path = path
        try:
            with short(path) as address:
                _remove_stale(address)
                os.fchmod(self.fileno(), 0)  # no user may connect before it has its mode
                self.bind(address)
                self._identity = _identity(address)
                _set_mode(address, mode)
            self.listen()
        except BaseException:
            self.close()
            raise

    @property
    def is_there(self) -> bool:
        """Whether the path still leads to this socket."""
        try:
            with short(self.path) as address:
                return _identity(address) == self._identity
        except OSError:
            return False

    def remove(self) -> None:
        """Remove it from its path, unless another one is there."""
        if self.is_there:
            with suppress(OSError):
                Path(self.path).unlink()


@contextmanager
def short(path: str) -> Iterator[str]:
    """Yield a name for path that fits into a socket's address (108 bytes), however long the path is."""
    file = Path(path)
    folder = os.open(file.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{file.name}"
    finally:
        os.close(folder)


def _identity(address: str) -> tuple[int, ...]:
    status = os.lstat(address)
    return status.st_dev, status.st_ino, status.st_mtime_ns  # a number may be used again at once


def _remove_stale(address: str) -> None:
    try:
        mode = os.lstat(address).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "a file is there that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.setblocking(False)
        # anything but a refusal means that a process listens: one that is busy answers EAGAIN
        if end.connect_ex(address) != errno.ECONNREFUSED:
            raise FileExistsError(errno.EADDRINUSE, "another process listens there")
    Path(address).unlink(missing_ok=True)


def _set_mode(address: str, mode: int) -> None:
    """Set the mode of a socket, whatever the umask is; never of a file that has taken its place."""
    number = os.open(address, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            Path(f"/proc/self/fd/{number}").chmod(mode)
    finally:
        os.close(number)
