"""Audits without a service: jobs at a desk, and a Graphite that has their totals."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import job
from desk import CREATED, Desk
from structlog.testing import capture_logs

from shipper.core.errors import (
    ConfigError,
    QueryRefused,
    ReadbackFailed,
    ShipperError,
    SourceReset,
    SourceUnavailable,
    StateBusy,
)
from shipper.core.model import Archive, SeriesData, Span
from shipper.core.retention import EDGE_SECONDS, ROOM_SECONDS
from shipper.core.verify.audit import Audit
from shipper.runtime.pipeline import Pipeline
from shipper.service.auditor import RETRY_SECONDS, Auditor, _length
from shipper.state.queries import audits
from shipper.state.store import State

DAY = 86_400
NO_ANSWER = SourceUnavailable("read audit_trail: no answer")


class Held:
    """A Graphite that has the totals of a state, plus what a test adds to each."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.surplus = 0.0
        self.series = 0
        """Number of series that were read."""
        self.between: list[Callable[[], object]] = []
        """Calls before an answer, one each time."""

    def held(self, paths: Sequence[str], span: Span, step: int) -> Iterator[tuple[str, SeriesData]]:
        """Yield the totals."""
        if self.between:
            self.between.pop(0)()
        statement = "SELECT slot, value FROM total JOIN series ON series.id = series WHERE path = ?"
        for path in paths:
            with self._state.reading("read totals") as connection:
                totals = dict(connection.execute(statement, (path,)).fetchall())
            values = [totals.get(slot) for slot in range(span.start, span.end, step)]
            self.series += 1
            yield path, SeriesData(span.start, step, [None if one is None else one + self.surplus for one in values])


class Waits(threading.Event):
    """An event whose waits take no time, except in the list of them."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.during: Callable[[], object] = lambda: None

    def wait(self, timeout: float | None = None) -> bool:
        """Note how long the wait would be."""
        if timeout:
            self.seconds.append(timeout)
            self.during()
        return self.is_set()


class Office:
    """Two jobs on a table, and an auditor."""

    def __init__(self, state: State, **changed: Any) -> None:
        self.state = state
        others = job("others", template="others.{action}.{measure}", **changed)
        self.desk = Desk(state, job("events", **changed), others)
        self.desk.source.insert(1, CREATED, "login")
        self.desk.source.insert(2, CREATED, "logout")
        self.capture()
        self.workers = {worker.job.name: worker for worker in self.desk.workers}
        section = SimpleNamespace(cron="0 3 * * *", span=3600)
        config: Any = SimpleNamespace(
            jobs=dict.fromkeys(self.workers), audit=section, state=SimpleNamespace(path=state.path), file="x.toml"
        )
        config.named = lambda name: [worker.job for worker in self.workers.values() if worker.job.name == name]
        unused: Any = None
        self.lacks = False
        """Whether Carbon may lack values."""
        courier: Any = SimpleNamespace(may_lack=lambda _: self.lacks)
        self.pipeline = Pipeline(config, state, self.desk.clocks, {}, self.workers, {}, {}, unused, courier, unused)
        self.graphite = Held(state)
        self.auditor = Auditor(self.pipeline, graphite=lambda _: self.graphite)
        self.waits = self.auditor._stopping = Waits()

    def capture(self) -> None:
        """Count all rows, and let the last slot be complete."""
        self.desk.tick()
        self.desk.run_planned()
        complete = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '+2 minutes')"
        self.state._connection.execute(f"UPDATE watermark SET value = captured, complete_until = {complete}")
        self.state._connection.execute("UPDATE job SET since = 0")

    def fail(self, *errors: Exception) -> None:
        """Let Graphite answer the next questions with errors."""
        self.graphite.between += [lambda error=error: _raise(error) for error in errors]  # type: ignore[misc]

    def outcomes(self) -> dict[str, str]:
        """Return the stored results."""
        return {name: audit.outcome.value for name, audit in audits(self.state.path).items()}


def _raise(error: Exception) -> None:
    raise error


@pytest.fixture
def office(state: State) -> Office:
    """Give an office."""
    return Office(state)


def pauses(office: Office) -> list[float]:
    """Return the waits between two attempts."""
    return [seconds for seconds in office.waits.seconds if seconds in RETRY_SECONDS]


def test_audit(office: Office) -> None:
    """All jobs are compared, and their results stored; a difference is compared again, then reported as an error."""
    office.auditor.run()
    assert office.outcomes() == {"events": "equal", "others": "equal"}
    office.graphite.surplus = 2
    with capture_logs() as logs:
        office.auditor.run()

    assert office.outcomes() == {"events": "different", "others": "different"}
    assert [(one.different, one.missing, one.surplus) for one in audits(office.state.path).values()] == [(1, 0, 4)] * 2
    assert [log["job"] for log in logs if log["event"] == "audit.differed"] == ["events", "others"]
    (finished,) = [log for log in logs if log["event"] == "audit.finished"]
    assert (finished["different"], finished["equal"], finished["failed"]) == (2, 0, 0)
    assert office.auditor.since is None
    assert office.pipeline.audited is None


def test_difference_on_its_way(office: Office) -> None:
    """A difference that disappears while the audit waits is none. Mutant: compare once."""
    office.graphite.surplus = 2
    office.waits.during = lambda: setattr(office.graphite, "surplus", 0)

    assert office.auditor.run_now({"jobs": ["events"]})["jobs"] == {"events": "equal"}


def test_rows_that_wait_for_carbon(office: Office) -> None:
    """A difference is no result while Carbon has not confirmed what was counted. Mutant: take it for one."""
    office.state._connection.execute("UPDATE watermark SET value = '0' WHERE job = 'events'")
    assert office.auditor.run_now({"jobs": []})["jobs"] == {"events": "equal", "others": "equal"}
    office.graphite.surplus = -1

    assert office.auditor.run_now({"jobs": []})["jobs"] == {"events": "failed", "others": "different"}
    assert (
        audits(office.state.path)["events"].error
        == "audit events: Graphite differs, but rows of 2 ids still wait for Carbon"
    )
    office.lacks = True  # as during a backfill, or after the exit of a Carbon
    assert office.auditor.run_now({"jobs": ["others"]})["jobs"] == {"others": "failed"}
    assert (
        audits(office.state.path)["others"].error == "audit others: Graphite differs, but values still wait for Carbon"
    )


def test_rows_without_a_time(tmp_path: Path) -> None:
    """Rows that are not completed yet make no comparison longer. Mutant: read between all of them."""
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, lookback=600)
        for number in range(3, 99, 2):
            office.desk.source.insert(number, None, "login")
            office.desk.source.insert(number + 1, CREATED, "login")
        office.capture()
        office.graphite.surplus, before = 2, office.desk.source.asked["read"]
        office.auditor.run_now({"jobs": []})

        assert office.desk.source.asked["read"] - before < 30


@pytest.mark.parametrize("time", ["created_at", None])
def test_row_that_is_not_counted_yet(tmp_path: Path, time: str | None) -> None:
    """A row that was committed since the last tick, below captured, is no difference; a missed one is.

    Mutant: compare all rows up to captured.
    """
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, time=time)
        office.desk.source.begin(3, CREATED, "login")
        office.desk.source.insert(4, CREATED, "login")
        office.capture()
        office.desk.source.commit()

        assert office.auditor.run_now({"jobs": []})["jobs"] == {"events": "equal", "others": "equal"}
        assert office.waits.seconds
        for name in office.workers:
            state.note_look(name, state.position(name)._raised(4))
        office.desk.source.insert(5, CREATED, "login")
        office.capture()

        assert office.auditor.run_now({"jobs": []})["jobs"] == {"events": "different", "others": "different"}


def test_row_along_a_time_that_is_not_counted_yet(tmp_path: Path) -> None:
    """A row that was committed since the last look at its minute is no difference; one that Graphite lacks is.

    Mutant: compare all minutes.
    """
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, id="created_at")
        office.desk.source.insert(3, CREATED, "login")
        assert office.auditor.run_now({"jobs": []})["jobs"] == {"events": "equal", "others": "equal"}
        assert office.waits.seconds
        office.capture()
        office.graphite.surplus = -1

        assert office.auditor.run_now({"jobs": []})["jobs"] == {"events": "different", "others": "different"}


@pytest.mark.parametrize(
    ("errors", "seconds", "outcome"),
    [
        ([NO_ANSWER, ReadbackFailed("read back: refused")], [10.0, 60.0], "equal"),
        ([NO_ANSWER] * 4, [10.0, 60.0, 600.0], "failed"),
        ([QueryRefused("read: unknown column 'x'", hint="Correct it.")], [], "failed"),
        ([ZeroDivisionError("a bug")], [], "failed"),
    ],
)
def test_comparison_that_fails(office: Office, errors: list[Exception], seconds: list[float], outcome: str) -> None:
    """What may pass is tried again, then the job is failed, and other jobs are compared.

    Mutants: no retry; retry a permanent error; keep the result before; end at the first failure.
    """
    office.state.keep_audit("events", Audit(7, 60, 60))
    office.fail(*errors)
    office.auditor.run()

    assert pauses(office) == seconds
    assert office.outcomes() == {"events": outcome, "others": "equal"}
    failed = audits(office.state.path)["events"]
    assert (str(errors[-1]) in (failed.error or "")) is (outcome == "failed")
    assert failed.at > 7


def test_source_that_is_down(office: Office) -> None:
    """A source that stays down delays the audit once, however many jobs it has. Mutant: wait for each job."""
    office.fail(*[NO_ANSWER] * 5)
    office.auditor.run()

    assert pauses(office) == [*RETRY_SECONDS]
    assert office.outcomes() == {"events": "failed", "others": "failed"}


def test_operators_audit_does_not_wait(office: Office) -> None:
    """An audit that an operator asks for shows a failure at once."""
    office.fail(NO_ANSWER)

    assert office.auditor.run_now({"jobs": ["events"]})["jobs"] == {"events": "failed"}
    assert pauses(office) == []


def test_stop(office: Office) -> None:
    """A stop ends the audit, and stores nothing of the job that it was at. Mutants: store it as failed; go on."""
    office.fail(NO_ANSWER)
    office.waits.during = office.auditor.stop
    with capture_logs() as logs:
        office.auditor.run()

    assert office.outcomes() == {}
    assert [log["event"] for log in logs] == ["audit.started"]
    assert office.auditor.since is None


def test_paused_job(office: Office) -> None:
    """A job that is paused, also in the middle, is left alone and keeps its result. Mutant: compare it to the end."""
    office.state.keep_audit("events", Audit(7, 60, 60))
    office.graphite.between = [lambda: office.state.pause(["events"], since=8)]

    assert office.auditor.run_now({"jobs": []}) == {"jobs": {"others": "equal"}, "left_out": ["events"]}
    assert office.graphite.series == 1 + 2
    assert audits(office.state.path)["events"].at == 7
    reads = office.desk.source.asked["read"]
    assert office.auditor.run_now({"jobs": ["events"]}) == {"jobs": {}, "left_out": ["events"]}
    assert office.desk.source.asked["read"] == reads


def test_table_that_was_reset(office: Office) -> None:
    """A job that waits for an operator's decision about its table is left out. Mutant: compare it."""
    office.workers["events"]._capturing.failed(SourceReset("its largest id fell to 3"), clock=0.0)

    assert office.auditor.run_now({"jobs": []}) == {"jobs": {"others": "equal"}, "left_out": ["events"]}


def test_job_that_a_reload_changed(office: Office) -> None:
    """A job that changed meanwhile is compared again as it is now; one that was removed is not."""
    changed = Desk(office.state, office.workers["events"].job)
    changed.source.rows = office.desk.source.rows

    def reload() -> None:
        office.workers["events"] = changed.workers[0]
        del office.workers["others"]

    office.graphite.between = [reload]

    assert office.auditor.run_now({"jobs": []})["jobs"] == {"events": "equal"}
    assert changed.source.asked["read"] > 0


def test_job_that_has_not_counted_as_it_is(office: Office) -> None:
    """A job that waits for its first tick since its configuration changed is left out, and keeps its result.

    Mutant: report its audit as failed, until the next one.
    """
    office.state.keep_audit("events", Audit(7, 60, 60))
    worker = office.workers["events"]
    worker.job = replace(worker.job, query=replace(worker.job.query, bucket=300))

    assert office.auditor.run_now({"jobs": []}) == {"jobs": {"others": "equal"}, "left_out": ["events"]}
    assert audits(office.state.path)["events"].at == 7


def test_one_at_a_time(office: Office) -> None:
    """A second audit does not begin while one runs; a due one is logged. Mutant: run both."""
    refused: list[ShipperError] = []

    def again() -> None:
        assert office.auditor.since is not None
        assert office.pipeline.audited == "events"
        with pytest.raises(StateBusy, match="still runs") as caught:
            office.auditor.run_now({"jobs": []})
        refused.append(caught.value)
        office.auditor.run()

    office.graphite.between = [again]
    with capture_logs() as logs:
        office.auditor.run()

    assert len(refused) == 1
    assert [log["event"] for log in logs] == ["audit.started", "audit.skipped", "audit.finished"]
    assert office.outcomes() == {"events": "equal", "others": "equal"}


def test_no_schedule(office: Office) -> None:
    """Without a schedule nothing would show the result, so that an audit is refused."""
    office.pipeline.config.audit.cron = None  # type: ignore[misc] # not frozen here
    with pytest.raises(ConfigError, match="no schedule"):
        office.auditor.run_now({"jobs": []})


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 7 * DAY),
        ({"archives": (Archive(60, DAY),)}, DAY - EDGE_SECONDS - ROOM_SECONDS),
        ({"query": replace(job().query, time=None)}, 2 * DAY),
    ],
)
def test_length(changed: dict[str, Any], expected: int) -> None:
    """A span that is longer than what can be compared would leave every audit incomplete. Mutants: leave either out."""
    assert _length(replace(job(archives=(Archive(60, 30 * DAY),), keep=2 * DAY), **changed), 7 * DAY) == expected
