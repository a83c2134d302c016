"""A Carbon that confirms and stores nothing is told, and one that closes idle connections costs nothing."""

import json
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from accelerated import Clock
from graphite_web import GraphiteWeb
from harness import EVENTS, Shipper, wait_for

from shipper.demo.carbon_cache import CarbonCache

FASTER = 4.0
"""The daemon's clocks against real ones: a minute of patience is a quarter of one."""
JOBS = EVENTS + "zeros = false\n"
TABLE = "CREATE TABLE audit_trail (id INTEGER PRIMARY KEY AUTOINCREMENT, created_at TEXT, action TEXT, outcome TEXT)"
INSERT = "INSERT INTO audit_trail (created_at, action, outcome) VALUES (?, ?, 'ok')"


class Ends:
    """A table, a Carbon, a graphite-web beside it, and shipper between."""

    def __init__(self, folder: Path) -> None:
        self.carbon = CarbonCache(folder / "carbon", retentions="1m:1d")
        self.web = GraphiteWeb(folder, root=folder / "carbon")
        clock = Clock.starting(time.time(), FASTER)
        program = (str(Path(__file__).parents[1] / "accelerated.py"), *(repr(value) for value in clock))
        self._table = folder / "app.db"
        with closing(sqlite3.connect(self._table)) as connection:
            connection.execute(TABLE)
        self.app = Shipper(folder, url=f"sqlite:///{self._table}", port=self.carbon.port, jobs=JOBS, program=program)
        self._state = folder / "shipper.db"

    def configure(self, *lines: str) -> None:
        """Add lines to [graphite]."""
        text = self.app.config.read_text()
        self.app.config.write_text(text.replace("[graphite]\n", "\n".join(("[graphite]", *lines, ""))))

    def insert(self, rows: int, *, minutes: int) -> None:
        """Add rows of two actions, in the minutes that ended so long ago."""
        now = time.time() // 60 * 60
        with closing(sqlite3.connect(self._table)) as connection, connection:
            for n in range(rows):
                created = datetime.fromtimestamp(now - 60 * (minutes + n % 5), UTC).strftime("%Y-%m-%d %H:%M:%S")
                connection.execute(INSERT, (created, "login" if n % 2 else "logout"))

    def sum(self) -> int:
        """Add up all values in Graphite."""
        counts = [slots for path, slots in self.carbon.sums().items() if path.startswith("audit.events.")]
        return int(sum(sum(slots.values()) for slots in counts))

    def unproven(self) -> int:
        """Count the totals that are not proven."""
        with closing(sqlite3.connect(f"file:{self._state}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM total WHERE changed > 0").fetchone()[0])

    def is_at(self, rows: int) -> bool:
        """Whether all is in Graphite, and proven."""
        return self.sum() == rows and self.unproven() == 0


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    """Give them; each test starts what it needs."""
    ends = Ends(tmp_path)
    yield ends
    ends.app.stop(signal.SIGKILL)
    ends.web.stop()
    ends.carbon.close()


def test_carbon_cannot_write(ends: Ends) -> None:
    """While Carbon confirms and cannot write, that is told within about a minute, and not a row is lost by it.

    Mutant: take the last replay for a proof; then 210 of 300 rows are in Graphite, and nobody knows.
    """
    ends.configure('replay = ["10s", "20s"]', f'render_url = "{ends.web.url}"')
    ends.carbon.start()
    ends.web.start()
    ends.app.start()
    ends.insert(210, minutes=20)
    wait_for(lambda: ends.is_at(210), "210 rows, proven")
    assert "delivery.unproven" not in ends.app.events()

    # whoever writes below this, as with a full disk, is told no
    files = ends.carbon.storage / "audit/events"
    files.rename(files.with_name("aside"))
    files.write_bytes(b"")
    ends.insert(90, minutes=10)
    wait_for(lambda: "delivery.unproven" in ends.app.events(), "the error")
    (line,) = [line for line in ends.app.text().splitlines() if "event=delivery.unproven" in line][:1]
    assert "level=error" in line
    assert " path=audit.events.log" in line
    assert " expected=9.0 " in line
    assert " slot=" in line
    shown = ends.app.call("status", "-o", "json")
    (graphite,) = [end for end in json.loads(shown.stdout)["endpoints"] if end["name"] == "graphite"]
    assert (shown.returncode, graphite["complaint"]) == (1, "does not hold what was sent")
    assert "although 9 was sent several times" in graphite["failure"]["error"]
    time.sleep(2 * 20 / FASTER)  # all replays of what was confirmed meanwhile
    assert ends.unproven() == 10

    files.unlink()
    files.with_name("aside").rename(files)
    wait_for(lambda: ends.is_at(300), "all rows, proven")
    wait_for(lambda: "delivery.proven" in ends.app.events(), "that it is over")
    assert ends.app.call("status").returncode == 0
    assert ends.app.stop() == 0
    assert "Traceback" not in ends.app.text()


def test_carbon_closes_idle_connections(ends: Ends, tmp_path: Path) -> None:
    """METRIC_CLIENT_IDLE_TIMEOUT puts no proof off, and has nothing sent again.

    Mutant: take the end of an idle connection for that of Carbon; then nothing is ever proven.
    """
    conf = tmp_path / "carbon/conf/carbon.conf"
    conf.write_text(f"{conf.read_text()}METRIC_CLIENT_IDLE_TIMEOUT = 1\n")
    ends.configure('replay = ["15s", "30s"]')
    ends.carbon.start()
    ends.app.start()
    ends.insert(20, minutes=10)
    wait_for(lambda: ends.is_at(20), "20 rows, proven")

    assert "carbon.disconnected" not in ends.app.events()
    assert ends.app.stop() == 0
