"""A month of operation in minutes: what the state holds day by day, and how long captures take with their commit.

`python tests/bench/month.py [DAYS]` prints a line of JSON for each day: its number, the bytes of the state, the rows
of its tables, the median milliseconds of a round of captures.

Strategy: the service's parts without its threads, by a clock that is set, so that time costs nothing between ticks.
Three jobs tick every five minutes; each minute has rows of ten actions, one id in a hundred is missing, what is
recorded is delivered, sent again and pruned as by the daemon. Commits are real ones.
"""

import json
import logging
import math
import socketserver
import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import structlog
from accelerated import Clock, accelerate

from shipper.config.load import load
from shipper.runtime.delivery import drain
from shipper.runtime.pipeline import Pipeline, composed

JOBS, ACTIONS, MINUTE, DAY = 3, 10, 60, 86400
TICK = 5 * MINUTE
PRUNED_TICKS = 2  # the daemon prunes every ten minutes
START = 1_790_000_040.0
TABLE = "CREATE TABLE audit_trail (id INTEGER PRIMARY KEY, created_at TEXT NOT NULL, action TEXT NOT NULL)"
CONFIG = """\
[state]
path = "{folder}/shipper.db"

[graphite]
port = {port}
retentions = "1m:30d,1h:1y"

[source.app]
url = "sqlite:///{folder}/app.db"

[defaults]
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
start = "beginning"
every = "{tick}s"
"""
JOB = '[job.job{n}]\nname = "job{n}.{{action}}.{{measure}}"\n'


class Hand(Clock):
    """A clock that goes when it is moved."""

    at = START

    def now(self) -> float:
        """Return what it shows, epoch seconds."""
        return self.at

    def real(self, seconds: float) -> float:
        """Return that no wait takes any time."""
        return 0.0


class Table:
    """The audit trail, which has rows up to now."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self.newest = 0
        self._connection, self._clock, self._upto = connection, clock, int(START)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(TABLE)

    def grow(self) -> None:
        """Add a row of each action in each minute."""
        rows = []
        while self._upto <= self._clock.now():
            when = datetime.fromtimestamp(self._upto, UTC).strftime("%Y-%m-%d %H:%M:%S")
            for action in range(ACTIONS):
                self.newest += 2 if self.newest % 100 == 98 else 1
                rows.append((self.newest, when, f"action{action}"))
            self._upto += MINUTE
        with self._connection:
            self._connection.executemany("INSERT INTO audit_trail VALUES (?, ?, ?)", rows)


class Day(NamedTuple):
    """How a day ended, and what its captures took."""

    number: int
    size: int
    """Of the state, bytes."""
    rows: int
    """Of all its tables."""
    ms: float
    """A round of captures and its commit, the median."""


class Reader(socketserver.StreamRequestHandler):
    """What carbon is to a sender: it reads to the end."""

    def handle(self) -> None:
        """Read to the end."""
        while self.rfile.read(65536):
            pass


def month(days: float, folder: Path, port: int) -> Iterator[Day]:
    """Live through so many days; yield each when it has ended."""
    clock = Hand(0.0, START, 1.0)
    accelerate(clock)
    with closing(sqlite3.connect(folder / "app.db", isolation_level=None)) as connection:
        table = Table(connection, clock)
        with composed(load(configured(folder, port))) as pipeline:
            for number in range(math.ceil(days)):
                seconds: list[float] = []
                for n in range(int(min(1, days - number) * DAY / TICK)):
                    table.grow()
                    seconds.append(tick(pipeline, clock))
                    if n % PRUNED_TICKS == 0:
                        pipeline.prune()
                    clock.at += TICK
                yield Day(number + 1, *held(folder / "shipper.db"), 1000 * statistics.median(seconds))
            positions = [pipeline.state.offsets(name) for name in pipeline.workers]
            assert all(position and position.watermark == table.newest for position in positions)


def tick(pipeline: Pipeline, clock: Hand) -> float:
    """Let all jobs tick once, and deliver; return the seconds that their captures took, with the commit."""
    (polling_group,) = pipeline.polling_groups.values()  # one table, one time: they tick together
    assert polling_group.observe()
    began = time.perf_counter()
    assert polling_group.capture()
    seconds = time.perf_counter() - began
    assert drain(pipeline)
    return seconds


def held(state: Path) -> tuple[int, int]:
    """Return how large a state is, bytes, and how many rows its tables have; its WAL comes to 4 MB, and no more."""
    with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return state.stat().st_size, sum(
            connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for (name,) in names
        )


def configured(folder: Path, port: int) -> str:
    """Write the configuration, and return its name."""
    file = folder / "shipper.toml"
    text = CONFIG.format(folder=folder, port=port, tick=TICK)
    file.write_text(text + "".join(JOB.format(n=n) for n in range(JOBS)))
    return str(file)


def main() -> None:
    """Print a line for each day."""
    # what goes well is known here
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    with TemporaryDirectory() as folder, socketserver.ThreadingTCPServer(("127.0.0.1", 0), Reader) as sink:
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        for day in month(float(sys.argv[1]) if sys.argv[1:] else 30, Path(folder), sink.server_address[1]):
            print(json.dumps(day._asdict()), flush=True)
        sink.shutdown()


if __name__ == "__main__":
    main()
