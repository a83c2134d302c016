"""APScheduler, tamed."""

import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self
from zoneinfo import ZoneInfo

import pytest

from shipper.runtime.scheduler import Scheduler, _Cron, _Every

PATIENCE_SECONDS = 10.0
CALLS = 200


def running() -> Scheduler:
    """Give a scheduler with a pool."""
    scheduler = Scheduler(lambda _: None, lambda: None)
    scheduler.pool("db", 2)
    return scheduler


def test_every_calls_at_once_and_again() -> None:
    """The first call is made at once, however long the interval; the next ones after the interval."""
    scheduler, hourly, often = running(), threading.Semaphore(0), threading.Semaphore(0)
    scheduler.every(3600, hourly.release, pool="db", name="hourly")
    scheduler.every(1, often.release, pool="db", name="often")
    scheduler.start()

    assert hourly.acquire(timeout=PATIENCE_SECONDS)
    assert all(often.acquire(timeout=PATIENCE_SECONDS) for _ in range(2))
    scheduler.stop()


def test_later_calls_once() -> None:
    """`later` makes one call."""
    scheduler, called = running(), threading.Semaphore(0)
    scheduler.start()
    scheduler.later(0, called.release, pool="db")

    assert called.acquire(timeout=PATIENCE_SECONDS)
    scheduler.stop()
    assert not called.acquire(blocking=False)


def test_later_at_the_limit_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call for which no thread can be started waits for the next one, without an error. Mutant: raise it."""
    scheduler, called = running(), threading.Semaphore(0)

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        scheduler.later(0, called.release, pool="db")
    assert not called.acquire(blocking=False)
    scheduler.later(0, called.release, pool="db")

    assert all(called.acquire(timeout=PATIENCE_SECONDS) for _ in range(2))
    scheduler.start()
    scheduler.stop()


def test_later_logs_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    """A call that fails is logged, with its traceback. Mutant: leave the exception in its future."""
    scheduler, called = running(), threading.Semaphore(0)

    def call() -> None:
        called.release()
        raise ZeroDivisionError

    scheduler.start()
    scheduler.later(0, call, pool="db")
    assert called.acquire(timeout=PATIENCE_SECONDS)
    scheduler.stop()

    assert "ZeroDivisionError" in caplog.text


def test_stop_waits_for_what_runs() -> None:
    """Stop waits for a running call, even one that schedules another; the other is not made.

    Mutant: the scheduler's own shutdown, which waits for the call while it holds the lock that the call needs.
    """
    scheduler, begun, may_end = running(), threading.Event(), threading.Event()
    done: list[str] = []

    def call() -> None:
        begun.set()
        may_end.wait(PATIENCE_SECONDS)
        scheduler.later(0, lambda: done.append("late"), pool="db")
        done.append("call")

    scheduler.every(1, call, pool="db", name="tick")
    scheduler.start()
    assert begun.wait(PATIENCE_SECONDS)
    stopping = threading.Thread(target=scheduler.stop)
    stopping.start()
    stopping.join(0.2)
    may_end.set()
    stopping.join(PATIENCE_SECONDS)

    assert not stopping.is_alive()
    assert done == ["call"]


def test_call_that_is_due_as_it_stops(caplog: pytest.LogCaptureFixture) -> None:
    """A call that is due while the pools end is left out without an error. Mutant: give it to its pool."""
    scheduler, later = running(), threading.Event()
    scheduler.pool("other", 1)
    scheduler.every(3600, later.set, pool="db", name="first")
    scheduler.every(3600, later.set, pool="other", name="second")
    scheduler._pools["db"].shutdown()
    scheduler.start()

    assert later.wait(PATIENCE_SECONDS)
    scheduler.stop()
    assert caplog.text == ""


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    """Give a running scheduler whose calls are held back."""
    scheduler = running()
    scheduler.start()
    yield scheduler
    scheduler.stop()


def test_cron(scheduler: Scheduler) -> None:
    """A cron line decides when a call is made, in its time zone."""
    scheduler.cron("30 6 * * mon-fri", "Europe/Berlin", lambda: None, pool="db", name="job")
    (planned,) = scheduler._scheduler.get_jobs()
    berlin = planned.next_run_time.astimezone(ZoneInfo("Europe/Berlin"))

    assert (berlin.hour, berlin.minute, berlin.weekday() < 5) == (6, 30, True)


def test_offset(scheduler: Scheduler) -> None:
    """A first call may be made later than now."""
    scheduler.every(60, lambda: None, pool="db", name="job", offset=30)
    (planned,) = scheduler._scheduler.get_jobs()

    assert 20 < (planned.next_run_time - datetime.now(UTC)).total_seconds() < 31


def test_missed_ticks_are_one() -> None:
    """After a month asleep there is one tick, and the next is on the schedule; the missed ones are not counted through.

    Mutant: APScheduler's own triggers, which return each of them in turn.
    """
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    now = datetime(2026, 2, 1, 0, 0, 7, tzinfo=UTC)

    assert _Every(10, begun).get_next_fire_time(begun, now) == datetime(2026, 2, 1, 0, 0, 10, tzinfo=UTC)
    assert _Every(10, begun).get_next_fire_time(None, now) == begun
    assert _Cron("* * * * *", "UTC").get_next_fire_time(begun, now) == datetime(2026, 2, 1, 0, 1, tzinfo=UTC)
    assert _Cron("0 0 * * *", "UTC").get_next_fire_time(begun, begun) == datetime(2026, 1, 2, tzinfo=UTC)


def test_pools_do_not_wait_for_each_other(scheduler: Scheduler) -> None:
    """A call that hangs in one pool delays no other, and the ticks that it misses are reported.

    Mutant: one thread pool for all sources.
    """
    hung, calls, skipped = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def hang() -> None:
        hung.wait(PATIENCE_SECONDS)

    scheduler.pool("other", 1)
    scheduler._skipped = lambda name: skipped.release() if name == "hung" else None
    scheduler.every(1, hang, name="hung", pool="db")
    scheduler.every(1, hang, name="hung too", pool="db")
    scheduler.every(1, calls.release, name="other", pool="other")

    assert all(calls.acquire(timeout=PATIENCE_SECONDS) for _ in range(2))
    assert skipped.acquire(timeout=PATIENCE_SECONDS)
    hung.set()


def test_call_that_outlasts_its_interval(scheduler: Scheduler) -> None:
    """A call that takes longer than its interval runs alone, though threads are free; missed calls are reported.

    It is made again once it has ended. Mutants: two at a time; never again.
    """
    begun, ends, skipped = threading.Semaphore(0), threading.Semaphore(0), threading.Semaphore(0)

    def outlast() -> None:
        begun.release()
        ends.acquire(timeout=PATIENCE_SECONDS)

    scheduler.pool("wide", 4)
    scheduler._skipped = lambda name: skipped.release() if name == "long" else None
    scheduler.every(1, outlast, name="long", pool="wide")

    assert begun.acquire(timeout=PATIENCE_SECONDS)
    assert skipped.acquire(timeout=PATIENCE_SECONDS)
    assert not begun.acquire(blocking=False)
    ends.release(2)
    assert begun.acquire(timeout=PATIENCE_SECONDS)


def test_late_call_is_made(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waited long for its thread is still made. Mutant: a misfire grace time."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(hours=1)

    called = threading.Semaphore(0)
    monkeypatch.setattr("apscheduler.executors.base.datetime", Later)
    scheduler.later(0, called.release, pool="db")

    assert called.acquire(timeout=PATIENCE_SECONDS)


def test_wider_lane(scheduler: Scheduler) -> None:
    """A pool that gets more threads has them at once, and its running calls continue. Mutant: keep the old pool."""
    begun, freed, done = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        freed.wait(PATIENCE_SECONDS)
        done.set()

    scheduler.pool("narrow", 1)
    scheduler.later(0, hold, pool="narrow")
    assert begun.wait(PATIENCE_SECONDS)
    scheduler.pool("narrow", 1)
    scheduler.later(0, freed.set, pool="narrow")

    assert done.wait(PATIENCE_SECONDS / 2)


def test_calls_while_a_pool_is_replaced(scheduler: Scheduler) -> None:
    """No call is lost that is due while its pool is replaced, as a reload does.

    Mutants: remove the executor, then add another one; replace the threads during a submission.
    """
    called, is_over = threading.Semaphore(0), threading.Event()

    def replace() -> None:
        while not is_over.is_set():
            scheduler.pool("db", 2)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    replacing = threading.Thread(target=replace)
    replacing.start()
    try:
        for _ in range(CALLS):
            scheduler.later(0, called.release, pool="db")
        number = sum(called.acquire(timeout=PATIENCE_SECONDS) for _ in range(CALLS))
    finally:
        sys.setswitchinterval(before)
        is_over.set()
        replacing.join()

    assert number == CALLS


def test_clock_set_back(scheduler: Scheduler) -> None:
    """When the clock is set back, the delay of a scheduled call stays the same; a cron line follows the clock.

    Mutant: do nothing, and no tick comes until the clock has caught up.
    """
    scheduler.every(3600, lambda: None, name="hourly", pool="db", offset=7200)
    scheduler.cron("0 0 1 1 *", "UTC", lambda: None, name="yearly", pool="db")
    before, yearly = scheduler.next_call("hourly"), scheduler.next_call("yearly")
    scheduler.shift(5000)
    after = scheduler.next_call("hourly")

    assert before is not None
    assert after == pytest.approx(before - 5000)
    assert scheduler.next_call("yearly") == yearly


def test_forget(scheduler: Scheduler) -> None:
    """A forgotten function is not called any more."""
    scheduler.every(60, lambda: None, name="job", pool="db", offset=30)
    scheduler.forget("job")

    assert scheduler.next_call("job") is None
