"""Ids: the horizon, and the windows on the way to it."""

import pytest
from builders import horizon
from hypothesis import given
from hypothesis import strategies as st

from shipper.model import MAX_ID, Window
from shipper.window import Settling, next_window


@pytest.mark.parametrize(
    ("captured", "horizon", "first", "expected"),
    [
        (0, 1, None, 1),
        (0, 10, None, 10),
        (0, 11, None, 10),
        (7, 30, None, 17),
        (MAX_ID - 1, MAX_ID, None, MAX_ID),
        (7, 30, 8, 17),
        (7, 30, 15, 24),
        (7, 30, 30, 30),
        (7, 10**12, 10**12 - 3, 10**12),
    ],
)
def test_next_window(captured: int, horizon: int, first: int | None, expected: int) -> None:
    """A window begins at captured and ends at the horizon, a chunk away, or a chunk behind a hole."""
    assert Window(captured, expected) == next_window(captured, horizon, chunk=10, first=first)


@given(st.sets(st.integers(1, 400), min_size=1), st.integers(1, 50), st.data())
def test_windows_tile(ids: set[int], chunk: int, data: st.DataObject) -> None:
    """Windows tile the ids without gap or overlap, and none holds more than chunk of them, holes skipped or not.

    Mutants: captured + 1; start at first.
    """
    captured, horizon, seen = 0, max(ids), []
    while captured < horizon:
        first = min(found for found in ids if found > captured) if data.draw(st.booleans()) else None
        window = next_window(captured, horizon, chunk=chunk, first=first)
        inside = [found for found in ids if window.after < found <= window.upto]
        assert window.after == captured
        assert len(inside) <= chunk
        seen += inside
        captured = window.upto

    assert sorted(seen) == sorted(ids)


@pytest.mark.parametrize("ends", [(5, 5), (6, 5), (-1, 5), (0, MAX_ID + 1)])
def test_window_refused(ends: tuple[int, int]) -> None:
    """What is not a window of ids cannot be built."""
    with pytest.raises(ValueError, match="not a window"):
        Window(*ends)


def test_settling_waits() -> None:
    """An observation is no horizon before settle has passed. Mutant: return the newest observation at once."""
    settling = Settling(10)
    settling.add(horizon(5, clock=100))

    assert settling.take(109.9) is None
    assert settling.delay(109) == 1
    taken = settling.take(110)
    assert taken is not None
    assert taken.id == 5


def test_settling_newest_first() -> None:
    """Of several that have settled the newest is the horizon; younger ones stay, each is taken once."""
    settling = Settling(10)
    for number in range(5):
        settling.add(horizon(number, clock=100 + number))

    first, second, third = settling.take(112), settling.take(112), settling.take(113)

    assert first is not None
    assert third is not None
    assert (first.id, second, third.id) == (2, None, 3)


def test_settling_nothing_waiting() -> None:
    """Without an observation there is neither a horizon nor a delay."""
    assert Settling(10).take(1e9) is None
    assert Settling(10).delay(0) is None
