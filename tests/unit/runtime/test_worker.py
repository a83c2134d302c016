"""One job at work: the results of its captures, the effects of a failure."""

import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
from builders import begin, captured, job
from desk import CREATED, Desk

from shipper.core.errors import ConfigError, SourceUnavailable
from shipper.core.model import RejectedValue, RejectReason, Span, definition_digest
from shipper.core.rows.table import Event
from shipper.log.results import log_event
from shipper.state.store import State


def test_capture_records(tmp_path: Path) -> None:
    """A capture records the observed rows, logs them, wakes the delivery, and does not capture them again."""
    calls: list[None] = []
    with State(str(tmp_path / "shipper.db"), recorded=lambda: calls.append(None)) as state:
        desk = Desk(state)
        desk.source.insert(1, CREATED, "login")
        with structlog.testing.capture_logs() as logs:
            desk.tick()
            desk.run_planned()
            desk.tick()
            desk.run_planned()

        assert len(calls) == 1
        assert [log["event"] for log in logs] == ["job.started", "capture.finished"]
        assert logs[1]["rows"] == 1
        assert captured(state) == 1


def test_lost_commit_is_no_capture(state: State) -> None:
    """Rows whose commit fails are not logged as captured, and not counted; the next capture logs them.

    Mutants: log before the commit; keep the line for the next commit.
    """
    desk = Desk(state)
    desk.source.insert(1, CREATED, "login")

    def spoil() -> None:
        desk.source.before_read = lambda: None
        state._connection.execute("PRAGMA defer_foreign_keys = ON")
        state._connection.execute("INSERT INTO position VALUES ('orphan', 0, '0', '0', 0, 0, '', 0)")

    desk.source.before_read = spoil
    events = []
    for _ in range(2):
        with structlog.testing.capture_logs() as logs:
            desk.tick()
            desk.run_planned()
        events.append([log["event"] for log in logs])

    assert events == [["job.started", "capture.failed"], ["job.started", "capture.finished", "capture.recovered"]]
    assert desk.worker.counters.rows == 1


def test_capture_fails_and_continues(state: State) -> None:
    """A failed capture loses nothing: the next tick prepares the query again, and captures the rows.

    Mutant: prepare once, though a column may have got another type.
    """
    desk = Desk(state)
    desk.source.insert(1, CREATED, "login")
    desk.tick()
    desk.source.fault = SourceUnavailable("read: gone")
    desk.run_planned()
    assert captured(state) == 0
    desk.source.fault = None
    for _ in range(2):
        desk.tick()
        desk.run_planned()

    assert captured(state) == 1
    assert desk.source.preparations == 2


def test_bug_stops_this_job(state: State) -> None:
    """An unexpected exception stops the job, with a traceback in the log; it neither observes nor captures any more.

    Mutant: schedule captures all the same.
    """
    desk = Desk(state)
    desk.source.insert(1, CREATED, "login")
    desk.tick()

    def break_down() -> None:
        desk.polling_group.observe()  # another observation waits when the exception is raised
        desk.source.fault = ZeroDivisionError()

    desk.source.before_read = break_down
    with structlog.testing.capture_logs() as logs:
        desk.run_planned()
        desk.tick()

    assert [(log["event"], log["log_level"]) for log in logs] == [("job.started", "info"), ("job.stopped", "critical")]
    assert logs[1]["exc_info"]
    assert desk.worker.is_broken
    assert desk.planned == []


def test_another_table(state: State) -> None:
    """The ids of another table are not taken for this job's."""
    begin(state, job(table="orders"), 5)
    with pytest.raises(ConfigError, match=r"it counted orders\.id of source app, but the configuration"):
        Desk(state)


def test_rejected_rows_logged(state: State) -> None:
    """Rejected rows are logged and counted, by reason."""
    desk = Desk(state)
    desk.source.insert(1, None, "login")
    desk.source.insert(2, CREATED, "login")
    with structlog.testing.capture_logs() as logs:
        desk.tick()
        desk.run_planned()

    (line,) = (log for log in logs if log["event"] == "rows.rejected")
    assert line.items() >= {"log_level": "warning", "job": "events", "reason": "no_time", "rows": 1}.items()
    assert desk.worker.counters.rejected == {**dict.fromkeys(RejectReason, 0), RejectReason.NO_TIME: 1}


def logged(desk: Desk, event: str) -> list[dict[str, object]]:
    """Capture, and return the fields of the log lines with an event, which have a hint if they are warnings."""
    with structlog.testing.capture_logs() as logs:
        desk.tick()
        desk.run_planned()
    names = {"event", "log_level", "job", "hint"}
    assert all(log["log_level"] == "info" or log["hint"] for log in logs if log["event"] == event)
    return [{key: log[key] for key in log if key not in names} for log in logs if log["event"] == event]


def test_rejected_value_logged(state: State) -> None:
    """Rejected values are logged once per capture and column, with the first that is known.

    Mutants: a line per window; the last value; without the rows of the others.
    """
    refused = [
        (RejectedValue("ms", 2), RejectedValue("size", 1, "nan", 3)),
        (RejectedValue("ms", 1, "inf", 7), RejectedValue("n", 5, "1e+400", group=("a\nb",))),
        (RejectedValue("ms", 1, "1e+301", 8),),
    ]
    desk = Desk(state)
    desk.worker.job = replace(desk.worker.job, chunk=1)
    for number in range(1, 4):
        desk.source.insert(number, CREATED, "login")
    desk.source.rejected_values = refused

    assert logged(desk, "value.rejected") == [
        {"column": "ms", "id": 7, "value": "inf", "rows": 4},
        {"column": "size", "id": 3, "value": "nan", "rows": 1},
        {"column": "n", "group": r"'a\nb'", "value": "1e+400", "rows": 5},
    ]


def test_unreadable_row_is_not_counted(state: State) -> None:
    """A row that the query cannot read has another hint than a value that is left out. Mutant: the same."""
    desk = Desk(state)
    desk.source.insert(1, CREATED, "login")
    desk.source.rejected_values = [(RejectedValue("ms", 1, "nan", 1), RejectedValue("id", 1, "no number", 1))]
    with structlog.testing.capture_logs() as logs:
        desk.tick()
        desk.run_planned()

    hints = {log["column"]: log["hint"] for log in logs if log["event"] == "value.rejected"}
    assert hints["ms"].startswith("The rows are counted")
    assert hints["id"].startswith("The query fails with this row, which is not counted")


def test_rejected_value_gone(state: State) -> None:
    """A rejected value is logged even if its row was deleted before it was found."""
    desk = Desk(state)
    desk.source.insert(1, CREATED, "login")
    desk.source.rejected_values = [(RejectedValue("ms", 2),)]

    assert logged(desk, "value.rejected") == [{"column": "ms", "rows": 2}]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a\nb", r"'a\nb'"),
        ("a\u2028b", r"'a\u2028b'"),
        ("a\0b", r"'a\x00b'"),
        ("..", "'..'"),
        ("it's; a/b", '"it\'s; a/b"'),
        ("x" * 300, "'" + "x" * 56 + "..."),
        ("\n" * 300, "'" + "\\n" * 28 + "..."),
        (None, "None"),
    ],
)
def test_sanitized_value_logged(state: State, name: str | None, value: str) -> None:
    """The first sanitized value is logged as it is, in one short line. Mutants: its path; the complete value."""
    desk = Desk(state)
    for number, action in enumerate(("good", name, "b/c"), 1):
        desk.source.insert(number, CREATED, action)
    (line,) = logged(desk, "series.sanitized")

    assert line["series"] == 2
    assert line["value"] == value
    assert len(str(line["value"])) <= 60


def test_sanitized_value_of_two(state: State) -> None:
    """Only the unsafe value of several columns is logged."""
    desk = Desk(state)
    desk.worker.job = job(by=("action", "outcome"), template="events.{action}.{outcome}")
    desk.source.insert(1, CREATED, "x" * 90, outcome="a\nb")

    assert [line["value"] for line in logged(desk, "series.sanitized")] == [r"'a\nb'"]


def test_limited_value_logged(state: State) -> None:
    """A group explosion is logged once, with the first group without a series, and its rows. Mutant: the last group."""
    desk = Desk(state)
    desk.worker.job = replace(desk.worker.job, max_groups=2, chunk=10)
    for number in range(1, 101):
        desk.source.insert(number, CREATED, f"a\n{number}")

    assert logged(desk, "series.limited") == [{"rows": 98, "limit": 2, "value": r"'a\n3'"}]


def test_limited_without_groups(state: State) -> None:
    """A job whose former groups are all it may have is logged, even if it has none now. Mutant: `if tally.other`."""
    desk = Desk(state)
    desk.worker.job = replace(desk.worker.job, max_groups=1)
    desk.source.insert(1, CREATED, "login")
    logged(desk, "series.limited")
    desk.worker.job = replace(job(by=(), template="all.{measure}"), max_groups=1)
    desk.source.insert(2, CREATED, "login")

    assert logged(desk, "series.limited") == [{"rows": 1, "limit": 1, "value": "()"}]


def test_nameless_value_logged(state: State) -> None:
    """A group whose path Carbon could not hold is logged with its counter, and with no other."""
    desk = Desk(state)
    desk.worker.job = job(template="events." + "{action}" * 3)
    desk.source.insert(1, CREATED, "x" * 100)
    desk.source.insert(2, None, "x" * 100)
    lines = logged(desk, "rows.rejected")

    assert {str(line["reason"]): line.get("value") for line in lines} == {
        "refused": "'" + "x" * 56 + "...",
        "no_time": None,
    }


def test_overdue_while_a_statement_hangs(state: State) -> None:
    """While a capture hangs, the next ticks log it once; later ticks continue, and its end is logged.

    Mutant: take a call that has just made progress for hung, or never check.
    """
    desk = Desk(state)
    desk.worker.job = replace(desk.worker.job, every=0)
    desk.source.insert(1, CREATED, "login", "ok")
    seen: list[tuple[bool, bool]] = []

    def hang() -> None:
        with structlog.testing.capture_logs() as logs:
            desk.tick()
            desk.tick()
        events = [line["event"] for line in logs]
        seen.append((events.count("job.overdue") == 1, desk.worker.is_overdue))

    desk.source.before_read = hang
    desk.tick()
    with structlog.testing.capture_logs() as logs:
        desk.run_planned()

    assert seen == [(True, True)]
    assert [line["failures"] for line in logs if line["event"] == "job.resumed"] == [2]
    assert not desk.worker.is_overdue
    assert desk.worker.is_idle


def test_stopped_worker_begins_nothing(state: State) -> None:
    """A stopped worker neither observes nor captures, until it is resumed."""
    desk = Desk(state)
    desk.source.insert(1, CREATED, "login", "ok")
    desk.worker.stop()
    desk.tick()
    stopped = list(desk.planned)
    desk.worker.resume()
    desk.tick()
    desk.worker.stop()
    planned = list(desk.planned)
    desk.run_planned()

    assert stopped == []
    assert len(planned) == 1
    assert state.progress("events") is None


def test_counters(state: State) -> None:
    """A worker counts rows, failures and time for the service's own metrics, and keeps its last observation."""
    desk = Desk(state)
    desk.source.insert(1, CREATED, "login", "ok")
    desk.tick()
    desk.run_planned()
    desk.source.fault = SourceUnavailable("gone")
    desk.tick()
    counters = desk.worker.counters

    assert (counters.rows, counters.captures, counters.failures) == (1, 1, 1)
    assert counters.capture_seconds > 0
    assert desk.worker.seen is not None
    assert desk.worker.seen.id == 1
    assert desk.worker.failure is not None
    assert desk.worker.failure.error is desk.source.fault


def test_stop_ends_a_capture(state: State) -> None:
    """A stopped capture ends after the current window, and the rest is captured later."""
    desk = Desk(state)
    desk.worker.job = job(chunk=1)
    for number in (1, 2, 3):
        desk.source.insert(number, CREATED, "login")
    desk.source.before_read = desk.worker.stop
    desk.tick()
    desk.run_planned()

    assert captured(state) == 1
    desk.source.before_read = lambda: None
    desk.worker.resume()
    desk.tick()
    desk.run_planned()
    assert captured(state) == 3


def test_chapters(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long capture gives its thread up after a chapter, and continues later."""
    desk, late = Desk(state), [0.0]
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + late[0])
    desk.worker.job = job(chunk=1)
    desk.source.before_read = lambda: late.append(late.pop() + 6)
    for number in (1, 2, 3, 4):
        desk.source.insert(number, CREATED, "login")
    desk.tick()
    seen = []
    while desk.planned:
        desk.run_planned()
        seen.append(captured(state))

    assert seen[0] == 2
    assert seen[-1] == 4


@pytest.mark.parametrize("lookback", [None, 900])
def test_long_capture_ends(state: State, monkeypatch: pytest.MonkeyPatch, lookback: int | None) -> None:
    """A long chapter is followed by the rest of the capture: a recount of the lookback leaves no rest.

    Mutant: end a chapter after a lookback, which then begins again, for ever.
    """
    desk, late = Desk(state), [0.0]
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + late[0])
    desk.worker.job = job(lookback=lookback)
    desk.source.before_read = lambda: late.append(late.pop() + 61)
    desk.source.insert(1, CREATED, "login")
    desk.tick()
    for _ in range(3):
        desk.run_planned()

    assert desk.planned == []
    assert captured(state) == 1


def test_long_change_along_a_time_ends(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the definition whose hours take longer than a chapter each is done once.

    Mutant: end a chapter within it, which then begins again, for ever.
    """
    desk, changed = _slow_along(state, monkeypatch), job(id="created_at", template="new.{action}.{measure}")
    desk.worker.job = changed
    desk.tick()
    for _ in range(3):
        desk.run_planned()

    progress = state.progress("events")
    assert progress is not None
    assert progress.definition_digest == definition_digest(changed)
    assert desk.planned == []


def test_long_lookback_along_a_time_ends(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at rows that change all the time ends, although its hours take longer than a chapter each.

    Mutant: end a chapter within the lookback, which then begins again, for ever.
    """
    desk, actions = _slow_along(state, monkeypatch, lookback=10_800), count()
    delay = desk.source.before_read

    def change() -> None:
        delay()
        desk.source.rows[0]["action"] = f"action{next(actions)}"

    desk.source.before_read = change
    change()
    desk.tick()
    for _ in range(3):
        desk.run_planned()

    assert desk.planned == []


def _slow_along(state: State, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> Desk:
    """Return the desk of a job along a time that has counted a row in each of three hours; reading is slow now."""
    desk, late, real = Desk(state, job(id="created_at", **changed)), [0.0], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + late[0])
    for number, hours in enumerate((2, 1, 0)):
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - 3600 * hours))
        desk.source.insert(number, created, "login")
    desk.tick()
    desk.run_planned()
    desk.source.before_read = lambda: late.append(late.pop() + 61)
    return desk


def test_late_rows_logged(state: State) -> None:
    """Late rows are logged with their number so far, in one line per capture.

    Mutants: log nothing; log all rows; a total of this capture alone.
    """
    desk = Desk(state)
    for number in (1, 3, 6):
        desk.source.insert(number, CREATED, "login")
    first = logged(desk, "rows.late")
    desk.source.insert(2, CREATED, "login")
    desk.source.insert(7, CREATED, "login")
    second = logged(desk, "rows.late")
    for number in (4, 5):
        desk.source.insert(number, CREATED, "login")

    assert [first, second, logged(desk, "rows.late")] == [[], [{"rows": 1, "total": 1}], [{"rows": 2, "total": 3}]]
    assert (desk.worker.counters.rows, desk.worker.counters.late_rows) == (7, 3)


def test_slow_late_rows_end(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late rows that take longer than a chapter are counted once, and leave no rest. Mutant: ask for them again."""
    desk, late = Desk(state), [0.0]
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + late[0])
    desk.source.insert(1, CREATED, "login")
    desk.source.insert(3, CREATED, "login")
    desk.tick()
    desk.run_planned()
    desk.source.insert(2, CREATED, "login")
    desk.source.before_read = lambda: late.append(late.pop() + 61)
    desk.tick()
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            desk.run_planned()

    assert [line["rows"] for line in logs if line["event"] == "rows.late"] == [1]
    assert desk.worker.counters.rows == 3
    assert desk.planned == []


@pytest.mark.parametrize("level", ["info", "warning"])
def test_log_event_level(level: Literal["info", "warning"]) -> None:
    """An event is logged at its level. Mutants: always info; always a warning."""
    with structlog.testing.capture_logs() as logs:
        log_event(job(), Event("recount.limited", {"slots": 5, "span": Span(0, 60)}, level))

    times = {"start": "1970-01-01T00:00:00Z", "end": "1970-01-01T00:01:00Z"}
    (line,) = logs
    assert "keep their values" in line.pop("hint")
    assert line == {"event": "recount.limited", "log_level": level, "job": "events", "slots": 5} | times
