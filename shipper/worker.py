"""Shell. One job at work: its ticks observe, its captures follow `settle` later, what fails is told.

Strategy: a tick never waits. It adds an observation and plans a capture for when the oldest one has settled;
while one is planned or runs, no other is. So a slow database delays its job, and never piles up threads.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable

from shipper.capture import capture
from shipper.errors import ConfigError, ShipperError
from shipper.journal import Trouble, logger
from shipper.model import Archive, Cause, Job
from shipper.source import Source
from shipper.state import State
from shipper.window import Settling

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
        self._observing = Trouble("observation", {"job": job.name})
        self._capturing = Trouble("capture", {"job": job.name})
        _check_identity(job, state)

    def tick(self, later: Later, recorded: Callable[[], None]) -> None:
        """Observe, and see to it that a capture follows; never raises. recorded is called after each window."""
        if self._attempt(self.observe, self._observing):
            self._plan(later, recorded)

    def observe(self) -> None:
        """Add an observation: see Source.observe for what it raises."""
        observation = self._source.observe(self.job.query)
        with self._mutex:
            self._settling.add(observation)

    def settles_in(self) -> float:
        """Return the seconds until the oldest observation has settled, 0 when none is waiting."""
        with self._mutex:
            return self._settling.delay(time.monotonic()) or 0.0

    def capture(self, recorded: Callable[[], None]) -> None:
        """Capture up to the newest observation that has settled, if there is one; log what that brought.

        Raises:
            ShipperError: see shipper.capture.capture; what was recorded before it stays.
        """
        with self._mutex:
            horizon = self._settling.take(time.monotonic())
        if horizon is None:
            return
        began = time.monotonic()
        windows, rows, unshown = 0, 0, Counter[Cause]()
        try:
            for captured in capture(
                self.job,
                horizon,
                source=self._source,
                ledger=self._state,
                archive=self._archive,
                now=int(time.time()),
            ):
                windows += 1
                rows += captured.rows
                unshown.update(captured.unshown)
                recorded()
                if self._stopping.is_set():
                    break
        finally:
            self._tell(windows, rows, unshown, seconds=time.monotonic() - began)

    def _plan(self, later: Later, recorded: Callable[[], None]) -> None:
        with self._mutex:
            delay = None if self._is_planned else self._settling.delay(time.monotonic())
            if delay is None:
                return
            self._is_planned = True
        later(delay, lambda: self._run(later, recorded))

    def _run(self, later: Later, recorded: Callable[[], None]) -> None:
        self._attempt(lambda: self.capture(recorded), self._capturing)
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

    def _tell(self, windows: int, rows: int, unshown: Counter[Cause], *, seconds: float) -> None:
        if rows:
            logger().info(
                "capture.finished",
                job=self.job.name,
                rows=rows,
                windows=windows,
                captured=self._state.captured(self.job.name),
                seconds=round(seconds, 3),
            )
        for cause, count in unshown.items():
            logger().warning("rows.unshown", job=self.job.name, cause=cause.value, rows=count)


def _check_identity(job: Job, state: State) -> None:
    position = state.position(job.name)
    expected = (job.source, job.query.table, job.query.id)
    if position is not None and position[:3] != expected:
        source, table, identity = expected
        raise ConfigError(
            f"job {job.name}: its watermark {position.watermark} is an id of {position.table}.{position.id} "
            f"in source {position.source}, not of {table}.{identity} in source {source}",
            hint="Ids of another table mean nothing here: give the job another name.",
        )
