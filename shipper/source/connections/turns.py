"""Turns at the connections of a source: captures come first, and background work has a share of the time.

Background work is what no tick waits for: audits and backfills. It begins a slice (a statement, a piece of a backfill)
only while captures leave a connection free, and rests after it, so that all slices together take their share.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.05  # between two looks for a free connection

Wait = Callable[[float], None]
"""Function that waits for a number of seconds, or for less; it may raise, to end the work."""


class Turns:
    """The turns at the connections of one source. For several threads."""

    def __init__(self, connections: int, share: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Allow background work a share of the time: a fraction above 0, at most 1."""
        self._mutex = threading.Lock()
        self._free = connections
        """Connections that nothing uses; below 0 while threads wait for one."""
        self._rest = 1 / share - 1
        """Rest for each second of background work, in seconds."""
        self._rests_until = -math.inf
        self._clock = clock

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Count a connection as used during a block, which may begin with waiting for it."""
        with self._mutex:
            self._free -= 1
        try:
            yield
        finally:
            with self._mutex:
                self._free += 1

    def wait(self, wait: Wait) -> None:
        """Wait until background work may begin its next slice."""
        while True:
            seconds = self._seconds_left()
            wait(seconds)  # also without a rest: it may raise
            if not seconds:
                return

    @contextmanager
    def charged(self) -> Iterator[None]:
        """Count a block as a slice of background work, for which a rest follows."""
        began = self._clock()
        try:
            yield
        finally:
            now = self._clock()
            with self._mutex:
                self._rests_until = max(self._rests_until, now) + (now - began) * self._rest

    def _seconds_left(self) -> float:
        with self._mutex:
            rest = self._rests_until - self._clock()
            return rest if rest > 0 else 0.0 if self._free > 0 else LOOK_SECONDS
