"""A socket server beside clients that are idle, drip, do not read, or come in crowds."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from harness import wait_for

from shipper.sockets import listener
from shipper.sockets.listener import MOST_CLIENTS, Listener, Send
from shipper.sockets.unix_socket import UnixSocket

LARGE = b"x" * 3_000_000
"""A reply that no socket's buffer takes at once."""
CROWD = 300 + MOST_CLIENTS
PATIENCE = 30.0
"""For a reply, far below the deadline of the clients that must not delay it."""


class Server:
    """A listener that repeats a line, and its address."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.release = threading.Event()
        self.unix = UnixSocket(str(path), mode=0o600)
        self.listener = Listener(
            self.unix,
            self._serve,
            name="test",
            is_complete=lambda request: b"\n" in request,
            most_bytes=1000,
            most_threads=2,
        )

    def _serve(self, request: bytes, send: Send) -> bytes:
        if request == b"hang\n":
            self.release.wait(10)
        if request == b"bug\n":
            raise ZeroDivisionError
        if request == b"parts\n":
            send(b"part ")
        return LARGE if request == b"large\n" else request

    def connect(self) -> socket.socket:
        """Connect a client."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.settimeout(PATIENCE)
        end.connect(str(self.path))
        return end

    def ask(self, line: bytes) -> bytes:
        """Send a line, and return the reply."""
        with self.connect() as end:
            end.sendall(line)
            return received(end)


def received(end: socket.socket) -> bytes:
    """Return everything until the server ends the connection."""
    answer = b""
    while part := end.recv(65536):
        answer += part
    return answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Listen at a unix socket."""
    server = Server(tmp_path / "s")
    yield server
    server.release.set()
    server.listener.close()


def idle(_end: socket.socket) -> None:
    """Send nothing."""


def drip(end: socket.socket) -> None:
    """Send a part of a request."""
    end.sendall(b"no line")


def do_not_read(end: socket.socket) -> None:
    """Send a request, and leave its reply there."""
    end.sendall(b"large\n")


@pytest.mark.parametrize("behave", [idle, drip, do_not_read])
def test_crowd(server: Server, behave: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request of others is answered before any deadline, with few threads and descriptors.

    Mutant: give every client a thread; drop the newest client instead of the oldest; write replies on the threads.
    """
    monkeypatch.setattr(listener, "REQUEST_SECONDS", 10 * PATIENCE)
    with ExitStack() as crowd:
        for _ in range(CROWD):
            end = crowd.enter_context(server.connect())
            with suppress(OSError):  # it was dropped already
                behave(end)
            if len(server.listener._clients) == MOST_CLIENTS:
                assert server.ask(b"hello\n") == b"hello\n"

        assert server.ask(b"hello\n") == b"hello\n"
        assert len(server.listener._clients) <= MOST_CLIENTS
        assert sum(thread.name.startswith("test") for thread in threading.enumerate()) <= 3


def test_moment_to_send(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends its request a moment after it came is heard, however many come in that moment.

    Mutant: drop the oldest client at once.
    """
    monkeypatch.setattr(listener, "MOMENT_SECONDS", PATIENCE)
    with ExitStack() as crowd:
        first = crowd.enter_context(server.connect())
        for _ in range(CROWD):
            crowd.enter_context(server.connect())
        first.sendall(b"hello\n")

        assert received(first) == b"hello\n"
        assert len(server.listener._clients) <= MOST_CLIENTS


def test_replies_within_memory(server: Server) -> None:
    """Replies that no client takes never exceed the limit together. Mutant: count clients only."""
    with ExitStack() as crowd:
        for _ in range(20):
            do_not_read(crowd.enter_context(server.connect()))
        wait_for(lambda: not any(client.request for client in server.listener._clients.values()), "replies")

        assert server.ask(b"large\n") == LARGE
        new = 2 * len(LARGE)  # of the threads, before the listener makes room for them
        assert server.listener._used_bytes() <= listener.MOST_BYTES + new


def test_deadline_is_total(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is never silent, but never ready, is dropped. Mutant: let each byte begin a new deadline."""
    monkeypatch.setattr(listener, "REQUEST_SECONDS", 0.3)
    with server.connect() as end, pytest.raises(OSError, match=r"Broken pipe|reset"):
        for _ in range(1000):
            end.sendall(b".")
            threading.Event().wait(0.02)
    with server.connect() as end:
        do_not_read(end)
        wait_for(lambda: not server.listener._clients, "the end of the client that does not read")


def test_busy_threads_are_few(server: Server) -> None:
    """Requests wait for one of a few threads; replies in parts, long requests and ended ones have their answers."""
    with server.connect() as first, server.connect() as second:
        first.sendall(b"hang\n")
        second.sendall(b"hang\n")
        wait_for(lambda: sum(thread.name == "test-request" for thread in threading.enumerate()) == 2, "two threads")
        with server.connect() as third:
            third.sendall(b"hello\n")
            server.release.set()
            assert received(third) == b"hello\n"
    with server.connect() as end:
        end.sendall(b"end")
        end.shutdown(socket.SHUT_WR)
        assert received(end) == b"end"

    assert server.ask(b"parts\n") == b"part parts\n"
    assert server.ask(b"y" * 1001) == b"y" * 1001


def test_bug_ends_one_request(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug while one request is served closes its connection, and the server continues."""
    bugs: list[object] = []
    monkeypatch.setattr(threading, "excepthook", bugs.append)
    assert server.ask(b"bug\n") == b""
    wait_for(lambda: len(bugs) == 1, "the bug")
    assert server.ask(b"hello\n") == b"hello\n"


def test_close_waits_for_replies(server: Server) -> None:
    """A client whose request is complete has its reply when the server has closed; an idle one does not delay that."""
    with server.connect(), server.connect() as end:
        end.sendall(b"hang\n")
        wait_for(lambda: any(thread.name == "test-request" for thread in threading.enumerate()), "the request")
        threading.Timer(0.1, server.release.set).start()
        server.listener.close()

        assert received(end) == b"hang\n"
        assert not server.listener._thread.is_alive()


def test_sockets_are_replaced_with_care(tmp_path: Path) -> None:
    """Only the socket of a dead process is replaced, and only the own one removed. Mutant: unlink whatever is there."""
    path = tmp_path / "s"
    for make in ("touch", "mkdir", "ln"):
        subprocess.run([make, *(["-s", "nowhere"] if make == "ln" else []), str(path)], check=True)
        with pytest.raises(FileExistsError, match="not a socket"):
            UnixSocket(str(path), mode=0o600)
        path.rmdir() if path.is_dir() else path.unlink()
    first = UnixSocket(str(path), mode=0o640)
    with pytest.raises(FileExistsError, match="another process listens"):
        UnixSocket(str(path), mode=0o600)
    first.close()
    second = UnixSocket(str(path), mode=0o660)

    assert path.stat().st_mode & 0o777 == 0o660
    assert (first.is_there, second.is_there) == (False, True)
    first.remove()
    assert path.exists()
    second.remove()
    second.close()
    assert not path.exists()
