"""Private receivers before or instead of a carbon-cache: a carbon-relay, and receivers that tests control."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

from shipper.demo.carbon_cache import CarbonCache

_RELAY_CONF = """\
[relay]
USER =
CONF_DIR = {root}/conf
LOG_DIR = {root}/log
PID_DIR = {root}
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {port}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = 0
RELAY_METHOD = consistent-hashing
DESTINATIONS = 127.0.0.1:{destination}:a
DESTINATION_PROTOCOL = line
CARBON_METRIC_INTERVAL = 0
"""


class CarbonRelay(CarbonCache):
    """A private carbon-relay before a carbon-cache."""

    def __init__(self, root: Path, *, destination: int) -> None:
        """Create its files below root, for the port of the carbon-cache; `start` runs it."""
        super().__init__(root, retentions="1m:1d")
        self._command = [part.replace("carbon-cache", "carbon-relay") for part in self._command]
        (root / "conf/carbon.conf").write_text(_RELAY_CONF.format(root=root, port=self.port, destination=destination))


class Line:
    """A line receiver of one value after the other, which can hang as a process that is stopped: its kernel accepts."""

    def __init__(self, stored: Callable[[bytes], object], host: str = "127.0.0.1") -> None:
        """Call stored for each line."""
        self.runs = threading.Event()
        self.runs.set()
        self._stored = stored
        self._server = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            self.runs.wait()
            with suppress(ConnectionError):  # a reset, after which the kernel still has what came before
                for line in file:
                    self.runs.wait()
                    self._stored(line)
            self.runs.wait()


class Combining:
    """A receiver that keeps all values of a minute, and a render API that shows them combined, as VictoriaMetrics."""

    def __init__(self, combine: Callable[[list[float]], float]) -> None:
        """Combine the values of a minute by a function."""
        self._values: dict[tuple[str, int], list[float]] = {}
        self._combine = combine
        self._line = Line(self._store)
        self.port = self._line.port
        combining = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fields = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(combining._render(fields)).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._web.server_port}"
        threading.Thread(target=self._web.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._line.close()
        self._web.shutdown()
        self._web.server_close()

    def _store(self, line: bytes) -> None:
        path, value, slot = line.decode().split()
        self._values.setdefault((path, int(slot)), []).append(float(value))

    def _render(self, fields: dict[str, list[str]]) -> list[object]:
        (start,), (end,) = fields["from"], fields["until"]  # both are exclusive
        slots = range(int(start) // 60 * 60 + 60, int(end), 60)
        known = {path for path, _ in self._values}
        return [
            {"target": path, "datapoints": [[self._shown(path, slot), slot] for slot in slots]}
            for path in fields["target"]
            if path in known
        ]

    def _shown(self, path: str, slot: int) -> float | None:
        values = self._values.get((path, slot))
        return self._combine(values) if values else None
