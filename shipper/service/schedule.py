"""The ticks of a pipeline's polling groups on the scheduler, also after a reload."""

import time
from collections.abc import Mapping
from functools import partial

from shipper.core.model import Job
from shipper.runtime.bugs import end_process
from shipper.runtime.pipeline import Pipeline
from shipper.runtime.poller import GroupKey, PollingGroup, group_key
from shipper.runtime.scheduler import Scheduler
from shipper.service.auditor import Auditor
from shipper.source.database import Source

# names of calls and of their threads; no source can have one with a space
PULSE = "shipper pulse"  # a call like any other, which shows that the scheduler works
AUDIT = "shipper audit"
PULSE_EVERY_SECONDS = 5
PULSE_MOST_SECONDS = 30.0
SEE_SECONDS = 60.0
SPREAD_SECONDS = 60.0  # the first ticks are spread over this time at most
APART_SECONDS = 1.0  # and those of a few groups are closer: restarts may come again and again


class Schedule:
    """The scheduled ticks of a pipeline's polling groups, and the audits."""

    def __init__(self, pipeline: Pipeline, auditor: Auditor) -> None:
        self._pipeline = pipeline
        self._auditor = auditor
        self._scheduler = Scheduler(self._skipped, self._fail)
        self.has_failed = False
        """Whether a bug has ended the scheduler."""
        self._pulsed = time.monotonic()
        self._keys: dict[str, GroupKey] = {}
        """Keys of the polling groups by the names of their ticks."""

    def start(self) -> None:
        """Start the scheduler, with the ticks of all polling groups."""
        self._scheduler.pool(PULSE, 1)
        self._scheduler.pool(AUDIT, 1)
        self._scheduler.every(PULSE_EVERY_SECONDS, self._pulse, name=PULSE, pool=PULSE)
        self.change({}, {})
        self._scheduler.start()

    def stop(self, *, wait: bool) -> None:
        """Start no more ticks; wait for the running calls, or leave them."""
        self._scheduler.stop(wait=wait)

    def change(self, polling_groups: Mapping[GroupKey, PollingGroup], sources: Mapping[str, Source]) -> None:
        """Replace the schedule of previous polling groups and sources by that of the pipeline's current ones."""
        pipeline, scheduler = self._pipeline, self._scheduler

        # threads of new sources
        for name, source in pipeline.sources.items():
            if sources.get(name) is not source:
                scheduler.pool(name, pipeline.config.sources[name].connections)

        # ticks of groups that left, and of new ones, which begin one after the other
        self._keys = {_name(key): key for key in pipeline.polling_groups}
        for key in polling_groups.keys() - pipeline.polling_groups.keys():
            scheduler.forget(_name(key))
        new = [key for key in pipeline.polling_groups if key not in polling_groups]
        spread = min(SPREAD_SECONDS, APART_SECONDS * len(new))
        for number, key in enumerate(new):
            name, tick = _name(key), partial(self._tick, key)
            if key.cron is not None:
                scheduler.cron(key.cron, key.zone, tick, name=name, pool=key.source)
            elif key.every is not None:
                offset = min(key.every, spread) * number / len(new)
                scheduler.every(key.every, tick, name=name, pool=key.source, offset=offset)

        # jobs with cron that a reload has added to a group or changed, as those of new groups
        for key in (key for key in pipeline.polling_groups if key.cron is not None):
            scheduler.later(0.0, partial(self._see, key), pool=key.source)

        # audits
        audit = pipeline.config.audit
        if audit.cron is not None:
            scheduler.cron(audit.cron, audit.cron_zone, self._auditor.run, name=AUDIT, pool=AUDIT)
        elif self.next_audit is not None:
            scheduler.forget(AUDIT)

    @property
    def next_audit(self) -> float | None:
        """Return the time of the next audit, in epoch seconds; None without one."""
        return self._scheduler.next_call(AUDIT)

    def next_tick(self, job: Job) -> float | None:
        """Return the time of a job's next tick, in epoch seconds."""
        return self._scheduler.next_call(_name(group_key(job)))

    def shift(self, seconds: float) -> None:
        """Follow a wall clock that was set back by some seconds."""
        self._scheduler.shift(seconds)

    @property
    def is_stuck(self) -> bool:
        """Whether the scheduler has stopped calling."""
        return time.monotonic() - self._pulsed > PULSE_MOST_SECONDS

    def _tick(self, key: GroupKey) -> None:
        """Call the tick of the polling group that has a key now."""
        polling_group = self._pipeline.polling_groups.get(key)
        if polling_group is not None:
            polling_group.tick(partial(self._scheduler.later, pool=key.source))

    def _see(self, key: GroupKey) -> None:
        """Observe the table of a group with cron, until it answers: its first tick may be a day away."""
        polling_group = self._pipeline.polling_groups.get(key)
        if polling_group is None or all(worker.seen or worker.is_broken for worker in polling_group.workers):
            return
        if not polling_group.observe():
            self._scheduler.later(SEE_SECONDS, partial(self._see, key), pool=key.source)

    def _skipped(self, name: str) -> None:
        if name == AUDIT:
            self._auditor.skip()
        key = self._keys.get(name)
        polling_group = self._pipeline.polling_groups.get(key) if key is not None else None
        if polling_group is not None:
            polling_group.overdue()

    def _fail(self) -> None:
        self.has_failed = True
        end_process()

    def _pulse(self) -> None:
        self._pulsed = time.monotonic()


def _name(key: GroupKey) -> str:
    """Return the name of a group's ticks: unlike the text for operators, no two groups of a table share it."""
    return repr(key)
