"""When the polling_groups of a pipeline tick: those of a configuration on the scheduler, then those of another."""

import time
from collections.abc import Mapping
from functools import partial

from shipper.core.model import Job
from shipper.runtime.pipeline import Pipeline
from shipper.runtime.poller import GroupKey, PollingGroup, group_key
from shipper.runtime.scheduler import Scheduler
from shipper.source.database import Source

PULSE = "scheduler"  # a call like any other, which shows that the scheduler calls
PULSE_EVERY_SECONDS = 5
PULSE_MOST_SECONDS = 30.0
SPREAD_SECONDS = 60  # the first ticks are spread over so long at most


class Schedule:
    """Lets each polling_group tick when it is due."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._scheduler = Scheduler(self._skipped)
        self._pulsed = time.monotonic()

    def start(self) -> None:
        """Begin."""
        self._scheduler.pool(PULSE, 1)
        self._scheduler.every(PULSE_EVERY_SECONDS, self._pulse, name=PULSE, pool=PULSE)
        self.change({}, {})
        self._scheduler.start()

    def stop(self, *, wait: bool) -> None:
        """Begin nothing new; wait for what is running, or leave it."""
        self._scheduler.stop(wait=wait)

    def change(self, polling_groups: Mapping[GroupKey, PollingGroup], sources: Mapping[str, Source]) -> None:
        """Bring it from what it was, by polling_groups and sources, to what the pipeline is now."""
        pipeline, scheduler = self._pipeline, self._scheduler
        for name, source in pipeline.sources.items():
            if sources.get(name) is not source:
                scheduler.pool(name, pipeline.config.sources[name].connections)
        for key in polling_groups.keys() - pipeline.polling_groups.keys():
            scheduler.forget(str(key))
        new = [key for key in pipeline.polling_groups if key not in polling_groups]
        for number, key in enumerate(new):
            name, tick = str(key), partial(self._tick, key)
            if key.cron is not None:
                scheduler.cron(key.cron, key.zone, tick, name=name, pool=key.source)
            elif key.every is not None:
                offset = min(key.every, SPREAD_SECONDS) * number / len(new)
                scheduler.every(key.every, tick, name=name, pool=key.source, offset=offset)

    def next_tick(self, job: Job) -> float | None:
        """Return when a job ticks next, epoch seconds."""
        return self._scheduler.next_call(str(group_key(job)))

    def shift(self, seconds: float) -> None:
        """Follow a wall clock that was set back by so many seconds."""
        self._scheduler.shift(seconds)

    @property
    def is_stuck(self) -> bool:
        """Does the scheduler call nothing any more?"""
        return time.monotonic() - self._pulsed > PULSE_MOST_SECONDS

    def _tick(self, key: GroupKey) -> None:
        """Let the polling_group that has the key now tick."""
        polling_group = self._pipeline.polling_groups.get(key)
        if polling_group is not None:
            polling_group.tick(partial(self._scheduler.later, pool=key.source))

    def _skipped(self, name: str) -> None:
        polling_group = next(
            (
                polling_group
                for polling_group in self._pipeline.polling_groups.values()
                if str(polling_group.key) == name
            ),
            None,
        )
        if polling_group is not None:
            polling_group.overdue()

    def _pulse(self) -> None:
        self._pulsed = time.monotonic()
