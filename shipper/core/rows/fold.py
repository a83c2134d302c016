"""Rows: which bucket and group they add to, and what cannot be shown.

Strategy: Carbon keeps only the last write of a slot, so a slot's running total is kept and always sent whole.
Values are exact: integers, or decimals with as many digits as it takes.
"""

import decimal
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from shipper.core.model import Cause, Group, Job, Kind, Reason, Refusal, Row, Span, Value
from shipper.core.retention import oldest_shown

MAX_SKEW_SECONDS = 300
"""How far a row's time may be ahead of its source's clock, beyond its own bucket."""

MOST = 10**300
"""No value and no total is beyond it, so that Whisper can add those of a coarser slot and stay below infinity."""

YEAR_SECONDS = 366 * 86_400
"""What is further ahead is a mistake, and there may be any number of such times."""

_EXACT = decimal.Context(prec=5000, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow])


class Cell(NamedTuple):
    """What one group has in one bucket."""

    rows: int
    values: tuple[Value | None, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """Rows added up by group and bucket, those that cannot be shown, by cause, and values that were left out."""

    cells: dict[tuple[Group, int], Cell] = field(default_factory=dict)
    unshown: Counter[Reason] = field(default_factory=Counter)
    refused: list[Refusal] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows were folded, shown or not."""
        return sum(cell.rows for cell in self.cells.values()) + self.unshown.total()


def shown(job: Job, *, now: int, source_time: int) -> Span:
    """Return the buckets that can be shown; the new end lets clocks differ a little."""
    oldest = max(job.query.bucket, oldest_shown(job.archives, now))  # Carbon drops a timestamp of 0
    return Span(oldest, source_time + job.query.bucket + MAX_SKEW_SECONDS + 1)


def fold(rows: Iterable[Row], span: Span, kinds: tuple[Kind, ...], into: Folded | None = None) -> Folded:
    """Add rows up by group and bucket."""
    folded = into or Folded()
    for bucket, group, rows_in, values, refused in rows:
        folded.refused.extend(refused)
        if bucket is None or bucket not in span:
            folded.unshown[_reason(bucket, span)] += rows_in
            continue
        before = folded.cells.get((group, bucket))
        if before is not None:
            rows_in += before.rows  # noqa: PLW2901 - the cell's, from here on
            values = tuple(map(together, kinds, before.values, values))  # noqa: PLW2901
        folded.cells[group, bucket] = Cell(rows_in, values)
    return folded


def together(kind: Kind, one: Value | None, other: Value | None) -> Value | None:
    """Put two values of a measure together; None is none."""
    if one is None or other is None:
        return other if one is None else one
    match kind:
        case Kind.MAX:
            return max(one, other)
        case Kind.MIN:
            return min(one, other)
        case _ if isinstance(one, int) and isinstance(other, int):
            return one + other
        case _:
            return exact(_EXACT.add(one, other))


def total(kind: Kind, values: Iterable[Value]) -> Value:
    """Put values of a measure together, of which there is at least one."""
    found: Value | None = None
    for value in values:
        found = together(kind, found, value)
    assert found is not None
    return found


def exact(value: decimal.Decimal) -> Value:
    """Return an int where the value is whole."""
    return int(value) if value == value.to_integral_value() else value


def _reason(bucket: int | None, span: Span) -> Reason:
    if bucket is None:
        return Reason(Cause.NO_TIME)
    if bucket < span.start:
        return Reason(Cause.TOO_OLD)
    return Reason(Cause.FUTURE, bucket if bucket < span.end + YEAR_SECONDS else None)
