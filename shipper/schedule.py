"""Shell. When the jobs of a pipeline tick: a configuration on the scheduler, and another one in its place."""

import time
from collections.abc import Mapping
from functools import partial

from shipper.config import Config
from shipper.delivery import Delivery
from shipper.model import Job
from shipper.pipeline import Pipeline
from shipper.scheduler import Scheduler
from shipper.source import Source
from shipper.worker import Worker

PULSE = "scheduler"  # a call like any other, which shows that the scheduler calls
PULSE_EVERY_SECONDS = 5
PULSE_MOST_SECONDS = 30.0
SPREAD_SECONDS = 60  # the first ticks are spread over so long at most


class Schedule:
    """Lets each job's worker tick when it is due; what it records wakes the courier."""

    def __init__(self, pipeline: Pipeline, delivery: Delivery) -> None:
        self._pipeline, self._delivery = pipeline, delivery
        self._scheduler = Scheduler(self._skipped)
        self._pulsed = time.monotonic()

    def start(self) -> None:
        """Begin."""
        self._scheduler.lane(PULSE, 1)
        self._scheduler.every(PULSE_EVERY_SECONDS, self._pulse, name=PULSE, lane=PULSE)
        self.change(self._pipeline.config, {}, {})
        self._scheduler.start()

    def stop(self, *, wait: bool) -> None:
        """Begin nothing new; wait for what is running, or leave it."""
        self._scheduler.stop(wait=wait)

    def change(self, config: Config, workers: Mapping[str, Worker], sources: Mapping[str, Source]) -> None:
        """Bring it from what it was, by configuration, workers and sources, to what the pipeline is now."""
        pipeline, scheduler = self._pipeline, self._scheduler
        for name, source in pipeline.sources.items():
            if sources.get(name) is not source:
                scheduler.lane(name, pipeline.config.sources[name].connections)
        for name in workers.keys() - pipeline.workers.keys():
            scheduler.forget(name)
        new = [
            worker
            for name, worker in pipeline.workers.items()
            if name not in workers or _times(config.jobs[name]) != _times(pipeline.config.jobs[name])
        ]
        for number, worker in enumerate(new):
            job, tick = worker.job, partial(self._tick, worker.job.name)
            if job.cron is not None:
                scheduler.cron(job.cron, job.cron_zone, tick, name=job.name, lane=job.source)
            elif job.every is not None:
                offset = min(job.every, SPREAD_SECONDS) * number / len(new)
                scheduler.every(job.every, tick, name=job.name, lane=job.source, offset=offset)

    def next_tick(self, job: str) -> float | None:
        """Return when a job ticks next, epoch seconds."""
        return self._scheduler.next_call(job)

    def shift(self, seconds: float) -> None:
        """Follow a wall clock that was set back by so many seconds."""
        self._scheduler.shift(seconds)

    @property
    def is_stuck(self) -> bool:
        """Does the scheduler call nothing any more?"""
        return time.monotonic() - self._pulsed > PULSE_MOST_SECONDS

    def _tick(self, name: str) -> None:
        """Let the worker that has the job now tick."""
        worker = self._pipeline.workers.get(name)
        if worker is not None:
            worker.tick(partial(self._scheduler.later, lane=worker.job.source), self._delivery.wake)

    def _skipped(self, name: str) -> None:
        worker = self._pipeline.workers.get(name)
        if worker is not None:
            worker.overdue()

    def _pulse(self) -> None:
        self._pulsed = time.monotonic()


def _times(job: Job) -> tuple[object, ...]:
    """Return when a job ticks, and where."""
    return (job.every, job.cron, job.cron_zone, job.source)
