"""Measures: how values are combined, and what Graphite must do with them.

Two parts of a bucket are counted at different times, in different windows of ids. A measure that does not combine
across windows is indivisible: each change of a bucket counts all of it again.
"""

import decimal
from collections.abc import Callable, Iterable
from decimal import Decimal
from enum import StrEnum
from functools import reduce
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
    DISTINCT = "distinct"

    @property
    def has_zero(self) -> bool:
        """Whether no rows are a 0, not a missing value."""
        return _RULES[self].has_zero

    @property
    def is_divisible(self) -> bool:
        """Whether the values of two parts of a bucket give that of all; else only a statement on all its rows does."""
        return _RULES[self].is_divisible

    @property
    def aggregation(self) -> str:
        """Method of Carbon's coarser archives, and of Graphite where it puts datapoints together."""
        return _RULES[self].aggregation

    def combine(self, one: Value | None, other: Value | None) -> Value | None:
        """Return the value of two buckets together, or of two parts of one; None is one without a value."""
        if one is None or other is None:
            return other if one is None else one
        return _RULES[self].combine(one, other)

    def difference(self, one: Value | None, other: Value | None) -> Value | None:
        """Return what must be combined with the other value to give one; None is no value."""
        if other is None or _RULES[self].combine is not _sum:
            return one
        return _sum(one or 0, -other)

    def has_more(self, one: float, other: Value) -> bool:
        """Whether a value can be that of the other's rows together with more rows."""
        return one < other if _RULES[self].combine is min else one > other


class _Rule(NamedTuple):
    combine: Callable[[Value, Value], Value]
    has_zero: bool
    is_divisible: bool
    aggregation: str


def exact(value: Decimal) -> Value:
    """Return an int where the value is a whole number."""
    return int(value) if value == value.to_integral_value() else value


def _sum(one: Value, other: Value) -> Value:
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    return exact(_EXACT.add(one, other))


_RULES = {
    Kind.COUNT: _Rule(_sum, has_zero=True, is_divisible=True, aggregation="sum"),
    Kind.SUM: _Rule(_sum, has_zero=True, is_divisible=True, aggregation="sum"),
    Kind.MAX: _Rule(max, has_zero=False, is_divisible=True, aggregation="max"),
    Kind.MIN: _Rule(min, has_zero=False, is_divisible=True, aggregation="min"),
    # the users of an hour are not the sum of those of its minutes: a coarser slot has the largest of its buckets
    Kind.DISTINCT: _Rule(max, has_zero=True, is_divisible=False, aggregation="max"),
}
"""One row a kind: everything that differs between them, but for its SQL (source/statements/counts.py, result.py)."""


def combined(kind: Kind, values: Iterable[Value]) -> Value:
    """Return the value of buckets or parts together, of which there is at least one."""
    return reduce(_RULES[kind].combine, values)


class Measure(NamedTuple):
    """One aggregated number of a group, and its name in the metric path; a count has no column."""

    name: str
    kind: Kind
    column: str | None = None


COUNT = Measure("count", Kind.COUNT)
