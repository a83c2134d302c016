"""Kill shipper once at every line that it runs: killer.py CONFIG PORT DATABASE [EVERY].

One process imports shipper and forks a child for each kill, which runs `once` under a tracer and kills itself at
its line. All children use one state, so that each begins with the state of a killed one. Lines that only such a child
reaches are reported through a pipe, and are killed at, too. With a state in a database, the lines are those that keep
it there, and with EVERY one of so many lines.
"""

import json
import os
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pymysql

import shipper
from shipper.config.load import Config, load
from shipper.core.errors import StateBusy
from shipper.log import logger as journal
from shipper.service.once import once

ROOT = Path(shipper.__file__).parent
MODULES = (
    *("core/capture", "core/delivery/courier", "core/delivery/proofs", "core/rows/folding", "core/rows/totals"),
    "core/rows/zero_fill",
    *("graphite/carbon", "runtime/delivery", "runtime/pipeline", "runtime/worker", "service/once", "state/*"),
)
"""Modules that store or send something, or decide about it; where shipper only reads, a kill has no effect."""
REMOTE = (
    *(
        "graphite/receivers",
        "runtime/leadership",
        "state/database",
        "state/remote/mirror",
        "state/remote/database",
        "state/remote/working_copy",
    ),
)
"""The modules that keep a state in a database."""
ROWS = [("login", "success"), ("logout", "success"), ("login", "failure")]
LOOK_EVERY = 20  # iterations
INSERT = "INSERT INTO audit_trail (created_at, action, outcome) VALUES (UTC_TIMESTAMP(6), %s, %s)"
INSERT_AT = "INSERT INTO audit_trail (created_at, action, outcome, id) VALUES (UTC_TIMESTAMP(6), %s, %s, %s)"
RECORDED = "SELECT COALESCE(SUM(value), 0) FROM total JOIN series ON series.id = total.series WHERE job = ?"

Location = tuple[str, int]


class Tracer:
    """A tracer that counts the lines that run, reports new ones, and kills the process at one of them."""

    files: Collection[str] = ()
    """Files of interest."""

    def __init__(self, target: Location | None, occurrence: int, known: Collection[Location], pipe: int) -> None:
        self.runs = Counter[Location]()
        self._target, self._occurrence = target, occurrence
        self._known, self._pipe = known, pipe

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Trace each call, and each line of the files of interest."""
        if event == "call":
            return self if frame.f_code.co_filename in self.files else None
        if event == "line":
            self._count((frame.f_code.co_filename, frame.f_lineno))
        return self

    def _count(self, location: Location) -> None:
        self.runs[location] += 1
        if self.runs[location] == 1 and location not in self._known:
            os.write(self._pipe, f"{location[0]}\t{location[1]}\n".encode())
        if location == self._target and self.runs[location] == self._occurrence:
            os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """The lines to kill at, and the results."""

    def __init__(self, config: Config, port: int, database: str, every: int = 1) -> None:
        self._config, self._every = config, every
        self._rows = pymysql.connect(host="127.0.0.1", port=port, user="root", database=database, autocommit=True)
        self.inserted = self.kills = self.survived = 0
        self._left_out = 0
        self._known: set[Location] = set()
        self._waiting: deque[tuple[Location, int]] = deque()
        modules = REMOTE if config.state.database else MODULES
        files = {name: {str(file) for file in ROOT.glob(f"{name}.py")} for name in modules}
        if moved := [name for name in modules if not files[name]]:
            raise SystemExit(f"no such modules: {', '.join(moved)}")
        Tracer.files = frozenset(file for found in files.values() for file in found)

    def run(self) -> None:
        """Run once to the end, and then once for each line."""
        self._insert()
        self._rehearse()
        while self._waiting:
            target, occurrence = self._waiting.popleft()
            self._insert()
            if self._killed_at(target, occurrence):
                self.kills += 1
            else:
                self.survived += 1
            if (self.kills + self.survived) % LOOK_EVERY == 0:
                self._look(target)

    def report(self) -> dict[str, int]:
        """Return the number of kills."""
        return {"lines": len(self._known), "kills": self.kills, "survived": self.survived}

    def _insert(self) -> None:
        """Add rows, one of them late: its id was left out the last time."""
        with self._rows.cursor() as cursor:
            if self._left_out:
                cursor.execute(INSERT_AT, (*ROWS[0], self._left_out))
                self.inserted += 1
            cursor.executemany(INSERT, ROWS)
            self._rows.begin()
            cursor.execute(INSERT, ROWS[0])
            self._left_out = cursor.lastrowid
            self._rows.rollback()
            cursor.executemany(INSERT, ROWS)
        self.inserted += 2 * len(ROWS)

    def _rehearse(self) -> None:
        """Run once to the end: to count the lines and how often each runs, and to do all imports."""
        with Path(os.devnull).open("wb") as nowhere:
            tracer = Tracer(None, 0, (), nowhere.fileno())
            _traced(self._config, tracer)
        for location, times in sorted(tracer.runs.items()):
            self._learn(location)
            if times > 1 and self._every == 1:
                self._waiting.append((location, times))

    def _learn(self, location: Location) -> None:
        if location not in self._known:
            self._known.add(location)
            if len(self._known) % self._every == 0:
                self._waiting.append((location, 1))

    def _killed_at(self, target: Location, occurrence: int) -> bool:
        """Fork, add the new lines that the child runs, and return whether it was killed."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _child(self._config, Tracer(target, occurrence, self._known, writing))
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as lines:
            for file, line in [text.split() for text in lines]:
                self._learn((file, int(line)))
        _, status = os.waitpid(child, 0)
        if status not in {0, signal.SIGKILL}:
            raise SystemExit(f"to be killed at {target}, run {occurrence}: it ended with {status}")
        return status != 0

    def _look(self, target: Location) -> None:
        """Check that no job's totals have more rows than the table; a database is compared at the end."""
        if self._config.state.database:
            return
        with closing(sqlite3.connect(self._config.state.path)) as state:
            for job in self._config.jobs:
                ((recorded,),) = state.execute(RECORDED, (job,)).fetchall()
                if recorded > self.inserted:
                    raise SystemExit(f"{job} has {recorded} of {self.inserted} rows, after a kill at {target}")


def _traced(config: Config, tracer: Tracer) -> bool:
    while True:
        sys.settrace(tracer)
        try:
            return once(config, [])
        except StateBusy as error:  # the server has not noticed yet that the process before was killed
            if "works with it" not in str(error):
                raise
            time.sleep(0.02)
        finally:
            sys.settrace(None)


def _child(config: Config, tracer: Tracer) -> NoReturn:
    """Run to the end, or to the kill; close nothing of the parent."""
    code = 1
    try:
        code = 0 if _traced(config, tracer) else 3
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


if __name__ == "__main__":
    file, port, database, *every = sys.argv[1:]
    journal.start()
    killer = Killer(load(file), int(port), database, *map(int, every))
    killer.run()
    sys.stdout.write(json.dumps(killer.report()))
