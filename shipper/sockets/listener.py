"""A socket server for any number of clients, each of which sends one request and gets one reply.

Strategy: one thread accepts all clients, reads their requests and writes the replies, and waits for none of them. A
client that is idle, drips or reads slowly costs a descriptor and a buffer, but no thread. If there are
too many clients, the oldest goes, first of those whose request is incomplete, but each has a moment to send it: while
all are younger, new ones wait in the kernel. A client that sends its request at once is always heard.
Only a complete request gets a thread.
"""

import os
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum, auto

from shipper.sockets.unix_socket import UnixSocket

MOST_CLIENTS = 256
MOMENT_SECONDS = 0.05  # for a client to send its request, however many others come
MOST_BYTES = 16_000_000  # of all requests and replies together; a page of 1,000 jobs has two
REQUEST_SECONDS = 5.0  # for a client to send its request, and again to take its reply
END_SECONDS = 2.0  # for the last replies when the server closes
BACKLOG = 4096  # the kernel's usual limit: clients that come while this thread waits for its turn
MOST_ACCEPTS = 128  # before those that are connected get their turn
PART_BYTES = 65536
TICK_SECONDS = 0.1

Send = Callable[[bytes], None]
"""Function that sends a part of the reply early. It raises OSError if the client has gone or does not read."""
Serve = Callable[[bytes, Send], bytes]
"""Function that returns the reply, or its last part, to a request. It runs on a separate thread."""


class _Stage(IntEnum):
    """Progress of a client, in the order in which clients go when there are too many."""

    SENDING = auto()
    """Its request is not complete."""
    ENDING = auto()
    """It has its reply. It may still send: a socket that is closed then would destroy the reply."""
    READING = auto()
    """It takes its reply."""
    WAITING = auto()
    """Its request waits for a thread."""
    SERVED = auto()
    """A thread has its request, and alone uses its connection."""


class _Client:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.stage = _Stage.SENDING
        self.request = bytearray()
        self.reply = memoryview(b"")
        self.deadline = time.monotonic() + REQUEST_SECONDS


class Listener:
    """The clients of one listening socket."""

    def __init__(
        self,
        listening: socket.socket,
        serve: Serve,
        *,
        name: str,
        is_complete: Callable[[bytearray], bool],
        most_bytes: int,
        most_threads: int,
    ) -> None:
        """Serve requests on a few threads, once they are complete, longer than most_bytes, or ended by the client."""
        self._listening = listening
        self._serve, self._is_complete = serve, is_complete
        self._most_bytes, self._most_threads = most_bytes, most_threads
        self._clients: dict[int, _Client] = {}  # the oldest first
        self._served: deque[_Client] = deque()
        self._ends_at: float | None = None
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._bell)  # the last thread may ring after the end
        self._selector = selectors.DefaultSelector()
        listening.listen(BACKLOG)
        listening.setblocking(False)
        self._is_accepting = False
        self._selector.register(self._bell, selectors.EVENT_READ, self._take_replies)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_reachable(self) -> bool:
        """Whether it still serves, at the path where it began."""
        is_there = not isinstance(self._listening, UnixSocket) or self._listening.is_there
        return is_there and self._thread.is_alive()

    def close(self) -> None:
        """Accept no more clients; return once those whose requests are complete have their replies, or soon."""
        if isinstance(self._listening, UnixSocket):
            self._listening.remove()
        self._ends_at = time.monotonic() + END_SECONDS
        self._ring()
        self._thread.join(2 * END_SECONDS)

    def _run(self) -> None:
        try:
            while not self._is_over():
                self._watch_door()
                tick = TICK_SECONDS if self._is_accepting else MOMENT_SECONDS
                for key, _ in self._selector.select(tick if self._clients else None):
                    key.data()
                self._drop_late()
                self._start_threads()
        finally:
            for client in list(self._clients.values()):
                client.connection.close()
            self._listening.close()
            self._selector.close()

    def _is_over(self) -> bool:
        if self._ends_at is None:
            return False
        if self._listening.fileno() >= 0:
            self._watch_door()
            self._listening.close()
        begun = (_Stage.READING, _Stage.WAITING, _Stage.SERVED)
        return time.monotonic() > self._ends_at or not any(one.stage in begun for one in self._clients.values())

    def _watch_door(self) -> None:
        """Let clients in, or leave them in the kernel."""
        is_open = self._ends_at is None and not self._is_full()
        if is_open and not self._is_accepting:
            self._selector.register(self._listening, selectors.EVENT_READ, self._accept)
        elif self._is_accepting and not is_open:
            self._selector.unregister(self._listening)
        self._is_accepting = is_open

    def _is_full(self) -> bool:
        """Whether another client would take the place of one that has just come, or is served."""
        if len(self._clients) < MOST_CLIENTS:
            return False
        oldest = self._oldest()
        age = time.monotonic() - (oldest.deadline - REQUEST_SECONDS)
        return oldest.stage is _Stage.SERVED or age < MOMENT_SECONDS

    def _accept(self) -> None:
        for _ in range(MOST_ACCEPTS):
            if self._is_full():
                return
            try:
                connection, _ = self._listening.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor is left, or this client has gone
                if not self._drop_oldest():
                    time.sleep(TICK_SECONDS)
                return
            connection.setblocking(False)
            client = self._clients[connection.fileno()] = _Client(connection)
            self._selector.register(connection, selectors.EVENT_READ, lambda client=client: self._receive(client))
            self._receive(client)
            self._make_room()

    def _receive(self, client: _Client) -> None:
        try:
            part = client.connection.recv(PART_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part, client.request = b"", bytearray()
        if client.stage is _Stage.ENDING:
            if not part:
                self._drop(client)
            return
        client.request += part
        if not part and not client.request:
            self._drop(client)
        elif not part or len(client.request) > self._most_bytes or self._is_complete(client.request):
            client.stage = _Stage.WAITING
            self._selector.unregister(client.connection)
        self._make_room()

    def _start_threads(self) -> None:
        """Give complete requests to threads, the newest first: under load, the older clients may have left."""
        waiting = [client for client in self._clients.values() if client.stage is _Stage.WAITING]
        running = sum(client.stage is _Stage.SERVED for client in self._clients.values())
        for client in list(reversed(waiting))[: max(self._most_threads - running, 0)]:
            client.stage = _Stage.SERVED
            try:
                threading.Thread(
                    target=self._answer, args=(client,), name=f"{self._thread.name}-request", daemon=True
                ).start()
            except RuntimeError:  # the limit of threads is reached
                self._drop(client)

    def _answer(self, client: _Client) -> None:
        """Serve a request on a separate thread; the reply is written by the thread of all clients."""

        def send(part: bytes) -> None:
            client.connection.settimeout(REQUEST_SECONDS)  # of the whole part
            client.connection.sendall(part)

        try:
            with suppress(OSError):  # the client has gone
                client.reply = memoryview(self._serve(bytes(client.request), send))
        finally:
            self._served.append(client)
            self._ring()

    def _take_replies(self) -> None:
        """Send the replies that threads have returned."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        while self._served:
            client = self._served.popleft()
            client.request = bytearray()
            client.stage, client.deadline = _Stage.READING, time.monotonic() + REQUEST_SECONDS
            client.connection.setblocking(False)
            self._selector.register(client.connection, selectors.EVENT_WRITE, lambda client=client: self._send(client))
            self._send(client)
            self._make_room()

    def _send(self, client: _Client) -> None:
        try:
            while client.reply:
                client.reply = client.reply[client.connection.send(client.reply[:PART_BYTES]) :]
            client.connection.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        client.stage = _Stage.ENDING
        self._selector.modify(client.connection, selectors.EVENT_READ, lambda: self._receive(client))

    def _make_room(self) -> None:
        while len(self._clients) > MOST_CLIENTS or self._used_bytes() > MOST_BYTES:
            if not self._drop_oldest():
                return

    def _used_bytes(self) -> int:
        """Return the size of all buffers; a single client may have more than its share."""
        sizes = [len(client.request) + len(client.reply) for client in self._clients.values()]
        return sum(sizes) if sum(map(bool, sizes)) > 1 else 0

    def _drop_oldest(self) -> bool:
        """Drop the client that can best be spared, and return whether there is one."""
        if not self._clients or (client := self._oldest()).stage is _Stage.SERVED:
            return False
        self._drop(client)
        return True

    def _oldest(self) -> _Client:
        return min(self._clients.values(), key=lambda client: client.stage)

    def _drop_late(self) -> None:
        now = time.monotonic()
        for client in list(self._clients.values()):
            if client.stage is not _Stage.SERVED and client.deadline < now:
                self._drop(client)

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client.connection.fileno(), None)
        with suppress(KeyError, ValueError):  # it waits for a thread
            self._selector.unregister(client.connection)
        client.connection.close()

    def _ring(self) -> None:
        os.eventfd_write(self._bell, 1)
