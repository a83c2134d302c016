"""The lease: how long this process may believe that it alone works on its state."""

BEATS = 4
"""Renewals in the length of a lease."""


class Lease:
    """Right to send, renewed by each answer of the database that keeps the state.

    Times are of a clock that runs on while the machine is suspended, in seconds. No other clock decides: an answer
    shows that this process led when the question was asked, and the others wait for the length of the lease from then.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = float("-inf")

    def renew(self, asked_at: float) -> None:
        """Count from the moment before the question was asked that is answered now."""
        self._until = max(self._until, asked_at + self.seconds)

    def end(self) -> None:
        """End it now: this process no longer leads, or cannot know it."""
        self._until = float("-inf")

    def left(self, now: float) -> float:
        """Return the seconds that are left, 0 if none are."""
        return max(0.0, self._until - now)
