"""Sessions of PostgreSQL that cannot keep a state, and remedies for its errors."""

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from shipper.core.errors import ConfigError, ShipperError, StateCorrupt
from shipper.state.remote import reader
from shipper.state.remote.session import NO_ANSWER, check_server, message_of, remedy_of


class Session:
    """A session of some version, whose server process is the one that it says."""

    def __init__(self, version: int, *processes: int) -> None:
        status = {"server_encoding": "UTF8"}.get
        self.info = SimpleNamespace(server_version=version, backend_pid=7, parameter_status=status)
        self._processes = iter(processes)

    def execute(self, _statement: str) -> Any:
        """Answer with the number of the process."""
        return SimpleNamespace(fetchone=lambda: (next(self._processes),))


@pytest.mark.parametrize(
    ("session", "kind", "message"),
    [
        (Session(140_000, 7, 7), None, ""),
        (Session(130_021, 7, 7), ConfigError, "it is PostgreSQL 13, and a state needs 14 or newer"),
        (Session(150_000, 8, 8), StateCorrupt, r"\[state\] database names a pooler"),
        (Session(150_000, 7, 8), StateCorrupt, r"\[state\] database names a pooler"),
    ],
)
def test_servers(session: Session, kind: type[ShipperError] | None, message: str) -> None:
    """A server without idle_session_timeout is refused, and a pooler. Mutants: ask once; accept 13."""
    if kind is None:
        check_server(cast("psycopg.Connection[tuple[Any, ...]]", session))
        return
    with pytest.raises(kind, match=message) as caught:
        check_server(cast("psycopg.Connection[tuple[Any, ...]]", session))

    assert caught.value.hint


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (
            psycopg.errors.InsufficientPrivilege("permission denied for database Odd"),
            'Run in that database: GRANT CREATE ON DATABASE "Odd" TO "a""b";',
        ),
        (
            psycopg.errors.InsufficientPrivilege("permission denied for table lease"),
            (
                'Run in that database: GRANT ALL ON SCHEMA "shipper" TO "a""b";\n'
                'GRANT ALL ON ALL TABLES IN SCHEMA "shipper" TO "a""b";'
            ),
        ),
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute"), "Name the server that takes writes"),
        (psycopg.errors.DiskFull("could not extend file"), "Free disk space on the server of PostgreSQL"),
        (psycopg.errors.QueryCanceled("canceling statement due to statement timeout"), "Look in pg_stat_activity"),
        (psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"), "Look in pg_stat_activity"),
        (psycopg.OperationalError("server closed the connection"), NO_ANSWER),
    ],
)
def test_remedies(error: psycopg.Error, remedy: str) -> None:
    """Each error has a remedy, with names as SQL needs them. Mutant: quote no names."""
    assert remedy_of(error, "shipper", "Odd", 'a"b').startswith(remedy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server closed the connection\n\tThis probably means", "server closed the connection"),
        ("Multiple attempts failed:\n- one\n- session is read-only", "- session is read-only"),
        ("", "OperationalError"),
        ("\x1b[31mred", "\N{REPLACEMENT CHARACTER}[31mred"),
    ],
)
def test_messages(text: str, message: str) -> None:
    """A message is one line, which a terminal shows as text."""
    assert message_of(psycopg.OperationalError(text)) == message


def test_cancel_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes no cancel leaves no traceback, and none is on its way when the next statement begins.

    Mutants: let the thread raise; do not wait for it.
    """
    cancelling, steps = threading.Event(), list[str]()

    class Silent:
        """A session of a server that answers late."""

        def add_notice_handler(self, _handler: object) -> None:
            """Send no notice."""

        def execute(self, statement: str) -> None:
            """Answer once the cancel is on its way."""
            if "emit" in statement:
                assert cancelling.wait(10)

        def cancel_safe(self, *, timeout: float) -> None:
            """Fail after a while."""
            assert timeout
            cancelling.set()
            time.sleep(0.2)
            steps.append("cancelled")
            raise psycopg.OperationalError("the server does not answer")

    monkeypatch.setattr(reader, "REPLICA_SECONDS", 0.05)
    assert reader._is_replicated(cast("psycopg.Connection[tuple[Any, ...]]", Silent()))

    assert steps == ["cancelled"]
