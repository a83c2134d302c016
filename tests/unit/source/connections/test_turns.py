"""Turns at the connections of a source, by a clock of our own."""

from contextlib import ExitStack

import pytest

from shipper.source.connections.turns import LOOK_SECONDS, Turns


class Clock:
    """A clock that waiting and working move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waited = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.waited += seconds


@pytest.mark.parametrize(("share", "expected"), [(0.1, 0.1), (0.25, 0.25), (1.0, 1.0)])
def test_share(share: float, expected: float) -> None:
    """Background work of two kinds, in slices of any length, takes its share of the time together.

    Mutants: rest as long as the slice; count each kind by itself; forget a rest when the next slice ends.
    """
    clock = Clock()
    turns = Turns(4, share, clock=clock)
    for seconds in (1.0, 0.5, 30.0, 0.001, 2.0) * 2:
        turns.wait(clock.wait)
        with turns.charged():
            clock.now += seconds
    turns.wait(clock.wait)

    assert 67.002 / (clock.now - 100) == pytest.approx(expected)
    assert clock.waited == pytest.approx(67.002 * (1 / share - 1))


def test_slices_side_by_side() -> None:
    """Slices that overlap are each followed by their rest. Mutant: the later rest replaces the earlier one."""
    clock = Clock()
    turns = Turns(4, 0.25, clock=clock)
    with turns.charged(), turns.charged():
        clock.now += 1
    turns.wait(clock.wait)

    assert clock.waited == pytest.approx(6)


def test_captures_first() -> None:
    """Background work begins only while captures leave a connection free. Mutant: count those in use only."""
    clock, captures = Clock(), ExitStack()
    turns = Turns(2, 1.0, clock=clock)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            captures.close()

    with turns.taken():
        turns.wait(wait)
        assert waits.pop() == 0.0  # one is free
        captures.enter_context(turns.taken())
        captures.enter_context(turns.taken())  # waits for one
        turns.wait(wait)

    assert waits == [LOOK_SECONDS] * 3 + [0.0]


def test_wait_that_ends_the_work() -> None:
    """Work that must end is ended before its next slice, also without a rest. Mutant: wait only for rests."""

    def wait(_: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Turns(4, 1.0).wait(wait)
