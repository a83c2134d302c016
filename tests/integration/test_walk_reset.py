"""Table reset: the commands of the handbook's section, as they are printed, on a real MariaDB."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from handbook import handbook, walk
from harness import Shipper, wait_for
from servers import MariaDB

from shipper.demo.carbon_cache import CarbonCache

MINUTE = 60
ROW = "INSERT INTO audit_trail (created_at, action, outcome) VALUES (FROM_UNIXTIME(%s), 'login', 'ok')"


class Walk:
    """A service that has shipped six logins of a while ago, and an operator who works on the table."""

    def __init__(self, app: Shipper, mariadb: MariaDB, carbon: CarbonCache) -> None:
        self.app, self._mariadb, self._carbon = app, mariadb, carbon
        self.minute = int(time.time()) // MINUTE * MINUTE
        commands = handbook("repair.md", "Table reset")
        self.look, self.emptied, self.restored, self.replaced, self.status, self.backfill = commands
        self.log_in(15, 4)
        self.log_in(12, 2)
        app.start()
        self.shows({15: 4, 12: 2})

    def log_in(self, ago: int, times: int) -> None:
        """Insert rows whose time is some minutes ago."""
        with self._mariadb.connect("app") as connection, connection.cursor() as cursor:
            cursor.executemany(ROW, [(self.minute - ago * MINUTE,)] * times)

    def work(self, *statements: str) -> None:
        """Run statements on the table."""
        with self._mariadb.connect("app") as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def dump(self, file: Path) -> None:
        """Write a dump of the table."""
        with file.open("wb") as dump:
            subprocess.run([*self._client("mariadb-dump"), "app", "audit_trail"], stdout=dump, check=True)

    def restore(self, file: Path) -> None:
        """Restore the table from a dump."""
        with file.open("rb") as dump:
            subprocess.run([*self._client("mariadb"), "app"], stdin=dump, check=True)

    def _client(self, program: str) -> list[str]:
        return [program, "--no-defaults", "--host=127.0.0.1", f"--port={self._mariadb.port}", "--user=root"]

    def bars(self) -> dict[int, float]:
        """Return the minutes above 0 in Graphite's file, keyed by their age when the test began, in minutes."""
        found = self._carbon.sums().get("audit.events.login.count", {})
        return {(self.minute - slot) // MINUTE: value for slot, value in found.items() if value}

    def shows(self, expected: dict[int, float]) -> None:
        """Wait until Graphite has these values."""
        wait_for(lambda: self.bars() == expected, f"{expected} in Graphite")

    def held(self) -> str:
        """Wait until the job is held, and return the output of the handbook's first command."""
        wait_for(lambda: "capture.failed" in self.app.events(), "the job is held")
        code, _ = walk(self.app.config, self.status)
        assert code == 1
        code, shown = walk(self.app.config, self.look)
        assert code == 2, shown
        return shown

    def answer(self, command: str) -> str:
        """Give an answer, check the result that the handbook describes, and return the output."""
        code, shown = walk(self.app.config, command)
        assert code == 0, shown
        assert "Continue? [y/N]" in shown
        wait_for(lambda: "source.reset" in self.app.events(), "source.reset")
        wait_for(lambda: walk(self.app.config, self.status)[0] == 0, "a healthy status")
        return shown

    def count_again(self) -> None:
        """Run the handbook's backfill."""
        code, shown = walk(self.app.config, self.backfill)
        assert code == 0, shown


@pytest.fixture
def way(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> Iterator[Walk]:
    """Give the walk, and check afterwards that the service ended without errors."""
    yield Walk(shipper_app, mariadb, carbon_cache)
    assert shipper_app.stop() == 0
    assert "Traceback" not in shipper_app.text()


def test_truncate(way: Walk) -> None:
    """Its bars stay, and new rows are added; a backfill shows the table as it is.

    Mutants: recount the slots still in the state; skip the rows of the table.
    """
    way.work("TRUNCATE audit_trail")
    way.log_in(12, 1)
    way.log_in(8, 2)
    shown = way.held()
    assert "its largest id fell to 3; id 6 was captured" in shown
    assert "the table has 0 of the 6 newest rows that the job counted\n" in shown
    shown = way.answer(way.emptied)
    assert "ids 1 to 3, at most 3 rows" in shown
    way.shows({15: 4, 12: 3, 8: 2})
    way.log_in(5, 1)
    way.shows({15: 4, 12: 3, 8: 2, 5: 1})

    way.count_again()
    way.shows({12: 1, 8: 2, 5: 1})


def test_older_dump(way: Walk, tmp_path: Path) -> None:
    """Its bars stay, also those of lost rows, and new rows are added; a backfill shows the table as it is.

    Mutants: count the rows of the dump; continue after captured.
    """
    way.dump(tmp_path / "dump.sql")
    way.log_in(10, 3)
    way.shows({15: 4, 12: 2, 10: 3})
    way.restore(tmp_path / "dump.sql")
    shown = way.held()
    assert "its largest id fell to 6; id 9 was captured" in shown
    assert "the table has 6 of the 9 newest rows that the job counted\n" in shown
    assert "--emptied and --replaced would count them twice\n" in shown
    shown = way.answer(way.restored)
    assert "ids up to 6 count as already counted" in shown
    way.log_in(5, 2)
    way.shows({15: 4, 12: 2, 10: 3, 5: 2})

    way.count_again()
    way.shows({15: 4, 12: 2, 5: 2})


def test_rename(way: Walk) -> None:
    """A new table whose ids restart is counted from its first row on, and the bars of the old one stay.

    Mutant: assume that its rows are counted.
    """
    way.work(
        "CREATE TABLE next LIKE audit_trail",
        "RENAME TABLE audit_trail TO audit_trail_old, next TO audit_trail",
    )
    way.log_in(8, 2)
    shown = way.held()
    assert "its largest id fell to 2; id 6 was captured" in shown
    shown = way.answer(way.replaced)
    assert "ids 1 to 2, at most 2 rows" in shown

    way.log_in(5, 1)
    way.shows({15: 4, 12: 2, 8: 2, 5: 1})


def test_rename_with_ids_that_go_on(way: Walk) -> None:
    """The job continues by itself, and logs how many ids may not be counted. Mutant: hold it."""
    way.work(
        "CREATE TABLE next LIKE audit_trail",
        "ALTER TABLE next AUTO_INCREMENT = 11",
        ROW.replace("audit_trail", "next") % (way.minute - 8 * MINUTE),
        "RENAME TABLE audit_trail TO audit_trail_old, next TO audit_trail",  # an empty table would hold the job
    )
    way.log_in(8, 1)
    way.shows({15: 4, 12: 2, 8: 2})

    wait_for(lambda: "event=source.rotated" in way.app.text(), "source.rotated")
    assert "captured=6" in way.app.text()
    assert "first=11" in way.app.text()
