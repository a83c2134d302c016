"""Everything that one fault needs: a table with writers, shipper, a Carbon; and the reckoning at the end."""

import signal
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import whisper
from fault.score import Score, differences
from fault.writers import INSERT, SHORT_SECONDS, Connection, Writers
from harness import EVENTS, PATIENCE_SECONDS, Shipper, wait_for
from servers import MariaDB

from shipper.demo.carbon_cache import CarbonCache

SETTLE = "2s"
"""More than the writers' short transactions take on a slow machine."""
REPLAY = '["1s", "2s"]'
CARBON_DIES = '["3s", "6s"]'
"""Longer than Carbon keeps a value in memory before it writes it."""
STEP_SECONDS, RETENTIONS = 1, "1s:6h"
"""A second a bucket: what is lost is soon too old to be mended by the next total of the same bucket."""
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
EXPECTED = """
    SELECT CONCAT({path}), FLOOR(UNIX_TIMESTAMP(created_at) / {step}) * {step}, COUNT(*)
    FROM audit_trail GROUP BY 1, 2"""
BY_OUTCOME = "SELECT CONCAT('audit.found.', outcome, '.count'), 0, COUNT(*) FROM audit_trail GROUP BY 1"


class Stage:
    """One fault's own world."""

    def __init__(
        self,
        folder: Path,
        mariadb: MariaDB,
        *,
        database: str = "app",
        soak_seconds: float = 0,
        jobs: str = JOBS,
        step: int = STEP_SECONDS,
        retentions: str = RETENTIONS,
        settle: str = SETTLE,
        replay: str = REPLAY,
        program: tuple[str, ...] = ("-m", "shipper.cli"),
    ) -> None:
        """Make a table and start Carbon; shipper and the writers wait."""
        self.mariadb, self.database = mariadb, database
        self.carbon = CarbonCache(folder / "carbon", retentions=retentions)
        self.app = Shipper(
            folder,
            url=mariadb.make_database(database),
            port=self.carbon.port,
            jobs=jobs,
            settle=settle,
            program=program,
        )
        self.configure('retentions = "1m:1d"', f'retentions = "{retentions}"\nreplay = {replay}')
        self.configure('timeout = "5s"', 'timeout = "2s"')
        self._has_found = "[job.found]" in jobs
        self._step = step
        self.soak_seconds = soak_seconds
        self._writers: Writers | None = None
        self.carbon.start()

    def configure(self, before: str, after: str) -> None:
        """Change the configuration."""
        text = self.app.config.read_text()
        assert before in text
        self.app.config.write_text(text.replace(before, after))

    def connect(self) -> Connection:
        """Open a session on the table's database."""
        return self.mariadb.connect(self.database)

    def write(self, *, longest: float = SHORT_SECONDS, back_fills: bool = False) -> None:
        """Let writers write; rows that are filled in behind need `recheck`."""
        self._writers = Writers(self.connect, longest=longest, back_fills=back_fills)

    def insert(self, rows: int) -> None:
        """Commit rows of this very moment."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.executemany(INSERT, [("login", "success")] * rows)

    def still(self) -> None:
        """Let them write no more."""
        if self._writers is not None:
            self._writers.stop()
            self._writers = None

    def wait(self, event: str) -> None:
        """Wait until the daemon has told an event once more."""
        with self.until(event):
            pass

    @contextmanager
    def until(self, event: str) -> Iterator[None]:
        """Do something, and wait until the daemon has told an event, or said some words, since."""
        before = self.app.text().count(event)
        yield
        wait_for(lambda: self.app.text().count(event) > before, event)

    def finish(self, fault: str, injected: int, note: str = "", *, seconds: float = PATIENCE_SECONDS) -> Score:
        """Heal nothing: let shipper come to rest, and reckon."""
        self.still()
        with suppress(AssertionError):
            wait_for(self.is_equal, "Graphite equals the source", seconds=seconds)
        code = self.app.stop()
        score = Score(fault, injected, self.count(), *self.compared(), self.unshown(), note)
        assert (code, "Traceback" in self.app.text()) == (0, False), self.app.text()[-4000:]
        return score

    def is_equal(self) -> bool:
        """Is all at rest, and in Graphite as it is in the source?"""
        return self.is_at_rest() and self.compared() == (0, 0)

    def naive(self, fault: str, injected: int) -> Score:
        """Reckon for the naive loop."""
        return Score(fault, injected, self.count(), *self.compared("naive."))

    def count(self) -> int:
        """Count the rows of the table."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM audit_trail")
            ((rows,),) = cursor.fetchall()
        return int(rows)

    def compared(self, prefix: str = "audit.events.") -> tuple[int, int]:
        """Return what Graphite lacks, and has too much; a job without a time column is compared by its sums."""
        try:
            sums = self.carbon.sums()
        except (whisper.WhisperException, struct.error, OSError):  # a file is just being made
            return self.count(), 0
        by_action = EXPECTED.format(path=f"'{prefix}', action, '.count'", step=self._step)
        shipped = {path: slots for path, slots in sums.items() if path.startswith(prefix)}
        lost, doubled = differences(self._expected(by_action), shipped)
        if self._has_found and prefix == "audit.events.":
            found = {path: {0: sum(slots.values())} for path, slots in sums.items() if path.startswith("audit.found.")}
            more_lost, more_doubled = differences(self._expected(BY_OUTCOME), found)
            return lost + more_lost, doubled + more_doubled
        return lost, doubled

    def is_at_rest(self) -> bool:
        """Is all that the table holds captured, delivered and proven?"""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT COALESCE(MAX(id), 0) FROM audit_trail")
            ((largest,),) = cursor.fetchall()
        waiting = "SELECT COUNT(*) FROM total JOIN series ON series.id = series WHERE changed <> 0 AND value <> 0"
        behind = f"SELECT COUNT(*) FROM watermark WHERE value <> '{largest}'"
        return self.ask(waiting) == self.ask(behind) == 0

    def unshown(self) -> int:
        """Count the rows that shipper says it cannot show."""
        return self.ask("SELECT COALESCE(SUM(rows), 0) FROM unshown")

    def ask(self, statement: str) -> int:
        """Ask the state for a number."""
        with closing(sqlite3.connect(self.app.folder / "shipper.db")) as connection:
            ((number,),) = connection.execute(statement).fetchall()
        return int(number)

    def close(self) -> None:
        """End everything."""
        self.still()
        self.app.stop(signal.SIGKILL)
        self.carbon.close()

    def _expected(self, statement: str) -> dict[str, dict[int, float]]:
        series: dict[str, dict[int, float]] = {}
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            for path, slot, rows in cursor.fetchall():
                series.setdefault(path, {})[int(slot)] = float(rows)
        return series
