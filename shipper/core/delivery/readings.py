"""Readings: comparison of what was sent with what Graphite holds, for a complete round or for a sample of it.

Strategy: a replay proves that Carbon reads, not that it stores. Where Graphite can be read, a few values of a round are
therefore read back soon after the round was confirmed. Values that differ are read again, then sent again and read a
third time; if they differ still, they are reported. Meanwhile replays prove nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from shipper.core.delivery.outbox import Changed, Outbox
from shipper.core.delivery.proofs import Difference, Round
from shipper.core.errors import ReadbackFailed
from shipper.core.model import Archive
from shipper.core.retention import has_left
from shipper.core.retry import SAMPLE_DELAYS, sample_delay, sample_patience, sample_pause

READ_MOST = 900
"""Maximum number of paths of one request: Django rejects more than 1,000 fields."""
SAMPLE_MOST = 20
"""Maximum number of values of a sample: graphite-web needs about a millisecond for each."""
SAMPLE_SECONDS = 10.0
"""Least time between two samples."""
GOLDEN = (math.sqrt(5) - 1) / 2


class Reader(Protocol):
    """The courier's view of Graphite."""

    def read(self, paths: Sequence[str], slot: int) -> Mapping[str, float | None]:
        """Return the value that Graphite holds of each path in a slot.

        Raises:
            ReadbackFailed: Graphite does not answer.
        """


class Reading(NamedTuple):
    """Result of reading a sample."""

    unproven: Sequence[Difference] = ()
    """Values that have differed for long enough to be reported."""
    resends: tuple[int, int] | None = None
    """Revisions to send again now: after the first, up to the second."""
    failure: ReadbackFailed | None = None


@dataclass(slots=True)
class _Sample:
    """Some totals of one slot that are sent and not read back yet."""

    slot: int
    revisions: tuple[int, int]
    began: float
    due: float
    patience: float
    """How long Carbon may need to create new series, in seconds."""
    readings: int = 0
    is_made: bool = False
    """Whether Carbon has created its series, so that nothing excuses a difference; known after the first reading."""
    differing: list[int] = field(default_factory=list)
    """Series that differed at the last reading."""


class Sampler:
    """Takes samples of rounds and reads them back, one at a time. Times are of the monotonic clock, in seconds."""

    def __init__(self, outbox: Outbox, reader: Reader, archives: Sequence[Archive]) -> None:
        self._outbox, self._reader, self._archives = outbox, reader, archives
        self._sample: _Sample | None = None
        self._next = float("-inf")  # when the next sample may be taken
        self._failures = self._turn = self._beyond = 0

    @property
    def is_suspicious(self) -> bool:
        """Whether values differ without an excuse, and have not been read often enough to be reported."""
        return self._sample is not None and self._sample.is_made

    def delay(self, clock: float) -> float | None:
        """Return the delay until the next reading, in seconds; None without a sample."""
        return None if self._sample is None else max(0.0, self._sample.due - clock)

    def drop(self) -> None:
        """Drop the sample: its totals are sent again."""
        self._sample = None

    def take(self, current: Round, clock: float, *, new_series: int) -> None:
        """Take a sample of a confirmed round, unless there is one or the last one was just before.

        Carbon may not have created new_series series yet, some of them of the sample.
        """
        if self._sample is not None or clock < self._next or not current.slots:
            return
        self._turn += 1
        slot = current.slots[self._turn % len(current.slots)]  # jobs take turns
        due = clock + sample_delay(0)
        self._sample = _Sample(slot, (current.after, current.upto), clock, due, sample_patience(new_series))
        self._next = clock + SAMPLE_SECONDS

    def read(self, *, upto: int, now: int, clock: float) -> Reading | None:
        """Read the sample if that is due; None when nothing was read.

        All revisions up to upto must have been confirmed, so that each total has the value that was sent last.
        """
        sample = self._sample
        if sample is None or clock < sample.due:
            return None

        # totals that were proven, merged or deferred meanwhile are not in the outbox: they need no reading
        totals = self._totals(sample, upto, now)
        if not totals:
            self._sample = None
            return None

        # a Graphite that does not answer costs a sample, and then longer and longer pauses; replays prove meanwhile
        try:
            equal, differing = compare(self._reader, sample.slot, totals)
        except ReadbackFailed as error:
            self._sample = None
            self._next = clock + sample_pause(self._failures)
            self._failures = min(self._failures + 1, 10)
            return Reading(failure=error)
        self._failures = 0

        # the series that differ are read again: all others are as they were sent
        sample.is_made = totals[0].is_made
        sample.differing = [total.series for total in totals if total.series not in equal]
        return self._judge(sample, differing, clock)

    def _judge(self, sample: _Sample, differing: list[Difference], clock: float) -> Reading:
        """Schedule the next reading of a sample, or end it."""
        sample.readings += 1
        patience = 0.0 if sample.is_made else sample.patience
        is_over = sample.readings >= len(SAMPLE_DELAYS) and clock - sample.began >= patience
        if not differing or is_over:
            self._sample = None
            return Reading(differing)

        # after the second reading the totals are sent again, once: Carbon may have lost just one batch
        sample.due = clock + sample_delay(sample.readings)
        is_second = sample.readings == len(SAMPLE_DELAYS) - 1
        return Reading(resends=sample.revisions if is_second else None)

    def _totals(self, sample: _Sample, upto: int, now: int) -> list[Changed]:
        """Return the totals to read: a choice at the first reading, then those that differed at the last one."""
        step = self._archives[0].step
        # Graphite shows a slot of the future once its time has come, and answers for one that is about to leave the
        # finest archive with the coarser one
        if sample.slot > now or has_left(self._archives, sample.slot, step, now):
            return []
        if not sample.readings:
            return self._choose(sample.slot, step, upto)

        # one that has changed since, and waits for its round, is not found: `beyond` then answers with its neighbour
        totals: list[Changed] = []
        for series in sample.differing:
            changed = self._outbox.changed(sample.slot, step, after=0, upto=upto, beyond=series - 1, limit=1)
            totals += [total for total in changed if total.series == series]
        return totals

    def _choose(self, slot: int, step: int, upto: int) -> list[Changed]:
        """Choose a few totals of a slot, others each time; of series that Carbon has created, if there are any."""
        # one page of the slot, the next one each time, from the first one on again behind the last
        totals: list[Changed] = []
        for beyond in {self._beyond: None, 0: None}:
            totals = totals or self._outbox.changed(slot, step, after=0, upto=upto, beyond=beyond, limit=READ_MOST)
        self._beyond = totals[-1].series if len(totals) == READ_MOST else 0

        # every n-th total of the page; an irrational part of n is the first, so that the choice keeps step with
        # neither slots nor pages
        totals = [total for total in totals if total.is_made] or totals
        stride = max(1, math.ceil(len(totals) / SAMPLE_MOST))
        return totals[int(self._turn * GOLDEN % 1 * stride) :: stride]


def compare(reader: Reader, slot: int, totals: Sequence[Changed]) -> tuple[set[int], list[Difference]]:
    """Return the series of totals that Graphite holds as they are, and the differences of the others.

    Raises:
        ReadbackFailed: Graphite does not answer.
    """
    values = reader.read([total.path for total in totals], slot)
    equal = {total.series for total in totals if values.get(total.path) == float(total.value)}
    others = (total for total in totals if total.series not in equal)
    return equal, [Difference(one.path, slot, float(one.value), values.get(one.path)) for one in others]
