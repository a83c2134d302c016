"""Two sides of a series, slot by slot: what was counted in the source, and what Graphite holds."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from shipper.core.model import Kept, Kind, Span, Value
from shipper.core.retention import Part, ceil, floor, joined
from shipper.core.rows.fold import total

EXACT = 2**53  # up to it each integer is a double of its own
NEAR = 1e-9  # doubles that were added up in another order differ by less

Number = TypeVar("Number", Value, float)

_TOGETHER: dict[Kind, Callable[[Iterable[float]], float]] = {
    Kind.COUNT: sum,
    Kind.SUM: sum,
    Kind.MAX: max,
    Kind.MIN: min,
}


class Counted(NamedTuple):
    """What the source has of a series: how its values are put together, and what was counted, by bucket."""

    kind: Kind
    values: dict[int, Value]


class Difference(NamedTuple):
    """A slot of a series in which they are not equal; None where one of them has nothing."""

    slot: int
    step: int
    path: str
    source: Value | None
    graphite: float | None


@dataclass(slots=True)
class Comparison:
    """What a comparison came to."""

    parts: list[Part]
    """What was compared, oldest first."""
    left_out: Counter[str]
    """How many slots of the finest archive were not, by reason."""
    asked: int = 0
    """How many slots of the finest archive were asked for."""
    equal: int = 0
    """How many values are equal."""
    purged: int = 0
    """How many are left out, because the source no longer has all of their rows."""
    differences: list[Difference] = field(default_factory=list)

    @property
    def compared(self) -> int:
        """Return how many slots of the finest archive were compared."""
        return self.asked - self.left_out.total()

    @property
    def is_mostly_left_out(self) -> bool:
        """Was less than half of what was asked for compared?"""
        return 2 * self.compared < self.asked

    @property
    def spans(self) -> list[Span]:
        """Return when they differ, adjoining slots as one."""
        return joined(Span(one.slot, one.slot + one.step) for one in self.differences)


def compare(part: Part, path: str, counted: Counted, kept: Kept | None, *, into: Comparison, whole_after: int) -> int:
    """Compare a series in the slots of a part; up to whole_after the source may lack rows that it had.

    Return how much of the part that is, seconds: less than all where Graphite's slots are longer, and cut by its ends.
    """
    kept = kept or Kept(0, part.step, ())
    kind, unit = counted.kind, max(part.step, kept.step)
    source = _slots(counted.values.items(), unit, partial(total, kind))
    graphite = _slots(kept.items(), unit, _TOGETHER[kind])
    whole = Span(ceil(part.span.start, unit), floor(part.span.end, unit))
    for slot in sorted(slot for slot in source.keys() | graphite.keys() if slot in whole):
        ours, theirs = source.get(slot), graphite.get(slot)
        if _is_equal(kind, ours, theirs):
            into.equal += 1
        elif slot <= whole_after and _has_more(kind, ours, theirs):
            into.purged += 1
        else:
            into.differences.append(Difference(slot, unit, path, ours, theirs))
    return max(0, whole.end - whole.start)


def _slots(
    values: Iterable[tuple[int, Number]], unit: int, together: Callable[[Iterable[Number]], Number]
) -> dict[int, Number]:
    """Put values together by slots of that length."""
    found: dict[int, list[Number]] = {}
    for time, value in values:
        found.setdefault(floor(time, unit), []).append(value)
    return {slot: together(values) for slot, values in found.items()}


def _is_equal(kind: Kind, ours: Value | None, theirs: float | None) -> bool:
    """Are they the same to Whisper, which keeps doubles? Nothing is as good as 0 where values are added up."""
    if ours is None or theirs is None:
        return kind in {Kind.COUNT, Kind.SUM} and not ours and not theirs
    if isinstance(ours, int) and abs(ours) <= EXACT:
        return ours == theirs
    return math.isclose(float(ours), theirs, rel_tol=NEAR)


def _has_more(kind: Kind, ours: Value | None, theirs: float | None) -> bool:
    """Does Graphite hold what rows that are gone would explain?"""
    return theirs is not None and (ours is None or kind is Kind.MIN or theirs > ours)
