"""The fake of a state in a database passes the contract of the real one; the working copy follows either."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from builders import begin, job
from state_databases import LEASE, FakeServer, FakeStateDatabase, StateDatabaseContract
from typing_extensions import override

from shipper.core.errors import LeaseLost, StateBusy, StateCorrupt
from shipper.state import schema
from shipper.state.remote import working_copy
from shipper.state.remote.mirror import all_rows
from shipper.state.remote.working_copy import unproven_slots
from shipper.state.schema import VERSIONS
from shipper.state.store import State

SLOW = """
    INSERT INTO later
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10000000)
    SELECT MAX(n) FROM numbers"""
LATER = ("CREATE TABLE later (number INTEGER PRIMARY KEY) STRICT", SLOW)
"""A migration that takes several times SHORT_LEASE."""
SHORT_LEASE = 0.5
REJECT = "INSERT INTO rejected VALUES ('a', 'no_id', 1)"


class TestFakeStateDatabase(StateDatabaseContract):
    """The fake."""

    @pytest.fixture
    def databases(self) -> Callable[[], FakeStateDatabase]:
        """Make one more."""
        server = FakeServer(partial(next, count(step=LEASE / 10)))
        return lambda: FakeStateDatabase(server)

    @override
    def rest(self) -> None:
        """Do nothing: the clock moves whenever it is read."""


@pytest.fixture
def server() -> FakeServer:
    """Make a database whose clock stands still."""
    return FakeServer(lambda: 0.0)


def leader(server: FakeServer) -> Any:
    """Return a leader."""
    database = FakeStateDatabase(server)
    assert database.try_to_lead()
    return database


@pytest.fixture
def state(tmp_path: Path, server: FakeServer) -> Iterator[State]:
    """Open a state that is in a database."""
    with closing(State(str(tmp_path / "shipper.db"), leader(server))) as opened:
        yield opened


def stored(state: State) -> dict[tuple[str, str], str | None]:
    """Return the rows of the working copy."""
    return {(row.table, row.key): row.values for row in all_rows(state._connection)}


def test_commits_are_mirrored(state: State, server: FakeServer) -> None:
    """The database has the rows of each commit, and none of a block that failed. Mutant: note no keys."""
    begin(state, job())
    assert server.rows == stored(state)
    with pytest.raises(ZeroDivisionError), state.writing("fail") as connection:
        connection.execute(REJECT)
        raise ZeroDivisionError
    assert server.rows == stored(state)
    for statement in (REJECT, "UPDATE rejected SET job = 'b'", "UPDATE rejected SET rows = 2", "DELETE FROM rejected"):
        with state.writing("write") as connection:
            connection.execute(statement)
        assert server.rows == stored(state)


def test_captures_continue_during_a_push(tmp_path: Path, server: FakeServer) -> None:
    """A capture does not wait for the push of another thread, and nothing is noted for a delivery before its own.

    Mutants: keep the mutex over the push; note what is not pushed yet.
    """
    may_push, is_pushing = threading.Event(), threading.Event()

    class Slow(FakeStateDatabase):
        """A database that answers when a test says so."""

        @override
        def push(self, rows: Any) -> None:
            is_pushing.set()
            assert may_push.wait(10)
            super().push(rows)

    may_push.set()
    database: Any = Slow(server)
    assert database.try_to_lead()
    with closing(State(str(tmp_path / "shipper.db"), database)) as state, ThreadPoolExecutor() as threads:
        begin(state, job())
        may_push.clear()
        is_pushing.clear()
        commit = threads.submit(state.outbox.commit, {}, {})
        assert is_pushing.wait(10)
        with state.gathering():
            begin(state, job(name="second"))
            pending = threads.submit(state.outbox.pending, 0)
            state.position("second")
            time.sleep(0.1)  # the other threads would end now
            assert not commit.done()
            assert not pending.done()
            may_push.set()
            pending.result(10)
        assert commit.exception(10) is None
        assert server.rows == stored(state)


def test_push_fails(tmp_path: Path, server: FakeServer) -> None:
    """A file that may be ahead of the database ends the lease, and nothing of it is noted. Mutant: go on."""

    class Broken(FakeStateDatabase):
        """A database with a bug."""

        is_broken = False

        @override
        def push(self, rows: Any) -> None:
            if self.is_broken:
                raise ZeroDivisionError
            super().push(rows)

    database: Any = Broken(server)
    assert database.try_to_lead()
    with closing(State(str(tmp_path / "shipper.db"), database)) as state:
        begin(state, job())
        rows = dict(server.rows)
        database.is_broken = True
        with pytest.raises(ZeroDivisionError), state.writing("write") as written:
            written.execute(REJECT)
        database.is_broken = False

        assert database.is_lost
        for again in (lambda: state.outbox.pending(0), lambda: state.outbox.commit({}, {})):
            with pytest.raises(LeaseLost):
                again()
        assert server.rows == rows


def test_push_is_not_begun(state: State, server: FakeServer) -> None:
    """Rows that are lost before their push end the lease, too: later ones would be stored without them. Mutant: go on.

    A watermark row has captured; without the totals of that commit, the next leader would miss rows.
    """

    class Rows(list[Any]):
        """Rows for which there is no memory."""

        @override
        def __iter__(self) -> Iterator[Any]:
            raise MemoryError

    begin(state, job())
    rows, mirror = dict(server.rows), state._mirror
    assert mirror is not None
    take = mirror.take
    mirror.take = lambda: Rows(take())  # type: ignore[method-assign]
    with pytest.raises(StateBusy, match="out of memory"), state.writing("write") as written:
        written.execute(REJECT)
    mirror.take = take  # type: ignore[method-assign]

    with pytest.raises(LeaseLost), state.writing("write") as written:
        written.execute("UPDATE rejected SET rows = 2")
    assert server.rows == rows


def test_commit_fails(state: State, server: FakeServer) -> None:
    """A working copy that cannot be written ends the lease: another machine may have space. Mutant: go on."""
    begin(state, job())
    connection = state._connection

    class Full:
        """A connection whose disk is full at the commit."""

        def __getattr__(self, name: str) -> Any:
            return getattr(connection, name)

        def execute(self, statement: str, *values: Any) -> Any:
            """Fail at the commit."""
            if statement == "COMMIT":
                raise sqlite3.OperationalError("database or disk is full")
            return connection.execute(statement, *values)

    state._connection = Full()  # type: ignore[assignment]
    with pytest.raises(StateBusy), state.writing("write") as written:
        written.execute(REJECT)
    state._connection = connection

    database: Any = state._database
    assert database.is_lost
    assert "disk is full" in str(database.loss)
    with pytest.raises(LeaseLost), state.writing("write") as written:
        written.execute(REJECT)


def test_empty_file_is_made_again(tmp_path: Path, server: FakeServer) -> None:
    """A kill may leave an empty file. Mutant: take it for another state."""
    path = tmp_path / "shipper.db"
    path.touch()
    with closing(State(str(path), leader(server))) as opened:
        assert stored(opened) == server.rows


def test_working_copy_stays_after_a_loss(tmp_path: Path, server: FakeServer) -> None:
    """The next start finds what its process may have sent last; after an orderly end there is nothing to find."""
    path = str(tmp_path / "shipper.db")
    database = leader(server)
    with closing(State(path, database)) as opened:
        begin(opened, job())
        opened._connection.execute("PRAGMA foreign_keys = OFF")
        with opened.writing("insert") as connection:
            connection.execute("INSERT INTO total VALUES (60, 60, 1, 1, 1, 1)")
        database.lose()
    assert unproven_slots(path) == [60]

    with closing(State(path, leader(server))):
        pass
    assert unproven_slots(path) == []


def test_stopped_while_loading(tmp_path: Path) -> None:
    """A process that was stopped as it loaded the state, for longer than its lease, does nothing. Mutant: continue."""
    times = [0.0]
    server = FakeServer(lambda: times[-1])
    with closing(State(str(tmp_path / "one.db"), leader(server))) as opened:
        begin(opened, job())
    rows, other = dict(server.rows), FakeStateDatabase(server)

    class Stopped(FakeStateDatabase):
        """A database whose process is stopped with the last row in hand."""

        @override
        def rows(self) -> Iterator[tuple[str, str]]:
            yield from super().rows()
            times.append(2 * LEASE)
            assert [other.try_to_lead() for _ in range(2)] == [False, True]

    database: Any = Stopped(server)
    assert database.try_to_lead()
    with pytest.raises(LeaseLost):
        State(str(tmp_path / "two.db"), database)

    assert (server.holder, server.rows) == (other, rows)
    assert unproven_slots(str(tmp_path / "two.db")) == []


def test_load_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs as it loads the state, on its disk for example, is replaced. Mutant: renew all the same."""
    server = FakeServer(time.monotonic)
    may_end = threading.Event()

    class Hanging(FakeStateDatabase):
        """A database whose process hangs with the last row in hand."""

        @override
        def rows(self) -> Iterator[tuple[str, str]]:
            yield from super().rows()
            assert may_end.wait(20)

    first: Any = Hanging(server, lease=SHORT_LEASE)
    second = FakeStateDatabase(server, lease=SHORT_LEASE)
    assert first.try_to_lead()
    monkeypatch.setattr(working_copy, "STILL_SECONDS", SHORT_LEASE, raising=False)
    with ThreadPoolExecutor() as threads:
        opening = threads.submit(State, str(tmp_path / "one.db"), first)
        deadline = time.monotonic() + 20 * SHORT_LEASE
        while not (has_taken := second.try_to_lead()) and time.monotonic() < deadline:
            time.sleep(SHORT_LEASE / 10)
        may_end.set()

        assert has_taken
        with pytest.raises(LeaseLost):
            opening.result(10)


def test_working_copy_after_a_power_failure(tmp_path: Path, server: FakeServer) -> None:
    """A working copy of which the disk has only the beginning is made again. Mutant: ask SQLite what it is."""
    path = tmp_path / "shipper.db"
    database = leader(server)
    with closing(State(str(path), database)) as opened:
        begin(opened, job())
        database.lose()
    whole = path.read_bytes()
    for size in (len(whole) // 2, 4096, 512):
        path.write_bytes(whole[:size])
        assert unproven_slots(str(path)) == []
        database = leader(server)
        with closing(State(str(path), database)) as opened:
            assert stored(opened) == server.rows
            database.lose()


def test_newer_rows_are_refused(tmp_path: Path, server: FakeServer) -> None:
    """An older program leaves the rows of a newer one as they are."""
    server.version, server.rows["later", "1"] = len(VERSIONS) + 1, "1"
    with pytest.raises(StateCorrupt, match="version"):
        State(str(tmp_path / "shipper.db"), leader(server))

    assert server.rows == {("later", "1"): "1"}
    assert server.holder is None


def test_older_rows_are_migrated(tmp_path: Path, server: FakeServer) -> None:
    """A newer program stores all rows as it migrated them."""
    with closing(State(str(tmp_path / "one.db"), leader(server))) as opened:
        begin(opened, job())
        rows = dict(server.rows)
    server.rows = {key: values for key, values in rows.items() if key[0] != "nothing"}
    server.version = 1
    with closing(State(str(tmp_path / "two.db"), leader(server))) as opened:
        assert (server.version, server.rows) == (len(VERSIONS), stored(opened))


def test_migration_longer_than_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that converts the rows of an older program keeps its lease meanwhile. Mutant: renew nothing."""
    server = FakeServer(lambda: 0.0)  # a busy machine may renew late
    with closing(State(str(tmp_path / "one.db"), leader(server))) as opened:
        begin(opened, job())

    class Counting(FakeStateDatabase):
        beats = 0

        @override
        def beat(self) -> tuple[list[int], list[int]]:
            self.beats += 1
            return super().beat()

    first: Any = Counting(server, lease=SHORT_LEASE)
    assert first.try_to_lead()
    for module in (schema, working_copy):
        monkeypatch.setattr(module, "VERSIONS", (*VERSIONS, LATER))
    with closing(State(str(tmp_path / "two.db"), first)) as opened:
        assert first.beats > 1
        assert (server.holder, server.version, server.rows) == (first, len(VERSIONS) + 1, stored(opened))
