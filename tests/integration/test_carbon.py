"""The Carbon edge on a real carbon-cache, whose Whisper files are read back."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from contract import CarrierContract

from shipper.carbon import Carbon
from shipper.demo.carbon_cache import CarbonCache
from shipper.errors import DeliveryFailed

PATIENCE_SECONDS = 20.0


class Both:
    """A real carbon-cache and the edge that leads to it."""

    def __init__(self, server: CarbonCache) -> None:
        self.server = server
        self._edge = Carbon("127.0.0.1", server.port, timeout=5)
        self.deliver = self._edge.deliver
        self.is_alive = self._edge.is_alive
        self.close = self._edge.close

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.server.stop(signal.SIGKILL)

    def start(self) -> None:
        """Run it again."""
        self.server.start()


class TestCarbonCache(CarrierContract):
    """A real carbon-cache keeps the contract."""

    @pytest.fixture
    def carbon(self, carbon_cache: CarbonCache) -> Iterator[Both]:
        """Give a Carbon that is up."""
        with closing(Both(carbon_cache)) as both:
            yield both

    @pytest.fixture
    def stored(self, carbon_cache: CarbonCache) -> Callable[[str, int], float | None]:
        """Look into its Whisper files, waiting for it to write."""

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
        """A batch larger than all socket buffers arrives whole; of each slot the last value stays."""
        slot = int(time.time()) // 60 * 60
        lines = (b"wide.s%d.count %d %d\n" % (n % 1000, n, slot) for n in range(100_000))
        carbon.deliver(b"".join(lines))
        expected = {f"wide.s{n}.count": {slot: 99_000.0 + n} for n in range(1000)}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while carbon.server.sums() != expected and time.monotonic() < deadline:
            time.sleep(0.5)

        assert expected == carbon.server.sums()

    def test_deliver_carbon_frozen(self, carbon: Both) -> None:
        """A Carbon that is stopped confirms nothing within the time-out."""
        edge = Carbon("127.0.0.1", carbon.server.port, timeout=0.5)
        carbon.server.send_signal(signal.SIGSTOP)
        try:
            with closing(edge), pytest.raises(DeliveryFailed, match="timed out"):
                edge.deliver(b"a.count 1 1790000040\n")
        finally:
            carbon.server.send_signal(signal.SIGCONT)


@pytest.fixture
def peer() -> Iterator[tuple[int, Callable[[Callable[[socket.socket], None]], None]]]:
    """Give a port, and a way to say what becomes of each connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(handle: Callable[[socket.socket], None]) -> None:
            def loop() -> None:
                while True:
                    try:
                        connection, _ = server.accept()
                    except OSError:
                        return
                    with connection:
                        handle(connection)

            threading.Thread(target=loop, daemon=True).start()

        yield server.getsockname()[1], serve
        server.shutdown(socket.SHUT_RDWR)


Peer = tuple[int, Callable[[Callable[[socket.socket], None]], None]]


def test_deliver_exact_bytes(peer: Peer) -> None:
    """Carbon gets the lines and nothing else, then the end of the stream; the witness sends nothing."""
    port, serve = peer
    received: list[bytes] = []

    def read_all(connection: socket.socket) -> None:
        connection.settimeout(0.2)
        data = b""
        try:
            while part := connection.recv(65536):
                data += part
        except TimeoutError:
            data += b"(open)"
        received.append(data)

    serve(read_all)
    with closing(Carbon("127.0.0.1", port, timeout=5)) as edge:
        edge.deliver(b"a.count 1 1790000040\nb.count 2 1790000040\n")

    assert received == [b"(open)", b"a.count 1 1790000040\nb.count 2 1790000040\n"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n"])
def test_deliver_to_something_that_answers(peer: Peer, answer: bytes) -> None:
    """Whatever answers is not a line receiver."""
    port, serve = peer

    def reply(connection: socket.socket) -> None:
        connection.settimeout(0.2)
        try:
            while connection.recv(65536):
                pass
        except TimeoutError:
            return
        connection.sendall(answer)

    serve(reply)
    with closing(Carbon("127.0.0.1", port, timeout=5)) as edge, pytest.raises(DeliveryFailed, match="not a Carbon"):
        edge.deliver(b"a.count 1 1790000040\n")


def test_deliver_to_something_that_resets(peer: Peer) -> None:
    """A reset after a hundred bytes is no confirmation."""
    port, serve = peer

    def reset(connection: socket.socket) -> None:
        connection.settimeout(0.2)
        try:
            if connection.recv(100):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        except TimeoutError:
            return

    serve(reset)
    with closing(Carbon("127.0.0.1", port, timeout=5)) as edge, pytest.raises(DeliveryFailed, match="reset"):
        edge.deliver(b"a.count 1 1790000040\n" * 100_000)


def test_deliver_nobody_listens() -> None:
    """A refused connection is a failure with a hint."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        edge = Carbon("127.0.0.1", chosen.getsockname()[1], timeout=5)

        with pytest.raises(DeliveryFailed, match="refused") as caught:
            edge.deliver(b"a.count 1 1790000040\n")

    assert "port" in str(caught.value.hint)
