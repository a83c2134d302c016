"""The commands that verify Graphite, on a real source, Carbon and graphite-web."""

import json
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from builders import points
from graphite_web import GraphiteWeb
from harness import EVENTS, Shipper, wait_for
from servers import MariaDB

from shipper.demo.carbon_cache import CarbonCache
from shipper.graphite.carbon import Carbon
from shipper.graphite.render_api import Readback

MINUTE = 60
HOUR = 3600


class Ends:
    """A shipper with a graphite-web, under a separate prefix."""

    def __init__(
        self, folder: Path, database: str, graphite: tuple[CarbonCache, GraphiteWeb], mariadb: MariaDB
    ) -> None:
        cache, web = graphite
        self.prefix = f"proof{time.monotonic_ns()}"
        self.app = Shipper(folder, url=database, port=cache.port)
        self.app.configure('prefix = "audit"', f'prefix = "{self.prefix}"\nrender_url = "{web.url}"')
        self.app.configure('"1m:1d"', '"1m:1d,1h:30d"')
        self.minute = int(time.time()) // MINUTE * MINUTE
        self._carbon = Carbon("127.0.0.1", cache.port, timeout=10)
        self._readback = Readback(web.url, timeout=30)
        self._mariadb = mariadb

    def execute(self, statement: str, *values: object) -> None:
        """Execute statements on the source."""
        with self._mariadb.connect("app") as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)

    def insert(self, ago: int, action: str, rows: int = 1) -> None:
        """Commit rows whose time is some seconds before the minute in which the test began."""
        values = ", ".join(["(FROM_UNIXTIME(%s), %s)"] * rows)
        self.execute(
            f"INSERT INTO audit_trail (created_at, action) VALUES {values}", *((self.minute - ago, action) * rows)
        )

    def send(self, series: str, value: float, slot: int) -> None:
        """Send Carbon a value that no shipper has counted, and wait until graphite-web shows it."""
        path = f"{self.prefix}.{series}"
        self._carbon.deliver(points(f"{path} {value} {slot}\n".encode()))
        self._carbon.close()
        wait_for(lambda: self._readback.read([path], slot) == {path: value}, "the value")

    def once(self) -> None:
        """Deliver all rows, and wait until graphite-web knows the series."""
        ended = self.app.call("once")
        assert ended.returncode == 0, ended.stderr
        wait_for(lambda: self.reconciled()["is_equal"], "all in Graphite")

    def reconciled(self, *arguments: str) -> dict[str, Any]:
        """Compare, and return the document."""
        ended = self.app.call("reconcile", "-o", "json", *arguments)
        if "HTTP 500" in ended.stderr:  # graphite-web came across a file that was just being made
            ended = self.app.call("reconcile", "-o", "json", *arguments)
        assert ended.returncode in {0, 1, 4}, ended.stderr
        document: dict[str, Any] = json.loads(ended.stdout)
        assert (document["is_equal"] or "fixed" in document) == (ended.returncode != 1)
        assert document["is_half_compared"] == (ended.returncode != 4) or ended.returncode == 1
        return document


@pytest.fixture
def ends(tmp_path: Path, database: str, graphite: tuple[CarbonCache, GraphiteWeb], mariadb: MariaDB) -> Iterator[Ends]:
    """Provide a shipper with a graphite-web."""
    ends = Ends(tmp_path, database, graphite, mariadb)
    yield ends
    ends.app.stop(signal.SIGKILL)


def test_backfill_proves_itself(ends: Ends) -> None:
    """A backfill names the gap that it leaves to the job's beginning, and compares its slots with Graphite at the end.

    Mutants: no gap; name a comparison that shows nothing; do not wait for the values; count equal slots that differ.
    """
    ends.app.configure('start = "beginning"', 'start = "now"')
    ends.insert(3 * HOUR, "login", 4)
    ends.insert(0, "login")
    assert ends.app.call("once").returncode == 0
    span = ["--from", time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(ends.minute - 4 * HOUR)), "--until"]
    filled = ends.app.call("backfill", "events", *span, "2h", "--yes")
    assert (filled.returncode, " stay incomplete" in filled.stdout) == (0, True), filled.stderr
    assert "`shipper reconcile events" not in filled.stdout  # which cannot compare them
    assert "  which values it lowers is unknown: reconcile cannot compare slots before the job's first" in filled.stdout
    assert re.search(r"^events: (\d+) of \1 slots are equal in Graphite$", filled.stderr, re.MULTILINE)
    # another sender's value: a series of the job has it, and no row of the source
    ends.send("events.login.count", 9, ends.minute - 3 * HOUR - 5 * MINUTE)
    again = ends.app.call("backfill", "events", "--from", "4h", "--yes", "-o", "json")
    document = json.loads(again.stdout)

    assert document["plan"]["gap"] is None
    assert (again.returncode, document["proof"]["different"]) == (1, 1)
    assert "  shipper reconcile events --from 20" in again.stderr


def test_plan_names_how_to_see_what_falls(ends: Ends) -> None:
    """The command in the plan of a backfill shows which values would fall, and the backfill lets them fall.

    Mutants: no command; another span.
    """
    ends.insert(30 * MINUTE, "login", 10)
    ends.insert(10 * MINUTE, "login", 5)
    ends.once()
    ends.execute("DELETE FROM audit_trail WHERE id BETWEEN 11 AND 13")
    planned = ends.app.call("backfill", "events", "--from", "15m", "--until", "5m")
    shown = re.search(r"`shipper reconcile (.*?)`", planned.stdout)
    assert shown is not None, planned.stdout
    (before,) = ends.reconciled(*shown[1].split())["jobs"]
    filled = ends.app.call("backfill", "events", "--from", "15m", "--until", "5m", "--yes", "-o", "json")

    (fall,) = before["differences"]
    assert (fall["source"], fall["graphite"]) == (2, 5)
    assert json.loads(filled.stdout)["proof"]["different"] == 0
    assert ends.reconciled(*shown[1].split())["is_equal"]


def test_reconcile(ends: Ends) -> None:
    """Delivered minutes and hours are equal; a change in the source or in Graphite is shown.

    That there is somebody to ask does not change how deliveries are proven. Mutant: read back wherever it can.
    """
    ends.insert(3 * MINUTE, "login", 4)
    ends.insert(2 * MINUTE, "login", 3)
    ends.insert(5 * MINUTE, "a b")
    ends.insert(3 * 24 * HOUR, "login", 5)
    ends.once()
    (job,) = ends.reconciled("--from", "7d")["jobs"]
    assert (job["different"], [part["step"] for part in job["parts"]]) == (0, [3600, 60])
    assert job["equal"] >= 4  # and zeros
    with closing(sqlite3.connect(ends.app.folder / "shipper.db")) as connection:
        assert {reads for (reads,) in connection.execute("SELECT reads FROM replay")} == {0}

    # a row that shipper has not seen, a value of another sender, and one in an hour of last week
    moved = "UPDATE audit_trail SET created_at = FROM_UNIXTIME(%s), action = 'sso' WHERE action = 'a b'"
    ends.execute(moved, ends.minute - 3 * MINUTE)
    ends.send("events.login.count", 7, ends.minute - 2 * MINUTE)
    hour = (ends.minute - 3 * 24 * HOUR) // HOUR * HOUR
    ends.send("events.login.count", 6, hour)
    wait_for(lambda: ends.reconciled("--from", "7d")["jobs"][0]["different"] == 4, "four differences")
    (job,) = ends.reconciled("--from", "7d", "events")["jobs"]
    names = ("slot", "step", "series", "source", "graphite")
    login, a_b, sso = (f"{ends.prefix}.events.{action}.count" for action in ("login", "a_b", "sso"))
    assert [tuple(one[name] for name in names) for one in job["differences"]] == [
        (hour, HOUR, login, 5, 6.0),
        (ends.minute - 300, MINUTE, a_b, None, 1.0),
        (ends.minute - 180, MINUTE, sso, 1, None),
        (ends.minute - 120, MINUTE, login, 3, 7.0),
    ]
    assert job["spans"] == [
        [hour, hour + HOUR],
        [ends.minute - 300, ends.minute - 240],
        [ends.minute - 180, ends.minute - 60],
    ]

    shown = ends.app.call("reconcile", "--utc", "--limit", "2")
    assert shown.returncode == 1
    head, first, second, _, summary_head, summary = shown.stdout.splitlines()
    assert head.split() == ["SLOT", "SERIES", "SOURCE", "GRAPHITE", "DIFFERENCE"]
    at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(ends.minute - 300)).split()
    assert first.split() == [*at, a_b, "-", "1", "1"]
    assert second.split()[2:] == [sso, "1", "missing", "-1"]
    assert summary_head.split() == ["JOB", "FROM", "UNTIL", "COMPARED", "EQUAL", "VALUES", "DIFFERENT", "VALUES"]
    assert (summary.split()[0], summary.split()[-1]) == ("events", "3")
    assert re.search(r" (1,4\d\d|1,3\d\d) of 1,440 slots ", summary)
    assert "2 of 3 differences are shown: --limit shows more" in shown.stderr

    # Graphite keeps 30 days: of 400 that is less than half, but differences decide the exit code
    beyond = ends.app.call("reconcile", "--from", "400d")
    assert beyond.returncode == 1
    assert "events: compared only " in beyond.stderr

    # recounted: minutes, an hour of last week, a value without rows
    fixed = ends.reconciled("--from", "7d", "--fix", "--yes")
    assert not fixed["is_equal"]
    assert [one["done"]["is_delivered"] for one in fixed["fixed"]] == [True]
    wait_for(lambda: ends.reconciled("--from", "7d")["is_equal"], "all is equal")


def test_little_is_compared(ends: Ends) -> None:
    """Of 400 days Graphite keeps 30: all compared slots are equal, but less than half. Mutant: exit with 0."""
    ends.insert(3 * MINUTE, "login", 4)
    ends.once()
    document = ends.reconciled("--from", "400d")
    (job,) = document["jobs"]
    assert (document["is_equal"], document["is_half_compared"]) == (True, False)
    assert abs(job["requested"] - 400 * 24 * 60) <= 1
    assert job["compared"] == sum((part["until"] - part["from"]) // MINUTE for part in job["parts"])
    assert job["requested"] - job["compared"] == sum(job["left_out"].values())
    assert set(job["left_out"]) == {"too_old", "cut"}
    little = ends.app.call("reconcile", "--from", "400d")
    assert little.returncode == 4
    share = r"4\d,\d\d\d of 57\d,\d\d\d slots"
    assert re.search(rf"^events: compared only {share}$", little.stderr, re.MULTILINE), little.stderr
    assert re.search(rf" {share} ", little.stdout), little.stdout


def test_reconcile_beside_the_service(ends: Ends) -> None:
    """Late rows keep coming: a row that is being delivered is no difference.

    Mutants: read rows above captured; look once.
    """
    ends.app.start()
    ends.insert(3 * MINUTE, "login")
    wait_for(lambda: ends.reconciled()["jobs"][0].get("equal"), "the first row")
    is_over = threading.Event()

    def write() -> None:
        while not is_over.wait(0.05):
            ends.insert(3 * MINUTE, "login")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = [ends.reconciled()["jobs"][0] for _ in range(3)]
    finally:
        is_over.set()
        writer.join()

    assert [(one["equal"] > 0, one["different"]) for one in found] == [(True, 0)] * 3


def test_what_cannot_be_asked(ends: Ends) -> None:
    """An impossible comparison is rejected with a hint; a job that has not started has nothing to compare."""
    assert ends.app.call("reconcile").returncode == 78  # there is no state yet
    ends.insert(2 * MINUTE, "login")
    ends.once()
    backwards = ends.app.call("reconcile", "--from", "1h", "--until", "2h")
    assert (backwards.returncode, "is not before" in backwards.stderr) == (2, True)
    ends.app.configure(EVENTS, EVENTS + EVENTS.replace("events", "others"))
    (others,) = ends.reconciled("others")["jobs"]
    assert not others["has_begun"]
    begun = ends.app.call("reconcile")
    assert (begun.returncode, "others: has not started: nothing to compare\n" in begun.stderr) == (0, True)
    assert "others: not compared" not in begun.stderr
    named = ends.reconciled("others", "--from", "1h", "--until", "now")
    assert named["jobs"][0]["left_out"] == {"not_whole": named["jobs"][0]["requested"]}
    assert (named["is_equal"], named["is_half_compared"]) == (True, False)
    unknown = ends.app.call("reconcile", "evnts")
    assert (unknown.returncode, "The jobs are: events, others." in unknown.stderr) == (78, True)

    ends.app.configure("port = ", "port = 1 # ")
    refused = ends.app.call("admin doctor")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "deliver to 127.0.0.1:1: " in refused.stderr
    ends.app.configure("render_url = ", 'render_url = "http://127.0.0.1:1" # ')
    for command in ("reconcile", "admin doctor"):
        ended = ends.app.call(command)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "read back from 127.0.0.1:1: " in ended.stderr

    ends.app.configure('time = "created_at"', 'time = "end_date"')
    changed = ends.app.call("reconcile", "events")
    assert (changed.returncode, "shipper admin reload" in changed.stderr) == (78, True)
    assert "`shipper resume`" in changed.stderr
    ends.app.configure("render_url", "# render_url")
    for command in ("reconcile", "admin doctor"):
        nobody = ends.app.call(command)
        assert nobody.returncode == 78
        assert "render_url = " in nobody.stderr


def test_doctor(ends: Ends) -> None:
    """Doctor accepts a Graphite that stores counts correctly, also twice; the test series has the shown path."""
    shown = ends.app.call("admin doctor")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.splitlines() == [
        "✓ sent values can be read",
        "✓ the last value of a slot wins",
        "✓ a value every 1m is kept for 1d",
        "✓ a value every 1h is kept for 30d",
        "✓ 1h values are the sum of 1m values (even with gaps)",
    ]
    again = json.loads(ends.app.call("admin doctor", "-o", "json").stdout)

    assert again["is_right"]
    assert again["sums"] == [{"step": 60, "into": 3600, "method": "sum", "keeps_single": True}]
    assert re.fullmatch(rf"{ends.prefix}\.shipper\.[^.]+\._doctor\.count", again["series"])
    assert again["series"].replace(".", "/") in shown.stderr


def test_check_with_a_canary(ends: Ends) -> None:
    """`check --canary` includes the verdicts of `doctor`."""
    checked = ends.app.call("check", "-o", "json", "--canary")
    canary = [one for one in json.loads(checked.stdout)["findings"] if one["subject"].startswith("canary ")]

    assert checked.returncode == 0, checked.stdout
    assert len(canary) > 2
    assert all(one["is_good"] for one in canary)
    assert not checked.stderr


def test_no_canary_before_carbon_is_right(
    ends: Ends, graphite: tuple[CarbonCache, GraphiteWeb], tmp_path: Path
) -> None:
    """While Carbon's files are wrong, no canary is sent: its file would keep their retentions. Mutant: send it."""
    (tmp_path / "carbon.conf").write_text("[cache]\nMAX_CREATES_PER_MINUTE = inf\n")
    (tmp_path / "storage-schemas.conf").write_text("[default]\npattern = .*\nretentions = 60s:1d\n")
    ends.app.configure(f'"{ends.prefix}"', f'"early.{ends.prefix}"')
    checked = ends.app.call("check", "--canary", "--carbon", str(tmp_path))

    assert checked.returncode == 1
    assert f"✗ carbon {tmp_path}/storage-schemas.conf: " in checked.stdout
    canary = [line for line in checked.stdout.splitlines() if line[2:].startswith("canary")]
    assert len(canary) == 1
    assert canary[0].startswith("! canary: not sent, because Carbon's configuration is not right yet")
    assert not [series for series in graphite[0].sums() if series.startswith(f"early.{ends.prefix}.")]


def test_doctor_of_averages(ends: Ends) -> None:
    """Doctor rejects a Graphite that stores means, and for less time, with a remedy, which names the canary's file."""
    ends.app.configure(f'"{ends.prefix}"', f'"wrong.{ends.prefix}"')
    ends.app.configure('"1m:1d,1h:30d"', '"1m:1d,1h:60d"')
    ended = ends.app.call("admin doctor", "-o", "json")
    assert ended.returncode == 1
    found = json.loads(ended.stdout)
    assert (found["is_right"], found["sums"][0]["method"], found["sums"][0]["keeps_single"]) == (
        False,
        "average",
        False,
    )
    bad = {one["text"]: one["remedy"] for one in found["verdicts"] if not one["is_good"]}
    assert [re.sub("59d2[23]h", "59d", text) for text in bad] == [
        "values 59d old are not kept",
        "1h values are missing where there are few 1m values: xFilesFactor is not 0",
    ]
    assert all("shipper admin carbon-conf" in remedy for remedy in bad.values())
    file = f"delete {found['series'].replace('.', '/')}.wsp in its Whisper directory"
    assert all(file in remedy for remedy in bad.values())
    checked = ends.app.call("check", "--canary").stdout
    assert checked.count(file) == checked.count("✗ canary ") == 2


def test_doctor_of_a_series_that_is_not_made(
    ends: Ends, graphite: tuple[CarbonCache, GraphiteWeb], tmp_path: Path
) -> None:
    """Doctor rejects a Carbon that creates no series, within the given time. Mutant: wait on."""
    reluctant = CarbonCache(tmp_path / "reluctant", retentions="1m:1d,1h:30d")
    conf = tmp_path / "reluctant/conf/carbon.conf"
    conf.write_text(conf.read_text().replace("MAX_CREATES_PER_MINUTE = inf", "MAX_CREATES_PER_MINUTE = 1"))
    reluctant.start()
    other = Carbon("127.0.0.1", reluctant.port, timeout=10)
    other.deliver(points(f"other.count 1 {ends.minute}\n".encode()))
    other.close()
    wait_for(lambda: "other.count" in reluctant.sums(), "the one series of this minute")
    ends.app.configure("port = ", f"port = {reluctant.port} # ")
    began = time.monotonic()
    ended = ends.app.call("admin doctor", "--wait", "2s")
    reluctant.close()

    assert ended.returncode == 1
    assert "✗ the test series is not in Graphite 2 s after it was sent" in ended.stdout
    assert "MAX_CREATES_PER_MINUTE" in ended.stdout
    assert time.monotonic() - began < 30  # as it waits without the option
