"""The status page with real clients: sockets, HTTP, a browser."""

import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium
from reports import office, report, troubled

from shipper.core.errors import ConfigError
from shipper.sockets.listener import Listener
from shipper.status.page.server import open_page

SCREENSHOTS = os.environ.get("SCREENSHOTS")


@pytest.fixture
def page() -> Iterator[Listener]:
    """Listen on loopback."""
    page = open_page("127.0.0.1:0", lambda **_: troubled())
    yield page
    page.close()


def address_of(page: Listener) -> str:
    """Return the address with the port that the kernel has chosen."""
    return f"127.0.0.1:{page._listening.getsockname()[1]}"


def request(page: Listener, method: str, path: str, **headers: str) -> http.client.HTTPResponse:
    """Send one request, and return its complete answer."""
    connection = http.client.HTTPConnection(address_of(page), timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    answer.text = answer.read().decode()  # type: ignore[attr-defined] # no attribute of the class
    connection.close()
    return answer


def exchange(end: socket.socket, words: bytes) -> bytes:
    """Send raw bytes, and return everything that the server sends."""
    end.settimeout(60)
    end.sendall(words)
    received = b""
    while part := end.recv(65536):
        received += part
    return received


def test_headers(page: Listener) -> None:
    """Browsers must not store the page, load anything for it, or frame it."""
    answer = request(page, "GET", "/")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "Python" not in str(answer.headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods(page: Listener, method: str) -> None:
    """The server accepts GET and HEAD only."""
    answer = request(page, method, "/")

    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_head(page: Listener) -> None:
    """HEAD is GET without the body."""
    answer = request(page, "HEAD", "/status")

    assert answer.status == 200
    assert int(answer.headers["Content-Length"]) > 1000
    assert answer.text == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("127.0.0.1", 200), ("evil.example", 421)])
def test_host(page: Listener, host: str, status: int) -> None:
    """A foreign host name that resolves to this server gets no page (DNS rebinding). Mutant: leave it unchecked."""
    assert request(page, "GET", "/livez", Host=f"{host}:{address_of(page).rpartition(':')[2]}").status == status


def test_garbage_and_silence(page: Listener) -> None:
    """The server rejects garbage in one line; a silent client does not block others."""
    address = page._listening.getsockname()
    with socket.create_connection(address) as silent, socket.create_connection(address) as end:
        garbage = exchange(end, b"\x16\x03\x01 <script>\r\n\r\n")
        assert request(page, "GET", "/livez").status == 200
        silent.close()

    assert b"<script>" not in garbage
    with socket.create_connection(address) as end:
        assert exchange(end, b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 414 ")


def test_unix_socket(tmp_path: Path) -> None:
    """The group may use the unix socket; the server replaces that of a killed process, but not of a running one."""
    path = tmp_path / "status.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(path))
    page = open_page(f"unix:{path}", report)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.connect(str(path))
        answer = exchange(end, b"GET /livez HTTP/1.0\r\n\r\n")
    with pytest.raises(ConfigError, match="another process listens there"):
        open_page(f"unix:{path}", report)

    assert answer.endswith(b"\r\n\r\nok\n")
    assert path.stat().st_mode & 0o777 == 0o660
    page.close()
    assert not path.exists()


def test_port_in_use(page: Listener) -> None:
    """A port in use is an error with the address."""
    with pytest.raises(ConfigError, match="listen at 127"):
        open_page(address_of(page), report)


def test_browser(page: Listener, tmp_path: Path) -> None:
    """Chromium shows the page, light and dark, narrow and wide, without scrolling sideways or violating the policy.

    Mutant: a style attribute, which the policy forbids; a table of fixed width.
    """
    backgrounds = set()
    with Chromium(tmp_path) as chromium:
        for scheme in ("light", "dark"):
            for width in (360, 1200):
                chromium.show(f"http://{address_of(page)}/", width=width, scheme=scheme)
                assert chromium.complaints() == []
                assert chromium.value("document.documentElement.scrollWidth") <= width
                assert chromium.value("document.querySelectorAll('tbody').length") == len(troubled().jobs)
                assert chromium.value("document.querySelectorAll('script').length") == 0
                assert chromium.value("getComputedStyle(document.querySelector('.overall')).fontWeight") == "600"
                backgrounds.add(chromium.value("getComputedStyle(document.body).backgroundColor"))
                if SCREENSHOTS:
                    chromium.screenshot(Path(SCREENSHOTS) / f"{scheme}-{width}.png")

    assert len(backgrounds) == 2


@pytest.mark.skipif(not SCREENSHOTS, reason="SCREENSHOTS=deploy renews the README's picture")
def test_picture(tmp_path: Path) -> None:
    """The README's picture shows the page of a working day."""
    page = open_page("127.0.0.1:0", lambda **_: office())
    with Chromium(tmp_path) as chromium:
        chromium.show(f"http://{address_of(page)}/", width=1100, height=1020)
        chromium.screenshot(Path(str(SCREENSHOTS)) / "status.png")
    page.close()
