"""What a job has counted: the exact set of ids, back to those that can hardly appear any more.

Strategy: a row is new if it can be seen and is not in the set, whatever its id and whenever it was committed. An id at
or below captured that is not in the set is a *gap*: it may still come. Gaps are asked for at each look while they are
young, then at growing distances, and given up when they are `late` old: then they are at or below the set's floor.

A gap's age is the time for which looks have been taken since its id was first seen to be given out. So neither
downtime nor a clock makes ids old.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from shipper.core.id_set import Gaps, IdSet, Words, clipped, size_of
from shipper.core.model import Observation, Window

EAGER_SECONDS = 60
"""While an id is so young it is asked for at each look, and once more."""
GROWTH = 4
"""Then at so many times that age, and so on: seldom enough to cost little, measured by tests/bench/gaps.py."""
TICKS = 2  # a look makes ids older by so many ticks at most
CRON_LOOKS = 4  # of a job of cron, which may look once a day: so many looks at least before an id is given up
MARKS = 100  # are kept; when there are more, those are left out that stand close together for their age
CLOSE = 8  # closer than an eighth of their age
MOST_WORDS = 2_000_000
"""A set is not larger: 32 MB unpacked, 130 million ids in sequence, or two million scattered ones."""
ROOM = 8
"""When it would be, an eighth of it is made free."""


class Mark(NamedTuple):
    """The largest id that a look saw, and how old the job was then, in seconds of looking."""

    age: int
    id: int


@dataclass(frozen=True, slots=True)
class Position:
    """The highest id that a job has looked at, and exactly which ids up to it are counted, or rejected by cause."""

    captured: int
    counted: IdSet
    version: int = 0
    """Raised by each record: one that began with an older position is refused."""
    age: int = 0
    """For how long the job was looked at, seconds."""
    looked: int = 0
    """When that was last, by the source's clock, epoch seconds; 0 before the first look."""
    marks: tuple[Mark, ...] = ()
    settled: int = 0
    """How many counted ids the floor has passed since the last record."""

    def at_look(self, horizon: Observation, *, every: int | None, late: int) -> "Position":
        """Return it at the beginning of a look: older, and with the ids that were given out by now marked."""
        most = late // CRON_LOOKS if every is None else TICKS * every
        gone = min(max(0, horizon.time - self.looked), most) if self.looked and horizon.makes_old else 0
        age = self.age + gone
        marks = [*self.marks, Mark(age, horizon.id)] if horizon.id > self._newest_mark() else list(self.marks)
        return replace(self, age=age, looked=horizon.time, marks=_thinned(marks, age, self.counted.floor))

    def gaps_due(self, before: "Position", late: int, *, most: int | None = None) -> Gaps:
        """Say where gaps are due for a look, given the position before it; up to the id most only."""
        captured, passed, age = self.captured if most is None else most, self.age - before.age, GROWTH * EAGER_SECONDS
        # what was young at the look before is due, however long ago that was: so each is asked for once more at least
        spans = [(self.id_at(EAGER_SECONDS + passed), self.captured)]
        while age < late:
            spans.append((self.id_at(age + passed), self.id_at(age)))
            age *= GROWTH
        spans.append((self.counted.floor, self.id_at(late)))
        # an id may be due for more than one reason, and is asked for once
        due: list[tuple[int, int]] = []
        for after, upto in sorted((after, min(upto, captured)) for after, upto in spans if after < min(upto, captured)):
            begins = due.pop() if due and after <= due[-1][1] else (after, upto)
            due.append((begins[0], max(begins[1], upto)))
        found = [self.counted.gaps(after, upto) for after, upto in due]
        return Gaps([one for asks in found for one in asks.ranges], [one for asks in found for one in asks.ids])

    def id_at(self, age: int) -> int:
        """Return the largest id known to be as old as that, seconds; the floor where none is."""
        ids = (mark.id for mark in reversed(self.marks) if self.age - mark.age >= age)
        return max(next(ids, 0), self.counted.floor)

    def asked(self, late: int, *, most: int | None = None) -> "Position":
        """Return it without the gaps that are too old, all of which were just asked for; up to the id most only."""
        floor = min(self.id_at(late), self.captured if most is None else most)
        return self._raised(floor) if floor > self.counted.floor else self

    def with_window(self, window: Window, words: Words | None) -> "Position":
        """Return it behind a window, with the ids that this has; None for all of them."""
        after, upto = window.after, window.upto
        counted = self.counted.extended(after, upto) if words is None else self.counted.added(words)
        return replace(self, captured=upto, counted=counted.collapsed(upto))

    def with_ids(self, words: Words) -> "Position":
        """Return it with more ids at or below captured; those at or below the floor are given up in the same breath."""
        settled = size_of(clipped(words, 0, self.counted.floor)) if words and self.counted.floor else 0
        counted = self.counted.added(words).collapsed(self.captured)
        return replace(self, counted=counted, settled=self.settled + settled)

    @property
    def has_gaps(self) -> bool:
        """Whether an id may still appear at or below captured."""
        return self.counted.solid < self.captured

    def bounded(self) -> "Position":
        """Return it with a higher floor, where it would be too large: with some room, so that this is rare."""
        counted, floor = self.counted, self.counted.floor
        left = counted.words
        if left <= MOST_WORDS:
            return self
        for segment in counted.segments:
            if left <= MOST_WORDS - MOST_WORDS // ROOM:
                break
            left, floor = left - segment.words, max(segment.unpacked) * 64 + 63
        return self._raised(floor)

    def age_of(self, identity: int) -> int:
        """Return for how long an id is known to have been given out, seconds of looking."""
        return next((self.age - mark.age for mark in self.marks if mark.id >= identity), 0)

    def _raised(self, floor: int) -> "Position":
        counted = self.counted
        settled = self.settled + counted.count(counted.floor, floor)
        return replace(self, counted=counted.raised(floor).collapsed(self.captured), settled=settled)

    def _newest_mark(self) -> int:
        return self.marks[-1].id if self.marks else 0


def new_position(captured: int, floor: int, words: Iterable[Words]) -> Position:
    """Return the position of a job that begins behind captured; words are ids above the floor that are not its own."""
    counted = IdSet(floor, floor)
    for one in words:
        counted = counted.added(one)
    return Position(captured, counted.collapsed(captured))


def _thinned(marks: Sequence[Mark], age: int, floor: int) -> tuple[Mark, ...]:
    """Leave out marks that nobody needs: at or below the floor but for the newest, or close together for their age.

    Without a mark ids count as younger than they are, and so are kept a little longer.
    """
    if len(marks) <= MARKS:
        return tuple(marks)
    kept: list[Mark] = []
    for mark in reversed(marks):
        if kept and kept[-1].id <= floor:
            break
        if not kept or mark is marks[0] or kept[-1].age - mark.age >= (age - mark.age) / CLOSE:
            kept.append(mark)
    return tuple(reversed(kept))
