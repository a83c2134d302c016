"""The client of Carbon on a real carbon-cache, with its Whisper files read back."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import pytest
import whisper
from builders import points
from contract import SinkContract
from harness import PATIENCE_SECONDS, wait_for

from shipper.core.errors import DeliveryFailed
from shipper.demo.carbon_cache import CarbonCache
from shipper.graphite.carbon import Carbon


def test_unsent_data_is_dropped_in_time() -> None:
    """The kernel drops what it cannot send within the timeout, also of a process that was killed.

    Mutant: set no TCP_USER_TIMEOUT.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        carbon = Carbon("127.0.0.1", server.getsockname()[1], timeout=0.7)
        with carbon._connect() as connection:
            milliseconds = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert milliseconds == 700


class Both:
    """A real carbon-cache and its client."""

    def __init__(self, server: CarbonCache) -> None:
        self.server = server
        self._edge = Carbon("127.0.0.1", server.port, timeout=60)
        self.deliver = self._edge.deliver
        self.has_died = self._edge.has_died
        self.close = self._edge.close

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.server.stop(signal.SIGKILL)

    def start(self) -> None:
        """Start it again."""
        self.server.start()


class TestCarbonCache(SinkContract):
    """The contract of Carbon, on a real carbon-cache."""

    @pytest.fixture
    def carbon(self, carbon_cache: CarbonCache) -> Iterator[Both]:
        """Return a running Carbon."""
        with closing(Both(carbon_cache)) as both:
            yield both

    @pytest.fixture
    def stored(self, carbon_cache: CarbonCache) -> Callable[[str, int], float | None]:
        """Return a reader of its Whisper files that waits for carbon to write."""

        def look(path: str, slot: int) -> float | None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline:
                value = carbon_cache.sums().get(path, {}).get(slot)
                if value is not None:
                    return value
                time.sleep(0.05)
            return None

        return look

    def test_deliver_many_lines(self, carbon: Both) -> None:
        """A batch larger than all socket buffers arrives complete; each slot keeps its last value."""
        slot = int(time.time()) // 60 * 60
        lines = (b"wide.s%d.count %d %d\n" % (n % 1000, n, slot) for n in range(100_000))
        carbon.deliver(points(b"".join(lines)))
        expected = {f"wide.s{n}.count": {slot: 99_000.0 + n} for n in range(1000)}
        wait_for(lambda: carbon.server.sums() == expected, "the last values")

    def test_deliver_carbon_frozen(self, carbon: Both) -> None:
        """A Carbon that is stopped confirms nothing within the time-out."""
        edge = Carbon("127.0.0.1", carbon.server.port, timeout=0.5)
        carbon.server.send_signal(signal.SIGSTOP)
        try:
            with closing(edge), pytest.raises(DeliveryFailed, match="timed out"):
                edge.deliver(points(b"a.count 1 1790000040\n"))
        finally:
            carbon.server.send_signal(signal.SIGCONT)


def test_files_that_carbon_creates(tmp_path: Path) -> None:
    """A file that Carbon has begun and not finished has no values yet. Mutant: read its datapoints unguarded."""
    with closing(CarbonCache(tmp_path, retentions="1m:1d")) as carbon:
        file = carbon.storage / "a/count.wsp"
        file.parent.mkdir()
        whisper.create(str(file), [(60, 1440)])
        content = file.read_bytes()
        shown = []
        for size in (0, 10, 20, 28, 35, len(content)):
            file.write_bytes(content[:size])
            shown.append(carbon.sums())

    assert shown == [{}, {}, {}, {}, {}, {"a.count": {}}]


@pytest.fixture
def peer() -> Iterator[tuple[int, Callable[[Callable[[socket.socket], None]], None]]]:
    """Return a port, and a function that sets what happens to each connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(handle: Callable[[socket.socket], None]) -> None:
            def loop() -> None:
                for number in count():
                    try:
                        connection, _ = server.accept()
                    except OSError:
                        return
                    with connection:
                        connection.settimeout(PATIENCE_SECONDS if number else 0.2)  # the witness sends nothing
                        handle(connection)

            threading.Thread(target=loop, daemon=True).start()

        yield server.getsockname()[1], serve
        server.shutdown(socket.SHUT_RDWR)


Peer = tuple[int, Callable[[Callable[[socket.socket], None]], None]]


def test_deliver_exact_bytes(peer: Peer) -> None:
    """Carbon receives the lines and nothing else, then the end of the stream; the witness sends nothing."""
    port, serve = peer
    received: list[bytes] = []

    def read_all(connection: socket.socket) -> None:
        data = b""
        try:
            while part := connection.recv(65536):
                data += part
        except TimeoutError:
            data += b"(open)"
        received.append(data)

    serve(read_all)
    with closing(Carbon("127.0.0.1", port, timeout=5)) as edge:
        edge.deliver(points(b"a.count 1 1790000040\nb.count 2 1790000040\n"))

    assert received == [b"(open)", b"a.count 1 1790000040\nb.count 2 1790000040\n"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n"])
def test_deliver_to_something_that_answers(peer: Peer, answer: bytes) -> None:
    """A server that answers is not a line receiver."""
    port, serve = peer

    def reply(connection: socket.socket) -> None:
        try:
            while connection.recv(65536):
                pass
        except TimeoutError:
            return
        connection.sendall(answer)

    serve(reply)
    with closing(Carbon("127.0.0.1", port, timeout=5)) as edge, pytest.raises(DeliveryFailed, match="not a Carbon"):
        edge.deliver(points(b"a.count 1 1790000040\n"))


def test_deliver_to_something_that_resets(peer: Peer) -> None:
    """A reset after a hundred bytes is no confirmation."""
    port, serve = peer

    def reset(connection: socket.socket) -> None:
        try:
            if connection.recv(100):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        except TimeoutError:
            return

    serve(reset)
    with closing(Carbon("127.0.0.1", port, timeout=5)) as edge, pytest.raises(DeliveryFailed, match="reset"):
        edge.deliver(points(b"a.count 1 1790000040\n" * 100_000))


def test_deliver_nobody_listens() -> None:
    """A refused connection is a failure with a hint."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        edge = Carbon("127.0.0.1", chosen.getsockname()[1], timeout=5)

        with pytest.raises(DeliveryFailed, match="refused") as caught:
            edge.deliver(points(b"a.count 1 1790000040\n"))

    assert "port" in str(caught.value.hint)


class Idle:
    """A receiver that reads lines, and closes idle connections."""

    def __init__(self, seconds: float) -> None:
        """Close them after some seconds."""
        self.accepted = 0
        self.seconds = seconds
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop listening; open connections stay until they are idle."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.accepted += 1
            connection.settimeout(self.seconds)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection, suppress(TimeoutError):
            while connection.recv(65536):
                pass


def accepts(idle: Idle, edge: Carbon, connections: int) -> float:
    """Watch for deaths, of which there must be none, until a receiver has accepted connections; return the seconds."""
    began = time.monotonic()

    def has_accepted() -> bool:
        assert not edge.has_died()
        return idle.accepted == connections

    wait_for(has_accepted, f"{connections} connections")
    return time.monotonic() - began


def dies(edge: Carbon) -> bool:
    """Wait for a death; return whether it is reported once."""
    wait_for(edge.has_died, "a death")
    return not edge.has_died()


def test_idle_connections_are_closed() -> None:
    """A receiver that closes idle connections is alive while it accepts others.

    Mutant: take the end of a witness for that of the process.
    """
    idle = Idle(1.2)
    with closing(Carbon("127.0.0.1", idle.port, timeout=5)) as edge:
        edge.deliver(points(b"a.count 1 1790000040\n"))
        assert accepts(idle, edge, 5) >= 3 * 1.2  # a delivery, its witness, and one after the other
        idle.close()

        assert dies(edge)


def test_idle_connections_are_closed_at_once() -> None:
    """The pause grows for a receiver that closes connections at once. Mutant: connect again each time."""
    idle = Idle(0.05)
    with closing(idle), closing(Carbon("127.0.0.1", idle.port, timeout=5)) as edge:
        edge.deliver(points(b"a.count 1 1790000040\n"))

        assert accepts(idle, edge, 6) > 1  # a delivery, its witness, two at once, then after 1 s and 2 s


def test_accepted_and_dropped() -> None:
    """A dying process, or a proxy without its Carbon, accepts and drops: after a lasting witness that is a death.

    Mutant: believe whoever accepts.
    """
    idle = Idle(1.2)
    with closing(idle), closing(Carbon("127.0.0.1", idle.port, timeout=5)) as edge:
        edge.deliver(points(b"a.count 1 1790000040\n"))
        idle.seconds = 0.05

        assert dies(edge)
