"""The jobs of one table that tick together: one look at the table is for all of them.

Strategy: a tick never waits. It observes, and plans a round of captures up to that; while one is planned, no other is.
So a slow database delays its jobs, and never piles up threads.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from shipper.core.errors import ShipperError, SourceUnavailable, TransientError
from shipper.core.model import Job, Observation
from shipper.core.rows.look import TableLook
from shipper.runtime.clocks import Calls, Clocks
from shipper.runtime.run_queue import Later, RunQueue
from shipper.runtime.worker import DEADLINE_STATEMENTS, SharedFailures, Worker, period
from shipper.source.database import Source
from shipper.state.store import State


class GroupKey(NamedTuple):
    """What the jobs of a polling_group have in common: their table, and when they tick."""

    source: str
    table: str
    id: str
    every: int | None
    cron: str | None
    zone: str

    def __str__(self) -> str:
        when = f"every {self.every} s" if self.cron is None else f"cron {self.cron} {self.zone}"
        return f"{self.source} {self.table}.{self.id} {when}"


def group_key(job: Job) -> GroupKey:
    """Return what decides which polling_group a job is in."""
    return GroupKey(job.source, job.query.table, job.query.id, job.every, job.cron, job.cron_zone)


class PollingGroup:
    """The ticks of some jobs, and their captures in turn."""

    def __init__(
        self, key: GroupKey, source: Source, state: State, clocks: Clocks, *, max_skew: int, timeout: int
    ) -> None:
        """Nobody is in it yet. Timeout is what a statement may take, seconds."""
        self.key = key
        self.source = source
        self.workers: tuple[Worker, ...] = ()
        self._clocks = clocks
        self._max_skew = max_skew
        self._deadline = DEADLINE_STATEMENTS * timeout
        self._lag = -math.inf  # unknown
        self._observed: Observation | None = None
        """What nobody has had a turn for yet."""
        self._seen: TableLook | None = None
        self._mutex = threading.Lock()
        self._is_planned = False
        self._calls = Calls()
        self._shared = SharedFailures.of(key.source, key.table)
        self._turns = RunQueue(source, state, self._shared.committing)

    def __str__(self) -> str:
        return f"ticks of {self.key}"

    def join(self, workers: Iterable[Worker]) -> None:
        """Have these workers in it from now on, and no others."""
        coalesced = tuple(workers)
        for worker in coalesced:
            worker.shared = self._shared
        self.workers = coalesced
        self._turns.keep(coalesced)

    def tick(self, later: Later) -> None:
        """Observe, and see to it that captures follow; never raises."""
        self._tell_overdue()
        if self.observe():
            self._plan(later)

    def overdue(self) -> None:
        """Say that a tick is due while the one before still runs, or waits for a thread."""
        seconds = self._calls.still_seconds
        self._late(f"the tick before still {f'runs, after {seconds:.0f} s' if seconds else 'waits for a thread'}")

    @property
    def is_idle(self) -> bool:
        """Does it not look at its table now? Of captures its workers know."""
        return self._calls.are_idle

    @property
    def is_stuck(self) -> bool:
        """Has a look at the table taken so long that it will never end by itself?"""
        return self._calls.still_seconds > self._deadline

    def observe(self) -> bool:
        """Observe the table; return whether that succeeded, having told why if it did not."""
        if all(worker.is_stopped for worker in self.workers) or not self._attempt("tick", self._observe):
            return False
        self._shared.observing.recovered()
        return True

    def capture(self) -> bool:
        """Let all capture, in line, up to the newest observation; return whether none failed."""
        if not self._attempt("turns", self._give_turns):
            return False
        while self._turns.are_waiting:
            if not self._turns.take():
                return False
        return True

    def _observe(self) -> None:
        before, self._lag = self._lag, -math.inf
        lag = self.source.lag()
        observation = self.source.observe(self.workers[0].job.query)
        seen_at = time.time()
        for worker in self.workers:
            worker.stats.seen, worker.stats.seen_at = observation, seen_at
        # what a replica has is what its primary had then; while it falls behind, or may have, no id grows old
        behind = replace(observation, time=observation.time - math.ceil(lag), makes_old=not lag or lag <= before)
        self._lag = lag
        with self._mutex:
            self._observed = behind
        try:
            self._clocks.observed(self.key.source, observation.time, max_skew=self._max_skew)
        except TransientError as error:
            self._shared.comparing.failed(error, clock=observation.clock)
        else:
            self._shared.comparing.recovered()

    def _plan(self, later: Later) -> None:
        """See to it that a round follows."""
        with self._mutex:
            if self._is_planned or self._observed is None:
                return
            self._is_planned = True
        later(0.0, partial(self._begin, later))

    def _begin(self, later: Later) -> None:
        """Begin a round; the next one may be planned from now on, because this one may take long."""
        self._attempt("turns", self._give_turns)
        with self._mutex:
            self._is_planned = False
        self._turns.take(later)

    def _give_turns(self) -> None:
        """Let all who may capture have a turn, up to what was observed last."""
        with self._mutex:
            observed, self._observed = self._observed, None
        if observed is not None:
            has_gaps = self._seen is not None and self._seen.has_gaps
            self._seen = TableLook(self.source, observed, has_gaps=has_gaps)
            self._turns.give(self.workers, observed, self._seen)

    def _attempt(self, name: str, call: Callable[[], None]) -> bool:
        """Call, and tell what fails; return whether it succeeded. A bug stops all these jobs, and no other."""
        try:
            with self._calls.running(name):
                call()
        except ShipperError as error:
            for worker in self.workers:
                worker.stats.failures += 1
            self._shared.observing.failed(error, clock=time.monotonic())
            return False
        except Exception:  # noqa: BLE001 - as in Worker.capture
            for worker in self.workers:
                worker.break_down()
            return False
        return True

    def _tell_overdue(self) -> None:
        """Say which captures should have ended before this tick."""
        for worker in self.workers:
            worker.log_overdue()
        waiting = self._turns.late(period(self.workers[0].job))
        if waiting:
            self._late(f"{waiting} of {len(self.workers)} jobs still wait for their turn")
        else:
            self._shared.waiting.recovered()

    def _late(self, what: str) -> None:
        hint = "Does a statement wait for a lock (SHOW PROCESSLIST)? Or has the source too few `connections`?"
        self._shared.waiting.failed(SourceUnavailable(f"tick: {what}", hint=hint), clock=time.monotonic())
