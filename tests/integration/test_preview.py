"""`preview` on real servers: it shows exactly the next step of a job, and changes nothing."""

import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from harness import EVENTS, Shipper, wait_for
from servers import SCHEMAS, MariaDB, PostgreSQL, free_port
from tables import DATABASES

from shipper.demo.carbon_cache import CarbonCache

JOB = EVENTS + "zeros = false\n"
WHERE = JOB.replace("by = ", "where = { outcome = [\"it's\", '100 %:x \\'], duration_ms = { ge = 1.5 } }\nby = ")


@pytest.fixture
def app(tmp_path: Path, database: str) -> Iterator[Shipper]:
    """Provide the program on MariaDB, without Carbon."""
    program = Shipper(tmp_path, url=database, port=free_port(), jobs=JOB)
    yield program
    program.stop(9)


def insert(mariadb: MariaDB, *rows: tuple[str | None, str | None]) -> None:
    """Commit rows, each a time and an action."""
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO audit_trail (created_at, action, outcome) VALUES (%s, %s, 'ok')", rows)


def minute(ago: int) -> tuple[str, int]:
    """Return a minute of the past as in the database, and as in Carbon."""
    slot = int(time.time()) // 60 * 60 - 60 * ago
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(slot)), slot


def previewed(app: Shipper, *arguments: str) -> dict[str, Any]:
    """Return the preview of one job."""
    done = app.call("preview", "events", "-o", "json", *arguments)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    return dict(found)


def test_text(app: Shipper, mariadb: MariaDB) -> None:
    """The text follows the order of a capture; nothing is stored."""
    when, slot = minute(5)
    insert(mariadb, (when, "login"), (when, "login"), (when, "São Tomé"), (when, None), (None, "login"))
    shown = app.call("preview", "events", "--utc", "--limit", "2")

    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[:3] == [
        f"job            events on mysql 127.0.0.1:{mariadb.port}/app",
        "window         ids 1 to 5, 5 rows",
        "event          job.started start=beginning captured=0",
    ]
    assert "`audit_trail`.id > 0 AND `audit_trail`.id <= 5" in shown.stdout.replace("`id`", "id")
    at = lines.index("rejected       no_time: 1")
    assert re.fullmatch(r"plan           range on PRIMARY, about \d+ rows", lines[at - 1])
    assert lines[at + 1 :] == [
        "name           NULL becomes audit.events.none.count",
        "name           'São Tomé' becomes audit.events.S_o_Tom_.count",
        "sends          3 datapoints",
        f"  audit.events.S_o_Tom_.count 1 {slot}  {when}Z",
        f"  audit.events.login.count 2 {slot}     {when}Z",
        "  and 1 more: --limit 0 shows all",
        "new watermark  5",
    ]
    assert shown.stderr == "Nothing was sent, and nothing was stored.\n"
    assert list(app.folder.glob("shipper.db*")) == []


def test_is_what_follows(app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """The preview shows the datapoints that `once` then sends, of one chunk; it changes neither state nor Carbon.

    Mutants: capture into the state itself; all changed totals instead of those of this chunk; all chunks.
    """
    app.configure("[graphite]\nport = ", f"[graphite]\nport = {carbon_cache.port} #")
    when, slot = minute(5)
    insert(mariadb, (when, "login"))
    assert app.call("once").returncode == 0
    wait_for(lambda: carbon_cache.sums() == {"audit.events.login.count": {slot: 1}}, "the first row")
    insert(mariadb, (when, "login"), (when, "logout"), (when, "login"))
    before = (app.folder / "shipper.db").read_bytes()
    app.configure('every = "1s"', 'every = "1s"\nchunk = 2')
    chunk = previewed(app)
    app.configure("chunk = 2", "chunk = 1000")
    found = previewed(app)
    sums = carbon_cache.sums()

    assert chunk["lines"] == [f"audit.events.login.count 2 {slot}", f"audit.events.logout.count 1 {slot}"]
    assert (chunk["window"], chunk["horizon"], chunk["watermark"]) == ({"after": 1, "upto": 3}, 4, 3)
    assert found["lines"] == [f"audit.events.login.count 3 {slot}", f"audit.events.logout.count 1 {slot}"]
    assert (app.folder / "shipper.db").read_bytes() == before
    assert sums == {"audit.events.login.count": {slot: 1}}
    assert app.call("once").returncode == 0
    wait_for(lambda: sent(carbon_cache) == set(found["lines"]), "what was shown")
    again = previewed(app)
    assert (again["window"], again["lines"], again["watermark"]) == (None, [], 4)


def sent(carbon_cache: CarbonCache) -> set[str]:
    """Return the datapoints in Graphite, as lines."""
    return {
        f"{path} {value:.0f} {slot}" for path, slots in carbon_cache.sums().items() for slot, value in slots.items()
    }


def test_beside_the_service(tmp_path: Path, mariadb: MariaDB, database: str) -> None:
    """A preview does not affect a running service or its state."""
    app = Shipper(tmp_path, url=database, port=free_port(), jobs=JOB + 'every = "1h"\n')
    when, slot = minute(5)
    insert(mariadb, (when, "login"))
    app.start()
    try:
        wait_for(lambda: "capture.finished" in app.events(), "a capture")
        insert(mariadb, (when, "login"))
        before, found, after = dumped(app), previewed(app), dumped(app)
    finally:
        app.stop()

    assert found["lines"] == [f"audit.events.login.count 2 {slot}"]
    assert before == after
    assert app.events()[-1] == "service.stopped"
    assert "Traceback" not in app.text()


def dumped(app: Shipper) -> list[str]:
    """Return all rows of the state."""
    with closing(sqlite3.connect(f"file:{app.folder}/shipper.db?mode=ro", uri=True)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("kind", DATABASES)
def test_sql(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """The shown query can be pasted, with any values, and returns the rows that are counted.

    Mutants: the driver's own style of parameters; no types.
    """
    columns = "(created_at, action, outcome, duration_ms)"
    rows = "VALUES (CURRENT_TIMESTAMP, 'login', 'it''s', 2), (CURRENT_TIMESTAMP, 'login', '100 %:x \\', 2)"
    statement = f"INSERT INTO audit_trail {columns} {rows}"
    run = {"postgresql": _in_postgresql, "sqlite": _in_sqlite}.get(kind, _in_mariadb)
    url, execute = run(request, tmp_path, kind)
    execute(statement if kind not in {"mariadb", "mysql"} else statement.replace("\\", "\\\\"))
    found = previewed(Shipper(tmp_path, url=url, port=free_port(), jobs=WHERE))
    (row,) = execute(found["sql"])

    assert row[2] == found["rows"] == 2
    assert ":after" not in found["sql"]


Execute = Callable[[str], list[Any]]


def _in_mariadb(request: pytest.FixtureRequest, _: Path, kind: str) -> tuple[str, Execute]:
    mariadb: MariaDB = request.getfixturevalue(kind)

    def execute(statement: str) -> list[Any]:
        with mariadb.connect("app") as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    return mariadb.make_database("app"), execute


def _in_postgresql(request: pytest.FixtureRequest, _: Path, __: str) -> tuple[str, Execute]:
    postgresql: PostgreSQL = request.getfixturevalue("postgresql")

    def execute(statement: str) -> list[Any]:
        with postgresql.connect("app") as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    return postgresql.make_database("app"), execute


def _in_sqlite(_: pytest.FixtureRequest, folder: Path, __: str) -> tuple[str, Execute]:
    def execute(statement: str) -> list[Any]:
        with closing(sqlite3.connect(folder / "app.db", isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()

    execute(SCHEMAS["sqlite"])
    return f"sqlite:///{folder}/app.db", execute


def test_own_sql(app: Shipper, mariadb: MariaDB) -> None:
    """Custom sql is shown with its window, and its measures in the datapoints."""
    own = "SELECT action, created_at AS bucket, COUNT(*) AS n FROM audit_trail WHERE {} AND id % 2 GROUP BY 1, 2"
    app.configure('time = "created_at"', f'sql = "{own.format("id > :after AND id <= :upto")}"')
    when, slot = minute(5)
    insert(mariadb, (when, "login"), (when, "else"))
    found = previewed(app)

    assert found["sql"] == own.format("id > 0 AND id <= 2")
    assert found["lines"] == [f"audit.events.login.n 1 {slot}"]


def test_lookback(app: Shipper, mariadb: MariaDB) -> None:
    """For rows that are completed later, the preview shows the query that counts them. Mutant: the last query."""
    app.configure('time = "created_at"', 'time = "end_date"\nlookback = "15m"')
    when, slot = minute(5)
    insert(mariadb, (when, "login"), (when, "login"))
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE audit_trail SET end_date = created_at WHERE id = 1")
    found = previewed(app)

    assert found["lines"] == [f"audit.events.login.count 1 {slot}"]
    assert " >= 0 AND " in found["sql"]


def test_parked(app: Shipper, mariadb: MariaDB) -> None:
    """A total that waits for its archive is no datapoint yet, and is shown as deferred."""
    app.configure('"1m:1d"', '"1m:1d,1h:30d"')
    insert(mariadb, (minute(24 * 60)[0], "login"))
    found = previewed(app)

    assert (found["lines"], found["deferred"], found["watermark"]) == ([], 1, 1)


def test_failures(app: Shipper, mariadb: MariaDB) -> None:
    """The preview fails with the job's error and its hint; also for an unknown job, and for a broken state."""
    assert app.call("preview", "evnts").returncode == 78
    app.configure('"created_at"', '"crated_at"')
    refused = app.call("preview", "events")
    app.configure('"crated_at"', '"created_at"')
    insert(mariadb, (minute(5)[0], "login"))
    assert app.call("once").returncode == 1  # Carbon is nowhere, but captured is stored
    app.configure('"audit_trail"', '"other"')
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE other LIKE audit_trail")
    held = app.call("preview", "events")
    (app.folder / "shipper.db").write_text("this is no database, and it is longer than a header of one would be" * 9)
    corrupt = app.call("preview", "events")

    assert refused.returncode == 1
    assert "Unknown column 'audit_trail.crated_at'" in refused.stderr
    assert "hint: " in refused.stderr
    assert held.returncode == 78
    assert "it counted audit_trail.id" in held.stderr
    assert corrupt.returncode == 1
    assert "file is not a database" in corrupt.stderr
    assert "Traceback" not in refused.stderr + held.stderr + corrupt.stderr
