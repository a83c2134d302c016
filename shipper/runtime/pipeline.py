"""The composition root: a configuration becomes edges, workers and a courier; another one takes its place."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace

from shipper.config.load import Config
from shipper.core.delivery.courier import Courier
from shipper.core.errors import ConfigError, TransientError
from shipper.core.model import Job, Replay
from shipper.graphite.carbon import Carbon
from shipper.log import RepeatedFailure, logger
from shipper.runtime.clocks import Clocks
from shipper.runtime.endpoints import open_carbon, open_readback, open_source
from shipper.runtime.poller import GroupKey, PollingGroup, group_key
from shipper.runtime.worker import Worker
from shipper.source.database import Source
from shipper.state.store import State

SAMPLE_TIMEOUT = 5.0
"""Seconds: deliveries wait while a sample is read, so a Graphite that hangs must not hold them up for long."""


@dataclass(slots=True)
class Pipeline:
    """All the parts of one configuration, coalesced."""

    config: Config
    state: State
    clocks: Clocks
    sources: dict[str, Source]
    workers: dict[str, Worker]
    polling_groups: dict[GroupKey, PollingGroup]
    """The workers by the table and the times that they share."""
    held: dict[str, ConfigError]
    """Jobs that cannot run as they are."""
    carbon: Carbon
    courier: Courier
    reading: RepeatedFailure = field(default_factory=lambda: RepeatedFailure("readback.failed", "readback.recovered"))
    """That what was sent cannot be read back."""
    unproven: RepeatedFailure = field(default_factory=lambda: RepeatedFailure("delivery.unproven", "delivery.proven"))
    """That Graphite does not hold what was sent."""
    read_at: float | None = None
    """When something was last read back, epoch seconds."""

    @property
    def parts(self) -> list[Worker | PollingGroup]:
        """Return all that works on threads of the sources."""
        return [*self.workers.values(), *self.polling_groups.values()]

    def regroup(self) -> None:
        """Put each worker into the polling group of its table and schedule; unchanged groups stay as they are."""
        members: dict[GroupKey, list[Worker]] = {}
        for worker in self.workers.values():
            members.setdefault(group_key(worker.job), []).append(worker)
        known, self.polling_groups = self.polling_groups, {}
        for key, workers in members.items():
            source, section = self.sources[key.source], self.config.sources[key.source]
            polling_group = known.get(key)
            if polling_group is None or polling_group.source is not source:
                times = {"max_skew": section.max_skew, "timeout": section.timeout}
                polling_group = PollingGroup(key, source, self.state, self.clocks, **times)
            polling_group.join(workers)
            self.polling_groups[key] = polling_group

    @contextmanager
    def locked(self, name: str) -> Iterator[Worker]:
        """Give the worker of a job, which captures nothing within.

        Raises:
            ConfigError: there is no such job, or it cannot run as it is.
            StateBusy: a capture does not end in time.
        """
        if name in self.held:
            raise self.held[name]
        worker = self.workers.get(name)
        if worker is None:
            raise ConfigError(
                f"choose a job: there is no {name!r} in {self.config.file}",
                hint=f"There are: {', '.join(self.config.jobs)}.",
            )
        with worker.paused():
            yield worker

    def renew_courier(self) -> None:
        """Have another courier go on: what the one before has under way, by names that are others now, begins anew."""
        keep_replays(self)
        self.courier = _courier(self.config, self.state, self.carbon)

    def forget_reading(self) -> None:
        """Forget what fails to be read back: from now on another Graphite is asked, or none."""
        self.reading.forget()
        self.unproven.forget()
        self.read_at = None

    def prune(self) -> None:
        """Forget what is long delivered; a state that is busy is pruned next time."""
        with suppress(TransientError):
            for worker in list(self.workers.values()):
                worker.prune(int(time.time()))


@contextmanager
def composed(config: Config, names: Iterable[str] = ()) -> Iterator[Pipeline]:
    """Join the parts for the named jobs, or for all; close them at the end.

    Raises:
        StateBusy: another shipper holds the state.
        ConfigError: there is no such job, or no such credentials.
    """
    jobs = [job for name in names for job in config.named(name)] or list(config.jobs.values())
    with ExitStack() as stack:
        state, clocks = stack.enter_context(State(config.state.path)), Clocks()
        sources = {name: open_source(config, name) for name in {job.source for job in jobs}}
        carbon = open_carbon(config)
        _rename(state, jobs, config)
        _retarget(state, carbon)
        workers, held = {}, {}
        for job in jobs:
            try:
                workers[job.name] = _worker(job, config, sources, state, clocks)
            except ConfigError as error:
                held[job.name] = error
                logger().error("job.held", job=job.name, error=str(error), hint=error.hint)
        courier = _courier(config, state, carbon)
        pipeline = Pipeline(config, state, clocks, sources, workers, {}, held, carbon, courier)
        pipeline.regroup()
        stack.callback(_close, pipeline)
        yield pipeline
        keep_replays(pipeline)


def affected(before: Config, after: Config) -> set[str]:
    """Return the jobs that do not go on as they are when one configuration follows another."""
    if before.graphite != after.graphite:
        return {*before.jobs, *after.jobs}
    sources = {name for name in before.sources if after.sources.get(name) != before.sources[name]}
    both = {name: (before.jobs.get(name), after.jobs.get(name)) for name in {*before.jobs, *after.jobs}}
    return {name for name, (one, other) in both.items() if one != other or (one and one.source in sources)}


class Exchange:
    """The parts that are new when a configuration follows another.

    They are made first, so that what cannot be made changes nothing. What it replaces must be idle: the affected
    workers, and the courier where [graphite] is another.
    """

    def __init__(self, pipeline: Pipeline, config: Config) -> None:
        """Make what is new.

        Raises:
            ConfigError: a job cannot run as it is configured, or credentials are not where they should be.
        """
        before = pipeline.config
        self._pipeline, self._config = pipeline, config
        self._jobs = [config.jobs[name] for name in config.jobs if name in affected(before, config)]
        names = {job.source for job in config.jobs.values()}
        self._sources = {
            name: pipeline.sources[name] if self._is_same(name) else open_source(config, name) for name in names
        }
        self._workers = {
            job.name: _worker(job, config, self._sources, pipeline.state, pipeline.clocks) for job in self._jobs
        }

    def commit(self) -> None:
        """Put them in place; what fails from here on is for a new start to mend."""
        pipeline, config = self._pipeline, self._config
        before, pipeline.config = pipeline.config, config
        if _rename(pipeline.state, self._jobs, config):
            pipeline.renew_courier()
        known = pipeline.workers
        pipeline.workers = {
            name: self._workers.get(name) or known[name]
            for name in config.jobs
            if name in self._workers or name in known
        }
        pipeline.sources, old = self._sources, pipeline.sources
        pipeline.regroup()
        pipeline.held = {name: error for name, error in pipeline.held.items() if name not in pipeline.workers}
        for name, source in old.items():
            if pipeline.sources.get(name) is not source:
                source.close()
        if before.graphite != config.graphite:
            keep_replays(pipeline)
            pipeline.carbon.close()
            pipeline.carbon = open_carbon(config)
            _retarget(pipeline.state, pipeline.carbon)
            pipeline.courier = _courier(config, pipeline.state, pipeline.carbon)
            pipeline.forget_reading()

    def _is_same(self, source: str) -> bool:
        before = self._pipeline.config.sources.get(source)
        return source in self._pipeline.sources and before == self._config.sources[source]


def keep_replays(pipeline: Pipeline) -> None:
    """At the courier's orderly end: the next one need not send again what is delivered."""
    pipeline.state.outbox.keep_replays(shifted(pipeline.courier.schedule(), time.time() - time.monotonic()))


def shifted(sent: Iterable[Replay], seconds: float) -> list[Replay]:
    """Move the times of what was sent, from one clock to another."""
    return [replace(one, confirmed=one.confirmed + seconds, due=one.due + seconds) for one in sent]


def _worker(job: Job, config: Config, sources: dict[str, Source], state: State, clocks: Clocks) -> Worker:
    section = config.sources[job.source]
    return Worker(
        job,
        sources[job.source],
        state,
        clocks,
        unit=config.graphite.retentions[-1].step,
        timeout=section.timeout,
    )


def _rename(state: State, jobs: Iterable[Job], config: Config) -> bool:
    """Give new jobs what belongs to their twins that left; return whether there were any."""
    renamed = {job.name: before for job in jobs if (before := state.housekeeping.rename(job, config.jobs))}
    for name, before in renamed.items():
        logger().info("job.renamed", job=name, before=before)
    return bool(renamed)


def _retarget(state: State, carbon: Carbon) -> None:
    if state.outbox.retarget(str(carbon)):
        logger().info("carbon.changed", carbon=str(carbon))


def _close(pipeline: Pipeline) -> None:
    pipeline.carbon.close()
    for source in pipeline.sources.values():
        source.close()


def _courier(config: Config, state: State, carbon: Carbon) -> Courier:
    graphite = config.graphite
    sent = shifted(state.outbox.take_replays(), time.monotonic() - time.time())
    reads_all = graphite.proof == "readback"
    reader = open_readback(config, seconds=math.inf if reads_all else SAMPLE_TIMEOUT)
    # a wall clock that was set back meanwhile must not put a replay off
    latest = time.monotonic() + graphite.replay[-1]
    stage = len(graphite.replay) - 1
    if not reads_all:
        sent = [replace(one, stage=min(one.stage, stage), reads=False) for one in sent]
    sent = [replace(one, due=min(one.due, latest)) for one in sent]
    return Courier(
        state.outbox,
        carbon,
        archives=graphite.retentions,
        batch=graphite.batch,
        replay=graphite.replay,
        schedule=sent,
        reader=reader if reads_all else None,
        sampled_by=None if reads_all else reader,
    )
