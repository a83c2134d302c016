"""Core. Ids: which observation is the horizon, and which window comes next on the way to it.

Strategy: ids are given at INSERT, rows appear at COMMIT, so the newest ids may still lack rows. A tick observes
MAX(id); `settle` seconds later every transaction that had an id by then has ended, and the observation has become
the horizon. Monotonic time decides, so that a stepping wall clock cannot settle anything early.
"""

from collections import deque

from shipper.model import Observation, Window


class Settling:
    """The observations of one table that are not yet old enough to read up to."""

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._waiting: deque[Observation] = deque()

    def add(self, observation: Observation) -> None:
        """Remember an observation, which is newer than all before it."""
        self._waiting.append(observation)

    def take(self, clock: float) -> Observation | None:
        """Return the newest observation that has settled, and forget it and all older ones."""
        horizon = None
        while self._waiting and self._waiting[0].clock + self._settle <= clock:
            horizon = self._waiting.popleft()
        return horizon

    def delay(self, clock: float) -> float | None:
        """Return the seconds until the next observation settles, None when none is waiting."""
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0].clock + self._settle - clock)


def next_window(captured: int, horizon: int, *, chunk: int, first: int | None = None) -> Window:
    """Return the window that begins at captured < horizon, of at most chunk ids.

    Where first is known, the smallest id above captured, the hole before it comes on top: reading it costs nothing.
    """
    start = captured if first is None else first - 1
    return Window(captured, min(start + chunk, horizon))
