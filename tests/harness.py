"""The program as an operator has it: a configuration file and a subprocess."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import fresh

from shipper.demo.carbon_cache import CarbonCache

PATIENCE_SECONDS = 120.0
"""A wait this long has failed; machines that test much else take long for everything."""

ENVIRONMENT = {"MALLOC_ARENA_MAX": "2"}
"""Variable of the service's unit by which it needs less memory."""

CONFIG = """\
[state]
path = "{folder}/shipper.db"

[graphite]
port = {port}
prefix = "audit"
retentions = "1m:1d"
timeout = "5s"

[source.app]
url = "{url}"
timeout = "10s"

[defaults]
every = "1s"
start = "beginning"

{jobs}
"""

EVENTS = """
[job.events]
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
name = "events.{action}.{measure}"
"""


class Shipper:
    """`shipper` with a separate configuration."""

    def __init__(
        self,
        folder: Path,
        *,
        url: str,
        port: int,
        jobs: str = EVENTS,
        program: Sequence[str] = ("-m", "shipper.cli"),
    ) -> None:
        self.folder = folder
        self._program = program
        self.config = folder / "shipper.toml"
        self.config.write_text(CONFIG.format(folder=folder, port=port, url=url, jobs=jobs))
        self.log = folder / "shipper.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the daemon's process."""
        assert self._process is not None
        return self._process.pid

    def call(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return shipper(*command.split(), "--config", str(self.config), *arguments)

    def configure(self, before: str, after: str) -> None:
        """Change the configuration."""
        text = self.config.read_text()
        assert before in text
        self.config.write_text(text.replace(before, after))

    def stored(self, statement: str) -> list[Any]:
        """Query the state."""
        with closing(sqlite3.connect(self.folder / "shipper.db")) as connection:
            return connection.execute(statement).fetchall()

    def captured(self) -> dict[str, int]:
        """Return the captured id of each job."""
        return {job: int(upto) for job, upto in self.stored("SELECT job, captured FROM watermark")}

    def start(self) -> None:
        """Start the daemon, and return once it has logged its start."""
        seen = self.events().count("service.started")
        self.launch()
        wait_for(lambda: self.events().count("service.started") > seen, "service.started")

    def launch(self) -> None:
        """Start the daemon, and wait for nothing."""
        with self.log.open("ab") as log:
            command = [sys.executable, *self._program, "run", "--config", str(self.config)]
            self._process = subprocess.Popen(command, stderr=log, env={**os.environ, **ENVIRONMENT})

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the daemon a signal, and return its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait until the daemon ends, and return its exit code."""
        code = self._process.wait(PATIENCE_SECONDS) if self._process is not None else 0
        self._process = None
        return code

    def text(self) -> str:
        """Return the daemon's log."""
        return self.log.read_text() if self.log.exists() else ""

    def events(self) -> list[str]:
        """Return the events of the daemon's log, in order."""
        return [word[6:] for line in self.text().splitlines() for word in line.split() if word.startswith("event=")]


def shipper(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end; with variables of the environment, in a process that is no fork."""
    if not environment:
        return fresh.run("shipper.cli", arguments)
    command = [sys.executable, "-m", "shipper.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment}
    )


def total(carbon: CarbonCache, path: str = "audit.events.login.count") -> float:
    """Return the sum of a series in Whisper."""
    return sum(carbon.sums().get(path, {}).values())


def wait_for(holds: Callable[[], bool], what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a condition is true, or fail."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for: {what}")
        time.sleep(0.1)
