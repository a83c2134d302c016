"""The service beside a rogue graphite-web, and beside a rogue Carbon: it counts, continues, and loses nothing."""

import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from harness import Shipper, wait_for
from hostile.rogue import Rogue
from hostile.rogue_graphite import CARBON, WEB, Graphite, RogueCarbon, holding, resetting

QUICK, BUGGY = (str(Path(__file__).with_name(name)) for name in ("quick.py", "buggy.py"))
MOST_MEGABYTES = 192  # MemoryHigh of the unit
WEB_ROWS = (
    *("is silent", "drips its body", "resets after the request", "speaks no HTTP", "has an endless body"),
    *("says null", "says 5", "nests", "has 5,000 digits", "has a time of Infinity", "has equal times"),
)
CARBON_ROWS = (
    "resets after all",
    "never reads",
    "reads a byte a second",
    "reads all and never closes",
    "speaks for ever",
)
"""Rows of the tables: each kind once."""
CREATE = "CREATE TABLE audit_trail (id INTEGER PRIMARY KEY AUTOINCREMENT, created_at TEXT, action TEXT)"


class Ends:
    """A table, a Carbon and a graphite-web that can become rogues, and shipper between."""

    def __init__(self, folder: Path, proof: str, program: tuple[str, ...] = (QUICK,)) -> None:
        folder.mkdir()
        self.graphite = Graphite()
        self.web, self.carbon = Rogue(self.graphite.web), RogueCarbon(self.graphite.carbon)
        self.rows = 0
        self._folder = folder
        with self._open("app.db") as connection:
            connection.execute(CREATE)
        url = f"sqlite:///{folder}/app.db"
        self.app = Shipper(folder, url=url, port=self.carbon.port, program=program)
        self.app.configure('timeout = "5s"', 'timeout = "1s"')
        self.app.configure(
            "[graphite]", f'[graphite]\nproof = "{proof}"\nrender_url = "http://127.0.0.1:{self.web.port}"'
        )

    def insert(self) -> None:
        """Add a row of the last minute."""
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - 60))
        with self._open("app.db") as connection:
            connection.execute("INSERT INTO audit_trail (created_at, action) VALUES (?, 'login')", (created,))
        self.rows += 1

    def has_delivered(self) -> bool:
        """Whether all rows are in Graphite."""
        return self.graphite.sum("audit.events.login") == self.rows

    def offsets(self) -> tuple[int, int]:
        """Return watermark and captured id."""
        with self._open("shipper.db") as connection:
            watermark, captured = connection.execute("SELECT value, captured FROM watermark").fetchone()
        return int(watermark), int(captured)

    def unproven(self) -> int:
        """Count the totals that are not proven."""
        with self._open("shipper.db") as connection:
            return int(connection.execute("SELECT COUNT(*) FROM total WHERE changed > 0").fetchone()[0])

    def megabytes(self) -> float:
        """Return the most memory that the service has used."""
        (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.app.pid}/status").read_text())
        return int(kilobytes) / 1024

    def check_log(self) -> None:
        """Check that only foreign failures were logged, each on a line."""
        text = self.app.text()
        assert "Traceback" not in text
        assert not {"service.failed", "job.stopped", "job.held"} & set(self.app.events())
        assert all(len(line) < 1500 and line.isprintable() for line in text.splitlines())

    def close(self) -> None:
        """Stop everything."""
        self.app.stop(signal.SIGKILL)
        self.web.close()
        self.carbon.close()

    @contextmanager
    def _open(self, name: str) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._folder / name, timeout=60)) as connection, connection:
            yield connection


def test_rogue_graphite_web(tmp_path: Path) -> None:
    """Beside any graphite-web, rows are delivered, and are proven once it is well; with readback and with samples.

    Mutants: shapes that are not checked (the process ends); no limits (memory, or deliveries stop).
    """
    with ExitStack() as stack:
        both = [stack.enter_context(closing(Ends(tmp_path / proof, proof))) for proof in ("readback", "replay")]
        for one in both:
            one.app.start()
        for name in WEB_ROWS:
            for one in both:
                one.web.become(WEB[name])
            before = [one.web.connections for one in both]
            for one, connections in zip(both, before, strict=True):
                one.insert()
                wait_for(lambda one=one: one.has_delivered(), f"{name}: the delivery")  # type: ignore[misc]
                wait_for(lambda one=one, n=connections: one.web.connections > n, f"{name}: a reading")  # type: ignore[misc]

        for one in both:
            assert "readback.failed" in one.app.events()
            one.web.become(one.graphite.web)
            one.insert()
            wait_for(one.has_delivered, "the last delivery")
            wait_for(lambda one=one: "readback.recovered" in one.app.events(), "the recovery")  # type: ignore[misc]
            assert one.megabytes() < MOST_MEGABYTES
            assert one.app.stop() == 0
            one.check_log()
        assert both[0].offsets() == (both[0].rows, both[0].rows)


def test_rogue_carbon(tmp_path: Path) -> None:
    """Beside any Carbon, rows are captured, the watermark stays, and all arrives once it is well."""
    with closing(Ends(tmp_path / "carbon", "replay")) as ends:
        ends.app.start()
        ends.insert()
        wait_for(ends.has_delivered, "the first delivery")
        wait_for(lambda: ends.offsets() == (1, 1), "the first watermark")
        for name in CARBON_ROWS:
            before = ends.carbon.connections
            ends.carbon.become(CARBON[name])
            ends.insert()
            wait_for(lambda: ends.offsets()[1] == ends.rows, f"{name}: the capture")
            wait_for(lambda n=before: ends.carbon.connections > n, f"{name}: a delivery")  # type: ignore[misc]
            assert ends.offsets()[0] == 1

        ends.carbon.become(ends.graphite.carbon)
        wait_for(ends.has_delivered, "all rows")
        wait_for(lambda: ends.offsets() == (ends.rows, ends.rows), "the watermark")
        assert ends.megabytes() < MOST_MEGABYTES
        assert ends.app.stop() == 0
        ends.check_log()


@pytest.mark.parametrize("end", ["carbon", "web"])
def test_stop(tmp_path: Path, end: str) -> None:
    """A stop does not wait for an end that has stopped answering. Mutant: wait for its time-out."""
    with closing(Ends(tmp_path / "stop", "readback")) as ends:
        ends.app.configure('timeout = "1s"', 'timeout = "10m"')
        ends.app.start()
        ends.insert()
        wait_for(ends.has_delivered, "the first delivery")
        rogue = ends.carbon if end == "carbon" else ends.web
        rogue.become(resetting)
        ends.insert()
        event = "delivery.failed" if end == "carbon" else "readback.failed"
        wait_for(lambda: event in ends.app.events(), event)
        before = rogue.connections
        rogue.become(holding())
        wait_for(lambda: rogue.connections > before, "another attempt")
        began = time.monotonic()
        assert ends.app.stop() == 0
        assert time.monotonic() - began < 30
        ends.check_log()


def test_bug_of_the_courier(tmp_path: Path) -> None:
    """The jobs survive an exception that nothing expects, and a new courier delivers and proves everything.

    Mutants: the bug ends the process; the courier stays, and has lost what it was about to prove.
    """
    with closing(Ends(tmp_path / "bug", "readback", (BUGGY, "reading"))) as ends:
        ends.app.start()
        ends.insert()
        wait_for(lambda: "delivery.recovered" in ends.app.events(), "the recovery")
        ends.insert()
        wait_for(lambda: ends.offsets() == (2, 2) and ends.has_delivered() and not ends.unproven(), "all proven")

        assert ends.app.stop() == 0
        assert "ZeroDivisionError: a bug" in ends.app.text()
        assert "level=error event=delivery.failed" in ends.app.text()
        assert not {"service.failed", "job.stopped"} & set(ends.app.events())


def test_bug_that_lasts(tmp_path: Path) -> None:
    """A courier that fails again and again ends the process, with an error, for systemd to start another.

    Mutants: no limit, and shipper lives on without delivering; a courier that is made anew is counted anew.
    """
    with closing(Ends(tmp_path / "bug", "replay", (BUGGY, "sending"))) as ends:
        ends.insert()
        ends.app.start()

        assert ends.app.wait() == 1
        assert ends.app.events().count("service.failed") == 1
        assert ends.app.text().count("ZeroDivisionError: a bug") > 1
