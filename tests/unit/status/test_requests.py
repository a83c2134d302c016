"""Requests to the status page, as bytes."""

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reports import report

from shipper.core.errors import ConfigError
from shipper.status.page.server import HEADER_BYTES, LOOPBACK, open_page, respond


def status_of(request: bytes, hosts: frozenset[str] = LOOPBACK) -> int:
    """Return the status of the response."""
    return int(respond(request, hosts, report).split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\n\n", 200),
        (b"HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 200),
        (b"GET /readyz?verbose HTTP/1.1\r\nhost:LOCALHOST:9119\r\nAccept: */*\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: [::1]:9119\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost:\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET /livez HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", 421),
        (b"GET /livez HTTP/1.1\r\nHost: localhost:9119@evil.example\r\n\r\n", 421),
        (b"GET /livez HTTP/1.1\r\nHost: shipper\r\n\r\n", 421),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost : evil.example\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nA: b\r\n Host: evil.example\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nA: \0\r\n\r\n", 400),
        (b"GET http://evil.example/livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/2.0\r\n\r\n", 400),
        (b"GET /livez\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n", 400),
        (b"\x16\x03\x01 <script>\r\n\r\n", 400),
        (b"", 400),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST / HTTP/1.1\r\n\r\n", 405),
        (b"GET /" + b"x" * HEADER_BYTES, 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * HEADER_BYTES, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * HEADER_BYTES + b"\r\n\r\n", 431),
    ],
)
def test_request(request_: bytes, status: int) -> None:
    """Each request has its status. Mutant: check the beginning of the host; take the last of two."""
    assert status_of(request_) == status


@given(st.binary(max_size=300) | st.text(" \r\n:/GETHostHTTP.019a\0\x1b\xff", max_size=200).map(str.encode))
@example(b"GET /" + b"\xe2\x80\xae" + b" HTTP/1.1\r\n\r\n")
def test_any_bytes(request_: bytes) -> None:
    """Whatever a client sends gets one well-formed response, which repeats nothing of it.

    Mutant: repeat the request.
    """
    head, _, body = respond(request_, LOOPBACK, report).partition(b"\r\n\r\n")
    first, *headers = head.decode("ascii").split("\r\n")

    assert re.fullmatch(r"HTTP/1\.0 [245]\d\d [A-Za-z -]+", first)
    assert all(re.fullmatch(r"[\w-]+: [ -~]+", header) for header in headers)
    length = next(int(header.removeprefix("Content-Length: ")) for header in headers if "Length" in header)
    assert len(body) in ({0, length} if request_.startswith(b"HEAD") else {length})
    if not first.startswith("HTTP/1.0 2"):
        words = r"(rejected|GET and HEAD only|not found; known paths: [a-z/ ]+|wrong host; [a-z0-9.:;, \[\]]+)?\n?"
        assert re.fullmatch(words, body.decode("ascii"))


@pytest.mark.parametrize("host", ["localhost", "shipper", ""])
def test_hosts_of_unix_socket(tmp_path: Path, host: str) -> None:
    """A unix socket has the names that tools use for it; ssh may bring it to a port, where a foreign name could lead.

    Mutant: leave the host unchecked there.
    """
    page = open_page(f"unix:{tmp_path}/s", report)
    line = b"GET /livez HTTP/1.1\r\n"
    try:
        assert page._serve(line + f"Host: {host}\r\n\r\n".encode(), lambda _: None).startswith(b"HTTP/1.0 200 ")
        assert page._serve(line + b"Host: evil.example\r\n\r\n", lambda _: None).startswith(b"HTTP/1.0 421 ")
    finally:
        page.close()


@pytest.mark.parametrize("path", ["", "\0", "/nowhere/s", "x" * 300])
def test_impossible_path(tmp_path: Path, path: str) -> None:
    """A path where nothing can listen is an error with its remedy, not a bug."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="listen at unix:") as caught:
        open_page(f"unix:{tmp_path}/{path}", report)
    assert caught.value.hint


def test_port_that_the_unit_denies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that systemd denies has its own remedy. Mutant: advise to stop another process."""

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("socket.create_server", deny)
    with pytest.raises(ConfigError, match=r"listen at 127.0.0.1:9119: Operation not permitted") as caught:
        open_page("127.0.0.1:9119", report)
    assert caught.value.hint is not None
    assert "SocketBindAllow=tcp:PORT" in caught.value.hint
