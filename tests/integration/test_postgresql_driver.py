"""psycopg behind the pump: nothing is lost or left open, and no answer is larger than the limit."""

import gc
import os
import re
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
from harness import wait_for
from hostile.rogue import BLOCK, Rogue, Treatment, endless, passing, saying, silent
from hostile.rogue_postgresql import AUTHENTICATED, error, parameters
from servers import PostgreSQL

from shipper.source.dialects.postgresql_driver import MOST_ERROR_BYTES, MeteredConnection
from shipper.source.limits import MOST_BYTES, AnswerTooLarge, Meter

WAYS = ("tcp", "unix", "tls")
MOST_GROWTH = 3 * MOST_BYTES
"""Memory for an answer: the buffer of libpq doubles, and is copied then."""


@pytest.fixture(scope="module")
def secured(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Let the server speak TLS; give the file of its authority."""
    authority, root = trustme.CA(), tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(root / "ca.pem")
    with postgresql.connect("postgres") as connection:
        folder = Path(connection.execute("SHOW data_directory").fetchone()[0])  # type: ignore[index] # one row
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        (folder / "server.pem").chmod(0o600)
        shutil.chown(folder / "server.pem", folder.owner())
        for setting in ("ssl_cert_file = 'server.pem'", "ssl_key_file = 'server.pem'", "ssl = on"):
            connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        connection.execute("SELECT pg_reload_conf()")
        yield root / "ca.pem"
        connection.execute("ALTER SYSTEM RESET ssl")
        connection.execute("SELECT pg_reload_conf()")


@pytest.fixture(params=WAYS)
def connection(request: pytest.FixtureRequest, postgresql: PostgreSQL, secured: Path) -> Iterator[MeteredConnection]:
    """Connect in each way."""
    with postgresql.connect("postgres") as other:
        folder = other.execute("SHOW unix_socket_directories").fetchone()[0]  # type: ignore[index] # one row
    hosts = {"tcp": "127.0.0.1", "unix": folder, "tls": "localhost"}
    tls = {"sslmode": "verify-full", "sslrootcert": str(secured)} if request.param == "tls" else {"sslmode": "disable"}
    with closing(connect(hosts[request.param], postgresql.port, **tls)) as connected:
        yield connected


def connect(host: str, port: int, **arguments: Any) -> MeteredConnection:
    """Connect as user root."""
    connection = MeteredConnection.connect(host=host, port=port, user="root", dbname="postgres", **arguments)
    connection.meter = Meter(30)
    connection.meter.open()
    connection.autocommit = True
    return connection


def open_files() -> set[str]:
    """Return the numbers of this process's open files."""
    return {file.name for file in Path("/proc/self/fd").iterdir()}


def memory(name: str) -> int:
    """Return a figure of this process's memory, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_large_statement_and_answer(connection: MeteredConnection) -> None:
    """Statements and answers that no socket takes at once arrive complete.

    Mutants: send only what the server takes at once; do not look whether libpq has read everything.
    """
    text = "".join(f"{number:07x}" for number in range(700_000))
    for _ in range(2):
        assert connection.execute("SELECT %s::text AS same", [text]).fetchone() == (text,)

    assert connection.execute("SELECT n FROM generate_series(1, 99999) AS n").fetchall()[-1] == (99_999,)


@pytest.mark.parametrize(
    ("answer", "limit"),
    [
        ("repeat('x', 100000000)", "larger than 16 MiB"),
        ("'some text', generate_series(1, 20000000)", r"16 MiB|more than \d+ rows"),
    ],
)
def test_memory(connection: MeteredConnection, answer: str, limit: str) -> None:
    """However quick a server is, an answer needs no more memory than the limit allows; its connection ends.

    Mutant: let libpq read the server's socket, which has no limit.
    """
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory("VmRSS")
    with pytest.raises(AnswerTooLarge, match=limit):
        connection.execute(f"SELECT {answer}".encode())

    assert memory("VmHWM") - before < MOST_GROWTH
    assert connection.closed


def test_long_error(connection: MeteredConnection) -> None:
    """An error that quotes a long value is cut, and keeps its code. Mutant: keep the entire text."""
    with pytest.raises(psycopg.DataError, match="invalid input syntax for type numeric") as caught:
        connection.execute("SELECT CAST(repeat('x', 1000000) AS numeric)")

    assert caught.value.sqlstate == "22P02"
    assert len(str(caught.value)) == MOST_ERROR_BYTES
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_notice(connection: MeteredConnection) -> None:
    """Notices are not read: four bytes a character, for SQLAlchemy's log. Mutant: let psycopg keep its handlers."""
    texts: list[str | None] = []
    connection.add_notice_handler(lambda notice: texts.append(notice.message_primary))
    connection.execute("DO $$ BEGIN RAISE WARNING 'read me'; END $$")

    assert texts == []


def test_end_of_server(connection: MeteredConnection, postgresql: PostgreSQL) -> None:
    """A session that the server ends says why. Mutant: drop what arrives with the end."""
    with postgresql.connect("postgres") as other:
        other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    with pytest.raises(psycopg.OperationalError, match="due to administrator command"):
        connection.execute("SELECT 1")

    assert connection.closed


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Let SIGINT be KeyboardInterrupt, also where a shell started pytest in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_interrupt(postgresql: PostgreSQL) -> None:
    """Ctrl-C ends the statement on the server, too. Mutant: only close the connection."""
    asleep = "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(1000)'"
    with postgresql.connect("postgres") as other:

        def sleepers() -> int:
            row = other.execute(asleep.encode()).fetchone()
            return 0 if row is None else int(row[0])

        def interrupt() -> None:
            wait_for(lambda: sleepers() == 1, "the statement")
            signal.raise_signal(signal.SIGINT)

        with closing(connect("127.0.0.1", postgresql.port, sslmode="disable")) as connection:
            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                connection.execute("SELECT pg_sleep(1000)")
            thread.join()
            wait_for(lambda: sleepers() == 0, "the end of the statement")

            assert connection.closed


def recorded(port: int, said: list[bytes]) -> Treatment:
    """Lead to a server, and keep the last that its client says."""

    def treat(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=_answer, args=(server, client), daemon=True)
            back.start()
            while data := client.recv(BLOCK):
                said.append(data)
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            back.join()
        said.append(b"")

    return treat


def _answer(server: socket.socket, client: socket.socket) -> None:
    with suppress(OSError):
        while data := server.recv(BLOCK):
            client.sendall(data)


def test_end_of_session(postgresql: PostgreSQL) -> None:
    """A session ends with the message that servers and poolers expect. Mutant: close without sending it."""
    said: list[bytes] = []
    with closing(Rogue(recorded(postgresql.port, said))) as rogue:
        connect("127.0.0.1", rogue.port, sslmode="disable").close()
        wait_for(lambda: said[-1:] == [b""], "the end of the connection")

    assert said[-2] == b"X\0\0\0\x04"


LOGINS: dict[str, Treatment] = {
    "error": saying(b"", error("28000", "no")),
    "silent": silent,
    "too large": endless(AUTHENTICATED, parameters(name="x" * 5000)),
}


@pytest.mark.parametrize("case", LOGINS)
def test_failed_login(case: str) -> None:
    """A login that fails leaves no file open. Mutant: close the socket only of a connection."""
    with closing(Rogue(LOGINS[case])) as rogue:
        before = open_files()
        with pytest.raises((psycopg.OperationalError, AnswerTooLarge)):
            connect("127.0.0.1", rogue.port, sslmode="disable", connect_timeout=2)
        gc.collect()

    assert open_files() <= before


@pytest.mark.usefixtures("secured")
def test_second_socket(postgresql: PostgreSQL) -> None:
    """A login that libpq begins again, on another socket, succeeds. Mutant: continue with the first one."""
    treatments = [saying(b"", error("28000", "not without TLS")), passing(postgresql.port)]

    def treat(client: socket.socket) -> None:
        treatments.pop(0)(client)

    with (
        closing(Rogue(treat)) as rogue,
        closing(connect("127.0.0.1", rogue.port, sslmode="allow")) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert rogue.connections == 2
        with socket.socket(fileno=os.dup(connection.fileno())) as one:
            assert one.family == socket.AF_UNIX  # a pump's
