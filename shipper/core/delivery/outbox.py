"""Outbox: the totals that are not proven yet, as the courier uses them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from shipper.core.measures import Value
from shipper.core.model import Span


class Pending(NamedTuple):
    """Pending totals when the courier begins a round."""

    upto: int
    """Newest revision: the round sends the changed totals up to it."""
    captured: Mapping[str, int]
    """Captured id of each job whose watermark is behind."""
    waiting: list["Waiting"]
    """Newest slot first."""
    deferred: frozenset[str] = frozenset()
    """Jobs with totals that are deferred until their archive receives them."""


class Waiting(NamedTuple):
    """Number of changed totals of a job in one slot."""

    job: str
    slot: int
    step: int
    totals: int


@dataclass(slots=True)
class Replay:
    """Confirmed revisions (after, upto], and when they are sent or read again."""

    after: int
    upto: int
    stage: int
    """Number of replays so far; INVALIDATED: none count, and it is sent again at once."""
    confirmed: float
    due: float
    repeats: int = 0
    """How often it is sent, once a minute, before its replays count: Carbon may not have created its series yet."""
    reads: bool = False
    """Whether it is read back instead of sent."""


INVALIDATED = -1


class Changed(NamedTuple):
    """Total that is not proven yet."""

    series: int
    job: str
    path: str
    value: Value
    is_made: bool
    """Whether a total of this series was proven before, so Carbon has created its file."""


class Outbox(Protocol):
    """Totals that are not proven yet: changed (to send) or deferred."""

    def pending(self, after: int, upto: int | None = None) -> Pending:
        """Return which totals changed with a revision in (after, upto], and which watermarks are behind, in one look.

        Without upto, up to the newest revision.
        """

    def changed(self, slot: int, step: int, *, after: int, upto: int, beyond: int, limit: int) -> list[Changed]:
        """Return at most limit changed totals of a slot: revision in (after, upto], series > beyond, by series."""

    def commit(self, watermarks: Mapping[str, int], datapoints: Mapping[str, int], *, confirmed: int = 0) -> None:
        """Store watermarks durably, with the number of datapoints delivered for each; none moves back.

        All totals with a revision up to confirmed are confirmed: reports after a restart do not count them as waiting.
        """

    def prove(self, *, after: int, upto: int) -> None:
        """Mark totals whose revision is still in (after, upto] as proven."""

    def prove_series(self, slot: int, step: int, series: Sequence[int], *, after: int, upto: int) -> None:
        """Mark those of these totals of a slot as proven whose revision is still in (after, upto]."""

    def count_new(self, after: int, upto: int) -> int:
        """Return how many series were never proven; 0 if none of them has a total in (after, upto]."""

    def merge(self, slot: int, step: int, into: tuple[int, int] | None) -> Mapping[str, int]:
        """Merge a slot's changed totals, and all finer ones, into a deferred slot of a coarser archive.

        If into is None, no archive would hold them: they are rejected, as are those of a job that has pruned a part of
        the coarser slot. Return how many rows were rejected, by job.
        """

    def defer(self, slot: int, step: int) -> None:
        """Keep back the changed totals of a slot until they are released."""

    def release(self, due: Mapping[int, Span]) -> None:
        """Release deferred totals of a span, as changed now: by step, and with those of steps that no archive has."""
