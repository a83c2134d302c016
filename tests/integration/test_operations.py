"""Commands that change jobs, as subprocesses on real servers: the service runs the operation, or the command."""

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from harness import EVENTS, Shipper, total, wait_for
from servers import MariaDB

from shipper.demo.carbon_cache import CarbonCache

OTHER = EVENTS.replace("[job.events]", "[job.others]").replace("events.{action}", "others.{action}")
TICKS = '\n[job.ticks]\ntable = "audit_trail"\nid = "id"\nname = "ticks.{measure}"\n'
ROW = """
    INSERT INTO audit_trail (created_at, action, outcome)
    VALUES (UTC_TIMESTAMP() - INTERVAL %s SECOND, 'login', 'ok')"""

REFUSED: list[tuple[list[str], int, str]] = [
    (["admin seek", "events", "--to", "end"], 2, "pass --yes to confirm without a terminal"),
    (["admin seek", "events"], 2, "Missing option '--to'"),
    (["admin seek", "events", "--to", "start", "--yes"], 2, "Or write an id, or end."),
    (["admin seek", "events", "--to", "soon", "--yes"], 2, "'soon' is not a time: write 06:15"),
    (["admin seek", "evnts", "--to", "end", "--yes"], 78, "The jobs are: events."),
    (["admin seek", "events", "--to", "99", "--yes"], 1, "99 is above the largest id of audit_trail, 10"),
    (["admin seek", "events", "--to", "2h", "--yes"], 1, "rows of that time are counted"),
    (["backfill", "events", "--from", "1h", "--until", "2h", "--yes"], 2, "is not before --until"),
    (["backfill", "events", "--from", "9d", "--until", "8d", "--yes"], 1, "no slot from "),
    (["admin forget", "events", "--yes"], 1, "the job is still in the configuration"),
    (["admin forget", "evnts", "--yes"], 78, "The state knows: events."),
    (["admin rename", "events", "logins", "--yes"], 1, "the job is still in the configuration"),
    (["admin rename", "evnts", "logins", "--yes"], 78, "The state knows: events."),
    (["admin import", "nowhere.db", "--yes"], 78, "No such file or directory"),
]


@pytest.fixture
def begun(shipper_app: Shipper, mariadb: MariaDB) -> Shipper:
    """Provide the program with five rows of ten minutes ago, delivered, and five that are not."""
    insert(mariadb, 5, ago=600)
    assert shipper_app.call("once").returncode == 0
    insert(mariadb, 5)
    return shipper_app


@pytest.fixture(params=["alone", "by the service"])
def either(request: pytest.FixtureRequest, begun: Shipper) -> Iterator[Shipper]:
    """Provide the program with a running service that has counted all ten rows, or without a service."""
    if request.param == "by the service":
        begun.start()
        wait_for(lambda: begun.captured() == {"events": 10}, "10 rows captured")
    yield begun
    assert begun.stop() == 0
    assert "Traceback" not in begun.text()


def insert(mariadb: MariaDB, rows: int, *, ago: int = 0) -> None:
    """Commit rows with a time some seconds ago."""
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.executemany(ROW, [(ago,)] * rows)


def lose(carbon_cache: CarbonCache) -> None:
    """Delete all series of the job in Carbon."""
    carbon_cache.stop()
    for file in carbon_cache.storage.rglob("events/**/*.wsp"):
        file.unlink()
    carbon_cache.start()


def test_seek_to_the_end(begun: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """Uncounted rows are skipped, except those of the current slot; the plan shows this first."""
    insert(mariadb, 3, ago=300)
    moved = begun.call("admin seek", "events", "--to", "end", "--yes", "--utc")

    assert moved.returncode == 0, moved.stderr
    assert "events: continues after id 13; now at id 5\n  skips 8 ids; of their " in moved.stdout
    assert re.search(r"of their rows, only those from [\d-]+ \d\d:\d\d:00Z on are counted\n", moved.stdout)
    assert "events: continues after id 13\n" in moved.stdout
    assert begun.captured() == {"events": 13}
    assert begun.call("once").returncode == 0
    wait_for(lambda: total(carbon_cache) in {5, 10}, "no row of five minutes ago in Graphite")
    again = begun.call("admin seek", "events", "--to", "13", "--yes")
    assert (again.returncode, "rows up to id 13 are counted already" in again.stderr) == (1, True)


def test_seek_by_the_service(begun: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """The running service skips rows, too; a job whose next tick is far away is seen to work at the start."""
    begun.configure('every = "1s"', 'cron = "0 0 1 1 *"')
    begun.start()
    wait_for(lambda: begun.call("status").returncode == 0, "healthy")
    insert(mariadb, 2, ago=120)
    moved = begun.call("admin seek", "events", "--to", "9", "-o", "json", "--yes")

    assert moved.returncode == 0, moved.stderr
    told = json.loads(moved.stdout)
    assert (told["plan"]["to"], told["plan"]["ids"], told["done"]["captured"]) == (9, 4, 9)
    assert "events: continues after id 9" in moved.stderr
    assert begun.captured() == {"events": 9}
    wait_for(lambda: begun.stored("SELECT value FROM watermark") == [("9",)], "the watermark follows")
    wait_for(lambda: "event=rows.skipped" in begun.text(), "rows.skipped")
    assert begun.stop() == 0


def test_pause(either: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """A paused job counts nothing, over restarts and in `once`, and afterwards all rows of the pause, once.

    Mutants: `once` runs paused jobs; the service pauses in memory only; it shows the backlog from before the pause.
    """
    before = either.captured()
    paused = either.call("pause", "events", "-o", "json")
    assert paused.returncode == 0, paused.stderr
    assert json.loads(paused.stdout) == {"jobs": ["events"], "changed": ["events"], "running": []}
    insert(mariadb, 3)
    if either.events():
        (shown,) = json.loads(either.call("status", "-o", "json").stdout)["jobs"]
        assert shown["behind"] is None  # it does not look
        assert either.stop() == 0
        either.start()
        text = either.call("status")
        assert (text.returncode, text.stdout.splitlines()[-1]) == (0, "healthy; paused: events")
    else:
        skipped, refused = either.call("once"), either.call("once", "events")
        assert (skipped.returncode, "event=job.skipped" in skipped.stderr) == (0, True)
        assert (refused.returncode, ": shipper resume events\n" in refused.stderr) == (1, True)
    assert either.captured() == before
    resumed = either.call("resume", "events", "events")
    assert (resumed.returncode, resumed.stdout) == (0, "events: continues at its next tick\n")
    assert either.events() or either.call("once").returncode == 0

    wait_for(lambda: total(carbon_cache) == 13, "13 rows in Graphite")
    assert either.call("pause", "evnts").returncode == 78


def test_backup_and_restore(begun: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """The plan says what a copy's age means for jobs with and without a time; after it no row is lost or doubled."""
    copy = begun.folder / "copy.db"
    with begun.config.open("a") as config:
        config.write(TICKS)
    assert begun.call("backup", str(copy)).returncode == 0
    assert begun.call("once").returncode == 0
    refused = begun.call("restore", str(copy))
    assert (refused.returncode, "pass --yes" in refused.stderr) == (2, True)
    restored = begun.call("restore", str(copy), "--yes")

    assert restored.returncode == 0, restored.stderr
    assert "  events: counted up to 5, complete until " in restored.stdout
    assert "Not in the copy, so they begin as new jobs: ticks.\n" in restored.stdout
    assert "; the replaced state is " in restored.stdout
    assert begun.captured() == {"events": 5}
    assert begun.call("once").returncode == 0
    wait_for(lambda: total(carbon_cache) == 10, "10 rows in Graphite")
    assert begun.call("backup", str(begun.folder / "more.db")).returncode == 0
    again = begun.call("restore", str(begun.folder / "more.db"), "--yes")
    assert "Jobs without `time` count these rows a second time, all in one bucket: ticks." in again.stdout


def test_count_again(either: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """Backfill recounts slots that Carbon lost, and doubles none; it aligns spans to slots and counts present rows."""
    before = either.captured()
    lose(carbon_cache)
    for _ in range(2):
        back = either.call("backfill", "events", "--from", "1h", "--yes")
        assert back.returncode == 0, back.stderr
        assert "events: the new values were not compared with Graphite: " in back.stderr
        assert re.search(r"events: (5|10) rows, \d+ datapoints in [\d.]+ s\n", back.stdout)
    assert either.captured() == before
    wait_for(lambda: total(carbon_cache) == before["events"], "all rows in Graphite")
    assert either.stored("SELECT * FROM setting WHERE name LIKE 'backfill%'") == []

    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE audit_trail SET action = 'sso' WHERE id IN (2, 3)")
    filled = either.call("backfill", "events", "--from", "15m", "--until", "5m", "--yes", "--rate", "100000")
    assert filled.returncode == 0, filled.stderr
    assert re.search(
        r"recounts these slots.*:\n  [\d-]+ \d\d:\d\d:00 \w+ up to [\d-]+ \d\d:\d\d:00 \w+\n"
        r"  values become lower in slots whose rows were deleted: 0 if no row is left\n",
        filled.stdout,
    )
    assert "100%  5 rows" in filled.stderr
    wait_for(lambda: total(carbon_cache) == before["events"] - 2, "two logins less in Graphite")
    wait_for(lambda: total(carbon_cache, "audit.events.sso.count") == 2, "which are something else now")


def test_backfill_beside_a_carbon_that_was_away(begun: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """The command says that Carbon lacks values while it is away, and waits for the next attempt once it is back.

    Mutant: believe the failure of before.
    """
    late = "Carbon has not received all of it yet"
    begun.start()
    wait_for(lambda: begun.captured() == {"events": 10}, "10 rows captured")
    carbon_cache.stop()
    insert(mariadb, 1)
    wait_for(lambda: "delivery.failed" in begun.events(), "delivery.failed")
    assert late in begun.call("backfill", "events", "--from", "1h", "--yes").stderr

    carbon_cache.start()
    wait_for(lambda: "delivery.recovered" in begun.events(), "delivery.recovered")
    carbon_cache.stop()
    insert(mariadb, 1)
    wait_for(lambda: begun.events().count("delivery.failed") == 2, "delivery.failed again")
    carbon_cache.start()
    assert late not in begun.call("backfill", "events", "--from", "1h", "--yes").stderr
    wait_for(lambda: total(carbon_cache) == 12, "all rows in Graphite")
    assert begun.stop() == 0


def test_backfill_of_a_job_without_a_time(begun: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """Slots of a job without `time` are ranges of ids, known for `keep`; backfill rejects earlier slots."""
    with begun.config.open("a") as config:
        config.write(TICKS)
    assert begun.call("once").returncode == 0
    refused = begun.call("backfill", "ticks", "--from", "2h", "--until", "1h", "--yes")
    assert refused.returncode == 1
    assert "does not know all rows from " in refused.stderr
    since = re.search(r"Choose a time from (\d{4}-\d\d-\d\dT\d\d:\d\d:00)Z on", refused.stderr)
    assert since
    until = datetime.fromisoformat(since[1]) + timedelta(minutes=1)  # its first bucket may be to come
    span = ["--from", since[1], "--until", until.isoformat()]
    counted = begun.call("backfill", "ticks", *span, "--utc", "--yes", "-o", "json")

    assert counted.returncode == 0, counted.stderr
    assert json.loads(counted.stdout)["done"]["rows"] == 10


def test_backfill_goes_on(begun: Shipper, mariadb: MariaDB) -> None:
    """An interrupted backfill resumes: killed after some pieces, the same command recounts only the rest."""
    insert(mariadb, 5, ago=10 * 3600)
    assert begun.call("once").returncode == 0
    span = ["--from", time.strftime("%Y-%m-%dT%H:00Z", time.gmtime(time.time() - 11 * 3600)), "--until"]
    span.append(time.strftime("%Y-%m-%dT%H:00Z", time.gmtime(time.time() - 3600)))
    command = [sys.executable, "-m", "shipper.cli", "backfill", "events", *span, "--yes", "--rate", "1"]
    killed = subprocess.Popen([*command, "--config", str(begun.config)], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for(lambda: bool(begun.stored("SELECT 1 FROM setting WHERE name = 'backfill events'")), "a piece is done")
    killed.kill()
    killed.communicate()
    rest = begun.call("backfill", "events", *span, "--yes", "-o", "json")

    assert rest.returncode == 0, rest.stderr
    plan = json.loads(rest.stdout)["plan"]
    assert plan["spans"][0][0] < plan["resumes_at"] < plan["spans"][0][1]
    assert "continues at" in rest.stderr
    assert begun.stored("SELECT 1 FROM setting WHERE name = 'backfill events'") == []


def test_refused(begun: Shipper) -> None:
    """An impossible operation is rejected with a hint, and changes nothing."""
    before = begun.stored("SELECT * FROM watermark"), begun.stored("SELECT * FROM total")
    for arguments, code, expected in REFUSED:
        ended = begun.call(*arguments)
        assert (ended.returncode, expected in ended.stderr) == (code, True), f"{arguments}: {ended.stderr}"
        assert "Traceback" not in ended.stderr

    assert before == (begun.stored("SELECT * FROM watermark"), begun.stored("SELECT * FROM total"))


@pytest.mark.parametrize(("answer", "code", "expected"), [("n", 1, 5), ("y", 0, 10)])
def test_asks(begun: Shipper, answer: str, code: int, expected: int) -> None:
    """In a terminal the command shows its plan, and runs it only after a yes."""
    ours, theirs = pty.openpty()
    arguments = ["admin", "seek", "--config", str(begun.config), "events", "--to", "end"]
    command = [sys.executable, "-m", "shipper.cli", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.write(ours, f"{answer}\n".encode())
    shown, talk = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)

    assert process.returncode == code
    assert "skips 5 ids; of their rows, only those from " in shown
    assert ("nothing was changed" in talk) == (answer == "n")
    assert begun.captured() == {"events": expected}


def test_names(either: Shipper, carbon_cache: CarbonCache) -> None:
    """A job with a new name and definition continues after `rename`; `forget` deletes a removed job."""
    runs = (either.folder / "control.sock").exists()
    either.configure('start = "beginning"', 'start = "now"')
    either.configure('by = ["action"]', 'by = ["action"]\nwhere = { outcome = "ok" }')
    name(either, "[job.events]", "[job.logins]")
    renamed = either.call("admin rename", "events", "logins", "--yes", "-o", "json")
    assert renamed.returncode == 0, renamed.stderr
    told = json.loads(renamed.stdout)
    assert (told["plan"]["captured"], told["plan"]["is_configured"]) == (10 if runs else 5, True)
    assert set(either.captured()) == {"logins"}
    if not runs:
        assert either.call("once").returncode == 0
    wait_for(lambda: either.captured() == {"logins": 10} and total(carbon_cache) == 10, "all rows, once")

    either.configure("events.{action}", "others.{action}")
    either.configure('outcome = "ok"', 'outcome = "failure"')
    name(either, "[job.logins]", "[job.others]")
    forgotten = either.call("admin forget", "logins", "--yes")
    assert forgotten.returncode == 0, forgotten.stderr
    assert "  app audit_trail: watermark 10, captured 10" in forgotten.stdout
    assert "logins: forgotten\n" in forgotten.stdout
    assert "logins" not in either.captured()
    assert either.stored("SELECT COUNT(*) FROM series WHERE job = 'logins'") == [(0,)]


def name(app: Shipper, before: str, after: str) -> None:
    """Rename the job in the configuration, and let a running service reload it."""
    app.configure(before, after)
    if (app.folder / "control.sock").exists():
        assert app.call("admin reload").returncode == 0


def test_import(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache, tmp_path: Path) -> None:
    """New jobs start after the ids of an older script, first slot complete; rows without a new job are shown."""
    shipper_app.configure(EVENTS, EVENTS + OTHER)
    insert(mariadb, 4, ago=600)
    insert(mariadb, 3, ago=300)
    old = tmp_path / "persist.db"
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("CREATE TABLE persist (scriptname, index_table, index_column, index_value)")
        rows = [("events", "audit_trail", "id", 5), ("cron.py", "audit_trail", "id", "4"), ("x", "users", "id", 1)]
        connection.executemany("INSERT INTO persist VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    command = ["admin import", str(old), "--job", "cron.py=others", "--yes"]
    imported = shipper_app.call(*command)

    assert imported.returncode == 0, imported.stderr
    assert "cron.py counted audit_trail.id up to 4: job others starts after that id" in imported.stdout
    assert "x counted users.id up to 1: not imported, because no job fits" in imported.stdout
    assert shipper_app.captured() == {"events": 5, "others": 4}
    assert shipper_app.call("once").returncode == 0
    wait_for(lambda: total(carbon_cache) == 3, "the slot in which row 5 is, whole")
    wait_for(lambda: total(carbon_cache, "audit.others.login.count") == 7, "the slot in which row 4 is, too")
    again = shipper_app.call(*command)
    assert again.returncode == 1
    assert "import: nothing to import: these jobs have started already: others, events\n" in again.stderr
    assert "`shipper admin seek`" in again.stderr
