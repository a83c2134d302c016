"""Whatever fails in the log, the status and the page, counting and delivering continue; else the process ends."""

import fcntl
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from harness import PATIENCE_SECONDS, Shipper, wait_for
from hostile.rogue import BLOCK, Rogue

from shipper.service.control import ask

JOB = """
[job.events]
table = "audit_trail"
id = "id"
time = "created_at"
name = "events.{measure}"
"""
DYING = str(Path(__file__).parents[1] / "dying.py")


class Sink:
    """A Carbon that keeps the last value of each path and time."""

    def __init__(self) -> None:
        self._values: dict[tuple[bytes, bytes], float] = {}
        self._mutex = threading.Lock()
        self._rogue = Rogue(self._take)
        self.port, self.close = self._rogue.port, self._rogue.close

    @property
    def total(self) -> float:
        """The sum of the job's values."""
        with self._mutex:
            return sum(value for (path, _), value in self._values.items() if path == b"audit.events.count")

    def _take(self, client: socket.socket) -> None:
        text = b""
        while part := client.recv(BLOCK):
            text += part
        lines = text.rpartition(b"\n")[0].splitlines()  # a killed process may leave a part of one
        with self._mutex:
            self._values |= {(path, at): float(value) for path, value, at in map(bytes.split, lines)}


class Ends:
    """A table, a Carbon, and shipper between."""

    def __init__(self, folder: Path) -> None:
        self.sink = Sink()
        self._table = folder / "app.db"
        with closing(sqlite3.connect(self._table)) as connection:
            connection.execute("CREATE TABLE audit_trail (id INTEGER PRIMARY KEY, created_at TEXT)")
        self.app = Shipper(folder, url=f"sqlite:///{self._table}", port=self.sink.port, jobs=JOB)
        self.process: subprocess.Popen[bytes] | None = None
        self.rows = 0

    def start(self, *command: str, stderr: int | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start the daemon, by the words before `-m shipper.cli run`."""
        words = [*command, "run", "--config", str(self.app.config)]
        self.process = subprocess.Popen(words, stderr=stderr, env={**os.environ, **environment})
        return self.process

    def insert(self, rows: int) -> None:
        """Commit rows."""
        with closing(sqlite3.connect(self._table)) as connection, connection:
            connection.executemany("INSERT INTO audit_trail (created_at) VALUES (datetime('now'))", [()] * rows)
        self.rows += rows

    def counts(self) -> None:
        """Wait until all rows, and some more, are delivered."""
        for _ in range(2):
            self.insert(3)
            wait_for(lambda: self.sink.total == self.rows, "all rows")

    def close(self) -> None:
        """End both."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.sink.close()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    """Give a table without rows, and a daemon that is not started."""
    ends = Ends(tmp_path)
    yield ends
    ends.close()


CLI = (sys.executable, "-m", "shipper.cli")


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_stderr_that_takes_nothing(ends: Ends, stderr: str) -> None:
    """Rows are counted and delivered with a closed stderr or a full disk behind it, and the stop is clean.

    Mutant: write the log to stderr itself. (Before, the process lived and counted nothing.)
    """
    process = ends.start("sh", "-c", f'exec "$@" {stderr}', "sh", *CLI)
    ends.counts()
    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE_SECONDS) == 0


def test_log_reader(ends: Ends, tmp_path: Path) -> None:
    """A reader of the log that hangs and one that ends stop nothing; the lines are there when it reads again.

    Neither does a systemd that does not listen, nor a page whose port is taken: it is opened when the port is free.
    Mutant: write the log on the threads that log; wait for systemd; open the page once.
    """
    log, end = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    os.write(end, b"." * 4096)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        systemd.bind(str(tmp_path / "notify"))
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"x", str(tmp_path / "notify"))
        port = taken.getsockname()[1]
        ends.app.config.write_text(f'{ends.app.config.read_text()}\n[status]\nlisten = "127.0.0.1:{port}"\n')
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        process = ends.start(*CLI, stderr=end, **environment)
        os.close(end)
        ends.counts()

    # the reader reads again
    with os.fdopen(log, "rb") as reader:
        assert reader.read(4096) == b"." * 4096
        for event in (b"page.failed", b"service.started", b"delivery.finished", b"page.recovered"):
            while event not in (line := reader.readline()):
                assert line, event
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=PATIENCE_SECONDS) as answer:
        assert answer.read() == b"ok\n"

    # it has ended
    ends.counts()
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("part", ["main", "courier", "scheduler"])
def test_dead_part_ends_the_process(ends: Ends, part: str) -> None:
    """A process whose part has died of a bug ends with a code that systemd restarts, and the log has the traceback.

    Mutant: let the exception end the thread.
    """
    process = ends.start(sys.executable, DYING, part, stderr=subprocess.PIPE)
    ends.insert(1)
    _, log = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 1
    assert b"event=service.failed" in log
    assert b"ZeroDivisionError" in log


def test_bug_in_a_report(ends: Ends) -> None:
    """A bug in what only reports is logged, and counting continues.

    Mutant: let it end the main thread, or deliveries.
    """
    with ends.app.log.open("wb") as log:
        ends.start(sys.executable, DYING, "report", stderr=log.fileno())
    wait_for(lambda: {"target=systemd", "target=Graphite"} <= {*ends.app.text().split()}, "both reports")
    ends.counts()


def test_bug_in_a_round(ends: Ends) -> None:
    """A bug beside the captures of a table stops its jobs, and the status shows it. Mutant: leave it to the pool."""
    with ends.app.log.open("wb") as log:
        ends.start(sys.executable, DYING, "round", stderr=log.fileno())
    wait_for(lambda: "job.stopped" in ends.app.events(), "job.stopped")
    control = str(ends.app.folder / "control.sock")

    assert [job["state"] for job in ask(control, "status", timeout=PATIENCE_SECONDS)["jobs"]] == ["stopped"]


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("shipper admin schema >/dev/full", 1, "error: write results: No space left on device\n"),
        ("shipper --help >/dev/full", 1, "error: write results: No space left on device\n"),
        ("shipper admin schema >&-", 0, ""),
        ("shipper status --config /nowhere 2>/dev/full", 78, ""),
        ("shipper status --config /nowhere 2>&- >&- <&-", 78, ""),
        ('{ shipper admin schema; echo "code $?" >&2; } | true', 0, "code 1\n"),
    ],
)
def test_streams_of_commands(command: str, code: int, message: str) -> None:
    """A command whose output goes nowhere ends with its code, one line at most, and no traceback."""
    words = f'shipper() {{ "{sys.executable}" -m shipper.cli "$@"; }}; {command}'
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)

    assert (done.returncode, done.stderr.partition("  hint")[0]) == (code, message)
