"""What the courier has on its way: a round, and the places that it still has to visit."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shipper.core.model import Note, Sent


class Difference(NamedTuple):
    """A value that Graphite does not hold as it was sent."""

    path: str
    slot: int
    expected: float
    found: float | None
    """None where it holds nothing."""


class Place(NamedTuple):
    """One slot of one archive, and how far into its series we have come."""

    slot: int
    step: int
    beyond: int = 0


@dataclass(slots=True)
class Round:
    """Changed totals on their way: revisions (after, upto], place by place."""

    after: int
    upto: int
    places: deque[Place]
    replays: Sent | None = None
    """What it sends again; None when it goes out for the first time."""
    captured: Mapping[str, int] = field(default_factory=dict)
    """Of each job whose watermark is behind: captured as it stood when the round began."""
    remaining: Counter[str] = field(default_factory=Counter)
    """How many totals of each job are not yet confirmed, as noted."""
    in_doubt: bool = False
    is_begun: bool = False
    """Has a batch of it been confirmed?"""
    proven: int = 0
    """How many of its totals were read back as they were sent."""
    differing: list[Difference] = field(default_factory=list)
    """The others, until they are reported."""
    slots: Sequence[int] = ()
    """The newest slot of each job, newest first: what a sample of it is taken from."""

    @property
    def reads(self) -> bool:
        """Is it read back, instead of sent?"""
        return self.replays is not None and self.replays.reads


def newest_of(note: Note, step: int) -> list[int]:
    """Return the newest slot of each job that has one of so many seconds, newest first."""
    slots: dict[str, int] = {}
    for waiting in note.waiting:
        if waiting.step == step:
            slots.setdefault(waiting.job, waiting.slot)
    return sorted(set(slots.values()), reverse=True)


def places_of(note: Note) -> deque[Place]:
    """Return the places of what waits, in the note's order: newest first."""
    return deque(dict.fromkeys(Place(waiting.slot, waiting.step) for waiting in note.waiting))
