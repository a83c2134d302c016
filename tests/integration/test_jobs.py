"""Jobs through the program: several sources, tags, changes, custom sql; on SQLite and a real Carbon."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from harness import Shipper, wait_for
from servers import SCHEMAS

from shipper.demo.carbon_cache import CarbonCache


def insert(folder: Path, name: str, rows: int, action: str = "login") -> str:
    """Commit rows with the current time to a database, created if need be; return its URL."""
    with closing(sqlite3.connect(folder / f"{name}.db")) as connection, connection:
        connection.execute(SCHEMAS["sqlite"].replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        connection.executemany("INSERT INTO audit_trail (created_at, action) VALUES (?, ?)", [(now, action)] * rows)
    return f"sqlite:///{folder}/{name}.db"


def sums(carbon_cache: CarbonCache) -> dict[str, float]:
    """Add up every series as Whisper holds it."""
    return {path: sum(slots.values()) for path, slots in carbon_cache.sums().items()}


@pytest.fixture
def app(tmp_path: Path, carbon_cache: CarbonCache) -> Iterator[Shipper]:
    """Give the program, configured for a SQLite database with three rows."""
    program = Shipper(tmp_path, url=insert(tmp_path, "app", 3), port=carbon_cache.port)
    yield program
    program.stop()


def test_distinct_values(app: Shipper, carbon_cache: CarbonCache) -> None:
    """Users of an hour reach Carbon beside the rows; check, preview and backfill know them, too."""
    measure = 'measure = { count = "count", users = "distinct:outcome" }'
    app.configure('name = "events', f'bucket = "1h"\n{measure}\nname = "events')
    with closing(sqlite3.connect(app.folder / "app.db")) as connection, connection:
        connection.execute("UPDATE audit_trail SET outcome = CASE id WHEN 1 THEN 'Ann' ELSE 'ann' END")
    previewed, checked = app.call("preview", "events"), app.call("check")
    assert "audit.events.login.users 2 " in previewed.stdout
    assert "events: its query works" in checked.stdout
    assert app.call("once").returncode == 0
    wait_for(lambda: len(sums(carbon_cache)) == 2, "two series")

    assert sums(carbon_cache) == {"audit.events.login.count": 3, "audit.events.login.users": 2}
    app.configure("distinct:outcome", "distinct:nothing")
    checked = app.call("check")
    assert checked.returncode == 1
    assert "no column nothing (job events)" in checked.stdout


def test_shards(app: Shipper, carbon_cache: CarbonCache) -> None:
    """A job on several sources runs on each separately; a source that is down stops no other."""
    url = insert(app.folder, "two", 5)
    app.configure(
        "[defaults]",
        f'[source.two]\nurl = "{url}"\n[source.gone]\nurl = "sqlite:////nowhere.db"\n[defaults]',
    )
    app.configure('name = "events', 'source = ["app", "gone", "two"]\nname = "{source}.events')
    ended = app.call("once")

    assert ended.returncode == 1
    assert "event=observation.failed source=gone table=audit_trail" in ended.stderr
    wait_for(lambda: len(sums(carbon_cache)) == 2, "two series")
    assert sums(carbon_cache) == {"audit.app.events.login.count": 3, "audit.two.events.login.count": 5}
    assert app.call("once", "events@two").returncode == 0
    with closing(sqlite3.connect(app.folder / "shipper.db")) as connection:
        watermarks = dict(connection.execute("SELECT job, value FROM watermark").fetchall())
    assert watermarks == {"events@app": "3", "events@two": "5"}


def test_tags(app: Shipper, carbon_cache: CarbonCache) -> None:
    """Carbon accepts a tagged series."""
    tagged = 'name = "events.{measure}"\ntags = { dc = "eu", action = "{action}" }'
    app.configure('name = "events.{action}.{measure}"', tagged)
    assert app.call("once").returncode == 0

    wait_for(lambda: bool(sums(carbon_cache)), "a series")
    ((path, rows),) = sums(carbon_cache).items()
    # carbon/util.py TaggedSeries.encode: the file is named by the hash of the complete name, tags in order
    assert path.startswith("_tagged.")
    assert path.endswith(sha256(b"audit.events.count;action=login;dc=eu").hexdigest())
    assert rows == 3


def test_sql(app: Shipper, carbon_cache: CarbonCache) -> None:
    """Custom sql is counted window by window; one that cannot use a range of ids is rejected."""
    statement = "SELECT action, created_at AS bucket, COUNT(*) AS n FROM audit_trail WHERE {} GROUP BY 1, 2"
    app.configure('time = "created_at"', f'sql = "{statement.format("id > :after AND id <= :upto")}"')
    assert app.call("check").returncode == 0
    assert app.call("once").returncode == 0
    wait_for(lambda: sums(carbon_cache) == {"audit.events.login.n": 3}, "the sum")

    app.configure("id > :after", "COALESCE(id, 0) + 0 > :after")
    app.configure("id <= :upto", "id + 0 <= :upto")
    checked, ended = app.call("check"), app.call("once")
    assert checked.returncode == ended.returncode == 1
    assert "it reads the entire table for each window, not a range of id" in checked.stdout
    assert "it reads the entire table for each window, not a range of id" in ended.stderr


def test_changes_are_told(app: Shipper, carbon_cache: CarbonCache, tmp_path: Path) -> None:
    """A changed job, a renamed one and a changed Carbon are logged, and nothing is lost or doubled."""
    assert "event=job.started job=events start=beginning" in app.call("once").stderr
    insert(app.folder, "app", 2)
    app.configure('by = ["action"]', 'by = ["action"]\nwhere = { action = "login" }')
    assert "event=job.changed job=events" in app.call("once").stderr
    insert(app.folder, "app", 1)
    app.configure("[job.events]", "[job.logins]")
    assert "event=job.renamed job=logins before=events" in app.call("once").stderr
    wait_for(lambda: sums(carbon_cache) == {"audit.events.login.count": 6}, "6 rows")

    other = CarbonCache(tmp_path / "other", retentions="1m:1d")
    other.start()
    try:
        app.configure(f"port = {carbon_cache.port}", f"port = {other.port}")
        assert "event=carbon.changed" in app.call("once").stderr
        wait_for(lambda: sums(other) == {"audit.events.login.count": 6}, "6 rows in the other Carbon")
    finally:
        other.close()
