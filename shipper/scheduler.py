"""Edge. APScheduler, tamed: ticks that never pile up, never get lost and never raise.

UTC; a late tick runs once instead of being dropped (misfire_grace_time=None, coalesce); the same job never runs
twice at once (max_instances=1). APScheduler logs and forgets what a job raises, so nothing handed to it may raise.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler


class Scheduler:
    """Calls functions, on a few threads, again and again or once."""

    def __init__(self, threads: int) -> None:
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(threads)},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    def start(self) -> None:
        """Begin to call."""
        self._scheduler.start()

    def every(self, seconds: int, call: Callable[[], None], *, name: str) -> None:
        """Call now and then every so many seconds."""
        self._scheduler.add_job(call, "interval", seconds=seconds, id=name, next_run_time=datetime.now(UTC))

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, in so many seconds."""
        self._scheduler.add_job(call, "date", run_date=datetime.now(UTC) + timedelta(seconds=seconds))

    def stop(self) -> None:
        """Call nothing new, and wait for what is running."""
        self._scheduler.shutdown(wait=True)
