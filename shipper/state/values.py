"""Values in the state file: totals, and groups."""

import json
from decimal import Decimal

from shipper.core.measures import Value
from shipper.core.model import Group

_MOST_CHARACTERS = 20_000
"""Longest text of a total: PostgreSQL's numbers have 16,383 digits after the point."""
_MOST_DIGITS = 1000
"""Most digits before the point: Carbon's values have 308."""


def stored(value: Value) -> int | str:
    """Return a value as the file stores it: as text beyond SQLite's integers, which end at 2^63 - 1."""
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else str(value)


def loaded(value: int | str) -> Value:
    """Return a value that the file has stored; raise ValueError or TypeError for anything else."""
    if isinstance(value, int):
        return value
    number = Decimal(value if len(value) <= _MOST_CHARACTERS else "NaN")
    if not number.is_finite() or number.adjusted() > _MOST_DIGITS:
        raise ValueError(f"a total is {value[:_MOST_DIGITS]!r}")
    return int(number) if number == number.to_integral_value() else number


def group_of(text: str) -> Group:
    """Return a group that the file has stored as JSON; raise ValueError or TypeError for anything else."""
    return group(json.loads(text))


def group(values: object) -> Group:
    """Return the group of a JSON array; raise TypeError for anything else."""
    if not isinstance(values, list) or not all(value is None or isinstance(value, str) for value in values):
        raise TypeError(f"a group is {str(values)[:100]!r}")
    return tuple(values)


def integer(value: object) -> int:
    """Return an integer of a JSON document; raise TypeError for anything else."""
    if type(value) is not int:
        raise TypeError(f"a number is {str(value)[:100]!r}")
    return value
