"""When the cohorts of a pipeline tick: those of a configuration on the scheduler, then those of another."""

import time
from collections.abc import Mapping
from functools import partial

from shipper.core.model import Job
from shipper.runtime.pipeline import Pipeline
from shipper.runtime.poller import Cohort, Rhythm, rhythm_of
from shipper.runtime.scheduler import Scheduler
from shipper.source.database import Source

PULSE = "scheduler"  # a call like any other, which shows that the scheduler calls
PULSE_EVERY_SECONDS = 5
PULSE_MOST_SECONDS = 30.0
SPREAD_SECONDS = 60  # the first ticks are spread over so long at most


class Schedule:
    """Lets each cohort tick when it is due."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._scheduler = Scheduler(self._skipped)
        self._pulsed = time.monotonic()

    def start(self) -> None:
        """Begin."""
        self._scheduler.lane(PULSE, 1)
        self._scheduler.every(PULSE_EVERY_SECONDS, self._pulse, name=PULSE, lane=PULSE)
        self.change({}, {})
        self._scheduler.start()

    def stop(self, *, wait: bool) -> None:
        """Begin nothing new; wait for what is running, or leave it."""
        self._scheduler.stop(wait=wait)

    def change(self, cohorts: Mapping[Rhythm, Cohort], sources: Mapping[str, Source]) -> None:
        """Bring it from what it was, by cohorts and sources, to what the pipeline is now."""
        pipeline, scheduler = self._pipeline, self._scheduler
        for name, source in pipeline.sources.items():
            if sources.get(name) is not source:
                scheduler.lane(name, pipeline.config.sources[name].connections)
        for rhythm in cohorts.keys() - pipeline.cohorts.keys():
            scheduler.forget(str(rhythm))
        new = [rhythm for rhythm in pipeline.cohorts if rhythm not in cohorts]
        for number, rhythm in enumerate(new):
            name, tick = str(rhythm), partial(self._tick, rhythm)
            if rhythm.cron is not None:
                scheduler.cron(rhythm.cron, rhythm.zone, tick, name=name, lane=rhythm.source)
            elif rhythm.every is not None:
                offset = min(rhythm.every, SPREAD_SECONDS) * number / len(new)
                scheduler.every(rhythm.every, tick, name=name, lane=rhythm.source, offset=offset)

    def next_tick(self, job: Job) -> float | None:
        """Return when a job ticks next, epoch seconds."""
        return self._scheduler.next_call(str(rhythm_of(job)))

    def shift(self, seconds: float) -> None:
        """Follow a wall clock that was set back by so many seconds."""
        self._scheduler.shift(seconds)

    @property
    def is_stuck(self) -> bool:
        """Does the scheduler call nothing any more?"""
        return time.monotonic() - self._pulsed > PULSE_MOST_SECONDS

    def _tick(self, rhythm: Rhythm) -> None:
        """Let the cohort that has the rhythm now tick."""
        cohort = self._pipeline.cohorts.get(rhythm)
        if cohort is not None:
            cohort.tick(partial(self._scheduler.later, lane=rhythm.source))

    def _skipped(self, name: str) -> None:
        cohort = next((cohort for cohort in self._pipeline.cohorts.values() if str(cohort.rhythm) == name), None)
        if cohort is not None:
            cohort.overdue()

    def _pulse(self) -> None:
        self._pulsed = time.monotonic()
