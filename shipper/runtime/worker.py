"""One job at work: its captures, their results and failures in the log.

Its polling group (poller.py) decides when it captures, and what it shares with the other jobs of its table.
"""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

from shipper.core.capture import capture
from shipper.core.errors import ShipperError, SourceReset, SourceUnavailable
from shipper.core.model import Job, Now, Observation
from shipper.core.repair.reset import check_identity
from shipper.core.rows.look import TableLook
from shipper.core.rows.table import CaptureStep, Event
from shipper.log.logger import RepeatedFailure, logger
from shipper.log.results import log_event, log_steps, rejected_rows
from shipper.runtime.clocks import Clocks, Part, wait_idle
from shipper.source.database import Source
from shipper.state.store import State
from shipper.status.counters import JobCounters

BUG_HINT = "Report the traceback of job.stopped in the log, then: systemctl restart shipper"
CHAPTER_SECONDS = 10.0  # a longer capture logs its progress, and lets other jobs have the thread
CRON_SECONDS = 60.0  # a cron job is overdue after this time: its ticks are hardly ever closer


class Ended(Enum):
    """How a capture ended."""

    DONE = auto()
    LEFT = auto()
    """It gave its thread up, and a rest is left."""
    FAILED = auto()
    """The totals recorded before the failure stay."""


class SharedFailures(NamedTuple):
    """Failures that all jobs of a polling group share."""

    observing: RepeatedFailure
    committing: RepeatedFailure
    comparing: RepeatedFailure
    waiting: RepeatedFailure

    @classmethod
    def of(cls, source: str, table: str) -> "SharedFailures":
        """Return the failures of a table, none of which has happened yet."""
        fields = {"source": source, "table": table}
        return cls(
            RepeatedFailure("observation.failed", "observation.recovered", fields),
            RepeatedFailure("capture.failed", "capture.recovered", fields),
            RepeatedFailure("clock.failed", "clock.recovered", fields),
            RepeatedFailure("job.overdue", "job.resumed", fields),
        )


class Worker(Part):
    """The captures of one job."""

    def __init__(self, job: Job, source: Source, state: State, clocks: Clocks, *, unit: int, timeout: int) -> None:
        """Make a worker from the step of Carbon's last archive and the statement timeout, in seconds.

        Raises:
            ConfigError: the state knows this job with another source, table or id column.
        """
        super().__init__(timeout)
        self.job = job
        self.broken_at: float | None = None
        """Time of the bug that stopped this job."""
        self.seen: Observation | None = None
        """The last observation."""
        self.seen_at: float | None = None
        """Time of the last observation, in epoch seconds."""
        self.reset_at: float | None = None
        """Time of an operator's reset after which the table was not observed yet, in epoch seconds."""
        self.counters = JobCounters()
        """Those of the pipeline, which outlive this worker; see Pipeline.regroup."""
        self.shared = SharedFailures.of(job.source, job.query.table)
        """Failures of its polling group, which are this job's failures, too."""
        self.source = source
        self.unit = math.lcm(unit, job.query.bucket)
        """Length of the unit in which slots are pruned, in seconds."""
        self._state = state
        self._clocks = clocks
        self._stopping = threading.Event()
        self._capturing = RepeatedFailure("capture.failed", "capture.recovered", {"job": job.name})
        self._waiting = RepeatedFailure("job.overdue", "job.resumed", {"job": job.name})
        self._is_prepared = False
        self._moved = time.monotonic()  # a reload puts jobs into groups that have observed
        check_identity(job, state.offsets(job.name))

    def __str__(self) -> str:
        return f"running capture of job {self.job.name}"

    @property
    def is_stopped(self) -> bool:
        """Whether it starts no captures now."""
        return self.is_broken or self._must_end()

    @property
    def is_paused(self) -> bool:
        """Whether an operator paused the job: see the state's pauses."""
        return self.job.name in self._state.pauses

    @property
    def is_ready(self) -> bool:
        """Whether a capture may start: none runs, and the worker is not stopped."""
        return not self.is_stopped and self.is_idle

    @property
    def is_overdue(self) -> bool:
        """Whether a capture, or the wait for one, takes longer than the time between two ticks."""
        waits = (self._waiting, self.shared.waiting)
        return any(wait.error for wait in waits) or self._still_seconds > period(self.job)

    @property
    def waits_since(self) -> float:
        """Return since when it waits for a tick, in epoch seconds: its last look, or a later start or resumption."""
        return max(self.seen_at or 0.0, time.time() - (time.monotonic() - self._moved))

    @property
    def failure(self) -> RepeatedFailure | None:
        """Return the worst of its failures that last, None without any; a paused job fails at nothing."""
        if self.is_paused:
            return None
        failures = (self._capturing, *self.shared, self._waiting)
        return next((failure for failure in failures if failure.error), None)

    @property
    def moment(self) -> Now:
        """Return the current time, and whether the source's clock agrees."""
        return Now(int(time.time()), self._clocks.agrees(self.job.source))

    def stop(self) -> None:
        """Start no more captures, and end a running one after its current window."""
        self._stopping.set()

    def resume(self) -> None:
        """Allow captures after `stop`."""
        self._stopping.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Start no captures during a block, which begins once none runs.

        Raises:
            StateBusy: a capture does not end in time.
        """
        self.stop()
        try:
            wait_idle(self)
            yield
        finally:
            self.resume()

    def moved(self) -> None:
        """Discard the observations made before the job was moved."""
        self._moved = time.monotonic()

    def continue_after_reset(self) -> None:
        """Discard the observations, and the failure, of a table that was reset."""
        if isinstance(self._capturing.error, SourceReset):
            self._capturing.recovered()
        self.seen, self.reset_at = None, time.time()
        self.moved()

    def refresh(self) -> None:
        """Discard the observations, and prepare the query again: the table may have changed while it was paused."""
        self._is_prepared = False
        self.moved()

    def prepare(self) -> None:
        """Let the source check the job's query, once, and add what only the database knows of it.

        Raises:
            QueryRefused: it cannot be run.
        """
        if not self._is_prepared:
            self.job = replace(self.job, query=self.source.prepared(self.job.query))
            self._is_prepared = True

    def observed(self, observation: Observation, at: float) -> None:
        """Remember an observation of the table, and when it was made, in epoch seconds."""
        self.seen, self.seen_at, self.reset_at = observation, at, None

    def log_overdue(self) -> None:
        """Log that a tick is due while a capture has made no progress since the tick before."""
        seconds = self._still_seconds
        if seconds <= period(self.job):
            return
        self._waiting.failed(
            SourceUnavailable(
                f"tick: the previous capture still runs, after {seconds:.0f} s",
                hint="Look in the database for a statement that waits for a lock (SHOW PROCESSLIST, pg_stat_activity). "
                "The source's `timeout` ends such a statement.",
            ),
            clock=time.monotonic(),
        )

    def capture(self, horizon: Observation, look: TableLook) -> Ended:
        """Capture up to a horizon, for one chapter at most; log the result or the failure."""
        try:
            with self._running("capture"):
                # within the call, because the thread that stops this worker waits until no call runs
                if self.is_stopped:
                    return Ended.DONE
                self.prepare()
                ended = self._run_chapter(horizon, look)
        except ShipperError as error:
            self.counters.failures += 1
            self._capturing.failed(error, clock=time.monotonic())
            self._is_prepared = False  # the table may have changed
            return Ended.FAILED
        except Exception:  # noqa: BLE001 - the one place where a bug is contained
            self.break_down()
            return Ended.FAILED
        finally:
            self._waiting.recovered()
        self._capturing.recovered()
        return ended

    def _run_chapter(self, horizon: Observation, look: TableLook) -> Ended:
        """Run the steps of a capture until all are done, or a chapter is over."""
        began = time.monotonic()
        with self._logged() as steps:
            for step in self._steps(horizon, look):
                self._advance("capture")
                if isinstance(step, Event):
                    log_event(self.job, step)
                elif step is not None:
                    steps.append(step)
                # the next chapter reads the clock again, which decides which rows are too old
                may_end = isinstance(step, CaptureStep) and step.is_rest
                if self._must_end() or (may_end and time.monotonic() - began > CHAPTER_SECONDS):
                    return Ended.LEFT
        return Ended.DONE

    def _must_end(self) -> bool:
        """Return whether a running capture must end after its window."""
        return self.is_paused or self._stopping.is_set()

    @property
    def is_broken(self) -> bool:
        """Whether a bug stopped this job."""
        return self.broken_at is not None

    def break_down(self) -> None:
        """Stop this job after an unexpected exception; others continue."""
        self.broken_at = time.time()
        logger().critical("job.stopped", job=self.job.name, hint=BUG_HINT, exc_info=True)

    def prune(self, now: int) -> None:
        """Delete slots that are delivered and long unchanged, unless the job is too far behind."""
        progress = self._state.progress(self.job.name)
        keep = max(self.job.keep, self.job.lookback or 0)
        if progress is not None and progress.complete_until > now - keep and self._clocks.agrees(self.job.source):
            while self._state.housekeeping.prune(self.job.name, unit=self.unit, before=now - keep):
                pass

    def _steps(self, horizon: Observation, look: TableLook) -> Iterator[CaptureStep | Event | None]:
        """Return the steps of a capture up to a horizon; none if the job was moved since."""
        if horizon.clock < self._moved:
            return iter(())
        now, is_trusted = self.moment
        return capture(
            self.job, horizon, source=self.source, ledger=self._state, now=now, is_trusted=is_trusted, look=look
        )

    @contextmanager
    def _logged(self) -> Iterator[list[CaptureStep]]:
        """Yield a list for the steps of a block; log and count them, and the block's time, even if it fails."""
        steps: list[CaptureStep] = []
        began, losses = time.monotonic(), self._state.losses
        try:
            yield steps
        finally:
            seconds = time.monotonic() - began
            self.counters.captures += 1
            self.counters.capture_seconds += seconds
            # jobs share a commit: what it does not store was not counted
            if self._state.losses == losses:
                self._state.when_durable(partial(self._log, steps, seconds))

    def _log(self, steps: Sequence[CaptureStep], seconds: float) -> None:
        self.counters.rows += sum(step.rows for step in steps)
        self.counters.late_rows += sum(step.late_rows for step in steps)
        self.counters.reject(rejected_rows(steps))
        log_steps(self.job, steps, seconds=seconds, late_rows=lambda: self._state.late_rows(self.job.name))


def period(job: Job) -> float:
    """Return the seconds between a job's ticks."""
    return CRON_SECONDS if job.every is None else job.every
