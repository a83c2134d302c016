"""What the courier needs of the state: the totals that are not proven yet."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from shipper.core.model import Changed, Pending


class Outbox(Protocol):
    """What the courier needs of the state."""

    def note(self, after: int, upto: int | None = None) -> Pending:
        """Pending, in one look, what changed with a revision in (after, upto], and which watermarks are behind.

        Without upto, up to the newest revision.
        """

    def changed(self, slot: int, step: int, *, after: int, upto: int, beyond: int, limit: int) -> list[Changed]:
        """Return, by series, the changed totals of one slot with a revision in (after, upto], series > beyond."""

    def commit(self, watermarks: Mapping[str, int], datapoints: Mapping[str, int]) -> None:
        """Store watermarks durably, and how many datapoints led to each; none moves back."""

    def prove(self, *, after: int, upto: int) -> None:
        """Hold what still has a revision in (after, upto] for delivered for good."""

    def prove_series(self, slot: int, step: int, series: Sequence[int], *, after: int, upto: int) -> None:
        """Hold those totals of a slot for delivered for good that still have a revision in (after, upto]."""

    def count_new(self, after: int, upto: int) -> int:
        """Return how many series were never proven, 0 if none of them has a total in (after, upto]."""

    def merge(self, slot: int, step: int, into: tuple[int, int] | None) -> Mapping[str, int]:
        """Merge a slot's changed totals into a slot of a coarser archive, where they are deferred.

        Into None they are given up: no archive would hold them. Return how many rows that were, by job.
        """

    def defer(self, slot: int, step: int) -> None:
        """Keep the changed totals of a slot back, until they are released."""

    def release(self, due: Iterable[tuple[int, int]]) -> None:
        """Let deferred totals go out, as changed just now: of each step up to a slot."""
