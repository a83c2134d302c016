"""The commands, as subprocesses on real servers."""

import json
import os
import pty
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from harness import EVENTS, PATIENCE_SECONDS, Shipper, shipper, total, wait_for
from servers import MariaDB, PostgreSQL

from shipper.core.retention import ceil
from shipper.demo.carbon_cache import CarbonCache
from shipper.state.lock import lock

MINUTE = 60


def insert(mariadb: MariaDB, rows: int, *, action: str = "login") -> None:
    """Commit rows with the present time."""
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO audit_trail (created_at, action, outcome) VALUES (UTC_TIMESTAMP(6), %s, 'ok')",
            [(action,)] * rows,
        )


def test_help_names_the_commands() -> None:
    """`--help` shows the purpose and the daily commands, `admin --help` the others."""
    shown, admin = shipper("--help"), shipper("admin", "--help")
    listed = [re.findall(r"^  (\w[\w-]+)  ", one.stdout, re.MULTILINE) for one in (shown, admin)]

    assert (shown.returncode, admin.returncode) == (0, 0)
    assert "Usage: shipper " in shown.stdout
    assert "Ship counts of an audit trail to Graphite" in shown.stdout
    daily = {
        "run",
        "once",
        "pause",
        "resume",
        "check",
        "preview",
        "status",
        "history",
        "reconcile",
        "backfill",
        "reset",
        "backup",
        "restore",
        "init",
        "version",
    }
    assert daily | {"admin"} == set(listed[0])
    assert {"reload", "doctor", "seek", "grants", "carbon-conf"} < set(listed[1])


def test_version() -> None:
    """`--version` prints the version, `version` also those of the libraries."""
    assert re.fullmatch(r"shipper \d+\.\d+\.\d+\n", shipper("--version").stdout)
    shown, document = shipper("version").stdout, json.loads(shipper("version", "-o", "json").stdout)

    assert [tuple(line.split()) for line in shown.splitlines()] == list(document.items())
    assert document["sqlite"] == sqlite3.sqlite_version
    assert document.keys() >= {"shipper", "python", "openssl", "sqlalchemy", "pymysql", "tree-sitter-toml"}


def test_completion(tmp_path: Path) -> None:
    """A real bash completes commands, options and jobs with the printed script; a broken file causes no output."""
    program, config = tmp_path / "shipper", tmp_path / "shipper.toml"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m shipper.cli "$@"\n')
    program.chmod(0o755)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/orders.toml").write_text('[job.orders]\nsource = ["a", "b"]\n')
    words = [
        ["hist"],
        ["once", "--conf"],
        *([command, "--config", str(config), "o"] for command in ("once", "preview")),
    ]

    def completed() -> list[str]:
        script = f'export PATH="{tmp_path}:$PATH"\nsource <(shipper admin completion bash)\n' + "".join(
            f"COMP_WORDS=(shipper {' '.join(typed)}); COMP_CWORD={len(typed)}; COMPREPLY=()\n"
            '_shipper_completion shipper; echo "${COMPREPLY[@]}"\n'
            for typed in words
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.splitlines()

    config.write_text("[job.other]\n[job.events]\n")
    assert completed() == ["history", "--config", *["orders orders@a orders@b other"] * 2]
    config.write_text("[job.other\n")
    assert completed() == ["history", "--config", *["orders orders@a orders@b"] * 2]
    for shell in ("zsh", "fish"):
        assert "_SHIPPER_COMPLETE" in shipper("admin", "completion", shell).stdout


@pytest.mark.parametrize("command", ["run", "once", "check", "status"])
def test_broken_configuration(shipper_app: Shipper, command: str) -> None:
    """Every command rejects a broken configuration with status 78 and its line, without a traceback."""
    shipper_app.configure('every = "1s"', 'evry = "1s"')
    ended = shipper_app.call(command)

    assert ended.returncode == 78
    assert f'{shipper_app.config}:15: no such key "evry"\n    Did you mean "every"?' in ended.stderr
    assert "Traceback" not in ended.stderr


def test_once(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """`once` delivers all rows, and the next time only adds new ones."""
    for rows in (3, 2):
        insert(mariadb, rows)
        ended = shipper_app.call("once")
        assert ended.returncode == 0, ended.stderr

    wait_for(lambda: total(carbon_cache) == 5, "5 rows in Graphite")
    with closing(sqlite3.connect(shipper_app.folder / "shipper.db")) as connection:
        columns = "job, source, id_table, id_column, value, captured"
        rows_found = connection.execute(f"SELECT {columns} FROM watermark").fetchall()
    assert rows_found == [("events", "app", "audit_trail", "id", "5", "5")]


def test_once_unknown_job(shipper_app: Shipper) -> None:
    """A job that is not configured is rejected, with the names of the others."""
    ended = shipper_app.call("once", "evnts")

    assert ended.returncode == 78
    assert "no job 'evnts'" in ended.stderr
    assert "The jobs are: events." in ended.stderr


def test_once_carbon_down(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """With Carbon down `once` fails, keeps what it captured, and the next one delivers it."""
    insert(mariadb, 3)
    carbon_cache.stop()
    ended = shipper_app.call("once")
    assert ended.returncode == 1
    assert "delivery.failed" in ended.stderr
    carbon_cache.start()

    assert shipper_app.call("once").returncode == 0
    wait_for(lambda: total(carbon_cache) == 3, "3 rows in Graphite")


def test_once_source_down(tmp_path: Path, carbon_cache: CarbonCache) -> None:
    """With the source down `once` fails with the reason."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
        app = Shipper(tmp_path, url=f"mysql+pymysql://root@127.0.0.1:{port}/app", port=carbon_cache.port)
        ended = app.call("once")

    assert ended.returncode == 1
    assert "observation.failed" in ended.stderr
    assert "Can't connect to MySQL server" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_another_table_is_held(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """A job with another table does not continue with the old ids: it is held, with the reason."""
    insert(mariadb, 3)
    assert shipper_app.call("once").returncode == 0
    shipper_app.configure('"audit_trail"', '"orders"')
    ended = shipper_app.call("once")

    assert ended.returncode == 1
    assert "event=job.held job=events" in ended.stderr
    assert "it counted audit_trail.id of source app, but the configuration says" in ended.stderr
    assert "for another table, add a new job with its own `name`" in ended.stderr
    assert "it counted audit_trail.id of source app, but the configuration says" in shipper_app.call("check").stdout


def test_run_ships_until_told_to_stop(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """The daemon delivers on its schedule; after SIGTERM it delivers the rest, and exits with 0."""
    shipper_app.start()
    insert(mariadb, 4)
    wait_for(lambda: "delivery.finished" in shipper_app.events(), "a delivery")
    insert(mariadb, 3)
    wait_for(lambda: total(carbon_cache) == 7, "7 rows in Graphite")

    assert shipper_app.stop(signal.SIGTERM) == 0
    assert shipper_app.events()[-2:] == ["service.stopping", "service.stopped"]
    assert "Traceback" not in shipper_app.text()


def test_run_interrupted(shipper_app: Shipper) -> None:
    """SIGINT has the same effect as SIGTERM."""
    shipper_app.start()

    assert shipper_app.stop(signal.SIGINT) == 0


def test_run_stops_amid_queries(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """After SIGTERM during slow queries, the daemon waits for them and ends. Mutant: the scheduler's own shutdown."""
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE VIEW slow AS SELECT SLEEP(0.5) + id AS id, created_at, action FROM audit_trail")
    insert(mariadb, 1)
    slow = EVENTS.replace("audit_trail", "slow")
    shipper_app.configure(EVENTS, slow)
    shipper_app.start()
    wait_for(lambda: _asks(mariadb, "slow"), "a slow query")

    assert shipper_app.stop(signal.SIGTERM) == 0
    assert shipper_app.events()[-1] == "service.stopped"


def _asks(mariadb: MariaDB, table: str) -> bool:
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE %s", (f"%FROM `{table}`%",))
        return cursor.fetchone() == (2,)  # it and the one that asks


def test_run_twice_refused(shipper_app: Shipper) -> None:
    """A second daemon on the same state exits at once and names the first."""
    shipper_app.start()
    ended = shipper_app.call("run")

    assert ended.returncode == 1
    assert f"process {shipper_app.pid} uses it already" in ended.stderr


def test_run_survives_both_ends_down(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """With Carbon down captures continue; one line logs the failure, one the recovery, and nothing is lost."""
    carbon_cache.stop(signal.SIGKILL)
    shipper_app.start()
    insert(mariadb, 4)
    wait_for(lambda: "delivery.failed" in shipper_app.events(), "delivery.failed")
    wait_for(lambda: "capture.finished" in shipper_app.events(), "a capture")
    insert(mariadb, 4)
    wait_for(lambda: shipper_app.events().count("capture.finished") >= 2, "two captures")
    carbon_cache.start()
    wait_for(lambda: "delivery.recovered" in shipper_app.events(), "delivery.recovered")
    wait_for(lambda: total(carbon_cache) == 8, "8 rows in Graphite")

    assert shipper_app.events().count("delivery.failed") == 1


def test_one_broken_job_stops_no_other(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """A job that the database rejects is reported with a hint, while others continue; once fixed, it continues, too."""
    broken = EVENTS.replace("events", "broken").replace("audit_trail", "later")
    shipper_app.config.write_text(shipper_app.config.read_text() + broken)
    insert(mariadb, 4)
    shipper_app.start()
    wait_for(lambda: total(carbon_cache) == 4, "4 rows in Graphite")
    wait_for(lambda: "observation.failed" in shipper_app.events(), "observation.failed")
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE later AS SELECT * FROM audit_trail")
    wait_for(lambda: total(carbon_cache, "audit.broken.login.count") == 4, "4 rows of the other table")

    wait_for(lambda: "observation.recovered" in shipper_app.events(), "observation.recovered")


def test_wrong_id_column(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """An id column without ids is a configuration error, not a bug."""
    insert(mariadb, 1)
    shipper_app.configure('id = "id"', 'id = "action"')
    ended, checked = shipper_app.call("once"), shipper_app.call("check")

    assert ended.returncode == checked.returncode == 1
    assert "read audit_trail: action has type varchar, which is not an id" in ended.stderr
    assert "table audit_trail of app: action has type " in checked.stdout
    assert "Traceback" not in ended.stderr + checked.stderr


def test_once_proves_in_the_end(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """A run after a clean end sends nothing again before it is due."""
    insert(mariadb, 3)
    assert shipper_app.call("once").returncode == 0
    insert(mariadb, 2, action="logout")
    ended = shipper_app.call("once")

    assert "event=delivery.finished datapoints=1 " in ended.stderr
    wait_for(lambda: total(carbon_cache, "audit.events.logout.count") == 2, "2 rows in Graphite")


def test_source_reset_told(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """A table whose largest id is below captured is an error, not a table without new rows."""
    insert(mariadb, 4)
    assert shipper_app.call("once").returncode == 0
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE audit_trail")
    insert(mariadb, 2)
    ended = shipper_app.call("once")

    assert ended.returncode == 1
    assert "its largest id fell to 2; id 4 was captured" in ended.stderr


def test_rows_that_cannot_be_shown(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """Rows without a time, too old or in the future are counted by reason, logged, and shown by status."""
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        for when in ("NULL", "'2001-01-01'", "'2101-01-01'", "UTC_TIMESTAMP()"):
            cursor.execute(f"INSERT INTO audit_trail (created_at, action) VALUES ({when}, 'login')")
    ended = shipper_app.call("once")

    assert ended.returncode == 0
    assert ended.stderr.count("rows.rejected") == 3
    wait_for(lambda: total(carbon_cache) == 1, "1 row in Graphite")
    assert "future 1, no_time 1, too_old 1" in shipper_app.call("status").stdout


def test_rows_without_an_id(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """Rows whose id is NULL or below 1 are rejected with their reason; others are delivered. Mutant: query none."""
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_trail MODIFY id BIGINT NULL, DROP PRIMARY KEY, ADD KEY (id)")
        for identity in ("NULL", "0", "-1", "1"):
            values = f"{identity}, UTC_TIMESTAMP(), 'login'"
            cursor.execute(f"INSERT INTO audit_trail (id, created_at, action) VALUES ({values})")
    ended = shipper_app.call("once")

    assert ended.returncode == 0
    assert "event=rows.rejected job=events reason=no_id rows=3" in ended.stderr
    wait_for(lambda: total(carbon_cache) == 1, "1 row in Graphite")
    assert "rejected rows: no_id 3" in shipper_app.call("status").stdout


def test_row_that_commits_late(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """A late row is delivered by the first run after its commit, and counted as late.

    Mutant: look above what was captured only.
    """
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.execute("INSERT INTO audit_trail (created_at, action) VALUES (UTC_TIMESTAMP(), 'login')")
        insert(mariadb, 2)
        before = shipper_app.call("once")
        wait_for(lambda: total(carbon_cache) == 2, "2 rows in Graphite")
        connection.commit()
    after = shipper_app.call("once")

    assert "rows.late" not in before.stderr
    assert "event=rows.late job=events rows=1 total=1" in after.stderr
    wait_for(lambda: total(carbon_cache) == 3, "3 rows in Graphite")
    assert "counted late rows of audit_trail: 1" in shipper_app.call("status").stdout


def test_status(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """`status` shows the progress of each job, and whether a daemon runs."""
    assert shipper_app.call("status").returncode == 3  # there is no state yet
    insert(mariadb, 4)
    shipper_app.start()
    wait_for(lambda: "delivery.finished" in shipper_app.events(), "a delivery")
    shown = shipper_app.call("status")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f", process {shipper_app.pid}; configuration loaded " in shown.stdout
    assert re.search(r"^source app  mysql 127.0.0.1:\d+/app +answers +\d+s ago$", shown.stdout, re.MULTILINE)
    assert re.search(r"^events  ok +4 +0 +\d+s +0 +[1-9] +\d+s ago +in \ds$", shown.stdout, re.MULTILINE)
    assert "\nproof: no proof without render_url: " in shown.stdout
    assert shown.stdout.endswith("\nhealthy\n")
    assert max(map(len, shown.stdout.splitlines())) <= 100
    told = json.loads(shipper_app.call("status", "events", "-o", "json").stdout)
    assert (told["jobs"][0]["behind"], told["jobs"][0]["waiting"], told["is_ready"]) == (0, 0, True)
    unknown = shipper_app.call("status", "evnts")
    assert (unknown.returncode, unknown.stdout) == (78, "")
    assert "The jobs are: events." in unknown.stderr
    shipper_app.stop()

    ended = shipper_app.call("status")
    assert ended.returncode == 3
    assert "not running" in ended.stdout
    assert re.search(r"^carbon +127.0.0.1:\d+ +answers +0s ago$", ended.stdout, re.MULTILINE)
    assert re.search(r"^events  - +4 +0 ", ended.stdout, re.MULTILINE)

    with closing(lock(str(shipper_app.folder / "shipper.db"))):  # as `shipper once`
        beside = shipper_app.call("status")
    assert (beside.returncode, "healthy" in beside.stdout) == (3, False)
    assert f"no service runs; process {os.getpid()} (a single command" in beside.stdout


def test_status_of_ends_that_are_down(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """Without a service `status` tests the endpoints itself: it shows one that is down, and a missing table."""
    carbon_cache.stop()
    shipper_app.config.write_text(shipper_app.config.read_text() + EVENTS.replace("events", "b").replace("audit", "x"))
    shown = shipper_app.call("status")
    url = re.sub(r"127.0.0.1:\d+", f"127.0.0.1:{carbon_cache.port}", shipper_app.config.read_text(), count=1)
    shipper_app.config.write_text(url)
    other = shipper_app.call("status", "events")

    assert (shown.returncode, other.returncode) == (3, 3)
    assert re.search(r"^carbon .* does not answer  -$", shown.stdout, re.MULTILINE)
    assert re.search(r"^b +failing  ", shown.stdout, re.MULTILINE)
    assert "x_trail' doesn't exist" in shown.stdout
    assert re.search(r"^source app .* does not answer  -$", other.stdout, re.MULTILINE)


def test_status_watch(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """`--watch` repeats the status until it is interrupted, in a terminal in the same place."""
    program = ["env", "--default-signal=INT", sys.executable, "-m", "shipper.cli"]
    command = [*program, "status", "--config", str(shipper_app.config), "--watch"]
    for (ours, theirs), again in ((pty.openpty(), b"\x1b[2J"), (os.pipe(), b"\n\nshipper ")):
        said, deadline = b"", time.monotonic() + PATIENCE_SECONDS
        with subprocess.Popen(command, stdout=theirs) as process:
            while again not in said.partition(b"not running")[2] and time.monotonic() < deadline:
                said += os.read(ours, 65536) if select.select([ours], [], [], 1)[0] else b""
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_SECONDS)
            process.kill()
        for end in (ours, theirs):
            os.close(end)

        assert again in said.partition(b"not running")[2]
        assert process.returncode == 3
        assert (b"\x1b" in said) == (b"\x1b" in again)  # not into a pipe


def test_history(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """`history` shows the commits of the watermark, the newest last; around a time with the slots in the state."""
    assert shipper_app.call("history", "events").returncode == 78  # there is no state yet
    for rows in (3, 2):
        insert(mariadb, rows)
        shipper_app.call("once")
    shown = shipper_app.call("history", "events", "--utc")
    told = json.loads(shipper_app.call("history", "events", "--at", "now", "-o", "json").stdout)
    first = json.loads(shipper_app.call("history", "events", "--limit", "1", "-o", "json").stdout)["commits"]
    around = shipper_app.call("history", "events", "--at", "1m")
    long_ago = shipper_app.call("history", "events", "--at", "2001-01-01")
    unknown = shipper_app.call("history", "evnts")

    assert shown.stdout.splitlines()[0].split() == ["COMMITTED", "WATERMARK", "IDS", "DATAPOINTS"]
    assert [line.split()[2:4] for line in shown.stdout.splitlines()[1:]] == [["3", "-"], ["5", "2"]]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ", shown.stdout.splitlines()[2][:20])
    assert [(one["watermark"], one["ids"]) for one in told["commits"]] == [(3, None), (5, 2)]
    assert first == told["commits"][1:]
    assert sum(slot["rows"] for slot in told["slots"]) == 5
    assert "\nSLOT " in around.stdout
    assert "  1m  " in around.stdout
    assert "no slots around 2001-01-01 00:00:00" in long_ago.stderr
    assert (unknown.returncode, unknown.stderr.count("The jobs are: events.")) == (78, 1)


def test_credentials_file(mariadb: MariaDB, database: str, tmp_path: Path, carbon_cache: CarbonCache) -> None:
    """User and password come from an option file, need only the printed grants, and are shown nowhere."""
    (tmp_path / "mysql.cnf").write_text("[client]\nuser = reader\npassword = s€säme#42\n")
    app = Shipper(tmp_path, url=f"mysql+pymysql://127.0.0.1:{mariadb.port}/app", port=carbon_cache.port)
    app.config.write_text(
        app.config.read_text().replace('timeout = "10s"', 'timeout = "10s"\ncredentials = "mysql.cnf"')
    )
    comment, *granted = app.call("admin grants").stdout.splitlines()
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER reader@'%' IDENTIFIED BY 's€säme#42'")
        for statement in granted:
            cursor.execute(statement)
    insert(mariadb, 4)
    ended, checked = app.call("once"), app.call("check")

    assert comment == f"-- source app: mysql 127.0.0.1:{mariadb.port}/app"
    assert granted == ["GRANT SELECT (`action`, `created_at`, `id`) ON `app`.`audit_trail` TO 'reader'@'%';"]
    assert (ended.returncode, checked.returncode) == (0, 0), ended.stderr + checked.stdout
    assert "s€säme#42" not in ended.stderr + checked.stdout + checked.stderr


def test_grants_postgresql(postgresql: PostgreSQL, tmp_path: Path, carbon_cache: CarbonCache) -> None:
    """The printed grants are enough, also in a separate schema."""
    postgresql.make_database("app")
    app = Shipper(tmp_path, url=f"postgresql+psycopg://reader@127.0.0.1:{postgresql.port}/app", port=carbon_cache.port)
    app.configure('table = "audit_trail"', 'table = "own.audit_trail"')
    with postgresql.connect("app") as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        for statement in (
            "CREATE ROLE reader LOGIN",
            "CREATE SCHEMA own",
            "ALTER TABLE audit_trail SET SCHEMA own",
            "INSERT INTO own.audit_trail (created_at, action) VALUES (clock_timestamp(), 'login')",
            *app.call("admin grants").stdout.splitlines(),
        ):
            connection.execute(statement.encode())
    ended, checked = app.call("once"), app.call("check")

    assert (ended.returncode, checked.returncode) == (0, 0), ended.stderr + checked.stdout
    assert "captured=1" in ended.stderr


def test_tick_time_job(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """A job without a time column counts rows in the bucket of their capture, the first ones in the next whole one."""
    jobs = EVENTS.replace('time = "created_at"\n', "")
    shipper_app.configure(EVENTS, jobs)
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO audit_trail (created_at, action) VALUES ('2001-01-01', 'login'), (NULL, 'login')")
    next_bucket = ceil(int(time.time()), MINUTE)
    assert shipper_app.call("once").returncode == 0
    wait_for(lambda: total(carbon_cache) == 2, "2 rows in Graphite")
    ((slot, rows),) = carbon_cache.sums()["audit.events.login.count"].items()

    assert rows == 2
    assert next_bucket <= slot <= time.time() + MINUTE


def _demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the demo, as deploy/demo does."""
    command = [sys.executable, "-m", "shipper.demo", *arguments]
    root = Path(__file__).parents[2]
    return subprocess.run(
        command, cwd=root, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=120
    )


def test_demo() -> None:
    """The demo needs no server, survives a kill, and ends with its result."""
    shown = _demo("--seconds", "6")

    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "kill -9" in shown.stdout
    last = shown.stdout.strip().splitlines()[-1]
    found = re.fullmatch(r"(\d+) rows in the table, (\d+) in Graphite, .*: equal", last)
    assert found is not None, last
    assert found[1] == found[2]
    assert int(found[1]) > 0


def test_demo_without_carbon(tmp_path: Path) -> None:
    """Without a Carbon the demo shows the command that installs one."""
    hidden = tmp_path / "site"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'carbon' else find(name, *rest)\n"
    )
    shown = _demo(PATH=os.fspath(tmp_path), PYTHONPATH=str(hidden))

    assert shown.returncode == 1
    assert "apt-get install graphite-carbon" in shown.stderr


def test_error_has_a_priority_in_the_journal(tmp_path: Path) -> None:
    """Under systemd each line about a broken configuration has the priority of errors, for `journalctl -p err`."""
    (tmp_path / "shipper.toml").write_text("[graphite]\nx = 1\n")
    log = tmp_path / "stderr"
    with log.open("wb") as stream:
        status = os.fstat(stream.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        command = [sys.executable, "-m", "shipper.cli", "run", "--config", str(tmp_path / "shipper.toml")]
        ended = subprocess.run(command, stderr=stream, env=environment, check=False, timeout=60)

    assert ended.returncode == 78
    assert "shipper.toml:2: " in log.read_text()
    assert {line[:3] for line in log.read_text().splitlines()} == {"<3>"}
