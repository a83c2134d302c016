"""What Graphite holds of what was sent: of a whole round, or of a sample.

Strategy: a replay proves that somebody reads, not that anybody stores. So where Graphite can be asked, a few values of
a round are read back soon after it was confirmed. What differs is looked at again, sent again, and looked at a third
time: then it is told. Meanwhile nothing is proven by replays.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from shipper.core.delivery.outbox import Outbox
from shipper.core.delivery.rounds import Difference, Round
from shipper.core.errors import ReadbackFailed
from shipper.core.model import Archive, Changed
from shipper.core.retention import has_left
from shipper.core.retry import SAMPLE_DELAYS, sample_delay, sample_patience, sample_pause

READ_MOST = 900  # targets of one request: Django refuses more than 1,000 fields
SAMPLE_MOST = 20  # values; graphite-web needs about a millisecond for each
SAMPLE_SECONDS = 10.0  # between two samples
GOLDEN = (math.sqrt(5) - 1) / 2


class Reader(Protocol):
    """What the courier needs of Graphite, to prove by reading."""

    def read(self, paths: Sequence[str], slot: int) -> Mapping[str, float | None]:
        """Return what Graphite holds of each path in a slot.

        Raises:
            ReadbackFailed: it does not answer.
        """


class Look(NamedTuple):
    """What a look at a sample has found."""

    differing: Sequence[Difference] = ()
    resends: tuple[int, int] | None = None
    """Revisions that are to be sent again now: after the first, up to the second."""
    is_told: bool = False
    """Whether it has differed for long enough."""
    failure: ReadbackFailed | None = None


@dataclass(slots=True)
class _Sample:
    """Some totals of one slot, sent and not read back yet."""

    slot: int
    revisions: tuple[int, int]
    began: float
    due: float
    patience: float
    """For how long Carbon may need to make new series, seconds."""
    looks: int = 0
    is_made: bool = False
    """Whether Carbon has made its series, so that nothing explains why they differ; known after the first look."""
    differing: list[int] = field(default_factory=list)
    """The series that differed at the last look."""


class Sampler:
    """Takes a sample of a round at times, and looks at it. Times are of the monotonic clock, seconds."""

    def __init__(self, outbox: Outbox, reader: Reader, archives: Sequence[Archive]) -> None:
        self._outbox, self._reader, self._archives = outbox, reader, archives
        self._sample: _Sample | None = None
        self._next = float("-inf")  # when another sample may be taken
        self._failures = self._turn = self._beyond = 0

    @property
    def is_suspicious(self) -> bool:
        """Whether something differs that should not, and has not been looked at often enough."""
        return self._sample is not None and self._sample.is_made

    def delay(self, clock: float) -> float | None:
        """Return the seconds until the next look, None when there is nothing to look at."""
        return None if self._sample is None else max(0.0, self._sample.due - clock)

    def drop(self) -> None:
        """Forget the sample: what it is of is sent again."""
        self._sample = None

    def take(self, current: Round, clock: float, *, new_series: int) -> None:
        """Take a sample of a round that was confirmed, unless there is one, or was one just before.

        So many series may not be made yet, those of the sample among them.
        """
        if self._sample is not None or clock < self._next or not current.slots:
            return
        self._turn += 1
        slot = current.slots[self._turn % len(current.slots)]  # each job has its turn
        due = clock + sample_delay(0)
        self._sample = _Sample(slot, (current.after, current.upto), clock, due, sample_patience(new_series))
        self._next = clock + SAMPLE_SECONDS

    def look(self, *, upto: int, now: int, clock: float) -> Look | None:
        """Look at the sample if that is due; None when nothing was read.

        All revisions up to a given one must have been confirmed, so that each total is what was sent last.
        """
        sample = self._sample
        if sample is None or clock < sample.due:
            return None
        totals = self._totals(sample, upto, now)
        if not totals:  # all of them are proven, merged or deferred by now
            self._sample = None
            return None
        try:
            same, differing = compared(self._reader, sample.slot, totals)
        except ReadbackFailed as error:
            self._sample = None
            self._next = clock + sample_pause(self._failures)
            self._failures = min(self._failures + 1, 10)
            return Look(failure=error)
        self._failures = 0
        sample.is_made = totals[0].is_made
        sample.differing = [total.series for total in totals if total.series not in same]
        return self._judged(sample, differing, clock)

    def _judged(self, sample: _Sample, differing: list[Difference], clock: float) -> Look:
        """Plan the next look, or end the sample."""
        sample.looks += 1
        patience = 0.0 if sample.is_made else sample.patience
        is_told = sample.looks >= len(SAMPLE_DELAYS) and clock - sample.began >= patience
        if not differing or is_told:
            self._sample = None
            return Look(differing, is_told=bool(differing))
        sample.due = clock + sample_delay(sample.looks)
        return Look(differing, resends=sample.revisions if sample.looks == len(SAMPLE_DELAYS) - 1 else None)

    def _totals(self, sample: _Sample, upto: int, now: int) -> list[Changed]:
        """Return what the sample is of: as chosen now, or of what was chosen all that differed at the last look."""
        step = self._archives[0].step
        if sample.slot > now or has_left(self._archives, sample.slot, step, now):
            return []
        if not sample.looks:
            return self._chosen(sample.slot, step, upto)
        found: list[Changed] = []
        for series in sample.differing:
            total = self._outbox.changed(sample.slot, step, after=0, upto=upto, beyond=series - 1, limit=1)
            found += [one for one in total if one.series == series]
        return found

    def _chosen(self, slot: int, step: int, upto: int) -> list[Changed]:
        """Choose a few totals of a slot, others each time, of series that are made rather than of new ones."""
        found: list[Changed] = []
        for beyond in {self._beyond: None, 0: None}:
            found = found or self._outbox.changed(slot, step, after=0, upto=upto, beyond=beyond, limit=READ_MOST)
        self._beyond = found[-1].series if len(found) == READ_MOST else 0
        found = [total for total in found if total.is_made] or found
        stride = max(1, math.ceil(len(found) / SAMPLE_MOST))
        # an irrational part of the stride, so that this keeps step with neither slots nor pages
        return found[int(self._turn * GOLDEN % 1 * stride) :: stride]


def compared(reader: Reader, slot: int, totals: Sequence[Changed]) -> tuple[set[int], list[Difference]]:
    """Return the series of totals that Graphite holds as they are, and how the others differ.

    Raises:
        ReadbackFailed: it does not answer.
    """
    found = reader.read([total.path for total in totals], slot)
    same = {total.series for total in totals if found.get(total.path) == float(total.value)}
    others = (total for total in totals if total.series not in same)
    return same, [Difference(one.path, slot, float(one.value), found.get(one.path)) for one in others]
