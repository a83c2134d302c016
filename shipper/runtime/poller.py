"""The jobs of one table that tick together: one look at the table serves all of them.

Strategy: a tick never waits. It observes the table, and schedules one round of captures up to the observation; while
a round is scheduled, no other is. A slow database delays its own jobs, and never piles up threads.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from shipper.core.errors import QueryRefused, ShipperError, SourceUnavailable, TransientError
from shipper.core.model import Job, Observation, Query
from shipper.core.rows.look import TableLook
from shipper.runtime.clocks import Clocks, Part
from shipper.runtime.run_queue import Later, RunQueue
from shipper.runtime.worker import SharedFailures, Worker, period
from shipper.source.access import LoginRefused
from shipper.source.database import Source
from shipper.state.store import State


class GroupKey(NamedTuple):
    """The table and the schedule that the jobs of a polling group share."""

    source: str
    table: str
    id: str
    every: int | None
    cron: str | None
    zone: str
    along: tuple[str, ...] = ()
    """How jobs along a time read their column; empty for jobs by ids."""

    def __str__(self) -> str:
        when = f"every {self.every} s" if self.cron is None else f"cron {self.cron} {self.zone}"
        return f"table {self.table} (source {self.source}, {when})"


def group_key(job: Job) -> GroupKey:
    """Return the key of a job's polling group."""
    query = job.query
    along = (query.time_zone, query.time_unit or "") if query.is_along else ()
    return GroupKey(job.source, query.table, query.id, job.every, job.cron, job.cron_zone, along)


class PollingGroup(Part):
    """The ticks of the jobs of one table, and the queue of their captures, which are calls of the workers."""

    def __init__(
        self, key: GroupKey, source: Source, state: State, clocks: Clocks, *, max_skew: int, timeout: int
    ) -> None:
        """Start empty; max_skew and the statement timeout are in seconds."""
        super().__init__(timeout)
        self.key = key
        self.source = source
        self.workers: tuple[Worker, ...] = ()
        self._clocks = clocks
        self._max_skew = max_skew
        self._lag = -math.inf  # unknown
        self._observed: Observation | None = None
        """The newest observation, until a round of captures takes it."""
        self._look: TableLook | None = None
        self._mutex = threading.Lock()
        self._is_scheduled = False
        self._failures = SharedFailures.of(key.source, key.table)
        self._queue = RunQueue(source, state, self._failures.committing, self._break_down)

    def __str__(self) -> str:
        return f"tick of {self.key}"

    def join(self, workers: Iterable[Worker]) -> None:
        """Replace the members."""
        self.workers = tuple(workers)
        for worker in self.workers:
            worker.shared = self._failures
        self._queue.keep(self.workers)

    def tick(self, later: Later) -> None:
        """Observe the table and schedule captures; never raise."""
        self._log_overdue()
        if self.observe():
            self._schedule(later)

    def overdue(self) -> None:
        """Log that a tick is due while the previous one still runs, or waits for a thread."""
        seconds = self._still_seconds
        state = f"still runs, after {seconds:.0f} s" if seconds else "still waits for one of the source's `connections`"
        self._log_late(f"the previous tick {state}")

    def observe(self) -> bool:
        """Observe the table; log a failure, and return whether there was none."""
        if all(worker.is_stopped for worker in self.workers) or not self._attempt("tick", self._observe):
            return False
        self._failures.observing.recovered()
        return True

    def capture(self) -> bool:
        """Run the captures of all jobs in turn, up to the newest observation; return whether none failed."""
        if not self._attempt("queue", self._enqueue):
            return False
        while self._queue.are_waiting:
            if not self._queue.run():
                return False
        return True

    def _observe(self) -> None:
        # until it is known, the lag of a replica counts as growing
        before, self._lag = self._lag, -math.inf
        lag = self.source.lag()
        observation = self.source.observe(self._query())
        observed_at = time.time()
        for worker in self.workers:
            worker.observed(observation, observed_at)

        # a replica shows its primary as it was `lag` seconds ago; while it falls behind, or may have, no id grows old
        behind = replace(observation, time=observation.time - math.ceil(lag), makes_old=not lag or lag <= before)
        self._lag = lag
        with self._mutex:
            self._observed = behind

        # a clock that differs delays what depends on it, not the captures
        try:
            self._clocks.observed(self.key.source, observation.time, max_skew=self._max_skew)
        except TransientError as error:
            self._failures.comparing.failed(error, clock=observation.clock)
        else:
            self._failures.comparing.recovered()

    def _query(self) -> Query:
        """Return a query of one of the jobs; along a time a prepared one, which knows how the column stores times.

        Raises:
            QueryRefused: none of them can be prepared.
        """
        refusal: QueryRefused | None = None
        for worker in self.workers:
            try:
                if worker.job.query.is_along:
                    worker.prepare()
            except LoginRefused:
                raise
            except QueryRefused as error:  # a mistake of this job alone, which its capture reports
                refusal = refusal or error
            else:
                return worker.job.query
        assert refusal is not None
        raise refusal

    def _schedule(self, later: Later) -> None:
        """Schedule a round of captures, unless one is scheduled."""
        with self._mutex:
            if self._is_scheduled or self._observed is None:
                return
            self._is_scheduled = True
        try:
            later(0.0, partial(self._run_round, later))
        except BaseException:
            self._is_scheduled = False  # the next tick tries again
            raise

    def _run_round(self, later: Later) -> None:
        """Run a round of captures; from its start, the next one may be scheduled, because this one may take long."""
        self._attempt("queue", self._enqueue)
        with self._mutex:
            self._is_scheduled = False
        self._queue.run(later)

    def _enqueue(self) -> None:
        """Put all jobs into the queue, up to the newest observation."""
        with self._mutex:
            observed, self._observed = self._observed, None
        if observed is not None:
            has_gaps = self._look is not None and self._look.has_gaps
            is_alone = len(self.workers) == 1
            self._look = TableLook(self.source, observed, has_gaps=has_gaps, is_alone=is_alone)
            self._queue.add(self.workers, observed, self._look)

    def _attempt(self, name: str, call: Callable[[], None]) -> bool:
        """Call, log a failure, and return whether there was none. A bug stops all jobs of this group, and no others."""
        try:
            with self._running(name):
                call()
        except ShipperError as error:
            for worker in self.workers:
                worker.counters.failures += 1
            self._failures.observing.failed(error, clock=time.monotonic())
            return False
        except Exception:  # noqa: BLE001 - as in Worker.capture
            self._break_down()
            return False
        return True

    def _break_down(self) -> None:
        for worker in self.workers:
            worker.break_down()

    def _log_overdue(self) -> None:
        """Log which captures should have ended before this tick."""
        for worker in self.workers:
            worker.log_overdue()
        waiting = self._queue.late(period(self.workers[0].job))
        if waiting:
            self._log_late(
                f"{waiting} of {len(self.workers)} jobs on this table still wait for their turn to count rows"
            )
        else:
            self._failures.waiting.recovered()

    def _log_late(self, problem: str) -> None:
        hint = (
            "Look in the database for a statement that waits for a lock (SHOW PROCESSLIST, pg_stat_activity), or raise "
            "`connections` of the source."
        )
        self._failures.waiting.failed(SourceUnavailable(f"tick: {problem}", hint=hint), clock=time.monotonic())
