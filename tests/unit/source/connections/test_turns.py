"""Turns at the connections of a source, by a clock of our own."""

import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from builders import job

from shipper.core.model import Window
from shipper.source.access import Access
from shipper.source.connections.turns import LOOK_SECONDS, Turns
from shipper.source.database import Source


class Clock:
    """A clock that waiting and working move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waited = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.waited += seconds


@pytest.mark.parametrize(("share", "expected"), [(0.1, 0.1), (0.25, 0.25), (1.0, 1.0)])
def test_share(share: float, expected: float) -> None:
    """Background work of two kinds, in slices of any length, takes its share of the time together.

    Mutants: rest as long as the slice; count each kind by itself; forget a rest when the next slice ends.
    """
    clock = Clock()
    turns = Turns(4, share, clock=clock)
    for seconds in (1.0, 0.5, 30.0, 0.001, 2.0) * 2:
        turns.wait(clock.wait)
        with turns.charged():
            clock.now += seconds
    turns.wait(clock.wait)

    assert 67.002 / (clock.now - 100) == pytest.approx(expected)
    assert clock.waited == pytest.approx(67.002 * (1 / share - 1))


def test_slices_side_by_side() -> None:
    """Slices that overlap are each followed by their rest. Mutant: the later rest replaces the earlier one."""
    clock = Clock()
    turns = Turns(4, 0.25, clock=clock)
    with turns.charged(), turns.charged():
        clock.now += 1
    turns.wait(clock.wait)

    assert clock.waited == pytest.approx(6)


def test_captures_first() -> None:
    """Background work begins only while captures leave a connection free. Mutant: count those in use only."""
    clock, captures = Clock(), ExitStack()
    turns = Turns(2, 1.0, clock=clock)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            captures.close()

    with turns.taken():
        turns.wait(wait)
        assert waits.pop() == 0.0  # one is free
        captures.enter_context(turns.taken())
        captures.enter_context(turns.taken())  # waits for one
        turns.wait(wait)

    assert waits == [LOOK_SECONDS] * 3 + [0.0]


def test_wait_that_ends_the_work() -> None:
    """Work that must end is ended before its next slice, also without a rest. Mutant: wait only for rests."""

    def wait(_: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Turns(4, 1.0).wait(wait)


@pytest.fixture
def table(tmp_path: Path) -> Source:
    """Give a table on SQLite with one connection."""
    url = sa.make_url(f"sqlite:///{tmp_path}/audit.db")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE audit_trail (id INTEGER PRIMARY KEY, created_at TEXT, action TEXT)")
        connection.exec_driver_sql("INSERT INTO audit_trail VALUES (1, '2026-11-20 10:00:00', 'login')")
    engine.dispose()
    return Source("app", Access(url, 30), threads=1)


def test_captures_before_an_audit(table: Source) -> None:
    """A capture waits for at most one statement of a thread that reads in the background without a pause.

    Mutant: background work waits for connections as captures do.
    """
    order: list[str] = []
    query, is_over = job().query, threading.Event()

    @sa.event.listens_for(table.connections.engine, "before_cursor_execute")
    def note(*_: object) -> None:
        order.append(threading.current_thread().name)

    def read() -> None:
        with table.background(lambda _: None):
            while not is_over.is_set():
                table.count(query, Window(0, 1))

    thread = threading.Thread(target=read, name="background")
    with closing(table):
        thread.start()
        for number in range(20):
            while order.count("background") < 3 * number:  # the background works in between
                is_over.wait(0.001)
            order.append("asked")
            with table.held():
                table.observe(query)
                table.count(query, Window(0, 1))
        is_over.set()
        thread.join()

    turns = " ".join(order).split("asked")[1:]
    first = [turn.split().index("MainThread") for turn in turns]
    assert max(first) <= 1
    for turn in turns:  # and nothing comes between two statements of a capture
        own = [index for index, name in enumerate(turn.split()) if name == "MainThread"]
        assert own == list(range(own[0], own[0] + len(own)))
