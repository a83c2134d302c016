"""HTTP server on a unix socket or on loopback: GET only, without cookies, scripts and sessions.

Each connection gets one answer (HTTP/1.0), so that a request has one end for every reader. Health checks answer as
those of Kubernetes: one word, or one line for each check.
"""

import errno
import json
import re
import socket
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import NamedTuple, Protocol

from shipper.core.errors import ConfigError, ShipperError, visible
from shipper.log.logger import logger
from shipper.sockets.listener import Listener, Send
from shipper.sockets.unix_socket import UnixSocket
from shipper.status.page import prometheus
from shipper.status.page.html import page
from shipper.status.page.style import DIGEST
from shipper.status.report import Report

MOST_THREADS = 4
LINE_BYTES, HEADER_BYTES = 8_000, 16_000
MODE = 0o660  # the group of the socket's directory may connect, too
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

# systemd.resource-control(5): what the unit's SocketBindDeny= denies fails with EPERM
_DROP_IN = "Allow the port: run `systemctl edit shipper`, add [Service] and SocketBindAllow=tcp:PORT, then restart."
_TEXT = "text/plain; charset=utf-8"
_HEADERS = {
    "Server": "shipper",
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src '{DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_END = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(r"([A-Z]+) (/[!-~]*) HTTP/1\.[0-9]")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


class Answer(NamedTuple):
    """Answer to one request."""

    status: int
    kind: str
    body: str


class Reporter(Protocol):
    """Function that makes a report."""

    def __call__(self, *, with_totals: bool = ...) -> Report:
        """Return a report, with the rows of the last hour's minutes if asked for: they are the most expensive part."""


def open_page(address: str, report: Reporter) -> Listener:
    """Serve the status page at unix:PATH, or at HOST:PORT of loopback, where port 0 is any.

    Raises:
        ConfigError: it cannot listen there.
    """
    try:
        listening, hosts = _listen(address)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"listen at {address}: {getattr(error, 'strerror', None) or error}",
            hint=_DROP_IN
            if getattr(error, "errno", None) == errno.EPERM
            else "Choose another `listen` in [status], or stop the process that listens there.",
        ) from error
    return Listener(
        listening,
        partial(_serve, hosts, report),
        name="page",
        is_complete=lambda request: b"\n\r\n" in request or b"\n\n" in request,
        most_bytes=HEADER_BYTES,
        most_threads=MOST_THREADS,
    )


def _listen(address: str) -> tuple[socket.socket, frozenset[str]]:
    """Listen at an address; return the socket, and the names of this server."""
    if address.startswith("unix:"):
        return UnixSocket(address.removeprefix("unix:"), mode=MODE), LOOPBACK | {"shipper"}
    host, _, port = address.rpartition(":")
    if host == "[::1]":
        return socket.create_server(("::1", int(port)), family=socket.AF_INET6), LOOPBACK
    return socket.create_server(("127.0.0.1", int(port))), LOOPBACK


def _serve(hosts: frozenset[str], report: Reporter, request: bytes, _: Send) -> bytes:
    try:
        return respond(request, hosts, report)
    except Exception:  # noqa: BLE001 - a bug ends this request alone
        logger().error("page.failed", error="answer request: a bug", exc_info=True)
        return _response(Answer(500, _TEXT, "a bug: see page.failed in the log\n"))


class _Rejected(Exception):
    def __init__(self, status: HTTPStatus, words: str = "rejected") -> None:
        super().__init__(words)
        self.status, self.words = status, words


def respond(request: bytes, hosts: frozenset[str], report: Reporter) -> bytes:
    """Return the response to a request, which begins with its header; hosts are the names of this server.

    It answers in one line where it rejects, and repeats nothing of the request.
    """
    try:
        method, target = _parse(request, hosts)
    except _Rejected as rejected:
        return _response(Answer(rejected.status, _TEXT, f"{rejected.words}\n"))
    path, _, query = target.partition("?")
    return _response(answer(path, query, report), has_body=method == "GET")


def _parse(request: bytes, hosts: frozenset[str]) -> tuple[str, str]:
    """Return method and target."""
    # the header, complete and within its limits
    end = _END.search(request)
    first, *lines = (request[: end.start()] if end else request).decode("latin-1").replace("\r\n", "\n").split("\n")
    if len(first) > LINE_BYTES:
        raise _Rejected(HTTPStatus.REQUEST_URI_TOO_LONG)
    if (end.end() if end else len(request)) > HEADER_BYTES:
        raise _Rejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    # its syntax
    line, fields = _LINE.fullmatch(first), [field for one in lines if (field := _HEADER.fullmatch(one))]
    if end is None or line is None or len(fields) < len(lines):
        raise _Rejected(HTTPStatus.BAD_REQUEST)
    method, target = line.groups()
    if method not in {"GET", "HEAD"}:
        raise _Rejected(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD only")

    # its host: a web page whose name resolves to this server must not read from it (DNS rebinding)
    names = [field[2].strip().lower() for field in fields if field[1].lower() == "host"]
    if len(names) > 1:
        raise _Rejected(HTTPStatus.BAD_REQUEST)
    if any(name and re.sub(r":[0-9]*$", "", name) not in hosts for name in names):
        raise _Rejected(HTTPStatus.MISDIRECTED_REQUEST, f"wrong host; use one of: {', '.join(sorted(hosts))}")
    return method, target


def answer(path: str, query: str, report: Reporter) -> Answer:
    """Return the answer to GET of a path."""
    if path not in _PATHS:
        return Answer(404, _TEXT, f"not found; known paths: {' '.join(_PATHS)}\n")
    try:
        return _PATHS[path](report(with_totals=path in _WITH_TOTALS), query)
    except ShipperError as error:
        return Answer(503, _TEXT, f"{error}\n{error.hint or ''}\n")


def _livez(report: Report) -> Answer:
    """Say whether all components make progress; a restart may fix one, but no dead Carbon or database."""
    stalled = "".join(f"{_line(reason)}\n" for reason in report.stalled)
    return Answer(503 if stalled else 200, _TEXT, stalled or "ok\n")


def _readyz(report: Report, *, is_verbose: bool) -> Answer:
    """Say whether the service is healthy, by its report; if not, always in detail."""
    if report.is_ready and not is_verbose:
        return Answer(200, _TEXT, "; ".join(["ok", *report.remarks()]) + "\n")
    lines = "".join(
        f"[+]{_line(name)} ok\n" if reason is None else f"[-]{_line(name)} failed: {_line(reason)}\n"
        for name, reason in report.checks()
    )
    status, verdict = (200, "passed") if report.is_ready else (503, "failed")
    return Answer(status, _TEXT, f"{lines}readyz check {verdict}\n")


def _line(text: str) -> str:
    return " ".join(text.split())


_PATHS: dict[str, Callable[[Report, str], Answer]] = {
    "/": lambda report, _: Answer(200, "text/html; charset=utf-8", page(report)),
    "/livez": lambda report, _: _livez(report),
    "/readyz": lambda report, query: _readyz(report, is_verbose="verbose" in query.split("&")),
    "/metrics": lambda report, _: Answer(200, prometheus.CONTENT_TYPE, prometheus.metrics(report)),
    "/status": lambda report, _: Answer(200, "application/json", json.dumps(report.document(), indent=1) + "\n"),
}
_WITH_TOTALS = {"/", "/status"}


def _response(reply: Answer, *, has_body: bool = True) -> bytes:
    body = visible(reply.body).encode()
    allowed = {"Allow": "GET, HEAD"} if reply.status == HTTPStatus.METHOD_NOT_ALLOWED else {}
    headers = {**_HEADERS, "Content-Type": reply.kind, "Content-Length": str(len(body)), **allowed}
    lines = [f"HTTP/1.0 {reply.status:d} {HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + (body if has_body else b"")
