"""A private carbon-cache on a free port, and its Whisper files.

The kernel chooses the port: carbon listens with SO_REUSEPORT, and may silently share a fixed port with a stranger.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from shipper.core.errors import ConfigError, TransientError

START_SECONDS = 60.0

_CARBON_CONF = """\
[cache]
STORAGE_DIR = {root}/storage
LOCAL_DATA_DIR = {root}/storage/whisper
CONF_DIR = {root}/conf
LOG_DIR = {root}/log
PID_DIR = {root}
USER =
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {port}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = 0
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = 0
ENABLE_UDP_LISTENER = False
ENABLE_TAGS = False
MAX_CACHE_SIZE = inf
MAX_UPDATES_PER_SECOND = inf
MAX_CREATES_PER_MINUTE = inf
CARBON_METRIC_INTERVAL = 0
LOG_UPDATES = False
"""
_SCHEMAS = "[all]\npattern = .*\nretentions = {retentions}\n"
_AGGREGATION = "[all]\npattern = .*\nxFilesFactor = 0\naggregationMethod = sum\n"


class CarbonCache:
    """A private carbon-cache, which keeps its port while this object lives."""

    def __init__(self, root: Path, *, retentions: str) -> None:
        """Create its files below root; `start` runs it.

        Raises:
            ConfigError: this machine has no carbon.
        """
        self._root = root
        self._command = _command()
        self._process: subprocess.Popen[bytes] | None = None
        # Bound until `close`, never listening: no stranger gets the port while carbon is down.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.port: int = self._holder.getsockname()[1]
        for folder in ("conf", "log", "storage/whisper"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "conf/carbon.conf").write_text(_CARBON_CONF.format(root=root, port=self.port))
        (root / "conf/storage-schemas.conf").write_text(_SCHEMAS.format(retentions=retentions))
        (root / "conf/storage-aggregation.conf").write_text(_AGGREGATION)

    @property
    def storage(self) -> Path:
        """Folder of its Whisper files."""
        return self._root / "storage/whisper"

    def start(self) -> None:
        """Run it, and return once it reads what a client sends."""
        pidfile = self._root / "carbon.pid"
        pidfile.unlink(missing_ok=True)  # left by a kill, it would prevent the start
        options = [f"--config={self._root}/conf/carbon.conf", f"--pidfile={pidfile}", "--nodaemon"]
        environment = {**os.environ, "GRAPHITE_ROOT": str(self._root), "PYTHONUNBUFFERED": "1"}
        with (self._root / "log/console.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*self._command, *options, "start"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._reads():
            if self._process.poll() is not None or time.monotonic() > deadline:
                output = (self._root / "log/console.log").read_text(errors="replace")[-2000:]
                raise TransientError(f"start carbon-cache: it does not run; its output:\n{output}")
            time.sleep(0.05)

    def send_signal(self, number: int) -> None:
        """Send a signal to its process."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it with a signal, and wait for its exit."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)
            self._process = None

    def close(self) -> None:
        """Kill it, and release the port."""
        self.stop(signal.SIGKILL)
        self._holder.close()

    def sums(self) -> dict[str, dict[int, float]]:
        """Return the values of the finest archives in its Whisper files, by path and slot."""
        import whisper  # noqa: PLC0415 - of the demo extra

        storage = self.storage
        sums = {}
        for file in storage.rglob("*.wsp"):
            path = ".".join(file.relative_to(storage).with_suffix("").parts)
            with suppress(whisper.CorruptWhisperFile):  # carbon is creating it
                finest = whisper.info(str(file))["archives"][0]
                step = finest["secondsPerPoint"]
                now = int(time.time()) + step  # includes the present slot
                (start, end, _), values = whisper.fetch(
                    str(file), now - finest["retention"], now=now, archiveToSelect=step
                )
                slots = zip(range(start, end, step), values, strict=True)
                sums[path] = {slot: value for slot, value in slots if value is not None}
        return sums

    def _reads(self) -> bool:
        # the port accepts before the reactor runs: only the end of the stream shows that carbon reads
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.shutdown(socket.SHUT_WR)
                return connection.recv(1) == b""
        except OSError:
            return False


def _command() -> list[str]:
    script = Path(sys.executable).with_name("carbon-cache.py")  # the demo extra, on Python 3.11
    if script.exists() and importlib.util.find_spec("carbon"):
        return [sys.executable, str(script)]
    if debian := shutil.which("carbon-cache"):
        return [debian]
    raise ConfigError(
        "no carbon-cache on this machine",
        hint="Run ./deploy/demo in a checkout, which installs one; or `apt-get install graphite-carbon`.",
    )
