"""A graphite-web and a Carbon, and tables of what they may do instead of answering."""

import ctypes
import gzip
import json
import select
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, unquote

from hostile.rogue import BLOCK, Rogue, Treatment, dripping, endless, garbage, saying
from typing_extensions import override

SLOT = 1_790_000_040
OK = b"HTTP/1.1 200 OK\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
STEP = 60


class Graphite:
    """The values that a Carbon was sent, and the graphite-web beside it."""

    def __init__(self) -> None:
        self.values: dict[str, dict[int, float]] = {}
        self.dashboards: dict[str, object] = {}
        self._mutex = threading.Lock()

    def carbon(self, client: socket.socket) -> None:
        """Store what a client sends, and close once it has sent all."""
        text = b""
        while part := client.recv(BLOCK):
            text += part
        with self._mutex:
            for line in text.decode().splitlines():
                path, value, slot = line.split()
                self.values.setdefault(path, {})[int(slot)] = float(value)

    def web(self, client: socket.socket) -> None:
        """Answer a request of the render API, or for a dashboard."""
        place, fields = read_request(client)
        name = unquote(place.rpartition("/")[2])
        if "/load/" in place:
            state = self.dashboards.get(name)
            document: object = {"state": state} if state else {"error": f"Dashboard '{name}' does not exist."}
        elif "/save/" in place:
            self.dashboards[name] = json.loads(fields["state"][0])
            document = {"success": True}
        else:
            document = self._rendered(fields["target"], int(fields["from"][0]), int(fields["until"][0]))
        client.sendall(OK + json.dumps(document).encode())

    def sum(self, begin: str) -> float:
        """Add up all values of paths that begin so."""
        with self._mutex:
            return sum(sum(slots.values()) for path, slots in self.values.items() if path.startswith(begin))

    def _rendered(self, paths: Sequence[str], after: int, until: int) -> list[dict[str, object]]:
        slots = range(after // STEP * STEP + STEP, until + 1, STEP)
        with self._mutex:
            known = [path for path in paths if path in self.values]
            return [{"target": one, "datapoints": [[self.values[one].get(n), n] for n in slots]} for one in known]


class RogueCarbon(Rogue):
    """A rogue that resets connections when it becomes another, as a process does that dies with unread data.

    Its kernel would otherwise end them as a Carbon does that has read everything.
    """

    @override
    def _hang_up(self) -> None:
        unspecified = bytes(16)  # connect(2): an address of AF_UNSPEC dissolves a connection
        with self._mutex:
            for client in self._open:
                ctypes.CDLL(None).connect(client.fileno(), unspecified, len(unspecified))


def read_request(client: socket.socket) -> tuple[str, dict[str, list[str]]]:
    """Read a request to its end; return its place and its fields."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += _part(client)
    head, _, body = text.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length:")]
    while len(body) < sum(lengths):
        body += _part(client)
    return head.decode().split()[1], parse_qs(body.decode())


def _part(client: socket.socket) -> bytes:
    part = client.recv(BLOCK)
    if not part:
        raise ConnectionError
    return part


def asked(treat: Treatment) -> Treatment:
    """Treat a client once its request was read."""

    def wait(client: socket.socket) -> None:
        read_request(client)
        treat(client)

    return wait


def holding(*parts: bytes) -> Treatment:
    """Say parts, and never close."""

    def treat(client: socket.socket) -> None:
        saying(*parts)(client)
        while client.recv(BLOCK):
            pass
        never(client)

    return treat


def never(client: socket.socket) -> None:
    """Neither read, write nor close, until the connection is reset, or the rogue ends it."""
    is_over(client, None)


def is_over(client: socket.socket, seconds: float | None) -> bool:
    """Wait so long, or until a connection is over in both directions; return whether it is."""
    poll = select.poll()
    poll.register(client, 0)
    return bool(poll.poll(None if seconds is None else 1000 * seconds))


def resetting(client: socket.socket) -> None:
    """Reset the connection."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def both(first: Treatment, second: Treatment) -> Treatment:
    """Treat a client in two ways, one after the other."""

    def treat(client: socket.socket) -> None:
        first(client)
        second(client)

    return treat


def told(body: bytes, head: bytes = OK) -> Treatment:
    """Answer a request."""
    return asked(saying(head + body))


def redirecting(place: str) -> Treatment:
    """Redirect a request."""
    return told(b"", f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())


def rendered(*datapoints: object, target: object = "shipper.check") -> Treatment:
    """Answer a request with one series."""
    return told(json.dumps([{"target": target, "datapoints": datapoints}]).encode())


SLOW: Mapping[str, Treatment] = {
    "is silent": asked(holding()),
    "never ends": asked(holding(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[")),
    "drips its head": asked(dripping(b"HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", seconds=0.1)),
    "drips its body": asked(both(saying(OK), dripping(b"[", seconds=0.1))),
}
"""Answers of a graphite-web that a client has to wait for, longer than it can."""
WRONG: Mapping[str, Treatment] = {
    "closes at once": saying(),
    "closes after the request": told(b"", b""),
    "resets": resetting,
    "resets after the request": asked(resetting),
    "speaks no HTTP": garbage,
    "speaks HTTP/0.9": told(b"[]", b""),
    "says 500 in colour": told(b"", b"HTTP/1.1 500 \x1b[31m\x1b]0;title\x07" + b"x" * 10_000 + b"\r\n\r\n"),
    "says nothing": told(b"", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "ends its head early": told(b"", b"HTTP/1.1 200 OK\r\nContent-"),
    "ends its body early": told(b'[{"target"', b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
    "continues for ever": asked(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    "has endless headers": asked(endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")),
    "has an endless header": asked(endless(b"HTTP/1.1 200 OK\r\nX: ", b"y")),
    "has an endless body": asked(endless(OK, b"[")),
    "has endless objects": asked(endless(OK + b"[", b'{"target":"a","datapoints":[[1,60],[1,120]]},')),
    "has endless chunks": asked(endless(CHUNKED, b"1\r\n[\r\n")),
    "has bad chunks": told(b"-1\r\n[\r\nzz\r\n]\r\n", CHUNKED),
    "has a huge chunk": told(b"ffffffffffffffff\r\n[]", CHUNKED),
    "compresses": told(gzip.compress(bytes(2**24)), b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"),
    "redirects to a file": redirecting("file:///etc/passwd"),
    "redirects to itself": redirecting("/render"),
    "redirects with escapes": redirecting("http://\x1b[2J"),
    "shows a login page": told(b"<html><form action='/login'>"),
    "says null": told(b"null"),
    "says 5": told(b"5"),
    "says a text": told(b'"shipper"'),
    "says an object": told(b'{"shipper.check": []}'),
    "says a list of numbers": told(b"[1]"),
    "says a list of null": told(b"[null]"),
    "nests": told(b"[" * 10_000),
    "nests a little less": told(b"[" * 400 + b"]" * 400),
    "nests objects": told(b'{"a":' * 400 + b"1" + b"}" * 400),
    "has 5,000 digits": told(b'[{"target": "shipper.check", "datapoints": [[%s, 60]]}]' % (b"9" * 5000)),
    "has NaN": told(b'[{"target": "shipper.check", "datapoints": [[NaN, 60]]}]'),
    "has a time of Infinity": told(b'[{"target": "shipper.check", "datapoints": [[1, Infinity]]}]'),
    "has a time of 1e9999": told(b'[{"target": "shipper.check", "datapoints": [[1, 1e9999]]}]'),
    "has equal times": rendered([1, SLOT], [2, SLOT]),
    "has times in no order": rendered([1, SLOT + 60], [2, SLOT]),
    "has uneven times": rendered([1, SLOT], [2, SLOT + 60], [3, SLOT + 61]),
    "has short datapoints": rendered([1]),
    "has values of other types": rendered([[1], SLOT]),
    "has no datapoints": told(b'[{"target": "shipper.check"}]'),
    "has other targets": rendered([1, SLOT], target=["shipper.check"]),
    "repeats a target": told(b'[{"target": "a", "datapoints": []}, {"target": "a", "datapoints": []}]'),
    "has times before 1970": rendered([1, -60], [1, 0]),
    "has times of half a second": rendered([1, SLOT + 0.5]),
    "has texts as times": rendered([1, str(SLOT)]),
    "has true as a value": rendered([True, SLOT]),
    "has keys twice": told(b'[{"target": "a", "target": ["shipper.check"], "datapoints": [], "datapoints": 5}]'),
    "has half of a character": told(b'[{"target": "\\ud800", "datapoints": "\\udfff"}]'),
    "is UTF-16 without an end": told("[{".encode("utf-16")),
    "has a negative length": told(b"[", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"),
    "has two lengths": told(b"[" * 9, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 2\r\n\r\n"),
    "has a length that is none": told(b"[", b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n"),
    "has a status of 5 digits": told(b"[]", b"HTTP/1.1 20000 OK\r\n\r\n"),
    "has no status": told(b"[]", b"HTTP/1.1\r\n\r\n"),
    "has no such version": told(b"[", b"HTTP/9.9 200 OK\r\n\r\n"),
    "has a header of controls": told(b"[", b"HTTP/1.1 302 \x1b]0;x\x07\r\nLocation: \x1b[2J\0\x9b\r\n\r\n"),
    "has a header of no name": told(b"[", b"HTTP/1.1 200 OK\r\n: x\r\n y\r\n\0\r\n\r\n"),
    "switches protocols": told(b"[]", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"),
    "has a chunk of endless size": asked(endless(CHUNKED + b"1;", b"x")),
    "has an endless trailer": asked(endless(CHUNKED + b"1\r\n[\r\n0\r\n", b"X: y\r\n")),
    "has a chunk without an end": told(b"5\r\n[", CHUNKED),
    "has chunks and a length": told(
        b"1\r\n[\r\n0\r\n\r\n", CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n")
    ),
    "compresses without a word": told(gzip.compress(b"[" * 2**16)),
    "is not of UTF-8": told(b'["\xff\xfe"]'),
}
"""Answers of a graphite-web that are none."""
WEB = {**SLOW, **WRONG}


def trickling(client: socket.socket) -> None:
    """Read a byte a second."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    while client.recv(1) and not is_over(client, 1):
        pass


def babbling(after: float) -> Treatment:
    """Read all and close, as Carbon does; but speak for ever to a client that is silent for so long."""

    def treat(client: socket.socket) -> None:
        client.settimeout(after)
        try:
            while client.recv(BLOCK):
                pass
        except TimeoutError:
            client.settimeout(None)
            endless(b"", b"hello\r\n")(client)

    return treat


CARBON: Mapping[str, Treatment] = {
    "closes at once": saying(),
    "resets": resetting,
    "resets after all": both(Graphite().carbon, resetting),
    "never reads": never,
    "reads a byte a second": trickling,
    "reads all and never closes": holding(),
    "says a line": saying(b"220 mail.example ESMTP\r\n"),
    "speaks for ever": endless(b"", b"hello\r\n"),
    "answers in drips": dripping(b"hello\r\n"),
}
"""Treatments of a Carbon that confirms nothing."""
