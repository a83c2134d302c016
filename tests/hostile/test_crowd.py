"""The page of a running service beside hundreds of clients that are idle or slow, and come again at once."""

import select
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from statistics import median

import pytest
from harness import EVENTS, PATIENCE_SECONDS, Shipper, wait_for
from hostile.sink import Sink
from servers import SCHEMAS, free_port

Address = str | tuple[str, int]

CROWD, ASKED = 500, 15
MOST_SECONDS = 1.0
"""For most answers; monitoring systems wait for little more."""
SENT = (b"", b"GET / HTTP/1.0\r\nX: ")
"""What clients of the crowd send: nothing, or a part of a request."""


class Crowd:
    """Clients that stay, and of which each comes again when it is sent away."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._poll = select.epoll()
        self._clients: dict[int, socket.socket] = {}
        self._is_over = threading.Event()
        self.come = 0
        for _ in range(CROWD):
            self._connect()
        self._thread = threading.Thread(target=self._stay)
        self._thread.start()

    def close(self) -> None:
        """End all."""
        self._is_over.set()
        self._thread.join()
        self._poll.close()
        for client in self._clients.values():
            client.close()

    def _connect(self) -> None:
        client = connected(self._address)
        with suppress(OSError):  # it was sent away already
            client.sendall(SENT[self.come % len(SENT)])
        self._clients[client.fileno()] = client
        self._poll.register(client, select.EPOLLRDHUP)
        self.come += 1

    def _stay(self) -> None:
        while not self._is_over.wait(0.01):
            for number, _ in self._poll.poll(0):
                self._clients.pop(number).close()
                self._connect()


def connected(address: Address) -> socket.socket:
    """Return a new connection."""
    client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    client.settimeout(PATIENCE_SECONDS)
    client.connect(address)
    return client


def ask(address: Address, path: str) -> float:
    """Ask for a health, and return how long the answer took."""
    began, answer = time.monotonic(), b""
    with connected(address) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        while part := client.recv(65_536):
            answer += part
    assert answer.endswith(b"ok\n"), answer
    return time.monotonic() - began


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Address]:
    """Run a service; give where its page listens."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute(SCHEMAS["sqlite"])
    port = free_port()
    address = f"{tmp_path}/page" if request.param == "unix" else ("127.0.0.1", port)
    with closing(Sink()) as sink:
        app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=sink.port, jobs=EVENTS)
        listen = f"unix:{address}" if request.param == "unix" else f"127.0.0.1:{port}"
        app.config.write_text(f'{app.config.read_text()}\n[status]\nlisten = "{listen}"\n')
        app.start()
        wait_for(lambda: app.call("status").returncode == 0, "a healthy service")
        yield address
        assert app.stop() == 0
        assert "Traceback" not in app.text()


def test_probes_beside_a_crowd(address: Address) -> None:
    """Each probe is answered, and most within a second, beside 500 clients.

    Mutant: keep clients until their deadline.
    """
    alone = median(ask(address, "/readyz") for _ in range(ASKED))
    with closing(Crowd(address)) as crowd:
        for path in ("/livez", "/readyz"):
            seconds = [ask(address, path) for _ in range(ASKED)]
            assert median(seconds) < max(MOST_SECONDS, 10 * alone), seconds
        assert crowd.come > CROWD
