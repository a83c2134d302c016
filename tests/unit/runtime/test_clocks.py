"""Which clocks are trusted."""

import time

import pytest

from shipper.core.errors import StateBusy, TransientError
from shipper.runtime import clocks as module
from shipper.runtime.clocks import Clocks, Part, wait_idle


def test_unknown_is_not_trusted() -> None:
    """Until a source has answered, our clock is not trusted."""
    clocks = Clocks()

    assert not clocks.are_trusted()
    assert not clocks.agrees("app")


def test_agreeing_clocks() -> None:
    """A source that differs by no more than allowed confirms our clock."""
    clocks = Clocks()
    clocks.observed("app", int(time.time()) - 200, max_skew=300)

    assert clocks.are_trusted()
    assert clocks.agrees("app")


@pytest.mark.parametrize(("off", "direction"), [(-400, "ahead of"), (400, "behind")])
def test_differing_clocks(off: int, direction: str) -> None:
    """A source that differs by more is reported; another source may still confirm our clock. Mutant: one way only."""
    clocks = Clocks()
    with pytest.raises(TransientError, match=f"[34]\\d\\d s {direction} the clock of source app") as caught:
        clocks.observed("app", int(time.time()) + off, max_skew=300)

    assert "Correct the wrong clock (NTP)." in str(caught.value.hint)
    assert not clocks.are_trusted()
    clocks.observed("other", int(time.time()), max_skew=300)
    assert clocks.are_trusted()
    assert clocks.agrees("other")
    assert not clocks.agrees("app")


def test_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that has jumped since the last answer is not trusted until the next one. Mutant: answers only."""
    clocks = Clocks()
    clocks.observed("app", int(time.time()), max_skew=300)
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + 86400)

    assert not clocks.are_trusted()


def test_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest time is ours, or that of the source that is most ahead, wherever ours was set meanwhile.

    Mutant: take what our clock and the difference say now.
    """
    clocks, wall, now = Clocks(), time.time, time.time()
    assert clocks.latest() == pytest.approx(now, abs=30)
    clocks.observed("app", int(now) + 200, max_skew=300)
    assert clocks.latest() == pytest.approx(now + 200, abs=30)

    monkeypatch.setattr(time, "time", lambda: wall() - 86400)
    assert clocks.latest() == pytest.approx(now + 200, abs=30)


class Busy(Part):
    """A part whose call does not end."""

    def __str__(self) -> str:
        return "capture of job events"


def test_part_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the step, the part and the time. Mutant: advise to wait for a statement that may never end."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    busy, error = Busy(30), "wait for the capture of job events: it has not ended within 0 s"
    with busy._running("capture"), pytest.raises(StateBusy, match=error) as caught:
        wait_idle(busy)

    assert "systemctl restart shipper" in str(caught.value.hint)
