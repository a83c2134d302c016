"""A table that went back: what somebody says of it, what that comes to, and that it is exact."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import horizon, job, progress
from fakes import FakeSource
from life import Life, wanted
from structlog.testing import capture_logs

from shipper.core.capture import capture
from shipper.core.errors import ShipperError, StateBusy
from shipper.core.ledger import Slot
from shipper.core.measures import Kind, Measure
from shipper.core.model import Archive, Condition, Fingerprint, Job, Observation, Query, Span
from shipper.core.repair.recount import first_whole
from shipper.core.repair.reset import After, Outlook, Restart, known_again, outlook, restarted, would_double
from shipper.core.rows.look import TableLook
from shipper.core.rows.start import by_time
from shipper.core.rows.table import Event
from shipper.operations.context import OperationContext
from shipper.operations.registry import operate
from shipper.runtime.clocks import Clocks
from shipper.runtime.worker import Worker
from shipper.state.store import State

MINUTE, HOUR = 60, 3600
ARCHIVES = (Archive(60, 7 * 86400), Archive(3600, 365 * 86400))
EVENTS = job("events", archives=ARCHIVES)
TICKS = job("ticks", archives=ARCHIVES, time=None, by=(), template="ticks.{measure}")
OPEN = job("open", archives=ARCHIVES, lookback=HOUR, max_age=2 * HOUR)


class Office:
    """Jobs on a table, and somebody who operates on them."""

    def __init__(self, state: State, *jobs: Job) -> None:
        self.state = state
        self.now = int(time.time()) // MINUTE * MINUTE
        self.source = FakeSource(now=lambda: self.now)
        self.given = 0
        self.clocks = Clocks()
        self.workers: dict[str, Worker] = {}
        self.configure(*jobs)
        self.before: Callable[[], object] = int
        """What happens before a job is locked."""

    def configure(self, *jobs: Job) -> None:
        """Let jobs run from now on."""
        for one in jobs:
            source: Any = self.source  # keeps the contract of Source
            self.workers[one.name] = Worker(one, source, self.state, self.clocks, unit=HOUR, timeout=30)

    def insert(self, rows: int, *, ago: int = 0, action: str = "login") -> None:
        """Commit rows of some seconds ago."""
        for _ in range(rows):
            self.given += 1
            self.source.insert(self.given, self.written(ago), action)

    def written(self, ago: int) -> str:
        """Write the time so many seconds ago."""
        return datetime.fromtimestamp(self.now - ago, UTC).strftime("%Y-%m-%d %H:%M:%S")

    def truncate(self) -> None:
        """Empty the table; ids begin anew."""
        self.source.rows.clear()
        self.given = 0

    def tick(self, name: str = "events") -> str | None:
        """Observe and capture; return what failed."""
        worker = self.workers[name]
        seen = self.observe(worker.job.query)
        self.clocks.observed("app", int(time.time()), max_skew=300)
        worker.capture(seen, TableLook(worker.source, seen))
        return str(worker.failure.error) if worker.failure else None

    def observe(self, query: Query) -> Observation:
        """Look at the table."""
        return self.source.observe(query)

    def ends(self) -> dict[str, Any]:
        """Return what a capture needs."""
        return {"source": self.source, "ledger": self.state, "now": self.now}

    @contextmanager
    def locked(self, name: str) -> Iterator[Worker]:
        """Let something happen, and give the worker."""
        happens, self.before = self.before, int
        happens()
        with self.workers[name].paused():
            yield self.workers[name]

    def do(self, step: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do a step of the operation."""
        config = SimpleNamespace(sources={"app": SimpleNamespace(max_skew=10**9)})
        pipeline: Any = SimpleNamespace(state=self.state, clocks=self.clocks, config=config)
        context = OperationContext(pipeline, locked=self.locked, report=print, pause=print, deliver=lambda: True)
        return operate(context, operation="reset", arguments=arguments, is_plan=step == "plan")

    def plan(self, what: str | None = None, name: str = "events") -> Mapping[str, Any]:
        """Plan to reset a job."""
        return self.do("plan", {"job": name, "what": what})

    def reset(self, what: str, name: str = "events") -> dict[str, Any]:
        """Plan it, and carry it out."""
        done = dict(self.do("run", self.plan(what, name)["arguments"]))
        assert done.pop("is_delivered")
        return done

    def totals(self, name: str = "events") -> dict[str, dict[int, int]]:
        """Return the totals of a job above 0: of each path, how many seconds ago its slots began."""
        statement = "SELECT path, slot, value FROM total JOIN series ON series.id = series WHERE job = ? AND value > 0"
        found: dict[str, dict[int, int]] = {}
        for path, slot, value in self.state._connection.execute(statement, (name,)):
            found.setdefault(path.split(".")[-2], {})[self.now - slot] = value
        return found

    def sums(self, name: str = "events") -> dict[str, int]:
        """Add up the totals of each series of a job."""
        return {path: sum(slots.values()) for path, slots in self.totals(name).items()}

    def captured(self, name: str = "events") -> int | None:
        """Return how far a job has captured."""
        found = self.state.offsets(name)
        return found.captured if found else None


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """Give three jobs that have counted six rows of half an hour ago and four of ten minutes ago."""
    with State(str(tmp_path / "shipper.db")) as state:
        office = Office(state, EVENTS, TICKS, OPEN)
        for worker in office.workers.values():
            office.tick(worker.job.name)
        office.insert(6, ago=30 * MINUTE)
        office.insert(4, ago=10 * MINUTE)
        for worker in office.workers.values():
            assert office.tick(worker.job.name) is None
        yield office


def test_emptied_before_the_first_row(state: State) -> None:
    """A job that has counted nothing yet notices that its table was emptied and filled again.

    Mutant: know the table only by rows that were counted.
    """
    office = Office(state, job("events", archives=ARCHIVES, start="now"))
    office.insert(5, ago=HOUR)
    assert office.tick() is None
    office.truncate()
    office.insert(8)

    assert "its rows up to id" in (office.tick() or "")


@pytest.mark.parametrize(
    ("what", "captured", "first", "largest", "expected"),
    [
        ("emptied", 10, 1, 3, Outlook(0, 3, 0, 0)),
        ("emptied", 10, 0, 0, Outlook(0, 0, 0, 0)),
        ("emptied", 10, 11, 12, Outlook(0, 2, 0, 0)),
        ("restored", 10, 1, 8, Outlook(8, 0, 0, 0)),
        ("restored", 10, 1, 10, Outlook(10, 0, 0, 0)),
        ("restored", 10, 1, 12, Outlook(12, 0, 2, 0)),
        ("restored", 10, 0, 0, Outlook(0, 0, 0, 0)),
        ("replaced", 10, 1, 3, Outlook(0, 3, 0, 0)),
        ("replaced", 10, 10, 12, Outlook(0, 3, 0, 0)),
        ("replaced", 10, 11, 12, Outlook(10, 2, 0, 0)),
        ("replaced", 10, 16, 20, Outlook(10, 5, 0, 5)),
        ("replaced", 0, 0, 0, Outlook(0, 0, 0, 0)),
    ],
)
def test_outlook(what: str, captured: int, first: int, largest: int, expected: Outlook) -> None:
    """What a reset comes to is said in numbers. Mutants: any one number off by one; >= for >."""
    assert outlook(After(what), captured, first, largest) == expected


@pytest.mark.parametrize(
    ("what", "captured", "first", "is_held", "expected"),
    [
        ("emptied", 10, 9, False, True),
        ("replaced", 10, 10, False, True),
        ("emptied", 10, 10, False, True),
        ("emptied", 10, 11, False, False),
        ("emptied", 10, 0, False, False),
        ("emptied", 10, 1, True, False),
        ("restored", 10, 1, False, False),
    ],
)
def test_would_double(what: str, captured: int, first: int, *, is_held: bool, expected: bool) -> None:
    """Only a table that never went back, and holds rows up to captured, would be doubled. Mutants: < for <=."""
    assert would_double(After(what), captured, first, is_held=is_held) is expected


def test_known_again() -> None:
    """Rows without a time prove nothing: ids are given again. Mutant: count these, too."""
    known = Fingerprint("one", ((9, 90), (8, 80), (7, None)))
    assert known_again(known, Fingerprint("two", ((9, 91), (8, 80), (7, None)))) == (1, 2)


def test_plan(office: Office) -> None:
    """It says what the table holds, what was counted, why the job is held, and what each answer comes to.

    Mutants: tell the time of the newest row for the first; forget a choice.
    """
    office.truncate()
    office.insert(1, ago=5 * MINUTE)
    office.insert(2, ago=MINUTE)
    assert office.tick() is not None
    assert office.plan()["facts"] == {
        "job": "events",
        "table": "audit_trail",
        "first": 1,
        "first_time": office.now - 5 * MINUTE,
        "largest": 3,
        "largest_time": office.now - MINUTE,
        "captured": 10,
        "complete_until": office.now,
        "is_held": True,
        "reason": "its largest id fell to 3; id 10 was captured",
        "known_again": 0,
        "known": 10,
        "what": None,
        "choices": [
            {"what": "emptied", "is_rejected": False, "captured": 0, "ids": 3, "skipped": 0, "unaccounted": 0},
            {"what": "restored", "is_rejected": False, "captured": 3, "ids": 0, "skipped": 0, "unaccounted": 0},
            {"what": "replaced", "is_rejected": False, "captured": 0, "ids": 3, "skipped": 0, "unaccounted": 0},
        ],
    }
    assert [one["what"] for one in office.plan("restored")["facts"]["choices"]] == ["restored"]


def test_plan_of_a_restored_table(office: Office) -> None:
    """Rows that were counted and are there again are evidence. Mutant: look for them above captured."""
    del office.source.rows[8:]
    facts = office.plan()["facts"]

    assert (facts["known_again"], facts["known"], facts["largest"]) == (8, 10, 8)
    assert facts["reason"] == "its largest id fell to 8; id 10 was captured"


def test_plan_of_a_table_as_long(office: Office) -> None:
    """Other rows are found out where there are just as many. Mutant: go by the largest id alone."""
    office.truncate()
    office.insert(10)

    assert office.plan()["facts"]["reason"] == "its rows up to id 10 changed since they were captured"


def test_plan_of_an_empty_table(office: Office) -> None:
    """There may be nothing yet. Mutant: look for a row at id 0."""
    office.truncate()
    facts = office.plan()["facts"]

    assert (facts["first"], facts["first_time"], facts["largest"], facts["largest_time"]) == (0, None, 0, None)
    assert {choice["captured"] for choice in facts["choices"]} == {0}


def test_emptied(office: Office) -> None:
    """All that the table holds is added, once, and what was delivered stays; it is told.

    Mutants: go on behind the largest id; lower what was counted; keep the fingerprint of the table of before.
    """
    before = office.totals()["login"]
    office.truncate()
    office.insert(3, ago=MINUTE)
    assert office.tick() is not None
    with capture_logs() as log:
        done = office.reset("emptied")

    assert done == {"job": "events", "what": "emptied", "before": 10, "captured": 0}
    expected = {"event": "source.reset", "log_level": "warning", **done}
    assert [one for one in log if one["event"] == "source.reset"] == [expected]
    assert office.tick() is None
    assert office.totals() == {"login": before | {MINUTE: 3}}
    office.insert(2)
    assert office.tick() is None
    assert office.totals() == {"login": before | {MINUTE: 3, 0: 2}}


def test_emptied_twice(office: Office) -> None:
    """A second time at once it changes nothing; once something is counted it is refused, as --replaced is.

    Mutants: refuse nothing; refuse before anything is counted.
    """
    office.truncate()
    office.insert(3, ago=MINUTE)
    office.tick()
    assert [office.reset("emptied")["before"] for _ in range(2)] == [10, 0]
    office.tick()
    assert office.sums() == {"login": 13}
    for what in ("emptied", "replaced"):
        with pytest.raises(ShipperError, match="the job is not held, and rows up to 3 are counted"):
            office.plan(what)
    assert [one["is_rejected"] for one in office.plan()["facts"]["choices"]] == [True, False, True]

    assert office.tick() is None
    assert office.sums() == {"login": 13}


def test_restored(office: Office) -> None:
    """What the table holds is counted; what comes from now on is added, once, and a second reset is harmless.

    Mutants: count all that it holds; go on behind what was captured.
    """
    del office.source.rows[7:]
    office.given = 7
    assert office.tick() is not None
    for before in (10, 7, 7):
        assert office.reset("restored") == {"job": "events", "what": "restored", "before": before, "captured": 7}
        assert office.tick() is None
    assert office.sums() == {"login": 10}
    office.insert(2)
    assert office.tick() is None

    assert office.sums() == {"login": 12}


def test_restored_with_rows_in_flight(office: Office) -> None:
    """A row that is not committed yet is none that the table holds: it comes from now on. Mutant: pass its id."""
    del office.source.rows[7:]
    office.source.begin(8, office.written(0), "totp")
    office.given = 8
    office.insert(1, action="sso")
    assert office.tick() is not None
    office.reset("restored")
    assert office.tick() is None
    office.source.commit()

    assert office.tick() is None
    assert office.sums() == {"login": 10, "totp": 1}


def test_restored_beyond_captured(office: Office) -> None:
    """Rows above captured that another server has are passed, as the plan says. Mutant: keep captured."""
    office.source.rows[8:] = []
    office.given = 8
    assert office.tick() is not None
    office.now += MINUTE
    office.insert(4, action="sso")
    assert office.tick() is not None
    (choice,) = office.plan("restored")["facts"]["choices"]

    assert choice == {
        "what": "restored",
        "is_rejected": False,
        "captured": 12,
        "ids": 0,
        "skipped": 2,
        "unaccounted": 0,
    }
    assert office.reset("restored")["captured"] == 12
    assert office.tick() is None
    assert office.sums() == {"login": 10}


def test_replaced_with_ids_that_go_on(office: Office) -> None:
    """A rotated table is counted from its first row on; how many ids nobody knows of is said.

    Mutants: begin at id 0, or behind its first row.
    """
    office.source.rows.clear()
    office.given = 15
    office.insert(5)
    (choice,) = office.plan("replaced")["facts"]["choices"]
    assert choice == {
        "what": "replaced",
        "is_rejected": False,
        "captured": 10,
        "ids": 5,
        "skipped": 0,
        "unaccounted": 5,
    }
    assert office.reset("replaced") == {"job": "events", "what": "replaced", "before": 10, "captured": 10}
    assert office.tick() is None
    assert office.sums() == {"login": 15}

    with pytest.raises(ShipperError, match="rows up to 20 are counted"):
        office.plan("replaced")


@pytest.mark.parametrize("given", [4, 9])
def test_replaced_with_ids_that_begin_anew(office: Office, given: int) -> None:
    """All that the other table holds is added. Mutants: pass what is below captured, or at it."""
    office.source.rows.clear()
    office.given = given
    office.insert(3)
    assert office.tick() is not None

    assert office.reset("replaced")["captured"] == 0
    assert office.tick() is None
    assert office.sums() == {"login": 13}


def test_replaced_and_then_otherwise(office: Office) -> None:
    """A plan to go on behind captured is old once the table has rows below it. Mutant: look at its end alone."""
    office.source.rows.clear()
    office.given = 15
    office.insert(5)
    plan = office.plan("replaced")
    office.before = lambda: office.source.insert(3, office.written(0), "login")

    with pytest.raises(StateBusy, match="has changed since"):
        office.do("run", plan["arguments"])


@pytest.mark.parametrize("what", ["emptied", "restored", "replaced"])
def test_old_plan(office: Office, what: str) -> None:
    """A plan is carried out only while the job stands where it stood, and the table holds what it held.

    Mutants: compare nothing; captured alone; leave the largest id out.
    """

    def reset() -> None:
        office.reset(what)

    def shorten() -> None:
        office.truncate()
        office.insert(2, ago=MINUTE)

    def refill() -> None:
        office.truncate()
        office.insert(3, ago=30)

    for happens in (reset, shorten, refill):
        office.truncate()
        office.insert(3, ago=MINUTE)
        office.tick()
        plan = office.plan(what) if happens is reset else office.plan("restored")
        office.before = happens
        with pytest.raises(StateBusy, match="the job or its table has changed since") as told:
            office.do("run", plan["arguments"])
        assert told.value.hint == "Run the command again."
        office.tick()


@pytest.mark.parametrize("what", ["emptied", "restored", "replaced"])
def test_rows_since_the_plan(office: Office, what: str) -> None:
    """Rows that come between the plan and what is done are new, whatever was said. Mutant: pass these, too."""
    office.truncate()
    office.insert(3, ago=MINUTE)
    assert office.tick() is not None
    plan = office.plan(what)
    office.before = lambda: office.insert(2, action="sso")
    office.do("run", plan["arguments"])
    assert office.tick() is None

    assert office.sums() == {"login": 10 if what == "restored" else 13, "sso": 2}


def test_late_row_since_the_plan(office: Office) -> None:
    """A job that has counted a row below captured meanwhile is another one. Mutant: compare captured alone."""
    office.source.begin(11, office.written(0), "totp")
    office.given = 11
    office.insert(1)
    assert office.tick() is None
    plan = office.plan("restored")

    def appear() -> None:
        office.source.commit()
        assert office.tick() is None

    office.before = appear
    with pytest.raises(StateBusy, match="has changed since"):
        office.do("run", plan["arguments"])
    assert office.sums() == {"login": 11, "totp": 1}


def test_look_of_before(office: Office) -> None:
    """What was observed before a reset is no horizon of the job. Mutant: capture up to it."""
    seen = office.observe(EVENTS.query)
    office.truncate()
    office.insert(3)
    office.reset("emptied")
    worker = office.workers["events"]
    worker.capture(seen, TableLook(worker.source, seen))

    assert office.captured() == 0
    assert office.tick() is None
    assert office.captured() == 3


def test_hold_ends_meanwhile(office: Office) -> None:
    """A table that is the same after all is none to count again. Mutant: refuse by the plan alone."""
    rows = office.source.rows[8:]
    del office.source.rows[8:]
    plan = office.plan("emptied")
    office.before = lambda: office.source.rows.extend(rows)

    with pytest.raises(ShipperError, match="would count rows twice"):
        office.do("run", plan["arguments"])
    assert office.tick() is None
    assert office.sums() == {"login": 10}


def test_not_begun(office: Office) -> None:
    """A job that has not begun has nothing to reset. Mutant: reset it."""
    office.configure(job("new", archives=ARCHIVES))
    with pytest.raises(ShipperError, match="job new has not started") as caught:
        office.plan(name="new")

    assert "`shipper resume`" in str(caught.value.hint)  # a paused job has no next tick


def test_each_job_by_itself(office: Office) -> None:
    """Other jobs on the table stay held until somebody says so of them. Mutant: reset all that share the table."""
    office.truncate()
    office.insert(3, ago=MINUTE)
    for name in office.workers:
        assert office.tick(name) is not None
    office.reset("emptied")

    assert office.tick() is None
    assert (office.captured("ticks"), office.captured("open")) == (10, 10)
    assert office.tick("ticks") is not None
    assert office.tick("open") is not None


def test_undelivered(office: Office) -> None:
    """What was not delivered stays to be, and the watermark follows once it is. Mutant: forget what waits."""
    waiting = "SELECT slot, step, series, value, revision, changed FROM total WHERE changed > 0 ORDER BY 1, 2, 3"
    before = office.state._connection.execute(waiting).fetchall()
    assert before
    office.truncate()
    office.reset("emptied")

    assert office.state._connection.execute(waiting).fetchall() == before
    offsets = office.state.offsets("events")
    assert offsets is not None
    assert (offsets.watermark, offsets.captured) == (0, 0)


def test_without_a_time(office: Office) -> None:
    """Rows of the new table go into a bucket of their own; the ids of older ones mean nothing any more.

    Mutants: let the rows of both tables share a bucket; keep the ids of slots, or of late rows.
    """
    office.source.begin(11, office.written(0), "login")
    office.given = 11
    office.insert(1)
    assert office.tick("ticks") is None
    office.source.commit()
    assert office.tick("ticks") is None
    assert len(office.state.late_ids("ticks")) == 1
    before = office.totals("ticks")["ticks"]
    office.truncate()
    office.insert(3)
    assert office.tick("ticks") is not None
    office.reset("emptied", "ticks")
    assert office.tick("ticks") is None

    assert office.totals("ticks") == {"ticks": before | {-MINUTE: 3}}
    known = [slot for slot in office.state.slots("ticks") if slot.slot <= office.now]
    assert all(slot == Slot(slot.slot, 60, 0, 0) for slot in known)
    assert office.state.late_ids("ticks") == []


@pytest.mark.parametrize("what", ["emptied", "restored", "replaced"])
def test_lookback_span_stays(office: Office, what: str) -> None:
    """The span that a job looks at again keeps what the other table had; new rows of it are added, once.

    Mutant: recount slots of before the reset.
    """
    before = office.totals("open")["login"]
    office.truncate()
    office.insert(2, ago=10 * MINUTE)
    office.insert(1, ago=MINUTE)
    assert office.tick("open") is not None
    office.reset(what, "open")
    expected = before if what == "restored" else before | {10 * MINUTE: 6, MINUTE: 1}
    for _ in range(3):
        assert office.tick("open") is None
        assert office.totals("open") == {"login": expected}

    # from the reset on rows that are completed, or change, are recounted
    office.insert(1)
    office.source.rows[-1]["created_at"] = None
    office.tick("open")
    office.now += 3 * MINUTE
    office.source.rows[-1]["created_at"] = office.written(MINUTE)
    office.tick("open")
    assert office.tick("open") is None
    assert office.totals("open")["login"] == {ago + 3 * MINUTE: value for ago, value in expected.items()} | {MINUTE: 1}


def test_definition_changed_later(office: Office) -> None:
    """Days of a table that was emptied stay, whatever is counted of the next: nothing is lowered.

    Mutants: count slots of before the reset by another definition; keep the ids of slots.
    """
    before = office.sums()
    office.truncate()
    office.insert(3)
    office.tick()
    office.reset("emptied")
    office.tick()
    both = (Measure("count", Kind.COUNT), Measure("ms", Kind.SUM, "duration_ms"))
    office.configure(job("events", archives=ARCHIVES, measures=both))
    assert office.tick() is None

    assert office.sums() == {"login": before["login"] + 3}


@pytest.mark.parametrize("what", ["emptied", "restored", "replaced"])
def test_changed_while_held(office: Office, what: str) -> None:
    """A definition that was changed while the job was held counts what comes, and lowers nothing of before.

    Mutant: count the slots of before again.
    """
    office.truncate()
    office.insert(3, ago=10 * MINUTE)
    assert office.tick() is not None
    where = (Condition("outcome", "in", ("ok",)),)
    office.configure(job("events", archives=ARCHIVES, where=where))
    office.reset(what)
    for _ in range(2):
        assert office.tick() is None

    assert office.sums() == {"login": 10 if what == "restored" else 13}


@pytest.mark.parametrize("what", ["emptied", "restored", "replaced"])
def test_recount_that_was_due(office: Office, what: str) -> None:
    """Slots that were to be counted again when the table went back stay as they are.

    Mutant: count them again, of the other table.
    """
    where = (Condition("outcome", "in", ("ok",)),)
    office.configure(job("events", archives=ARCHIVES, where=where))
    steps = capture(office.workers["events"].job, office.observe(EVENTS.query), **office.ends())
    assert [next(steps), next(steps)] == [Event("job.changed", {"captured": 10}, "info"), None]
    steps.close()
    begun = office.state.progress("events")
    assert begun is not None
    assert begun.recount_from is not None
    office.truncate()
    office.insert(3, ago=10 * MINUTE)
    assert office.tick() is not None
    office.reset(what)
    for _ in range(2):
        assert office.tick() is None

    assert office.sums() == {"login": 10 if what == "restored" else 13}


def test_emptied_right_after(office: Office) -> None:
    """A table that goes back again before the next tick is found out, however many rows it has by then.

    Mutant: know the table by nothing after a reset.
    """
    del office.source.rows[7:]
    office.tick()
    office.reset("restored")
    office.truncate()
    office.insert(9, ago=MINUTE)

    assert office.tick() == "check audit_trail: its rows up to id 7 changed since they were captured"


@pytest.mark.parametrize("what", ["emptied", "restored", "replaced"])
def test_versions_only_grow(office: Office, what: str) -> None:
    """A position of before a reset is told from one after it. Mutant: begin with version 0 again."""
    office.truncate()
    office.insert(3, ago=MINUTE)
    office.tick()
    before = office.state.position("events").version
    office.reset(what)

    assert before > 0
    assert office.state.position("events").version == before + 1


def empty(life: Life, emptied: Job) -> Restart:
    """Empty the table, and reset the job as that."""
    life.source.rows.clear()
    life.given = 0
    before, seen = life.state.progress("events"), horizon(0, time=life.now)
    assert before is not None
    position = life.state.position("events")
    restart = restarted(emptied, After.EMPTIED, before, position, seen, source=life.source)
    life.state.reset("events", **restart._asdict())
    return restart


def test_slot_of_both_tables(life: Life) -> None:
    """A slot of a coarser archive that has rows of both tables is not counted again when the definition changes.

    Mutant: count all of the slot in which the reset was.
    """
    life.ship(wanted())
    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}
    empty(life, wanted())
    life.now += 10 * MINUTE
    life.insert((MINUTE, "login", "ok"))
    life.ship(wanted())
    life.now += 8 * 86400
    life.insert((MINUTE, "login", "ok"))
    life.ship(wanted())
    where = (Condition("outcome", "in", ("ok", "failure")),)
    life.ship(wanted(where=where))

    assert life.sums() == {"events.login.count": 5, "events.totp.count": 2}
    assert life.events() == ["recount.limited"]


@pytest.mark.parametrize("lookback", [None, HOUR])
def test_slot_ahead_of_a_reset(life: Life, lookback: int | None) -> None:
    """A slot that was ahead of the clock at a reset keeps what the other table had in it.

    Mutant: begin with the slot after the clock.
    """
    opened = wanted(lookback=lookback)
    life.insert((-200, "login", "ok"))
    life.ship(opened)
    empty(life, opened)
    life.now += 2 * MINUTE
    life.insert((0, "login", "ok"))
    life.ship(opened)
    life.ship(wanted(lookback=lookback, where=(Condition("outcome", "in", ("ok", "failure")),)))

    assert life.sums() == {"events.login.count": 5, "events.totp.count": 2}


def test_seek_before_a_reset(life: Life) -> None:
    """A job that is moved to a time before a reset recounts no slot with rows of the other table.

    Mutant: recount from that time on.
    """
    opened = wanted(lookback=HOUR)
    life.ship(opened)
    restart = empty(life, opened)
    after = life.state.progress("events")
    assert after is not None
    target = by_time(opened, life.now - 10 * MINUTE, after, horizon(0, time=life.now), source=life.source, now=life.now)
    life.state.seek("events", target, restart.position)
    life.now += MINUTE
    life.insert((0, "login", "ok"))
    life.ship(opened)

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}


def test_bucket_of_both_tables(life: Life) -> None:
    """Two resets within a bucket of a job without a time column: no bucket has rows of two tables, nor is complete.

    Mutant: continue in the bucket after the clock, which has the rows since the first reset.
    """
    ticks, since = wanted(time=None), []
    for _ in range(3):
        life.insert((0, "login", "ok"))
        life.ship(ticks)
        life.source.rows.clear()
        life.given = 0
        before, seen = life.state.progress("events"), horizon(0, time=life.now)
        assert before is not None
        position = life.state.position("events")
        restart = restarted(ticks, After.EMPTIED, before, position, seen, source=life.source)
        life.state.reset("events", **restart._asdict())
        since.append(restart.since)
        assert life.state.slots("events")[-1].slot < restart.since

    assert since == sorted(set(since))


@pytest.mark.parametrize(
    ("since", "begins", "expected"),
    [(3600, 0, 3600), (3601, 0, 7200), (7199, 0, 7200), (7200, 0, 3600), (5000, 5000, 3600), (5000, 4999, 7200)],
)
def test_first_whole_slot(since: int, begins: int, expected: int) -> None:
    """A slot with rows of before `since` is left; a new job's first slot is not. Mutants: either bound off by one."""
    assert first_whole(progress(EVENTS, since=since, begins=begins), Span(3600, 7200)) == expected


def test_lookback_slot_of_both_tables(life: Life) -> None:
    """A slot of a coarser archive that a job looks at again keeps what the other table had in it.

    Mutant: begin with the slot that holds the reset.
    """
    opened = job("events", archives=(Archive(60, HOUR), Archive(HOUR, 365 * 86400)), lookback=5 * HOUR)

    def ship() -> int:
        upto = horizon(life.source.observe(opened.query).id, time=life.now)
        list(capture(opened, upto, source=life.source, ledger=life.state, now=life.now))
        statement = "SELECT SUM(value) FROM total JOIN series ON series.id = series WHERE job = 'events'"
        return int(life.state._connection.execute(statement).fetchone()[0])

    assert ship() == 5
    empty(life, opened)
    life.now += 10 * MINUTE
    life.insert((MINUTE, "login", "ok"))
    assert ship() == 6
    life.now += 3 * HOUR
    life.insert((MINUTE, "login", "ok"))

    assert [ship(), ship()] == [7, 7]
