"""When the lease of a leader is renewed: from the question on, and only by what the server's stand-by has, too.

What a server has written alone may be gone once its stand-by replaces it.
"""

import re
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from shipper.core.errors import LeaseLost, StateBusy
from shipper.state.remote.database import StateDatabase
from shipper.state.remote.mirror import MirroredRow

LEASE = 10.0
ANSWER_SECONDS = 3.0


class Server:
    """A server whose stand-by may be unreachable; `sessions` opens a session."""

    def __init__(self) -> None:
        self.is_isolated = False
        self.version = 150_000
        self.now = 100.0
        self.settings: dict[str, str] = {}
        """Settings of its newest session."""

    def connect(self, _application: str) -> Any:
        """Open a session."""
        return Session(self)


class Session:
    """A session of psycopg, for the statements of a leader."""

    def __init__(self, server: Server) -> None:
        numbers = {"server_version": server.version, "backend_pid": 7}
        status = {"server_encoding": "UTF8"}.get
        self.info = SimpleNamespace(dbname="states", user="shipper", parameter_status=status, **numbers)
        self._server = server
        self._settings = server.settings = {}
        self._handlers: list[Callable[[Any], None]] = []

    def add_notice_handler(self, handler: Callable[[Any], None]) -> None:
        """Call it with each warning."""
        self._handlers.append(handler)

    def execute(self, statement: Any, _values: object = None) -> Any:
        """Answer after some time; a write that waits for the stand-by is cancelled, but done."""
        self._server.now += ANSWER_SECONDS
        text = statement if isinstance(statement, str) else statement.as_string(None)
        if setting := re.fullmatch('SET "(.*)" = (.*)', text):
            self._settings[setting[1]] = setting[2]
        if self._server.is_isolated and "UPDATE lease" in text and self._settings["synchronous_commit"] == "'on'":
            for handler in self._handlers:
                handler(SimpleNamespace(source_function="SyncRepWaitForLSN"))
        answers = {
            "pg_backend_pid()": (7,),
            "to_regnamespace": (False,),
            "pg_try_advisory_lock": (True,),
            "FROM again": (1, None, None),
            "FROM led": (1,),
            "term = term + 1": (1, 0, 1, None, None, None),
        }
        row = next((row for words, row in reversed(answers.items()) if words in text), None)
        return SimpleNamespace(fetchone=lambda: row, rowcount=1)

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """Make a server whose stand-by answers."""
    server = Server()
    monkeypatch.setattr(time, "clock_gettime", lambda clock: {time.CLOCK_BOOTTIME: server.now}[clock])
    return server


@pytest.fixture
def database(server: Server) -> StateDatabase:
    """Make a state there."""
    return StateDatabase(server.connect, label="states", name="s", lease=LEASE, host="one", configuration="c")


def test_lease_counts_from_the_question(server: Server, database: StateDatabase) -> None:
    """Each answer renews the lease from when it was asked for, by a clock that runs on during a suspend.

    Mutants: count from an answer; take the monotonic clock.
    """
    steps: list[Callable[[], object]] = [
        database.try_to_lead,
        database.beat,
        lambda: database.push([MirroredRow("series", "1", "1, 'a'")]),
    ]
    for step in steps:
        step()
        assert database.lease.left(server.now) == LEASE - ANSWER_SECONDS


def test_lease_is_not_renewed(server: Server, database: StateDatabase) -> None:
    """A leader keeps no lease that the stand-by does not know of.

    Mutants: renew it without a write, without waiting for the stand-by, or although the wait was cancelled.
    """
    assert database.try_to_lead()
    database.beat()
    server.is_isolated = True
    renewals: list[float] = []
    database.lease.renew = renewals.append  # type: ignore[assignment, method-assign]
    with pytest.raises(LeaseLost, match="synchronous replica does not answer"):
        database.beat()

    assert database.is_lost
    assert renewals == []


def test_take_over_is_repeated(server: Server, database: StateDatabase) -> None:
    """A take-over that was not replicated is none, and succeeds once the stand-by answers. Mutant: keep the term."""
    server.is_isolated = True
    for _ in range(2):
        with pytest.raises(StateBusy, match="synchronous replica does not answer") as caught:
            database.try_to_lead()
        assert not isinstance(caught.value, LeaseLost)
        assert str(caught.value.hint).startswith("Start the replica")
        assert database.term == 0
    server.is_isolated = False

    assert database.try_to_lead()
    assert not database.is_lost


def test_end_is_not_replicated(server: Server, database: StateDatabase) -> None:
    """Another process may lead already, at the stand-by: the working copy stays. Mutant: believe the server alone."""
    assert database.try_to_lead()
    server.is_isolated = True

    assert not database.close()


@pytest.mark.parametrize(("version", "expected"), [(160_000, None), (170_000, "0")])
def test_time_of_transactions(version: int, expected: str | None, server: Server, database: StateDatabase) -> None:
    """A limit that PostgreSQL 17 has does not end a long write; an older one does not know it. Mutant: inherit it."""
    server.version = version
    assert database.try_to_lead()

    assert server.settings.get("transaction_timeout") == expected
