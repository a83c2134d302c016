"""Edge. The monotonic clock: which calls of a part run, and for how long they have not come forward."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Calls:
    """The calls that run now, by name. For several threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._forward: dict[str, float] = {}

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Count a call as running within."""
        self.advance(name)
        try:
            yield
        finally:
            with self._mutex:
                self._forward.pop(name, None)

    def advance(self, name: str) -> None:
        """Say that it comes forward."""
        with self._mutex:
            self._forward[name] = time.monotonic()

    @property
    def are_idle(self) -> bool:
        """Does none run?"""
        with self._mutex:
            return not self._forward

    @property
    def names(self) -> list[str]:
        """Return the names of those that run."""
        with self._mutex:
            return list(self._forward)

    @property
    def still_seconds(self) -> float:
        """Return for how long one of them has not come forward; 0 where none runs."""
        with self._mutex:
            return time.monotonic() - min(self._forward.values()) if self._forward else 0.0
