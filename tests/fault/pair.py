"""Two machines with one state in PostgreSQL: whichever leads is the daemon of a stage."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import ENVIRONMENT, PATIENCE_SECONDS, Shipper, wait_for

from shipper.state.remote.mirror import load
from shipper.state.schema import prepare

if TYPE_CHECKING:
    import psycopg

EX_TEMPFAIL = 75
RESTART_SECONDS = 0.5  # of a service manager
LEASE = "5s"


class Machine:
    """A daemon, which is started again when it ends by itself, as systemd does."""

    def __init__(self, folder: Path, text: str, program: Sequence[str]) -> None:
        folder.mkdir(parents=True)
        self.folder, self.program = folder, program
        self.within: Sequence[str] = ()
        """Beginning of the command that starts it."""
        self.config = folder / "shipper.toml"
        self.config.write_text(text)
        self.log = folder / "shipper.log"
        self.place = folder / "pause"
        """File with the place where the daemon stops itself."""
        self.codes: list[int] = []
        """Exit codes of processes that ended by themselves."""
        self._process: subprocess.Popen[bytes] | None = None
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def start(self) -> None:
        """Start the daemon."""
        with self._mutex:
            self._start()

    def send(self, number: int) -> None:
        """Send the daemon a signal."""
        with self._mutex:
            if self._process is not None:
                self._process.send_signal(number)

    @property
    def is_paused(self) -> bool:
        """Whether the daemon is stopped by a signal."""
        with self._mutex:
            process = self._process
        with suppress(OSError):
            state = Path(f"/proc/{process.pid}/stat").read_text() if process else ""
            return state.rpartition(")")[2].split()[:1] == ["T"]
        return False

    def restart(self) -> None:
        """Kill the daemon, and start it again."""
        self.stop(signal.SIGKILL)
        self.start()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the daemon, and return its exit code; it is not started again."""
        with self._mutex:
            process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        return process.wait(PATIENCE_SECONDS)

    def leads(self) -> bool:
        """Whether the daemon works, or did before it was stopped."""
        return self._is_last("service.started")

    def stands_by(self) -> bool:
        """Whether the daemon stands by, or did before it was stopped."""
        return self._is_last("service.standing_by")

    def _is_last(self, state: str) -> bool:
        """Whether this is the last line about its work in the log; an error ends a process that is about to lead."""
        text = self.log.read_text() if self.log.exists() else ""
        states = re.findall(
            "event=(service.started|service.standing_by|service.stopping|lease.lost)|^(error): ", text, re.MULTILINE
        )
        return self._process is not None and states[-1:] == [(state, "")]

    def close(self) -> None:
        """End everything."""
        self.stop(signal.SIGKILL)
        self._ended.set()
        self._watcher.join()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            command = [*self.within, sys.executable, *self.program, "run", "--config", str(self.config)]
            self._process = subprocess.Popen(command, stderr=log, env={**os.environ, **ENVIRONMENT})

    def _watch(self) -> None:
        while not self._ended.wait(RESTART_SECONDS):
            with self._mutex:
                if self._process is not None and (code := self._process.poll()) is not None:
                    self.codes.append(code)
                    self._start()


class Pair(Shipper):
    """Two machines, of which one leads."""

    def __init__(
        self,
        app: Shipper,
        database: str,
        connect: Callable[[], "psycopg.Connection[tuple[Any, ...]]"],
        *,
        program: Sequence[str] = ("-m", "shipper.cli"),
        lease: str = LEASE,
        links: Sequence[Mapping[str, str]] = ({}, {}),
    ) -> None:
        """Take the configuration of a daemon, and let its state be in a database instead.

        Each machine gets text as in `links` replaced: ways of its own to servers.
        """
        self.log = app.log  # of neither
        self._connect = connect
        self._final: Path | None = None
        self.config = app.config
        self.machines = []
        for number in (1, 2):
            folder = app.folder / f"machine{number}"
            state = f'path = "{folder}/shipper.db"\ndatabase = "{database}"\nlease = "{lease}"'
            text = app.config.read_text().replace(f'path = "{app.folder}/shipper.db"', state)
            for before, after in links[number - 1].items():
                assert before in text
                text = text.replace(before, after)
            self.machines.append(Machine(folder, text, program))

    def start(self) -> None:
        """Start one, then the other, and return once one leads and the other stands by."""
        first, second = self.machines
        first.start()
        wait_for(first.leads, "the first machine leads")
        second.start()
        wait_for(lambda: self._leader is not None, "the second machine stands by")

    @property
    def leader(self) -> Machine:
        """Return the machine that leads, once the other one stands by."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (leader := self._leader) is None:
            assert time.monotonic() < deadline, "no machine leads while the other one stands by"
            time.sleep(0.1)
        return leader

    @property
    def _leader(self) -> Machine | None:
        leaders = [machine for machine in self.machines if machine.leads() and not machine.is_paused]
        others = [machine for machine in self.machines if machine.stands_by() and not machine.is_paused]
        return leaders[0] if len(leaders) == len(others) == 1 else None

    @property
    def roles(self) -> tuple[Machine, Machine]:
        """Return the machine that leads, and the other one; the leader may have lost its lease without knowing."""
        leader = self.leader
        return leader, next(machine for machine in self.machines if machine is not leader)

    def pause_at(self, place: str, *, kills: bool = False) -> Machine:
        """Let the machine that reaches a place first stop there, and return it; see pausing.py.

        If kills is true, leaders are killed until then.
        """
        for machine in self.machines:
            machine.place.write_text(place)

        def is_reached() -> bool:
            if kills and (leader := self._leader):  # which one is not certain after a pause of one lease
                leader.restart()
            return any(machine.is_paused for machine in self.machines)

        wait_for(is_reached, f"a machine stops at {place}")
        for machine in self.machines:
            machine.place.unlink(missing_ok=True)
        return next(machine for machine in self.machines if machine.is_paused)

    @property
    def folder(self) -> Path:  # type: ignore[override]
        """Return the directory of the leader's working copy; after the end, of the state in the database."""
        return self._final or self.leader.folder

    def text(self) -> str:
        """Return both logs."""
        return "".join(machine.log.read_text() for machine in self.machines if machine.log.exists())

    def events(self) -> list[str]:
        """Return the events of both, not in order."""
        return [event for machine in self.machines for event in events_of(machine.log)]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End both, and keep the state; return the first exit code that is not 0."""
        if self._final is not None:
            return 0
        if number == signal.SIGTERM:  # a process that is about to start knows no signal yet
            assert self.leader in self.machines
        codes = [machine.stop(number) for machine in self.machines]
        if number == signal.SIGKILL:  # the fault has failed
            return 0
        ended = {code for machine in self.machines for code in machine.codes}
        assert ended <= {EX_TEMPFAIL}, f"{ended}: {self.text()[-4000:]}"
        self._final = self.config.parent / "final"
        self._final.mkdir()
        with self._connect() as database:
            rows = database.execute('SELECT "table", "values" FROM shipper.state ORDER BY 1').fetchall()
        with closing(sqlite3.connect(self._final / "shipper.db", isolation_level=None)) as connection:
            prepare(connection, "final")
            connection.execute("PRAGMA foreign_keys = OFF")  # the tables are not in their order
            load(connection, rows)
        return next((code for code in codes if code), 0)

    def close(self) -> None:
        """End everything."""
        for machine in self.machines:
            machine.close()


def events_of(log: Path) -> list[str]:
    """Return the events of a log, in order."""
    text = log.read_text() if log.exists() else ""
    return [word[6:] for line in text.splitlines() for word in line.split() if word.startswith("event=")]


def takes_over(machine: Machine, *, since: float) -> float:
    """Wait until a machine leads, and return the seconds since then."""
    wait_for(machine.leads, "the other machine leads")
    return time.monotonic() - since
