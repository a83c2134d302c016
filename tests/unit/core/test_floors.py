"""How ids grow old, as a state machine: each is counted once, whenever it commits, whatever becomes of clocks and jobs.

Each row is a group of its own, so that a total tells of one row.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, horizon, job
from fakes import FakeSource
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shipper.core.capture import capture
from shipper.core.id_set import words_of
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Condition, Job
from shipper.core.rows.look import TableLook
from shipper.state.store import State

EVERY, LATE = 60, 600
FIRST = job("first", chunk=3, late=LATE, template="first.{action}.{measure}")
SECOND = job("second", chunk=5, late=LATE, start="now", template="second.{action}.{measure}")
TICKS = job("ticks", chunk=4, late=LATE, start="now", time=None, template="ticks.{action}.{measure}")
JOBS = {one.name: one for one in (FIRST, SECOND, TICKS)}
NAMES = st.lists(st.sampled_from(list(JOBS)), min_size=1, max_size=3, unique=True)
OTHERWISE = (COUNT, Measure("ids", Kind.SUM, "id"))
COUNTED = """
    SELECT json_extract("group", '$[0]'), SUM(value) FROM total JOIN series ON series.id = total.series
    WHERE job = ? AND measure = 'count' GROUP BY 1"""


def written(epoch: int) -> str:
    """Write a time as the table has it."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S")


class Floors(RuleBasedStateMachine):
    """A table that transactions write to in any order, and jobs that look at it."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # there fsync costs nothing
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.source = FakeSource()
        self.now = NOW
        self.skew = 0
        self.numbers = count(1)
        self.given = 0
        self.open: list[list[dict[str, Any]]] = []
        self.rows: dict[int, dict[str, Any]] = {}
        """All that were ever committed."""
        self.ages: dict[int, dict[str, int]] = {}
        """How long each job had been looked at when an id was given out."""
        self.owed: dict[str, set[int]] = {}
        """Ids whose rows came soon enough, and are still there."""
        self.looked: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.decided: dict[str, set[int]] = {}
        self.passed: dict[str, set[int]] = {}
        """Ids that were there when a job began: none of its own, but for its first slot."""
        self.spare: dict[str, int] = {}
        """How many rows each job has counted as such that cannot be shown, beside those that are known."""
        self.has_missed = self.has_deleted = False
        self.jobs: dict[str, Job] = {}
        self.began = ""
        """When the second job did, as the table has it."""
        self.start()

    def start(self) -> None:
        """Start as after any end."""
        self.state = State(f"{self.folder.name}/shipper.db")

    @property
    def clock(self) -> int:
        """Return what the clocks show."""
        return self.now + self.skew

    @initialize()
    def begin(self) -> None:
        """One job is there from the beginning on."""
        self.look(["first"])

    # what the application does

    @rule(
        transactions=st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=4),
        gap=st.sampled_from([1, 1, 1, 3, 70]),
        ago=st.sampled_from([0, 0, 30, 400, 4000]),
        is_seen=st.booleans(),
    )
    def insert(self, transactions: list[tuple[int, bool]], gap: int, ago: int, *, is_seen: bool) -> None:
        """Transactions insert rows, and end at once or later; somebody may look by then."""
        created = written(self.clock - ago)
        for rows, commits in transactions:
            self.open.append([self.row(gap, created) for _ in range(rows)])
            if commits:
                self.end(-1)
        if is_seen:
            self.look(list(self.jobs))

    def row(self, gap: int, created: str) -> dict[str, Any]:
        """Give an id out."""
        self.given += gap
        self.ages[self.given] = dict(self.looked)
        action = f"row{next(self.numbers)}"
        return {"id": self.given, "created_at": created, "action": action, "outcome": "ok", "duration_ms": None}

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9), is_committed=st.sampled_from([True, True, True, False]))
    def end(self, which: int, *, is_committed: bool = True) -> None:
        """It commits, sooner or later than others, or its ids never come."""
        transaction = self.open.pop(which % len(self.open))
        # a row that was missed may take the place of one that was deleted: of old ids only the number is known
        is_missed = any(self.age(row["id"], name) > 0.9 * LATE for row in transaction for name in self.jobs)
        if not is_committed or (is_missed and self.has_deleted):
            return
        self.has_missed |= is_missed
        for row in transaction:
            self.source.rows.append(row)
            self.rows[row["id"]] = row
            for name in self.jobs:
                is_own = name != "second" or row["created_at"] >= self.began  # else it is too late
                if self.age(row["id"], name) <= 0.9 * LATE and is_own:
                    self.owed[name].add(row["id"])

    def age(self, identity: int, name: str) -> int:
        """Return for how long a job was looked at since an id was given out, at most."""
        return self.looked[name] - self.ages[identity].get(name, 0)

    @precondition(lambda self: len(self.source.rows) > 1 and not self.has_missed)
    @rule(which=st.integers(0, 99), is_purge=st.booleans())
    def delete(self, which: int, *, is_purge: bool) -> None:
        """A row is deleted, or the oldest are purged; but not the newest, which would hold the jobs."""
        rows = sorted(self.source.rows, key=lambda row: int(row["id"]))[:-1]
        self.remove(rows[: which % (len(rows) + 1)] if is_purge else [rows[which % len(rows)]])

    def remove(self, gone: Iterable[dict[str, Any]]) -> None:
        """What is gone is owed to nobody."""
        for row in gone:
            self.has_deleted = True
            self.source.rows.remove(row)
            for owed in self.owed.values():
                owed.discard(row["id"])

    # what becomes of time

    @rule(
        seconds=st.sampled_from([1, 60, 119, 3 * LATE]), skew=st.sampled_from([0, 0, 0, -5 * LATE, -90, 90, 5 * LATE])
    )
    def wait(self, seconds: int, skew: int) -> None:
        """Time passes, perhaps while nobody looks, and clocks are set.

        Mutants: age by the clock; what it shows when it is set forward makes ids old.
        """
        self.now += seconds
        self.skew += skew

    # what the jobs do

    @rule(names=NAMES, steps=st.integers(1, 6) | st.just(1000) | st.just(1000), makes_old=st.booleans())
    def look(self, names: list[str], steps: int = 1000, *, makes_old: bool = True) -> None:
        """Jobs look, perhaps not to the end; those that have not begun do.

        Mutant: give up gaps before they are asked for.
        """
        seen = replace(horizon(self.source.observe(FIRST.query).id, time=self.clock), makes_old=makes_old)
        shared = TableLook(self.source, seen)
        for name in names:
            self.note(name, makes_old=makes_old, is_whole=steps == 1000)
            taken = capture(self.jobs[name], seen, source=self.source, ledger=self.state, now=self.clock, look=shared)
            for _ in zip(range(steps), taken, strict=False):
                pass
            taken.close()

    def note(self, name: str, *, makes_old: bool, is_whole: bool) -> None:
        """Note for how long a job was looked at, at most two ticks a look."""
        if name not in self.jobs:
            self.last = dict.fromkeys(self.last, 0)  # what was only noted is forgotten, as after a crash
            self.jobs[name] = JOBS[name]
            self.looked[name], self.owed[name] = 0, set()
            self.decided[name] = set()
            self.passed[name] = set() if name == "first" else {row["id"] for row in self.source.rows}
            self.last[name] = self.clock
            if name == "second":
                self.began = written(self.clock)
            if name == "first":
                self.owed[name] |= {row["id"] for row in self.source.rows}
        passed = max(0, self.clock - self.last[name])
        self.looked[name] += min(passed, 2 * EVERY) if makes_old else 0
        # a look that was cut off may have been noted, or not
        self.last[name] = self.clock if makes_old or is_whole else min(self.last[name], self.clock)

    @rule(seconds=st.sampled_from([60, 120]), times=st.integers(2, 8))
    def looks(self, seconds: int, times: int) -> None:
        """All look for some minutes."""
        for _ in range(times):
            self.now += seconds
            self.look(list(self.jobs))
            self.each_id_counts_once()

    @rule(name=st.sampled_from(["first", "second"]), what=st.sampled_from(["measures", "bucket", "where", "zone"]))
    def change(self, name: str, what: str) -> None:
        """A job counts its rows otherwise: by another measure, in other buckets, by a condition that all meet.

        Or another zone is right, so that what was counted stays where it is.

        Mutants: lower what was purged long ago; end a bucket with the slot that its total stands in.
        """
        if name not in self.jobs or (what == "zone" and name == "second"):
            return
        query = self.jobs[name].query
        match what:
            case "measures":
                query = replace(query, measures=OTHERWISE if query.measures == (COUNT,) else (COUNT,))
            case "bucket":
                query = replace(query, bucket=360 - query.bucket)
            case "where":
                query = replace(query, where=() if query.where else (Condition("outcome", "in", ("ok",)),))
            case _:
                query = replace(query, time_zone="UTC" if query.time_zone != "UTC" else "America/Bogota")
        self.jobs[name] = replace(self.jobs[name], query=query)

    @rule()
    def crash(self) -> None:
        """The process ends, and forgets what it only noted: the next look may count for two ticks, again."""
        self.last = dict.fromkeys(self.last, 0)
        self.state.close()
        self.start()

    # what is to be true

    @invariant()
    def each_id_counts_once(self) -> None:
        """What is in a job's set is in its totals once, or counted as too late; nothing else is.

        Mutants: leave late ids out of the set; take all ids of a window for counted; begin with those up to captured.
        """
        for name in self.jobs:
            position = self.state.position(name)
            counted = dict(self.state._connection.execute(COUNTED, (name,)).fetchall())
            known = self.decided[name]
            for identity, row in self.rows.items():
                if identity > position.counted.floor:
                    is_decided = identity <= position.captured and not position.counted.missing(words_of([identity]))
                    assert is_decided or identity not in known, "what is counted stays it"
                else:
                    is_decided = identity in known or row["action"] in counted
                known |= {identity} if is_decided else set()
            own = {self.rows[one]["action"] for one in known - self.passed[name]}
            passed = {self.rows[one]["action"] for one in self.passed[name]}
            assert set(counted.values()) <= {1}
            assert set(counted) <= own | passed
            counter = "SELECT COALESCE(SUM(rows), 0) FROM rejected WHERE job = ?"
            (too_late,) = self.state._connection.execute(counter, (name,)).fetchone()
            unknown = [one for one in self.rows if one <= position.counted.floor and one not in known]
            # one that is found with the last look that asks for it, and cannot be shown, is in no set that is left
            # and one of the future that was deleted before its time came is none any more
            there = {row["action"] for row in self.source.rows}
            rejected = own - set(counted)
            assert len(rejected & there) <= too_late <= len(rejected) + len(unknown)
            self.spare[name] = too_late - len(rejected & there)

    @invariant()
    def sets_are_bounded(self) -> None:
        """What is kept of a position is what `late` needs: no id is older than it was looked at. Mutant: a replica."""
        for name in self.jobs:
            position = self.state.position(name)
            assert len(position.marks) <= 101
            assert position.age <= self.looked[name]

    def teardown(self) -> None:
        """Whatever came soon enough is counted in the end. Mutants: a floor too soon; none asked before it rises."""
        try:
            for _ in range(2 * LATE // EVERY + 2):  # a row that is found with the last question makes ids young
                self.now += EVERY
                self.look(list(self.jobs))
                self.each_id_counts_once()
            for name, owed in self.owed.items():
                left = owed - self.decided[name] - self.passed[name]
                assert len(left) <= self.spare[name], f"{name} has counted {left} nowhere"
                assert self.state.position(name).counted.floor >= max(self.rows, default=0) or self.skew
        finally:
            self.state.close()
            self.folder.cleanup()


Floors.TestCase.settings = settings(max_examples=settings().max_examples // 4, stateful_step_count=40, deadline=None)
TestFloors = pytest.mark.timeout(600)(Floors.TestCase)
