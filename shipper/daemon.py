"""Shell. The pipeline at work: as a daemon, or once.

The scheduler's threads observe and capture; one thread is the courier, woken by every record; the main thread waits
for a signal. Then captures end after the window at hand, what they recorded is delivered, and the state closes.
Killed instead, the next start is a normal start.
"""

import math
import os
import random
import signal
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from shipper.config import Config
from shipper.courier import Delivered, backoff
from shipper.errors import ShipperError, TransientError
from shipper.journal import Trouble, logger
from shipper.model import Cause
from shipper.pipeline import Pipeline, composed, threads
from shipper.scheduler import Scheduler
from shipper.worker import Worker

WITNESS_SECONDS = 1.0  # how often to look whether Carbon is still the process that confirmed
DRAIN_SECONDS = 15.0  # how long to go on delivering once told to stop: systemd would wait for 90
PRUNE_SECONDS = 600.0
SPREAD_SECONDS = 60  # the first ticks are spread over so long at most
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(config: Config) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        SystemExit: a bug has ended the courier; the process must be started again.
    """
    # Blocked before a thread starts, so that none of them has them; this thread asks for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    with composed(config) as pipeline:
        wake = threading.Event()
        scheduler = Scheduler(threads(config))
        _schedule(scheduler, pipeline, wake)
        with ThreadPoolExecutor(1, "courier") as executor:
            courier = executor.submit(_deliver, pipeline, wake)
            scheduler.start()
            logger().info("service.started", jobs=len(pipeline.workers), carbon=str(pipeline.carbon), pid=os.getpid())
            signal.sigwait(STOP_SIGNALS)
            logger().info("service.stopping")
            pipeline.stopping.set()
            scheduler.stop()
            wake.set()
            if courier.exception():
                raise SystemExit(1)
        drain(pipeline, seconds=DRAIN_SECONDS)
        logger().info("service.stopped")


def once(config: Config, names: Iterable[str]) -> bool:
    """Observe, settle, capture and deliver once, in line; return whether all of it succeeded."""
    with composed(config, names) as pipeline:
        observed = [worker for worker in pipeline.workers if worker.observe()]
        captured = [worker for worker in observed if _captured(worker)]
        is_drained = drain(pipeline)
        _prune(pipeline)
        return is_drained and len(captured) == len(pipeline.workers) and not pipeline.held


def _captured(worker: Worker) -> bool:
    """Wait until what a worker has observed has settled, and capture it; return whether that succeeded."""
    while (delay := worker.settles_in()) is not None:
        time.sleep(delay)
        if not worker.capture(lambda: None):
            return False
    return True


def _schedule(scheduler: Scheduler, pipeline: Pipeline, wake: threading.Event) -> None:
    """Let all workers tick, those of an interval one after the other."""
    workers = pipeline.workers
    for number, worker in enumerate(workers):
        job, tick = worker.job, partial(worker.tick, scheduler.later, wake.set)
        if job.cron is not None:
            scheduler.cron(job.cron, job.cron_zone, tick, name=job.name)
        elif job.every is not None:
            offset = min(job.every, SPREAD_SECONDS) * number / len(workers)
            scheduler.every(job.every, tick, name=job.name, offset=offset)


def drain(pipeline: Pipeline, *, seconds: float = math.inf) -> bool:
    """Deliver what is waiting, without waiting for a Carbon that is down; return whether all of it went."""
    deadline = time.monotonic() + seconds
    try:
        while _step(pipeline):
            if time.monotonic() > deadline:
                logger().warning("delivery.abandoned", seconds=seconds)
                return False
    except ShipperError as error:
        _delivery_trouble().failed(error, clock=time.monotonic())
        return False
    return True


def _deliver(pipeline: Pipeline, wake: threading.Event) -> None:
    """Be the courier until told to stop; a bug ends the process."""
    trouble, prune_at = _delivery_trouble(), time.monotonic()
    try:
        while not pipeline.stopping.is_set():
            try:
                delivered = _step(pipeline)
            except ShipperError as error:
                trouble.failed(error, clock=time.monotonic())
                pipeline.stopping.wait(backoff(trouble.failures, random.random()))  # noqa: S311 - jitter
                continue
            if delivered is not None:
                if not delivered.is_reading:
                    trouble.recovered()
            elif time.monotonic() >= prune_at:
                prune_at = time.monotonic() + PRUNE_SECONDS
                _prune(pipeline)
            else:
                delay = pipeline.courier.delay(time.monotonic())
                wake.wait(None if delay is None else min(delay, WITNESS_SECONDS))
                wake.clear()
    except BaseException:
        logger().critical("service.failed", exc_info=True)
        os.kill(os.getpid(), signal.SIGTERM)
        raise


def _step(pipeline: Pipeline) -> Delivered | None:
    """Deliver one batch, or read some of it back, and log it; return what that brought, None when nothing waits."""
    courier = pipeline.courier
    began, restarts = time.monotonic(), courier.restarts
    try:
        delivered = courier.step(now=int(time.time()), clock=began, is_trusted=pipeline.clocks.are_trusted())
    finally:  # also when the batch failed
        if courier.restarts > restarts:
            logger().info("carbon.restarted")
        for job, rows in courier.given_up.items():
            logger().warning("rows.unshown", job=job, cause=Cause.TOO_OLD.value, rows=rows)
        courier.given_up.clear()
    if delivered is None:
        return None
    if delivered.is_reading:
        _tell_reading(pipeline, delivered)
    if delivered.datapoints and not delivered.is_replay:
        logger().info(
            "delivery.finished",
            datapoints=delivered.datapoints,
            watermarks=",".join(f"{job}:{value}" for job, value in delivered.watermarks.items()),
            seconds=round(time.monotonic() - began, 3),
        )
    return delivered


def _tell_reading(pipeline: Pipeline, delivered: Delivered) -> None:
    """Say what cannot be read back, or that nobody answers."""
    if delivered.failure is not None:
        pipeline.reading.failed(delivered.failure, clock=time.monotonic())
        return
    pipeline.reading.recovered()
    if delivered.unproven:
        logger().warning(
            "delivery.unproven",
            datapoints=len(delivered.unproven),
            first=delivered.unproven[0],
            hint="It is not in Graphite as it was sent, several times. Does Carbon make new series (its "
            "MAX_CREATES_PER_MINUTE, a full disk)? Does a relay lose lines? Does somebody else write it? It is tried "
            "again hourly.",
        )


def _prune(pipeline: Pipeline) -> None:
    """Forget what is long delivered; a state that is busy is pruned next time."""
    with suppress(TransientError):
        for worker in pipeline.workers:
            worker.prune(int(time.time()))


def _delivery_trouble() -> Trouble:
    return Trouble("delivery.failed", "delivery.recovered")
