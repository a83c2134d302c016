"""The rogues themselves: what they say arrives, they end with all connections, and become well."""

import socket
from contextlib import closing

import pytest
from harness import wait_for
from hostile.rogue import Rogue, Treatment, dripping, endless, garbage, passing, saying, silent


def talk(rogue: Rogue, messages: int) -> list[bytes]:
    """Send messages, and return two bytes that are read after each."""
    with socket.create_connection(("127.0.0.1", rogue.port), 20) as client, client.makefile("rb") as reading:
        answers = []
        for _ in range(messages):
            client.sendall(b"1")
            answers.append(reading.read(2))
        return answers


@pytest.mark.parametrize(
    ("treat", "expected"),
    [
        (saying(), []),
        (saying(b"ab", b"cd"), [b"ab", b"cd"]),
        (dripping(b"xyz", seconds=0.01), [b"xy", b"zx"]),
        (endless(b"a", b"b"), [b"ab", b"bb"]),
        (garbage, [b"\0\x01", b"\x02\x03"]),
    ],
)
def test_treatments(treat: Treatment, expected: list[bytes]) -> None:
    """Each treatment says what its name says. Mutant: begin a drip anew with each byte."""
    with closing(Rogue(treat)) as rogue:
        assert talk(rogue, len(expected)) == expected


def test_becoming_well() -> None:
    """Open connections end when the treatment changes; new ones reach the real server. Mutant: keep the old ones."""
    with closing(Rogue(silent)) as rogue, closing(Rogue(saying(b"ab", b"cd"))) as real:
        with socket.create_connection(("127.0.0.1", rogue.port), 20) as client:
            wait_for(lambda: rogue.connections == 1, "the connection")
            rogue.become(passing(real.port))
            assert client.recv(1) == b""
        assert talk(rogue, 2) == [b"ab", b"cd"]
    assert real.connections == 1
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", rogue.port), 20)
