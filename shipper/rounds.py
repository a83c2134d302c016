"""Core. What the courier has on its way: a round, and the places that it still has to visit."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from shipper.model import Note, Sent


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
    differing: list[str] = field(default_factory=list)
    """The paths of the others, until they are reported."""

    @property
    def reads(self) -> bool:
        """Is it read back, instead of sent?"""
        return self.replays is not None and self.replays.reads


def places_of(note: Note) -> deque[Place]:
    """Return the places of what waits, in the note's order: newest first."""
    return deque(dict.fromkeys(Place(waiting.slot, waiting.step) for waiting in note.waiting))
