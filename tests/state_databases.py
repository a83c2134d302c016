"""The state in a database: a fake for tests of the core, and the contract that it and the real one pass."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from shipper.core.errors import LeaseLost
from shipper.core.lease import Lease
from shipper.state.remote.mirror import MirroredRow
from shipper.state.remote.session import Move

LEASE = 2.0
ROW = MirroredRow("series", "1", "1, 'a'")


class FakeServer:
    """The tables of a state, and who holds its lock. Mutants of the fencing give it other rules."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.rows: dict[tuple[str, str], str] = {}
        self.version = self.term = self.requests = 0
        self.move: Move | None = None
        self.beat = self.seconds = 0.0
        self.again: dict[int, int] = {}
        """Slots of requests, by number."""
        self.holder: FakeStateDatabase | None = None


class FakeStateDatabase:
    """A StateDatabase without a network."""

    def __init__(self, server: FakeServer, *, lease: float = LEASE) -> None:
        self.lease, self.term, self.version = Lease(lease), 0, 0
        self.loss: LeaseLost | None = None
        self.move: Move | None = None
        self.name = "fake"
        self._server = server

    def try_to_lead(self) -> bool:
        """Take the lock, or end the session of a silent holder."""
        server, now = self._server, self._server.clock()
        if server.holder is not None:
            if server.beat < now - server.seconds:
                server.holder = None
            return False
        server.term += 1
        server.holder, server.beat, server.seconds = self, now, self.lease.seconds
        self.term, self.version, self.move = server.term, server.version, server.move
        self.lease.renew(now)
        return True

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield all rows, by table."""
        self._require()
        yield from ((table, values) for (table, _), values in sorted(self._server.rows.items()))

    def push(self, rows: Sequence[MirroredRow]) -> None:
        """Store what a commit has changed."""
        self._renew()
        self._put(rows)

    def replace(self, rows: Iterable[MirroredRow], version: int, move: Move | None = None) -> None:
        """Store these rows instead of all."""
        self._renew()
        self._server.rows.clear()
        self._put(rows)
        self._server.version, self._server.move = version, move

    def mark_moved(self, move: Move | None) -> None:
        """Mark the rows as invalid by a move, or as valid."""
        self._require()
        self._server.move = self.move = move

    def beat(self) -> tuple[list[int], list[int]]:
        """Renew the lease; return requested slots, and the numbers of the requests."""
        self._renew()
        return sorted(set(self._server.again.values())), list(self._server.again)

    def forget_again(self, numbers: Sequence[int]) -> None:
        """Delete requests."""
        self._require()
        for number in numbers:
            del self._server.again[number]

    def ask_again(self, slots: Sequence[int]) -> None:
        """Ask the leader to send slots once more."""
        for slot in slots:
            self._server.requests += 1
            self._server.again[self._server.requests] = slot

    def lose(self, reason: LeaseLost | None = None) -> None:
        """End the lease, and the session."""
        self.loss = self.loss or reason
        self.end_session()

    def end_session(self) -> None:
        """End the session."""
        self.lease.end()
        if self._server.holder is self:
            self._server.holder = None

    def close(self) -> bool:
        """Stop to lead; return whether this one led until now."""
        has_led = self._server.holder is self
        self.end_session()
        return has_led

    @property
    def is_lost(self) -> bool:
        """Whether another process may lead now."""
        return not self.lease.left(self._server.clock())

    def _put(self, rows: Iterable[MirroredRow]) -> None:
        for table, key, values in rows:
            if values is None:
                self._server.rows.pop((table, key), None)
            else:
                self._server.rows[table, key] = values

    def _require(self) -> None:
        if self._server.holder is not self:
            self.lose(LeaseLost("the session has ended"))
            raise LeaseLost("the session has ended")

    def _renew(self) -> None:
        self._require()
        self._server.beat = self._server.clock()
        self.lease.renew(self._server.beat)


class StateDatabaseContract:
    """Rules of both; a subclass has the fixture `databases`: a function that makes one more of the same state."""

    Make = Callable[[], Any]

    def rest(self) -> None:
        """Let a tenth of a lease pass."""
        time.sleep(LEASE / 10)

    def wait(self, database: Any) -> None:
        """Wait until it leads."""
        for _ in range(1000):
            if database.try_to_lead():
                return
            self.rest()
        pytest.fail("it never leads")

    def test_one_leads(self, databases: Make) -> None:
        """A second one leads as soon as the first has stopped."""
        first, second = databases(), databases()

        assert (first.try_to_lead(), second.try_to_lead()) == (True, False)
        assert first.close()
        self.wait(second)
        assert second.term > first.term

    def test_silent_leader(self, databases: Make) -> None:
        """A leader that is silent for longer than its lease is replaced, and writes nothing afterwards.

        Mutant: write whatever the term is.
        """
        first, second = databases(), databases()
        assert first.try_to_lead()
        first.replace([ROW], 1)
        self.wait(second)

        assert first.is_lost
        with pytest.raises(LeaseLost):
            first.push([MirroredRow("series", "2", "2, 'b'")])
        with pytest.raises(LeaseLost):
            first.beat()
        assert list(second.rows()) == [("series", "1, 'a'")]
        assert not first.close()

    def test_beats(self, databases: Make) -> None:
        """A leader whose beats arrive keeps the lease for several times its length."""
        first, second = databases(), databases()
        assert first.try_to_lead()
        for _ in range(15):
            first.beat()
            assert not second.try_to_lead()
            assert not first.is_lost
            self.rest()

    def test_rows(self, databases: Make) -> None:
        """The next leader gets the rows as the last one left them."""
        first, second = databases(), databases()
        assert first.try_to_lead()
        first.replace([ROW, MirroredRow("series", "2", "2, 'b'"), MirroredRow("job", "'x'", "'x'")], 1)
        first.push([MirroredRow("series", "1", "1, 'new'"), MirroredRow("series", "2", None)])
        first.close()
        self.wait(second)

        assert (second.version, sorted(second.rows())) == (1, [("job", "'x'"), ("series", "1, 'new'")])

    def test_moves(self, databases: Make) -> None:
        """The next leader gets the mark of a move, which comes with the rows or alone, and ends. Mutant: write none."""
        move = Move("in", "token", "web1:/state.db")
        changes: list[tuple[Callable[[Any], None], Move | None]] = [
            (lambda one: one.replace([ROW], 1, move), move),
            (lambda one: one.mark_moved(None), None),
            (lambda one: one.mark_moved(move._replace(direction="out")), move._replace(direction="out")),
            (lambda one: one.replace([ROW], 1), None),
        ]
        for change, expected in changes:
            database = databases()
            self.wait(database)
            change(database)
            database.close()
            database = databases()
            self.wait(database)
            assert database.move == expected
            database.close()

    def test_only_the_leader_writes(self, databases: Make) -> None:
        """What does not lead writes nothing, also before any process has led and after an error of its session.

        Mutants: write through whatever session there is; write before the term is compared.
        """
        first, second = databases(), databases()
        with pytest.raises(LeaseLost):
            second.push([ROW])
        assert first.try_to_lead()
        with pytest.raises(LeaseLost):
            second.push([ROW])
        first.end_session()
        with pytest.raises(LeaseLost):
            first.push([ROW])
        third = databases()
        self.wait(third)
        assert list(third.rows()) == []

    def test_requests(self, databases: Make) -> None:
        """The leader gets each request, also after all rows were replaced, and until it is forgotten."""
        first, second = databases(), databases()
        assert first.try_to_lead()
        second.ask_again([60, 120])
        second.ask_again([60])
        slots, numbers = first.beat()
        second.ask_again([180])
        first.replace([ROW], 1)
        first.forget_again(numbers)

        assert sorted(slots) == [60, 120]
        assert first.beat()[0] == [180]
        first.forget_again(first.beat()[1])
        assert first.beat() == ([], [])
