"""A rogue: a TCP server that treats each connection as a function says, until it gets another function.

A treatment gets the socket of one connection, in a thread of its own, and speaks until it returns or the socket ends.
Those here know no protocol; `passing` leads to a real server, as if the rogue had become well.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

Treatment = Callable[[socket.socket], None]

BLOCK = 65_536
DRIP_SECONDS = 0.2


class Rogue:
    """A port of this machine, with a treatment for all that connect to it."""

    def __init__(self, treat: Treatment) -> None:
        """Start listening."""
        self._treat = treat
        self._mutex = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        """Those of connections."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        """How many connections have come."""
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def become(self, treat: Treatment) -> None:
        """End all connections, and treat new ones in another way."""
        with self._mutex:
            self._treat = treat
        self._hang_up()

    def close(self) -> None:
        """Listen no longer, end all connections, and wait for their threads."""
        self._listener.shutdown(socket.SHUT_RDWR)  # ends accept()
        self._listener.close()
        self._accepting.join()
        self._hang_up()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._mutex:
                    self._open.add(client)
                    self.connections += 1
                    thread = threading.Thread(target=self._serve, args=(client, self._treat), daemon=True)
                thread.start()
                self._threads = [one for one in self._threads if one.is_alive()] + [thread]

    def _serve(self, client: socket.socket, treat: Treatment) -> None:
        with client:
            with suppress(OSError):
                treat(client)
            with self._mutex:
                self._open.discard(client)

    def _hang_up(self) -> None:
        with self._mutex:
            for client in self._open:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)


def silent(client: socket.socket) -> None:
    """Read all, and never answer."""
    while client.recv(BLOCK):
        pass


def saying(*parts: bytes) -> Treatment:
    """Say parts, one after each message of the client, the first at once; then close. None at all: close at once."""

    def treat(client: socket.socket) -> None:
        for number, part in enumerate(parts):
            if number and not client.recv(BLOCK):
                return
            client.sendall(part)

    return treat


def dripping(data: bytes, *, seconds: float = DRIP_SECONDS) -> Treatment:
    """Say a byte each `seconds`, again and again from the start of the data."""

    def treat(client: socket.socket) -> None:
        client.settimeout(seconds)
        while True:
            for byte in data:
                client.sendall(bytes([byte]))
                with suppress(TimeoutError):
                    while client.recv(BLOCK):
                        pass
                    return

    return treat


def endless(start: bytes, repeated: bytes) -> Treatment:
    """Say a start, then the same for ever, as fast as the client reads."""

    def treat(client: socket.socket) -> None:
        client.sendall(start)
        block = repeated * (BLOCK // len(repeated) + 1)
        while True:
            client.sendall(block)

    return treat


def garbage(client: socket.socket) -> None:
    """Answer each message with bytes of no protocol."""
    while client.recv(BLOCK):
        client.sendall(bytes(range(256)) * 4)


def passing(port: int) -> Treatment:
    """Lead to a server at another port of this machine."""

    def treat(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()

    return treat


def impersonating(port: int, answer: Treatment, *, at: bytes) -> Treatment:
    """Lead to a server, until the client sends a message with the bytes `at`: from there on, answer in its place."""

    def treat(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            with suppress(OSError):
                while data := client.recv(BLOCK):
                    if at in data:
                        answer(client)
                        break
                    server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
            back.join()

    return treat


def spoiling(port: int, at: int, removed: int, added: bytes) -> Treatment:
    """Lead to a server, but remove bytes of all that it says from a place on, and add others there."""

    def treat(client: socket.socket) -> None:
        said = 0

        def spoil(data: bytes) -> bytes:
            nonlocal said
            here, said = at - said, said + len(data)
            return data[:here] + added + data[here + removed :] if 0 <= here < len(data) else data

        with socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=_pump, args=(server, client, spoil), daemon=True)
            back.start()
            _pump(client, server)
            back.join()

    return treat


def _pump(source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes] = bytes) -> None:
    with suppress(OSError):
        while data := source.recv(BLOCK):
            target.sendall(change(data))
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
