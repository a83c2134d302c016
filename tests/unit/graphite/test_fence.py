"""The fence: no delivery begins without a lease, and one that outlasts it is noticed."""

import threading
from collections.abc import Iterable
from typing import Any

import pytest

from shipper.core.errors import DeliveryFailed, LeaseLost
from shipper.core.lease import Lease
from shipper.core.model import Datapoint
from shipper.graphite.carbon import Carbon
from shipper.graphite.receivers import Fence, Receivers

POINT = Datapoint("a", 1, 60)


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Slow(Carbon):
    """A Carbon that takes time, and may fail then."""

    def __init__(self, clock: Clock, seconds: float, *, fails: bool = False) -> None:
        super().__init__("carbon", 2003, timeout=5)
        self._clock, self._seconds, self._fails = clock, seconds, fails
        self.timeouts: list[float] = []

    def deliver(self, datapoints: Iterable[Datapoint]) -> None:
        """Let time pass."""
        self.timeouts.append(self.timeout)
        self._clock.now += self._seconds
        if self._fails:
            raise DeliveryFailed("deliver: timed out")


def fenced(seconds: float, **options: Any) -> tuple[Clock, Lease, Fence, Slow, Receivers]:
    """Return receivers behind a fence whose lease of 8 s has just been renewed."""
    clock, lease = Clock(), Lease(8)
    lease.renew(clock.now)
    fence, carbon = Fence(lease, clock), Slow(clock, seconds, **options)
    return clock, lease, fence, carbon, Receivers([carbon], fence)


def test_nothing_begins_without_a_lease() -> None:
    """A delivery begins while half of the lease is left; it gets no more time than that. Mutant: begin at any time."""
    clock, lease, fence, carbon, receivers = fenced(0)
    for left in (8, 4, 3.9, 0):
        clock.now = 108 - left
        if left >= 4:
            receivers.deliver([POINT])
        else:
            with pytest.raises(LeaseLost, match="not renewed"):
                receivers.deliver([POINT])
    lease.end()
    with pytest.raises(LeaseLost):
        receivers.deliver([POINT])

    assert carbon.timeouts == [5, 4]
    assert not fence.was_late


@pytest.mark.parametrize("fails", [False, True])
def test_delivery_that_outlasts_the_lease(*, fails: bool) -> None:
    """It is not confirmed, and nothing follows it, whatever comes of the lease. Mutants: believe it; send the next."""
    clock, lease, fence, carbon, receivers = fenced(9, fails=fails)
    with pytest.raises(DeliveryFailed if fails else LeaseLost):
        receivers.deliver([POINT])
    assert fence.was_late

    lease.renew(clock.now)
    with pytest.raises(LeaseLost):
        receivers.deliver([POINT])
    assert len(carbon.timeouts) == 1


def test_next_receiver_after_the_lease() -> None:
    """Where a receiver fails, the next one gets nothing without a lease, and the switch is reported.

    Mutants: look at the lease once for all of them; report no switch.
    """
    clock, lease, _, first, _ = fenced(5, fails=True)
    second = Slow(clock, 0)
    receivers = Receivers([first, second], Fence(lease, clock))
    with pytest.raises(LeaseLost, match="not renewed"):
        receivers.deliver([POINT])
    assert second.timeouts == []

    lease.renew(clock.now)
    receivers.deliver([POINT])
    assert second.timeouts == [5]
    assert receivers.has_died()


def test_delivery_whose_lease_is_renewed_meanwhile() -> None:
    """It may take longer than what was left when it began."""
    clock, lease, fence, _, _ = fenced(0)
    with fence.sending("carbon"):
        clock.now += 7
        lease.renew(clock.now)
        clock.now += 7
    assert not fence.was_late


def test_close_waits_for_the_delivery() -> None:
    """A process that ends does so after the delivery at hand, and begins no other. Mutant: end at once."""
    _, _, fence, _, receivers = fenced(0)
    closing = threading.Thread(target=fence.close)
    with pytest.raises(LeaseLost), fence.sending("carbon"):
        closing.start()
        while fence._lease.left(100):
            pass
        assert closing.is_alive()
    closing.join(10)

    assert not closing.is_alive()
    assert fence.was_late
    assert fence._sending.locked()
    assert len(receivers) == 1
