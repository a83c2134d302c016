"""`init`: its answers make a configuration that `check` accepts and that counts."""

import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from sqlite3 import connect

import pymysql
import pytest
import sqlalchemy as sa
import trustme
from servers import MariaDB, PostgreSQL

from shipper.demo.carbon_cache import CarbonCache

TABLES = {
    "mariadb": "happened_at DATETIME, event_id BIGINT AUTO_INCREMENT PRIMARY KEY, message TEXT, payload JSON",
    "postgresql": "happened_at timestamptz, event_id bigserial PRIMARY KEY, message text, payload jsonb",
    "sqlite": "happened_at INTEGER, event_id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT, payload BLOB",
}
NOW = {"mariadb": "UTC_TIMESTAMP()", "postgresql": "now()", "sqlite": "unixepoch()"}


def statements(kind: str) -> Iterator[str]:
    """Yield what makes a table with two rows."""
    yield f"CREATE TABLE audit_events ({TABLES[kind]}, action VARCHAR(30))"
    yield (
        f"INSERT INTO audit_events (happened_at, action, message, payload) "
        f"VALUES ({NOW[kind]}, 'login', 'x', '{{}}'), ({NOW[kind]}, 'logout', 'x', '{{}}')"
    )


def run(folder: Path, command: str, *answers: str) -> subprocess.CompletedProcess[str]:
    """Run a command without a terminal, with answers to its questions."""
    called = [sys.executable, "-W", "ignore", "-m", "shipper.cli", command, "--config", f"{folder}/etc/shipper.toml"]
    text = "".join(f"{answer}\n" for answer in answers)
    return subprocess.run(called, check=False, input=text, capture_output=True, text=True, start_new_session=True)


def database(
    kind: str, folder: Path, mariadb: MariaDB, postgresql: PostgreSQL
) -> tuple[str, list[str], Callable[[], None]]:
    """Make a table on a database; return its URL, the answers about a login, and what adds two more rows."""
    server = mariadb if kind == "mariadb" else postgresql
    url = sa.make_url(f"sqlite:///{folder}/app.db" if kind == "sqlite" else server.make_database("trail"))
    create, insert = statements(kind)

    def execute(*texts: str) -> None:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            for text in texts:
                connection.exec_driver_sql(text)
        engine.dispose()

    execute(create, insert)
    if kind == "sqlite":
        return str(url), [], partial(execute, insert)
    if kind == "mariadb":
        execute(
            "CREATE OR REPLACE USER asker@'127.0.0.%%' IDENTIFIED BY 'se#cret'",
            "GRANT SELECT ON trail.* TO asker@'127.0.0.%%'",
        )
    user = "asker" if kind == "mariadb" else str(url.username)
    shown = url._replace(username="typed", password="se#cret").render_as_string(hide_password=False)
    return shown, [user, "se#cret"], partial(execute, insert)


@pytest.fixture(scope="module")
def carbon_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CarbonCache]:
    """Run a Carbon."""
    server = CarbonCache(tmp_path_factory.mktemp("carbon"), retentions="1m:30d,1h:5y")
    server.start()
    yield server
    server.close()


@pytest.mark.parametrize("kind", list(TABLES))
def test_defaults_count(
    kind: str, tmp_path: Path, mariadb: MariaDB, postgresql: PostgreSQL, carbon_cache: CarbonCache
) -> None:
    """The columns that are offered first are right: `check` accepts the new configuration, and it counts.

    Mutants: the first column is the key; numbers have no unit; payloads are labels.
    """
    url, login, more = database(kind, tmp_path, mariadb, postgresql)
    asked = run(tmp_path, "init", url, *login, *[""] * 5, f"127.0.0.1:{carbon_cache.port}", "", "")
    assert asked.returncode == 0, asked.stderr
    written = tomllib.loads((tmp_path / "etc/shipper.toml").read_text())
    checked, started = run(tmp_path, "check"), run(tmp_path, "once")
    more()
    once = run(tmp_path, "once")

    assert written["job"]["audit_events"] == {
        "table": "audit_events",
        "id": "event_id",
        "time": "happened_at",
        **({"time_unit": "s"} if kind == "sqlite" else {}),
        "by": ["action"],
        "name": "audit_events.{action}.{measure}",
        "every": "1m",
        "bucket": "1m",
    }
    assert "found: action, message, -" in asked.stdout
    shown = (tmp_path / "etc/shipper.toml").read_text() + asked.stdout + asked.stderr
    assert not re.search("se(#|%23)cret|typed@|typed:", shown)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "etc").iterdir()}
    assert {mode for name, mode in modes.items() if not name.startswith("shipper.")} <= {0o600}
    assert ("1. Let the service's user read the database file.\n" in asked.stdout) == (kind == "sqlite")
    assert ("GRANT SELECT" in asked.stdout) == ("REVOKE SELECT ON" in asked.stdout) == (kind != "sqlite")
    assert ("TO 'asker'@'127.0.0.%'" in asked.stdout) == (kind == "mariadb")
    assert "pattern = ^audit\\." in asked.stdout
    where = 'add a line to [job.audit_events], such as\nwhere = { action = "VALUE" }\n'
    assert where in asked.stdout
    assert 'add `start = "beginning"` to [job.audit_events] before the first start.' in asked.stdout
    assert "#:schema" not in (tmp_path / "etc/shipper.toml").read_text()  # an editor would not find the file
    assert started.returncode == once.returncode == 0, started.stderr + once.stderr
    assert "rows=2 " in once.stderr
    assert checked.returncode == 0, checked.stdout
    steps = re.findall(r"`shipper ([^`]*)`", asked.stdout)
    assert steps == [f"{command} --config {tmp_path}/etc/shipper.toml" for command in ("check", "run")]


@pytest.mark.on_mysql
@pytest.mark.parametrize(
    ("granted", "first"),
    [
        ("trail.audit_events", "REVOKE SELECT ON `trail`.`audit_events` FROM 'reader'@'127.0.0.%';"),
        ("trail.*", "REVOKE SELECT ON `trail`.* FROM 'reader'@'127.0.0.%';"),
        ("`tra_l`.*", "REVOKE SELECT ON `tra_l`.* FROM 'reader'@'127.0.0.%';"),
        ("*.*", "-- reader may read all databases of this server: better create a user for shipper alone"),
    ],
)
def test_printed_rights(granted: str, first: str, tmp_path: Path, mariadb: MariaDB) -> None:
    """The administrator can run the statements as they are printed, whatever was granted; columns are left.

    After a GRANT on a database, a REVOKE on its table is error 1147. Mutants: name the table; compare names with =.
    """
    url = sa.make_url(mariadb.make_database("trail")).set(username=None)
    account = "reader@'127.0.0.%'"
    with mariadb.connect("trail") as connection, connection.cursor() as cursor:
        for text in (
            *statements("mariadb"),
            f"CREATE USER {account} IDENTIFIED BY 'x'",
            f"GRANT SELECT ON {granted} TO {account}",
        ):
            cursor.execute(text)
        # MySQL then knows the password, and does not ask for it again
        pymysql.connect(host="127.0.0.1", port=mariadb.port, user="reader", password="x").close()
        asked = run(tmp_path, "init", str(url), "reader", "x", "audit_events", *[""] * 7)
        printed = re.findall(r"^   ((?:REVOKE|GRANT|--) .*)", asked.stdout, re.MULTILINE)
        for statement in printed:
            cursor.execute(statement)
        cursor.execute(f"SHOW GRANTS FOR {account}")
        left = [line for (line,) in cursor.fetchall() if "SELECT ON" in str(line)]

    assert len(printed) == 2, asked.stdout + asked.stderr
    assert printed[0] == first
    assert printed[1].startswith("GRANT SELECT (`action`, `event_id`, `happened_at`) ON `trail`.`audit_events` TO ")
    assert len(left) == (granted == "*.*")


def test_answers_of_ones_own(tmp_path: Path, mariadb: MariaDB, postgresql: PostgreSQL) -> None:
    """Other answers are taken; an old file is kept; nothing is written before the last answer.

    Mutant: after a wrong password, the hint for a running service, which names keys of a file that is not there yet.
    """
    url, login, _ = database("mariadb", tmp_path, mariadb, postgresql)
    columns = ["audit_events", "event_id", "-", "action, message"]
    answers = [url, *login, *columns, "log-ins", "[::1]:2004", "http://graphite", "web.shop"]
    first = run(tmp_path, "init", *answers)
    written = tomllib.loads((tmp_path / "etc/shipper.toml").read_text())
    refused = run(tmp_path, "init", "n", *answers)
    cut = run(tmp_path, "init", "y", *answers[:5])
    kept = {file.name for file in (tmp_path / "etc").iterdir()}
    (tmp_path / "etc/shipper.schema.json").touch()
    again = run(tmp_path, "init", "y", answers[0], login[0], "wrong", *answers)

    assert first.returncode == again.returncode == 0, first.stderr
    graphite = {"host": "::1", "port": 2004, "render_url": "http://graphite", "prefix": "web.shop"}
    assert written["graphite"] | graphite == written["graphite"]
    assert written["job"]["log-ins"]["by"] == ["action", "message"]
    assert written["job"]["log-ins"]["name"] == "log-ins.{action}.{message}.{measure}"
    assert "time" not in written["job"]["log-ins"]
    assert refused.returncode == cut.returncode == 1
    assert all("nothing was written" in one.stderr for one in (refused, cut))
    assert "Database" not in refused.stdout
    assert again.stdout.count("Answer again.") == 1
    assert "    Check user and password. If both are right, check that an account exists for the host" in again.stdout
    assert "restart the service" not in again.stdout
    assert kept == {"shipper.toml", "mysql.cnf"}
    assert {file.name for file in (tmp_path / "etc").iterdir()} >= {"shipper.toml.old", "mysql.cnf.old"}
    assert (tmp_path / "etc/shipper.toml").read_text().startswith("#:schema ./shipper.schema.json\n# Written by ")


def test_wrong_answers(tmp_path: Path, mariadb: MariaDB, postgresql: PostgreSQL) -> None:
    """A wrong answer is explained, and asked for again; nothing is written.

    Mutants: accept any URL, as SQLAlchemy does; any table; any column; any address.
    """
    url, login, _ = database("mariadb", tmp_path, mariadb, postgresql)
    urls = ["db1.internal", "mysql://h/app", "mysql+pymysql://h:port/app", "mysql+pymysql://h"]
    columns = ["audit_event", "audit_events", "-", "event_id", "happened", "happened_at", "action, reason", "action"]
    graphite = ["log ins", "logins", "carbon", "[::1]:2004", "graphite", "", "web shop"]
    asked = run(tmp_path, "init", *urls, url, *login, *columns, *graphite)

    complaints = [line.partition("Error: ")[2] for line in asked.stdout.splitlines() if "Error: " in line]
    assert [one.partition(". ")[0] for one in complaints] == [
        "url is not a database url",
        '"mysql" is not a kind of database',
        "url is not a database url",
        "url names no database",
        '"audit_event" does not exist',
        '"-" does not exist',
        '"happened" does not exist',
        '"reason" does not exist',
        '"log ins" cannot be part of a metric path',
        '"carbon" is not the address of a receiver',
        '"graphite" is not an address',
        '"web shop" cannot be part of a metric path',
    ]
    assert complaints[4].endswith('Did you mean "audit_events"?')
    assert asked.returncode == 1
    assert not (tmp_path / "etc").exists()


def test_login_over_the_network(tmp_path: Path, mariadb: MariaDB, postgresql: PostgreSQL) -> None:
    """It asks how to verify a host that is not loopback; after an error it asks again, and offers the last answers.

    Mutants: no such question; end at the first error; forget the answers.
    """
    url, login, _ = database("mariadb", tmp_path, mariadb, postgresql)
    remote = url.replace("127.0.0.1", "127.1")  # the same address, under a name that is not loopback's
    authority = tmp_path / "ca.pem"
    authority.write_text("no certificate")
    attempts = [remote, *login, "", "", *[""] * 3, "verify", "verify-ca", str(authority), *[""] * 3, "off"]
    asked = run(tmp_path, "init", *attempts, *[""] * 5, "127.0.0.1:9", "", "")

    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.count("SSL is required but the server doesn't support it") == 1
    assert "Switch on TLS in the server" in asked.stdout
    assert asked.stdout.count("Answer again.") == 2
    written = tomllib.loads((tmp_path / "etc/shipper.toml").read_text())["source"]["app"]
    assert (written.get("tls"), written.get("tls_ca")) == ("off", None)


def test_verified_login(tmp_path: Path) -> None:
    """The authority that verified the server is written into the file, and `check` uses it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("db1.internal").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    server = MariaDB(tmp_path, [f"--ssl-cert={tmp_path}/server.pem", f"--ssl-key={tmp_path}/server.pem"])
    try:
        url = server.make_database("app").replace("127.0.0.1", "127.1")
        answers = [url, "root", "", "verify-ca", str(tmp_path / "ca.pem")]
        asked = run(tmp_path, "init", *answers, *[""] * 5, "127.0.0.1:9", "", "")
    finally:
        server.stop()

    assert asked.returncode == 0, asked.stdout
    written = tomllib.loads((tmp_path / "etc/shipper.toml").read_text())["source"]["app"]
    assert (written["tls"], written["tls_ca"]) == ("verify-ca", str(tmp_path / "ca.pem"))


@pytest.mark.parametrize(("table", "name"), [("Ereignisse (neu)", "ereignisse_neu"), ("Журнал", "rows")])
def test_job_is_named_after_its_table(table: str, name: str, tmp_path: Path, carbon_cache: CarbonCache) -> None:
    """The name that is offered can be part of a metric path, whatever the table's name is. Mutant: keep letters."""
    with closing(connect(tmp_path / "app.db")) as connection:
        connection.execute(f'CREATE TABLE "{table}" (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER)')
    answers = [f"sqlite:///{tmp_path}/app.db", *[""] * 5, f"127.0.0.1:{carbon_cache.port}", "", ""]
    asked = run(tmp_path, "init", *answers)

    assert asked.returncode == 0, asked.stderr
    assert list(tomllib.loads((tmp_path / "etc/shipper.toml").read_text())["job"]) == [name]


def test_times_that_sqlite_keeps_as_text(tmp_path: Path, carbon_cache: CarbonCache) -> None:
    """A column of texts with times is offered as the time, though SQLite keeps numbers in columns of any type.

    Mutant: read each value of SQLite as a number.
    """
    with closing(connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE logins (id INTEGER PRIMARY KEY AUTOINCREMENT, created_at TEXT, action TEXT)")
        connection.execute("INSERT INTO logins (created_at, action) VALUES (datetime('now'), 'login')")
        connection.commit()
    answers = [f"sqlite:///{tmp_path}/app.db", *[""] * 5, f"127.0.0.1:{carbon_cache.port}", "", ""]
    asked = run(tmp_path, "init", *answers)
    job = tomllib.loads((tmp_path / "etc/shipper.toml").read_text())["job"]["logins"]

    assert asked.returncode == 0, asked.stderr
    assert (job["time"], job.get("time_unit"), job["by"]) == ("created_at", None, ["action"])
    assert run(tmp_path, "check").returncode == 0


@pytest.mark.parametrize(
    ("more", "key", "offered"),
    [("", "id", None), ("CREATE INDEX by_time ON audits (createat)", "createat", "createat, id")],
)
def test_key_of_a_partitioned_table(
    more: str, key: str, offered: str | None, tmp_path: Path, carbon_cache: CarbonCache
) -> None:
    """The first column of a primary key is offered if no two rows share a value, behind an indexed time.

    Mutants: offer unique columns alone; each integer with an index; before a time.
    """
    with closing(connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE audits (id INT, team INT, createat INT, k TEXT, PRIMARY KEY (id, createat))")
        connection.execute("CREATE INDEX by_team ON audits (team)")
        connection.execute("INSERT INTO audits VALUES (1, 7, unixepoch() * 1000, 'a'), (2, 7, unixepoch() * 1000, 'b')")
        connection.execute(more)
        connection.commit()
    answers = [f"sqlite:///{tmp_path}/app.db", *[""] * 5, f"127.0.0.1:{carbon_cache.port}", "", ""]
    asked = run(tmp_path, "init", *answers)
    job = tomllib.loads((tmp_path / "etc/shipper.toml").read_text())["job"]["audits"]

    assert asked.returncode == 0, asked.stderr
    assert (job["id"], job["time"], job["time_unit"]) == (key, "createat", "ms")
    assert offered is None or f"found: {offered}\n" in asked.stdout
    assert run(tmp_path, "check").returncode == 0


def test_what_cannot_go_on(tmp_path: Path, mariadb: MariaDB) -> None:
    """A server that does not answer, and a user who sees no table, are an error with a remedy; nothing is written."""
    url = mariadb.make_database("trail")
    with mariadb.connect("trail") as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE audit_trail")
    nothing = run(tmp_path, "init", "mysql+pymysql://127.0.0.1:9/app", "shipper", "x")
    empty = run(tmp_path, "init", url, "root", "")

    assert nothing.returncode == 1
    assert "Check that the database is up" in nothing.stdout
    assert "nothing was written" in nothing.stderr
    assert empty.returncode == 78
    assert "this user sees no table" in empty.stderr
    assert not (tmp_path / "etc").exists()
    assert not any("Traceback" in one.stderr for one in (nothing, empty))


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """A directory that cannot be made is an error with a remedy. Mutant: make it before errors are translated."""
    with closing(connect(tmp_path / "app.db")) as app:
        app.execute("CREATE TABLE audit_trail (id INTEGER PRIMARY KEY)")
    (tmp_path / "etc").touch()
    answers = (f"sqlite:///{tmp_path}/app.db", "audit_trail", "id", "-", "-", "events", "127.0.0.1:1", "-", "audit")
    ended = run(tmp_path, "init", *answers)

    assert ended.returncode == 78
    assert f"error: write {tmp_path}/etc/shipper.toml: File exists\n  hint: Run it as root, or name" in ended.stderr
    assert "Traceback" not in ended.stderr
