"""Operations in one process, with changes between their pieces."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from builders import job
from desk import Desk, Flaky

from shipper.core.errors import ConfigError, ShipperError, SourceReset, SourceUnavailable, StateBusy
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Archive, Condition, Job
from shipper.operations import backfill
from shipper.operations.backfill import PAUSE_SECONDS
from shipper.operations.context import OperationContext
from shipper.operations.registry import operate
from shipper.runtime.worker import Worker
from shipper.source.connections.turns import Turns
from shipper.state.store import State
from shipper.status.counters import JobCounters

HOUR = 3600


class Office:
    """A job at a desk, and an operator."""

    def __init__(self, state: State, *jobs: Job, rows: int = 10) -> None:
        """Capture rows of the last hours, two an hour."""
        self.state = state
        self.now = int(time.time())
        self.hour = self.now // HOUR * HOUR
        self.configure(*jobs or (job(),))
        for number in range(1, rows + 1):
            self.source.insert(number, written(self.hour - HOUR * ((rows + 1 - number) // 2)), "login")
        if rows:
            self.tick()
        self.between: list[Callable[[], object]] = []
        """Calls before the job is locked, one each time."""
        self.reports: list[Mapping[str, Any]] = []
        self.pause: Callable[[float], None] = lambda _: None

    def configure(self, *jobs: Job) -> None:
        """Replace the jobs on the table; operations apply to the last."""
        rows = self.source.rows if hasattr(self, "desk") else []
        self.desk = Desk(self.state, *jobs)
        self.source.rows = rows
        self.worker = self.desk.workers[-1]

    @property
    def source(self) -> Flaky:
        """Return the table."""
        return self.desk.source

    def tick(self) -> None:
        """Observe and capture."""
        self.desk.tick()
        self.desk.run_planned()

    @contextmanager
    def locked(self, _name: str) -> Iterator[Worker]:
        """Make the next call, and provide the worker."""
        if self.between:
            self.between.pop(0)()
        with self.worker.paused():
            yield self.worker

    def do(self, step: str, arguments: Mapping[str, Any], *, operation: str = "backfill") -> Mapping[str, Any]:
        """Plan or run an operation."""
        sections = {"app": SimpleNamespace(max_skew=300)}
        jobs = {worker.job.name: worker.job for worker in self.desk.workers}
        config = SimpleNamespace(sources=sections, jobs=jobs, file="shipper.toml")
        counters = defaultdict[str, JobCounters](JobCounters)
        pipeline: Any = SimpleNamespace(state=self.state, clocks=self.desk.clocks, config=config, counters=counters)
        context = OperationContext(
            pipeline,
            locked=self.locked,
            report=self.reports.append,
            pause=self.pause,
            deliver=lambda: True,
        )
        return operate(context, operation=operation, arguments=arguments, is_plan=step == "plan")

    def operate(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """Plan an operation, and run it."""
        planned = self.do("plan", {"job": "events"} | arguments, operation=operation)
        return self.do("run", planned["arguments"], operation=operation)

    def plan(self) -> Mapping[str, Any]:
        """Plan to recount the last four hours."""
        return self.do("plan", {"job": "events", "spans": [[self.hour - 4 * HOUR, self.now]]})

    def total(self, action: str = "login") -> int:
        """Return the sum of a series' totals."""
        statement = "SELECT SUM(value) FROM total JOIN series ON series.id = series WHERE path = ?"
        return self.state._connection.execute(statement, (f"events.{action}.count",)).fetchone()[0] or 0

    def trouble(self) -> ShipperError | None:
        """Return the job's error."""
        return self.worker.failure.error if self.worker.failure else None


@pytest.fixture(autouse=True)
def _half_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be half past: in the first minute of an hour, its first slot is not complete."""
    real = time.time
    ahead = HOUR / 2 - real() % HOUR
    monkeypatch.setattr(time, "time", lambda: real() + ahead)


@pytest.fixture
def office(state: State) -> Office:
    """Provide an office."""
    return Office(state)


def written(epoch: int) -> str:
    """Return a time as in the table."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S")


def stop() -> None:
    """End the operation."""
    raise StateBusy("the service stops")


def test_ends_early_and_goes_on(office: Office) -> None:
    """Finished pieces stay, and the next attempt does the rest. Mutants: note nothing; start over."""
    plan = office.plan()
    assert plan["facts"]["resumes_at"] is None
    office.between = [int, int, int, stop]
    with pytest.raises(StateBusy):
        office.do("run", plan["arguments"])
    resumed = office.plan()
    done = office.do("run", resumed["arguments"])

    assert resumed["facts"]["resumes_at"] == plan["facts"]["spans"][0][0] + 2 * HOUR
    assert done["rows"] == 5
    assert office.plan()["facts"]["resumes_at"] is None


def test_job_changes_meanwhile(office: Office) -> None:
    """A backfill ends if the job's definition changes. Mutant: continue."""
    plan, other = office.plan(), (Condition("outcome", "in", ("ok",)),)

    def change() -> None:
        office.configure(job(where=other))
        office.tick()

    office.between = [int, int, change]
    with pytest.raises(StateBusy, match="has changed since"):
        office.do("run", plan["arguments"])


def test_rows_captured_meanwhile(office: Office) -> None:
    """A row that is captured between two pieces, for a slot of the next, is counted there. Mutant: read chunks once."""
    plan = office.plan()

    def late() -> None:
        office.source.insert(11, written(office.hour - HOUR), "login")
        office.tick()

    office.between = [int, int, late]
    done = office.do("run", plan["arguments"])

    assert done["rows"] == 9 + 1


@pytest.mark.parametrize("span", [[4_000_000_000, 4_000_000_060], [60, 120]], ids=["to come", "too old"])
def test_nothing_to_count(office: Office, span: list[int]) -> None:
    """A time in the future, or older than Graphite's retention, is rejected."""
    with pytest.raises(ShipperError, match=r"no slot from .* until .* can be recounted"):
        office.do("plan", {"job": "events", "spans": [span]})


@pytest.mark.parametrize("left", ["none", "one without a time", "the first"])
def test_purged_rows(office: Office, left: str) -> None:
    """Values whose rows are purged stay, whatever is left of the table. Mutant: check only the first row."""
    rows = office.source.rows
    kept = {"none": [], "one without a time": [rows[1] | {"created_at": None}], "the first": rows[:1]}[left]
    rows[:] = kept + (rows[8:] if kept else [])
    office.source.insert(11, written(office.now), "login")
    with suppress(ShipperError):
        office.operate("backfill", spans=[[office.hour - 5 * HOUR, office.now]])

    assert office.total() == 10


def test_purged_rows_without_a_time(tmp_path: Path) -> None:
    """They also stay for a job whose slots are ranges of ids. Mutant: count the rows that are left."""
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, job(time=None), rows=5)
        office.source.insert(6, written(office.now), "login")
        del office.source.rows[:5]
        progress = state.progress("events")
        assert progress is not None
        with pytest.raises(ShipperError, match=r"does not know all rows from .* until "):
            office.operate("backfill", spans=[[progress.not_before, progress.not_before + 60]])

        assert office.total() == 5


def test_purged_meanwhile(office: Office) -> None:
    """A purge between plan and run removes no values. Mutant: trust the plan."""
    plan = office.do("plan", {"job": "events", "spans": [[office.hour - 5 * HOUR, office.now]]})
    del office.source.rows[:6]
    with pytest.raises(ShipperError):
        office.do("run", plan["arguments"])

    assert office.total() == 10


def test_late_row_meanwhile(tmp_path: Path) -> None:
    """A late row that was added between two pieces stays. Mutant: read each chunk once."""
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, job(chunk=1), rows=0)
        for number in range(1, 9):
            office.source.insert(number, written(office.hour - 9 * HOUR), "first")
        for number in range(1, 6):
            office.source.insert(number * 10**6, written(office.hour - HOUR * (6 - number)), "login")
        office.tick()

        def late() -> None:
            office.source.insert(3 * 10**6 - 5, written(office.hour - 2 * HOUR + 60), "login")
            office.tick()
            assert office.total() == 6

        office.between = [int, int, int, late]
        office.operate("backfill", spans=[[office.hour - 4 * HOUR, office.now]])

        assert office.total() == 6


def test_forgotten_attempt(office: Office) -> None:
    """A forgotten job resumes no earlier attempt. Mutant: keep the note."""
    office.between = [int, int, int, stop]
    plan = office.plan()
    with pytest.raises(StateBusy):
        office.do("run", plan["arguments"])
    office.state.housekeeping.forget("events")
    office.tick()

    assert office.plan()["facts"]["resumes_at"] is None


def test_attempt_before_a_reset(office: Office) -> None:
    """A backfill of a new table does not continue one of the old table. Mutant: keep the note."""
    office.between = [int, int, int, stop]
    plan = office.plan()
    with pytest.raises(StateBusy):
        office.do("run", plan["arguments"])
    office.source.rows.clear()
    for number in range(1, 4):
        office.source.insert(number, written(office.hour - 3 * HOUR), "login")
    office.operate("reset", what="emptied")
    office.tick()

    assert office.plan()["facts"]["resumes_at"] is None


def test_reset_before_the_next_tick(office: Office) -> None:
    """A job that was reset is not held any more, but new until its next tick.

    Mutants: keep the failure; keep the observation of the old table.
    """
    office.source.rows.clear()
    office.tick()
    held = office.trouble()
    with structlog.testing.capture_logs() as logs:
        office.operate("reset", what="emptied")
    trouble, seen, reset_at = office.trouble(), office.worker.seen, office.worker.reset_at
    office.tick()

    assert isinstance(held, SourceReset)
    assert (trouble, seen) == (None, None)
    assert reset_at == pytest.approx(time.time(), abs=60)
    assert [log["event"] for log in logs] == ["capture.recovered", "source.reset"]
    assert office.worker.seen is not None
    assert (office.trouble(), office.worker.reset_at) == (None, None)


def test_reset_of_a_job_with_another_error(office: Office) -> None:
    """A reset of a job that is not held leaves its error. Mutant: forget each error."""
    office.worker._capturing.failed(SourceUnavailable("read: gone"), clock=0.0)
    office.operate("reset", what="restored")

    assert office.trouble() is not None


def test_turn_of_before(tmp_path: Path) -> None:
    """A capture that a seek interrupts does not take its old horizon for a reset of the table.

    Mutant: continue to the old horizon.
    """
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, job(chunk=1), rows=0)
        for number in range(1, 11):
            office.source.insert(number, written(office.now - 2 * HOUR), "flood")

        def interrupt() -> None:
            office.source.before_read = int
            for number in range(11, 14):
                office.source.insert(number, written(office.now - 2 * HOUR), "flood")
            office.worker.stop()

        office.source.before_read = interrupt
        office.tick()
        office.worker.resume()
        office.operate("seek")
        office.desk.polling_group._queue._next()
        office.source.insert(14, written(office.now), "login")
        office.tick()

        assert office.trouble() is None
        assert (office.total("flood"), office.total()) == (1, 1)


def test_import_beside_an_observation(tmp_path: Path) -> None:
    """A job that is imported discards an earlier observation. Mutant: use it."""
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, rows=0)
        office.source.insert(1, written(office.now - 60), "login")
        office.desk.tick()
        for number in (2, 3):
            office.source.insert(number, written(office.now - 30), "login")
        office.operate("import", rows=[["events", "audit_trail", "id", 3]], names={})
        office.desk.run_planned()
        office.tick()

        assert office.trouble() is None


def test_import_of_two_rows(tmp_path: Path) -> None:
    """Two rows for one job are rejected before any job starts. Mutant: start the first."""
    rows = [["a", "audit_trail", "id", 3], ["b", "audit_trail", "id", 5], ["c", "users", "id", None]]
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, rows=0)
        office.source.insert(9, written(office.now), "login")
        with pytest.raises(ConfigError, match="several rows for job events"):
            office.operate("import", rows=rows, names={"a": "events", "b": "events"})
        assert state.progress("events") is None
        office.operate("import", rows=rows, names={"b": "events"})

        assert state.progress("events").captured == 5  # type: ignore[union-attr] # it has started


def test_passed_rows_stay_passed(office: Office) -> None:
    """Skipped rows stay skipped when the job changes. Mutant: recount all slots in the state."""
    for number in range(11, 21):
        office.source.insert(number, written(office.now - 3 * HOUR), "flood")
    office.operate("seek")
    office.tick()
    office.configure(job(where=(Condition("action", "not", ("nothing",)),)))
    office.tick()

    assert (office.total("flood"), office.total()) == (0, 10)


def test_seek_along_a_time(tmp_path: Path) -> None:
    """Along a time a job with lookback skips rows, and no late ones if there is nothing to skip.

    Mutants: skip none; give up its gaps.
    """
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, job(id="created_at", lookback=900, bucket=HOUR), rows=0)
        office.source.insert(1, written(office.hour), "login")
        office.tick()
        with pytest.raises(ShipperError, match="nothing to skip"):
            office.operate("seek")
        office.source.insert(2, written(office.hour), "login")
        office.tick()
        assert office.total() == 2

        office.configure(job("behind", id="created_at", lookback=900, bucket=HOUR))
        office.source.rows[:] = []
        office.source.insert(3, written(office.hour - 3 * HOUR), "login")
        office.tick()
        skipped = office.operate("seek", job="behind")
        assert skipped["captured"] > skipped["before"]


@pytest.mark.parametrize(("ago", "counted", "rejected"), [(-120, 1, {}), (2 * HOUR, 0, {"too_late": 1})])
def test_late_row_beside_a_seek(office: Office, ago: int, counted: int, rejected: dict[str, int]) -> None:
    """A row below captured that appears during a seek is not skipped: it is counted, or rejected as too late.

    Mutant: skip all ids up to the target.
    """
    office.source.insert(12, written(office.now), "login")
    office.tick()
    office.source.insert(11, written(office.now - ago), "late")
    office.source.insert(13, written(office.now - 3 * HOUR), "flood")
    office.operate("seek")
    office.tick()

    found = office.state._connection.execute("SELECT reason, rows FROM rejected WHERE rows > 0").fetchall()
    assert (office.total("late"), dict(found)) == (counted, rejected)
    assert (office.total(), office.total("flood")) == (11, 0)


def test_wider_condition(tmp_path: Path) -> None:
    """A job with a wider condition counts its oldest slot completely. Mutant: begin at its first row so far."""
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, job(bucket=HOUR, where=(Condition("action", "in", ("rare",)),)), rows=0)
        for number, action in enumerate(["login"] * 5 + ["rare", "login"], start=1):
            office.source.insert(number, written(office.hour - HOUR + number), action)
            office.tick()
        office.configure(job(bucket=HOUR))
        office.tick()

        assert (office.total(), office.total("rare")) == (6, 1)


def test_share_of_the_time(office: Office) -> None:
    """A backfill rests between its pieces, with the job unlocked, and uses its share of the time at the database.

    Mutants: no rest; rest with the job locked.
    """
    clock, waited, times = 0.0, 0.0, []

    def work() -> None:
        nonlocal clock
        clock += 1

    def wait(seconds: float) -> None:
        nonlocal clock, waited
        if seconds > PAUSE_SECONDS:  # shorter ones are for captures, by the real clock
            assert office.worker.is_ready
            clock += seconds
            waited += seconds

    plan = office.plan()
    office.source.turns = Turns(4, 0.2, clock=lambda: clock)
    office.source.before_read = work
    office.pause = wait
    office.between = [lambda: times.append(clock)] * 9
    office.do("run", plan["arguments"])

    assert len(times) == 6  # the position, then five pieces, of one read each
    assert waited == pytest.approx(4 * 4.0)


@pytest.mark.parametrize("is_indexed", [True, False])
def test_search(office: Office, *, is_indexed: bool) -> None:
    """A backfill searches all ids for its rows only where no index of the time finds them, and then says so.

    Mutants: always; never.
    """
    office.source.is_time_indexed = is_indexed

    plan = office.plan()
    result = office.do("run", plan["arguments"])

    assert result["rows"] == 9
    assert (plan["facts"]["ids"] is None) is is_indexed
    assert (office.source.asked["times"] == 0) is is_indexed


def test_reload_beside_a_backfill(office: Office) -> None:
    """A backfill takes turns at the source that a reload has made. Mutant: at the source with which it began."""
    plan, before = office.plan(), office.source.turns

    def reload() -> None:
        office.configure(job())
        office.tick()

    office.between = [int, int, reload]
    office.do("run", plan["arguments"])

    assert before is not office.source.turns
    assert before._rests_until < office.source.turns._rests_until


def test_slow_rate(office: Office) -> None:
    """A backfill reports progress while its rate makes it wait. Mutant: wait once."""
    for number in range(11, 51):
        office.source.insert(number, written(office.hour), f"action_{number}")
    office.tick()
    plan = office.do("plan", {"job": "events", "spans": [[office.hour, office.now]], "rate": 1})
    waits: list[float] = []
    office.pause = waits.append
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(backfill, "time", SimpleNamespace(monotonic=lambda: sum(waits), time=time.time))
        office.do("run", plan["arguments"])

    assert (sum(waits), max(waits)) == (41, 5)
    assert len([report for report in office.reports if "done" in report]) > 41 / 5


def test_slot_of_an_archive_that_is_gone(tmp_path: Path) -> None:
    """A span grows to slots that are longer than those of `retentions` now (two rows were one). Mutant: leave it."""
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, job(bucket=300, archives=(Archive(300, 30 * 86400),)), rows=0)
        for number, second in enumerate((0, 240), start=1):
            office.source.insert(number, written(office.hour - HOUR + second), "login")
        office.tick()
        office.configure(job(archives=(Archive(60, 30 * 86400),)))
        office.tick()
        start = office.hour - HOUR + 240
        office.operate("backfill", spans=[[start, start + 60]])

        assert office.total() == 2


def test_in_two_parts_up_to_a_new_job(tmp_path: Path) -> None:
    """A second part that ends between the first one and the job's beginning grows to now. Mutant: to the unit's end."""
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, job(start="now", archives=(Archive(60, 30 * 86400), Archive(HOUR, 365 * 86400))), rows=0)
        minutes = range(office.hour - 3 * HOUR, office.hour + HOUR // 6, HOUR // 6)
        for number, minute in enumerate(minutes, start=1):
            office.source.insert(number, written(minute), "login")
        office.tick()
        for start, end in ((-2 * HOUR, -HOUR), (-HOUR, HOUR // 12)):
            office.operate("backfill", spans=[[office.hour + start, office.hour + end]])

        assert office.total() == 13


@pytest.mark.parametrize("changed", [{}, {"template": "logins.{action}.{measure}"}], ids=["pruned", "in the state"])
def test_slot_of_a_longer_bucket(tmp_path: Path, changed: dict[str, str]) -> None:
    """A span grows to the buckets of a former definition: Graphite has their rows in one datapoint each.

    Mutants: round to present buckets and units (the row of the span was in two datapoints); forget the longer bucket
    with the next recount.
    """
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, job(bucket=2 * HOUR), rows=0)
        start = office.hour // (2 * HOUR) * 2 * HOUR - 4 * HOUR
        for number, second in enumerate((60, HOUR + 60), start=1):
            office.source.insert(number, written(start + second), "login")
        office.tick()
        if not changed:
            state.outbox.prove(after=0, upto=state.revision)
            state.housekeeping.prune("events", unit=2 * HOUR, before=10**10)
            office.source.insert(3, written(office.now), "logout")
            office.tick()
        office.configure(job(**changed))
        office.tick()
        office.operate("backfill", spans=[[start + HOUR + 60, start + HOUR + 120]])

        totals = "SELECT slot, value FROM total JOIN series ON series.id = series WHERE path LIKE '%.login.count'"
        counted = [(slot - start, value) for slot, value in state._connection.execute(totals) if value]
        assert counted == [(60, 1), (HOUR + 60, 1)]


def test_part_of_a_longer_bucket_with_distinct_values(tmp_path: Path) -> None:
    """A span grows to a longer bucket that is not over, whose slots count as complete because of distinct values.

    Mutant: look only at slots before the first complete one (2 rows were 3).
    """
    measures = COUNT, Measure("kinds", Kind.DISTINCT, "duration_ms")
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, job(bucket=24 * HOUR, measures=measures), rows=0)
        minute = office.now // 60 * 60 - 120
        for number, second in enumerate((0, 60), start=1):
            office.source.insert(number, written(minute + second), "login")
        office.tick()
        office.configure(job(measures=measures))
        office.tick()
        office.operate("backfill", spans=[[minute, minute + 60]])

        assert office.total() == 2
