"""Ids: the horizon, and the windows that lead up to it."""

from itertools import pairwise

import pytest
from builders import horizon
from hypothesis import given
from hypothesis import strategies as st

from shipper.model import MAX_ID, Window
from shipper.window import Settling, plan


@pytest.mark.parametrize(
    ("captured", "upto", "chunk", "expected"),
    [
        (0, 0, 10, []),
        (5, 5, 10, []),
        (9, 5, 10, []),
        (0, 1, 10, [(0, 1)]),
        (0, 10, 10, [(0, 10)]),
        (0, 11, 10, [(0, 10), (10, 11)]),
        (7, 30, 10, [(7, 17), (17, 27), (27, 30)]),
        (MAX_ID - 1, MAX_ID, 10, [(MAX_ID - 1, MAX_ID)]),
    ],
)
def test_plan(captured: int, upto: int, chunk: int, expected: list[tuple[int, int]]) -> None:
    """Windows begin behind captured and end at the horizon."""
    assert [Window(*ends) for ends in expected] == list(plan(captured, upto, chunk=chunk))


@given(captured=st.integers(0, 10**6), ahead=st.integers(1, 10**4), chunk=st.integers(1, 2000))
def test_plan_tiles(captured: int, ahead: int, chunk: int) -> None:
    """Windows tile the ids without gap or overlap, and none is wider than chunk. Mutant: range(captured + 1, ...)."""
    windows = list(plan(captured, captured + ahead, chunk=chunk))

    assert (windows[0].after, windows[-1].upto) == (captured, captured + ahead)
    assert all(one.upto == next_one.after for one, next_one in pairwise(windows))
    assert all(window.upto - window.after <= chunk for window in windows)


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
