"""Core. Ids: which observation is the horizon, and which windows lead up to it.

Strategy: ids are given at INSERT, rows appear at COMMIT, so the newest ids may still lack rows. A tick observes
MAX(id); `settle` seconds later every transaction that had an id by then has ended, and the observation has become
the horizon. Monotonic time decides, so that a stepping wall clock cannot settle anything early.
"""

from collections import deque
from collections.abc import Iterator

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


def plan(captured: int, horizon: int, *, chunk: int) -> Iterator[Window]:
    """Yield, in order, the windows that tile the ids after captured up to horizon.

    Each window holds at most chunk ids. Yields nothing when horizon <= captured.
    """
    for after in range(captured, horizon, chunk):
        yield Window(after, min(after + chunk, horizon))
