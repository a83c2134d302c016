"""The position of a job: the highest id that it has looked at, and the exact set of ids that it has counted.

Strategy: a row is new if it is visible and its id is not in the set, whatever the id is and whenever the row was
committed. An id at or below captured that is not in the set is a *gap*: its row may still be committed. A job asks for
young gaps at each look, for older ones at growing intervals, and gives a gap up once it is `late` old: then it is below
the floor of the set. The age of a gap counts only the time in which looks were taken since a look first saw an id as
high as the gap. Neither downtime nor a changed clock makes ids older.

Programs also take ids in blocks, and use them for days, as Hibernate does; or a row has an id far above all others.
The next rows then come at the next ids. Therefore a row in an old gap makes that gap, and those above it, young again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from shipper.core.id_set import Gaps, IdSet, Words, clipped, ids_of, size_of
from shipper.core.model import Observation, Window, adjoined

EAGER_SECONDS = 60
"""Age up to which a gap is asked for at each look, and once more afterwards."""
GROWTH = 4
"""Factor between the ages at which an older gap is asked for. Costs: tests/bench/gaps.py."""
TICKS = 2  # most ticks by which one look makes ids older
CRON_LOOKS = 4  # least number of looks before a gap is given up, for jobs with cron, which may look once a day
MARKS = 100  # most marks of a position; above that, marks that are close together for their age are dropped
CLOSE = 8  # closer than an eighth of their age
MOST_WORDS = 2_000_000
"""Largest set: 32 MB unpacked; 130 million ids in sequence, or two million scattered ones."""
ROOM = 8
"""Share of a full set that is freed: an eighth, at the cost of the oldest gaps."""


class Mark(NamedTuple):
    """Largest id that a look saw, and the job's age at that look, in seconds of looking."""

    age: int
    id: int


@dataclass(frozen=True, slots=True)
class Position:
    """Highest id that a job has looked at, and the ids up to it that are counted or rejected."""

    captured: int
    counted: IdSet
    version: int = 0
    """Raised by each record. The state refuses a record that began with an older version."""
    age: int = 0
    """Time in which looks were taken, in seconds."""
    looked: int = 0
    """Time of the last look by the source's clock, in epoch seconds; 0 before the first."""
    marks: tuple[Mark, ...] = ()
    settled: int = 0
    """Number of counted ids that the floor has passed since the last record."""

    def at_look(self, horizon: Observation, *, every: int | None, late: int) -> "Position":
        """Return the position at the beginning of a look: older, and with a mark for the largest id."""
        most = late // CRON_LOOKS if every is None else TICKS * every
        gone = min(max(0, horizon.time - self.looked), most) if self.looked and horizon.makes_old else 0
        age = self.age + gone
        is_new = horizon.id > (self.marks[-1].id if self.marks else 0)
        marks = [*self.marks, Mark(age, horizon.id)] if is_new else list(self.marks)
        return replace(self, age=age, looked=horizon.time, marks=_thinned(marks, age, self.counted.floor))

    def gaps_due(self, before: "Position", late: int, *, most: int | None = None) -> Gaps:
        """Return the gaps that a look must ask for, up to the id `most`; `before` is the position before it."""
        parts = [self.counted.gaps(after, upto) for after, upto in self.ranges_due(before, late, most=most)]
        return Gaps([one for gaps in parts for one in gaps.ranges], [one for gaps in parts for one in gaps.ids])

    def ranges_due(self, before: "Position", late: int, *, most: int | None = None) -> list[tuple[int, int]]:
        """Return the ranges (after, upto] of ids at or below captured at which a look must look, in order."""
        captured, passed, age = self.captured if most is None else most, self.age - before.age, GROWTH * EAGER_SECONDS
        # gaps that were young at the look before are due, however long ago that was: each is asked for once more
        spans = [(self.id_at(EAGER_SECONDS + passed), self.captured)]
        while age < late:
            spans.append((self.id_at(age + passed), self.id_at(age)))
            age *= GROWTH
        spans.append((self.counted.floor, self.id_at(late)))
        # an id that is due for more than one reason is asked for once
        return adjoined((after, min(upto, captured)) for after, upto in spans if after < min(upto, captured))

    def id_at(self, age: int) -> int:
        """Return the largest id that is known to be at least that old, in seconds; the floor if there is none."""
        ids = (mark.id for mark in reversed(self.marks) if self.age - mark.age >= age)
        return max(next(ids, 0), self.counted.floor)

    def give_up_old_gaps(self, late: int, *, most: int | None = None) -> "Position":
        """Return the position without gaps that are `late` old: a look has asked for them; up to the id `most`."""
        floor = min(self.id_at(late), self.captured if most is None else most)
        return self._raised(floor) if floor > self.counted.floor else self

    def renewed(self, words: Words) -> "Position":
        """Return the position after late rows: if the first one is old, the ids from it on are a minute old again."""
        first = next(iter(ids_of(words)))
        if self.age_of(first) < GROWTH * EAGER_SECONDS:
            return self
        age = self.age - EAGER_SECONDS
        below = [mark for mark in self.marks if mark.id < first]
        old = [mark for mark in self.marks if mark.id >= first and mark.age <= age]
        young = [mark for mark in self.marks if mark.age > age]
        # ids below the first one keep their age
        return replace(self, marks=(*below, Mark(old[0].age, first - 1), Mark(age, old[-1].id), *young))

    def with_window(self, window: Window, words: Words | None) -> "Position":
        """Return the position behind a window, with the ids of its rows; None means all ids of the window."""
        after, upto = window.after, window.upto
        counted = self.counted.extended(after, upto) if words is None else self.counted.added(words)
        return replace(self, captured=upto, counted=counted.collapsed(upto))

    def with_ids(self, words: Words) -> "Position":
        """Return the position with more counted ids at or below captured; below the floor only their number."""
        settled = size_of(clipped(words, 0, self.counted.floor)) if words and self.counted.floor else 0
        counted = self.counted.added(words).collapsed(self.captured)
        return replace(self, counted=counted, settled=self.settled + settled)

    @property
    def has_gaps(self) -> bool:
        """Whether a row may still appear at or below captured."""
        return self.counted.solid < self.captured

    def bounded(self) -> "Position":
        """Return the position with a higher floor if its set is too large; it makes room, so that this is rare."""
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
        """Return for how long the id is known to be given out, in seconds of looking."""
        return next((self.age - mark.age for mark in self.marks if mark.id >= identity), 0)

    def _raised(self, floor: int) -> "Position":
        counted = self.counted
        settled = self.settled + counted.count(counted.floor, floor)
        return replace(self, counted=counted.raised(floor).collapsed(self.captured), settled=settled)


def new_position(captured: int, floor: int, words: Iterable[Words]) -> Position:
    """Return the position of a job that starts behind captured; words are ids that are there, so not its rows."""
    counted = IdSet(floor, floor)
    for one in words:
        counted = counted.added(one)
    return Position(captured, counted.collapsed(captured))


def _thinned(marks: Sequence[Mark], age: int, floor: int) -> tuple[Mark, ...]:
    """Drop marks that are not needed: below the floor except the newest, or close together for their age.

    Without a mark, ids count as younger than they are, and are kept a little longer.
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
