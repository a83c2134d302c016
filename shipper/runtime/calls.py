"""The monotonic clock: which calls of a part run, and for how long they have not come forward."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from shipper.core.errors import StateBusy

PATIENCE_SECONDS = 40.0  # for what is in flight; systemd gives a reload 60 s (TimeoutStartSec)
PAUSE_SECONDS = 0.02


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


class Part(Protocol):
    """Something that works on threads of others."""

    @property
    def is_idle(self) -> bool:
        """Does nothing of it run?"""


def wait_idle(part: Part) -> None:
    """Wait until nothing of a part runs any more; who waits has stopped it.

    Raises:
        StateBusy: it takes too long.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not part.is_idle:
        if time.monotonic() > deadline:
            raise StateBusy(
                f"wait: {part} did not end in {PATIENCE_SECONDS:.0f} s",
                hint="A statement of it takes long. Try again, or restart.",
            )
        time.sleep(PAUSE_SECONDS)
