"""Requests to graphite-web, whose answers nothing is believed of; every failure becomes one short reason.

Strategy: http.client reads an answer from an object in place of a socket. Each of its reads has what is left of the
request's time and size, so that neither an endless answer nor one that arrives byte by byte lasts longer or needs more
memory. Redirects are not followed: a POST loses its body there, and nothing is known of the host.
"""

import io
import json
import socket
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from typing_extensions import override

from shipper.core.errors import ShipperError, printable
from shipper.graphite.connection import connect, time_left

MOST_BYTES = 16 * 2**20
"""Maximum size of an answer, with its head."""
MOST_DEPTH = 50
"""Maximum nesting of an answer: that of a dashboard is 6."""
MOST_DIGITS = 400
"""Maximum length of an integer: a double has 309 digits at most."""
MOST_MEMORY = 100_000_000
"""Maximum size of an answer's values in memory, in bytes: a few letters may make an object of 200 bytes."""
_VALUE_BYTES = {b"[": 96, b"{": 250, b":": 130, b",": 40}
"""Size of the value after each sign, with its place, in bytes; before a colon that is a key."""
_MOST_WIDE_BYTES = 4 * 2**20
"""Maximum size of an answer with letters beyond ASCII: with one of them, each letter of a text may take four bytes."""
_PART_BYTES = 65_536
_PORTS = {"http": 80, "https": 443}


def fetch_json(
    url: str, body: bytes | None, *, timeout: float, failure: Callable[[str], ShipperError], most: int = MOST_BYTES
) -> Any:
    """Return the JSON that a server answers to a GET, or to a POST of a body.

    timeout bounds the complete request, in seconds; most bounds the answer, in bytes. A failure is raised as the error
    that failure makes of its reason.
    """
    try:
        return _parse(_fetch(urlsplit(url), body, time.monotonic() + timeout, most))
    except (OSError, HTTPException, ValueError) as error:
        reason = "timed out" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        raise failure(printable(reason)) from error


def _fetch(url: SplitResult, body: bytes | None, deadline: float, most: int) -> bytes:
    """Send a request, and return the body of the answer."""
    host, port = (url.hostname or "").encode("idna").decode(), url.port or _PORTS[url.scheme]
    connection = connect(host, port, timeout=time_left(deadline))
    try:
        if url.scheme == "https":
            connection.settimeout(time_left(deadline))
            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=host)
        request = memoryview(_request(url, host, body))
        while request:
            connection.settimeout(time_left(deadline))
            request = request[connection.send(request[:_PART_BYTES]) :]
        with HTTPResponse(_Incoming(connection, deadline, most)) as answer:  # type: ignore[arg-type] # all that it needs
            return _read(answer)
    finally:
        connection.close()


def _request(url: SplitResult, host: str, body: bytes | None) -> bytes:
    """Return a request, which asks for an answer that is not compressed."""
    place = f"[{host}]" if ":" in host else host
    lines = [
        f"{'GET' if body is None else 'POST'} {quote(url.path, safe='/%:@!$&()*+,;=~')} HTTP/1.1",
        f"Host: {place}" + (f":{url.port}" if url.port else ""),
        "User-Agent: shipper",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if body is not None:
        lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (body or b"")


class _Incoming(io.RawIOBase):
    """The bytes of a server, up to a deadline and a size; for HTTPResponse in place of a socket."""

    def __init__(self, connection: socket.socket, deadline: float, most: int) -> None:
        self._connection, self._deadline, self._most = connection, deadline, most
        self._received = 0

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a reader, as a socket does."""
        return io.BufferedReader(self)

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(time_left(self._deadline))
        number = self._connection.recv_into(buffer)
        self._received += number
        if self._received > self._most:
            raise HTTPException(f"the answer is larger than {self._most} bytes")
        return number


def _read(answer: HTTPResponse) -> bytes:
    """Read an answer to its end."""
    answer.begin()
    if answer.status != HTTPStatus.OK:
        place = answer.headers.get("Location")
        raise HTTPException(f"HTTP {answer.status} {answer.reason}" + (f": it redirects to {place}" if place else ""))
    if (coding := answer.headers.get("Content-Encoding", "identity")).lower() != "identity":
        raise HTTPException(f"the answer is compressed ({coding}), which was not asked for")
    body = bytearray()  # not a list: chunks may have a byte each
    while part := answer.read1(_PART_BYTES):
        body += part
    if answer.length:
        raise HTTPException(f"the answer ends {answer.length} bytes early")
    return bytes(body)


def _parse(text: bytes) -> Any:
    """Read JSON whose numbers, size in memory and nesting have ends."""
    if sum(size * text.count(sign) for sign, size in _VALUE_BYTES.items()) > MOST_MEMORY:
        raise ValueError("the answer has too many values")
    if len(text) > _MOST_WIDE_BYTES and (not text.isascii() or b"\\u" in text):
        raise ValueError(f"the answer is larger than {_MOST_WIDE_BYTES} bytes, and is not ASCII")
    try:
        document = json.loads(text.decode(), parse_int=_integer, parse_constant=_reject)
    except RecursionError as error:
        raise ValueError("the answer is nested too deeply") from error
    except ValueError as error:  # a login page, for example
        raise ValueError(f"the answer is not JSON: {error}") from error
    # other limits of depth depend on the stack, and on what is done with the document
    level = [document]
    for _ in range(MOST_DEPTH):
        parents = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [child for parent in parents for child in parent if isinstance(child, dict | list)]
        if not level:
            return document
    raise ValueError("the answer is nested too deeply")


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _reject(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")
