"""Values are read back from a real graphite-web."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from builders import points
from contract import GraphiteContract
from graphite_web import GraphiteWeb
from harness import Shipper, wait_for
from servers import free_port

from shipper.core.errors import ReadbackFailed
from shipper.demo.carbon_cache import CarbonCache
from shipper.graphite.carbon import Carbon
from shipper.graphite.render_api import Readback

HOUR = 3600


class TestReadback:
    """The readback of datapoints; each test has separate paths."""

    @pytest.fixture(autouse=True)
    def _ends(self, graphite: tuple[CarbonCache, GraphiteWeb]) -> Iterator[None]:
        cache, web = graphite
        self.slot = int(time.time()) // 60 * 60 - 120
        self.carbon = Carbon("127.0.0.1", cache.port, timeout=10)
        self.readback = Readback(web.url, timeout=30)
        yield
        self.carbon.close()

    def send(self, path: str, value: float, slot: int | None = None) -> None:
        """Send a datapoint, and wait for its confirmation."""
        self.carbon.deliver(points(f"{path} {value} {slot or self.slot}\n".encode()))

    def test_value(self) -> None:
        """The readback returns the newest value of that slot alone; None for a path or slot without one.

        Mutants: from the slot itself on, which is exclusive; the first value of the answer.
        """
        self.send("a.count", 5)
        self.send("a.count", 9, self.slot - 60)
        self.send("a.count", 8, self.slot + 60)
        wait_for(lambda: self.readback.read(["a.count"], self.slot) == {"a.count": 5}, "the first value")
        self.send("a.count", 7)

        wait_for(lambda: self.readback.read(["a.count"], self.slot) == {"a.count": 7}, "the newer value")
        assert self.readback.read(["a.count", "no.count"], self.slot - 120) == {"a.count": None, "no.count": None}

    def test_coarse_slot(self) -> None:
        """A sum in a coarser archive is read from there."""
        slot = (self.slot - 3 * 86400) // HOUR * HOUR
        self.send("coarse.count", 600, slot)

        wait_for(lambda: self.readback.read(["coarse.count"], slot) == {"coarse.count": 600}, "the sum")

    def test_many(self) -> None:
        """The readback splits paths that exceed one request. Mutant: ask for all at once."""
        paths = [f"many.s{n}.count" for n in range(1100)]
        self.carbon.deliver(points("".join(f"{path} 1 {self.slot}\n" for path in paths).encode()))

        def are_there() -> bool:
            with suppress(ReadbackFailed):  # carbon is creating a file
                return set(self.readback.read(paths, self.slot).values()) == {1.0}
            return False

        wait_for(are_there, "all of them")

    def test_tagged(self) -> None:
        """A path with tags can be read back."""
        self.send("tagged.count;dc=eu;host=a", 3)

        wait_for(lambda: self.readback.read(["tagged.count;dc=eu;host=a"], self.slot).popitem()[1] == 3, "the value")

    def test_check(self, graphite: tuple[CarbonCache, GraphiteWeb], tmp_path: Path) -> None:
        """`check` also reads from graphite-web."""
        cache, web = graphite
        app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/none.db", port=cache.port)
        reads_back = f'[graphite]\nproof = "readback"\nrender_url = "{web.url}"'
        app.configure("[graphite]", reads_back)
        good = app.call("check").stdout
        app.configure(web.url, f"http://127.0.0.1:{free_port()}")

        assert f"✓ graphite 127.0.0.1:{web.port}: render API works\n" in good
        assert "✓ proof: every value is proven, by reading it back from Graphite\n" in good
        assert "✗ graphite: read back from 127.0.0.1:" in app.call("check").stdout


class TestHeld(GraphiteContract):
    """The readback keeps the contract for complete series."""

    @pytest.fixture
    def web(self, graphite: tuple[CarbonCache, GraphiteWeb]) -> Readback:
        """Return the client of graphite-web."""
        return Readback(graphite[1].url, timeout=30)

    @pytest.fixture
    def send(self, graphite: tuple[CarbonCache, GraphiteWeb]) -> Iterator[Callable[[str, float, int], None]]:
        """Send a datapoint, and wait for its confirmation."""
        carbon = Carbon("127.0.0.1", graphite[0].port, timeout=10)
        yield lambda path, value, slot: carbon.deliver(points(f"{path} {value} {slot}\n".encode()))
        carbon.close()


def test_no_answer() -> None:
    """A graphite-web that is down is a failure with a remedy."""
    readback = Readback(f"http://127.0.0.1:{free_port()}", timeout=5)
    with pytest.raises(ReadbackFailed, match="refused") as caught:
        readback.read(["a"], 60)

    assert "render_url" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"garbage", "read back from 127.0.0.1"),
        (b"HTTP/1.0 500 Oops\r\n\r\n", "HTTP 500 Oops"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "Expecting value"),
        (b"HTTP/1.0 200 OK\r\n\r\n[1]", "does not come from graphite-web's render API"),
        (b'HTTP/1.0 200 OK\r\n\r\n[{"target": "a"}]', "does not come from graphite-web's render API"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"a": 1}', "does not come from graphite-web's render API"),
        (
            b'HTTP/1.0 200 OK\r\n\r\n[{"target": "a", "datapoints": [[1]]}]',
            "does not come from graphite-web's render API",
        ),
        (b"", "closed connection"),
        (None, "timed out"),
    ],
)
def test_wrong_answer(answer: bytes | None, reason: str) -> None:
    """A foreign answer is a failure, and proves nothing. Mutant: take it for an empty one."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            connection, _ = server.accept()
            held.append(connection)
            request = b""
            while b"target=a" not in request:  # all of it: a server that closes before that resets
                request += connection.recv(65536)
            if answer is not None:
                connection.sendall(answer)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        readback = Readback(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=1)
        with pytest.raises(ReadbackFailed, match=reason):
            readback.read(["a"], 60)
        thread.join()
        for connection in held:
            connection.close()
