"""Durations as the configuration and commands read and show them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper.core.durations import LONGEST, PATTERN, parse, show


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1w1d", 691_200),
        ("100y", LONGEST),
        ("1y2w3d4h5m6s", 31_536_000 + 2 * 604_800 + 3 * 86_400 + 4 * 3600 + 5 * 60 + 6),
    ],
)
def test_parse(text: str, seconds: int) -> None:
    """A duration is one or more numbers with units, the larger units first."""
    assert parse(text) == seconds
    assert re.fullmatch(PATTERN, text)


@pytest.mark.parametrize(
    "text",
    ["", "0s", "1h0m", "90", "s", "1 h", "-1s", "1.5h", "30m1h", "1m1m", "1H", "101y", "100y1s", "1min", "\u0661s"],
)
def test_no_duration(text: str) -> None:
    """Anything else is no duration."""
    assert parse(text) is None


@given(st.text("0123456789ywdhms \u0661\u00b2", max_size=12) | st.integers(0, 10**12).map(lambda number: f"{number}s"))
def test_any_text(text: str) -> None:
    """A text is no duration, or one that the schema accepts, too. Mutant: no limit."""
    seconds = parse(text)

    assert seconds is None or (0 < seconds <= LONGEST and re.fullmatch(PATTERN, text))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.4, "0s"),
        (59.7, "1m"),
        (340, "5m40s"),
        (3600, "1h"),
        (3601, "1h"),
        (90_061, "1d1h"),
        (86_460, "1d"),
        (5 * 31_536_000, "1825d"),
    ],
)
def test_show(seconds: float, text: str) -> None:
    """A duration shows its two largest units, as people write it."""
    assert show(seconds) == text
