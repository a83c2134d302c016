"""Values of totals in the state file."""

from decimal import Decimal

from shipper.core.measures import Value


def stored(value: Value) -> int | str:
    """Return a value as the file stores it: as text beyond SQLite's integers, which end at 2^63 - 1."""
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else str(value)


def loaded(value: int | str) -> Value:
    """Return a value that the file has stored."""
    if isinstance(value, int):
        return value
    number = Decimal(value)
    return int(number) if number == number.to_integral_value() else number
