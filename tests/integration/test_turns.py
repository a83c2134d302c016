"""Captures come before audits and backfills on a real database, by the order of the statements."""

import threading
import time
from contextlib import closing

import sqlalchemy as sa
from builders import job

from shipper.core.model import Window
from shipper.source.access import Access
from shipper.source.database import Source

CAPTURES = 8


def test_statements_are_charged(database: str) -> None:
    """Under the lock of a job, background work is charged for its statements only, and does not wait.

    Mutant: nothing is charged without a wait.
    """
    source, query = Source("app", Access(sa.make_url(database), 30), threads=1, background=0.5), job().query
    with closing(source):
        source.count(query, Window(0, 1))
        assert source.turns._rests_until < 0

        with source.background():
            before = time.monotonic()
            source.count(query, Window(0, 1))
            after = time.monotonic()
            assert before < source.turns._rests_until <= after + (after - before)
            source.count(query, Window(0, 1))
            rests_until = source.turns._rests_until
            time.sleep(0.01)
        source.count(query, Window(0, 1))

        assert source.turns._rests_until == rests_until


def test_captures_first(database: str) -> None:
    """A capture waits for at most one statement of an audit and a backfill that read without a rest.

    Its own statements follow each other, since it keeps the connection. Mutants: background work waits for a connection
    as captures do; it begins while a capture waits.
    """
    order: list[str] = []
    query, is_over = job().query, threading.Event()
    source = Source("app", Access(sa.make_url(database), 30), threads=1)

    @sa.event.listens_for(source.connections.engine, "before_cursor_execute")
    def note(*_: object) -> None:
        order.append(threading.current_thread().name)

    def read() -> None:
        with source.background(lambda _: None):
            while not is_over.is_set():
                source.count(query, Window(0, 1))

    threads = [threading.Thread(target=read, name=name) for name in ("audit", "backfill")]
    with closing(source):
        for thread in threads:
            thread.start()
        for number in range(CAPTURES):
            while order.count("audit") + order.count("backfill") < 3 * number:  # they work between captures
                is_over.wait(0.001)
            order.append("asked")
            with source.held():
                source.observe(query)
                source.count(query, Window(0, 1))
        is_over.set()
        for thread in threads:
            thread.join()

    turns = [[name == "MainThread" for name in turn.split()] for turn in " ".join(order).split("asked")[1:]]
    assert len(turns) == CAPTURES
    for turn in turns:
        first, number = turn.index(True), sum(turn)
        assert first <= 1
        assert turn[first : first + number] == [True] * number
