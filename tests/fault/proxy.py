"""A TCP proxy that misbehaves on demand: it refuses, resets, reads a little and closes, or stalls."""

import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

HALF_BYTES = 100
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: close() resets
_TURN_SECONDS = 0.05


class Mode(Enum):
    """Treatment of connections."""

    PASS = "pass"
    REFUSE = "refuse"
    """New ones are refused, old ones are reset."""
    RESET = "reset"
    """All are reset."""
    HALF_READ = "half_read"
    """A hundred bytes of new ones pass, then they are closed; old ones are reset."""
    BLACKHOLE = "blackhole"
    """All are kept open, and nothing passes until the mode changes."""
    ONE_WAY = "one_way"
    """All are kept open, and no answer passes until the mode changes."""


class Proxy:
    """A port in front of another one."""

    def __init__(self, target: int, *, host: str = "127.0.0.1") -> None:
        """Start passing bytes from a port at an address of this machine."""
        self._target, self._host = target, host
        self.passed = 0
        """Bytes that clients have sent and the target got."""
        self._mode = Mode.PASS
        self._ended = threading.Event()
        # kept bound, never listening: no other process gets the port while connections are refused
        self._holder = _bound(host, 0)
        self.port: int = self._holder.getsockname()[1]
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._listen()

    def become(self, mode: Mode) -> None:
        """Change the mode."""
        self._mode = mode
        if mode is Mode.REFUSE:
            self._unlisten()
        elif self._listener is None:
            self._listen()

    def lead(self, target: int) -> None:
        """Lead new connections to another port, and reset old ones."""
        self._target = target

    def close(self) -> None:
        """End all connections."""
        self._ended.set()
        self._unlisten()
        self._holder.close()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        self._listener = _bound(self._host, self.port)
        self._listener.listen(50)
        self._start(self._accept, self._listener)

    def _unlisten(self) -> None:
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # ends accept()
            self._listener.close()
            self._listener = None

    def _start(self, work: Callable[[socket.socket], None], argument: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(argument,))
        thread.start()
        self._threads.append(thread)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                self._start(self._serve, listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                self._wait()
                target = self._target
                with socket.create_connection(("127.0.0.1", target)) as server:
                    self._pump(client, server, target)
            except OSError:  # an end has closed, or the mode requires it
                with suppress(OSError):
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _pump(self, client: socket.socket, server: socket.socket, target: int) -> None:
        """Pass bytes, and ends of streams, in both directions."""
        first, other = self._mode, {client: server, server: client}
        while other:
            heard = [end for end in other if self._mode is not Mode.ONE_WAY or end is client]
            for ready in select.select(heard, [], [], _TURN_SECONDS)[0]:
                data = ready.recv(HALF_BYTES if first is Mode.HALF_READ else 65536)
                self._wait()
                if data:
                    other[ready].sendall(data)
                    self.passed += len(data) if ready is client else 0
                else:
                    other.pop(ready).shutdown(socket.SHUT_WR)
                if data and first is Mode.HALF_READ:
                    return
            self._wait()
            if self._mode not in {first, Mode.ONE_WAY} or self._target != target:
                raise ConnectionResetError

    def _wait(self) -> None:
        """Wait while nothing may pass.

        Raises:
            ConnectionResetError: the connection is to be reset.
        """
        while self._mode is Mode.BLACKHOLE and not self._ended.wait(_TURN_SECONDS):
            pass
        if self._mode is Mode.RESET or self._ended.is_set():
            raise ConnectionResetError


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, port))
    return made
