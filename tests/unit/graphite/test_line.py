"""Datapoints as Carbon reads them, byte by byte."""

from contextlib import nullcontext
from decimal import Decimal

import graphyte
import pytest
from builders import job
from hypothesis import given
from hypothesis import strategies as st

from shipper.core.errors import BadMetric
from shipper.core.measures import Value
from shipper.core.paths import paths_of
from shipper.graphite.carbon import line

VALUES = st.one_of(st.none(), st.text(max_size=300))


@pytest.mark.parametrize(
    ("path", "value", "slot", "expected"),
    [
        ("a.count", 5, 1790000040, b"a.count 5 1790000040\n"),
        ("a.count", 0, 60, b"a.count 0 60\n"),
        ("a.count", -3, 60, b"a.count -3 60\n"),
        ("A-b_c.0", 2**53 + 1, 60, b"A-b_c.0 9007199254740993 60\n"),
    ],
)
def test_line(path: str, value: int, slot: int, expected: bytes) -> None:
    """A datapoint is path, value and timestamp, as graphyte writes them."""
    assert line(path, value, slot) == expected
    assert graphyte.Sender("carbon").build_message(path, value, slot) == expected


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, b"0"),
        (-7, b"-7"),
        (2**63 - 1, b"9223372036854775807"),
        (2**63, b"9.223372036854776e+18"),
        (Decimal("0.25"), b"0.25"),
        (Decimal("-0.1"), b"-0.1"),
        (Decimal("1e-7"), b"1e-07"),
        (10**300, b"1e+300"),
    ],
)
def test_line_value(value: Value, shown: bytes) -> None:
    """A value keeps every digit that Whisper can hold."""
    assert line("a.b", value, 60) == b"a.b %s 60\n" % shown
    assert float(shown) == float(value)


@pytest.mark.parametrize(
    ("path", "is_good"),
    [
        ("a.b;dc=eu", True),
        ("a;x=1;y=b.c", True),
        ("a;dc=", False),
        ("a;=eu", False),
        ("a;dc=~eu", False),
        ("a;", False),
    ],
)
def test_line_tags(path: str, is_good: bool) -> None:  # noqa: FBT001 - a column of the table
    """Tags are name=value, each with a value that Carbon accepts."""
    with nullcontext() if is_good else pytest.raises(BadMetric):
        line(path, 1, 60)


@pytest.mark.parametrize(
    ("path", "value", "slot"),
    [
        ("a b", 1, 60),
        ("a..b", 1, 60),
        (".a", 1, 60),
        ("a.", 1, 60),
        ("", 1, 60),
        ("a/b", 1, 60),
        ("é", 1, 60),
        ("a\n", 1, 60),
        ("a" * 252, 1, 60),
        (".".join(["a" * 99] * 10), 1, 60),
        ("a", 17 * 10**307, 60),
        ("a", -(10**400), 60),
        ("a", Decimal("1e400"), 60),
        ("a", 1, 0),
        ("a", 1, -1),
    ],
)
def test_line_refused(path: str, value: Value, slot: int) -> None:
    """A datapoint that Carbon would misread is an error."""
    with pytest.raises(BadMetric):
        line(path, value, slot)


@given(VALUES, st.integers(0, 2**63 - 1), st.integers(1, 2**32))
def test_line_parses_back(value: str | None, count: int, slot: int) -> None:
    """Carbon reads the same datapoint back: exactly three fields, numbers through float()."""
    (path,) = paths_of(job(), (value,))
    fields = line(path, count, slot).decode("utf-8").split()  # carbon/protocols.py lineReceived

    assert [path, float(count), float(slot)] == [fields[0], float(fields[1]), float(fields[2])]
    assert len(fields) == 3
