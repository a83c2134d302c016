"""The delivery thread: when a failure of Carbon is over, and what others may do to its courier."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dispatch import REPLAY, Desk

from shipper.core.errors import DeliveryFailed, ReadbackFailed
from shipper.log.logger import RepeatedFailure
from shipper.runtime import delivery as module
from shipper.runtime.clocks import Clocks, Flag
from shipper.runtime.delivery import Delivery, step
from shipper.runtime.pipeline import Pipeline
from shipper.state.store import State


class OwnMetrics:
    """Own metrics, whose first delivery fails; the next ones are confirmed, or not due."""

    def __init__(self, *, are_due: bool) -> None:
        courier = SimpleNamespace(restarts=0, given_up=Counter[str](), step=lambda **_: None, delay=lambda _: None)
        wake, carbon = Flag(), SimpleNamespace(watched=None, failure=None)
        wake.set()  # no wait
        reading = RepeatedFailure("readback.failed", "readback.recovered")
        pipeline: Any = SimpleNamespace(courier=courier, carbon=carbon, clocks=Clocks(), wake=wake, reading=reading)
        pipeline.courier_at_work = lambda: courier
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


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """Provide a pipeline without jobs, whose courier has delivered a total."""
    with State(str(tmp_path / "shipper.db")) as state:
        desk = Desk(state)
        now = int(time.time()) // 60 * 60
        desk.record("a", 0, 5, {("x", now): 1}, now=now)
        graphite = SimpleNamespace(
            proof="replay", render_url=None, replay=REPLAY, retentions=desk.archives, batch=100, timeout=5
        )
        config, carbon = SimpleNamespace(graphite=graphite), SimpleNamespace(watched=None, failure=None)
        carbon.deliver, carbon.has_died, carbon.may_write_old_values = desk.carbon.deliver, desk.carbon.has_died, False
        parts: Any = (config, state, Clocks(), {}, {}, {}, {}, carbon, desk.courier, Flag())
        pipeline = Pipeline(*parts)
        pipeline.clocks.observed("app", int(time.time()), max_skew=300)
        while step(pipeline):
            pass
        yield pipeline


def test_courier_is_renewed_by_its_thread(pipeline: Pipeline) -> None:
    """A rename leaves the courier at its step, and the next step begins with a new one, with all replays.

    Mutant: replace it at once; a replay that was just being opened is then in neither, and nothing proves its totals.
    """
    courier, delay = pipeline.courier, pipeline.courier.delay(time.monotonic())
    assert delay is not None
    pipeline.renew_courier()
    assert (pipeline.courier is courier, pipeline.wake.is_set()) == (True, True)
    assert step(pipeline) is None

    assert pipeline.courier is not courier
    renewed = pipeline.courier.delay(time.monotonic())
    assert renewed is not None
    assert abs(renewed - delay) < 30


def test_graphite_answers_again(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Graphite that did not answer is asked each minute while nothing is read, until it answers.

    Mutants: wait for the next sample, which may take all night; ask at each step.
    """
    answers: list[ReadbackFailed | None] = [ReadbackFailed("read back: refused"), None]

    def ask() -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    graphite: Any = SimpleNamespace(ask=ask)
    monkeypatch.setattr(module, "open_readback", lambda *_, **__: graphite)
    delivery = Delivery(pipeline, lambda _: 0.0)
    delivery._do_chore(is_idle=True)
    pipeline.reading.failed(ReadbackFailed("read back: timed out"), clock=0.0)
    for is_idle in (False, True, True):
        delivery._do_chore(is_idle=is_idle)
    assert (len(answers), pipeline.reading.failures, pipeline.read_at) == (1, 2, None)
    delivery._asked -= 60
    delivery._do_chore(is_idle=True)

    assert (answers, pipeline.reading.error) == ([], None)
    assert pipeline.read_at is not None
