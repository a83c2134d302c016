"""The threads of a leader: they renew its lease, and end its process when it is lost."""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import wait_for
from state_databases import FakeServer, FakeStateDatabase

from shipper.core.errors import LeaseLost
from shipper.runtime import leadership
from shipper.runtime.clocks import Flag
from shipper.runtime.leadership import EX_TEMPFAIL, Leading
from shipper.state.store import State

SERIES = """
    INSERT INTO series (id, path, job, "group", measure, kind) VALUES (1, 'a', 'events', '[]', 'n', 'count')"""


class Leader(FakeStateDatabase):
    """A leader's database, with the numbers that its threads use."""

    slots_again = 0

    def standing_by(self) -> dict[str, str]:
        """Know of nobody."""
        return {}


class Process:
    """A process that leads, and whose end a test sees."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.server = FakeServer(lambda: self.now)
        database: Any = Leader(self.server)
        assert database.try_to_lead()
        self.database, self.state, self.wake = database, State(str(path / "shipper.db"), database), Flag()
        self.code: int | None = None
        self.ended = threading.Event()
        monkeypatch.setattr(os, "_exit", self._exit)
        monkeypatch.setattr(leadership, "clock", lambda: self.now)
        self.threads = Leading(self.database, self.state, self.wake)
        self.fence = self.threads._fence

    def _exit(self, code: int) -> None:
        self.code = code
        self.threads._stopping.set()  # nothing runs after this call
        self.ended.set()


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """Start a leader."""
    process = Process(tmp_path, monkeypatch)
    with process.threads:
        yield process
    process.state.close()


def test_lost_lease_ends_the_process(process: Process) -> None:
    """A process whose lease was lost ends, and says why. Mutant: continue."""
    process.database.lose(LeaseLost("another leads"))

    assert process.ended.wait(10)
    assert process.code == EX_TEMPFAIL


def test_late_delivery_ends_the_process(process: Process) -> None:
    """A process that has delivered late ends, although its lease was renewed since. Mutant: look at the lease alone."""
    with pytest.raises(LeaseLost), process.fence.sending("carbon"):
        process.now += 100
    process.database.lease.renew(process.now)

    assert process.ended.wait(10)
    assert process.code == EX_TEMPFAIL


def test_requested_slots(process: Process) -> None:
    """Slots that another process may have sent late are marked, before their requests are forgotten.

    Mutants: forget them first, or never; mark them, and wake nobody.
    """
    connection = process.state._connection
    with process.state.writing("insert"):
        connection.execute(SERIES)
        connection.execute("INSERT INTO total VALUES (60, 60, 1, 5, 3, 0), (120, 60, 1, 5, 4, 0)")
    process.wake.clear()
    seen = []

    def forget(numbers: Sequence[int]) -> None:
        seen.append(connection.execute("SELECT slot, changed FROM total ORDER BY slot").fetchall())
        FakeStateDatabase.forget_again(process.database, numbers)

    process.database.forget_again = forget
    process.server.again[1] = 60
    assert process.wake.wait(10)
    wait_for(lambda: not process.server.again, "the request is forgotten", seconds=10)

    assert seen == [[(60, 1), (120, 0)]]
    assert process.database.slots_again == 1
