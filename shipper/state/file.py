"""Edge. The state file, open in this process: one connection for all threads, and its transactions."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Self

from shipper.state.lock import announce, lock, make
from shipper.state.schema import prepare, translated

BUSY_SECONDS = 5  # somebody with a client of their own may hold the file for a moment


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
        self._mutex = threading.RLock()  # one connection for all threads
        with ExitStack() as opened, translated(f"open state {path}"):
            self._lock = opened.enter_context(lock(path))
            # group values are nobody else's business; SQLite gives its -wal and -shm the same mode
            os.close(make(path, 0o600))
            connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._connection = opened.enter_context(closing(connection))
            prepare(self._connection, path)
            (self._revision,) = self._connection.execute(
                "SELECT COALESCE(MAX(revision), 0) FROM total WHERE changed = 1"
            ).fetchone()
            opened.pop_all()  # all went well: they stay open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
    def _writing(self, step: str) -> Iterator[sqlite3.Connection]:
        with self._mutex, translated(step):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise
