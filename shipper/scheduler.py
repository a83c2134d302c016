"""Edge. APScheduler, tamed: ticks that never pile up, are never dropped for being late, and never raise.

UTC; a late tick runs once instead of being dropped (misfire_grace_time=None, coalesce); the same job never runs
twice at once (max_instances=1). APScheduler logs and forgets what a job raises, so nothing handed to it may raise.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from shipper.cron import trigger_of


class _Executor(BasePoolExecutor):  # type: ignore[misc] # APScheduler ships no types
    """APScheduler's executor on a pool of ours."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        super().__init__(pool)


class Scheduler:
    """Calls functions, on a few threads, again and again or once."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "worker")
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": _Executor(self._pool)},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    def start(self) -> None:
        """Begin to call."""
        self._scheduler.start()

    def every(self, seconds: int, call: Callable[[], None], *, name: str, offset: float = 0.0) -> None:
        """Call in offset seconds, and from then on every so many."""
        first = datetime.now(UTC) + timedelta(seconds=offset)
        self._scheduler.add_job(call, "interval", seconds=seconds, id=name, next_run_time=first)

    def cron(self, line: str, zone: str, call: Callable[[], None], *, name: str) -> None:
        """Call when a line of cron says, by the clock of a time zone."""
        self._scheduler.add_job(call, trigger_of(line, zone), id=name)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, in so many seconds."""
        self._scheduler.add_job(call, "date", run_date=datetime.now(UTC) + timedelta(seconds=seconds))

    def stop(self) -> None:
        """Call nothing new, and wait for what is running, which may still call `later`."""
        self._scheduler.pause()
        # not by the scheduler's own shutdown: that waits for the pool under the lock which `later` needs
        self._pool.shutdown(wait=True)
        self._scheduler.shutdown(wait=False)
