"""A Carbon that does not do what a Carbon does: every delivery ends in time, and none is taken for confirmed."""

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from builders import points
from hostile.rogue import Rogue, silent
from hostile.rogue_graphite import CARBON, Graphite, babbling

from shipper.core.errors import DeliveryFailed
from shipper.graphite import connection
from shipper.graphite.carbon import Carbon
from shipper.graphite.receivers import Receivers

TIMEOUT = 0.4
LINES = points(b"".join(b"a.s%d.count 1 1790000040\n" % n for n in range(20_000)))  # more than a kernel buffers


@pytest.fixture(scope="module")
def graphite() -> Iterator[tuple[Graphite, Rogue]]:
    """Run a Carbon that works."""
    graphite = Graphite()
    with closing(Rogue(graphite.carbon)) as good:
        yield graphite, good


@pytest.mark.parametrize("name", CARBON)
@pytest.mark.parametrize("lines", [1, len(LINES)])
def test_delivery(name: str, lines: int, graphite: tuple[Graphite, Rogue]) -> None:
    """No rogue confirms, none holds a delivery longer than its steps, and the next relay takes over."""
    stored, good = graphite
    stored.values.clear()
    with closing(Rogue(CARBON[name])) as rogue:
        edges = [Carbon("127.0.0.1", rogue.port, timeout=TIMEOUT), Carbon("127.0.0.1", good.port, timeout=60)]
        with closing(edges[0]) as edge, pytest.raises(DeliveryFailed) as caught:
            edge.deliver(LINES[:lines])
        with closing(Receivers(edges)) as receivers:
            receivers.deliver(LINES[:lines])

    assert str(caught.value).isprintable()
    assert caught.value.hint
    assert len(stored.values) == lines


def test_end_that_comes_first() -> None:
    """A Carbon that closes its half before all is sent has not read to the end: that is no confirmation.

    Mutant: wait only for the end of its stream.
    """

    def end(client: socket.socket) -> None:
        client.shutdown(socket.SHUT_WR)
        silent(client)

    with closing(Rogue(end)) as rogue, pytest.raises(ConnectionError, match="closed the connection first"):
        # more than all buffers: the rest is sent only after its end
        Carbon("127.0.0.1", rogue.port, timeout=60).send_message(bytes(2**25))


def test_speech_on_the_idle_connection() -> None:
    """A Carbon that confirms, and speaks where nothing is sent: the courier does not read that without an end.

    Mutant: take a connection that speaks for a witness; then the courier's wait ends at once, each time.
    """
    with closing(Rogue(babbling(0.05))) as rogue, closing(Carbon("127.0.0.1", rogue.port, timeout=60)) as carbon:
        carbon.deliver(LINES[:1])
        spoken = carbon.watched
        assert spoken is not None
        select.select([spoken], [], [])

        assert not carbon.has_died()
        assert carbon.watched is not spoken


def test_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is not resolved in time is a failure; it is asked for once until there is an answer.

    Mutants: wait for the answer; a thread for each delivery.
    """
    asked, answer = [], threading.Event()
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **named: Any) -> Any:
        if named.get("flags"):
            return real(host, *arguments, **named)
        asked.append(host)
        answer.wait()
        return real("127.0.0.1", *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    graphite = Graphite()
    with closing(Rogue(graphite.carbon)) as good, closing(Carbon("carbon.example", good.port, timeout=0.1)) as carbon:
        for _ in range(3):
            with pytest.raises(DeliveryFailed, match="timed out"):
                carbon.deliver(LINES[:1])
        assert asked == ["carbon.example"]
        answer.set()
        carbon.timeout = 60
        carbon.deliver(LINES[:1])

    assert len(graphite.values) == 1


def test_name_of_many_dead_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """All addresses of a name share the time-out; one that works behind dead ones still gets its turn.

    Mutants: the time-out for each; all of it for the first.
    """
    graphite = Graphite()
    # a full backlog: the kernel answers no further connection
    with socket.create_server(("127.0.0.1", 0), backlog=0) as dead, closing(Rogue(graphite.carbon)) as good:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(dead.getsockname())
        ends = [dead.getsockname()] * 5
        monkeypatch.setattr(
            connection, "_resolve", lambda *_: [(socket.AF_INET, socket.SOCK_STREAM, 0, "", one) for one in ends]
        )
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connection.connect("carbon.example", 1, timeout=1)
        assert time.monotonic() - began < len(ends)

        ends.append(("127.0.0.1", good.port))
        connection.connect("carbon.example", 1, timeout=3).close()
        for one in waiting:
            one.close()
