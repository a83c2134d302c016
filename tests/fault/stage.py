"""The environment of one fault: a table with writers, shipper, a Carbon; and the comparison at the end."""

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from fault.score import Score, Series, differences
from fault.writers import INSERT, SHORT_SECONDS, Connection, Writers
from harness import EVENTS, PATIENCE_SECONDS, Shipper, wait_for
from servers import MariaDB, PostgreSQL
from tables import Execute, executing

from shipper.demo.carbon_cache import CarbonCache

REPLAY = '["1s", "2s"]'
CARBON_DIES = '["3s", "6s"]'
"""Longer than Carbon keeps a value in memory before it writes it."""
STEP_SECONDS, RETENTIONS = 1, "1s:6h"
"""Buckets of a second: a lost total is soon too old to be repaired by the next total of its bucket."""
EVENTS_A_SECOND = EVENTS + 'bucket = "1s"\n'
JOBS = (
    EVENTS_A_SECOND
    + """
[job.found]
table = "audit_trail"
id = "id"
by = ["outcome"]
name = "found.{outcome}.{measure}"
bucket = "1s"
"""
)
EXPECTED = "SELECT CONCAT({path}), FLOOR({epoch} / {step}) * {step}, COUNT(*) FROM {table} GROUP BY 1, 2"
BY_OUTCOME = "SELECT CONCAT('audit.found.', outcome, '.count'), 0, COUNT(*) FROM {table} GROUP BY 1"
EPOCH = {"mariadb": "UNIX_TIMESTAMP(created_at)", "postgresql": "EXTRACT(EPOCH FROM created_at)"}


class Stage:
    """The environment of one fault."""

    def __init__(
        self,
        folder: Path,
        server: MariaDB | PostgreSQL,
        *,
        database: str = "app",
        soak_seconds: float = 0,
        jobs: str = JOBS,
        step: int = STEP_SECONDS,
        retentions: str = RETENTIONS,
        replay: str = REPLAY,
        program: tuple[str, ...] = ("-m", "shipper.cli"),
    ) -> None:
        """Create a table and start Carbon; shipper and the writers start later."""
        self.server, self.database = server, database
        self.kind = "mariadb" if isinstance(server, MariaDB) else "postgresql"
        self.table = "audit_trail"
        """Table of all rows that were ever committed."""
        self.others: tuple[str, ...] = ()
        """More tables, each counted by a job of the same name."""
        self.carbon = CarbonCache(folder / "carbon", retentions=retentions)
        self.app = Shipper(
            folder,
            url=server.make_database(database),
            port=self.carbon.port,
            jobs=jobs,
            program=program,
        )
        self.app.configure('retentions = "1m:1d"', f'retentions = "{retentions}"\nreplay = {replay}')
        self.app.configure('timeout = "5s"', 'timeout = "2s"')
        self._has_found = "[job.found]" in jobs
        self._step = step
        self.soak_seconds = soak_seconds
        self._writers: Writers | None = None
        self.carbon.start()

    @property
    def mariadb(self) -> MariaDB:
        """Return the server, for faults of MariaDB."""
        assert isinstance(self.server, MariaDB)
        return self.server

    @property
    def postgresql(self) -> PostgreSQL:
        """Return the server, for faults of PostgreSQL."""
        assert isinstance(self.server, PostgreSQL)
        return self.server

    def connect(self) -> Connection:
        """Open a session on the table's database in MariaDB."""
        return self.mariadb.connect(self.database)

    @contextmanager
    def session(self) -> Iterator[Execute]:
        """Give a session on the table's database."""
        connection: Any = self.server.connect(self.database)
        with closing(connection), executing(self.kind, connection) as execute:
            yield execute

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement in a separate session; return its rows."""
        with self.session() as execute:
            return execute(statement)

    def empty(self, statement: str) -> None:
        """Empty the table with a statement when all its rows are counted; they stay expected in Graphite."""
        self.still()
        wait_for(self.is_at_rest, "all is captured")
        self.execute("CREATE TABLE gone AS SELECT * FROM audit_trail")
        self.table = "(SELECT * FROM audit_trail UNION ALL SELECT * FROM gone) AS everything"
        with self.until("largest id fell to"):
            self.execute(statement)

    def write(self, *, longest: float = SHORT_SECONDS, back_fills: bool = False) -> None:
        """Start the writers."""
        self._writers = Writers(self.session, kind=self.kind, longest=longest, back_fills=back_fills)

    def insert(self, rows: int) -> None:
        """Commit rows with the current time."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.executemany(INSERT, [("login", "success")] * rows)

    def still(self) -> None:
        """Stop the writers."""
        if self._writers is not None:
            self._writers.stop()
            self._writers = None

    def wait(self, event: str) -> None:
        """Wait until the daemon has logged an event once more."""
        with self.until(event):
            pass

    @contextmanager
    def until(self, event: str) -> Iterator[None]:
        """Do something, and wait until the daemon has logged an event, or some words, since then."""
        before = self.app.text().count(event)
        yield
        wait_for(lambda: self.app.text().count(event) > before, event)

    def finish(self, fault: str, injected: int, note: str = "", *, seconds: float = PATIENCE_SECONDS) -> Score:
        """Repair nothing: wait until shipper is at rest, and compare."""
        self.still()
        with suppress(AssertionError):
            wait_for(self.is_equal, "Graphite equals the source", seconds=seconds)
        code = self.app.stop()
        score = Score(fault, injected, self.count(), *self.compared(), self.rejected(), note)
        assert (code, "Traceback" in self.app.text()) == (0, False), self.app.text()[-4000:]
        return score

    def is_equal(self) -> bool:
        """Whether shipper is at rest, and Graphite equals the source."""
        return self.is_at_rest() and self.compared() == (0, 0)

    def naive(self, fault: str, injected: int) -> Score:
        """Compare for the naive loop."""
        return Score(fault, injected, self.count(), *self.compared("naive."))

    def count(self) -> int:
        """Count the rows that were ever committed."""
        ((rows,),) = self.execute(f"SELECT COUNT(*) FROM {self.table}")
        return int(rows)

    def compared(self, prefix: str = "audit.events.") -> tuple[int, int]:
        """Return how much Graphite lacks, and has too many; a job without a time column is compared by its sums."""
        sums = self.carbon.sums()
        lost, doubled = self._compared(sums, self.table, prefix)
        for other in self.others if prefix == "audit.events." else ():
            more_lost, more_doubled = self._compared(sums, other)
            lost, doubled = lost + more_lost, doubled + more_doubled
        if self._has_found and prefix == "audit.events.":
            found = {path: {0: sum(slots.values())} for path, slots in sums.items() if path.startswith("audit.found.")}
            more_lost, more_doubled = differences(self._expected(BY_OUTCOME.format(table=self.table)), found)
            return lost + more_lost, doubled + more_doubled
        return lost, doubled

    def is_at_rest(self) -> bool:
        """Whether all rows of the table are captured, delivered and proven."""
        waiting = "SELECT COUNT(*) FROM total JOIN series ON series.id = series WHERE changed <> 0 AND value <> 0"
        others = ", ".join(f"'{other}'" for other in self.others)
        behind = [
            f"SELECT COUNT(*) FROM watermark WHERE {jobs} AND value <> '{self.largest(table)}'"
            for table, jobs in [
                ("audit_trail", f"job NOT IN ({others})"),
                *((other, f"job = '{other}'") for other in self.others),
            ]
        ]
        with suppress(sqlite3.OperationalError):  # a machine that takes over is about to make the file
            return not any(map(self.ask, [waiting, *behind]))
        return False

    def rejected(self) -> int:
        """Count the rejected rows."""
        return self.ask("SELECT COALESCE(SUM(rows), 0) FROM rejected")

    def ask(self, statement: str) -> int:
        """Read a number from the state."""
        file = self.app.folder / "shipper.db"
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:  # never make one
            ((number,),) = connection.execute(statement).fetchall()
        return int(number)

    def close(self) -> None:
        """End all processes."""
        self.still()
        self.app.stop(signal.SIGKILL)
        self.carbon.close()

    def largest(self, table: str) -> int:
        """Return the largest id of a table."""
        ((largest,),) = self.execute(f"SELECT COALESCE(MAX(id), 0) FROM {table}")
        return int(largest)

    def _compared(self, sums: Series, table: str, prefix: str = "") -> tuple[int, int]:
        """Compare a table with the series of its groups."""
        prefix = prefix or f"audit.{table}."
        path, epoch = f"'{prefix}', action, '.count'", EPOCH[self.kind]
        by_action = EXPECTED.format(path=path, epoch=epoch, step=self._step, table=table)
        shipped = {path: slots for path, slots in sums.items() if path.startswith(prefix) and path.endswith(".count")}
        return differences(self._expected(by_action), shipped)

    def _expected(self, statement: str) -> dict[str, dict[int, float]]:
        series: dict[str, dict[int, float]] = {}
        for path, slot, rows in self.execute(statement):
            series.setdefault(path, {})[int(slot)] = float(rows)
        return series
