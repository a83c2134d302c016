"""A canary: a test series whose values show how Carbon stores and aggregates series like those of shipper.

Strategy: one slot of the second archive gets all its points, another slot a single point. Their values in the second
archive show the aggregation method and xFilesFactor; the archive that answers for an age shows the retentions. Which
slots get points does not depend on the time of the test, so points of earlier canaries do not disturb it.

The last point is sent several times, with growing and then with shrinking values: shipper depends on a receiver that
keeps the last one. Values of later canaries are larger, so that an earlier one is never taken for the largest.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from shipper.core import durations
from shipper.core.model import Archive, SeriesData, Span
from shipper.core.retention import EDGE_SECONDS, after, floor

SLOTS = 4  # the newest slots of the second archive, in which points may be
ENOUGH = 100  # slots of an answer, so that a wrong step shows
SINGLE, FIRST, SECOND, OTHER = 3, 4, 1, 2  # values whose sum, mean, extremes and last all differ
REWRITES = 4, 9  # what the last point has before its value, as multiples: first, largest, mean, sum and last all differ

AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "average": lambda values: sum(values) / len(values),  # fmean raises where doubles overflow
    "max": max,
    "min": min,
    "last": lambda values: values[-1],
}
"""Whisper's aggregation methods."""


_UNWRITTEN = (
    "Check that Carbon can write (disk, permissions), and that render_url names the graphite-web that reads its files; "
    "then run `shipper admin doctor --wait 2m`."
)
_OVERWRITES = "a value sent again: Graphite keeps the {}, not the last"
_REMEDIES = {
    "average": "Use Carbon instead; or keep VictoriaMetrics with the flags of deploy/receivers.md: the largest value "
    "then wins, which is right for counts that only grow; this test still shows ✗.",
    "largest": "Use Carbon instead; or keep this receiver for counts that only grow (deploy/receivers.md): a value "
    "that shrinks stays wrong (recounts, lookback, min).",
    "first": "Use Carbon instead, or another receiver that overwrites values.",
    "sum": "Remove the aggregator between shipper and Graphite: shipper sends complete totals.",
}


class Question(NamedTuple):
    """A request to Graphite: a span, and the step that the answer should have."""

    span: Span
    step: int


class Verdict(NamedTuple):
    """Judgement of one setting of Carbon; without a remedy where it is right."""

    is_good: bool
    text: str
    remedy: str = ""


class Sums(NamedTuple):
    """Aggregation of the values of one archive in the next coarser one; None where the answers do not show it."""

    step: int
    into: int
    method: str | None
    keeps_single: bool | None
    """Whether a slot has a value although most of its finer slots have none."""


class Canary:
    """The points to send, the questions to ask, and the judgement of the answers."""

    def __init__(self, archives: Sequence[Archive], now: int) -> None:
        """Set up a canary for the archives that Carbon should have."""
        self._archives = archives
        self._now = now
        self.points = _points(archives, now)
        """Slots and values, the single point first: once the series is there, that point is written."""
        slot, value = self.points[-1]
        self.rewrites = [(slot, value * times) for times in REWRITES]
        """Earlier values of the last point, in the order in which they are sent, each in a separate connection."""
        self._ends = [self._end(archive) for archive in archives]
        self._views = [self._view(number) for number in range(len(archives))]
        self.questions = [*self._ends, *self._views]

    def has_arrived(self, answers: Sequence[SeriesData | None]) -> bool:
        """Whether Graphite holds the last point."""
        return self._last_point(answers) == self.points[-1][1]

    def judge_arrival(self, before: Sequence[SeriesData | None], answers: Sequence[SeriesData | None]) -> list[Verdict]:
        """Judge whether the last point has the last of its values; before: the answers before it was sent."""
        arrival = Verdict(True, "sent values can be read")
        if self.has_arrived(answers):
            return [arrival, Verdict(True, "the last value of a slot wins")]
        value, data = self._last_point(answers), answers[len(self._archives)]
        if value is None or data is None or data.step != self._archives[0].step or value == self._last_point(before):
            return [Verdict(False, "the test series exists, but the values just sent are not in it", _UNWRITTEN)]
        kind = self._kind_of(value)
        return [arrival, Verdict(False, _OVERWRITES.format(kind), _REMEDIES[kind])]

    def sums(self, answers: Sequence[SeriesData | None]) -> list["Sums"]:
        """Return how each archive is aggregated in the next one."""
        views = pairwise(answers[len(self._archives) :])
        return [sums_of(finer, coarser) for finer, coarser in views if finer and coarser and finer.step < coarser.step]

    def verdicts(self, answers: Sequence[SeriesData | None]) -> list[Verdict]:
        """Judge the retentions and the aggregation of Carbon."""
        # each archive must answer for values that are nearly as old as its retention
        verdicts = list(map(self._judge_archive, self._archives, self._ends, answers))
        # a finer archive that is kept for longer than it should be answers for the next
        views = map(self._judge_archive, self._archives, self._views, answers[len(self._archives) :])
        verdicts += [verdict for verdict in views if not verdict.is_good]
        return verdicts + [_judge_sums(sums) for sums in self.sums(answers)]

    def _last_point(self, answers: Sequence[SeriesData | None]) -> float | None:
        """Return the value that Graphite holds of the last point."""
        data = answers[len(self._archives)]
        return None if data is None else dict(data.items()).get(floor(self.points[-1][0], data.step))

    def _kind_of(self, value: float) -> str:
        """Return how Graphite combines the values of the last point; all of them may have been sent several times."""
        first, largest = (value for _, value in self.rewrites)
        if value == first:
            return "first"
        if value < largest:
            return "average"
        return "largest" if value == largest else "sum"

    def _end(self, archive: Archive) -> Question:
        """Ask for values that are nearly as old as the archive keeps them."""
        start = after(self._now - archive.duration + EDGE_SECONDS, archive.step)
        return Question(Span(start, start + ENOUGH * archive.step), archive.step)

    def _view(self, number: int) -> Question:
        """Ask an archive for the points; the span begins before the end of the finer archive, which cannot answer."""
        archive, (first, last) = self._archives[number], (find(slot for slot, _ in self.points) for find in (min, max))
        step = archive.step
        if number:
            start = floor(self._now - self._archives[number - 1].duration - EDGE_SECONDS, step) - step
        else:
            step = self._archives[:2][-1].step
            start = max(floor(first, step), self._ends[0].span.start)
        return Question(Span(start, floor(last, step) + step), archive.step)

    def _judge_archive(self, archive: Archive, question: Question, data: SeriesData | None) -> Verdict:
        """Judge whether an archive answers for an age, with its step."""
        age, step = durations.show(self._now - question.span.start), durations.show(archive.step)
        remedy = "Give Carbon the retentions of [graphite], which `shipper admin carbon-conf` prints."
        if data is None or not data.values or data.start > question.span.start + data.step:
            return Verdict(False, f"values {age} old are not kept", remedy)
        if data.step != archive.step:
            return Verdict(False, f"values {age} old have a step of {durations.show(data.step)}, not {step}", remedy)
        return Verdict(True, f"a value every {step} is kept for {durations.show(archive.duration)}")


def sums_of(finer: SeriesData, coarser: SeriesData) -> Sums:
    """Return how the values of an archive are aggregated in the next one."""
    # the values of each coarser slot that the finer archive shows completely
    parts: dict[int, list[float]] = {}
    for slot, value in finer.items():
        if (into := floor(slot, coarser.step)) >= finer.start:
            parts.setdefault(into, []).append(value)

    # the first method that explains all of them; slots of a single value fit any method
    values_of = dict(coarser.items())
    pairs = [(values, values_of[slot]) for slot, values in parts.items() if slot in values_of]
    fitting = [name for name, of in AGGREGATIONS.items() if all(math.isclose(of(part), one) for part, one in pairs)]
    is_conclusive = any(len(values) > 1 for values, _ in pairs)
    method = fitting[0] if fitting and is_conclusive else None
    return Sums(finer.step, coarser.step, method, parts.keys() <= values_of.keys() if parts else None)


def _judge_sums(sums: Sums) -> Verdict:
    """Judge whether a coarser archive holds the sums of a finer one."""
    coarse, fine = f"{durations.show(sums.into)} values", f"{durations.show(sums.step)} values"
    setting = "as `shipper admin carbon-conf` prints"
    if sums.keeps_single is False:
        text = f"{coarse} are missing where there are few {fine}: xFilesFactor is not 0"
        return Verdict(False, text, f"Set xFilesFactor to 0, {setting}.")
    if sums.method not in {"sum", None}:
        text = f"{coarse} are the {sums.method} of {fine}, not the sum"
        return Verdict(False, text, f"Set aggregationMethod to sum, {setting}.")
    return Verdict(True, f"{coarse} {f'are the sum of {fine}' if sums.method else 'are kept'} (even with gaps)")


def _points(archives: Sequence[Archive], now: int) -> list[tuple[int, int]]:
    """Return slots and values of the points: a single one in one slot of the second archive, all in another."""
    factor = now  # values of another canary differ
    step = archives[0].step
    oldest, newest = after(now - archives[0].duration + EDGE_SECONDS, step), floor(now, step) - step
    if len(archives) == 1:
        return [(newest, SINGLE * factor)]
    length = archives[1].step
    single, full = (_slots_of(parity, oldest, newest, step=step, length=length) for parity in (1, 0))
    values = [FIRST, SECOND, *[OTHER] * len(full)]
    points = [*zip(single[:1], [SINGLE], strict=False), *zip(full, values, strict=False)]
    return [(slot, value * factor) for slot, value in points]


def _slots_of(parity: int, oldest: int, newest: int, *, step: int, length: int) -> range:
    """Return the slots of the finest archive in the newest complete slot of the next; odd ones are for single points.

    The parity keeps a single point alone: another canary never sends all points to the same slot.
    """
    begins = range(floor(newest, length), floor(newest, length) - SLOTS * length, -length)
    ranges = [range(one, min(one + length, newest + step), step) for one in begins if one // length % 2 == parity]
    shown = (slots for slots in ranges if slots.start >= oldest)
    return max(shown, key=len, default=range(oldest, newest + step, step))
