"""Columns of custom `sql`, numbers and times of a result."""

from datetime import timedelta
from decimal import Decimal

import pytest
from builders import query

from shipper.core.errors import QueryRefused
from shipper.core.model import RejectedValue
from shipper.source.result import _epoch, labels_of, number, numbers

CUSTOM = query(sql="...", time="bucket")


def test_measures_are_what_is_left() -> None:
    """Each column that is neither a label nor the bucket is a measure."""
    assert labels_of(CUSTOM, ["action", "count", "bucket", "ms"]) == ["count", "ms"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (["bucket", "n"], "has no column 'action'"),
        (["action", "n"], "has no column 'bucket'"),
        (["action", "bucket"], "has no measure"),
        (["action", "bucket", "n", "n"], "the column 'n' cannot be"),
        (["action", "bucket", "COUNT(*)"], "cannot be a measure's name"),
        (["action", "bucket", "a.b"], "cannot be a measure's name"),
    ],
)
def test_refused(columns: list[str], reason: str) -> None:
    """A result that would lose or mix up numbers is rejected."""
    with pytest.raises(QueryRefused, match=reason):
        labels_of(CUSTOM, columns)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (5, 5),
        (2**64 - 1, 2**64 - 1),
        (0.1, Decimal("0.1")),
        (2.0, 2),
        (5e-324, Decimal("5E-324")),
        (Decimal("0.30"), Decimal("0.30")),
        (Decimal("1E-9000"), 0),
        (Decimal(1) + Decimal("1E-20"), Decimal("1.00000000000000000001")),
        (10**300, 10**300),
        (1e300, 10**300),
        (10**300 + 1, None),
        (-(10**400), None),
        (Decimal("-1E+301"), None),
        (Decimal("1E+131071"), None),
        (1e305, None),
        (float("inf"), None),
        (float("-inf"), None),
        (float("nan"), None),
        (Decimal("Infinity"), None),
        (Decimal("NaN"), None),
        (Decimal("sNaN"), None),
    ],
)
def test_number(value: object, expected: object) -> None:
    """A number is exact, to 400 places; one that Carbon could not hold is None.

    Mutants: math.isfinite, which takes no integer beyond 1e308; no comparison with the largest.
    """
    actual = number(value, "ms")

    assert expected == actual
    assert type(expected) is type(actual)


@pytest.mark.parametrize("value", ["abc", "5", b"5", timedelta(1), [], "a\nb" * 1000])
def test_number_of_nothing(value: object) -> None:
    """A value that is not a number is an error of the configuration, reported in one short line."""
    with pytest.raises(QueryRefused, match=r"the result of ms is .* not a number") as caught:
        number(value, "ms")

    assert len(str(caught.value)) < 150
    assert "\n" not in str(caught.value)


def test_rejected_totals() -> None:
    """A rejected total is reported with its group and measure; the other measures stay."""
    values, rejected = numbers([("a", 1e305), ("b", 3), ("c", None), ("d", Decimal("NaN"))], 7, ("login",))

    assert values == [None, 3, None, None]
    assert rejected == [
        RejectedValue("a", 7, "1e+305", group=("login",)),
        RejectedValue("d", 7, "NaN", group=("login",)),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN"), Decimal("-Infinity"), None])
def test_no_time(value: object) -> None:
    """NaN, infinities and NULL are no time. Mutant: floor them, which is a bug that stops the job."""
    assert _epoch(value, "bucket") is None
