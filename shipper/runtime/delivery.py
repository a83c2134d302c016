"""The courier at work: what its steps bring is told, what fails is tried again, in the end all is drained."""

import math
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice

from shipper.core.delivery.courier import Delivered
from shipper.core.errors import ShipperError, Unproven
from shipper.core.model import RejectReason
from shipper.core.retry import backoff
from shipper.log import RepeatedFailure, logger
from shipper.runtime.clocks import Flag
from shipper.runtime.pipeline import Pipeline

WITNESS_SECONDS = 1.0  # how often to look whether Carbon has died, where no connection tells
TOGETHER_SECONDS = 0.25  # what is recorded within such a time is delivered together
MOST_SHOWN = 10  # watermarks in a line of the log
UNPROVEN_HINT = (
    "Can Carbon write (a full disk), does it make new series (MAX_CREATES_PER_MINUTE), does a whitelist, an aggregator "
    "or a relay take lines away, does somebody else write this series? It is sent again until Graphite holds it."
)
STUCK_TIMEOUTS = 20  # a step that takes so many of Carbon's time-outs will never end by itself


class Delivery:
    """The courier's thread. It can be stopped, and started again with another courier."""

    def __init__(self, pipeline: Pipeline, chore: Callable[[bool], float]) -> None:
        """Call chore between steps, saying whether nothing else is to be done; it returns for how long it can wait."""
        self.trouble = RepeatedFailure("delivery.failed", "delivery.recovered")
        self.reached_at: float | None = None
        """When Carbon last confirmed a batch, epoch seconds."""
        self.datapoints = Counter[str]()
        self.seconds = Counter[str]()
        """How long batches took, by the jobs that were in them."""
        self.has_failed = False
        """Has a bug ended it?"""
        self._pipeline = pipeline
        self._chore = chore
        self._stopping = Flag()
        self._step_began: float | None = None
        self._noted = float("-inf")
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to deliver."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="courier")
        self._thread.start()

    def stop(self, *, seconds: float) -> bool:
        """End after the batch at hand; return whether it has ended in time, else it ends later."""
        self._stopping.set()
        self._pipeline.wake.set()
        if self._thread is not None:
            self._thread.join(seconds)
        return self.is_gone

    def resume(self) -> None:
        """Go on after all."""
        self._stopping.clear()
        if self.is_gone:
            self.start()

    @property
    def is_gone(self) -> bool:
        """Is there no courier?"""
        return self._thread is None or not self._thread.is_alive()

    @property
    def is_stuck(self) -> bool:
        """Does a step take far longer than its time-outs allow?"""
        began = self._step_began
        return began is not None and time.monotonic() - began > STUCK_TIMEOUTS * self._pipeline.config.graphite.timeout

    def _run(self) -> None:
        """Deliver until told to stop; a bug ends the process."""
        try:
            while not self._stopping.is_set():
                self._deliver()
        except BaseException:  # noqa: BLE001 - the end of this thread must be that of the process
            self.has_failed = True
            logger().critical("service.failed", exc_info=True)
            os.kill(os.getpid(), signal.SIGTERM)

    def _deliver(self) -> None:
        """Make one step, or wait for the next."""
        self._step_began = began = time.monotonic()
        notes = began - self._noted >= TOGETHER_SECONDS
        self._noted = began if notes else self._noted
        try:
            delivered = step(self._pipeline, notes=notes)
            rest = self._chore(delivered is None)
        except ShipperError as error:
            self._step_began = None
            self.trouble.failed(error, clock=time.monotonic())
            self._stopping.wait(backoff(self.trouble.failures, random.random()))  # noqa: S311 - jitter
            return
        self._step_began = None
        if delivered is not None:
            self._note(delivered, time.monotonic() - began)
            return
        # a Carbon that dies is seen at once, before another can take its place
        watched = self._pipeline.carbon.watched
        if not notes:  # there may be more to deliver already
            self._stopping.wait(self._noted + TOGETHER_SECONDS - time.monotonic(), watched)
            return
        delay = self._pipeline.courier.delay(time.monotonic())
        self._pipeline.wake.wait(rest if delay is None else min(delay, rest, WITNESS_SECONDS), watched)
        self._pipeline.wake.clear()

    def _note(self, delivered: Delivered, seconds: float) -> None:
        if delivered.datapoints:
            self.reached_at = time.time()
        if not delivered.is_reading:
            self.trouble.recovered()
        self.datapoints.update(delivered.datapoints)
        for job in delivered.datapoints:
            self.seconds[job] += seconds  # type: ignore[assignment] # a Counter adds up whatever is a number


def drain(pipeline: Pipeline, *, seconds: float = math.inf) -> bool:
    """Deliver what is waiting, without waiting for a Carbon that is down; return whether all of it went."""
    deadline = time.monotonic() + seconds
    try:
        while step(pipeline):
            if time.monotonic() > deadline:
                logger().warning("delivery.abandoned", seconds=seconds)
                return False
    except ShipperError as error:
        RepeatedFailure("delivery.failed", "delivery.recovered").failed(error, clock=time.monotonic())
        return False
    return True


def step(pipeline: Pipeline, *, notes: bool = True) -> Delivered | None:
    """Deliver one batch, or read some of it back, and log it; return what that brought, None when nothing waits.

    See Courier.step.
    """
    courier = pipeline.courier
    began, restarts = time.monotonic(), courier.restarts
    try:
        is_trusted = pipeline.clocks.are_trusted()
        delivered = courier.step(now=int(time.time()), clock=began, is_trusted=is_trusted, opens_round=notes)
    finally:  # also when the batch failed
        if courier.restarts > restarts:
            logger().info("carbon.disconnected")
        for job, rows in courier.given_up.items():
            logger().warning("rows.rejected", job=job, reason=RejectReason.TOO_OLD.value, rows=rows)
        courier.given_up.clear()
    if delivered is None:
        return None
    if delivered.is_reading:
        _log_reading(pipeline, delivered)
    if (datapoints := sum(delivered.datapoints.values())) and not delivered.is_replay:
        logger().info(
            "delivery.finished",
            datapoints=datapoints,
            watermarks=_brief(delivered.watermarks),
            seconds=round(time.monotonic() - began, 3),
        )
    return delivered


def _brief(watermarks: Mapping[str, int]) -> str:
    """Show the first of them; with hundreds of jobs a line would be long."""
    shown = [f"{job}:{value}" for job, value in islice(watermarks.items(), MOST_SHOWN)]
    return ",".join([*shown, f"and {len(watermarks) - MOST_SHOWN} more"] if len(watermarks) > MOST_SHOWN else shown)


def _log_reading(pipeline: Pipeline, delivered: Delivered) -> None:
    """Say what cannot be read back, or that nobody answers; and when that is over."""
    clock = time.monotonic()
    if delivered.failure is not None:
        pipeline.reading.failed(delivered.failure, clock=clock)
        return
    pipeline.reading.recovered()
    pipeline.read_at = time.time()
    if delivered.unproven:
        first, number = delivered.unproven[0], len(delivered.unproven)
        held = "nothing" if first.found is None else f"{first.found:.17g}"
        what = f"Graphite holds {held} where {first.expected:.17g} was sent several times"
        error = Unproven(f"read back {first.path} of {first.slot}: {what}", hint=UNPROVEN_HINT)
        pipeline.unproven.failed(error, clock=clock, datapoints=number, **first._asdict())
    elif not pipeline.courier.is_alarmed:
        pipeline.unproven.recovered()
