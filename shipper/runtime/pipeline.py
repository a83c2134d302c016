"""The composition root: it makes the parts of a configuration, and connects them."""

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shipper.config.load import Config
from shipper.core.delivery.courier import Courier
from shipper.core.delivery.outbox import Replay
from shipper.core.errors import ConfigError, TransientError
from shipper.core.model import Job
from shipper.graphite.receivers import Fence, Receivers
from shipper.log.logger import RepeatedFailure, logger
from shipper.log.results import DeliveryLog
from shipper.runtime.clocks import Clocks, Flag
from shipper.runtime.endpoints import open_carbon, open_readback, open_source
from shipper.runtime.poller import GroupKey, PollingGroup, group_key
from shipper.runtime.worker import Worker
from shipper.source.database import Source
from shipper.state.store import State
from shipper.status.counters import JobCounters

if TYPE_CHECKING:
    from shipper.state.remote.database import StateDatabase

SAMPLE_TIMEOUT = 5.0
"""Timeout of reading a sample, in seconds: deliveries wait for it, and a Graphite that hangs must not delay them."""


@dataclass(slots=True)
class Pipeline:
    """The parts of one configuration."""

    config: Config
    state: State
    clocks: Clocks
    sources: dict[str, Source]
    workers: dict[str, Worker]
    polling_groups: dict[GroupKey, PollingGroup]
    """The workers by table and schedule."""
    held: dict[str, ConfigError]
    """Jobs that cannot run as they are configured."""
    carbon: Receivers
    courier: Courier
    wake: Flag
    """Raised when there are new totals to deliver."""
    database: "StateDatabase | None" = None
    """The database that keeps the state; None if it is a file."""
    fence: Fence | None = None
    """Right to send that deliveries need then."""
    replayed: int = 0
    """Newest revision when this process began to lead."""
    loaded_at: float = field(default_factory=time.time)
    """When the configuration was loaded, in epoch seconds."""
    reading: RepeatedFailure = field(default_factory=lambda: RepeatedFailure("readback.failed", "readback.recovered"))
    """The last values sent cannot be read back."""
    unproven: RepeatedFailure = field(default_factory=lambda: RepeatedFailure("delivery.unproven", "delivery.proven"))
    """Graphite does not hold the values sent."""
    delivering: DeliveryLog = field(default_factory=DeliveryLog)
    """Deliveries that are not logged yet."""
    read_at: float | None = None
    """When values were last read back, in epoch seconds."""
    audited: str | None = None
    """Job whose table an audit reads now."""
    is_renewal_due: bool = False
    """Whether the next step of a delivery replaces the courier first."""
    counters: defaultdict[str, JobCounters] = field(default_factory=lambda: defaultdict(JobCounters))
    """Counters by job; they outlive a worker, which a reload replaces."""

    @property
    def parts(self) -> list[Worker | PollingGroup]:
        """Return all parts that work on threads of the sources."""
        return [*self.workers.values(), *self.polling_groups.values()]

    def regroup(self) -> None:
        """Put each worker into the polling group of its table and schedule; unchanged groups stay as they are."""
        # the workers of each group
        members: dict[GroupKey, list[Worker]] = {}
        for worker in self.workers.values():
            worker.counters = self.counters[worker.job.name]
            members.setdefault(group_key(worker.job), []).append(worker)

        # a group is made unless there is one that reads from the same source
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
        """Yield the worker of a job, which captures nothing during the block.

        Raises:
            ConfigError: there is no such job, or it cannot run as it is configured.
            StateBusy: a capture does not end in time.
        """
        if name in self.held:
            raise self.held[name]
        worker = self.workers.get(name)
        if worker is None:
            raise ConfigError(
                f"choose a job: no job {name!r} in {self.config.file}",
                hint=f"The jobs are: {', '.join(self.config.jobs)}.",
            )
        with worker.paused():
            yield worker

    def keep_replays(self) -> None:
        """Store which delivered totals need no repetition now, so that the next courier does not send them again."""
        to_epoch = time.time() - time.monotonic()
        self.state.outbox.keep_replays(_shifted(self.courier.schedule(), to_epoch))

    def renew_courier(self) -> None:
        """Let the thread that delivers replace the courier, so that rounds begun under old job names start over.

        No other thread may ask a courier at work for its replays: one that is just being opened would be missing.
        """
        self.is_renewal_due = True
        self.wake.set()

    def courier_at_work(self) -> Courier:
        """Return the courier for a step, in the thread that delivers."""
        if self.is_renewal_due:
            self.keep_replays()
            self.courier = _courier(self.config, self.state, self.carbon, replayed=self.replayed)
            self.is_renewal_due = False
        return self.courier

    def replace_courier(self) -> None:
        """Replace the courier after a bug: nothing of its schedule is kept, so that all unproven totals go again."""
        self.state.outbox.keep_replays([])
        self.courier = _courier(self.config, self.state, self.carbon, replayed=self.replayed)

    def renew_carbon(self) -> None:
        """Connect to the Carbon of the configuration, which has changed; deliver and read with its settings."""
        self.keep_replays()
        self.carbon.close()
        self.carbon = open_carbon(self.config, self.fence)
        _retarget(self.state, self.carbon)
        self.courier = _courier(self.config, self.state, self.carbon, replayed=self.replayed)
        # a failure of the previous Graphite says nothing about this one
        self.reading.forget()
        self.unproven.forget()
        self.read_at = None

    def prune(self) -> None:
        """Delete slots that were delivered long ago; a busy state is pruned the next time."""
        with suppress(TransientError):
            for worker in list(self.workers.values()):
                worker.prune(int(time.time()))


@contextmanager
def composed(config: Config, names: Iterable[str] = (), database: "StateDatabase | None" = None) -> Iterator[Pipeline]:
    """Yield a pipeline of the named jobs, or of all; close its parts at the end.

    Take the database that keeps the state if this process leads there already.

    Raises:
        StateBusy: another shipper holds the state.
        ConfigError: there is no such job, or no such credentials.
    """
    jobs = [job for name in names for job in config.named(name)] or list(config.jobs.values())
    with ExitStack() as stack:
        # endpoints, and what the state has to know about their changes
        clocks, wake = Clocks(), Flag()
        database = database or lead(config)
        state = stack.enter_context(State(config.state.path, database, recorded=wake.set))
        fence = None
        if database is not None:
            from shipper.runtime.leadership import Leading  # noqa: PLC0415 - most services have a file

            fence = stack.enter_context(Leading(database, state, wake))
        sources = {name: open_source(config, name) for name in {job.source for job in jobs}}
        carbon = open_carbon(config, fence)
        rename_jobs(state, jobs, config)
        _retarget(state, carbon)

        # workers; a job that cannot run is held, and the others run
        workers, held = {}, {}
        for job in jobs:
            try:
                workers[job.name] = make_worker(job, config, sources, state, clocks)
            except ConfigError as error:
                held[job.name] = error
                logger().error("job.held", job=job.name, error=str(error), hint=error.hint)

        # the pipeline
        replayed = 0 if database is None else state.revision
        courier = _courier(config, state, carbon, replayed=replayed)
        pipeline = Pipeline(config, state, clocks, sources, workers, {}, held, carbon, courier, wake)
        pipeline.database, pipeline.fence, pipeline.replayed = database, fence, replayed
        pipeline.regroup()
        stack.callback(_close, pipeline)
        yield pipeline
        pipeline.keep_replays()


def lead(config: Config) -> "StateDatabase | None":
    """Take the lease of a configured database, and raise as `leadership.lead` does; None if the state is a file."""
    if config.state.database is None:
        return None
    from shipper.runtime import leadership  # noqa: PLC0415 - most services have a file

    return leadership.lead(config)


def make_worker(job: Job, config: Config, sources: Mapping[str, Source], state: State, clocks: Clocks) -> Worker:
    """Return the worker of a job.

    Raises:
        ConfigError: the job cannot run as it is configured.
    """
    unit, timeout = config.graphite.retentions[-1].step, config.sources[job.source].timeout
    return Worker(job, sources[job.source], state, clocks, unit=unit, timeout=timeout)


def rename_jobs(state: State, jobs: Iterable[Job], config: Config) -> bool:
    """Transfer the state of removed jobs to new jobs with the same definition; return whether there were any."""
    renamed = {job.name: before for job in jobs if (before := state.housekeeping.rename(job, config.jobs))}
    for name, before in renamed.items():
        logger().info("job.renamed", job=name, before=before)
    return bool(renamed)


def _retarget(state: State, carbon: Receivers) -> None:
    if state.outbox.retarget(carbon.addresses):
        logger().info("carbon.changed", carbon=carbon.addresses)


def _close(pipeline: Pipeline) -> None:
    pipeline.carbon.close()
    for source in pipeline.sources.values():
        source.close()


def _courier(config: Config, state: State, carbon: Receivers, *, replayed: int) -> Courier:
    """Return a courier that continues with the replays of the one before.

    After a take-over, totals up to the revision `replayed` are sent again, also where others are read back.
    """
    graphite = config.graphite
    reads_all = graphite.proof == "readback"
    reader = open_readback(config, seconds=math.inf if reads_all else SAMPLE_TIMEOUT)

    # replays of the last courier, as the configuration allows them now
    schedule = _shifted(state.outbox.take_replays(), time.monotonic() - time.time())
    if not reads_all:
        stage = len(graphite.replay) - 1
        schedule = [replace(replay, stage=min(replay.stage, stage), reads=False) for replay in schedule]
    # a wall clock that was set back meanwhile must not put a replay off
    latest = time.monotonic() + graphite.replay[-1]
    schedule = [replace(replay, due=min(replay.due, latest)) for replay in schedule]

    return Courier(
        state.outbox,
        carbon,
        archives=graphite.retentions,
        batch=graphite.batch,
        replay=graphite.replay,
        schedule=schedule,
        reader=reader if reads_all else None,
        sampled_by=None if reads_all else reader,
        replayed=replayed,
    )


def _shifted(replays: Iterable[Replay], seconds: float) -> list[Replay]:
    """Move the times of replays, from one clock to another."""
    return [replace(replay, confirmed=replay.confirmed + seconds, due=replay.due + seconds) for replay in replays]
