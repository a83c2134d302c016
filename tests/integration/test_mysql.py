"""MySQL with its defaults, where it differs from MariaDB: keys and indices that are hidden, plans."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from harness import EVENTS, Shipper, wait_for
from servers import MySQL
from tables import Execute, executing

from shipper.demo.carbon_cache import CarbonCache

CUSTOM = '''
[job.custom]
sql = """SELECT action, created_at AS bucket, COUNT(*) AS n FROM audit_trail
    WHERE id > :after AND id <= :upto GROUP BY action, created_at"""
table = "audit_trail"
id = "id"
by = ["action"]
name = "custom.{action}.{measure}"
'''


@pytest.fixture
def execute(mysql: MySQL) -> Iterator[Execute]:
    """Provide a session on an empty database."""
    mysql.make_database("app")
    with closing(mysql.connect("app")) as connection, executing("mysql", connection) as run:
        yield run


@pytest.fixture
def app(mysql: MySQL, execute: Execute, tmp_path: Path, carbon_cache: CarbonCache) -> Shipper:
    """Provide the program."""
    return Shipper(tmp_path, url=f"mysql+pymysql://root@127.0.0.1:{mysql.port}/app", port=carbon_cache.port)


def assert_works(app: Shipper, carbon_cache: CarbonCache, expected: dict[str, float]) -> None:
    """Check and count the table, and compare the sums of the series."""
    checked, ended = app.call("check"), app.call("once")
    assert (checked.returncode, ended.returncode) == (0, 0), checked.stdout + ended.stderr
    wait_for(lambda: {path: sum(slots.values()) for path, slots in carbon_cache.sums().items()} == expected, "sums")


def test_index_on_an_expression(app: Shipper, execute: Execute, carbon_cache: CarbonCache) -> None:
    """Indices on expressions have no columns. Mutant: take the column's name for a text."""
    execute("CREATE INDEX lower ON audit_trail ((LOWER(action)))")
    execute("CREATE UNIQUE INDEX sum ON audit_trail ((duration_ms + 1), id)")
    execute("INSERT INTO audit_trail (created_at, action) VALUES (UTC_TIMESTAMP(), 'login')")

    assert_works(app, carbon_cache, {"audit.events.login.count": 1})


@pytest.mark.parametrize("is_shown", [1, 0])
def test_generated_key(app: Shipper, execute: Execute, carbon_cache: CarbonCache, is_shown: int) -> None:
    """A table without a key is counted by the invisible one that MySQL gives it, also where the catalogue hides it."""
    execute("SET sql_generate_invisible_primary_key = 1")
    execute("CREATE TABLE keyless (created_at DATETIME NULL, action VARCHAR(9) INVISIBLE)")
    execute("INSERT INTO keyless (created_at, action) VALUES (UTC_TIMESTAMP(), 'a'), (UTC_TIMESTAMP(), 'b')")
    app.configure('table = "audit_trail"\nid = "id"', 'table = "keyless"\nid = "my_row_id"')
    execute(f"SET GLOBAL show_gipk_in_create_table_and_information_schema = {is_shown}")
    try:
        assert_works(app, carbon_cache, {"audit.events.a.count": 1, "audit.events.b.count": 1})
    finally:
        execute("SET GLOBAL show_gipk_in_create_table_and_information_schema = 1")


@pytest.mark.parametrize("form", ["TREE", "JSON", "TRADITIONAL"])
def test_plan(app: Shipper, execute: Execute, carbon_cache: CarbonCache, form: str) -> None:
    """Plans are read whatever EXPLAIN shows by default: by `check`, `preview` and jobs with custom SQL.

    Mutant: EXPLAIN without a format.
    """
    execute("INSERT INTO audit_trail (created_at, action) VALUES (UTC_TIMESTAMP(), 'login')")
    app.configure(EVENTS, EVENTS + CUSTOM)
    execute(f"SET GLOBAL explain_format = '{form}'")
    try:
        previewed = app.call("preview events")
        assert_works(app, carbon_cache, {"audit.events.login.count": 1, "audit.custom.login.n": 1})
    finally:
        execute("SET GLOBAL explain_format = DEFAULT")

    assert previewed.returncode == 0, previewed.stderr
    assert "range on PRIMARY" in previewed.stdout


@pytest.mark.parametrize("by_role", [False, True])
def test_grants(app: Shipper, execute: Execute, mysql: MySQL, carbon_cache: CarbonCache, *, by_role: bool) -> None:
    """The printed grants are enough, for the user or for a role that is active by default."""
    execute("INSERT INTO audit_trail (created_at, action) VALUES (UTC_TIMESTAMP(), 'login')")
    app.configure("//root@", "//watcher@")
    app.configure(EVENTS, EVENTS + CUSTOM)
    _, *granted = app.call("admin grants").stdout.splitlines()
    execute("CREATE USER watcher")
    if by_role:
        execute("CREATE ROLE readers")
        granted = [*(one.replace("'watcher'@'%'", "readers") for one in granted), "GRANT readers TO watcher"]
        granted.append("SET DEFAULT ROLE readers TO watcher")
    for statement in granted:
        execute(statement)

    assert_works(app, carbon_cache, {"audit.events.login.count": 1, "audit.custom.login.n": 1})


def test_decimals_beyond_integers(app: Shipper, execute: Execute, carbon_cache: CarbonCache) -> None:
    """Ids of type DECIMAL may be beyond 2^63. Mutant: take their bits from the DECIMAL."""
    execute("ALTER TABLE audit_trail MODIFY id DECIMAL(20)")
    for identity in (2**63 + 1, 2**63 + 2, 2**63 + 70, 2**64 - 1):
        execute("INSERT INTO audit_trail (id, created_at, action) VALUES (%s, UTC_TIMESTAMP(), 'a')", (identity,))

    assert_works(app, carbon_cache, {"audit.events.a.count": 4})
