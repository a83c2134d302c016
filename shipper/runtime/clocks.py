"""The clocks: ours, our monotonic one, and those of the sources; which of them can be trusted?

Strategy: where a total goes depends on how old its slot is. As long as a source agrees with our wall clock, and that
has not jumped since (the monotonic clock tells), it is right.
"""

import threading
import time
from dataclasses import dataclass

from shipper.core.errors import TransientError


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
