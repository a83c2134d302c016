"""APScheduler, tamed: ticks that never pile up, are never dropped for being late, and never raise.

UTC; a late tick runs once instead of being dropped (misfire_grace_time=None), and however many were missed they are
one (the triggers here never look at the past: APScheduler would count through a month of them); the same job never
runs twice at once (max_instances=1). APScheduler logs and forgets what a job raises, so nothing handed to it may raise.

Each source has a pool: its own few threads, so that a database that hangs holds up none but its own jobs.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from shipper.config.cron import trigger_of

_INSTANT = timedelta(microseconds=1)


class _Pool(BasePoolExecutor):  # type: ignore[misc] # APScheduler ships no types
    """APScheduler's executor on a pool of ours."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        super().__init__(pool)


class _Every(BaseTrigger):  # type: ignore[misc]
    """Every so many seconds; what was missed is left out."""

    def __init__(self, seconds: int, first: datetime) -> None:
        self._interval, self._first = timedelta(seconds=seconds), first

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """Return the first time after both previous and now that keeps step."""
        if previous is None:
            return self._first
        return previous + self._interval * (max(now - previous, timedelta()) // self._interval + 1)


class _Cron(BaseTrigger):  # type: ignore[misc]
    """When a line of cron says; what was missed is left out."""

    def __init__(self, line: str, zone: str) -> None:
        self._trigger = trigger_of(line, zone)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """Return the first time after previous and from now on."""
        found: datetime | None = self._trigger.get_next_fire_time(
            None, max(now, previous + _INSTANT) if previous else now
        )
        return found


class Scheduler:
    """Calls functions, on a few threads, again and again or once."""

    def __init__(self, skipped: Callable[[str], None] = lambda _: None) -> None:
        """Call skipped with the name of what should be called again while it still runs, or waits for a thread."""
        self._lanes: dict[str, ThreadPoolExecutor] = {}
        self._skipped = skipped
        self._scheduler = BackgroundScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )

        def tell(event: JobSubmissionEvent) -> None:
            self._skipped(event.job_id)

        self._scheduler.add_listener(tell, EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        """Begin to call."""
        self._scheduler.start()

    def pool(self, name: str, threads: int) -> None:
        """Give a pool so many threads, started when they are needed; what runs in it already ends on its old ones."""
        pool = ThreadPoolExecutor(threads, f"source-{name}")
        before = self._lanes.get(name)
        if before is not None:
            self._scheduler.remove_executor(name, shutdown=False)
            before.shutdown(wait=False)
        self._lanes[name] = pool
        self._scheduler.add_executor(_Pool(pool), name)

    def every(self, seconds: int, call: Callable[[], None], *, name: str, pool: str, offset: float = 0.0) -> None:
        """Call in offset seconds, and from then on every so many."""
        trigger = _Every(seconds, datetime.now(UTC) + timedelta(seconds=offset))
        self._scheduler.add_job(call, trigger, id=name, executor=pool, replace_existing=True)

    def cron(self, line: str, zone: str, call: Callable[[], None], *, name: str, pool: str) -> None:
        """Call when a line of cron says, by the clock of a time zone."""
        self._scheduler.add_job(call, _Cron(line, zone), id=name, executor=pool, replace_existing=True)

    def later(self, seconds: float, call: Callable[[], None], *, pool: str) -> None:
        """Call once, in so many seconds."""
        when = datetime.now(UTC) + timedelta(seconds=seconds)
        self._scheduler.add_job(call, "date", run_date=when, executor=pool)

    def forget(self, name: str) -> None:
        """Call it no more."""
        self._scheduler.remove_job(name)

    def next_call(self, name: str) -> float | None:
        """Return when it is called next, epoch seconds."""
        job = self._scheduler.get_job(name)
        return job.next_run_time.timestamp() if job and job.next_run_time else None

    def shift(self, seconds: float) -> None:
        """Follow a wall clock that was set back by so many seconds: else nothing is called until it catches up."""
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            is_cron = isinstance(job.trigger, _Cron)
            moved = job.trigger.get_next_fire_time(None, now) if is_cron else job.next_run_time - timedelta(0, seconds)
            try:
                job.modify(next_run_time=moved)
            except JobLookupError:
                continue  # it was to be called once, and has just been

    def stop(self, *, wait: bool = True) -> None:
        """Call nothing new, and wait for what is running, which may still call `later`."""
        self._scheduler.pause()
        # not by the scheduler's own shutdown: that waits for the pools under the lock which `later` needs
        for pool in self._lanes.values():
            pool.shutdown(wait=wait)
        self._scheduler.shutdown(wait=False)
