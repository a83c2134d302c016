"""The running service: its messages to systemd, its reload, and the effects of hanging parts."""

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import EVENTS, Shipper, total, wait_for
from servers import MariaDB, PostgreSQL

from shipper.config.load import digest_of
from shipper.demo.carbon_cache import CarbonCache

OTHER = """
[job.other]
table = "other"
id = "id"
time = "created_at"
name = "other.{measure}"
"""


class Listener:
    """A socket that listens as systemd does, and keeps the messages."""

    def __init__(self, path: Path) -> None:
        self.heard: list[str] = []
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end.bind(str(path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._end.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._end.close()

    def said(self, words: str) -> bool:
        """Whether a message was received."""
        return any(words in line for line in self.heard)

    def _listen(self) -> None:
        while message := self._end.recv(4096):
            self.heard += message.decode().splitlines()


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Give the systemd of the processes that are started."""
    listener = Listener(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    yield listener
    listener.close()


def insert(mariadb: MariaDB, rows: int, table: str = "audit_trail") -> None:
    """Commit rows with the current time."""
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} (created_at, action) VALUES (UTC_TIMESTAMP(6), %s)", [("login",)] * rows
        )


def with_database(app: Shipper, postgresql: PostgreSQL) -> str:
    """Let the state be in a new database, and return the configuration."""
    postgresql.make_database("states")
    place = f'path = "{app.folder}/shipper.db"'
    database = f'database = "postgresql+psycopg://root@127.0.0.1:{postgresql.port}/states"'
    text = app.config.read_text().replace(place, f'{place}\n{database}\nlease = "10s"')
    app.config.write_text(text)
    return text


def jobs_of(shipper_app: Shipper) -> dict[str, dict[str, Any]]:
    """Return the status of the running service's jobs."""
    document = json.loads(shipper_app.call("status", "-o", "json").stdout)
    return {job["job"]: job for job in document["jobs"]}


def test_both_ends_come_up_later(tmp_path: Path, listener: Listener) -> None:
    """With database and Carbon down, it is ready, reports what fails, and ships everything once they are up.

    Mutant: connect before READY.
    """
    mariadb, carbon = MariaDB(tmp_path / "db"), CarbonCache(tmp_path / "carbon", retentions="1m:1d")
    app = Shipper(tmp_path, url=mariadb.make_database("app"), port=carbon.port)
    insert(mariadb, 7)
    mariadb.stop()
    app.start()
    wait_for(lambda: listener.said("READY=1"), "READY")
    wait_for(lambda: listener.said("; source app: read"), "STATUS")
    wait_for(lambda: listener.said("; carbon: deliver"), "STATUS")

    mariadb.start()
    carbon.start()
    wait_for(lambda: total(carbon, "audit.events.login.count") == 7, "all rows")
    wait_for(lambda: listener.said("STATUS=1 job, healthy"), "STATUS")
    assert listener.said("WATCHDOG=1")
    assert app.stop() == 0
    assert listener.said("STOPPING=1")
    carbon.close()
    mariadb.stop()


def test_reload(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """A new job runs; a broken file is rejected with its line and changes nothing; SIGHUP reloads, too.

    Mutant: count from 0 in a changed job, and the own metrics of its next minute are negative.
    """
    config = shipper_app.config.read_text()
    shipper_app.start()
    insert(mariadb, 3)
    wait_for(lambda: total(carbon_cache, "audit.events.login.count") == 3, "the first rows")
    wait_for(lambda: jobs_of(shipper_app)["events"]["watermark"] == 3, "their confirmation")

    # a valid file: the old job continues where it was
    second = EVENTS.replace("job.events", "job.second").replace("events.{", "second.{")
    shipper_app.config.write_text(config + second)
    taken = shipper_app.call("admin reload")
    assert (taken.returncode, taken.stdout) == (0, f"{shipper_app.config}: 2 jobs scheduled\n"), taken.stderr
    wait_for(lambda: total(carbon_cache, "audit.second.login.count") == 3, "the rows of the second job")
    assert jobs_of(shipper_app)["events"]["watermark"] == 3

    # a broken file: reported with its line, here and in the log
    shipper_app.config.write_text(config + second + "\n[job.third]\nnonsense = 1\n")
    refused = shipper_app.call("admin reload")
    line = shipper_app.config.read_text().splitlines().index("nonsense = 1") + 1
    assert refused.returncode == 78
    assert f"{shipper_app.config}:{line}: " in refused.stderr
    insert(mariadb, 2)
    wait_for(lambda: total(carbon_cache, "audit.second.login.count") == 5, "rows after a refusal")

    # a reload by signal: without the second job, and with another worker of the first
    shipper_app.config.write_text(config.replace('by = ["action"]', 'by = ["action"]\ntitle = "Events"'))
    reloads = shipper_app.events().count("config.reloaded")
    os.kill(shipper_app.pid, signal.SIGHUP)
    wait_for(lambda: shipper_app.events().count("config.reloaded") > reloads, "config.reloaded")
    jobs = jobs_of(shipper_app)
    assert (jobs["second"]["state"], jobs["events"]["title"]) == ("gone", "Events")
    assert jobs["events"]["counters"]["rows"] == 5
    assert shipper_app.stop() == 0


def test_reload_to_another_carbon(
    shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache, tmp_path: Path
) -> None:
    """A changed [graphite] takes effect while rows come, and gets all of them. Mutant: keep the old courier."""
    shipper_app.start()
    insert(mariadb, 3)
    wait_for(lambda: total(carbon_cache, "audit.events.login.count") == 3, "the first rows")
    second = CarbonCache(tmp_path / "second", retentions="1m:1d")
    second.start()
    config = shipper_app.config.read_text()
    shipper_app.config.write_text(config.replace(f"port = {carbon_cache.port}", f"port = {second.port}"))
    taken = shipper_app.call("admin reload")
    insert(mariadb, 4)

    assert taken.returncode == 0, taken.stderr
    wait_for(lambda: total(second, "audit.events.login.count") == 7, "all rows at the second Carbon")
    assert shipper_app.stop() == 0
    second.close()


def test_reload_refuses_another_state(shipper_app: Shipper, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed state path needs a restart."""
    shipper_app.start()
    shipper_app.configure("shipper.db", "elsewhere.db")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(shipper_app.folder))
    refused = shipper_app.call("admin reload")

    assert refused.returncode == 78
    assert "[state] path has changed" in refused.stderr
    assert "hint: Restart the service, which then uses another state: systemctl restart shipper" in refused.stderr
    assert shipper_app.stop() == 0


def test_reload_of_a_leader(shipper_app: Shipper, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others that stand by learn which configuration the leader has loaded; another database needs a restart."""
    text = with_database(shipper_app, postgresql)
    shipper_app.start()
    shipper_app.config.write_text(f"{text}# another comment\n")
    taken = shipper_app.call("admin reload")

    assert taken.returncode == 0, taken.stderr
    wanted = [(digest_of(str(shipper_app.config)),)]
    with postgresql.connect("states") as session:
        query = "SELECT configuration FROM shipper.lease"
        wait_for(lambda: session.execute(query).fetchall() == wanted, "the digest of the new configuration")
    shipper_app.config.write_text(text.replace('lease = "10s"', 'lease = "20s"'))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(shipper_app.folder))
    refused = shipper_app.call("admin reload")
    assert refused.returncode == 78
    assert "[state] lease has changed" in refused.stderr
    assert shipper_app.stop() == 0


def test_load_may_take_longer_than_the_watchdog(
    shipper_app: Shipper, postgresql: PostgreSQL, listener: Listener
) -> None:
    """While a process loads a state from a database, systemd waits for an hour; then as long as the unit says."""
    with_database(shipper_app, postgresql)
    shipper_app.start()

    wait_for(lambda: listener.said("READY=1"), "READY")
    times = ["EXTEND_TIMEOUT_USEC=3600000000", "WATCHDOG_USEC=3600000000", "WATCHDOG_USEC=1000000"]
    assert [line for line in listener.heard if "TIMEOUT_USEC" in line or "WATCHDOG_USEC" in line] == times
    assert shipper_app.stop() == 0


def test_reload_of_one_that_stands_by(
    shipper_app: Shipper, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stands by reads its file only at its start, and says so."""
    with_database(shipper_app, postgresql)
    with postgresql.connect("states") as session:
        session.execute("SELECT pg_advisory_lock(hashtextextended('shipper shipper', 0))")
        shipper_app.launch()
        wait_for(lambda: "service.standing_by" in shipper_app.events(), "service.standing_by")
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(shipper_app.folder))
        refused = shipper_app.call("admin reload")

        assert refused.returncode == 1
        assert "systemctl restart shipper" in refused.stderr
        assert shipper_app.stop() == 0


def test_reload_without_a_service(shipper_app: Shipper) -> None:
    """Without a running service, `reload` exits with 3 and shows how to start it."""
    refused = shipper_app.call("admin reload")

    assert refused.returncode == 3
    assert "systemctl start shipper" in refused.stderr


def test_hung_query_blocks_no_other_job(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """While a table is locked, its job is overdue and others continue; then it catches up by itself.

    Mutant: one thread for all jobs of a source.
    """
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS other")
        cursor.execute("CREATE TABLE other LIKE audit_trail")
    shipper_app.config.write_text(shipper_app.config.read_text() + OTHER)
    shipper_app.start()
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLES audit_trail WRITE")
        wait_for(lambda: "job.overdue" in shipper_app.events(), "job.overdue")
        insert(mariadb, 4, "other")
        wait_for(lambda: total(carbon_cache, "audit.other.count") == 4, "rows of the other job")
        jobs = jobs_of(shipper_app)
        assert (jobs["events"]["state"], jobs["other"]["state"]) == ("overdue", "ok")
        cursor.execute("UNLOCK TABLES")
    insert(mariadb, 2)

    wait_for(lambda: total(carbon_cache, "audit.events.login.count") == 2, "rows of the job that hung")
    wait_for(lambda: "job.resumed" in shipper_app.events(), "job.resumed")
    assert shipper_app.stop() == 0


def test_self_metrics(shipper_app: Shipper, carbon_cache: CarbonCache) -> None:
    """The service's own metrics are in Graphite though nothing was captured, below a separate node."""
    shipper_app.start()
    node = f"audit.shipper.{socket.gethostname().replace('.', '_')}.events"
    wanted = {"up", "overdue", "unproven", "series", "rows", "late_rows", "too_late", "datapoints", "failures"}
    paths = {f"{node}.{name}" for name in wanted | {"capture_ms", "deliver_ms"}}
    wait_for(lambda: carbon_cache.sums().keys() >= paths, "all of them")  # Carbon creates one file after the other

    assert set(carbon_cache.sums()[f"{node}.up"].values()) == {1.0}
    assert shipper_app.stop() == 0


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("courier", "delivery"),
        ("job", "running capture of job events"),
        ("tick", "tick of table audit_trail (source app, every 1 s)"),
        ("scheduler", "scheduler"),
    ],
)
def test_watchdog_starves(
    part: str, named: str, database: str, carbon_cache: CarbonCache, tmp_path: Path, listener: Listener
) -> None:
    """A part without progress is named in the log, and the watchdog is not fed any more. Mutant: feed it always."""
    program = (str(Path(__file__).parents[1] / "hanging.py"), part)
    app = Shipper(tmp_path, url=database, port=carbon_cache.port, program=program)
    app.config.write_text(app.config.read_text().replace('timeout = "5s"', 'timeout = "1s"').replace('"10s"', '"1s"'))
    try:
        app.start()
        wait_for(lambda: "service.stalled" in app.events(), "service.stalled")
        assert f"no progress: {named}" in app.text()
        before = listener.heard.count("WATCHDOG=1")
        # the main thread checks all parts at each signal
        for times in range(1, 4):
            os.kill(app.pid, signal.SIGHUP)
            wait_for(lambda: listener.heard.count("RELOADING=1") == times, "a reload")  # noqa: B023
        assert listener.heard.count("WATCHDOG=1") == before
        assert "service.recovered" not in app.events()
    finally:
        app.stop(signal.SIGKILL)


def test_stop_beside_a_capture_that_hangs(database: str, carbon_cache: CarbonCache, tmp_path: Path) -> None:
    """It is left alone when the service stops, and sees nothing of that: no error is told.

    Mutant: close the state, and then end the process.
    """
    program = (str(Path(__file__).parents[1] / "hanging.py"), "capture")
    app = Shipper(tmp_path, url=database, port=carbon_cache.port, program=program)
    app.start()
    wait_for(lambda: "job.overdue" in app.events(), "the capture")

    assert app.stop() == 0
    assert app.events()[-2:] == ["capture.abandoned", "service.stopped"]


def test_status_of_a_running_service(shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache) -> None:
    """`status` asks the running service: failures are shown with their hints."""
    shipper_app.start()
    carbon_cache.stop(signal.SIGKILL)
    insert(mariadb, 1)
    wait_for(lambda: "failing" in shipper_app.call("status").stdout, "a failing job")
    shown = shipper_app.call("status")

    assert shown.returncode == 1
    assert "Check that carbon-cache runs" in shown.stdout
    assert f"process {shipper_app.pid}; configuration loaded " in shown.stdout
    assert shown.stdout.endswith("\nunhealthy: carbon does not answer; failing: events\n")
    assert jobs_of(shipper_app)["events"]["waiting"] != 0
    carbon_cache.start()
    wait_for(lambda: shipper_app.call("status").returncode == 0, "healthy")
    wait_for(lambda: jobs_of(shipper_app)["events"]["waiting"] == 0, "nothing waits")
    shipper_app.stop()


def test_status_of_a_refused_login(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """A login that the server rejects is a failure of the source, also if no service runs; the backlog is unknown.

    Mutants: a failure of the job alone; the backlog of the last look.
    """
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE USER guest@'127.0.0.%'")
        cursor.execute("GRANT SELECT ON app.* TO guest@'127.0.0.%'")
    insert(mariadb, 1)
    shipper_app.configure("//root@", "//guest@")
    shipper_app.start()
    wait_for(lambda: jobs_of(shipper_app)["events"]["behind"] == 0, "a first look")
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("ALTER USER guest@'127.0.0.%' IDENTIFIED BY 'changed'")
        cursor.execute("KILL USER guest")
    verdict = "unhealthy: source app rejects the login"
    wait_for(lambda: f"{verdict}; failing: events\n" in shipper_app.call("status").stdout, "its verdict")
    assert jobs_of(shipper_app)["events"]["behind"] is None
    shipper_app.stop()
    alone = shipper_app.call("status").stdout

    assert re.search("^source app .* rejects the login ", alone, re.MULTILINE)
    assert alone.endswith(f"{verdict}\n")


def test_check_after_a_new_password(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """`check` says which password it has tried, and whether the service still has the old one.

    Mutants: ask no service; no word about a file that was changed; the word also after a restart.
    """
    option_file, login = shipper_app.folder / "mysql.cnf", "[client]\nuser = guest\npassword = {}\n"
    option_file.write_text(login.format("old"))
    text = shipper_app.config.read_text().replace("//root@", "//")
    shipper_app.config.write_text(text.replace('timeout = "10s"', 'timeout = "10s"\ncredentials = "mysql.cnf"'))

    def change(password: str) -> None:
        with mariadb.connect("app") as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE OR REPLACE USER guest@'127.0.0.%' IDENTIFIED BY '{password}'")
            cursor.execute("GRANT SELECT ON app.* TO guest@'127.0.0.%'")
            if password == "new":
                cursor.execute("KILL USER guest")

    def complaints() -> list[str]:
        return [line for line in shipper_app.call("check").stdout.splitlines() if not line.startswith("✓")]

    change("old")
    shipper_app.start()
    wait_for(lambda: jobs_of(shipper_app)["events"]["behind"] == 0, "a first look")
    service = f"service (process {shipper_app.pid})"
    good = complaints()
    option_file.write_text(login.format("new"))
    tried = complaints()
    change("new")
    wait_for(lambda: "rejects the login" in shipper_app.call("status").stdout, "the end of its session")
    old = complaints()
    shipper_app.stop()
    shipper_app.start()

    assert good == complaints() == []
    changed = f"! {service}: {option_file} was changed after the service started; the service still uses the old one"
    restart = "    Restart it, so that it reads credentials again: systemctl restart shipper."
    assert tried[:2] == old[:2] == [changed, restart]
    assert tried[2].startswith("✗ source app: connect: Access denied for user 'guest'")
    assert tried[3] == f"    Tried: user guest, with the password in {option_file}."
    assert tried[5:] == [f"    The {service} is still logged in, with the password that it has read at its start."]
    assert old[2].startswith("✗ service (process ")
    assert (
        "source app rejects the login of the service, but accepts that of this command: read audit_trail: A" in old[2]
    )
    assert old[3:] == [restart]


def test_status_without_a_configuration_file(
    shipper_app: Shipper, mariadb: MariaDB, carbon_cache: CarbonCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` finds the service without its file, and tells a changed file from a rejected one; so does the page.

    Mutants: read the file first; forget the rejected reload; `healthy` before anything was seen.
    """
    (runtime := shipper_app.folder / "run").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(runtime))
    insert(mariadb, 1)
    good = shipper_app.config.read_text()
    shipper_app.start()

    def verdict() -> tuple[int, str]:
        shown = shipper_app.call("status")
        return shown.returncode, (shown.stdout.splitlines() or [shown.stderr])[-1]

    wait_for(lambda: verdict() == (0, "healthy"), "healthy")
    shipper_app.config.write_text(good + "\n[job.")
    assert verdict() == (0, "healthy; configuration changed, not reloaded")
    assert shipper_app.call("admin reload").returncode == 78
    assert verdict() == (1, "unhealthy: configuration rejected")
    assert "shipper.toml:" in shipper_app.call("status").stdout
    shipper_app.config.unlink()
    document = json.loads(shipper_app.call("status", "-o", "json").stdout)
    assert (document["rejected"]["failures"], document["is_config_changed"]) == (1, True)
    (state,) = [end for end in document["endpoints"] if end["name"] == "state"]
    assert (state["address"], state["failure"]) == (str(shipper_app.folder / "shipper.db"), None)
    shipper_app.config.write_text(good)
    assert shipper_app.call("admin reload").returncode == 0
    assert verdict() == (0, "healthy")
    assert shipper_app.stop() == 0


def test_status_beside_a_file_with_errors(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """`status` finds the service by [state] alone, and `reload` lets the service reject the file.

    Mutants: load the file first; suppress its errors if no service runs.
    """
    insert(mariadb, 1)
    good = shipper_app.config.read_text()
    shipper_app.start()
    wait_for(lambda: shipper_app.call("status").returncode == 0, "healthy")
    shipper_app.config.write_text(good.replace("every =", "evry ="))
    rejected = shipper_app.call("admin reload")
    shown = shipper_app.call("status")
    shipper_app.stop()
    alone = shipper_app.call("status")

    assert (rejected.returncode, shown.returncode, alone.returncode) == (78, 1, 78)
    assert shown.stdout.endswith("\nunhealthy: configuration rejected\n")
    assert 'no such key "evry"' in rejected.stderr
    assert 'no such key "evry"' in shown.stdout
    assert 'no such key "evry"' in alone.stderr


def test_status_of_a_page_that_does_not_listen(shipper_app: Shipper, mariadb: MariaDB) -> None:
    """Without the page monitoring gets no answer, so `status` says why, and ends once the port is free.

    Mutants: healthy without its page; unhealthy for ever.
    """
    insert(mariadb, 1)

    def verdict() -> str:
        return (shipper_app.call("status").stdout.splitlines() or [""])[-1]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        shipper_app.config.write_text(f'{shipper_app.config.read_text()}\n[status]\nlisten = "127.0.0.1:{port}"\n')
        shipper_app.start()
        wait_for(lambda: verdict() == "unhealthy: page cannot be reached", "its verdict")
        shown = shipper_app.call("status").stdout
    wait_for(lambda: verdict() == "healthy", "healthy")

    assert f"page: listen at 127.0.0.1:{port}: Address already in use" in shown
    assert "stop the process that listens there" in shown
