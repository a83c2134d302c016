"""Jobs at work without a scheduler: the test makes the calls that they schedule."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from builders import job
from fakes import FakeSource

from shipper.core.model import ALWAYS, Fingerprint, Ids, Job, Observation, Query, RejectedValue, Row, Span, Window
from shipper.runtime.clocks import Clocks
from shipper.runtime.poller import PollingGroup, group_key
from shipper.runtime.worker import Worker
from shipper.source.connections.turns import Turns, Wait
from shipper.state.store import State

CREATED = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())


@dataclass
class Flaky(FakeSource):
    """A table whose database can fail."""

    fault: Exception | None = None
    rejected_values: Sequence[tuple[RejectedValue, ...]] = ()
    """Values that the next rows lack."""
    before_read: Callable[[], object] = field(default=lambda: None)
    behind: float | Exception = 0.0
    asked: Counter[str] = field(default_factory=Counter)
    turns: Turns = field(default_factory=lambda: Turns(4, 1.0))

    def background(self, wait: Wait | None = None) -> AbstractContextManager[None]:
        """Count a block as background work."""
        if wait is not None:
            self.turns.wait(wait)
        return self.turns.charged()

    def lag(self) -> float:
        """Return the lag, or fail if it is unknown."""
        if isinstance(self.behind, Exception):
            raise self.behind
        return self.behind

    def observe(self, query: Query) -> Observation:
        """Answer, or fail."""
        self.asked["observe"] += 1
        if self.fault:
            raise self.fault
        return super().observe(query)

    def fingerprint(self, query: Query, upto: int, *, more: int = 0) -> Fingerprint:
        """Answer."""
        self.asked["fingerprint"] += 1
        return super().fingerprint(query, upto, more=more)

    def times(self, query: Query, window: Window) -> Span | None:
        """Answer."""
        self.asked["times"] += 1
        return super().times(query, window)

    def read(self, query: Query, rows: Window | Ids, span: Span = ALWAYS) -> list[Row]:
        """Answer, or fail."""
        self.asked["read"] += 1
        self.before_read()
        if self.fault:
            raise self.fault
        answer = super().read(query, rows, span)
        values = [*self.rejected_values[: len(answer)], *[()] * len(answer)]
        self.rejected_values = self.rejected_values[len(answer) :]
        return [row._replace(rejected_values=rejected) for row, rejected in zip(answer, values, strict=False)]


class Desk:
    """A polling group of one job or several, and the calls that it scheduled."""

    def __init__(self, state: State, *jobs: Job) -> None:
        self.source = Flaky()
        self.clocks = Clocks()
        source: Any = self.source  # keeps the contract of Source
        self.workers = [Worker(one, source, state, self.clocks, unit=3600, timeout=30) for one in jobs or (job(),)]
        self.worker = self.workers[0]
        key = group_key(self.worker.job)
        self.polling_group = PollingGroup(key, source, state, self.clocks, max_skew=300, timeout=30)
        self.polling_group.join(self.workers)
        self.planned: list[tuple[float, Callable[[], object]]] = []

    def tick(self) -> None:
        """Let the scheduler call."""
        self.polling_group.tick(self.later)

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """Schedule a call."""
        self.planned.append((seconds, call))

    def run_planned(self) -> None:
        """Make the calls scheduled until now."""
        planned, self.planned = self.planned, []
        for _, call in planned:
            call()
