"""Time and waiting: which clocks can be trusted, whether calls make progress, what wakes a thread.

Strategy: the slot of a total depends on the time. Our wall clock is right as long as it agrees with a source's, and
has not jumped since then, as the monotonic clock shows.
"""

import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from shipper.core.errors import StateBusy, TransientError
from shipper.source.access import GRACE_SECONDS

PATIENCE_SECONDS = 40.0  # for a running call to end; systemd gives a reload 60 s (TimeoutStartSec)
PAUSE_SECONDS = 0.02
LONGEST_SECONDS = 3600.0  # of one poll(), which ends at 24 days
DEADLINE_STATEMENTS = 10  # a call without progress for as long as this many statements never ends by itself


@dataclass(frozen=True, slots=True)
class _Comparison:
    """The clocks at an observation, in seconds."""

    ahead: float
    """Our wall clock minus the source's."""
    offset: float
    """Our wall clock minus our monotonic one."""
    most: int

    @property
    def is_good(self) -> bool:
        """Whether the clocks agreed, and ours has not been set since."""
        offset = time.time() - time.monotonic()
        return abs(self.ahead) <= self.most and abs(offset - self.offset) <= self.most

    @property
    def source_time(self) -> float:
        """The source's time now, in epoch seconds."""
        return time.monotonic() + self.offset - self.ahead


class Clocks:
    """The comparisons of our clock with those of the sources. For several threads."""

    def __init__(self) -> None:
        self._comparisons: dict[str, _Comparison] = {}
        self._mutex = threading.Lock()

    def observed(self, source: str, source_time: int, *, max_skew: int) -> None:
        """Compare our clock with a source's, whose answer has just arrived.

        Raises:
            TransientError: they differ by more than max_skew, in seconds.
        """
        now = time.time()
        comparison = _Comparison(now - source_time, now - time.monotonic(), max_skew)
        with self._mutex:
            self._comparisons[source] = comparison
        if abs(comparison.ahead) > max_skew:
            direction = "ahead of" if comparison.ahead > 0 else "behind"
            raise TransientError(
                f"compare clocks: the clock of this machine is {abs(comparison.ahead):.0f} s {direction} the clock of "
                f"source {source}",
                hint="Correct the wrong clock (NTP). Until then jobs without `time` count no new rows; "
                "merging, pruning and zero-fill pause.",
            )

    def agrees(self, source: str) -> bool:
        """Whether our clock agrees with this source's, as far as is known."""
        with self._mutex:
            comparison = self._comparisons.get(source)
        return comparison is not None and comparison.is_good

    def latest(self) -> float:
        """Return the latest time of all clocks, ours and those of sources, in epoch seconds."""
        with self._mutex:
            return max([time.time(), *(comparison.source_time for comparison in self._comparisons.values())])

    def are_trusted(self) -> bool:
        """Whether our clock agrees with that of any source: two that agree are right."""
        with self._mutex:
            return any(comparison.is_good for comparison in self._comparisons.values())


class Part:
    """A part that works on threads of others, and the calls of it that run now, by name. For several threads."""

    def __init__(self, timeout: int) -> None:
        """Take the server's timeout for a statement, in seconds."""
        self._deadline = DEADLINE_STATEMENTS * (timeout + GRACE_SECONDS)
        self._progress: dict[str, float] = {}
        """When each running call last made progress."""
        self._progress_mutex = threading.Lock()

    @contextmanager
    def _running(self, name: str) -> Iterator[None]:
        """Count a call as running during a block."""
        self._advance(name)
        try:
            yield
        finally:
            with self._progress_mutex:
                self._progress.pop(name, None)

    def _advance(self, name: str) -> None:
        """Note that a call makes progress."""
        with self._progress_mutex:
            self._progress[name] = time.monotonic()

    @property
    def is_idle(self) -> bool:
        """Whether none of its calls runs."""
        with self._progress_mutex:
            return not self._progress

    @property
    def _still_seconds(self) -> float:
        """Return for how long a call has made no progress, 0 if none runs."""
        with self._progress_mutex:
            return time.monotonic() - min(self._progress.values()) if self._progress else 0.0

    @property
    def is_stuck(self) -> bool:
        """Whether a call hangs: it will never end by itself."""
        return self._still_seconds > self._deadline


def wait_idle(part: Part) -> None:
    """Wait until no call of a part runs; the caller has stopped it before.

    Raises:
        StateBusy: it takes too long.
    """
    if not wait_until(lambda: part.is_idle, seconds=PATIENCE_SECONDS):
        raise StateBusy(
            f"wait for the {part}: it has not ended within {PATIENCE_SECONDS:.0f} s",
            hint="Run the command again; if it fails again: systemctl restart shipper.",
        )


def wait_until(is_true: Callable[[], bool], *, seconds: float) -> bool:
    """Wait until a condition is true, for a number of seconds at most; return whether it is."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_SECONDS)
    return True


class Flag:
    """A threading.Event whose wait ends also when a connection ends."""

    def __init__(self) -> None:
        self._number = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._number)

    def set(self) -> None:
        """Raise the flag."""
        os.eventfd_write(self._number, 1)

    def clear(self) -> None:
        """Lower the flag."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._number)

    def is_set(self) -> bool:
        """Whether the flag is raised."""
        return self.wait(0)

    def wait(self, seconds: float, connection: socket.socket | None = None) -> bool:
        """Wait until the flag is raised, a connection is readable, or the time is over; return whether it is raised."""
        poll = select.poll()
        for watched in (self._number, connection):
            if watched is not None:
                poll.register(watched, select.POLLIN)
        ready = poll.poll(1000 * min(max(seconds, 0.0), LONGEST_SECONDS))
        return any(number == self._number for number, _ in ready)
