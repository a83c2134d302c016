"""Core. What the courier has on its way: a round, and the places that it still has to visit."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from shipper.model import Note, Sent


class Place(NamedTuple):
    """One slot, whose it is, and how far into its series we have come."""

    slot: int
    step: int
    jobs: frozenset[str]
    beyond: int = 0


@dataclass(slots=True)
class Round:
    """Changed totals on their way: revisions (after, upto], place by place."""

    after: int
    upto: int
    places: deque[Place]
    oldest: int
    """All of its slots from this one on are sent; older ones were too old when it was noted, or became it."""
    replays: Sent | None = None
    """What it sends again; None when it goes out for the first time."""
    captured: Mapping[str, int] = field(default_factory=dict)
    """Of each job whose watermark is behind: captured as it stood when the round began."""
    remaining: Counter[str] = field(default_factory=Counter)
    """How many totals of each job are not yet confirmed, as noted."""
    in_doubt: bool = False
    is_begun: bool = False
    """Has a batch of it been confirmed?"""


def places_of(note: Note, oldest: int) -> deque[Place]:
    """Return the slots that can be sent, in the note's order: newest first."""
    jobs: dict[tuple[int, int], set[str]] = {}
    for waiting in note.waiting:
        if waiting.slot >= oldest:
            jobs.setdefault((waiting.slot, waiting.step), set()).add(waiting.job)
    return deque(Place(slot, step, frozenset(names)) for (slot, step), names in jobs.items())
