"""The jobs of a table together: they share ticks and looks; one that fails or hangs does not affect the others."""

import threading
import time
from dataclasses import replace

import pytest
import structlog
from builders import captured, job
from desk import CREATED, Desk

from shipper.core.errors import QueryRefused, SourceUnavailable, StateBusy
from shipper.core.model import Job, Query
from shipper.runtime.poller import group_key
from shipper.state.queries import job_statuses
from shipper.state.store import State

NAMES = ("events", "others", "third")


def jobs(**changed: object) -> list[Job]:
    """Build three jobs on one table."""
    return [job(name, **changed) for name in NAMES]


def test_tick_schedules_one_round(state: State) -> None:
    """Ticks observe and never wait; while a round of captures is scheduled, they schedule no other."""
    desk = Desk(state)
    for _ in range(3):
        desk.tick()

    assert [seconds for seconds, _ in desk.planned] == [0]


def test_ticks_before_a_round(state: State) -> None:
    """A round that had to wait captures once, up to the newest observation. Mutant: the first look."""
    desk = Desk(state, *jobs())
    for number in (1, 2):
        desk.source.insert(number, CREATED, "login")
        desk.tick()
    desk.source.insert(3, CREATED, "login")
    desk.run_planned()

    assert [captured(state, name) for name in NAMES] == [2, 2, 2]
    assert desk.source.asked["read"] == len(NAMES)


def test_tick_captures_at_once(state: State) -> None:
    """A row is captured with the first tick after its commit, whatever rows with smaller ids do.

    Mutant: leave the newest observation for the next tick.
    """
    desk = Desk(state)
    desk.source.insert(1, CREATED, "login")
    desk.source.begin(2, CREATED, "login")
    desk.source.insert(3, CREATED, "login")
    desk.tick()
    desk.run_planned()
    rows = [desk.worker.counters.rows]
    desk.source.commit()
    desk.tick()
    desk.run_planned()

    assert [*rows, desk.worker.counters.rows] == [2, 3]
    assert captured(state) == 3


def test_observation_older_than_a_job(state: State) -> None:
    """A job that a reload puts into the group does not take an observation made before for a reset of its table.

    Mutant: use each observation.
    """
    desk = Desk(state, job("others"))
    desk.source.insert(1, CREATED, "login")
    desk.tick()
    before = Desk(state, job(every=5))
    before.source.rows = [*desk.source.rows]
    before.source.insert(2, CREATED, "login")
    before.tick()
    before.run_planned()
    after = Desk(state, job())
    desk.polling_group.join([*desk.workers, after.worker])
    desk.run_planned()

    assert after.worker.failure is None
    assert [captured(state, name) for name in ("others", "events")] == [1, 2]


def test_job_that_cannot_be_prepared(state: State) -> None:
    """Along a time, a job that cannot be prepared does not keep the others of its table from their rows.

    Mutant: prepare the first job only.
    """
    desk = Desk(state, *jobs(id="created_at"))
    desk.source.insert(1, CREATED, "login")

    def prepared(query: Query) -> Query:
        if query is first:
            raise QueryRefused("read names.action: no such table")
        return query

    first = desk.worker.job.query
    desk.source.prepared = prepared  # type: ignore[method-assign]
    desk.tick()
    desk.run_planned()

    assert [worker.failure is not None for worker in desk.workers] == [True, False, False]
    assert [captured(state, name) is not None for name in NAMES] == [False, True, True]


def test_time_of_a_replica(state: State) -> None:
    """A replica shows its primary as it was `lag` seconds ago, and while it falls behind no id grows old.

    Mutants: take the replica's time for the primary's; let all time make ids old; none while there is any lag.
    """
    desk = Desk(state)
    desk.source.insert(1, CREATED, "login")
    found = []
    for lag in (0.0, 6.5, 7.0, 7.0, 3.0, 0.0):
        desk.source.behind = lag
        desk.tick()
        observed = desk.polling_group._observed
        assert observed is not None
        found.append((round(observed.time - time.time()), observed.makes_old))
        desk.run_planned()

    assert [makes_old for _, makes_old in found] == [True, False, False, True, True, True]
    assert all(-8 <= late <= -6 for late, _ in found[1:4])
    assert captured(state) == 1


def test_lag_unknown(state: State) -> None:
    """While the lag of a replica is unknown, nothing is captured, and that is logged once; then captures continue.

    The first look after it makes no id old. Mutants: take unknown for 0; remember the lag of before; take it for much.
    """
    desk = Desk(state)
    desk.source.behind = 5.0
    desk.tick()
    desk.run_planned()
    desk.source.insert(1, CREATED, "login")
    with structlog.testing.capture_logs() as logs:
        desk.source.behind = SourceUnavailable("read lag: lag_query gave NULL")
        for _ in range(3):
            desk.tick()
            desk.run_planned()
        assert captured(state) == 0
        makes_old = []
        for _ in range(2):
            desk.source.behind = 5.0
            desk.tick()
            makes_old.append(desk.polling_group._observed and desk.polling_group._observed.makes_old)
            desk.run_planned()

    assert makes_old == [False, True]
    assert captured(state) == 1
    assert [log["event"] for log in logs] == ["observation.failed", "observation.recovered", "capture.finished"]


@pytest.mark.parametrize(
    ("fault", "level"), [(SourceUnavailable("read: gone"), "warning"), (QueryRefused("read: no column"), "error")]
)
def test_failure_logged_once(state: State, fault: Exception, level: str) -> None:
    """A repeated failure is logged once, as an error if an operator must act, and then as recovered with its count."""
    desk = Desk(state)
    desk.source.fault = fault
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            desk.tick()
        desk.source.fault = None
        desk.tick()

    lines = [(log["event"], log["log_level"], log["failures"]) for log in logs]
    assert lines == [("observation.failed", level, 1), ("observation.recovered", "info", 3)]


def test_failure_lasts(state: State) -> None:
    """A capture up to an older observation does not mean that the database answers again.

    Mutant: take any success for recovery, and log the failure again with each tick.
    """
    desk = Desk(state)
    desk.tick()
    desk.source.fault = SourceUnavailable("read: gone")
    with structlog.testing.capture_logs() as logs:
        desk.tick()
        desk.run_planned()
        desk.tick()

    assert [log["event"] for log in logs] == ["observation.failed", "job.started"]


def test_stopped(state: State) -> None:
    """A stopped worker neither observes nor schedules captures."""
    desk = Desk(state)
    desk.worker.stop()
    desk.tick()

    assert desk.planned == []


def test_group_key() -> None:
    """Jobs are in one group if they share the table, the id column and the schedule."""
    one = job()
    alike = [job("other"), job("other", by=()), job("other", time=None)]
    unlike = [job(table="orders"), job(id="n"), job(every=30), job(cron="* * * * *"), job(source="db")]

    assert {group_key(one)} == {group_key(other) for other in alike}
    assert group_key(one) not in {group_key(other) for other in unlike}
    assert str(group_key(one)) == "table audit_trail (source app, every 60 s)"


def test_one_look_for_all(state: State) -> None:
    """One observation serves all jobs, and so does one fingerprint of the table.

    Mutant: let each job look for itself.
    """
    desk = Desk(state, *jobs())
    desk.source.insert(1, CREATED, "login")
    for _ in range(2):
        desk.tick()
        desk.run_planned()
    before = desk.source.asked.copy()
    desk.source.insert(2, CREATED, "login")
    desk.tick()
    desk.run_planned()

    assert [captured(state, name) for name in NAMES] == [2, 2, 2]
    assert desk.source.asked - before == {"observe": 1, "fingerprint": 1, "read": 3}


def test_one_commit_for_all(state: State) -> None:
    """A round is committed once. Mutant: without gathering."""
    desk, seen = Desk(state, *jobs()), []
    desk.source.insert(1, CREATED, "login")
    desk.source.before_read = lambda: seen.append(len(job_statuses(state.path)))
    desk.tick()
    desk.run_planned()

    assert seen == [0, 0, 0]
    assert set(job_statuses(state.path)) == set(NAMES)


def test_recovered_by_a_commit_alone(state: State) -> None:
    """A failed commit lasts until one succeeds; a round with nothing to store proves nothing.

    Mutant: take every round without a failure for recovered.
    """
    desk = Desk(state, job())
    committing = desk.polling_group._failures.committing
    committing.failed(StateBusy("commit: disk I/O error"), clock=0.0)
    desk.polling_group._queue.run()
    assert committing.error is not None
    desk.tick()
    desk.run_planned()

    assert committing.error is None


def test_one_fails(state: State) -> None:
    """The failure of one job does not affect the others."""
    desk = Desk(state, *jobs())
    desk.source.insert(1, CREATED, "login")
    faults = iter([None, QueryRefused("read: no column"), None])

    def fail_once() -> None:
        desk.source.fault = next(faults)

    desk.source.before_read = fail_once
    with structlog.testing.capture_logs() as logs:
        desk.tick()
        desk.run_planned()

    assert [captured(state, name) for name in NAMES] == [1, 0, 1]
    assert [log["job"] for log in logs if log["event"] == "capture.failed"] == ["others"]


def test_one_hangs(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one job hangs, another thread soon captures the rest; the hung job continues when it can.

    Mutants: never help; help at once; start the hung job a second time meanwhile.
    """
    desk, late = Desk(state, *jobs()), [0.0]
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + late[0])
    desk.source.insert(1, CREATED, "login")
    seen = []

    def hang() -> None:
        desk.source.before_read = lambda: None
        desk.run_planned()  # help comes, but this thread has only just started
        seen.append([captured(state, name) for name in NAMES])
        late[0] += 2
        desk.source.insert(2, CREATED, "login")
        desk.tick()
        desk.run_planned()  # another thread captures the rest
        late[0] += 2
        desk.run_planned()  # and the new rows
        seen.append([captured(state, name) for name in NAMES])

    desk.source.before_read = hang
    desk.tick()
    desk.run_planned()

    assert seen == [[0, None, None], [0, 2, 2]]
    assert [captured(state, name) for name in NAMES] == [2, 2, 2]


def test_many_hang(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helping thread gets help, too: each job that hangs costs the others HELP_SECONDS. Mutant: help once."""
    desk, late = Desk(state, *jobs()), [0.0]
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + late[0])
    desk.source.insert(1, CREATED, "login")
    hung = []

    def hang() -> None:
        hung.append([captured(state, name) for name in NAMES])
        late[0] += 2
        desk.run_planned()

    desk.source.before_read = hang
    desk.tick()
    desk.run_planned()

    assert hung == [[0, None, None], [0, 0, None], [0, 0, 0]]


def test_threads_join_in(state: State) -> None:
    """While one thread captures and makes progress, no other joins it: Python runs one at a time anyhow.

    Mutant: capture on as many threads as there are.
    """
    desk, at_once = Desk(state, *jobs()), []
    desk.source.insert(1, CREATED, "login")

    def look() -> None:
        at_once.append(len([worker for worker in desk.workers if not worker.is_idle]))
        other = threading.Thread(target=desk.run_planned)
        other.start()
        other.join()

    desk.source.before_read = look
    desk.tick()
    desk.run_planned()

    assert at_once == [1, 1, 1]
    assert [captured(state, name) for name in NAMES] == [1, 1, 1]


def test_second_thread_joins_in(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that is still running when the next one begins gets a second thread. Mutant: none."""
    monkeypatch.setattr("shipper.runtime.run_queue.MANY", 1)
    desk, at_once = Desk(state, *jobs()), []
    desk.source.insert(1, CREATED, "login")

    def look() -> None:
        at_once.append(len([worker for worker in desk.workers if not worker.is_idle]))
        if len(at_once) == 1:
            desk.tick()
            other = threading.Thread(target=desk.run_planned)
            other.start()
            other.join()

    desk.source.before_read = look
    desk.tick()
    desk.run_planned()

    assert at_once == [1, 2, 2]
    assert [captured(state, name) for name in NAMES] == [1, 1, 1]


def test_waiting_logged(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that wait in the queue for longer than a period are logged, in one line for all, and so is the end of it."""
    desk, late = Desk(state, *jobs()), [0.0]
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + late[0])
    desk.source.insert(1, CREATED, "login")

    def hang() -> None:
        desk.source.before_read = lambda: None
        late[0] += 61
        desk.tick()

    desk.source.before_read = hang
    with structlog.testing.capture_logs() as logs:
        desk.tick()
        desk.run_planned()
        lines = [(log["event"], log["error"]) for log in logs if log["event"] == "job.overdue"]
        assert all(worker.failure for worker in desk.workers)
        desk.run_planned()
        desk.tick()

    assert lines == [
        ("job.overdue", "tick: the previous capture still runs, after 61 s"),
        ("job.overdue", "tick: 2 of 3 jobs on this table still wait for their turn to count rows"),
    ]
    assert [log["event"] for log in logs if log["event"] == "job.resumed"] == ["job.resumed"] * 2
    assert not any(worker.failure for worker in desk.workers)


def test_skipped_tick_logged(state: State) -> None:
    """A tick that is due while the previous one hangs is logged for the table."""
    desk = Desk(state, *jobs())
    with structlog.testing.capture_logs() as logs:
        desk.polling_group.overdue()

    assert [(log["event"], log["table"], log["error"]) for log in logs] == [
        ("job.overdue", "audit_trail", "tick: the previous tick still waits for one of the source's `connections`")
    ]


def test_commit_fails(state: State) -> None:
    """Captures that cannot be committed are logged, and captured again with the next tick."""
    desk = Desk(state, *jobs())
    desk.source.insert(1, CREATED, "login")

    def spoil() -> None:
        state._connection.execute("PRAGMA defer_foreign_keys = ON")
        state._connection.execute("INSERT INTO total VALUES (60, 60, 999, 1, 1, 1)")

    def read() -> None:
        if desk.source.asked["read"] == len(NAMES):
            spoil()

    desk.source.before_read = read
    with structlog.testing.capture_logs() as logs:
        desk.tick()
        desk.run_planned()
        assert [captured(state, name) for name in NAMES] == [None, None, None]
        desk.tick()
        desk.run_planned()

    assert [(log["event"], log["table"]) for log in logs if "table" in log] == [
        ("capture.failed", "audit_trail"),
        ("capture.recovered", "audit_trail"),
    ]
    assert [captured(state, name) for name in NAMES] == [1, 1, 1]


def test_bug_in_a_look(state: State) -> None:
    """A bug in a shared look stops all jobs of the group, each with a log line."""
    desk = Desk(state, *jobs())
    desk.source.fault = ZeroDivisionError()
    with structlog.testing.capture_logs() as logs:
        desk.tick()
        desk.tick()

    assert [(log["event"], log["job"]) for log in logs] == [("job.stopped", name) for name in NAMES]


def test_stopped_job_stays_in_the_queue(state: State) -> None:
    """A job that is stopped for a while stays in the queue, and the others do not wait. Mutant: remove it."""
    desk = Desk(state, *jobs())
    desk.source.insert(1, CREATED, "login")
    desk.workers[1].stop()
    desk.tick()
    desk.run_planned()
    assert [captured(state, name) for name in NAMES] == [1, None, 1]
    desk.workers[1].resume()
    desk.polling_group.capture()

    assert captured(state, "others") == 1


def test_job_that_leaves(state: State) -> None:
    """A job that leaves is not captured any more; the others capture the waiting observation."""
    desk = Desk(state, *jobs())
    desk.source.insert(1, CREATED, "login")
    desk.tick()
    desk.polling_group.join(desk.workers[:1])
    desk.run_planned()

    assert [captured(state, name) for name in NAMES] == [1, None, None]


def test_long_job_lets_others_run(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that catches up for long gives its thread up, and goes to the end of the queue. Mutant: to the front."""
    wanted = [replace(one, chunk=1) for one in jobs()[:2]]
    desk, late, order = Desk(state, *wanted), [0.0], []
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + late[0])

    def read() -> None:
        late[0] += 6
        order.append(next(worker.job.name for worker in desk.workers if not worker.is_idle))

    for number in (1, 2, 3, 4):
        desk.source.insert(number, CREATED, "login")
    desk.source.before_read = read
    desk.tick()
    while desk.planned:
        desk.run_planned()

    assert order == ["events", "events", "others", "others"] * 2
    assert [captured(state, name) for name in NAMES[:2]] == [4, 4]
