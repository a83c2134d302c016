"""HTTP server on a unix socket or on loopback: GET only, without cookies, scripts and sessions.

Each connection gets one answer (HTTP/1.0), so that a request has one end for every reader.
"""

import errno
import re
import socket
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address

from shipper.core.errors import ConfigError, visible
from shipper.log.logger import logger
from shipper.sockets.listener import Listener, Send
from shipper.sockets.unix_socket import UnixSocket
from shipper.status.page.routes import Answer, answer
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


class Page:
    """Server of the status page, until it is closed."""

    def __init__(self, address: str, report: Callable[[], Report]) -> None:
        """Listen at unix:PATH, or at HOST:PORT of loopback, where port 0 is any.

        Raises:
            ConfigError: it cannot listen there.
        """
        self._report = report
        self._unix: UnixSocket | None = None
        try:
            if address.startswith("unix:"):
                self._unix = UnixSocket(address.removeprefix("unix:"), mode=MODE)
                listening, self._label, self._hosts = self._unix.socket, address, LOOPBACK | {"shipper"}
            else:
                listening, self._label, self._hosts = *_tcp(address), LOOPBACK
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"listen at {address}: {getattr(error, 'strerror', None) or error}",
                hint=_DROP_IN
                if getattr(error, "errno", None) == errno.EPERM
                else "Choose another `listen` in [status], or stop the process that listens there.",
            ) from error
        self._listener = Listener(
            listening,
            self._serve,
            name="page",
            is_complete=lambda request: b"\n\r\n" in request or b"\n\n" in request,
            most_bytes=HEADER_BYTES,
            most_threads=MOST_THREADS,
        )

    def __str__(self) -> str:
        return self._label

    @property
    def is_reachable(self) -> bool:
        """Whether it still answers, at the path where it began."""
        return self._listener.is_alive and (self._unix is None or self._unix.is_there)

    def close(self) -> None:
        """Stop answering, and remove the socket."""
        if self._unix is not None:
            self._unix.remove()
        self._listener.close()

    def _serve(self, request: bytes, _: Send) -> bytes:
        try:
            return respond(request, self._hosts, self._report)
        except Exception:  # noqa: BLE001 - a bug ends this request alone
            logger().error("page.failed", error="answer request: a bug", exc_info=True)
            return _response(Answer(500, _TEXT, "a bug: see the log\n"))


class _Rejected(Exception):
    def __init__(self, status: HTTPStatus, words: str = "rejected") -> None:
        super().__init__(words)
        self.status, self.words = status, words


def respond(request: bytes, hosts: frozenset[str], report: Callable[[], Report]) -> bytes:
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


def _response(reply: Answer, *, has_body: bool = True) -> bytes:
    body = visible(reply.body).encode()
    allowed = {"Allow": "GET, HEAD"} if reply.status == HTTPStatus.METHOD_NOT_ALLOWED else {}
    headers = {**_HEADERS, "Content-Type": reply.kind, "Content-Length": str(len(body)), **allowed}
    lines = [f"HTTP/1.0 {reply.status:d} {HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + (body if has_body else b"")


def _tcp(address: str) -> tuple[socket.socket, str]:
    """Listen at HOST:PORT; return the socket, and the address with the port that the kernel has chosen."""
    host, _, port = address.rpartition(":")
    parsed = ip_address(host.strip("[]").replace("localhost", "127.0.0.1"))
    family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET  # noqa: PLR2004 - IPv6
    listening = socket.create_server((str(parsed), int(port)), family=family)
    return listening, f"{host}:{listening.getsockname()[1]}"
