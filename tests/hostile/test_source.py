"""A source whose database is a rogue: each answer is one of its failures, in time; and it recovers by itself."""

import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import sqlalchemy as sa
from builders import job, query
from harness import wait_for
from hostile import rogue_mysql, rogue_postgresql
from hostile.databases import SERVERS, Case, Real, cases_of, real
from hostile.rogue import Rogue, Treatment, impersonating, passing, saying, spoiling
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shipper.core.capture import capture
from shipper.core.errors import MOST_LINE, QueryRefused, ShipperError, SourceUnavailable
from shipper.core.id_set import Gaps, IdSet
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Names, Query, Window
from shipper.source.access import GRACE_SECONDS, Access
from shipper.source.database import Source
from shipper.state.store import State

TIMEOUT = 1
PASSWORD = "secret-Zür1ch"
PATIENCE = 3 * (TIMEOUT + GRACE_SECONDS)
"""Longest time of a statement of a second, on a busy machine."""
WINDOW = Window(0, 100)
GAPS = Gaps([(0, 50)], [])
CALLS: dict[str, Callable[[Source, Query], object]] = {
    "observe": lambda source, query: source.observe(query),
    "read": lambda source, query: source.read(query, WINDOW),
    "words": lambda source, query: source.words_by(query, WINDOW),
    "at once": lambda source, query: source.read_at_once(query, WINDOW, GAPS),
    "appeared": lambda source, query: source._ids.unknown(query, GAPS.ranges, IdSet(0, 0)),
    "keys": lambda source, query: source.is_unique(query),
    "fingerprint": lambda source, query: source.fingerprint(query, 100),
    "count": lambda source, query: source.count(query, WINDOW),
    "times": lambda source, query: source.times(query, WINDOW),
    "newest": lambda source, query: source.newest(query, 100),
    "nth": lambda source, query: source.nth_id(query, WINDOW, 5),
    "prepared": lambda source, query: source.prepared(query),
}


def run(server: Real, case: Case) -> list[str]:
    """Call a source whose database is a rogue, then a real one; return what is wrong."""
    wrong = []
    asked = query(by=("action",))
    with closing(Rogue(case.treat)) as rogue, closing(Source("app", server.access(rogue))) as source:
        for name, call in [*CALLS.items()][: 1 if case.is_slow or case.is_large else None]:
            began = time.monotonic()
            try:
                call(source, asked)
            except ShipperError as error:
                text = str(error)
                if not text.isprintable() or len(text) > MOST_LINE + 3:
                    wrong.append(f"{case.name}: {name}: {text!r}")
            except Exception as error:  # noqa: BLE001 - it is what the test looks for
                wrong.append(f"{case.name}: {name}: {error!r}")
            else:
                wrong += [f"{case.name}: {name} succeeds"] if name == "observe" else []
            if time.monotonic() - began > PATIENCE:
                wrong.append(f"{case.name}: {name} takes {time.monotonic() - began:.0f} s")
        rogue.become(passing(server.port))
        wait_for(lambda: has_recovered(source, asked), f"{case.name}: recovery")
    return wrong


def has_recovered(source: Source, asked: Query) -> bool:
    """Return whether a table is observed; the first call may get a connection that has ended."""
    try:
        return source.observe(asked).id == 0
    except ShipperError:
        return False


@pytest.mark.parametrize("server", SERVERS)
def test_each_answer(server: str, request: pytest.FixtureRequest) -> None:
    """Whatever a database answers, calls end in time with errors of ours, on one line; then the same source recovers.

    Mutants: PyMySQL's time-out of each read; no time-out for PostgreSQL; no limit of bytes; of rows; no check of the
    columns; errors as servers write them; a `newest` that asks for the id only, again and again.
    """
    database = real(request, server)
    with ThreadPoolExecutor(8) as threads:
        wrong = [*threads.map(lambda case: run(database, case), cases_of(server, database.port))]

    assert [line for lines in wrong for line in lines] == []


@pytest.mark.parametrize("server", SERVERS)
def test_forgotten_answer(server: str, request: pytest.FixtureRequest) -> None:
    """A failed call leaves no error of the driver, with the answer in it, to the next collection of garbage.

    Mutants: keep the tracebacks of the causes, of which Python 3.13 makes a circle; keep what is in their frames.
    """
    database = real(request, server)
    (case,) = (case for case in cases_of(server, database.port) if case.name == "statement escapes")
    with closing(Rogue(case.treat)) as rogue, closing(Source("app", database.access(rogue))) as source:
        has_recovered(source, query())  # what is made only once
        before = driver_errors()
        gc.disable()
        try:
            assert not has_recovered(source, query())
            assert driver_errors() == before
        finally:
            gc.enable()


def driver_errors() -> int:
    """Return how many errors of drivers this process has, and of SQLAlchemy about them."""
    kinds = (sa.exc.DBAPIError, psycopg.Error, pymysql.Error)
    return sum(isinstance(one, kinds) for one in gc.get_objects())


def cleartext_of_postgresql(received: list[bytes]) -> Treatment:
    """Ask for the password in clear, and keep what comes."""

    def treat(client: Any) -> None:
        received.append(client.recv(65_536))
        client.sendall(rogue_postgresql.CLEARTEXT)
        received.append(client.recv(65_536))

    return treat


def test_password_for_postgresql() -> None:
    """A program on the port of a PostgreSQL that is down gets no password. Mutant: no require_auth."""
    received: list[bytes] = []
    with closing(Rogue(cleartext_of_postgresql(received))) as rogue:
        url = sa.URL.create("postgresql+psycopg", "u", PASSWORD, "127.0.0.1", rogue.port, "app")
        with closing(Source("app", Access(url, TIMEOUT))) as source, pytest.raises(QueryRefused) as caught:
            source.observe(query())

    assert "cleartext" in str(caught.value)
    assert "tls" in str(caught.value.hint)
    assert PASSWORD.encode() not in b"".join(received)


def challenge_of(iterations: bytes) -> Treatment:
    """Ask for so many iterations of SCRAM, in a message that arrives in two parts."""

    def treat(client: Any) -> None:
        client.recv(65_536)
        client.sendall(rogue_postgresql.message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0"))
        nonce = client.recv(65_536).partition(b",r=")[2]
        challenge = b"\0\0\0\x0br=%bx,s=c2FsdA==,i=%b" % (nonce, iterations)
        said = rogue_postgresql.message(b"R", challenge)
        client.sendall(said[:-3])
        time.sleep(0.2)
        client.sendall(said[-3:])
        client.recv(65_536)

    return treat


@pytest.mark.parametrize("iterations", [b"30000000", b" +0030000000"])
def test_endless_login_to_postgresql(iterations: bytes) -> None:
    """A program on the port of a PostgreSQL cannot keep libpq busy, which no time-out ends.

    Mutants: no limit of the iterations; look at each block alone.
    """
    began = time.monotonic()
    with closing(Rogue(challenge_of(iterations))) as rogue:
        url = sa.URL.create("postgresql+psycopg", "u", PASSWORD, "127.0.0.1", rogue.port, "app")
        with closing(Source("app", Access(url, TIMEOUT))) as source, pytest.raises(SourceUnavailable) as caught:
            source.observe(query())

    assert "iterations of SCRAM" in str(caught.value)
    assert time.monotonic() - began < 3


NUMBERS = st.integers(-(10**40), 10**40).map(lambda number: str(number).encode())
SMALL = st.integers(-2, 200).map(lambda number: str(number).encode())
WORDS = st.sampled_from(
    [b"", b"0", b"NaN", b"Infinity", b"1e400", b"2026-11-00", b"0000-00-00", b"1.5", b"a;;", b"\xff"]
)
VALUES = st.one_of(st.none(), SMALL, SMALL, NUMBERS, WORDS, st.binary(max_size=30))
MYSQL_TYPES = st.sampled_from([8, 8, 246, 5, 253, 12, 10, 11, 16, 252, 245, 99])
POSTGRESQL_TYPES = st.sampled_from([20, 20, 1700, 701, 25, 17, 1114, 1082, 1083, 1184, 16, 114, 99_999])
PLACES = st.sampled_from(
    [b"max(", b"count(", b"BIT_OR", b"GROUP BY", b"ORDER BY", b"LIMIT", b"EXPLAIN", b"_schema", b"SHOW", b"audit_trail"]
)
CUSTOM = "SELECT COUNT(*) AS count, action, {} FROM audit_trail WHERE id > :after AND id <= :upto GROUP BY action, {}"
KINDS: dict[str, dict[str, Any]] = {
    "ids": {},
    "along": {"id": "created_at"},
    "lookback": {"lookback": 3600},
    "distinct": {"measures": (COUNT, Measure("users", Kind.DISTINCT, "outcome"))},
    "sums": {"measures": (COUNT, Measure("total", Kind.SUM, "duration_ms"), Measure("least", Kind.MIN, "ratio"))},
    "no time": {"time": None},
    "names": {"names": (Names("action", sql="SELECT id, outcome FROM audit_trail"),)},
    "custom": {"sql": CUSTOM.format("created_at", "created_at")},
    "zone": {"time_zone": "Europe/Berlin"},
}


@st.composite
def answers(draw: st.DrawFn, types: st.SearchStrategy[int]) -> tuple[list[int], list[list[bytes | None]]]:
    """Draw the types and the rows of an answer."""
    columns = draw(st.lists(types, min_size=1, max_size=4))
    return columns, draw(st.lists(st.lists(VALUES, min_size=len(columns), max_size=len(columns)), max_size=3))


@pytest.mark.parametrize("server", SERVERS)
def test_any_values(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Whatever values a database gives, a capture ends, or fails with an error of ours, and the state takes them.

    Mutants: take any number for a count or a time; let a driver's type be a label.
    """
    database, numbers = real(request, server), count()
    is_mysql = server == "mariadb_server"
    make = (lambda *answer: saying(rogue_mysql.result(*answer))) if is_mysql else rogue_postgresql.result
    with (
        closing(Rogue(passing(database.port))) as rogue,
        closing(Source("app", database.access(rogue, timeout=10))) as source,
        closing(State(str(tmp_path / "shipper.db"))) as state,
    ):

        @settings(
            max_examples=max(20, settings.default.max_examples // 10),  # type: ignore[union-attr]
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        @given(answers(MYSQL_TYPES if is_mysql else POSTGRESQL_TYPES), PLACES, st.sampled_from(sorted(KINDS)))
        def check(answer: tuple[list[int], list[list[bytes | None]]], at: bytes, kind: str) -> None:
            rogue.become(impersonating(database.port, make(answer[0], *answer[1]), at=at))
            wanted = job(f"job{next(numbers)}", **KINDS[kind])
            with suppress(ShipperError):
                wanted = replace(wanted, query=source.prepared(wanted.query))
            with suppress(ShipperError):
                seen = source.observe(wanted.query)
                seen = replace(seen, id=seen.time if wanted.query.is_along else 50)
                for _ in capture(wanted, seen, source=source, ledger=state, now=seen.time):
                    pass

        check()


BYTES = st.sampled_from([b"", b"\0", b"\xff", b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"]) | st.binary(max_size=8)


@pytest.mark.parametrize("server", SERVERS)
def test_any_bytes(server: str, request: pytest.FixtureRequest) -> None:
    """If some bytes of all that a database says are others, a call succeeds, or fails with an error of ours, in time.

    Mutant: take errors that a driver does not document for bugs.
    """
    database = real(request, server)

    @settings(max_examples=max(5, settings.default.max_examples // 30), deadline=None)  # type: ignore[union-attr]
    @given(st.integers(0, 200) | st.integers(0, 5000), st.integers(0, 8), BYTES)
    @example(4, 1, b"")
    def check(at: int, removed: int, added: bytes) -> None:
        began = time.monotonic()
        with (
            closing(Rogue(spoiling(database.port, at, removed, added))) as rogue,
            closing(Source("app", database.access(rogue))) as source,
            suppress(ShipperError),
        ):
            source.observe(query())
            source.read(query(), WINDOW)
        assert time.monotonic() - began < 2 * PATIENCE

    check()
