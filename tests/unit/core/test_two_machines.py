"""The promise as a state machine with two machines: see shipping.py, and state_databases.py for their database.

A batch that a paused leader has in hand arrives whenever it continues: Carbon gets batches in another order than the
database gets commits. The lease of a paused leader ends, and the other machine leads.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from shipping import ARCHIVES, EVENTS, JOBS, TICKS, Crash, Shipping
from state_databases import FakeServer, FakeStateDatabase
from typing_extensions import override

from shipper.core.delivery.courier import Courier
from shipper.core.errors import DeliveryFailed, LeaseLost
from shipper.core.model import Datapoint, Job
from shipper.state.remote.mirror import MirroredRow, all_rows
from shipper.state.remote.working_copy import discard, unproven_slots
from shipper.state.store import State

LEASE = 10.0


class Paused(NamedTuple):
    """A leader that was stopped as it sent."""

    state: State
    database: Any
    in_hand: list[Datapoint]
    """Datapoints that it sends when it continues."""


class Stopping:
    """A Carbon whose client is stopped as it sends."""

    def __init__(self, carbon: Any, passed: int) -> None:
        self._carbon, self._passed = carbon, passed
        self.in_hand: list[Datapoint] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._carbon, name)

    def deliver(self, datapoints: Iterable[Datapoint]) -> None:
        """Let some datapoints pass, and keep the others."""
        self.in_hand = list(datapoints)
        with suppress(DeliveryFailed):
            self._carbon.deliver(self.in_hand[: self._passed])
        raise Crash


class KilledAtPush(FakeStateDatabase):
    """The database of a process that is killed just before a push, or just after it."""

    is_fatal = ""

    @override
    def push(self, rows: Any) -> None:
        if self.is_fatal == "before" and rows:
            raise Crash
        super().push(rows)
        if self.is_fatal == "after" and rows:
            raise Crash


class TwoMachines(Shipping):
    """Two machines, one of which leads."""

    replay = (60, 600)

    def __init__(self) -> None:
        self.server = FakeServer(lambda: self.clock)
        self.which = 0
        self.paused: dict[int, Paused] = {}
        super().__init__()

    def path(self, which: int) -> str:
        """Return the working copy of a machine."""
        return f"{self.folder.name}/machine{which}.db"

    @override
    def open(self) -> None:
        self.start(self.which)
        database: Any = KilledAtPush(self.server, lease=LEASE)
        while not database.try_to_lead():
            pass
        self.database = database
        self.state = State(self.path(self.which), database)
        sent = self.state.outbox.take_replays()
        options: dict[str, Any] = {"archives": ARCHIVES, "batch": 2, "replay": self.replay, "schedule": sent}
        self.courier = Courier(self.state.outbox, self.carbon, replayed=self.state.revision, **options)

    def start(self, which: int) -> None:
        """Start a process, which tells what the one before may have sent too late. Mutant: tell nothing."""
        if late := unproven_slots(self.path(which)):
            FakeStateDatabase(self.server).ask_again(late)
        discard(self.path(which))

    def take_over(self) -> None:
        """Let the other machine lead, unless it is paused."""
        if 1 - self.which not in self.paused:
            self.which = 1 - self.which
        self.open()

    @override
    def wait(self, seconds: int) -> None:
        super().wait(seconds)
        self.beat()

    @rule()
    def beat(self) -> None:
        """The leader renews its lease, and marks what it must send again."""
        slots, numbers = self.database.beat()
        if slots:
            self.state.outbox.send_again(slots)
            self.database.forget_again(numbers)

    @override
    def crash(self) -> None:
        """The process is killed, and the other machine leads."""
        self.database.end_session()
        self.state.close()
        self.take_over()

    @override
    def end(self) -> None:
        """The process ends in order, and leaves its replays to the next."""
        self.state.outbox.keep_replays(self.courier.schedule())
        self.state.close()
        self.take_over()

    @rule(wanted=JOBS, place=st.sampled_from(["before", "after"]))
    def crash_at_push(self, wanted: Job, place: str) -> None:
        """The process is killed before the push of what its working copy has already, or after it."""
        self.database.is_fatal = place
        with suppress(Crash):
            self.ticks(wanted, 1)
        self.crash()
        self.remember()

    @precondition(lambda self: not self.paused)
    @rule(passed=st.integers(0, 1), rows=st.integers(0, 3), is_proven=st.booleans())
    def pause(self, passed: int, rows: int, *, is_proven: bool) -> None:
        """The leader is stopped as it sends, for longer than its lease; perhaps until all is proven without it."""
        stopping: Any = Stopping(self.carbon, passed)
        self.courier._sink = stopping
        with suppress(Crash):
            self.courier.step(now=self.now, clock=self.clock)
        self.courier._sink = self.carbon
        if not stopping.in_hand:
            return
        self.is_lossy = True
        self.paused[self.which] = Paused(self.state, self.database, stopping.in_hand[passed:])
        self.clock, self.now = self.clock + 2 * LEASE, self.now + 2 * int(LEASE)
        self.take_over()
        if rows:  # into a bucket that is in hand
            age = max(self.now - stopping.in_hand[-1].slot, 0)  # a job without `time` may be a bucket ahead
            self.insert(["a", "b c", "b_c"][:rows], age, 1)
        if is_proven:
            for wanted in (EVENTS, TICKS):
                self.ticks(wanted, 1000)
            for seconds in (0, *self.replay):
                self.wait(seconds + 1)
                self.deliver(100)

    @precondition(lambda self: self.paused)
    @rule(is_killed=st.booleans())
    def wake(self, *, is_killed: bool) -> None:
        """A paused process continues, sends what it has in hand and ends; or is killed. It is started again."""
        for which, (state, database, in_hand) in list(self.paused.items()):
            del self.paused[which]
            if not is_killed:
                with suppress(DeliveryFailed):
                    self.carbon.deliver(in_hand)
            with pytest.raises(LeaseLost):
                database.beat()
            state.close()
            self.start(which)

    @invariant()
    def mirror_equals_working_copy(self) -> None:
        """The database has the rows of the leader's file, table by table.

        Mutants: note no deletes; push nothing.
        """
        assert self.server.rows == {(table, key): values for table, key, values in self.rows()}

    def rows(self) -> Iterable[MirroredRow]:
        """Yield the rows of the leader's file."""
        return all_rows(self.state._connection)

    @override
    def come_to_rest(self) -> None:
        """All are awake or dead."""
        self.wake(is_killed=False)
        self.beat()
        super().come_to_rest()

    @override
    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            for state, _, _ in self.paused.values():
                state.close()


TwoMachines.TestCase.settings = settings(
    max_examples=settings().max_examples // 25, stateful_step_count=30, deadline=None
)
TestTwoMachines = pytest.mark.timeout(600)(TwoMachines.TestCase)


@pytest.mark.parametrize("is_killed", [False, True])
def test_late_batch(*, is_killed: bool) -> None:
    """A batch that arrives after all replays of newer totals is sent once more. Mutants: tell nothing; mark nothing."""
    machines = TwoMachines()
    machines.begin()
    machines.insert(["a"], 60, 1)
    machines.ticks(EVENTS, 1000)
    machines.pause(passed=0, rows=3, is_proven=True)
    machines.wake(is_killed=is_killed)
    machines.teardown()


@pytest.mark.parametrize("place", ["before", "after"])
def test_killed_at_push(place: str) -> None:
    """What was pushed is recorded, and nothing else, although the working copy had it before."""
    machines = TwoMachines()
    machines.begin()
    machines.insert(["a"], 60, 1)
    before = dict(machines.server.rows)
    machines.crash_at_push(EVENTS, place)

    assert (machines.server.rows != before) == (place == "after")
    machines.mirror_equals_working_copy()
    machines.each_id_counts_once()
    machines.teardown()
