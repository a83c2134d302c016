"""The promise, end to end: after kills and outages the sum of each series equals the source, bucket by bucket."""

import random
import signal
import sqlite3
import threading
from collections import Counter
from contextlib import closing, suppress

import pytest
from harness import EVENTS, Shipper, wait_for
from servers import MariaDB, sequence

from shipper.demo.carbon_cache import CarbonCache

pytestmark = pytest.mark.on_mysql
WRITERS = 3
LONGEST_TRANSACTION = 0.8  # seconds
HISTORY_ROWS = 200_000
JOBS = (
    EVENTS
    + """
[job.failures]
table = "audit_trail"
id = "id"
time = "created_at"
where = { outcome = "failure", action = ["login", "export"] }
by = ["action", "outcome"]
name = "failures.{action}.{outcome}.{measure}"
chunk = 500

[job.found]
table = "audit_trail"
id = "id"
by = ["outcome"]
name = "found.{outcome}.{measure}"
bucket = "1m"
"""
)
BY_MINUTE = "FLOOR(UNIX_TIMESTAMP(created_at) / 60) * 60"
EXPECTED = {
    "events": f"SELECT CONCAT('audit.events.', action, '.count'), {BY_MINUTE}, COUNT(*) FROM audit_trail GROUP BY 1, 2",
    "failures": f"""
        SELECT CONCAT('audit.failures.', action, '.', outcome, '.count'), {BY_MINUTE}, COUNT(*) FROM audit_trail
        WHERE outcome = 'failure' AND action IN ('login', 'export') GROUP BY 1, 2""",
    "found": "SELECT CONCAT('audit.found.', outcome, '.count'), 0, COUNT(*) FROM audit_trail GROUP BY 1",
}
HISTORY = f"""
    INSERT INTO audit_trail (created_at, action, outcome)
    SELECT UTC_TIMESTAMP(6) - INTERVAL MOD(seq * 7919, 36000) SECOND,
        ELT(1 + MOD(seq, 3), 'login', 'logout', 'export'), ELT(1 + MOD(seq, 2), 'success', 'failure')
    FROM {sequence(HISTORY_ROWS)}"""


class Writers:
    """Sessions that insert rows in transactions that overlap, some of them rolled back."""

    def __init__(self, mariadb: MariaDB) -> None:
        self._mariadb = mariadb
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(seed,)) for seed in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Commit the open transactions, and stop writing."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, seed: int) -> None:
        dice = random.Random(seed)
        with closing(self._mariadb.connect("app")) as connection, connection.cursor() as cursor:
            while not self._stop.is_set():
                connection.begin()
                for _ in range(dice.randint(1, 5)):
                    action, outcome = dice.choice(["login", "logout", "export"]), dice.choice(["success", "failure"])
                    cursor.execute(
                        "INSERT INTO audit_trail (created_at, action, outcome) VALUES (UTC_TIMESTAMP(6), %s, %s)",
                        (action, outcome),
                    )
                self._stop.wait(dice.uniform(0, LONGEST_TRANSACTION))
                if dice.random() < 0.1:
                    connection.rollback()
                else:
                    connection.commit()


def expected(mariadb: MariaDB, name: str) -> dict[str, dict[int, float]]:
    """Count the table as a job does, by path and slot."""
    series: dict[str, dict[int, float]] = {}
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute(EXPECTED[name])
        for path, slot, rows in cursor.fetchall():
            series.setdefault(path, {})[int(slot)] = float(rows)
    return series


def captured(app: Shipper) -> int:
    """Return the captured id of the job with small chunks."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(app.folder / "shipper.db")) as connection:
        row = connection.execute("SELECT captured FROM watermark WHERE job = 'failures'").fetchone()
        return int(row[0]) if row else 0
    return 0


def shipped(carbon_cache: CarbonCache, name: str) -> dict[str, dict[int, float]]:
    """Return a job's values in Whisper but 0, which minutes without rows may get."""
    sums = {path: slots for path, slots in carbon_cache.sums().items() if path.startswith(f"audit.{name}.")}
    return {path: {slot: value for slot, value in slots.items() if value} for path, slots in sums.items()}


def is_equal(mariadb: MariaDB, carbon_cache: CarbonCache) -> bool:
    """Compare bucket by bucket; the sum of the job without a time column, because it knows no time of a row."""
    found = {path: {0: sum(slots.values())} for path, slots in shipped(carbon_cache, "found").items()}
    return found == expected(mariadb, "found") and all(
        expected(mariadb, name) == shipped(carbon_cache, name) for name in ("events", "failures")
    )


@pytest.fixture
def app(shipper_app: Shipper, mariadb: MariaDB) -> Shipper:
    """Give the program with three jobs, on a table with old rows."""
    shipper_app.configure(EVENTS, JOBS)
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute(HISTORY)
    return shipper_app


@pytest.mark.timeout(300)
def test_sum_equals_source(app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """With live writers, the daemon killed twice and Carbon stopped for a while, all sums are equal at the end."""
    writers = Writers(mariadb)
    try:
        # killed during the catch-up
        app.start()
        wait_for(lambda: 0 < captured(app) < HISTORY_ROWS, "a capture under way")
        app.stop(signal.SIGKILL)
        assert captured(app) < HISTORY_ROWS
        app.start()
        wait_for(lambda: "delivery.finished" in app.events(), "a delivery")

        # killed while Carbon is down and has lost its cache
        carbon_cache.stop(signal.SIGTERM)
        wait_for(lambda: "delivery.failed" in app.events(), "delivery.failed")
        app.stop(signal.SIGKILL)
        app.start()
        captures = app.events().count("capture.finished")
        wait_for(lambda: app.events().count("capture.finished") > captures + 6, "captures without Carbon")
        carbon_cache.start()
        wait_for(lambda: "delivery.recovered" in app.events(), "delivery.recovered")

        # and once more without a fault
        app.stop(signal.SIGKILL)
        app.start()
    finally:
        writers.stop()
    wait_for(lambda: is_equal(mariadb, carbon_cache), "Graphite equals the source")

    assert app.stop() == 0
    rows = Counter({name: int(sum(map(_total, expected(mariadb, name).values()))) for name in EXPECTED})
    assert rows["events"] == rows["found"] > HISTORY_ROWS
    assert is_equal(mariadb, carbon_cache)


def _total(slots: dict[int, float]) -> float:
    return sum(slots.values())
