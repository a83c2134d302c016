"""Shell. One job at work: its ticks observe, its captures follow `settle` later, what fails is told.

Strategy: a tick never waits. It adds an observation and plans a capture for when the oldest one has settled;
while one is planned or runs, no other is. So a slow database delays its job, and never piles up threads.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from shipper.capture import capture
from shipper.capture_log import tell_noticed, tell_shape, tell_steps
from shipper.clocks import Clocks
from shipper.errors import ConfigError, ShipperError, SourceUnavailable, TransientError
from shipper.journal import Trouble, logger
from shipper.model import Care, Job, Observation, Position
from shipper.scan import Captured, Noticed
from shipper.source import Source
from shipper.state import State
from shipper.window import Settling

CHAPTER_SECONDS = 10.0  # of a long capture: then others have the thread, and its progress is logged

LAG_SECONDS = 1.0  # how often to ask a replica how far it is behind, while something waits for it
LAG_UNKNOWN_SECONDS = 10.0

DEADLINE_STATEMENTS = 10  # a call that has made no progress for so many of a statement's time-outs never will
CRON_SECONDS = 60.0  # a job of cron is overdue after so long: its ticks are hardly ever closer

Later = Callable[[float, Callable[[], None]], None]
"""Call something once, in so many seconds, on another thread."""


@dataclass(slots=True)
class Lived:
    """What a worker has done so far."""

    seen: Observation | None = None
    """The last observation."""
    seen_at: float | None = None
    """When that was, epoch seconds."""
    rows: int = 0
    capture_seconds: float = 0.0
    failures: int = 0


class Worker:
    """The ticks and captures of one job."""

    def __init__(
        self,
        job: Job,
        source: Source,
        state: State,
        clocks: Clocks,
        *,
        settle: int,
        care: Care,
        max_skew: int,
        unit: int,
        timeout: int,
    ) -> None:
        """Unit is the step of Carbon's last archive, timeout what a statement may take, seconds.

        Raises:
            ConfigError: the state knows this job on another source, table or id column.
        """
        self.job = job
        self.is_broken = False
        self.lived = Lived()
        self._source = source
        self._state = state
        self._clocks = clocks
        self._care = care
        self._lag = 0.0
        self._max_skew = max_skew
        self._unit = math.lcm(unit, job.query.bucket)
        self._deadline = DEADLINE_STATEMENTS * timeout
        self._stopping = threading.Event()
        self._settling = Settling(settle)
        self._mutex = threading.Lock()
        self._is_planned = False
        self._unfinished: Observation | None = None
        self._progress: dict[str, float] = {}  # of the calls that run, when they last came forward
        self._observing = Trouble("observation.failed", "observation.recovered", {"job": job.name})
        self._capturing = Trouble("capture.failed", "capture.recovered", {"job": job.name})
        self._comparing = Trouble("clock.failed", "clock.recovered", {"job": job.name})
        self._waiting = Trouble("job.overdue", "job.resumed", {"job": job.name})
        self._is_prepared = False
        check_identity(job, state.position(job.name))

    def tick(self, later: Later, recorded: Callable[[], None]) -> None:
        """Observe, and see to it that a capture follows; never raises. recorded is called after each window."""
        if self._idle_seconds("capture") > self._period():
            self.overdue()
        if self.observe():
            self._plan(later, recorded)

    def overdue(self) -> None:
        """Say that a tick is due while what came before it still runs, or still waits for a thread."""
        with self._mutex:
            calls = {call: time.monotonic() - at for call, at in self._progress.items()}
        longest = f" for {max(calls.values()):.0f} s" if calls else ""
        self._waiting.failed(
            SourceUnavailable(
                f"tick: the {' and the '.join(calls) or 'tick'} before still {'runs' if calls else 'waits'}{longest}",
                hint="Does a statement wait for a lock (SHOW PROCESSLIST)? `timeout` ends it. Or has the source too "
                "few `connections` for its jobs?",
            ),
            clock=time.monotonic(),
        )

    @property
    def is_overdue(self) -> bool:
        """Does what it does now take longer than the time between its ticks?"""
        return self._waiting.error is not None or self._idle_seconds("tick", "capture") > self._period()

    @property
    def is_stuck(self) -> bool:
        """Has a call run for so long that it will never end by itself?"""
        return self._idle_seconds("tick", "capture") > self._deadline

    @property
    def is_idle(self) -> bool:
        """Does nothing run?"""
        with self._mutex:
            return not self._progress

    @property
    def trouble(self) -> Trouble | None:
        """Return what fails, the worst of it."""
        troubles = (self._capturing, self._observing, self._waiting, self._comparing)
        return next((trouble for trouble in troubles if trouble.error), None)

    def stop(self) -> None:
        """Begin nothing more, and end a capture after the window at hand."""
        self._stopping.set()

    def resume(self) -> None:
        """Go on after all."""
        self._stopping.clear()

    def observe(self) -> bool:
        """Add an observation; return whether that succeeded, having told why if it did not."""
        return self._attempt("tick", self._observe, self._observing)

    def settles_in(self) -> float | None:
        """Return the seconds until there is something to capture, None when nothing is waiting."""
        with self._mutex:
            return self._delay()

    def capture(self, recorded: Callable[[], None]) -> bool:
        """Capture up to the newest observation that has settled, if there is one, and log what that brought.

        A long one ends after a chapter: what is left of it is waiting then. Return whether it succeeded, having told
        why if it did not; what was recorded before it stays.
        """
        return self._attempt("capture", lambda: self._capture(recorded), self._capturing)

    def prune(self, now: int) -> None:
        """Forget slots that are delivered and long unchanged, unless there is much to catch up with."""
        progress = self._state.progress(self.job.name)
        keep = max(self.job.keep, self.job.revisit or 0)
        if progress is not None and progress.complete_until > now - keep and self._clocks.agrees(self.job.source):
            while self._state.prune(self.job.name, unit=self._unit, before=now - keep):
                pass

    def _observe(self) -> None:
        if not self._is_prepared:
            self.job = replace(self.job, query=self._source.prepared(self.job.query))
            self._is_prepared = True
        lag = self._read_lag()
        observation = self._source.observe(self.job.query)
        self.lived.seen, self.lived.seen_at = observation, time.time()
        with self._mutex:
            # what a replica has is what its primary had then
            self._settling.add(replace(observation, time=observation.time - math.ceil(lag)))
        try:
            self._clocks.observed(self.job.source, observation.time, max_skew=self._max_skew)
        except TransientError as error:
            self._comparing.failed(error, clock=observation.clock)
        else:
            self._comparing.recovered()

    def _read_lag(self) -> float:
        """Ask how far a replica is behind; while nobody knows, it could be any time, and nothing settles."""
        try:
            self._lag = self._source.lag()
        except ShipperError:
            self._lag = LAG_UNKNOWN_SECONDS
            raise
        return self._lag

    def _delay(self) -> float | None:
        """Return the seconds until there is something to capture, None when nothing is waiting."""
        if self._unfinished is not None:
            return 0.0
        delay = self._settling.delay(time.monotonic() - self._lag)
        # a replica may fall behind further, or catch up: do not ask it all the time
        return max(delay, LAG_SECONDS) if delay is not None and self._lag else delay

    def _capture(self, recorded: Callable[[], None]) -> None:
        clock = time.monotonic()  # before the lag is read: by then it may be less already
        lag = self._read_lag()
        with self._mutex:
            horizon = self._unfinished or self._settling.take(clock - lag)
        if horizon is None:
            return
        steps: list[Captured] = []
        began = time.monotonic()
        before = self._state.progress(self.job.name)
        self._unfinished = None  # should it fail, the next observation takes its place
        try:
            if not self._captured(horizon, steps, recorded):
                self._unfinished = horizon
        finally:
            seconds = time.monotonic() - began
            self.lived.rows += sum(step.rows for step in steps)
            self.lived.capture_seconds += seconds
            tell_shape(self.job, before and before.shape, self._state.progress(self.job.name))
            tell_steps(self.job, steps, seconds=seconds)

    def _captured(self, horizon: Observation, steps: list[Captured], recorded: Callable[[], None]) -> bool:
        """Capture a chapter, adding its steps; return whether all up to horizon is captured."""
        began = time.monotonic()
        for captured in capture(
            self.job,
            horizon,
            source=self._source,
            ledger=self._state,
            now=int(time.time()),
            is_trusted=self._clocks.agrees(self.job.source),
            care=self._care,
        ):
            self._advance("capture")
            if isinstance(captured, Noticed):
                tell_noticed(self.job, captured)
            elif captured is not None:
                steps.append(captured)
                recorded()
            # the next chapter has a new look at the clock, which decides what is too old
            is_rest = isinstance(captured, Captured) and captured.is_rest
            if self._stopping.is_set() or (is_rest and time.monotonic() - began > CHAPTER_SECONDS):
                return False
        return True

    def _plan(self, later: Later, recorded: Callable[[], None]) -> None:
        with self._mutex:
            is_taken = self._is_planned or self.is_broken or self._stopping.is_set()
            delay = None if is_taken else self._delay()
            if delay is None:
                return
            self._is_planned = True
        later(delay, lambda: self._run(later, recorded))

    def _run(self, later: Later, recorded: Callable[[], None]) -> None:
        self.capture(recorded)
        with self._mutex:
            self._is_planned = False
        self._plan(later, recorded)

    def _attempt(self, name: str, call: Callable[[], None], trouble: Trouble) -> bool:
        """Call, and tell what fails; return whether it succeeded. A bug stops this job, and no other."""
        self._advance(name)
        try:
            # asked only now: whoever stops us waits until we are idle
            if self.is_broken or self._stopping.is_set():
                return False
            call()
        except ShipperError as error:
            self.lived.failures += 1
            trouble.failed(error, clock=time.monotonic())
            return False
        except Exception:  # noqa: BLE001 - the one place where a bug is contained
            self.is_broken = True
            logger().critical("job.stopped", job=self.job.name, exc_info=True)
            return False
        finally:
            self._end(name)
        trouble.recovered()
        return True

    def _advance(self, call: str) -> None:
        with self._mutex:
            self._progress[call] = time.monotonic()

    def _end(self, call: str) -> None:
        with self._mutex:
            self._progress.pop(call, None)
            is_idle = not self._progress
        if is_idle:
            self._waiting.recovered()

    def _idle_seconds(self, *calls: str) -> float:
        """Return for how long one of the calls, if it runs, has not come forward."""
        with self._mutex:
            return max((time.monotonic() - self._progress[call] for call in calls if call in self._progress), default=0)

    def _period(self) -> float:
        return CRON_SECONDS if self.job.every is None else self.job.every


def check_identity(job: Job, position: Position | None) -> None:
    """Refuse to go on with the ids of another table.

    Raises:
        ConfigError: the job stands on another source, table or id column.
    """
    expected = (job.source, job.query.table, job.query.id)
    if position is not None and position[:3] != expected:
        source, table, identity = expected
        raise ConfigError(
            f"begin job {job.name}: its watermark {position.watermark} is an id of {position.table}.{position.id} "
            f"in source {position.source}, not of {table}.{identity} in source {source}",
            hint="Ids of another table mean nothing here: give the job another name, and its `name` another beginning.",
        )
