"""Shell. The composition root: a configuration becomes edges, workers and a courier."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from shipper.carbon import Carbon
from shipper.clocks import Clocks
from shipper.config import Config
from shipper.courier import Courier
from shipper.errors import ConfigError
from shipper.journal import Trouble, logger
from shipper.model import Job, Sent
from shipper.readback import Readback
from shipper.source import Source
from shipper.state import State
from shipper.worker import Worker

MOST_THREADS = 100  # beyond it jobs wait for each other, which a database thanks us for


@dataclass(frozen=True, slots=True)
class Pipeline:
    """All the parts of one configuration, joined."""

    workers: list[Worker]
    held: list[str]
    """Jobs that cannot run as they are."""
    courier: Courier
    carbon: Carbon
    clocks: Clocks
    stopping: threading.Event
    reading: Trouble
    """That what was sent cannot be read back."""


@contextmanager
def composed(config: Config, names: Iterable[str] = ()) -> Iterator[Pipeline]:
    """Join the parts for the named jobs, or for all; close them at the end.

    Raises:
        StateBusy: another shipper holds the state.
        ConfigError: there is no such job, or no such credentials.
    """
    jobs = [job for name in names for job in _named(config, name)] or list(config.jobs.values())
    stopping, clocks = threading.Event(), Clocks()
    with ExitStack() as stack:
        state = stack.enter_context(State(config.state.path))
        sources = {name: open_source(config, name, threads=threads(config)) for name in {job.source for job in jobs}}
        for source in sources.values():
            stack.callback(source.close)
        carbon = open_carbon(config)
        stack.callback(carbon.close)
        if state.retarget(str(carbon)):
            logger().info("carbon.changed", carbon=str(carbon))
        workers, held = [], []
        for job in jobs:
            if renamed := state.rename(job, config.jobs):
                logger().info("job.renamed", job=job.name, before=renamed)
            section = config.sources[job.source]
            try:
                workers.append(
                    Worker(
                        job,
                        sources[job.source],
                        state,
                        clocks,
                        settle=section.settle,
                        care=section.care,
                        max_skew=section.max_skew,
                        unit=config.graphite.retentions[-1].step,
                        stopping=stopping,
                    )
                )
            except ConfigError as error:
                held.append(job.name)
                logger().error("job.held", job=job.name, error=str(error), hint=error.hint)
        courier = _courier(config, state, carbon)
        reading = Trouble("readback.failed", "readback.recovered")
        yield Pipeline(workers, held, courier, carbon, clocks, stopping, reading)
        # an orderly end: the next courier need not send again what is delivered
        state.keep_sent(shifted(courier.sent(), time.time() - time.monotonic()))


def shifted(sent: Iterable[Sent], seconds: float) -> list[Sent]:
    """Move the times of what was sent, from one clock to another."""
    return [replace(one, confirmed=one.confirmed + seconds, due=one.due + seconds) for one in sent]


def open_source(config: Config, name: str, *, threads: int = 1) -> Source:
    """Make a configured source, connecting nowhere yet."""
    return Source(name, config.access(name), threads=threads)


def open_carbon(config: Config) -> Carbon:
    """Make the configured Carbon, connecting nowhere yet."""
    graphite = config.graphite
    return Carbon(graphite.host, graphite.port, timeout=graphite.timeout)


def open_readback(config: Config) -> Readback | None:
    """Make what reads back from the configured Graphite, None where nothing is to be read back."""
    graphite = config.graphite
    return None if graphite.render_url is None else Readback(graphite.render_url, timeout=graphite.timeout)


def threads(config: Config) -> int:
    """Return how many threads the jobs need: each for a tick and a capture."""
    return min(MOST_THREADS, 1 + 2 * len(config.jobs))


def _courier(config: Config, state: State, carbon: Carbon) -> Courier:
    graphite = config.graphite
    replay = graphite.replay if graphite.proof == "replay" else []
    sent = shifted(state.take_sent(), time.monotonic() - time.time())
    reader = open_readback(config)
    # a wall clock that was set back meanwhile must not put a replay off
    latest = time.monotonic() + max(replay, default=0)
    stage = len(replay) - 1
    if reader is None:
        sent = [replace(one, stage=min(one.stage, stage), reads=False) for one in sent if replay]
    sent = [replace(one, due=min(one.due, latest)) for one in sent]
    return Courier(
        state, carbon, archives=graphite.retentions, batch=graphite.batch, replay=replay, sent=sent, reader=reader
    )


def _named(config: Config, name: str) -> list[Job]:
    """Return the job of a name, or those that it is on several sources."""
    found = [job for job in config.jobs.values() if name in {job.name, job.name.partition("@")[0]}]
    if not found:
        raise ConfigError(
            f"choose jobs: there is no {name!r} in {config.file}", hint=f"There are: {', '.join(config.jobs)}."
        )
    return found
