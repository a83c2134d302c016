"""Processes that work for a scenario, to their end or until they are stopped; and what the kernel says of them."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple, Self

LOOK_SECONDS = 0.01
PAUSE_SECONDS = 0.5  # between what is done meanwhile
QUIET_SECONDS, BUSY_SECONDS = 0.2, 3.0
STOP_SECONDS = 90.0
PATIENCE_SECONDS = 150.0
TICKS = os.sysconf("SC_CLK_TCK")  # a second: proc(5), stat


class Ran(NamedTuple):
    """What became of a process."""

    began: float
    """Epoch seconds."""
    seconds: float
    peak: float
    """The most memory that it has had, MiB."""
    log: str


def run(command: Sequence[str]) -> float:
    """Run a command to its end, and return the seconds that it took."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    _check(command, done.returncode, done.stderr)
    return seconds


def watched(command: Sequence[str]) -> Ran:
    """Run a command to its end, and look at its memory all the time."""
    peak, started = 0.0, time.time()
    with TemporaryFile("w+") as log:
        began = time.perf_counter()
        with subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                # not by wait4: its maximum begins with what the parent had
                peak = max(peak, _status(process.pid, "VmHWM"))
                time.sleep(LOOK_SECONDS)
        seconds = time.perf_counter() - began
        log.seek(0)
        text = log.read()
    _check(command, process.returncode, text)
    return Ran(started, seconds, peak, text)


def _check(command: Sequence[str], code: int, error: str) -> None:
    if code:
        raise RuntimeError(f"{' '.join(command)}: {error[-2000:]}")


class Service:
    """A process that runs until it is stopped."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """Run nothing yet."""
        self._command, self._log = command, log

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def wait(self, seconds: float, doing: Callable[[], object] = lambda: None) -> None:
        """Let it work for so long, and no longer, which is what is measured, while something is done."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            doing()
            time.sleep(max(0.0, min(PAUSE_SECONDS, left, end - time.monotonic())))
        self.check()

    def until(self, event: str, times: int, doing: Callable[[], object] = lambda: None) -> None:
        """Let it work until it has told an event so often."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.count(event) < times:
            assert time.monotonic() < deadline, self.text()[-2000:]
            self.wait(PAUSE_SECONDS, doing)

    def between_rounds(self, event: str, doing: Callable[[], object]) -> None:
        """Let it work until it has not told an event for a moment; if it never rests, not for long."""
        deadline, told_before = time.monotonic() + BUSY_SECONDS, -1
        while (now := self.count(event)) != told_before and time.monotonic() < deadline:
            told_before = now
            doing()
            time.sleep(QUIET_SECONDS)

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def check(self) -> None:
        """See that it has not ended."""
        assert self._process.poll() is None, self.text()[-2000:]

    def cpu(self) -> float:
        """Return the processor time that it has used, seconds."""
        return cpu_of(self._process.pid)

    def memory(self) -> float:
        """Return its resident memory, MiB."""
        return _status(self._process.pid, "VmRSS")

    def text(self) -> str:
        """Return its log."""
        return self._log.read_text(errors="replace")

    def count(self, event: str) -> int:
        """Return how often it told an event."""
        return self.text().count(f"event={event}")


def told(log: str, event: str) -> Iterator[dict[str, str]]:
    """Find an event in shipper's log, as key-values."""
    for line in log.splitlines():
        if f"event={event}" in line:
            yield dict(word.partition("=")[::2] for word in line.split())


def when(entry: dict[str, str]) -> float:
    """Return when it was told, epoch seconds."""
    return datetime.fromisoformat(entry["timestamp"]).timestamp()


def cpu_of(pid: int) -> float:
    """Return the processor time that a process has used, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _status(pid: int, name: str) -> float:
    """Return a number of proc(5), status, MiB; 0 where there is none, as of a process that ends just now."""
    try:
        found = Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2].split()
    except FileNotFoundError:
        return 0.0
    return int(found[0]) / 1024 if found else 0.0
