"""Private receivers before or instead of a carbon-cache: a carbon-relay, and a line receiver that tests control."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

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
