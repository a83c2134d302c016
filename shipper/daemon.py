"""Shell. The composition root: a configuration becomes edges, workers and a courier; then they run.

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
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from shipper.carbon import Carbon
from shipper.config import Config
from shipper.courier import Courier, backoff
from shipper.errors import ConfigError, ShipperError
from shipper.journal import Trouble, logger
from shipper.model import Job, Sent
from shipper.scheduler import Scheduler
from shipper.source import Source
from shipper.state import State
from shipper.worker import Worker

WITNESS_SECONDS = 1.0  # how often to look whether Carbon is still the process that confirmed
DRAIN_SECONDS = 15.0  # how long to go on delivering once told to stop: systemd would wait for 90
MOST_THREADS = 100  # beyond it jobs wait for each other, which a database thanks us for
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """All the parts of one configuration, joined."""

    workers: list[Worker]
    courier: Courier
    carbon: Carbon
    stopping: threading.Event


@contextmanager
def composed(config: Config, names: Iterable[str] = ()) -> Iterator[Pipeline]:
    """Join the parts for the named jobs, or for all; close them at the end.

    Raises:
        StateBusy: another shipper holds the state.
        ConfigError: there is no such job, or no such credentials, or the state knows a job on another table.
    """
    jobs = [_job(config, name) for name in names] or list(config.jobs.values())
    stopping = threading.Event()
    with ExitStack() as stack:
        state = stack.enter_context(State(config.state.path))
        sources = {name: open_source(config, name, threads=_threads(config)) for name in {job.source for job in jobs}}
        for source in sources.values():
            stack.callback(source.close)
        carbon = open_carbon(config)
        stack.callback(carbon.close)
        workers = [
            Worker(
                job,
                sources[job.source],
                state,
                archive=config.graphite.retentions[0],
                settle=config.sources[job.source].settle,
                stopping=stopping,
            )
            for job in jobs
        ]
        courier = _courier(config, state, carbon)
        yield Pipeline(workers, courier, carbon, stopping)
        # an orderly end: the next courier need not send again what is delivered
        state.keep_sent(shifted(courier.sent(), time.time() - time.monotonic()))


def shifted(sent: Iterable[Sent], seconds: float) -> list[Sent]:
    """Move the times of what was sent, from one clock to another."""
    return [replace(one, confirmed=one.confirmed + seconds, due=one.due + seconds) for one in sent]


def open_source(config: Config, name: str, *, threads: int = 1) -> Source:
    """Make a configured source, connecting nowhere yet."""
    section = config.sources[name]
    option_file = config.option_file(name)
    return Source(name, section.url, timeout=section.timeout, option_file=option_file, threads=threads)


def open_carbon(config: Config) -> Carbon:
    """Make the configured Carbon, connecting nowhere yet."""
    graphite = config.graphite
    return Carbon(graphite.host, graphite.port, timeout=graphite.timeout)


def run(config: Config) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        SystemExit: a bug has ended the courier; the process must be started again.
    """
    # Blocked before a thread starts, so that none of them has them; this thread asks for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    with composed(config) as pipeline:
        wake = threading.Event()
        scheduler = Scheduler(_threads(config))
        for worker in pipeline.workers:
            tick = partial(worker.tick, scheduler.later, wake.set)
            scheduler.every(worker.job.every, tick, name=worker.job.name)
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
        while delay := max((worker.settles_in() for worker in observed), default=0.0):
            time.sleep(delay)
        captured = [worker for worker in observed if worker.capture(lambda: None)]
        return drain(pipeline) and len(captured) == len(pipeline.workers)


def drain(pipeline: Pipeline, *, seconds: float = math.inf) -> bool:
    """Deliver what is waiting, without waiting for a Carbon that is down; return whether all of it went."""
    deadline = time.monotonic() + seconds
    try:
        while _step(pipeline.courier):
            if time.monotonic() > deadline:
                logger().warning("delivery.abandoned", seconds=seconds)
                return False
    except ShipperError as error:
        _delivery_trouble().failed(error, clock=time.monotonic())
        return False
    return True


def _deliver(pipeline: Pipeline, wake: threading.Event) -> None:
    """Be the courier until told to stop; a bug ends the process."""
    trouble = _delivery_trouble()
    try:
        while not pipeline.stopping.is_set():
            try:
                has_delivered = _step(pipeline.courier)
            except ShipperError as error:
                trouble.failed(error, clock=time.monotonic())
                pipeline.stopping.wait(backoff(trouble.failures, random.random()))  # noqa: S311 - jitter
                continue
            if has_delivered:
                trouble.recovered()
            else:
                delay = pipeline.courier.delay(time.monotonic())
                wake.wait(None if delay is None else min(delay, WITNESS_SECONDS))
                wake.clear()
    except BaseException:
        logger().critical("service.failed", exc_info=True)
        os.kill(os.getpid(), signal.SIGTERM)
        raise


def _step(courier: Courier) -> bool:
    """Deliver one batch, and log it; return whether there was anything to do."""
    began, restarts, stranded = time.monotonic(), courier.restarts, set(courier.stranded)
    try:
        delivered = courier.step(now=int(time.time()), clock=began)
    finally:  # also when the batch failed
        if courier.restarts > restarts:
            logger().info("carbon.restarted")
        for job in courier.stranded - stranded:
            logger().error("totals.stranded", job=job)
    if delivered is None:
        return False
    if delivered.datapoints and not delivered.is_replay:
        logger().info(
            "delivery.finished",
            datapoints=delivered.datapoints,
            watermarks=",".join(f"{job}:{value}" for job, value in delivered.watermarks.items()),
            seconds=round(time.monotonic() - began, 3),
        )
    return True


def _courier(config: Config, state: State, carbon: Carbon) -> Courier:
    graphite = config.graphite
    replay = graphite.replay if graphite.proof == "replay" else []
    sent = shifted(state.take_sent(), time.monotonic() - time.time())
    # a wall clock that was set back meanwhile must not put a replay off
    latest = time.monotonic() + max(replay, default=0)
    stage = len(replay) - 1
    sent = [replace(one, due=min(one.due, latest), stage=min(one.stage, stage)) for one in sent if replay]
    return Courier(state, carbon, archive=graphite.retentions[0], batch=graphite.batch, replay=replay, sent=sent)


def _delivery_trouble() -> Trouble:
    return Trouble("delivery.failed", "delivery.recovered")


def _job(config: Config, name: str) -> Job:
    if name not in config.jobs:
        raise ConfigError(
            f"choose jobs: there is no {name!r} in {config.file}", hint=f"There are: {', '.join(config.jobs)}."
        )
    return config.jobs[name]


def _threads(config: Config) -> int:
    return min(MOST_THREADS, 1 + 2 * len(config.jobs))  # a job's tick and its capture
