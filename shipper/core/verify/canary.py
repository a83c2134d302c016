"""A canary: a few points of the past, by which Graphite shows how it keeps series like ours.

Strategy: one slot of the second archive gets all its points, and another a single one. What they come to tells how
Carbon adds up, and how much it takes for enough. What answers for times as old as an archive may be tells how long that
is kept. Which slots get what does not depend on when it is asked, so what an earlier canary left is evidence, too.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from shipper.core import durations
from shipper.core.model import Archive, SeriesData, Span
from shipper.core.retention import EDGE_SECONDS, after, floor

SLOTS = 4  # of the second archive, from the newest on, in which points may be
ENOUGH = 100  # slots of an answer, so that a wrong step shows itself
SINGLE, FIRST, SECOND, OTHER = 3, 4, 1, 2  # so that sum, mean, extremes and last of all points differ

AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "average": fmean,
    "max": max,
    "min": min,
    "last": lambda values: values[-1],
}
"""Whisper's aggregation methods."""


class Question(NamedTuple):
    """What Graphite is asked: what it holds in a span, and in slots of which step it should answer."""

    span: Span
    step: int


class Verdict(NamedTuple):
    """One thing that was learned; remedy is empty where nothing is wrong."""

    is_good: bool
    text: str
    remedy: str = ""


class Sums(NamedTuple):
    """What the values of an archive come to in the next; None where that does not show."""

    step: int
    into: int
    method: str | None
    keeps_single: bool | None


class Canary:
    """What is sent, what is asked, and what the answers mean."""

    def __init__(self, archives: Sequence[Archive], now: int) -> None:
        """Archives are those that Carbon should have."""
        self._archives = archives
        self._now = now
        self.points = _points(archives, now)
        """Slots and values, the single one first: once the series is there, that is written."""
        self._ends = [self._end(archive) for archive in archives]
        self._views = [self._view(number) for number in range(len(archives))]
        self.questions = [*self._ends, *self._views]

    def has_arrived(self, answers: Sequence[SeriesData | None]) -> bool:
        """Does Graphite hold the last point?"""
        kept, (slot, value) = answers[len(self._archives)], self.points[-1]
        return kept is not None and dict(kept.items()).get(floor(slot, kept.step)) == value

    def sums(self, answers: Sequence[SeriesData | None]) -> list["Sums"]:
        """Say how each archive becomes the next."""
        views = pairwise(answers[len(self._archives) :])
        return [summed(finer, coarser) for finer, coarser in views if finer and coarser and finer.step < coarser.step]

    def verdicts(self, answers: Sequence[SeriesData | None]) -> list[Verdict]:
        """Say what is right and what is not."""
        kept = list(map(self._kept, self._archives, self._ends, answers))
        # a finer archive that is kept for longer than it should be answers for the next
        views = map(self._kept, self._archives, self._views, answers[len(self._archives) :])
        kept += [verdict for verdict in views if not verdict.is_good]
        return kept + [_judged(sums) for sums in self.sums(answers)]

    def _end(self, archive: Archive) -> Question:
        """Ask for what is nearly as old as it is kept."""
        start = after(self._now - archive.duration + EDGE_SECONDS, archive.step)
        return Question(Span(start, start + ENOUGH * archive.step), archive.step)

    def _view(self, number: int) -> Question:
        """Ask what an archive holds of the points: one answers that begins before the end of the finer one."""
        archive, (first, last) = self._archives[number], (find(slot for slot, _ in self.points) for find in (min, max))
        step = archive.step
        if number:
            start = floor(self._now - self._archives[number - 1].duration - EDGE_SECONDS, step) - step
        else:
            step = self._archives[:2][-1].step
            start = max(floor(first, step), self._ends[0].span.start)
        return Question(Span(start, floor(last, step) + step), archive.step)

    def _kept(self, archive: Archive, question: Question, kept: SeriesData | None) -> Verdict:
        """Say whether an archive answers as it should."""
        age = durations.show(self._now - question.span.start)
        remedy = "Its retentions must be those of [graphite], which `shipper admin carbon-conf` prints."
        if kept is None or not kept.values or kept.start > question.span.start + kept.step:
            return Verdict(False, f"what is {age} old is not kept any more", remedy)
        if kept.step != archive.step:
            steps = f"each {durations.show(kept.step)}, not each {durations.show(archive.step)}"
            return Verdict(False, f"what is {age} old has a value {steps}", remedy)
        return Verdict(
            True, f"a value each {durations.show(archive.step)} is kept for {durations.show(archive.duration)}"
        )


def summed(finer: SeriesData, coarser: SeriesData) -> Sums:
    """Say how the values of an archive become those of the next."""
    parts: dict[int, list[float]] = {}
    for slot, value in finer.items():
        if (whole := floor(slot, coarser.step)) >= finer.start:
            parts.setdefault(whole, []).append(value)
    held = dict(coarser.items())
    pairs = [(values, held[slot]) for slot, values in parts.items() if slot in held]
    fitting = [name for name, of in AGGREGATIONS.items() if all(math.isclose(of(part), one) for part, one in pairs)]
    is_telling = any(len(values) > 1 for values, _ in pairs)
    method = fitting[0] if fitting and is_telling else None
    return Sums(finer.step, coarser.step, method, parts.keys() <= held.keys() if parts else None)


def _judged(sums: Sums) -> Verdict:
    """Say whether a coarser archive will hold the sums of a finer one."""
    what = f"in slots of {durations.show(sums.into)} values of {durations.show(sums.step)}"
    if sums.keeps_single is False:
        text, remedy = f"{what} are dropped where they are few: xFilesFactor is not 0", "Most minutes have no rows."
    elif sums.method not in {"sum", None}:
        text, remedy = f"{what} come to their {sums.method}, not to their sum", "aggregationMethod must be sum."
    else:
        return Verdict(True, f"{what} {'come to their sum' if sums.method else 'are kept'}, single ones too")
    return Verdict(False, text, f"{remedy} `shipper admin carbon-conf` prints how it must be.")


def _points(archives: Sequence[Archive], now: int) -> list[tuple[int, int]]:
    factor = 1 + now % 997  # so that it is not taken for another canary's
    step = archives[0].step
    oldest, newest = after(now - archives[0].duration + EDGE_SECONDS, step), floor(now, step) - step
    if len(archives) == 1:
        return [(newest, SINGLE * factor)]
    length = archives[1].step
    single, whole = (_slots_of(parity, oldest, newest, step=step, length=length) for parity in (1, 0))
    values = [FIRST, SECOND, *[OTHER] * len(whole)]
    points = [*zip(single[:1], [SINGLE], strict=False), *zip(whole, values, strict=False)]
    return [(slot, value * factor) for slot, value in points]


def _slots_of(parity: int, oldest: int, newest: int, *, step: int, length: int) -> range:
    """Return the slots of the finest archive in the newest whole one of the next: odd ones are for single points."""
    begins = range(floor(newest, length), floor(newest, length) - SLOTS * length, -length)
    found = [range(one, min(one + length, newest + step), step) for one in begins if one // length % 2 == parity]
    return max((slots for slots in found if slots.start >= oldest), key=len, default=range(oldest, newest + step, step))
