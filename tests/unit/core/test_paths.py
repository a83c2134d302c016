"""Metric paths, to the byte."""

from decimal import Decimal
from hashlib import sha256

import pytest
from builders import job
from hypothesis import given
from hypothesis import strategies as st

from shipper.core.errors import BadMetric
from shipper.core.paths import brief, is_template, label, paths_of, placeholders
from shipper.source.dialects.sqlite import label_of

VALUES = st.one_of(st.none(), st.text(max_size=300))
LONG = "x" * 300


def test_paths_of_hashes() -> None:
    """Operators can compute a hash: of a single value as it is, of several or NULL as JSON."""
    two = job(by=("action", "outcome"), template="{action}.{outcome}")

    assert paths_of(job(), (None,), digits=6) == [f"events.none-{_hash('[null]')}.count"]
    assert paths_of(two, ("a b", "c"), digits=6) == ["a_b.c-" + _hash('["a b", "c"]')]


def _hash(value: str, digits: int = 6) -> str:
    return sha256(value.encode()).hexdigest()[:digits]


def _ended(text: str) -> str:
    """Return what looks like a label."""
    return f"{text[:100]}...{sha256(text.encode()).hexdigest()}"


@pytest.mark.parametrize(
    ("value", "node"),
    [
        ("login", "login"),
        ("Log-in_2", "Log-in_2"),
        ("a b", "a_b"),
        ("a.b", "a_b"),
        ("a..b", "a__b"),
        ("../etc/passwd", "___etc_passwd"),
        ("a;b=c", "a_b_c"),
        ("a\nb 5 0\nc", "a_b_5_0_c"),
        ("a\0b", "a_b"),
        ("São Tomé", "S_o_Tom_"),
        ("a\u00a0b\u2028c", "a_b_c"),
        ("*?[]{}", "______"),
        ("\U0001f600", "_"),
        ("\u0665", "_"),
        ("", "empty"),
        (None, "none"),
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 93 + "-" + _hash("x" * 101)),
        (LONG, "x" * 93 + "-" + _hash(LONG)),
        (label(LONG), "x" * 93 + "-" + _hash(LONG)),
    ],
)
def test_paths_of_value(value: str | None, node: str) -> None:
    """A group value becomes one node, even with dots."""
    assert paths_of(job(), (value,)) == [f"events.{node}.count"]


@given(*[st.one_of(st.text(max_size=400), st.builds(_ended, st.text(min_size=95, max_size=120)))] * 2)
def test_label(one: str, other: str) -> None:
    """Two values have one label, and one path with all digits, only if they are equal; SQLite's label is the same.

    Mutants: no hash; the hash of the beginning.
    """
    long = one.encode()

    assert (label(one) == label(other)) == (one == other)
    assert (paths_of(job(), (label(one),), digits=64) == paths_of(job(), (label(other),), digits=64)) == (one == other)
    assert len(label(one)) <= 167
    assert len(long) <= 100 or label_of("UTF-8", long, 0) == label(one)


def test_paths_of_template() -> None:
    """Columns and the measure may be anywhere in the template, in any order."""
    wanted = job(template="audit.{measure}.by-{outcome}.{action}", by=("action", "outcome"))

    assert paths_of(wanted, ("login", "ok")) == ["audit.count.by-ok.login"]


def test_paths_of_too_long() -> None:
    """A path that Carbon could not store is rejected."""
    columns = tuple(f"c{n}" for n in range(12))
    wide = job(template=".".join(f"{{{column}}}" for column in columns), by=columns)

    with pytest.raises(BadMetric, match="too long"):
        paths_of(wide, (LONG,) * 12)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        ("a", "'a'"),
        ("a\nb\u2028\0\x85\t", r"'a\nb\u2028\x00\x85\t'"),
        ("x" * 58, "'" + "x" * 58 + "'"),
        ("x" * 59, "'" + "x" * 56 + "..."),
        (("a\n", None), r"('a\n', None)"),
        (1e305, "1e+305"),
        (float("nan"), "nan"),
        (Decimal("-Infinity"), "-Infinity"),
        (Decimal("sNaN"), "NaN"),
        (10**400, "1e+400"),
        (-(10**400) + 1, "-1e+400"),
        (Decimal(12) * 10**5000, "1.2e+5001"),
    ],
)
def test_brief(value: object, shown: str) -> None:
    """Any value is one line of at most 60 characters. Mutants: str instead of repr; the digits of a number cut off."""
    assert shown == brief(value)


@pytest.mark.parametrize(("template", "expected"), [("a.{b}.c", True), ("a..{b}", False), ("a b", False), ("{", False)])
def test_is_template(template: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    """A template is a metric path with placeholders."""
    assert is_template(template) is expected


def test_placeholders() -> None:
    """Placeholders are listed in order."""
    assert placeholders("a.{b}.x-{c}.{measure}") == ["b", "c", "measure"]
