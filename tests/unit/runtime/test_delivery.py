"""The delivery thread: when a failure of Carbon is over."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from shipper.core.errors import DeliveryFailed
from shipper.runtime.clocks import Clocks, Flag
from shipper.runtime.delivery import Delivery


class OwnMetrics:
    """Own metrics, whose first delivery fails; the next ones are confirmed, or not due."""

    def __init__(self, *, are_due: bool) -> None:
        courier = SimpleNamespace(restarts=0, given_up=Counter[str](), step=lambda **_: None, delay=lambda _: None)
        wake, carbon = Flag(), SimpleNamespace(watched=None, failure=None)
        wake.set()  # no wait
        pipeline: Any = SimpleNamespace(courier=courier, carbon=carbon, clocks=Clocks(), wake=wake)
        self.delivery = Delivery(pipeline, self.send)
        self._are_due, self._calls = are_due, 0

    def send(self, _is_idle: bool) -> float:  # noqa: FBT001 - a callback
        """Send them, as shipper.service.daemon.Service._chore does."""
        self._calls += 1
        if self._calls == 1:
            raise DeliveryFailed("deliver: refused")
        if self._are_due:
            self.delivery.reached_at = 60.0 * self._calls
        return 0.0


@pytest.mark.parametrize("are_due", [True, False])
def test_own_metrics_end_a_failure(are_due: bool) -> None:  # noqa: FBT001 - a table
    """Where no total waits, Carbon's failure is over once it confirms own metrics, and not before.

    Mutant: wait for the next total, which may take all night.
    """
    metrics = OwnMetrics(are_due=are_due)
    metrics.delivery._deliver()
    assert metrics.delivery.failure.failures == 1
    metrics.delivery._deliver()

    assert (metrics.delivery.failure.error is None) == are_due
