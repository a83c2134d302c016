"""Shell. One job at work: its ticks observe, its captures follow `settle` later, what fails is told.

Strategy: a tick never waits. It adds an observation and plans a capture for when the oldest one has settled;
while one is planned or runs, no other is. So a slow database delays its job, and never piles up threads.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable

from shipper.capture import Captured, capture
from shipper.errors import ConfigError, ShipperError
from shipper.journal import Trouble, logger
from shipper.model import Archive, Cause, Job, Position
from shipper.source import Source
from shipper.state import State
from shipper.window import Settling

CHAPTER_SECONDS = 60.0  # of a long capture; each is logged, so that its progress can be seen

Later = Callable[[float, Callable[[], None]], None]
"""Call something once, in so many seconds, on another thread."""


class Worker:
    """The ticks and captures of one job."""

    def __init__(
        self,
        job: Job,
        source: Source,
        state: State,
        *,
        archive: Archive,
        settle: int,
        stopping: threading.Event,
    ) -> None:
        """Once stopping is set, a capture ends after the window at hand.

        Raises:
            ConfigError: the state knows this job on another source, table or id column.
        """
        self.job = job
        self.is_broken = False
        self._source = source
        self._state = state
        self._archive = archive
        self._stopping = stopping
        self._settling = Settling(settle)
        self._mutex = threading.Lock()
        self._is_planned = False
        self._observing = Trouble("observation.failed", "observation.recovered", {"job": job.name})
        self._capturing = Trouble("capture.failed", "capture.recovered", {"job": job.name})
        position = state.position(job.name)
        check_identity(job, position)
        self._is_new = position is None

    def tick(self, later: Later, recorded: Callable[[], None]) -> None:
        """Observe, and see to it that a capture follows; never raises. recorded is called after each window."""
        if self.observe():
            self._plan(later, recorded)

    def observe(self) -> bool:
        """Add an observation; return whether that succeeded, having told why if it did not."""
        return self._attempt(self._observe, self._observing)

    def settles_in(self) -> float:
        """Return the seconds until the oldest observation has settled, 0 when none is waiting."""
        with self._mutex:
            return self._settling.delay(time.monotonic()) or 0.0

    def capture(self, recorded: Callable[[], None]) -> bool:
        """Capture up to the newest observation that has settled, if there is one, and log what that brought.

        Return whether that succeeded, having told why if it did not; what was recorded before it stays.
        """
        return self._attempt(lambda: self._capture(recorded), self._capturing)

    def _observe(self) -> None:
        observation = self._source.observe(self.job.query)
        with self._mutex:
            self._settling.add(observation)

    def _capture(self, recorded: Callable[[], None]) -> None:
        with self._mutex:
            horizon = self._settling.take(time.monotonic())
        while horizon is not None and not self._stopping.is_set():
            windows: list[Captured] = []
            began = time.monotonic()
            try:
                for captured in capture(
                    self.job,
                    horizon,
                    source=self._source,
                    ledger=self._state,
                    archive=self._archive,
                    now=int(time.time()),
                ):
                    windows.append(captured)
                    recorded()
                    # a long catch-up goes on with a new look at the clock, which decides what is too old
                    if self._stopping.is_set() or time.monotonic() - began > CHAPTER_SECONDS:
                        break
                else:
                    horizon = None
            finally:
                self._tell_begun()
                self._tell(windows, seconds=time.monotonic() - began)

    def _plan(self, later: Later, recorded: Callable[[], None]) -> None:
        with self._mutex:
            is_idle = self._is_planned or self.is_broken or self._stopping.is_set()
            delay = None if is_idle else self._settling.delay(time.monotonic())
            if delay is None:
                return
            self._is_planned = True
        later(delay, lambda: self._run(later, recorded))

    def _run(self, later: Later, recorded: Callable[[], None]) -> None:
        self.capture(recorded)
        with self._mutex:
            self._is_planned = False
        self._plan(later, recorded)

    def _attempt(self, call: Callable[[], None], trouble: Trouble) -> bool:
        """Call, and tell what fails; return whether it succeeded. A bug stops this job, and no other."""
        if self.is_broken or self._stopping.is_set():
            return False
        try:
            call()
        except ShipperError as error:
            trouble.failed(error, clock=time.monotonic())
            return False
        except Exception:  # noqa: BLE001 - the one place where a bug is contained
            self.is_broken = True
            logger().critical("job.stopped", job=self.job.name, exc_info=True)
            return False
        trouble.recovered()
        return True

    def _tell_begun(self) -> None:
        if self._is_new and (captured := self._state.captured(self.job.name)) is not None:
            self._is_new = False
            logger().info("job.begun", job=self.job.name, start=self.job.start, captured=captured)

    def _tell(self, windows: list[Captured], *, seconds: float) -> None:
        rows = sum(captured.rows for captured in windows)
        if rows:
            logger().info(
                "capture.finished",
                job=self.job.name,
                rows=rows,
                windows=len(windows),
                captured=windows[-1].window.upto,
                seconds=round(seconds, 3),
            )
        unshown = sum((Counter(captured.unshown) for captured in windows), Counter[Cause]())
        for cause, count in unshown.items():
            logger().warning("rows.unshown", job=self.job.name, cause=cause.value, rows=count)


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
