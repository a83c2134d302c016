"""The state in a real PostgreSQL: the contract of its fake, and what only a server does."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial

import pytest
from harness import wait_for
from servers import PostgreSQL
from state_databases import LEASE, ROW, StateDatabaseContract

from shipper.core.errors import LeaseLost, StateBusy
from shipper.runtime.postgresql import Session
from shipper.state.remote.database import StateDatabase
from shipper.state.remote.mirror import MirroredRow
from shipper.state.remote.session import Move

Make = Callable[..., StateDatabase]
WAITS = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
WAITING = f"SELECT COUNT(*) {WAITS}"
IS_SILENT = 'SELECT beat < clock_timestamp() - make_interval(secs => seconds) FROM "it\'s".lease'
SLOW = """
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(6); RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER INSERT ON "it's".state EXECUTE FUNCTION slow()"""
HOLDERS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"


def made(server: PostgreSQL, stack: ExitStack, *, lease: float = LEASE) -> StateDatabase:
    """Make a state database that is closed with a stack."""

    def connect(application: str) -> Session:
        session = Session.connect(
            host="127.0.0.1",
            port=server.port,
            user="root",
            dbname="leases",
            sslmode="disable",
            application_name=application,
        )
        session.allow(lease)
        return session

    database = StateDatabase(connect, label="leases", name="it's", lease=lease, host="one", configuration="c")
    stack.callback(database.end_session)
    return database


@pytest.fixture
def databases(postgresql: PostgreSQL) -> Iterator[Make]:
    """Make one more of the same state."""
    postgresql.make_database("leases")
    with ExitStack() as stack:
        yield partial(made, postgresql, stack)


class TestStateDatabase(StateDatabaseContract):
    """The real one."""

    @pytest.fixture
    def databases(self, databases: Make) -> Make:
        """Make one more."""
        return databases


def test_requests_that_overlap(postgresql: PostgreSQL, databases: Make) -> None:
    """A request that commits after one with a higher number is not forgotten with it. Mutant: delete up to a number."""
    first = databases(lease=10)
    assert first.try_to_lead()
    insert = 'INSERT INTO "it\'s".again (slot) VALUES (%s)'
    with closing(postgresql.connect("leases")) as late, closing(postgresql.connect("leases")) as early:
        with late.transaction():
            late.execute(insert, (60,))
            early.execute(insert, (120,))
            slots, numbers = first.beat()
        first.forget_again(numbers)

    assert slots == [120]
    assert first.beat()[0] == [60]


def test_session_ended_while_others_are_asked_about(postgresql: PostgreSQL, databases: Make) -> None:
    """An error of a question is the end of the session that leads: nothing is written through another one.

    Mutant: open another session, and write there.
    """
    first = databases(lease=10)
    assert first.try_to_lead()
    with closing(postgresql.connect("leases")) as administrator:
        administrator.execute(f"SELECT pg_terminate_backend(pid) FROM ({HOLDERS}) AS held")
        wait_for(lambda: not administrator.execute(HOLDERS).fetchall(), "the session has ended")
        with pytest.raises(StateBusy):
            first.leadership()

        assert first.is_lost
        with pytest.raises(LeaseLost):
            first.push([ROW])
        assert administrator.execute('SELECT COUNT(*) FROM "it\'s".state').fetchone() == (0,)


def test_long_write(postgresql: PostgreSQL, databases: Make) -> None:
    """Others wait for a write that was announced, and the leader keeps its lease over it.

    Mutants: let the beat of a write replace the one that was announced; count the lease from the begin of a write.
    """
    rows = [ROW._replace(key=str(number)) for number in range(20_000)]
    first, second = databases(lease=4), databases(lease=4)
    assert first.try_to_lead()
    with closing(postgresql.connect("leases")) as administrator, ThreadPoolExecutor() as threads:
        administrator.execute(SLOW.encode())
        silences = []

        def beat() -> tuple[list[int], list[int]]:
            silences.append(administrator.execute(IS_SILENT).fetchone())  # others may ask just before
            return StateDatabase.beat(first)

        def push() -> bool:
            first.push(rows)
            return first.is_lost

        first.beat = beat  # type: ignore[method-assign]
        is_lost = threads.submit(push)
        while not is_lost.done():
            assert not second.try_to_lead()
            assert not first.is_lost
            time.sleep(0.1)
        assert not is_lost.result()

    assert silences == [(False,)]


def test_large_rows(postgresql: PostgreSQL, databases: Make) -> None:
    """A state is loaded in answers of a limited size, whatever is in its rows. Mutant: limit only their number."""
    first = databases(lease=10)
    assert first.try_to_lead()
    first.replace((MirroredRow("ids", f"{number:04}", "?" * 100_000) for number in range(700)), 1)

    assert [len(values) for _, values in first.rows()] == [100_000] * 700


def test_machine_that_dies_during_a_long_write(databases: Make) -> None:
    """The server notices by itself that the machine of a leader is gone: others wait for as long as it announced.

    Mutant: leave the time of keepalives to the server, two hours.
    """
    leader = databases()
    assert leader.try_to_lead()
    session = leader._session
    assert session is not None
    times = [session.execute(f"SHOW tcp_keepalives_{name}").fetchone() for name in ("idle", "interval", "count")]
    assert times == [(f"{LEASE:g}",), ("1",), ("3",)]


def test_move_that_fails(databases: Make) -> None:
    """Rows and the mark of a move change together, or not at all. Mutants: write the mark before the rows, or after."""
    first = databases()
    assert first.try_to_lead()
    first.replace([ROW], 1)
    with pytest.raises(LeaseLost):  # the server knows no such direction
        first.replace([], 1, Move("aside", "token", "web1:/state.db"))
    second = databases()
    TestStateDatabase().wait(second)
    assert list(second.rows()) == [("series", "1, 'a'")]
    with pytest.raises(LeaseLost):  # the same row twice
        second.replace([ROW, ROW], 1, Move("in", "token", "web1:/state.db"))

    third = databases()
    TestStateDatabase().wait(third)
    assert third.move is None


def test_stand_by_of_the_server_is_gone() -> None:
    """A leader whose server cannot replicate does not renew its lease, and no commit counts that was not replicated.

    Mutants: renew with an asynchronous commit; believe a commit whose wait for the stand-by was cancelled.
    """
    with closing(PostgreSQL()) as server, ExitStack() as stack:
        server.make_database("leases")
        leader, late = made(server, stack), made(server, stack)
        assert leader.try_to_lead()
        with closing(server.connect("leases")) as administrator, ThreadPoolExecutor() as threads:
            administrator.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
            administrator.execute("SELECT pg_reload_conf()")
            beats = threads.submit(lambda: [leader.beat() for _ in iter(int, 1)])
            request = threads.submit(late.ask_again, [60])
            wait_for(lambda: administrator.execute(WAITING).fetchone() == (2,), "both wait")
            wait_for(lambda: leader.is_lost, "the lease has ended")
            administrator.execute(f"SELECT pg_cancel_backend(pid) {WAITS}")

            with pytest.raises(LeaseLost):
                beats.result()
            with pytest.raises(StateBusy):
                request.result()
        server.stop(signal.SIGQUIT)


def test_restored_behind_the_leader(postgresql: PostgreSQL, databases: Make) -> None:
    """A leader neither writes nor leads any more once its tables were restored from a copy that it made itself.

    Mutant: compare the term alone.
    """
    writes: tuple[Callable[[StateDatabase], object], ...] = (StateDatabase.beat, lambda database: database.push([ROW]))
    for write in writes:
        leader = databases(lease=10)
        assert leader.try_to_lead()
        leader.push([ROW])
        with closing(postgresql.connect("leases")) as administrator:
            administrator.execute('SET search_path = "it\'s"')
            administrator.execute("CREATE TABLE copy AS SELECT * FROM lease")
            leader.push([ROW._replace(key="2", values="2, 'b'")])
            with administrator.transaction():
                administrator.execute("DELETE FROM lease; INSERT INTO lease SELECT * FROM copy; DROP TABLE copy")

            with pytest.raises(LeaseLost, match="restored"):
                write(leader)
        assert leader.is_lost


def test_writes_of_several_threads(databases: Make) -> None:
    """Beats and commits of several threads do not disturb each other. Mutant: count outside of the lock."""
    leader = databases(lease=10)
    assert leader.try_to_lead()
    with ThreadPoolExecutor() as threads:
        calls: list[Callable[[], object]] = [leader.beat, lambda: leader.push([ROW])]
        done = [threads.submit(call) for _ in range(200) for call in calls]

    assert [one.exception() for one in done if one.exception()] == []
