"""One job at work: its captures, and what fails of them, is told.

What it shares with the other jobs of its table, and when it is its turn, is the business of its polling_group.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple

from shipper.core.capture import capture
from shipper.core.errors import ConfigError, ShipperError, SourceUnavailable
from shipper.core.model import Job, Now, Observation, Offsets
from shipper.core.rows.look import TableLook
from shipper.core.rows.table import CaptureStep, Event
from shipper.log import RepeatedFailure, logger
from shipper.runtime.capture_log import log_event, log_steps
from shipper.runtime.clocks import Calls, Clocks, wait_idle
from shipper.source.database import Source
from shipper.state.store import State

CHAPTER_SECONDS = 10.0  # of a long capture: then others have the thread, and its progress is logged
DEADLINE_STATEMENTS = 10  # a call that has made no progress for so many of a statement's time-outs never will
CRON_SECONDS = 60.0  # a job of cron is overdue after so long: its ticks are hardly ever closer


class Ended(Enum):
    """How a capture ended."""

    DONE = auto()
    LEFT = auto()
    """Something of it is left: it gave its thread up."""
    FAILED = auto()
    """What was recorded before stays."""


@dataclass(slots=True)
class WorkerStats:
    """What a worker has done so far."""

    seen: Observation | None = None
    """The last observation."""
    seen_at: float | None = None
    """When that was, epoch seconds."""
    rows: int = 0
    capture_seconds: float = 0.0
    failures: int = 0


class SharedFailures(NamedTuple):
    """What may fail for all jobs of a polling_group."""

    observing: RepeatedFailure
    committing: RepeatedFailure
    comparing: RepeatedFailure
    waiting: RepeatedFailure

    @classmethod
    def of(cls, source: str, table: str) -> "SharedFailures":
        """Name them for a table; nothing fails yet."""
        fields = {"source": source, "table": table}
        return cls(
            RepeatedFailure("observation.failed", "observation.recovered", fields),
            RepeatedFailure("capture.failed", "capture.recovered", fields),
            RepeatedFailure("clock.failed", "clock.recovered", fields),
            RepeatedFailure("job.overdue", "job.resumed", fields),
        )


class Worker:
    """The captures of one job."""

    def __init__(self, job: Job, source: Source, state: State, clocks: Clocks, *, unit: int, timeout: int) -> None:
        """Unit is the step of Carbon's last archive, timeout what a statement may take, seconds.

        Raises:
            ConfigError: the state knows this job on another source, table or id column.
        """
        self.job = job
        self.is_broken = False
        self.stats = WorkerStats()
        self.shared: SharedFailures | None = None
        self.source = source
        self.unit = math.lcm(unit, job.query.bucket)
        """So much of its time is pruned together, seconds."""
        self._state = state
        self._clocks = clocks
        self._deadline = DEADLINE_STATEMENTS * timeout
        self._stopping = threading.Event()
        self._calls = Calls()
        self._capturing = RepeatedFailure("capture.failed", "capture.recovered", {"job": job.name})
        self._waiting = RepeatedFailure("job.overdue", "job.resumed", {"job": job.name})
        self._is_prepared = False
        self._moved = 0.0
        check_identity(job, state.offsets(job.name))

    def __str__(self) -> str:
        return f"job {self.job.name}"

    @property
    def is_idle(self) -> bool:
        """Does nothing run?"""
        return self._calls.are_idle

    @property
    def is_stopped(self) -> bool:
        """Does it begin nothing more?"""
        return self.is_broken or self._stopping.is_set()

    @property
    def is_willing(self) -> bool:
        """May it capture: does nothing of it run, and has nobody stopped it?"""
        return not self.is_stopped and self._calls.are_idle

    @property
    def is_overdue(self) -> bool:
        """Does what it does now take longer than the time between its ticks?"""
        is_told = self._waiting.error is not None or (self.shared is not None and self.shared.waiting.error is not None)
        return is_told or self._calls.still_seconds > period(self.job)

    @property
    def is_stuck(self) -> bool:
        """Has a capture run for so long that it will never end by itself?"""
        return self._calls.still_seconds > self._deadline

    @property
    def trouble(self) -> RepeatedFailure | None:
        """Return what fails, the worst of it."""
        troubles = (self._capturing, *(self.shared or ()), self._waiting)
        return next((trouble for trouble in troubles if trouble.error), None)

    @property
    def moment(self) -> Now:
        """Return what time it is, and whether the source's clock agrees."""
        return Now(int(time.time()), self._clocks.agrees(self.job.source))

    def stop(self) -> None:
        """Begin nothing more, and end a capture after the window at hand."""
        self._stopping.set()

    def resume(self) -> None:
        """Go on after all."""
        self._stopping.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it capture nothing within.

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
        """Hold what was observed until now for no horizon: its job stands elsewhere."""
        self._moved = time.monotonic()

    def prepare(self) -> None:
        """Have a statement of the job's own explained, once, and take its measures from it.

        Raises:
            QueryRefused: it cannot be run.
        """
        if not self._is_prepared:
            self.job = replace(self.job, query=self.source.prepared(self.job.query))
            self._is_prepared = True

    def log_overdue(self) -> None:
        """Say if a tick is due while a capture has not come forward since the one before."""
        seconds = self._calls.still_seconds
        if seconds <= period(self.job):
            return
        self._waiting.failed(
            SourceUnavailable(
                f"tick: the capture before still runs, after {seconds:.0f} s",
                hint="Does a statement wait for a lock (SHOW PROCESSLIST)? `timeout` ends it.",
            ),
            clock=time.monotonic(),
        )

    def capture(self, horizon: Observation, look: TableLook) -> Ended:
        """Capture up to a horizon, and log what that brought; what fails is told."""
        try:
            with self._calls.running("capture"):
                # asked only now: whoever stops us waits until we are idle
                if self.is_stopped:
                    return Ended.DONE
                is_finished = self._capture(horizon, look)
        except ShipperError as error:
            self.stats.failures += 1
            self._capturing.failed(error, clock=time.monotonic())
            return Ended.FAILED
        except Exception:  # noqa: BLE001 - the one place where a bug is contained
            self.break_down()
            return Ended.FAILED
        finally:
            self._waiting.recovered()
        self._capturing.recovered()
        return Ended.DONE if is_finished else Ended.LEFT

    def break_down(self) -> None:
        """A bug, which is being handled, stops this job and no other."""
        self.is_broken = True
        logger().critical("job.stopped", job=self.job.name, exc_info=True)

    def prune(self, now: int) -> None:
        """Forget slots that are delivered and long unchanged, unless there is much to catch up with."""
        progress = self._state.progress(self.job.name)
        keep = max(self.job.keep, self.job.lookback or 0)
        if progress is not None and progress.complete_until > now - keep and self._clocks.agrees(self.job.source):
            while self._state.prune(self.job.name, unit=self.unit, before=now - keep):
                pass

    def _capture(self, horizon: Observation, look: TableLook) -> bool:
        """Capture a chapter and log it; return whether all up to horizon is captured."""
        self.prepare()
        steps: list[CaptureStep] = []
        began = time.monotonic()
        try:
            return self._captured(horizon, look, steps)
        finally:
            seconds = time.monotonic() - began
            self.stats.rows += sum(step.rows for step in steps)
            self.stats.capture_seconds += seconds
            log_steps(self.job, steps, seconds=seconds, late_rows=lambda: self._state.late_rows(self.job.name))

    def _captured(self, horizon: Observation, look: TableLook, steps: list[CaptureStep]) -> bool:
        """Capture a chapter, adding its steps; return whether all up to horizon is captured."""
        if horizon.clock < self._moved:
            return True
        began, moment = time.monotonic(), self.moment
        for captured in capture(
            self.job,
            horizon,
            source=self.source,
            ledger=self._state,
            now=moment.now,
            is_trusted=moment.is_trusted,
            look=look,
        ):
            self._calls.advance("capture")
            if isinstance(captured, Event):
                log_event(self.job, captured)
            elif captured is not None:
                steps.append(captured)
            # the next chapter has a new look at the clock, which decides what is too old
            is_rest = isinstance(captured, CaptureStep) and captured.is_rest
            if self._stopping.is_set() or (is_rest and time.monotonic() - began > CHAPTER_SECONDS):
                return False
        return True


def period(job: Job) -> float:
    """Return the seconds between a job's ticks."""
    return CRON_SECONDS if job.every is None else job.every


def check_identity(job: Job, offsets: Offsets | None) -> None:
    """Refuse to go on with the ids of another table.

    Raises:
        ConfigError: the job stands on another source, table or id column.
    """
    expected = (job.source, job.query.table, job.query.id)
    if offsets is not None and offsets[:3] != expected:
        source, table, identity = expected
        raise ConfigError(
            f"begin job {job.name}: its watermark {offsets.watermark} is an id of {offsets.table}.{offsets.id} "
            f"in source {offsets.source}, not of {table}.{identity} in source {source}",
            hint="Ids of another table mean nothing here: give the job another name, and its `name` another beginning.",
        )
