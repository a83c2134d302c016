"""Days of simulated operation: the real daemon with many jobs on accelerated clocks, observed from outside.

Strategy: a writer adds and completes rows by the daemon's clock; some groups come and go, some never come again, some
rows come late. Memory, files and tables are compared between two spans of time once the state has reached its age
(`keep`), and the sent values are compared with the table, slot by slot.
"""

import socketserver
import sqlite3
import statistics
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from accelerated import Clock, sleeper
from harness import Shipper

MINUTE, HOUR, DAY = 60, 3600, 86400
START = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
SETTLED = DAY + 2 * HOUR  # `keep`, the slot of the last archive, and time to prune
PACE_SECONDS = 0.05  # real time between two writes
GROWS = {"series": float("inf"), "repair": 3.0}
"""Factor by which a table may grow: a path keeps its owner for ever, and repairs wait."""
KINDS, PERIOD = 12, 6 * HOUR  # number of actions, and the time after which they repeat

SCHEMA = """
CREATE TABLE audit_trail (
    id INTEGER PRIMARY KEY, created_at TEXT NOT NULL, end_date TEXT, action TEXT NOT NULL, outcome TEXT NOT NULL,
    release TEXT NOT NULL, duration_ms INTEGER NOT NULL);
CREATE INDEX audit_trail_open ON audit_trail (id) WHERE end_date IS NULL;
"""
CONFIG = """\
[state]
path = "{folder}/shipper.db"
keep = "1d"

[graphite]
port = {port}
prefix = "day"
retentions = "1m:30d,1h:1y"
timeout = "1m" # a real one, as all of sockets

[source.app]
url = "{url}"
max_skew = "1h" # a short wait for the processor is long by these clocks

[defaults]
table = "audit_trail"
id = "id"
start = "beginning"
zeros = "6h"
"""


@dataclass(frozen=True)
class Sort:
    """A sort of jobs: its keys, and SQL for its paths."""

    keys: str
    path: str
    time: str | None
    where: str = "1"
    measures: tuple[str, ...] = ("count",)


SORTS = (
    Sort('time = "created_at"\nby = ["action"]\nname = "{job}.{{action}}.{{measure}}"', "action", "created_at"),
    Sort('by = ["outcome"]\nname = "{job}.{{outcome}}.{{measure}}"', "outcome", None),
    Sort(
        'time = "end_date"\nlookback = "1h"\nmax_age = "2h"\nby = ["outcome"]\nname = "{job}.{{outcome}}.{{measure}}"',
        "outcome",
        "end_date",
    ),
    Sort('time = "created_at"\nby = ["release"]\nname = "{job}.{{release}}.{{measure}}"', "release", "created_at"),
    Sort(
        'time = "created_at"\nby = ["action", "outcome"]\nwhere = {{ outcome = "failure" }}\n'
        'measure = {{ count = "count", ms = "sum:duration_ms", slowest = "max:duration_ms" }}\n'
        'name = "{job}.{{action}}.{{outcome}}.{{measure}}"',
        "action || '.' || outcome",
        "created_at",
        "outcome = 'failure'",
        ("count", "ms", "slowest"),
    ),
)


@dataclass(frozen=True)
class Plan:
    """A simulation: its jobs, length, speed and load."""

    days: float
    jobs: int = 50
    factor: float = 360.0
    every: int = 5
    """Interval of the fastest jobs, in minutes; others have two to four times as long, or a cron line."""
    bucket: int = 5
    rows: int = 600
    """Rows an hour."""

    def toml(self) -> str:
        """Return the jobs of a configuration."""
        return "\n".join(
            f"[job.{name}]\n{sort.keys.format(job=name)}\n{self._schedule(number)}\n{self._bucket(sort)}\n"
            for number, (name, sort) in enumerate(self.sorts().items())
        )

    def sorts(self) -> dict[str, Sort]:
        """Return the sort of each job."""
        return {f"job{number:02}": SORTS[number % len(SORTS)] for number in range(self.jobs)}

    def _bucket(self, sort: Sort) -> str:
        minutes = self.bucket if sort.time else max(self.bucket, 3 * self.every)  # at least as long as between ticks
        return f'bucket = "{minutes}m"'

    def _schedule(self, number: int) -> str:
        nth = number // len(SORTS) % 4
        if nth == 3:
            return f'cron = "*/{self.every} * * * *"' if self.every < 60 else 'cron = "30 * * * *"'
        return f'every = "{self.every * (nth + 1)}m"'


class Table:
    """The audit trail, with a writer that adds rows as time passes."""

    def __init__(self, file: Path, clock: Clock, rows: int) -> None:
        self.file = file
        self.rows = 0
        self._clock = clock
        self._pace = rows / HOUR
        self._last = clock.now()
        self._late: list[tuple[object, ...]] = []
        with closing(self.connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)

    def connect(self) -> sqlite3.Connection:
        """Open the table's database."""
        connection = sqlite3.connect(self.file, timeout=60, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    def write(self, connection: sqlite3.Connection, *, is_last: bool = False) -> None:
        """Add the rows since the last call, and complete the earlier ones; the last call completes all."""
        now, late = self._clock.now(), self._late
        self._late = []
        rows = [
            self._row(self.rows + n, self._last + n / self._pace) for n in range(int((now - self._last) * self._pace))
        ]
        if not is_last:  # some rows commit with the next call, after higher ids
            self._late = rows[1:-1:100]
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE audit_trail SET end_date = ? WHERE end_date IS NULL", (_text(now),))
            connection.executemany(
                "INSERT INTO audit_trail (id, created_at, action, outcome, release, duration_ms) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                [*late, *(row for row in rows if row not in self._late)],
            )
            if is_last:
                connection.execute("UPDATE audit_trail SET end_date = ? WHERE end_date IS NULL", (_text(now),))
        self.rows += len(rows)
        self._last += len(rows) / self._pace

    def _row(self, number: int, when: float) -> tuple[object, ...]:
        current = int(when % PERIOD * KINDS // PERIOD)
        action = f"action{(current + number % 3) % KINDS}"
        outcome = "failure" if number % 4 == 0 else "success"
        return (number + 1, _text(when), action, outcome, f"release{int(when // (3 * HOUR))}", number * 7919 % 1000)

    def expected(self, job: str, sort: Sort, bucket: int) -> dict[str, dict[int, float]]:
        """Return a job's values by path and slot; all in slot 0 for a job without a time."""
        slot = "0" if sort.time is None else f"unixepoch({sort.time}) / {bucket} * {bucket}"
        statement = f"""
            SELECT {sort.path}, {slot}, COUNT(*), SUM(duration_ms), MAX(duration_ms) FROM audit_trail
            WHERE {sort.where} GROUP BY 1, 2"""
        expected: dict[str, dict[int, float]] = defaultdict(dict)
        with closing(self.connect()) as connection:
            for path, start, *values in connection.execute(statement):
                for measure, value in zip(sort.measures, values, strict=False):
                    expected[f"day.{job}.{path}.{measure}"][start] = float(value)
        return expected


class Sink(socketserver.ThreadingTCPServer):
    """A Carbon: it reads lines to their end, and then closes."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self.values: dict[str, dict[int, float]] = defaultdict(dict)
        self.datapoints = 0
        super().__init__(("127.0.0.1", 0), _Reader)


class _Reader(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Sink)
        for line in self.rfile:
            path, value, slot = line.decode().split()
            self.server.values[path][int(slot)] = float(value)
            self.server.datapoints += 1


@dataclass(frozen=True)
class Sample:
    """Measurements of the daemon at one time."""

    elapsed: float
    """Simulated time since its start, in seconds."""
    memory: int
    """Resident memory, in bytes."""
    threads: int
    files: int
    size: int
    """Size of the state file and its WAL, in bytes."""
    tables: Mapping[str, int]
    """Rows of each table of the state."""
    rows: int
    datapoints: int

    @property
    def totals(self) -> int:
        """Return the number of rows of the largest table."""
        return self.tables["total"]


@dataclass
class Day:
    """A simulated operation, its samples and its faults."""

    plan: Plan
    clock: Clock
    table: Table
    sink: Sink
    app: Shipper
    samples: list[Sample]

    @classmethod
    @contextmanager
    def begun(cls, plan: Plan, folder: Path) -> Iterator[Self]:
        """Start the daemon, and stop it at the end."""
        clock = Clock.starting(START, plan.factor)
        table = Table(folder / "app.db", clock, plan.rows)
        with Sink() as sink:
            threading.Thread(target=sink.serve_forever, daemon=True).start()
            program = (str(Path(__file__).with_name("accelerated.py")), *(repr(value) for value in clock))
            port, url = sink.server_address[1], f"sqlite:///{table.file}"
            app = Shipper(folder, url=url, port=port, program=program)
            text = CONFIG.format(folder=folder, port=port, url=url)
            app.config.write_text(text + plan.toml())
            try:
                app.start()
                yield cls(plan, clock, table, sink, app, [])
            finally:
                app.stop()
                sink.shutdown()

    def run(self) -> Iterator[Sample]:
        """Write rows, and yield a sample every hour; the last write completes all rows."""
        began, end = self.clock.now(), self.plan.days * DAY
        due, sleep = float(HOUR), sleeper(self.clock._replace(factor=1.0))
        with closing(self.table.connect()) as connection:
            while (elapsed := self.clock.now() - began) < end:
                self.table.write(connection)
                if elapsed >= due:
                    due = elapsed // HOUR * HOUR + HOUR
                    self.samples.append(self._sample(elapsed))
                    yield self.samples[-1]
                sleep(PACE_SECONDS)
            self.table.write(connection)  # the late rows
            self.table.write(connection, is_last=True)

    def differing(self) -> list[str]:
        """Return the paths whose values differ from the table."""
        expected: dict[str, dict[int, float]] = {}
        sent: dict[str, dict[int, float]] = {}
        for job, sort in self.plan.sorts().items():
            expected |= self.table.expected(job, sort, self.plan.bucket * MINUTE)
        sums = tuple(f"day.{job}." for job, sort in self.plan.sorts().items() if sort.time is None)
        for path, slots in list(self.sink.values.items()):
            if path.startswith("day.shipper."):
                continue  # the service's own metrics
            shown = {slot: value for slot, value in list(slots.items()) if value}
            sent[path] = {0: sum(shown.values())} if path.startswith(sums) else shown
        return sorted(path for path in expected.keys() | sent.keys() if expected.get(path, {}) != sent.get(path, {}))

    def growth(self) -> dict[str, tuple[float, float, float]]:
        """Return for each measurement that must not grow: its value before, after, and the limit."""
        settled = [sample for sample in self.samples if sample.elapsed >= SETTLED]
        assert len(settled) > 1, "the state must have reached its age"
        before, after = settled[: len(settled) // 2], settled[len(settled) // 2 :]
        memory, later = (statistics.median(sample.memory for sample in part) for part in (before, after))
        growth = {"memory": (memory, later, 1.02 * memory)}
        for name in ("threads", "files"):
            most, later = (max(getattr(sample, name) for sample in part) for part in (before, after))
            growth[name] = (most, later, most + 5)
        most, later = (max(sample.size for sample in part) for part in (before, after))
        growth["state"] = (most, later, 1.05 * most + (64 << 10))
        for name in self.samples[0].tables:
            most, later = (max(sample.tables[name] for sample in part) for part in (before, after))
            growth[f"rows of {name}"] = (most, later, GROWS.get(name, 1.1) * most + 20)
        return growth

    def faults(self) -> list[str]:
        """Return the measurements that have grown."""
        return [
            f"{name} grew from {before:,.0f} to {after:,.0f}"
            for name, (before, after, most) in self.growth().items()
            if after > most
        ]

    def _sample(self, elapsed: float) -> Sample:
        status = Path(f"/proc/{self.app.pid}/status").read_text(encoding="ascii")
        known = dict(line.split(":", 1) for line in status.splitlines())
        state = self.app.folder / "shipper.db"
        files = (state, state.with_name("shipper.db-wal"))
        with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True, timeout=60)) as connection:
            names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
            tables = {name: connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for (name,) in names}
        return Sample(
            elapsed,
            int(known["VmRSS"].split()[0]) * 1024,
            int(known["Threads"]),
            len(list(Path(f"/proc/{self.app.pid}/fd").iterdir())),
            sum(file.stat().st_size for file in files if file.exists()),
            tables,
            self.table.rows,
            self.sink.datapoints,
        )


def _text(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S")
