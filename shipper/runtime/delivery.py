"""The delivery thread: it runs the courier, logs results and failures, retries, and drains at shutdown."""

import math
import random
import threading
import time
from collections.abc import Callable

from shipper.core.delivery.courier import Delivered
from shipper.core.errors import PermanentError, ReadbackFailed, ShipperError, Unproven
from shipper.core.model import RejectReason
from shipper.core.retry import backoff
from shipper.log.logger import RepeatedFailure, logger
from shipper.runtime.bugs import end_process
from shipper.runtime.clocks import Flag
from shipper.runtime.endpoints import open_readback
from shipper.runtime.pipeline import SAMPLE_TIMEOUT, Pipeline
from shipper.status.counters import DeliveryCounters

WITNESS_SECONDS = 1.0  # how often to check whether Carbon has exited, where no connection shows it
TOGETHER_SECONDS = 0.25  # totals recorded within this time are delivered together
UNPROVEN_HINT = (
    "Run `shipper admin doctor`. Check Carbon's disk, MAX_CREATES_PER_MINUTE, whitelist, aggregator and relay, and "
    "that no other program writes this series. shipper sends the value again until Graphite has it."
)
MOST_BUGS = 100  # in a row, about five minutes: then only a new process can help
ASK_SECONDS = 60.0
STUCK_TIMEOUTS = 20  # a step that takes this many of Carbon's timeouts never ends by itself


class Delivery:
    """The courier's thread. It can be stopped, and started again with another courier."""

    def __init__(self, pipeline: Pipeline, chore: Callable[[bool], float]) -> None:
        """Call chore after each step, with whether no delivery is due; it returns how long it can wait, in seconds."""
        self.failure = RepeatedFailure("delivery.failed", "delivery.recovered")
        self.reached_at: float | None = None
        """When Carbon last confirmed a batch, in epoch seconds."""
        self.counters = DeliveryCounters()
        self.has_failed = False
        """Whether a bug has ended the thread."""
        self._bugs = 0
        """Number of steps in a row that ended with a bug."""
        self._pipeline = pipeline
        self._chore = chore
        self._asked = float("-inf")
        """When Graphite was last asked whether it answers again, by the monotonic clock."""
        self._stopping = Flag()
        self._step_began: float | None = None
        self._opened = float("-inf")
        """When a step last took the new totals, by the monotonic clock."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="courier")
        self._thread.start()

    def stop(self, *, seconds: float) -> bool:
        """End after the current batch; return whether the thread has ended in time, else it ends later."""
        self._stopping.set()
        self._pipeline.wake.set()
        if self._thread is not None:
            self._thread.join(seconds)
        return self.is_gone

    def resume(self) -> None:
        """Continue after `stop`."""
        self._stopping.clear()
        if self.is_gone:
            self.start()

    @property
    def is_gone(self) -> bool:
        """Whether the thread does not run."""
        return self._thread is None or not self._thread.is_alive()

    @property
    def is_stuck(self) -> bool:
        """Whether a step takes far longer than its timeouts allow."""
        began, timeout = self._step_began, self._pipeline.config.graphite.timeout
        return began is not None and time.monotonic() - began > STUCK_TIMEOUTS * timeout * len(self._pipeline.carbon)

    @property
    def is_failing(self) -> bool:
        """Whether Carbon or graphite-web did not answer the last time."""
        return self.failure.error is not None or self._pipeline.reading.error is not None

    def _run(self) -> None:
        """Deliver until the thread is stopped; a bug that lasts ends the process."""
        try:
            while not self._stopping.is_set():
                self._deliver()
        except BaseException:  # noqa: BLE001 - the process must not continue without this thread
            self.has_failed = True
            end_process()

    def _deliver(self) -> None:
        """Make one step, or wait for the next."""
        # new totals wait for others, so that they go in one batch
        self._step_began = began = time.monotonic()
        opens_round = began - self._opened >= TOGETHER_SECONDS
        self._opened = began if opens_round else self._opened

        # one step; after a failure, wait before the next
        try:
            delivered = step(self._pipeline, opens_round=opens_round)
            rest = self._do_chore(is_idle=delivered is None)
        except ShipperError as error:
            self._pause(error)
            return
        except Exception as error:
            self._bugs += 1
            if self._bugs > MOST_BUGS:
                raise
            # the jobs continue, and a new courier begins with what the state knows: this one may have stopped halfway
            self._pipeline.replace_courier()
            hint = (
                "Report the traceback of delivery.failed in the log. Captures continue; everything that is still "
                "unproven is sent again."
            )
            self._pause(PermanentError(f"deliver: {type(error).__name__}: {error}", hint=hint), exc_info=True)
            return
        self._step_began = None
        if delivered is not None:
            self._bugs = 0  # a step that had nothing to do proves nothing
            self._count(delivered, time.monotonic() - began)
        else:
            self._wait(rest, has_looked=opens_round)

    def _do_chore(self, *, is_idle: bool) -> float:
        """Do the chore; where nothing is sent or read, see whether Carbon and Graphite answer again.

        Carbon does if it has confirmed own metrics.
        """
        if is_idle and self._pipeline.reading.error is not None and time.monotonic() >= self._asked + ASK_SECONDS:
            self._asked = time.monotonic()
            self._ask_graphite()
        reached_at = self.reached_at
        rest = self._chore(is_idle)
        if is_idle and self.reached_at != reached_at:
            self.failure.recovered()
        return rest

    def _ask_graphite(self) -> None:
        """Find out whether a Graphite that did not answer does so now."""
        graphite = open_readback(self._pipeline.config, seconds=SAMPLE_TIMEOUT)
        if graphite is None:
            return
        try:
            graphite.ask()
        except ReadbackFailed as error:
            self._pipeline.reading.failed(error, clock=time.monotonic())
        else:
            self._pipeline.reading.recovered()
            self._pipeline.read_at = time.time()

    def _wait(self, rest: float, *, has_looked: bool) -> None:
        """Wait for something to do, but notice at once when Carbon exits, before another can take its place."""
        watched = self._pipeline.carbon.watched
        if not has_looked:  # there may be new totals already
            self._stopping.wait(self._opened + TOGETHER_SECONDS - time.monotonic(), watched)
            return
        delay = self._pipeline.courier.delay(time.monotonic())
        self._pipeline.wake.wait(rest if delay is None else min(delay, rest, WITNESS_SECONDS), watched)
        self._pipeline.wake.clear()

    def _pause(self, error: ShipperError, **fields: bool) -> None:
        """Log a failed step, and wait before the next."""
        self._step_began = None
        self.counters.failures += 1
        self.failure.failed(error, clock=time.monotonic(), **fields)
        self._stopping.wait(backoff(self.failure.failures, random.random()))  # noqa: S311 - jitter

    def _count(self, delivered: Delivered, seconds: float) -> None:
        """Add the result of a step to the statistics."""
        if delivered.datapoints:
            self.reached_at = time.time()
            self.counters.batches += 1
            self.counters.seconds += seconds
        if not delivered.is_reading:
            self.failure.recovered()
        for job, datapoints in delivered.datapoints.items():
            self._pipeline.counters[job].datapoints += datapoints
            self._pipeline.counters[job].deliver_seconds += seconds


def drain(pipeline: Pipeline, *, seconds: float = math.inf, is_done: Callable[[], bool] = lambda: False) -> bool:
    """Deliver all pending totals, without waiting for a Carbon that is down; return whether all were delivered.

    Replays that are due follow, unless it is done before.
    """
    deadline = time.monotonic() + seconds
    try:
        while not is_done() and step(pipeline):
            if time.monotonic() > deadline:
                hint = "Nothing is lost: the next start delivers the rest."
                logger().warning("delivery.abandoned", seconds=seconds, hint=hint)
                return False
    except ShipperError as error:
        RepeatedFailure("delivery.failed", "delivery.recovered").failed(error, clock=time.monotonic())
        return False
    return True


def step(pipeline: Pipeline, *, opens_round: bool = True) -> Delivered | None:
    """Deliver one batch, or read some back, and log it; return the result, None when nothing is due.

    See Courier.step.
    """
    courier, carbon, before = pipeline.courier_at_work(), pipeline.carbon, str(pipeline.carbon)
    began, restarts = time.monotonic(), courier.restarts
    try:
        is_trusted, latest = pipeline.clocks.are_trusted(), int(pipeline.clocks.latest())
        now = int(time.time())
        delivered = courier.step(now=now, clock=began, is_trusted=is_trusted, latest=latest, opens_round=opens_round)
    finally:  # also if the batch failed
        if str(carbon) != before:
            reason = {"error": str(carbon.failure)} if carbon.failure else {}
            logger().warning("carbon.switched", carbon=str(carbon), before=before, **reason)
        elif courier.restarts > restarts:
            logger().info("carbon.disconnected", carbon=before)
        for job, rows in courier.given_up.items():
            logger().warning("rows.rejected", job=job, reason=RejectReason.TOO_OLD.value, rows=rows)
            pipeline.counters[job].reject({RejectReason.TOO_OLD: rows})
        courier.given_up.clear()
    if delivered is None:
        return None
    if delivered.is_reading:
        _log_reading(pipeline, delivered)
    if not delivered.is_replay:
        pipeline.delivering.add(delivered, seconds=time.monotonic() - began)
    return delivered


def _log_reading(pipeline: Pipeline, delivered: Delivered) -> None:
    """Log values that Graphite does not hold, or that it does not answer, and the end of both."""
    clock = time.monotonic()

    # Graphite answers
    if delivered.failure is not None:
        pipeline.reading.failed(delivered.failure, clock=clock)
        return
    pipeline.reading.recovered()
    pipeline.read_at = time.time()

    # and holds the values
    if delivered.unproven:
        first, number = delivered.unproven[0], len(delivered.unproven)
        held = "nothing" if first.found is None else f"{first.found:.17g}"
        at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(first.slot))
        problem = f"Graphite has {held}, although {first.expected:.17g} was sent several times"
        error = Unproven(f"read back {first.path} at {at}: {problem}", hint=UNPROVEN_HINT)
        pipeline.unproven.failed(error, clock=clock, datapoints=number, **first._asdict())
    elif not pipeline.courier.is_alarmed:
        pipeline.unproven.recovered()
