"""HTTP server on a unix socket or on loopback: GET only, without cookies, scripts and sessions.

Strategy: the standard library's server needs little memory; each request has a thread, up to a limit.
"""

import os
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from shipper.core.errors import ConfigError
from shipper.status.page.routes import Answer, answer
from shipper.status.page.style import DIGEST
from shipper.status.report import Report

MOST_REQUESTS = 8  # at once; further clients wait
REQUEST_SECONDS = 5.0  # enough for every real client
MODE = 0o660  # the group of the socket's directory may connect, too
LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src '{DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Page:
    """Server of the status page, until it is closed."""

    def __init__(self, address: str, report: Callable[[], Report]) -> None:
        """Listen at unix:PATH, or at HOST:PORT of loopback, where port 0 is any.

        Raises:
            ConfigError: it cannot listen there.
        """
        try:
            self._server = _unix(address.removeprefix("unix:")) if address.startswith("unix:") else _tcp(address)
        except OSError as error:
            raise ConfigError(
                f"listen at {address}: {error.strerror or error}",
                hint="Choose another `listen` in [status], or stop the process that listens there.",
            ) from error
        self._server.report = report
        self._thread = threading.Thread(target=self._server.serve_forever, name="page", daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        return self._server.label

    def close(self) -> None:
        """Stop answering, and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        if self._server.label.startswith("unix:"):
            with suppress(OSError):
                Path(self._server.label.removeprefix("unix:")).unlink()


class _Server(socketserver.ThreadingTCPServer):
    """Server with a thread for each request, up to MOST_REQUESTS."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64
    report: Callable[[], Report]
    label: str
    hosts: frozenset[str] | None = None
    """Accepted values of the header Host; None is any. They keep foreign pages out (DNS rebinding)."""

    def __init__(self, address: Any, family: socket.AddressFamily) -> None:
        self.address_family = family
        self._free = threading.BoundedSemaphore(MOST_REQUESTS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a request's thread once fewer than MOST_REQUESTS run."""
        self._free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one request within its deadline: a client that sends byte by byte must not block others."""
        deadline = threading.Timer(REQUEST_SECONDS, partial(_end, request))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS
    server_version, sys_version = "shipper", ""

    def do_GET(self) -> None:
        """Answer a request, unless its header Host is not ours."""
        path, _, query = self.path.partition("?")
        host = (self.headers.get("Host") or "").lower()
        if self.server.hosts is not None and host not in self.server.hosts:
            self._send(
                Answer(
                    421,
                    "text/plain; charset=utf-8",
                    f"wrong host; use one of: {', '.join(sorted(self.server.hosts))}\n",
                )
            )
            return
        self._send(answer(path, query, self.server.report))

    do_HEAD = do_GET  # noqa: N815 - the base class names it so

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - overrides
        """Reject in one line: the standard library's page repeats the text of the request."""
        is_method = code == HTTPStatus.NOT_IMPLEMENTED
        words = "GET and HEAD only\n" if is_method else "rejected\n"
        self._send(Answer(HTTPStatus.METHOD_NOT_ALLOWED if is_method else code, "text/plain; charset=utf-8", words))
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it so
        """Leave requests out of the log."""

    def address_string(self) -> str:
        """Return no name for a client: a unix socket has none."""
        return ""

    def _send(self, reply: Answer) -> None:
        body = reply.body.encode(errors="backslashreplace")
        self.send_response(reply.status)
        for name, value in {**_HEADERS, "Content-Type": reply.kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if reply.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _end(request: socket.socket) -> None:
    with suppress(OSError):  # the client has closed it
        request.shutdown(socket.SHUT_RDWR)


def _unix(path: str) -> _Server:
    """Listen at a path; replace the socket of a killed process, but not of a running one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end, suppress(FileNotFoundError, ConnectionRefusedError):
        end.connect(path)
        raise FileExistsError(0, "another process listens there")
    Path(path).unlink(missing_ok=True)
    mask = os.umask(0o777 & ~MODE)
    try:
        server = _Server(path, socket.AF_UNIX)
    finally:
        os.umask(mask)
    server.label = f"unix:{path}"
    return server


def _tcp(address: str) -> _Server:
    host, _, port = address.rpartition(":")
    parsed = ip_address(host.strip("[]").replace("localhost", "127.0.0.1"))
    server = _Server((str(parsed), int(port)), socket.AF_INET6 if parsed.version == 6 else socket.AF_INET)  # noqa: PLR2004 - IPv6
    bound = server.server_address[1]
    server.label = f"{host}:{bound}"
    server.hosts = frozenset(f"{name}:{bound}" for name in LOOPBACK)
    return server
