"""A year of history, backfilled into a real Carbon with two archives: each zoom shows the source's numbers."""

import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
import whisper
from harness import Shipper, wait_for
from servers import MariaDB, sequence

from shipper.core.retention import EDGE_SECONDS
from shipper.demo.carbon_cache import CarbonCache

RETENTIONS = "1m:7d,1h:5y"
WEEK, HOUR, DAY = 7 * 86400, 3600, 86400
ROWS = 60_000
ACTIONS = ("login", "logout")
HISTORY = f"""
    INSERT INTO audit_trail (created_at, action)
    SELECT FROM_UNIXTIME(UNIX_TIMESTAMP() - MOD(seq * 7919 * 523, 364 * 86400)), ELT(1 + MOD(seq, 2), 'login', 'logout')
    FROM {sequence(ROWS)}"""
JOBS = """
[job.hourly]
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
bucket = "1h"
zeros = false
chunk = 7000
name = "hourly.{action}.{measure}"

[job.minutely]
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
zeros = false
name = "minutely.{action}.{measure}"
"""


def deferred(app: Shipper) -> int:
    """Count the rows whose totals are deferred."""
    with closing(sqlite3.connect(app.folder / "shipper.db")) as connection:
        rows: int = connection.execute("SELECT COALESCE(SUM(value), 0) FROM total WHERE changed = 2").fetchone()[0]
    return rows


def counted(mariadb: MariaDB, length: int) -> dict[str, Counter[int]]:
    """Count the table by action and span of time."""
    counts: dict[str, Counter[int]] = {action: Counter() for action in ACTIONS}
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT action, UNIX_TIMESTAMP(created_at) FROM audit_trail")
        for action, moment in cursor.fetchall():
            counts[action][int(moment) // length * length] += 1
    return counts


def read(carbon: Path, path: str, *, since: float) -> dict[int, float]:
    """Read a series as Graphite does for a zoom from then until now: from the archive that reaches that far back."""
    file = carbon / "storage/whisper" / (path.replace(".", "/") + ".wsp")
    if not file.exists():  # Carbon creates it when it writes, some time after it has confirmed
        return {}
    try:
        (start, end, step), values = whisper.fetch(str(file), int(since))
    except whisper.CorruptWhisperFile:  # it is creating it
        return {}
    return {slot: value for slot, value in zip(range(start, end, step), values, strict=True) if value is not None}


def is_written(carbon: Path, waiting: int) -> bool:
    """Whether Carbon has written all datapoints."""
    since = time.time() - 366 * DAY
    sums = {
        name: sum(sum(read(carbon, f"audit.{name}.{action}.count", since=since).values()) for action in ACTIONS)
        for name in ("hourly", "minutely")
    }
    return sums == {"hourly": ROWS, "minutely": ROWS - waiting}


@pytest.mark.timeout(200)
def test_year_at_every_zoom(mariadb: MariaDB, database: str, tmp_path: Path) -> None:
    """The last hours, a week by minutes or hours, a month, the year: each zoom shows the source's numbers.

    Only an hour that is leaving the finest archive waits: as minutes it would be halved, as a sum overwritten.
    Mutants: put everything into the finest archive; merge without the minutes that are there.
    """
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute(HISTORY)
    server, carbon = CarbonCache(tmp_path / "carbon", retentions=RETENTIONS), tmp_path / "carbon"
    server.start()
    app = Shipper(tmp_path, url=database, port=server.port, jobs=JOBS)
    app.configure('"1m:1d"', f'"{RETENTIONS}"')
    try:
        ended = app.call("once")
        assert ended.returncode == 0, ended.stderr
        now = time.time()
        by_hour, by_minute = counted(mariadb, HOUR), counted(mariadb, 60)
        waits = range(int(now) - WEEK - EDGE_SECONDS - HOUR, int(now) - WEEK + EDGE_SECONDS + 1)
        waiting = deferred(app)
        assert 0 < waiting == sum(rows for hours in by_hour.values() for hour, rows in hours.items() if hour in waits)
        wait_for(lambda: is_written(carbon, waiting), "Carbon has written it all")

        for action in by_hour:
            # a job with buckets of hours: every zoom that shows hours
            hourly = f"audit.hourly.{action}.count"
            for ago in (30 * DAY, 90 * DAY, 365 * DAY):
                expected = {hour: rows for hour, rows in by_hour[action].items() if hour > now - ago}
                assert read(carbon, hourly, since=now - ago) == expected
            assert read(carbon, hourly, since=now - 5 * DAY) == {
                hour: rows for hour, rows in by_hour[action].items() if hour > now - 5 * DAY
            }
            # a job with buckets of minutes: minutes within the week, sums of hours before it
            minutely = f"audit.minutely.{action}.count"
            for ago in (HOUR, DAY, 6 * DAY):
                expected = {minute: rows for minute, rows in by_minute[action].items() if minute > now - ago}
                assert read(carbon, minutely, since=now - ago) == expected
            for ago in (30 * DAY, 365 * DAY):
                shown = read(carbon, minutely, since=now - ago)
                assert {hour: rows for hour, rows in shown.items() if hour not in waits} == {
                    hour: rows for hour, rows in by_hour[action].items() if hour > now - ago and hour not in waits
                }
    finally:
        server.close()
