"""The state file, open in this process: one connection for all threads, and its transactions.

One shipper a state: a lock on a file beside it, which the kernel gives back however its holder ends.
"""

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

from shipper.core.errors import ConfigError, StateBusy
from shipper.state.schema import UNWRITABLE, prepare, translated
from shipper.state.series import Registry

if TYPE_CHECKING:
    from shipper.core.position import Position

BUSY_SECONDS = 5  # somebody with a client of their own may hold the file for a moment
GATHER_SECONDS = 0.25  # what others have captured waits for its commit no longer


class StateFile:
    """The file, held by this process alone."""

    def __init__(self, path: str) -> None:
        """Open or make the file.

        Raises:
            StateBusy: another process holds it, or its disk is full.
            StateCorrupt: it is damaged, foreign or newer.
            ConfigError: this user may not write there.
        """
        self.path = path
        self.recorded: Callable[[], None] = lambda: None
        """Is called when there is something new to deliver."""
        self._mutex = threading.RLock()  # one connection for all threads
        self._gathering = 0
        self._undone = 0  # commits that failed
        self.commits = 0
        """Those that went well."""
        self._begun = 0.0
        with ExitStack() as opened, translated(f"open state {path}"):
            self._lock = opened.enter_context(lock(path))
            # group values are nobody else's business; SQLite gives its -wal and -shm the same mode
            os.close(make(path, 0o600))
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._connection = opened.enter_context(closing(connection))
            prepare(self._connection, path)
            self._registry = Registry(self._connection)
            self._positions: dict[str, Position] = {}
            """Of each job, with what looks have found out since."""
            self._stored: dict[str, Position] = {}
            """Of each job as it is in the file."""
            newest = "SELECT COALESCE(MAX(revision), 0) FROM total WHERE changed = 1"
            self._revision: int = self._connection.execute(newest).fetchone()[0]
            opened.pop_all()  # all went well: they stay open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Let what is captured within wait for one commit: that at the end, or soon after the first of it.

        Whatever else is written, or is noted to be delivered, commits it, too. Killed before, none of it has happened.

        Raises:
            StateBusy: it cannot be written now; it is captured again.
        """
        with self._mutex:
            self._gathering += 1
            undone = self._undone
        try:
            yield
        finally:
            with self._mutex, translated("commit what was captured"):
                self._gathering -= 1
                self._commit()
        if self._undone != undone:
            raise StateBusy("commit what was captured: a commit of it failed meanwhile", hint=UNWRITABLE)

    @property
    def revision(self) -> int:
        """Return the newest revision of a total."""
        return self._revision

    def announce(self, address: str) -> None:
        """Let others know where this process can be asked."""
        announce(self._lock, address)

    def close(self) -> None:
        """Close the file and let others have it."""
        with self._mutex:
            self._connection.close()
            self._lock.close()

    @contextmanager
    def _changing(self, step: str) -> Iterator[sqlite3.Connection]:
        """Write with a revision of its own: self._revision + 1."""
        with self._mutex:
            with self._writing(step) as connection:
                yield connection
            self._revision += 1

    @contextmanager
    def _reading(self, step: str) -> Iterator[sqlite3.Connection]:
        with self._mutex, translated(step):
            yield self._connection

    @contextmanager
    def _writing(self, step: str, *, may_wait: bool = False) -> Iterator[sqlite3.Connection]:
        """Write all of a block or nothing, durably at its end; what may wait, when others have gathered."""
        with self._mutex, translated(step):
            connection = self._connection
            if not connection.in_transaction:
                connection.execute("BEGIN IMMEDIATE")
                self._begun = time.monotonic()
            connection.execute("SAVEPOINT written")
            try:
                yield connection
                connection.execute("RELEASE written")
            except BaseException:
                self._forget_cached()
                if connection.in_transaction:  # a full disk has rolled back all by itself
                    connection.execute("ROLLBACK TO written")
                    connection.execute("RELEASE written")
                raise
            finally:
                if not (may_wait and self._gathering and time.monotonic() - self._begun < GATHER_SECONDS):
                    self._commit()

    def _forget_cached(self) -> None:
        """Forget what is remembered of the file: it may be otherwise by now."""
        self._registry.forget()
        self._positions.clear()
        self._stored.clear()

    def _commit(self) -> None:
        """Make durable what waits for it."""
        if not self._connection.in_transaction:
            return
        try:
            self._connection.execute("COMMIT")
            self.commits += 1
        except BaseException:
            self._undone += 1
            self._forget_cached()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


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
