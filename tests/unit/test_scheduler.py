"""APScheduler, tamed."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from shipper.scheduler import Scheduler

PATIENCE_SECONDS = 10.0


def test_every_calls_at_once_and_again() -> None:
    """The first call comes at once, however long the interval; the next ones after it."""
    scheduler, hourly, often = Scheduler(2), threading.Semaphore(0), threading.Semaphore(0)
    scheduler.every(3600, hourly.release, name="hourly")
    scheduler.every(1, often.release, name="often")
    scheduler.start()

    assert hourly.acquire(timeout=PATIENCE_SECONDS)
    assert all(often.acquire(timeout=PATIENCE_SECONDS) for _ in range(2))
    scheduler.stop()


def test_later_calls_once() -> None:
    """What is to be called later is called once."""
    scheduler, called = Scheduler(2), threading.Semaphore(0)
    scheduler.start()
    scheduler.later(0, called.release)

    assert called.acquire(timeout=PATIENCE_SECONDS)
    scheduler.stop()
    assert not called.acquire(blocking=False)


def test_stop_waits_for_what_runs() -> None:
    """Stop waits for a call that runs, even one that asks for another; that one is not made.

    Mutant: the scheduler's own shutdown, which waits for the call while it holds the lock that the call needs.
    """
    scheduler, begun, told = Scheduler(2), threading.Event(), threading.Event()
    done: list[str] = []

    def call() -> None:
        begun.set()
        told.wait(PATIENCE_SECONDS)
        scheduler.later(0, lambda: done.append("late"))
        done.append("call")

    scheduler.every(1, call, name="tick")
    scheduler.start()
    assert begun.wait(PATIENCE_SECONDS)
    stopping = threading.Thread(target=scheduler.stop)
    stopping.start()
    stopping.join(0.2)
    told.set()
    stopping.join(PATIENCE_SECONDS)

    assert not stopping.is_alive()
    assert done == ["call"]


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    """Give a scheduler that runs, its calls held back."""
    scheduler = Scheduler(2)
    scheduler.start()
    yield scheduler
    scheduler.stop()


def test_cron(scheduler: Scheduler) -> None:
    """A line of cron decides when a call comes, by its zone's clock."""
    scheduler.cron("30 6 * * mon-fri", "Europe/Berlin", lambda: None, name="job")
    (planned,) = scheduler._scheduler.get_jobs()
    berlin = planned.next_run_time.astimezone(ZoneInfo("Europe/Berlin"))

    assert (berlin.hour, berlin.minute, berlin.weekday() < 5) == (6, 30, True)


def test_offset(scheduler: Scheduler) -> None:
    """A first call may come later than now."""
    scheduler.every(60, lambda: None, name="job", offset=30)
    (planned,) = scheduler._scheduler.get_jobs()

    assert 20 < (planned.next_run_time - datetime.now(UTC)).total_seconds() < 31
