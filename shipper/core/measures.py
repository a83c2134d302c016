"""Measures: how values are combined, and what Graphite must do with them.

A measure must combine across windows of ids: two parts of a slot are counted at different times.
"""

import decimal
from collections.abc import Callable, Iterable
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

Value = int | Decimal
"""Exact value of a measure: a Decimal only where an int cannot hold it."""

_EXACT = decimal.Context(prec=5000, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow])


class Kind(StrEnum):
    """Kind of a measure, as the configuration and the state name it."""

    COUNT = "count"
    SUM = "sum"
    MAX = "max"
    MIN = "min"

    @property
    def is_additive(self) -> bool:
        """Whether the values of parts add up to that of all, and no rows are a 0."""
        return _RULES[self].is_additive

    @property
    def aggregation(self) -> str:
        """Method of Carbon's coarser archives, and of Graphite where it puts datapoints together."""
        return _RULES[self].aggregation

    def combine(self, one: Value | None, other: Value | None) -> Value | None:
        """Return the value of two parts together; None is a part without a value."""
        if one is None or other is None:
            return other if one is None else one
        return _RULES[self].combine(one, other)


class _Rule(NamedTuple):
    combine: Callable[[Value, Value], Value]
    is_additive: bool
    aggregation: str


def exact(value: Decimal) -> Value:
    """Return an int where the value is a whole number."""
    return int(value) if value == value.to_integral_value() else value


def _sum(one: Value, other: Value) -> Value:
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    return exact(_EXACT.add(one, other))


_RULES = {
    Kind.COUNT: _Rule(_sum, is_additive=True, aggregation="sum"),
    Kind.SUM: _Rule(_sum, is_additive=True, aggregation="sum"),
    Kind.MAX: _Rule(max, is_additive=False, aggregation="max"),
    Kind.MIN: _Rule(min, is_additive=False, aggregation="min"),
}
"""One row a kind: everything that differs between them, but for its SQL (source/measure.py)."""


def combined(kind: Kind, values: Iterable[Value]) -> Value:
    """Return the value of parts together, of which there is at least one."""
    total: Value | None = None
    for value in values:
        total = kind.combine(total, value)
    assert total is not None
    return total


class Measure(NamedTuple):
    """One aggregated number of a group, and its name in the metric path; a count has no column."""

    name: str
    kind: Kind
    column: str | None = None


COUNT = Measure("count", Kind.COUNT)
