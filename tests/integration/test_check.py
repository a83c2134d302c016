"""`check` on real servers: one run shows all errors, and each remedy is enough."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest
import sqlalchemy as sa
from harness import EVENTS, Shipper
from servers import SCHEMAS, MariaDB, MySQL, PostgreSQL, sequence

from shipper.demo.carbon_cache import CarbonCache
from shipper.source.access import Access
from shipper.source.inspection import Examination
from shipper.source.tables.catalog import Index
from shipper.source.tables.grants import usable

COLUMNS = "id, created_at, action"
LATE = "a late row is counted if it appears at most {} after a row with a higher id"
pytestmark = pytest.mark.on_mysql
IDS = EVENTS.replace("events", "ids").replace(".{action}", "").replace('time = "created_at"\nby = ["action"]\n', "")


def execute(mariadb: MariaDB, *statements: str) -> None:
    """Execute statements as an administrator."""
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def rewrite(app: Shipper, *changes: tuple[str, str]) -> None:
    """Change the configuration."""
    text = app.config.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    app.config.write_text(text)


def bad(app: Shipper) -> dict[str, str]:
    """Return the errors of `check` with their remedies; text and JSON agree."""
    checked = app.call("check", "-o", "json")
    assert checked.stdout, checked.stderr
    document: dict[str, Any] = json.loads(checked.stdout)
    found = {f"{one['subject']}: {one['text']}": one["remedy"] for one in document["findings"] if not one["is_good"]}
    assert document["is_good"] == (checked.returncode == 0) == (not found)
    return found


@pytest.fixture(scope="module")
def carbon_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CarbonCache]:
    """Run one Carbon for all tests: none sends datapoints."""
    server = CarbonCache(tmp_path_factory.mktemp("carbon"), retentions="1m:1d")
    server.start()
    yield server
    server.close()


@pytest.fixture
def reader(mariadb: MariaDB, shipper_app: Shipper) -> Shipper:
    """Provide the program with a database user without grants."""
    execute(
        mariadb,
        "CREATE USER checker@'127.0.0.%'",
        "GRANT USAGE ON app.* TO checker@'127.0.0.%'",
    )
    rewrite(shipper_app, ("//root@", "//checker@"))
    return shipper_app


def test_good(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """All checks are shown, and the next step."""
    checked = shipper_app.call("check")

    assert checked.returncode == 0, checked.stdout
    file, state, source, table, job, carbon, proof = checked.stdout.splitlines()
    assert file == f"✓ {shipper_app.config}: valid, 1 job"
    assert state == f"✓ state {shipper_app.folder}/shipper.db: does not exist yet; can be created"
    server = f"✓ source app: mysql 127.0.0.1:{mariadb.port}/app, {mariadb.name} "
    assert source.lower().startswith(server.lower())
    login = r"(no TLS|TLSv1\.\d \(not verified\)), password never sent in clear, as root@(127\.0\.0\.1|localhost)"
    assert re.search(f" ms, {login}$", source)
    assert table == f"✓ table audit_trail of app: ids up to 0; {LATE.format('6h')}"
    assert job == "✓ job events: its query works; the database's plan: range on PRIMARY"
    assert carbon == f"✓ carbon 127.0.0.1:{carbon_cache.port}: accepts data"
    assert proof == "✓ proof: no proof without render_url: a value counts as stored after 4 sends"
    assert "--canary, which sends a test series and reads it back (needs `render_url`)" in " ".join(
        checked.stderr.split()
    )


def test_privileges(reader: Shipper, mariadb: MariaDB) -> None:
    """Missing grants are shown by column; the GRANT is enough, and hardly more."""
    execute(mariadb, "GRANT SELECT (id) ON app.audit_trail TO checker@'127.0.0.%'")
    rewrite(reader, (EVENTS, EVENTS + IDS))
    found = bad(reader)
    ((told, remedy),) = found.items()
    execute(mariadb, remedy.removeprefix("If the name is right: "))

    denied = "table audit_trail of app: checker@127.0.0.% may not read action, created_at (job events)"
    assert told == f"{denied}, or there is no such column"
    grant = "GRANT SELECT (`action`, `created_at`) ON `app`.`audit_trail` TO 'checker'@'127.0.0.%';"
    assert remedy == f"If the name is right: {grant}"
    assert bad(reader) == {}


def test_a_name_that_is_wrong(reader: Shipper, mariadb: MariaDB) -> None:
    """MySQL denies what does not exist to a user with few grants: a GRANT alone would be no remedy."""
    execute(mariadb, f"GRANT SELECT ({COLUMNS}) ON app.audit_trail TO checker@'127.0.0.%'")
    rewrite(reader, ('"created_at"', '"crated_at"'))
    ((no_column, column),) = bad(reader).items()
    rewrite(reader, ('"crated_at"', '"created_at"'), ('"audit_trail"', '"audit_trial"'))
    ((no_table, table),) = bad(reader).items()

    assert no_column.endswith("may not read crated_at (job events), or there is no such column")
    assert column.startswith('Did you mean "created_at"?\nIf the name is right: GRANT SELECT (`crated_at`)')
    assert no_table.endswith("may not read action, created_at, id (job events), or there is no such table")
    assert table.startswith('Did you mean "audit_trail"?\nIf the name is right: GRANT SELECT')


def test_a_table_that_went_back(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """What the state knows of a job is compared with its table: other rows, an empty table, and then a reset.

    Mutants: no comparison; only the largest id is compared.
    """
    rows = "INSERT INTO audit_trail (id, created_at, action) VALUES (1, {0}, 'a'), (2, {0}, 'b')"
    execute(mariadb, rows.format("NOW() - INTERVAL 2 MINUTE"))
    assert shipper_app.call("once").returncode == 0
    good = shipper_app.call("check")
    execute(mariadb, "TRUNCATE audit_trail")
    emptied = bad(shipper_app)
    execute(mariadb, rows.format("NOW() - INTERVAL 1 HOUR"))
    refilled = bad(shipper_app)
    execute(mariadb, "INSERT INTO audit_trail (id, created_at, action) VALUES (3, NOW(), 'c')")
    others = bad(shipper_app)
    reset = shipper_app.call("reset", "events", "--emptied", "--yes")

    assert "✓ job events: read up to id 2; 2 series; rejected rows: none\n" in good.stdout
    held = "job events: it is held, because its table was reset: "
    assert list(emptied) == [f"{held}its largest id fell to 0; id 2 was captured"]
    assert "run `shipper reset events`" in emptied[f"{held}its largest id fell to 0; id 2 was captured"]
    assert list(refilled) == list(others) == [f"{held}its rows up to id 2 changed since they were captured"]
    assert reset.returncode == 0, reset.stderr
    assert bad(shipper_app) == {}


def test_a_job_that_counts_nothing(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """A condition that no row meets is a warning, once there are rows; it is none once a row is counted.

    Mutants: no warning; also one for an empty table.
    """
    where = 'where = { action = "login" }\nby = ["action"]'
    rewrite(shipper_app, ('by = ["action"]', where))
    found = []
    for action in (None, "log_in", "login"):
        if action is not None:
            execute(mariadb, f"INSERT INTO audit_trail (created_at, action) VALUES (NOW(), '{action}')")
        assert shipper_app.call("once").returncode == 0
        shown = shipper_app.call("check").stdout
        found += re.findall("^(.) job events: read up to id (.*);", shown, re.MULTILINE)

    assert found == [("✓", "0; no row counted yet"), ("!", "1; no row counted yet"), ("✓", "2; 1 series")]


def test_no_privilege_at_all(reader: Shipper, mariadb: MariaDB) -> None:
    """A table that the user may not read at all needs all columns of its jobs."""
    execute(mariadb, "CREATE TABLE other (id INT PRIMARY KEY)", "GRANT SELECT ON app.other TO checker@'127.0.0.%'")
    ((told, remedy),) = bad(reader).items()
    execute(mariadb, remedy.removeprefix("If the name is right: "))

    assert told.endswith("may not read action, created_at, id (job events), or there is no such table")
    assert bad(reader) == {}


def test_nothing_hides_another(shipper_app: Shipper, carbon_cache: CarbonCache) -> None:
    """One run shows missing columns, tables, sources and Carbon, and the good jobs beside them."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
        down = f'[source.down]\nurl = "mysql+pymysql://root@127.0.0.1:{port}/app"\n[defaults]'
        wrong = EVENTS.replace("events", "wrong").replace('"created_at"', '"crated_at"')
        no_table = EVENTS.replace("events", "no_table").replace("audit_trail", "nowhere")
        on_down = EVENTS.replace("events", "on_down").replace("[job.on_down]", '[job.on_down]\nsource = "down"')
        jobs = "".join(one.replace("table =", 'source = "app"\ntable =') for one in (EVENTS, wrong, no_table)) + on_down
        rewrite(shipper_app, (EVENTS, jobs), ("[defaults]", down), ("/shipper.db", "/none/shipper.db"))
        carbon_cache.stop()
        found, shown = bad(shipper_app), shipper_app.call("check")
        carbon_cache.start()

    assert [told.partition(":")[0] for told in found] == [
        f"state {shipper_app.folder}/none/shipper.db",
        "table audit_trail of app",
        "table nowhere of app",
        "source down",
        "carbon",
    ]
    told = " ".join(found)
    assert "no column crated_at (job wrong)" in told
    assert 'Did you mean "created_at"?' in found.values()
    assert "Table 'app.nowhere' doesn't exist" in told
    assert "Can't connect" in told
    assert shown.returncode == 1
    assert "✓ job events: its query works" in shown.stdout
    assert "✗ table audit_trail of app: no column crated_at (job wrong)\n    Did you mean" in shown.stdout
    assert "5 checks failed" in shown.stderr
    assert shipper_app.call("check", "--offline").returncode == 0


def test_index(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """An id without an index is an error before MAX(id) is read; the CREATE INDEX is enough."""
    execute(mariadb, "ALTER TABLE audit_trail MODIFY id BIGINT NOT NULL, DROP PRIMARY KEY, ADD KEY (action, id)")
    ((told, remedy),) = bad(shipper_app).items()
    execute(mariadb, remedy)

    assert "no index begins with id" in told
    assert remedy == "CREATE INDEX `audit_trail_id` ON `app`.`audit_trail` (`id`);"
    assert bad(shipper_app) == {}
    assert "✓ table audit_trail of app: no unique index on id: two rows" in shipper_app.call("check").stdout


@pytest.mark.on_mysql
def test_index_that_is_not_used(reader: Shipper, mariadb: MariaDB) -> None:
    """An index that the planner ignores is an error; the statement of the remedy is enough.

    Mutant: take any index; one on an expression, which MySQL has, names no column.
    """
    is_mysql = mariadb.name == "MySQL"
    state, opposite = ("VISIBLE", "INVISIBLE") if is_mysql else ("NOT IGNORED", "IGNORED")
    execute(
        mariadb,
        "GRANT SELECT ON app.audit_trail TO checker@'127.0.0.%'",
        "ALTER TABLE audit_trail MODIFY id BIGINT, DROP PRIMARY KEY, ADD KEY ids (id)",
        *["ALTER TABLE audit_trail ADD UNIQUE KEY expression ((id + 0))"][:is_mysql],
        f"ALTER TABLE audit_trail ALTER INDEX ids {opposite}",
    )
    ((told, remedy),) = bad(reader).items()
    execute(mariadb, remedy)

    assert f"the index ids on id must be {state} to be used: each query would read the complete table" in told
    assert remedy == f"ALTER TABLE `app`.`audit_trail` ALTER INDEX `ids` {state};"
    assert bad(reader) == {}


FOREIGN = (
    "CREATE EXTENSION postgres_fdw",
    "CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname 'app')",
    "CREATE USER MAPPING FOR root SERVER here OPTIONS (user 'root', password_required 'false')",
    "ALTER TABLE audit_trail RENAME TO there",
    (
        "CREATE FOREIGN TABLE audit_trail (id bigint, created_at timestamp, action text) SERVER here "
        "OPTIONS (table_name 'there')"
    ),
)
VIEW = (
    "ALTER TABLE audit_trail RENAME TO there",
    "CREATE VIEW audit_trail AS SELECT CAST(id AS text) AS id, created_at, action FROM there",
)
HASHED = ("ALTER TABLE audit_trail DROP CONSTRAINT audit_trail_pkey", "CREATE INDEX h ON audit_trail USING hash (id)")
PARTS = (
    "DROP TABLE audit_trail",
    "CREATE TABLE audit_trail (id bigint, created_at timestamp, action text) PARTITION BY RANGE (created_at)",
    "CREATE TABLE part PARTITION OF audit_trail DEFAULT",
    "CREATE INDEX alone ON ONLY audit_trail (id)",
)
_NO_INDEX = "no index begins with id: each query would read the complete table"
_CREATE = 'CREATE INDEX "audit_trail_id" ON "audit_trail" ("id");'


@pytest.mark.parametrize(
    ("statements", "problem", "remedy"),
    [
        (FOREIGN, None, ""),
        (HASHED, _NO_INDEX, _CREATE),
        (PARTS, _NO_INDEX, _CREATE),
        (VIEW, "id has type text, which is not an id", "integer key of the table behind the view"),
    ],
    ids=["foreign", "hash", "parts", "view"],
)
def test_tables_of_postgresql(
    postgresql: PostgreSQL,
    tmp_path: Path,
    carbon_cache: CarbonCache,
    statements: tuple[str, ...],
    problem: str | None,
    remedy: str,
) -> None:
    """No remedy is one that the table rejects, and a CREATE INDEX is enough.

    Mutants: request an index of a foreign table; take a hash for an index of ranges; revive the index of a
    partitioned table; alter a view.
    """
    app = Shipper(tmp_path, url=postgresql.make_database("app"), port=carbon_cache.port)
    with postgresql.connect("app") as connection:
        for statement in statements:
            connection.execute(statement.format(port=postgresql.port).encode())
        before = bad(app)
        if remedy == _CREATE:
            connection.execute(remedy.encode())
            assert bad(app) == {}

    if problem is None:
        assert before == {}
        assert app.call("once").returncode == 0
        return
    ((told, hint),) = before.items()
    assert problem in told
    assert remedy in hint
    assert "ALTER" not in hint


def test_key_that_mysql_makes(mysql: MySQL, tmp_path: Path, carbon_cache: CarbonCache) -> None:
    """The primary key that MySQL makes and hides can be the id, wherever the server does not show it."""
    app = Shipper(tmp_path, url=mysql.make_database("app"), port=carbon_cache.port)
    rewrite(app, ('id = "id"', 'id = "my_row_id"'))
    with mysql.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_generate_invisible_primary_key = 1")
        cursor.execute("DROP TABLE audit_trail")
        cursor.execute("CREATE TABLE audit_trail (created_at DATETIME, action VARCHAR(9))")
        cursor.execute("SET GLOBAL show_gipk_in_create_table_and_information_schema = 0")
        try:
            assert bad(app) == {}
        finally:
            cursor.execute("SET GLOBAL show_gipk_in_create_table_and_information_schema = 1")


def test_index_of_postgresql(postgresql: PostgreSQL) -> None:
    """A partial index is none; an invalid one is used again after the statement of the remedy."""
    access = Access(sa.make_url(postgresql.make_database("app")), 30)
    with closing(Examination("app", access)) as source, postgresql.connect("app") as connection:
        connection.execute("ALTER TABLE audit_trail DROP CONSTRAINT audit_trail_pkey")
        connection.execute("CREATE INDEX few ON audit_trail (id) WHERE action IS NULL")
        connection.execute('CREATE INDEX "all" ON audit_trail (id)')
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = '\"all\"'::regclass")
        (index,) = source.table("audit_trail").indices
        remedy = usable(access, "public.audit_trail", index)
        connection.execute(remedy.encode())

        assert index == Index("all", "id", "VALID")
        assert remedy == 'REINDEX INDEX "public"."all";'
        assert source.table("audit_trail").indices == [Index("all", "id", None)]


@pytest.mark.parametrize("way", ["a default", "an identity", "no cycle"])
def test_sequence_that_begins_again(
    postgresql: PostgreSQL, tmp_path: Path, carbon_cache: CarbonCache, way: str
) -> None:
    """A sequence that begins again gives ids that were counted: a warning, whose remedy ends it. Mutant: one way."""
    app = Shipper(tmp_path, url=postgresql.make_database("app"), port=carbon_cache.port)
    with postgresql.connect("app") as connection:
        if way == "a default":
            connection.execute("CREATE SEQUENCE numbers")
            connection.execute(
                "ALTER TABLE audit_trail ALTER id DROP IDENTITY, ALTER id SET DEFAULT nextval('numbers')"
            )
        name = "numbers" if way == "a default" else "audit_trail_id_seq"
        if way != "no cycle":
            connection.execute(f"ALTER SEQUENCE {name} CYCLE".encode())
        shown = app.call("check").stdout
        remedy = f"ALTER SEQUENCE public.{name} NO CYCLE;"
        warned = "! table audit_trail of app: a sequence of id begins again after its last number: rows"
        assert (warned in shown, remedy in shown) == (way != "no cycle",) * 2
        connection.execute(remedy.encode())
    assert warned not in app.call("check").stdout


def test_ids_that_are_none(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """Rows that share an id, or have none, are errors where the table allows them, among the newest 10,000.

    Mutants: believe every table; look for two below 1, too; look at all rows; count no NULLs.
    """
    execute(
        mariadb,
        "ALTER TABLE audit_trail MODIFY id BIGINT NULL, DROP PRIMARY KEY, ADD KEY (id)",
        "INSERT INTO audit_trail (id, created_at) VALUES (NULL, NOW()), (-3, NOW()), (-3, NOW()), (1, NOW())",
    )
    first = bad(shipper_app)
    twice = "INSERT INTO audit_trail (id) VALUES (1)"
    execute(mariadb, twice, f"INSERT INTO audit_trail (id, created_at) SELECT seq + 1, NOW() FROM {sequence(10_000)}")
    assert bad(shipper_app) == first
    execute(mariadb, "INSERT INTO audit_trail (id) VALUES (7), (9), (9)")
    second = bad(shipper_app)

    none = "table audit_trail of app: rows without id, or with a value below 1: 3"
    assert list(first) == [none]
    assert "`no_id`" in first[none]
    assert list(second) == ["table audit_trail of app: two rows have the id 7", none]


def test_engine(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """A table whose engine has no transactions is an error, and its jobs do not run; the ALTER TABLE is enough.

    Mutants: tell it of each job, too; let them run.
    """
    execute(mariadb, "ALTER TABLE audit_trail ENGINE = MyISAM")
    refused = shipper_app.call("once")
    ((told, remedy),) = bad(shipper_app).items()
    execute(mariadb, remedy)

    assert refused.returncode == 1
    assert "its engine, MyISAM, has no transactions" in refused.stderr
    assert told.startswith("table audit_trail of app: its engine, MyISAM, has no transactions")
    assert remedy == "ALTER TABLE `app`.`audit_trail` ENGINE = InnoDB;"
    assert bad(shipper_app) == {}
    assert shipper_app.call("once").returncode == 0


def test_engine_behind_a_view(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """A view of such a table is the same error, with the ALTER TABLE of the table. Mutant: ALTER TABLE for the view."""
    execute(mariadb, "CREATE VIEW seen AS SELECT * FROM audit_trail", "ALTER TABLE audit_trail ENGINE = MyISAM")
    rewrite(shipper_app, ('table = "audit_trail"', 'table = "seen"'))
    ((told, remedy),) = bad(shipper_app).items()
    execute(mariadb, remedy)

    assert told.startswith("table seen of app: the engine of app.audit_trail, MyISAM, has no transactions")
    assert remedy == "ALTER TABLE `app`.`audit_trail` ENGINE = InnoDB;"
    assert bad(shipper_app) == {}


def test_late(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """The check shows the configured `late`. Mutant: the default."""
    rewrite(shipper_app, ('timeout = "10s"', 'timeout = "10s"\nlate = "90m"'))

    assert f"ids up to 0; {LATE.format('1h30m')}\n" in shipper_app.call("check").stdout


def test_view(reader: Shipper, mariadb: MariaDB) -> None:
    """A user may count a view without the right to see its plan and its tables. Mutants: an error; no word of it."""
    view = f"CREATE VIEW seen AS SELECT {COLUMNS} FROM audit_trail"
    execute(mariadb, view, f"GRANT SELECT ({COLUMNS}) ON app.seen TO checker@'127.0.0.%'")
    rewrite(reader, ('table = "audit_trail"', 'table = "seen"'))

    assert bad(reader) == {}
    shown = reader.call("check").stdout
    assert "its query works; the database's plan: not visible to this user (SHOW VIEW)" in shown
    assert "does not see which tables this view reads: they need an engine with transactions" in shown
    execute(mariadb, "GRANT SELECT, SHOW VIEW ON app.* TO checker@'127.0.0.%'")
    assert "does not see" not in reader.call("check").stdout


def test_full_scan(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """A job whose queries read the complete table is an error, unless the table is small."""
    view = "CREATE VIEW added AS SELECT id + 0 AS id, created_at, action FROM audit_trail"
    execute(mariadb, view, "INSERT INTO audit_trail (created_at) VALUES (NOW())")
    rewrite(shipper_app, ('table = "audit_trail"', 'table = "added"'))
    assert bad(shipper_app) == {}
    execute(
        mariadb,
        f"INSERT INTO audit_trail (created_at) SELECT NOW() FROM {sequence(3000)}",
        "ANALYZE TABLE audit_trail",
    )
    (told,) = bad(shipper_app)

    assert told.startswith("job events: each query reads the complete table: ALL, about ")


def test_clock_and_replica(reader: Shipper, mariadb: MariaDB) -> None:
    """A server whose clock is off, and one that looks like a replica, are errors."""
    execute(mariadb, f"GRANT SELECT ({COLUMNS}) ON app.audit_trail TO checker@'127.0.0.%'")
    execute(
        mariadb, f"SET GLOBAL init_connect = 'SET timestamp = {int(time.time()) - 3600}'", "SET GLOBAL read_only = 1"
    )
    try:
        found = bad(reader)
        rewrite(reader, ('timeout = "10s"', 'timeout = "10s"\nlag_query = "SELECT 7"'))
        later, shown = bad(reader), reader.call("check").stdout
    finally:
        execute(mariadb, "SET GLOBAL init_connect = ''", "SET GLOBAL read_only = 0")

    clock, replica = found
    assert re.fullmatch(r"source app: the clock of this machine is 36\d\d s ahead of the source's clock", clock)
    assert replica == "source app: the server is read-only"
    assert [one for one in later if "read-only" in one] == []
    assert "✓ source app: replication lag 7 s" in shown


def test_times(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """A newest row from the future shows a wrong `time_zone`; that of a TIMESTAMP is UTC."""
    execute(mariadb, "INSERT INTO audit_trail (created_at) VALUES (UTC_TIMESTAMP() + INTERVAL 2 HOUR)")
    (told,) = bad(shipper_app)
    assert told.startswith("job events: created_at of its newest row, id 1, is 7")
    assert told.endswith(" s in the future")
    rewrite(shipper_app, ('time = "created_at"', 'time = "created_at"\ntime_zone = "Africa/Maputo"'))
    assert bad(shipper_app) == {}

    execute(mariadb, "ALTER TABLE audit_trail MODIFY created_at TIMESTAMP NULL")
    assert list(bad(shipper_app)) == ['job events: time_zone = "Africa/Maputo" is wrong for created_at, a timestamp']


@pytest.mark.parametrize(
    ("bucket", "told"),
    [
        ("created_at", None),
        ("NULL", None),
        ("UNIX_TIMESTAMP(created_at)", None),
        ("UNIX_TIMESTAMP(created_at) * 1000", r"\d{13}"),
        ("UNIX_TIMESTAMP(created_at) DIV 1000", r"\d{7}"),
        ("created_at + INTERVAL 2 HOUR", r"\d{10}"),
    ],
)
def test_times_of_custom_sql(shipper_app: Shipper, mariadb: MariaDB, bucket: str, told: str | None) -> None:
    """Custom sql whose newest rows have no time of present rows is an error, also if it leaves out the last row.

    Mutant: look at the newest row alone.
    """
    execute(mariadb, "INSERT INTO audit_trail (created_at, action) VALUES (UTC_TIMESTAMP(), 'login'), (NULL, 'x')")
    sql = f"SELECT action, {bucket} AS bucket, COUNT(*) AS count FROM audit_trail WHERE id > :after AND id <= :upto"
    sql = f"{sql} AND action = 'login' GROUP BY action, 2"
    rewrite(shipper_app, ('time = "created_at"\n', f'sql = "{sql}"\n'))
    found = "\n".join(bad(shipper_app))

    if told is None:
        assert found == ""
    else:
        assert re.fullmatch(f"job events: `bucket` of its newest rows is {told}, but now is \\d{{10}}", found)


def seconds_ago(seconds: int, units: int = 1) -> str:
    """Return an expression for an epoch before now."""
    return f"(UNIX_TIMESTAMP() - {seconds}) * {units}"


@pytest.mark.parametrize(
    ("unit", "units", "wrong"), [("s", 1, ""), ("ms", 1000, 'time_unit = "s"\n'), ("us", 1_000_000, "")]
)
def test_numbers(shipper_app: Shipper, mariadb: MariaDB, unit: str, units: int, wrong: str) -> None:
    """A `time` that is a number is an error, and its job does not run; the remedy is enough.

    Mutant: assume the unit.
    """
    execute(
        mariadb,
        "ALTER TABLE audit_trail DROP created_at, ADD created_at BIGINT",
        f"INSERT INTO audit_trail (created_at, action) VALUES ({seconds_ago(90, units)}, 'login')",
    )
    rewrite(shipper_app, ("[job.events]\n", f"[job.events]\n{wrong}"))
    ((told, remedy),) = bad(shipper_app).items()
    refused = shipper_app.call("once")
    line = re.search(r"`(time_unit = .*?)`", remedy)
    assert line is not None
    rewrite(shipper_app, (f"[job.events]\n{wrong}", f"[job.events]\n{line[1]}\n"))

    assert told.startswith("job events: read audit_trail: the newest created_at is 1")
    assert line[1] == f'time_unit = "{unit}"'
    assert refused.returncode == 1
    assert "rejected" not in shipper_app.call("status").stdout
    assert bad(shipper_app) == {}
    assert shipper_app.call("once").returncode == 0


def test_numbers_since_another_year(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """Numbers that are times of 1995, where they count from 2001, are an error; the remedy is enough.

    Mutant: look at times that are ahead only.
    """
    execute(
        mariadb,
        "ALTER TABLE audit_trail DROP created_at, ADD created_at BIGINT",
        f"INSERT INTO audit_trail (created_at, action) VALUES ({seconds_ago(90)} - 978307200, 'login')",
    )
    rewrite(shipper_app, ("[job.events]\n", '[job.events]\ntime_unit = "s"\n'))
    ((told, remedy),) = bad(shipper_app).items()
    line = re.search(r"(time_sql = .*?) for 2001", remedy)
    assert line is not None
    rewrite(shipper_app, ('time = "created_at"', line[1].replace("COLUMN", "created_at")))

    assert "they are rejected as `too_old`" in told
    assert bad(shipper_app) == {}
    assert shipper_app.call("once").returncode == 0


def test_numbers_since_another_year_along(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """The same of a job along such numbers. Mutant: look at rows ahead of the clock only."""
    add = "ADD seconds BIGINT AS (created_at + 978307200) VIRTUAL, ADD KEY (created_at), ADD KEY (seconds)"
    execute(
        mariadb,
        f"ALTER TABLE audit_trail DROP created_at, ADD created_at BIGINT, {add}",
        f"INSERT INTO audit_trail (created_at, action) VALUES ({seconds_ago(90)} - 978307200, 'login')",
    )
    along = 'id = "created_at"\ntime = "created_at"\ntime_unit = "s"\n'
    rewrite(shipper_app, ('id = "id"\ntime = "created_at"\n', along))
    ((told, remedy),) = bad(shipper_app).items()
    rewrite(shipper_app, (along, along.replace("created_at", "seconds")))

    assert "they are rejected as `too_old`" in told
    assert "generated column" in remedy
    assert bad(shipper_app) == {}


def test_no_times(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """Newest rows without a time are an error, unless the job waits for times; so are numbers without rows.

    Mutants: look at the newest row only; an error for `lookback`, too.
    """
    execute(mariadb, "INSERT INTO audit_trail (created_at) VALUES ('2026-11-01'), (NULL), (NULL)")
    assert bad(shipper_app) == {}
    execute(mariadb, "UPDATE audit_trail SET created_at = NULL")
    (told,) = bad(shipper_app)
    rewrite(shipper_app, ('time = "created_at"', 'time = "created_at"\nlookback = "15m"'))
    assert told.startswith("job events: created_at is NULL or 0 in all of the newest rows")
    assert bad(shipper_app) == {}

    execute(mariadb, "DELETE FROM audit_trail", "ALTER TABLE audit_trail MODIFY created_at INT NULL")
    assert list(bad(shipper_app)) == [
        "job events: created_at contains numbers, and the table has no row that shows their unit"
    ]


def test_time_sql(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """An expression is checked as a column is; a bad one is an error with a remedy."""
    execute(
        mariadb,
        "ALTER TABLE audit_trail ADD day DATE, ADD clock TIME",
        "INSERT INTO audit_trail (day, clock) VALUES (UTC_DATE(), '00:00:00')",
    )
    found = []
    for before, after in (
        ('time = "created_at"', 'time = "clock"'),
        ('time = "clock"', 'time_sql = "TIMESTAMP(day, clok)"'),
        ("clok", "created_at"),
        ("created_at", "clock"),
    ):
        rewrite(shipper_app, (before, after))
        found.append(bad(shipper_app))

    time, missing, null, good = found
    assert time == {
        "job events: read audit_trail: clock has type time, which is not a time": (
            'Write `time_sql` instead of `time`, as in time_sql = "TIMESTAMP(DAY, clock)".'
        )
    }
    ((told, remedy),) = missing.items()
    assert "Unknown column 'clok'" in told
    assert remedy == "Correct `time_sql`: an SQL expression over columns of audit_trail."
    assert list(null) == [
        "job events: time_sql is NULL or 0 in all of the newest rows, which are rejected as `no_time`"
    ]
    assert good == {}


def test_postgresql(postgresql: PostgreSQL, tmp_path: Path, carbon_cache: CarbonCache) -> None:
    """PostgreSQL has the same checks: columns, grants, index, plan."""
    url = postgresql.make_database("app").replace("//root@", "//reader@")
    app = Shipper(tmp_path, url=url, port=carbon_cache.port)
    with postgresql.connect("app") as connection:
        for statement in (
            "DROP ROLE IF EXISTS reader",
            "CREATE ROLE reader LOGIN",
            "GRANT SELECT (id) ON audit_trail TO reader",
            "ALTER TABLE audit_trail DROP CONSTRAINT audit_trail_pkey",
        ):
            connection.execute(statement.encode())
        first = bad(app)
        for remedy in first.values():
            connection.execute(remedy.encode())
        second, shown = bad(app), app.call("check").stdout
        connection.execute(b"ALTER TABLE audit_trail DROP COLUMN action")
        third = bad(app)
        connection.execute(b"ALTER TABLE audit_trail ADD COLUMN action text, ENABLE ROW LEVEL SECURITY")
        connection.execute(b"GRANT SELECT (action) ON audit_trail TO reader")
        ((hidden, remedy),) = bad(app).items()

    assert list(first) == [
        "table audit_trail of app: reader@127.0.0.1 may not read action, created_at (job events)",
        "table audit_trail of app: no index begins with id: each query would read the complete table",
    ]
    assert second == {}
    assert ", postgresql 1" in shown
    assert "✓ table audit_trail of app: no unique index on id: two rows" in shown
    assert "✓ job events: its query works; the database's plan: Bitmap Index Scan on audit_trail_id" in shown
    assert list(third) == ["table audit_trail of app: no column action (job events)"]
    assert "row-level security policy" in hidden
    assert "BYPASSRLS" in remedy


def test_sqlite(tmp_path: Path, carbon_cache: CarbonCache) -> None:
    """SQLite has the same checks; an unreadable table hides no others. Mutant: let it end the source's checks."""
    jobs = EVENTS.replace("events", "texts").replace("audit_trail", "texts") + EVENTS
    app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=carbon_cache.port, jobs=jobs)
    with closing(connect(tmp_path / "app.db", isolation_level=None)) as connection:
        connection.execute(SCHEMAS["sqlite"])
        connection.execute("CREATE TABLE texts (id TEXT PRIMARY KEY, created_at TEXT, action TEXT)")
        connection.execute("INSERT INTO texts (id) VALUES ('x')")
        shown = app.call("check").stdout
        connection.execute("DELETE FROM texts")
        connection.execute("ALTER TABLE audit_trail RENAME TO before")
        connection.execute("CREATE TABLE audit_trail (id INTEGER, created_at TEXT)")
        found = bad(app)
        connection.execute("ALTER TABLE audit_trail ADD COLUMN action")
        connection.execute(found.popitem()[1])

    assert "✗ table texts of app: read texts: id holds 'x', which is not an id\n" in shown
    assert "✓ job events: its query works; the database's plan: SEARCH audit_trail USING INTEGER PRIMARY KEY" in shown
    assert list(found) == ["table audit_trail of app: no column action (job events)"]
    assert bad(app) == {}


def test_column_of_the_database(tmp_path: Path, carbon_cache: CarbonCache) -> None:
    """A column that no table defines is no id: VACUUM changes SQLite's. Mutant: request an index on it."""
    jobs = EVENTS.replace('"id"', '"rowid"')
    app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=carbon_cache.port, jobs=jobs)
    with closing(connect(tmp_path / "app.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE audit_trail (created_at TEXT, action TEXT)")
        ((text, remedy),) = bad(app).items()

    assert text.startswith("table audit_trail of app: rowid is the database's own column: its values may change")
    assert "Set `id` and `time` to an indexed time column" in remedy


@pytest.mark.parametrize("how", ["STORED", "VIRTUAL"])
def test_generated_column(tmp_path: Path, carbon_cache: CarbonCache, how: str) -> None:
    """A generated column of SQLite is a column of its table. Mutant: table_info, which leaves them out."""
    jobs = EVENTS.replace('"id"', '"created_at"').replace("by =", 'time_unit = "s"\nby =')
    app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=carbon_cache.port, jobs=jobs)
    with closing(connect(tmp_path / "app.db", isolation_level=None)) as connection:
        generated = f"created_at INTEGER GENERATED ALWAYS AS (ms / 1000) {how}"
        connection.execute(f"CREATE TABLE audit_trail (ms INTEGER, action TEXT, {generated})")
        connection.execute("CREATE INDEX times ON audit_trail (created_at)")
        connection.execute("INSERT INTO audit_trail VALUES (STRFTIME('%s') * 1000, 'login')")

    assert bad(app) == {}


@pytest.mark.parametrize(
    ("definition", "is_told"),
    [
        ("id INTEGER PRIMARY KEY", True),
        ("id integer primary key", True),
        ("id INTEGER, other INTEGER, PRIMARY KEY (id)", True),
        ("id INTEGER PRIMARY KEY AUTOINCREMENT", False),
        ("id BIGINT PRIMARY KEY", False),
        ("id INTEGER, other INTEGER, PRIMARY KEY (id, other)", False),
    ],
)
def test_ids_given_again(tmp_path: Path, carbon_cache: CarbonCache, definition: str, *, is_told: bool) -> None:
    """SQLite reuses the ids of deleted rows if it assigns them without AUTOINCREMENT; the check shows this.

    Mutants: tell it of every table; of none.
    """
    app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=carbon_cache.port)
    columns, *keys = definition.split(", PRIMARY")
    with closing(connect(tmp_path / "app.db", isolation_level=None)) as connection:
        table = ", PRIMARY".join([f"{columns}, created_at TEXT, action TEXT", *keys])
        connection.execute(f"CREATE TABLE audit_trail ({table})")
        checked = app.call("check")

    assert checked.returncode == 0, checked.stdout
    assert (
        "✓ table audit_trail of app: id is not AUTOINCREMENT: if the newest row is deleted, the next row gets its id"
        in checked.stdout
    ) == is_told


@pytest.mark.parametrize("option_file", ["", "[client]\npassword = secret\n", "[client]\nuser = root\n"])
def test_user_that_is_not_configured(
    mariadb: MariaDB, shipper_app: Shipper, carbon_cache: CarbonCache, option_file: str
) -> None:
    """A driver then takes the user who runs the command, which is not that of the service; the remedy is enough.

    Mutants: no warning; one although `credentials` names a user.
    """
    (shipper_app.folder / "client.cnf").write_text(option_file)
    credentials = 'credentials = "client.cnf"\n' if option_file else ""
    rewrite(shipper_app, ("//root@", "//"), ("\n\n[defaults]", f"\n{credentials}\n[defaults]"))
    warned = shipper_app.call("check").stdout
    for key in re.findall(r"Set (user = .*) in \[source.app\]\.", warned):
        rewrite(shipper_app, ("[source.app]\n", f"[source.app]\n{key.replace('NAME', 'root')}\n"))

    assert ("! source app: no user is configured" in warned) == ("user" not in option_file)
    assert "no user is configured" not in shipper_app.call("check").stdout
