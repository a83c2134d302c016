"""APScheduler, tamed: ticks that never pile up, are never dropped for being late, and never raise.

All times are UTC. A late tick runs once instead of being dropped (misfire_grace_time=None), and any number of missed
ticks become one: the triggers here never look at the past, while APScheduler would count through a month of ticks. A
call never runs twice at once (max_instances=1). APScheduler logs and forgets an exception, so no call may raise.

Each source has a pool of a few threads, so that a database that hangs delays only its own jobs.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_MAX_INSTANCES
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from typing_extensions import override

from shipper.config.cron import Cron

_INSTANT = timedelta(microseconds=1)


class _Pool(BasePoolExecutor):  # type: ignore[misc] # APScheduler ships no types
    """APScheduler's executor on a thread pool of ours, which can be replaced.

    The executor stays: APScheduler forgets a call that is due while its executor is not there.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        super().__init__(pool)
        self._pool: ThreadPoolExecutor = pool
        self._mutex = threading.Lock()
        self._has_ended = False

    def call(self, function: Callable[[], object]) -> None:
        """Call a function once, without APScheduler, which takes as long as a small round of captures."""
        # where the limit of threads is reached, the call has its place in the queue all the same
        with self._mutex, suppress(RuntimeError):
            if not self._has_ended:
                self._pool.submit(function).add_done_callback(Future.result)  # which logs an exception

    def replace(self, pool: ThreadPoolExecutor) -> None:
        """Make later calls on other threads; those that run, or wait for a thread, stay on the ones before."""
        with self._mutex:
            before, self._pool = self._pool, pool
        before.shutdown(wait=False)

    @override
    def shutdown(self, wait: bool = True) -> None:
        with self._mutex:
            self._has_ended = True
        super().shutdown(wait)

    @override
    def _do_submit_job(self, *call: object) -> None:
        with self._mutex:
            if not self._has_ended:  # else APScheduler would log an error with a traceback
                super()._do_submit_job(*call)


class _Every(BaseTrigger):  # type: ignore[misc] # APScheduler ships no types
    """A trigger at an interval, in seconds; it leaves out missed times."""

    def __init__(self, seconds: int, first: datetime) -> None:
        self._interval, self._first = timedelta(seconds=seconds), first

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """Return the first time after both previous and now that keeps step."""
        if previous is None:
            return self._first
        return previous + self._interval * (max(now - previous, timedelta()) // self._interval + 1)


class _Cron(BaseTrigger):  # type: ignore[misc] # likewise
    """A trigger of a cron line; it leaves out missed times."""

    def __init__(self, line: str, zone: str) -> None:
        self._cron = Cron(line, zone)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """Return the first time after previous and from now on."""
        return self._cron.first_from(max(now, previous + _INSTANT) if previous else now)


class _Scheduler(BackgroundScheduler):  # type: ignore[misc] # likewise
    """APScheduler, with a function to call when its thread fails."""

    def __init__(self, failed: Callable[[], None], **options: object) -> None:
        super().__init__(**options)
        self._failed = failed

    def _main_loop(self) -> None:
        try:
            super()._main_loop()
        except BaseException:  # noqa: BLE001 - its thread must not end without a word
            self._failed()


class Scheduler:
    """A caller of functions, repeatedly or once, on a few threads."""

    def __init__(self, skipped: Callable[[str], None], failed: Callable[[], None]) -> None:
        """Call skipped with the name of a call that is due while the previous one still runs, or waits for a thread.

        Call failed, with an exception being handled, if no more calls will be made.
        """
        self._pools: dict[str, _Pool] = {}
        self._skipped = skipped
        self._scheduler = _Scheduler(
            failed, timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self._scheduler.add_listener(lambda event: self._skipped(event.job_id), EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        """Start calling."""
        self._scheduler.start()

    def pool(self, name: str, threads: int) -> None:
        """Set a pool's number of threads, which start when needed; calls that run already end on the old threads."""
        pool = ThreadPoolExecutor(threads, f"source-{name}")
        if name in self._pools:
            self._pools[name].replace(pool)
        else:
            self._pools[name] = _Pool(pool)
            self._scheduler.add_executor(self._pools[name], name)

    def every(self, seconds: int, call: Callable[[], None], *, name: str, pool: str, offset: float = 0.0) -> None:
        """Call after an offset, and then at an interval, both in seconds."""
        trigger = _Every(seconds, datetime.now(UTC) + timedelta(seconds=offset))
        self._scheduler.add_job(call, trigger, id=name, executor=pool, replace_existing=True)

    def cron(self, line: str, zone: str, call: Callable[[], None], *, name: str, pool: str) -> None:
        """Call at the times of a cron line in a time zone."""
        self._scheduler.add_job(call, _Cron(line, zone), id=name, executor=pool, replace_existing=True)

    def later(self, seconds: float, call: Callable[[], object], *, pool: str) -> None:
        """Call once, after a delay in seconds."""
        if not seconds:
            self._pools[pool].call(call)
            return
        when = datetime.now(UTC) + timedelta(seconds=seconds)
        self._scheduler.add_job(call, "date", run_date=when, executor=pool)

    def forget(self, name: str) -> None:
        """Stop calling a function."""
        self._scheduler.remove_job(name)

    def next_call(self, name: str) -> float | None:
        """Return when a function is called next, in epoch seconds; None if it is not known."""
        job = self._scheduler.get_job(name)
        return job.next_run_time.timestamp() if job and job.next_run_time else None

    def shift(self, seconds: float) -> None:
        """Follow a wall clock that was set back by some seconds; without this, no call is made until it catches up."""
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            is_cron = isinstance(job.trigger, _Cron)
            next_time = (
                job.trigger.get_next_fire_time(None, now) if is_cron else job.next_run_time - timedelta(0, seconds)
            )
            try:
                job.modify(next_run_time=next_time)
            except JobLookupError:
                continue  # a single call, which has just been made

    def stop(self, *, wait: bool = True) -> None:
        """Start no more calls; wait for the running ones, which may still use `later`."""
        self._scheduler.pause()
        # the scheduler's own shutdown would wait for the pools under the lock that `later` needs
        for pool in self._pools.values():
            pool.shutdown(wait=wait)
        self._scheduler.shutdown(wait=False)
