"""`shipper reset` as a subprocess on real servers: the service runs the operation, or the command."""

import json
from collections.abc import Iterator

import pytest
from harness import EVENTS, Shipper, total, wait_for
from servers import MariaDB

from shipper.demo.carbon_cache import CarbonCache

ROW = """
    INSERT INTO audit_trail (created_at, action, outcome)
    VALUES (UTC_TIMESTAMP() - INTERVAL %s SECOND, %s, 'ok')"""
TICKS = '\n[job.ticks]\ntable = "audit_trail"\nid = "id"\nname = "ticks.{measure}"\n'
OWN = """
[job.own]
table = "audit_trail"
id = "id"
by = ["action"]
name = "own.{action}.{measure}"
sql = \"\"\"
    SELECT action, created_at AS bucket, COUNT(*) AS hits FROM audit_trail
    WHERE id > :after AND id <= :upto GROUP BY action, created_at\"\"\"
"""
WHICH = "nothing was changed: repeat the command with one of --emptied, --restored, --replaced"

REFUSED: list[tuple[list[str], int, str]] = [
    (["events"], 2, WHICH),
    (["events", "--emptied", "--restored", "--yes"], 2, "pass one of --emptied, --restored, --replaced: not two."),
    (["events", "--restored"], 2, "pass --yes to confirm without a terminal"),
    (["--restored", "--yes"], 2, "Missing argument 'JOB'"),
    (["evnts", "--restored", "--yes"], 78, "The jobs are: events."),
    (
        ["events", "--emptied", "--yes"],
        1,
        "--emptied would count rows twice: the job is not held, and rows up to 5 are counted",
    ),
    (["events", "--replaced", "--yes"], 1, "--replaced would count rows twice"),
]


@pytest.fixture
def begun(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> Shipper:
    """Provide the program with five rows of ten minutes ago, delivered."""
    insert(mariadb, 5, ago=600)
    assert shipper_app.call("once").returncode == 0
    wait_for(lambda: total(carbon_cache) == 5, "five rows in Graphite")
    return shipper_app


@pytest.fixture(params=["alone", "by the service"])
def either(request: pytest.FixtureRequest, begun: Shipper) -> Iterator[Shipper]:
    """Provide the program with a running service, or without."""
    if request.param == "by the service":
        begun.start()
    yield begun
    assert begun.stop() == 0
    assert "Traceback" not in begun.text()


def insert(mariadb: MariaDB, rows: int, *, ago: int = 0, action: str = "login") -> None:
    """Commit rows."""
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.executemany(ROW, [(ago, action)] * rows)


def execute(mariadb: MariaDB, *statements: str) -> None:
    """Execute statements on the table."""
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def ship(app: Shipper) -> None:
    """Capture and deliver all rows, if no service does."""
    if not (app.folder / "control.sock").exists():
        ended = app.call("once")
        assert ended.returncode == 0, ended.stderr


def test_emptied(either: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """The plan shows each case and changes nothing; then all rows of the emptied table are added, once."""
    runs = (either.folder / "control.sock").exists()
    execute(mariadb, "TRUNCATE audit_trail")
    insert(mariadb, 2, ago=60)
    insert(mariadb, 1)
    if runs:
        wait_for(lambda: "capture.failed" in either.events(), "the job is held")
        assert "run `shipper reset events`" in either.text()
    before = either.stored("SELECT * FROM watermark"), either.stored("SELECT * FROM total ORDER BY 1, 2, 3")
    shown = either.call("reset", "events", "--utc")
    assert shown.returncode == 2
    expected = "events: held, because its table audit_trail was reset: its largest id fell to 3; id 5 was captured\n"
    assert shown.stdout.startswith(expected)
    assert "  the table has ids 1 to 3; the first row is from 20" in shown.stdout
    assert "  the job has counted ids up to 5, complete until 20" in shown.stdout
    assert "  the table has 0 of the 5 newest rows that the job counted\n" in shown.stdout
    assert "  all present rows are added: ids 1 to 3, at most 3 rows\n" in shown.stdout
    assert "  rows that were written after the job's last tick and then deleted are not counted\n--re" in shown.stdout
    assert "  ids up to 3 count as already counted; only new rows are added\n" in shown.stdout
    assert "Graphite keeps its datapoints.\nTo recount a span of time" in shown.stdout
    assert shown.stdout.endswith("\nSuch a recount lowers values whose rows are gone.\n")
    assert before == (either.stored("SELECT * FROM watermark"), either.stored("SELECT * FROM total ORDER BY 1, 2, 3"))

    done = either.call("reset", "events", "--emptied", "--yes", "-o", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["done"] == {"job": "events", "what": "emptied", "before": 5, "captured": 0, "is_delivered": True}
    assert (told["plan"]["is_held"], told["plan"]["largest"], told["plan"]["what"]) == (True, 3, "emptied")
    assert "events: continues after id 0 at its next tick\n" in done.stderr
    assert "event=source.reset" in (either.text() if runs else done.stderr)
    ship(either)
    wait_for(
        lambda: either.captured() == {"events": 3} and total(carbon_cache) == 8, "five rows of before, three of now"
    )
    again = either.call("reset", "events", "--emptied", "--yes")
    assert (again.returncode, "rows up to 3 are counted" in again.stderr) == (1, True)


def test_restored(either: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """Rows of an older copy are taken as counted; a second reset is harmless."""
    execute(mariadb, "DELETE FROM audit_trail WHERE id > 3", "ALTER TABLE audit_trail AUTO_INCREMENT = 4")
    shown = either.call("reset", "events")
    assert "  the table has 3 of the 5 newest rows that the job counted\n" in shown.stdout
    assert (
        "  the table has rows that are counted already: --emptied and --replaced would count them twice\n"
        in shown.stdout
    )
    for _ in range(2):
        done = either.call("reset", "events", "--restored", "--yes")
        assert done.returncode == 0, done.stderr
        assert "events: continues after id 3 at its next tick\n" in done.stdout
        assert "--restored: it was restored to an earlier state" in done.stdout
        assert "--emptied:" not in done.stdout
    insert(mariadb, 2)
    ship(either)

    wait_for(lambda: either.captured() == {"events": 5} and total(carbon_cache) == 7, "five rows of before, two of now")


def test_not_held(begun: Shipper) -> None:
    """The plan of a job that is not held shows that, and rejects two choices; the same in JSON, with nothing done."""
    shown = begun.call("reset", "events")
    assert shown.returncode == 2
    assert "events: not held; nothing shows that its table audit_trail was reset\n" in shown.stdout
    assert shown.stdout.count("not possible: rows up to id 5 are counted, and would be counted twice") == 2
    told = begun.call("reset", "events", "-o", "json")
    assert (told.returncode, WHICH in told.stderr) == (2, True)
    document = json.loads(told.stdout)
    assert (document["done"], document["plan"]["reason"]) == (None, None)
    assert [one["is_rejected"] for one in document["plan"]["choices"]] == [True, False, True]


def test_refused(begun: Shipper) -> None:
    """An impossible reset is rejected with the reason, and changes nothing."""
    before = begun.stored("SELECT * FROM watermark"), begun.stored("SELECT * FROM position")
    for arguments, code, expected in REFUSED:
        ended = begun.call("reset", *arguments)
        assert (ended.returncode, expected in ended.stderr) == (code, True), f"{arguments}: {ended.stderr}"
        assert "Traceback" not in ended.stderr

    assert before == (begun.stored("SELECT * FROM watermark"), begun.stored("SELECT * FROM position"))


def test_table_is_gone(begun: Shipper, mariadb: MariaDB) -> None:
    """The reset of a job without its table is rejected, and changes nothing."""
    execute(mariadb, "RENAME TABLE audit_trail TO elsewhere")
    refused = begun.call("reset", "events", "--restored", "--yes")

    assert refused.returncode == 1
    assert "audit_trail" in refused.stderr
    assert "exist" in refused.stderr
    assert begun.captured() == {"events": 5}


def test_several_jobs(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """Each job of a table is reset separately: with `time`, without, with custom sql, with `lookback`."""
    looking_back = EVENTS.replace("[job.events]", '[job.back]\nlookback = "1h"').replace("events.{", "back.{")
    with shipper_app.config.open("a") as config:
        config.write(TICKS + OWN + looking_back)
    insert(mariadb, 5, ago=600)
    assert shipper_app.call("once").returncode == 0
    execute(mariadb, "TRUNCATE audit_trail")
    insert(mariadb, 3, ago=300)
    assert shipper_app.call("once").returncode == 1
    expected = {"events": 5, "ticks": 5, "own": 5, "back": 5}
    assert shipper_app.captured() == expected
    for job in expected:
        done = shipper_app.call("reset", job, "--emptied", "--yes")
        assert done.returncode == 0, done.stderr
        expected[job] = 0
        assert shipper_app.captured() == expected
    ended = shipper_app.call("once")
    assert ended.returncode == 0, ended.stderr
    assert shipper_app.captured() == dict.fromkeys(expected, 3)

    paths = ["events.login.count", "ticks.count", "own.login.hits", "back.login.count"]
    wait_for(lambda: [total(carbon_cache, f"audit.{path}") for path in paths] == [8.0] * 4, "all rows of both tables")
