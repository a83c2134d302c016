"""Tables without an integer key, with the program as an operator has it: found by check, counted along a time."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from builders import query
from harness import Shipper, wait_for
from servers import PostgreSQL
from tables import Table, on_mariadb, on_postgresql, on_sqlite

from shipper.core.errors import QueryRefused
from shipper.demo.carbon_cache import CarbonCache


class Kind(NamedTuple):
    """A kind of table."""

    database: str
    columns: str
    """Columns besides `action`; the time is `at`."""
    unit: str | None = None
    """Unit of a time that is a number."""

    def time(self, ago: int) -> object:
        """Return a time a number of seconds ago, as the table stores it."""
        now = datetime.now(UTC) - timedelta(seconds=ago)
        if self.unit is None:
            return now.strftime("%Y-%m-%d %H:%M:%S")
        return int(now.timestamp()) * {"s": 1, "ms": 1000, "us": 1_000_000}[self.unit]


KINDS = {
    "uuid and DATETIME(3)": Kind("mariadb", "id CHAR(36) PRIMARY KEY, at DATETIME(3) NOT NULL"),
    "no key and TIMESTAMP": Kind("mariadb", "id VARCHAR(36), at TIMESTAMP(6) NULL"),
    "uuid and timestamptz": Kind("postgresql", "id uuid PRIMARY KEY, at timestamptz"),
    "no key and timestamp": Kind("postgresql", "id text, at timestamp"),
    "cuid and epoch": Kind("mariadb", "id VARCHAR(36) PRIMARY KEY, at INT NOT NULL", "s"),
    "uuid and milliseconds": Kind("mariadb", "id CHAR(36), at BIGINT", "ms"),
    "uuid and milliseconds on PostgreSQL": Kind("postgresql", "id varchar(36), at bigint", "ms"),
    "uuid and fractions": Kind("postgresql", "id varchar(36), at double precision", "s"),
    "epoch in microseconds": Kind("sqlite", "id TEXT PRIMARY KEY, at INTEGER", "us"),
    "text": Kind("sqlite", "id TEXT PRIMARY KEY, at TEXT"),
}
JOB = """
[job.events]
table = "log"
id = "id"
time = "at"
by = ["action"]
name = "events.{action}.{measure}"
"""


class Site(NamedTuple):
    """A table, and the program beside it."""

    kind: Kind
    table: Table
    app: Shipper
    carbon: CarbonCache

    def insert(self, *actions: str, ago: int = 0) -> None:
        """Insert rows with a time a number of seconds ago."""
        for action in actions:
            values = str(uuid4()), self.kind.time(ago), action
            self.table.execute("INSERT INTO log (id, at, action) VALUES (%s, %s, %s)", values)

    def document(self, command: str) -> Any:
        """Return the result of a command as JSON."""
        done = self.app.call(command, "-o", "json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def bad(self) -> dict[str, str]:
        """Return the errors of check, with their remedies."""
        return {one["text"]: one["remedy"] for one in self.document("check")["findings"] if not one["is_good"]}

    def sums(self) -> dict[str, float]:
        """Add up every series as Whisper holds it."""
        return {path: sum(slots.values()) for path, slots in self.carbon.sums().items()}


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path, carbon_cache: CarbonCache) -> Iterator[Site]:
    """Give a table of each kind with three rows, and a job that names its key as id."""
    kind: Kind = KINDS[request.param]
    if kind.database == "sqlite":
        table = on_sqlite(tmp_path / "app.db", is_wal=True)
    elif kind.database == "mariadb":
        table = on_mariadb(request.getfixturevalue("mariadb"))
    else:
        table = on_postgresql(request.getfixturevalue("postgresql"))
    table.execute(f"CREATE TABLE log ({kind.columns}, action VARCHAR(32))")
    app = Shipper(tmp_path, url=table.url, port=carbon_cache.port, jobs=JOB)
    made = Site(kind, table, app, carbon_cache)
    if kind.unit is not None:
        made.app.configure('time = "at"', f'time = "at"\ntime_unit = "{kind.unit}"')
    made.insert("a", "a", "b")
    with closing(table):
        yield made


def test_table_without_an_integer_key(site: Site) -> None:
    """Each error of check has a remedy, all of them together let the table be counted.

    Mutants: take a uuid for an id; require no index; show seconds as ids.
    """
    # the key is no id: check and once say the same
    (text, remedy), *_ = site.bad().items()
    assert re.search(r"which is not an id", text), text
    assert "Set `id` and `time` to an indexed time column" in remedy
    ended = site.app.call("once")
    assert ended.returncode == 1
    assert "which is not an id" in ended.stderr
    # the time as id: it needs an index
    site.app.configure('id = "id"', 'id = "at"')
    ((text, remedy),) = site.bad().items()
    assert text == "no index begins with at: each query would read the complete table"
    site.table.execute(remedy)
    assert site.bad() == {}

    shown = site.app.call("preview events")
    assert ", 3 rows" in shown.stdout, shown
    assert "audit.events.a.count 2" in shown.stdout
    assert site.app.call("once").returncode == 0
    wait_for(lambda: site.sums() == {"audit.events.a.count": 2, "audit.events.b.count": 1}, "three rows")


@pytest.mark.parametrize("site", ["cuid and epoch", "uuid and milliseconds on PostgreSQL"], indirect=True)
def test_times_as_ids(site: Site) -> None:
    """An id of times that rows share is an error in check and once; the remedy lets the job read along it.

    Mutant: the remedy of other ids.
    """
    # as ids, without their meaning
    site.app.configure('id = "id"', 'id = "at"')
    site.app.configure('time = "at"\n', "")
    site.app.configure(f'time_unit = "{site.kind.unit}"\n', "")
    site.app.configure('every = "1s"', 'every = "1m"')
    site.table.execute("CREATE INDEX log_at ON log (at)")
    site.table.execute("UPDATE log SET at = %s", (site.kind.time(0),))

    ((text, remedy),) = site.bad().items()
    keys = f'`time = "at"` and `time_unit = "{site.kind.unit}"`'
    assert text.startswith("two rows have the at ")
    assert keys in remedy
    ended = site.app.call("once")
    assert ended.returncode == 1
    assert keys in ended.stderr.replace('\\"', '"')
    site.app.configure('id = "at"', 'id = "at"\n' + keys.replace("` and `", "\n").strip("`"))
    (text,) = site.bad()
    assert "it counted log.at of source app" in text
    assert "says log.at (time) of source app" in text
    site.app.configure("[job.events]", "[job.log]")
    assert site.bad() == {}
    ended = site.app.call("once")
    assert ended.returncode == 0, ended.stderr
    wait_for(lambda: site.sums() == {"audit.events.a.count": 2, "audit.events.b.count": 1}, "three rows")


@pytest.mark.parametrize("site", ["uuid and DATETIME(3)", "uuid and milliseconds on PostgreSQL", "text"], indirect=True)
def test_commands(site: Site) -> None:
    """All commands know jobs along a time."""
    site.app.configure('id = "id"', 'id = "at"')
    site.table.execute("CREATE INDEX log_at ON log (at)")
    for ago in range(3600, 3610):  # a backfill leaves the oldest rows out: others may be purged
        site.insert("z", ago=ago)
    assert site.app.call("once").returncode == 0
    (job,) = site.document("status")["jobs"]
    now = datetime.now(UTC)
    assert now.timestamp() - 120 < job["watermark"] <= now.timestamp()
    assert f"{datetime.fromtimestamp(job['watermark'], UTC):%Y-%m-%d %H:%M:%S}" in site.app.call("status").stdout
    assert "SECONDS" in site.app.call("history events").stdout

    # rows that were counted, and are changed: a backfill counts them again
    site.table.execute("UPDATE log SET action = 'c' WHERE action = 'a'")
    span = [f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (datetime.fromtimestamp(now.timestamp() - 600, UTC), now)]
    done = site.app.call("backfill events --yes", "--from", span[0], "--until", span[1])
    assert done.returncode == 0, done.stderr
    expected = {"audit.events.a.count": 0, "audit.events.b.count": 1, "audit.events.c.count": 2}
    expected["audit.events.z.count"] = 10
    wait_for(lambda: site.sums() == expected, "a backfill")
    site.insert("b")
    assert site.app.call("once").returncode == 0
    wait_for(lambda: sum(site.sums().values()) == 14, "a row after the backfill")

    # what does not apply is refused
    reset = site.app.call("reset events --yes --emptied")
    assert (reset.returncode, "needs no reset" in reset.stderr) == (1, True), reset
    skipped = site.app.call("admin seek events --yes --to 5")
    assert "cannot skip by id" in skipped.stderr
    site.app.configure('start = "beginning"', "start = 5")
    assert "`start` is an id, but `id` is a time column" in site.app.call("check").stderr


@pytest.mark.parametrize("site", ["no key and TIMESTAMP"], indirect=True)
def test_time_that_updates_set(site: Site) -> None:
    """The check tells of a time that the database changes. Mutant: look for it in no catalogue."""
    site.app.configure('id = "id"', 'id = "at"')
    site.table.execute("CREATE INDEX log_at ON log (at)")
    told = (
        "! table log of app: each UPDATE of a row sets at, and the row is then counted again\n"
        "    If rows are updated, set `id` and `time` to another time column.\n"
    )
    before = site.app.call("check").stdout
    site.table.execute("ALTER TABLE log MODIFY at TIMESTAMP NULL ON UPDATE CURRENT_TIMESTAMP")

    assert told not in before
    assert told in site.app.call("check").stdout


@pytest.mark.parametrize("kind", ["decimal", "numeric", "domain", "domain of domain", "plain numeric"])
def test_ids_of_other_types(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, carbon_cache: CarbonCache
) -> None:
    """Whole numbers of any type are ids: of DECIMAL and NUMERIC without a scale, and of domains over integers."""
    if kind == "decimal":
        table, type_ = on_mariadb(request.getfixturevalue("mariadb")), "DECIMAL(20)"
    else:
        table = on_postgresql(request.getfixturevalue("postgresql"))
        table.execute("CREATE DOMAIN audit_id AS numeric(20) CHECK (VALUE > 0)")
        table.execute("CREATE DOMAIN own_id AS audit_id")
        types = {"numeric": "numeric(20)", "domain": "audit_id", "domain of domain": "own_id"}
        type_ = types.get(kind, "numeric")
    with closing(table):
        table.execute(f"CREATE TABLE log (id {type_} PRIMARY KEY, at TIMESTAMP, action VARCHAR(32))")
        app = Shipper(tmp_path, url=table.url, port=carbon_cache.port, jobs=JOB)
        made = Site(Kind("", ""), table, app, carbon_cache)
        moment = made.kind.time(0)
        for identity in (1, 2, 3, 70, 4000):  # some are missing: ids are asked for as words
            table.execute("INSERT INTO log (id, at, action) VALUES (%s, %s, 'a')", (identity, moment))
        if kind == "plain numeric":
            (text,) = made.bad()
            assert text == "id has type numeric, which is not an id"
            return
        assert made.bad() == {}
        assert app.call("once").returncode == 0
        table.execute("INSERT INTO log (id, at, action) VALUES (69, %s, 'a')", (moment,))
        assert app.call("once").returncode == 0
        wait_for(lambda: made.sums() == {"audit.events.a.count": 6}, "six rows")


@pytest.mark.parametrize(("value", "shown"), [("NaN", "NaN"), (str(2**63), "9.2233720368547758e+18")])
def test_numbers_that_are_no_ids(postgresql: PostgreSQL, value: str, shown: str) -> None:
    """A NUMERIC contains numbers that no BIGINT of our statements has: such an id is an error with its value.

    Mutants: take an error of Python for an unusable answer; allow ids of MySQL everywhere.
    """
    with closing(on_postgresql(postgresql)) as table:
        table.execute("CREATE TABLE log (id numeric(20) PRIMARY KEY)")
        table.execute("INSERT INTO log VALUES (1), (%s)", (value,))

        with pytest.raises(QueryRefused, match=re.escape(f"id holds {shown}, which is not an id")) as caught:
            table.observe(query(table="log", time=None, by=()))
    assert "Or add a key" in (caught.value.hint or "")
