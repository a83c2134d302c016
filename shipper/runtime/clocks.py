"""The clocks: ours, our monotonic one, and those of the sources; which of them can be trusted?

Strategy: where a total goes depends on how old its slot is. As long as a source agrees with our wall clock, and that
has not jumped since (the monotonic clock tells), it is right.

The monotonic clock: which calls of a part run, and for how long they have not come forward.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from shipper.core.errors import StateBusy, TransientError


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an observation told: how far the clocks were apart then, seconds."""

    behind: float
    """Our wall clock less the source's."""
    parted: float
    """Our wall clock less our monotonic one."""
    most: int


class Clocks:
    """What is known of all clocks. For several threads."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._mutex = threading.Lock()

    def observed(self, source: str, source_time: int, *, max_skew: int) -> None:
        """Compare our clock with a source's, whose answer has just arrived.

        Raises:
            TransientError: they differ by more than max_skew, seconds.
        """
        now = time.time()
        seen = _Seen(now - source_time, now - time.monotonic(), max_skew)
        with self._mutex:
            self._seen[source] = seen
        if abs(seen.behind) > max_skew:
            raise TransientError(
                f"compare clocks: ours is {seen.behind:+.0f} s off that of source {source}",
                hint="Is a clock wrong? Meanwhile nothing is pruned, nothing goes to a coarser archive, no zeros are "
                "written, and jobs without `time` leave their rows for later.",
            )

    def agrees(self, source: str) -> bool:
        """Does our clock agree with this source's, as far as is known?"""
        with self._mutex:
            seen = self._seen.get(source)
        return seen is not None and _is_good(seen)

    def are_trusted(self) -> bool:
        """Does our clock agree with that of any source? Two that agree are right."""
        with self._mutex:
            return any(_is_good(seen) for seen in self._seen.values())


def _is_good(seen: _Seen) -> bool:
    parted = time.time() - time.monotonic()
    return abs(seen.behind) <= seen.most and abs(parted - seen.parted) <= seen.most


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
