"""Shell. One job at work: its ticks observe, its captures follow `settle` later, what fails is told.

Strategy: a tick never waits. It adds an observation and plans a capture for when the oldest one has settled;
while one is planned or runs, no other is. So a slow database delays its job, and never piles up threads.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from shipper.capture import capture
from shipper.clocks import Clocks
from shipper.errors import ConfigError, ShipperError, TransientError
from shipper.journal import Trouble, logger
from shipper.model import Care, Cause, Group, Job, Position, Refusal
from shipper.render import brief, is_clean
from shipper.scan import Captured, Noticed
from shipper.shape import shape_of
from shipper.source import Source
from shipper.state import State
from shipper.window import Settling

CHAPTER_SECONDS = 60.0  # of a long capture; each is logged, so that its progress can be seen

LAG_SECONDS = 1.0  # how often to ask a replica how far it is behind, while something waits for it
LAG_UNKNOWN_SECONDS = 10.0

_HARMLESS = {"capture.held", "rows.deleted"}

Later = Callable[[float, Callable[[], None]], None]
"""Call something once, in so many seconds, on another thread."""


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
        stopping: threading.Event,
    ) -> None:
        """Once stopping is set, a capture ends after the window at hand. unit is the step of Carbon's last archive.

        Raises:
            ConfigError: the state knows this job on another source, table or id column.
        """
        self.job = job
        self.is_broken = False
        self._source = source
        self._state = state
        self._clocks = clocks
        self._care = care
        self._lag = 0.0
        self._max_skew = max_skew
        self._unit = math.lcm(unit, job.query.bucket)
        self._stopping = stopping
        self._settling = Settling(settle)
        self._mutex = threading.Lock()
        self._is_planned = False
        self._observing = Trouble("observation.failed", "observation.recovered", {"job": job.name})
        self._capturing = Trouble("capture.failed", "capture.recovered", {"job": job.name})
        self._comparing = Trouble("clock.failed", "clock.recovered", {"job": job.name})
        self._is_prepared = False
        check_identity(job, state.position(job.name))

    def tick(self, later: Later, recorded: Callable[[], None]) -> None:
        """Observe, and see to it that a capture follows; never raises. recorded is called after each window."""
        if self.observe():
            self._plan(later, recorded)

    def observe(self) -> bool:
        """Add an observation; return whether that succeeded, having told why if it did not."""
        return self._attempt(self._observe, self._observing)

    def settles_in(self) -> float | None:
        """Return the seconds until the oldest observation has settled, None when none is waiting."""
        with self._mutex:
            return self._delay()

    def capture(self, recorded: Callable[[], None]) -> bool:
        """Capture up to the newest observation that has settled, if there is one, and log what that brought.

        Return whether that succeeded, having told why if it did not; what was recorded before it stays.
        """
        return self._attempt(lambda: self._capture(recorded), self._capturing)

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
        """Return the seconds until the oldest observation has settled, None when none is waiting."""
        delay = self._settling.delay(time.monotonic() - self._lag)
        # a replica may fall behind further, or catch up: do not ask it all the time
        return max(delay, LAG_SECONDS) if delay is not None and self._lag else delay

    def _capture(self, recorded: Callable[[], None]) -> None:
        clock = time.monotonic()  # before the lag is read: by then it may be less already
        lag = self._read_lag()
        with self._mutex:
            horizon = self._settling.take(clock - lag)
        while horizon is not None and not self._stopping.is_set():
            steps: list[Captured] = []
            began = time.monotonic()
            before = self._state.progress(self.job.name)
            try:
                for captured in capture(
                    self.job,
                    horizon,
                    source=self._source,
                    ledger=self._state,
                    now=int(time.time()),
                    is_trusted=self._clocks.agrees(self.job.source),
                    care=self._care,
                ):
                    if isinstance(captured, Noticed):
                        self._tell_noticed(captured)
                    elif captured is not None:
                        steps.append(captured)
                        recorded()
                    # a long catch-up goes on with a new look at the clock, which decides what is too old
                    is_long = captured is not None and time.monotonic() - began > CHAPTER_SECONDS
                    if self._stopping.is_set() or is_long:
                        break
                else:
                    horizon = None
            finally:
                self._tell_shape(before and before.shape)
                self._tell(steps, seconds=time.monotonic() - began)

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

    def _tell_noticed(self, noticed: Noticed) -> None:
        level = logger().info if noticed.event in _HARMLESS else logger().warning
        level(noticed.event, job=self.job.name, **noticed.details)

    def _tell_shape(self, before: str | None) -> None:
        """Say that a job is new, or counts something else than before."""
        if before == shape_of(self.job) or (progress := self._state.progress(self.job.name)) is None:
            return
        if before is None:
            logger().info("job.begun", job=self.job.name, start=self.job.start, captured=progress.captured)
        elif before and progress.shape != before:
            logger().info("job.changed", job=self.job.name, captured=progress.captured)

    def _tell(self, steps: list[Captured], *, seconds: float) -> None:
        job, rows = self.job.name, sum(step.rows for step in steps)
        windows = [step.window for step in steps if step.window]
        if rows and windows:
            upto = windows[-1].upto
            logger().info(
                "capture.finished", job=job, rows=rows, windows=len(windows), captured=upto, seconds=round(seconds, 3)
            )
        unshown = sum((step.tally.unshown for step in steps), Counter[Cause]())
        nameless = [step.tally.nameless for step in steps if step.tally.nameless is not None]
        for cause, count in unshown.items():
            first = {"value": _brief(nameless[0])} if nameless and cause is Cause.REFUSED else {}
            logger().warning("rows.unshown", job=job, cause=cause.value, rows=count, **first)
        if other := sum(step.tally.other_rows for step in steps):
            value = _brief(next(step.tally.other for step in steps if step.tally.other is not None))
            logger().warning("series.limited", job=job, rows=other, limit=self.job.max_groups, value=value)
        if cleaned := [found for step in steps for found in step.tally.cleaned]:
            path, group = cleaned[0]
            value = _brief(tuple(value for value in group if not is_clean((value,))))
            logger().info("series.cleaned", job=job, series=len(cleaned), first=path, value=value)
        self._tell_refused([refusal for step in steps for refusal in step.tally.refused])

    def _tell_refused(self, refused: list[Refusal]) -> None:
        """Say once for each column that values were left out, and which was the first."""
        for column in dict.fromkeys(refusal.column for refusal in refused):
            found = [refusal for refusal in refused if refusal.column == column]
            first = next((refusal for refusal in found if refusal.value is not None), found[0])
            group = None if first.group is None else _brief(first.group)
            known = {"id": first.id, "group": group, "value": first.value}
            told = {name: value for name, value in known.items() if value is not None}
            rows = sum(refusal.rows for refusal in found)
            logger().warning("value.refused", job=self.job.name, column=column, **told, rows=rows)


def _brief(group: Group) -> str:
    """Show group values in one short line; the one without brackets."""
    return brief(group[0] if len(group) == 1 else group)


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
