"""The shipped unit under a real systemd."""

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from handbook import handbook
from harness import wait_for
from hostile.sink import Sink
from servers import MariaDB, free_port
from systemd.machine import ROOT, Machine, why_not

from shipper.demo.carbon_cache import CarbonCache

REASON = why_not()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=f"no systemd-nspawn here: {REASON}"),
    pytest.mark.timeout(900),  # the first test waits until all is built, booted and installed
]

PASSWORD = "correct-horse-battery-staple"
CONFIG = """\
[graphite]
port = {port}
retentions = "1m:1d"

[source.app]
url = "sqlite:////srv/audit.db"

[defaults]
every = "1s"
start = "beginning"
table = "audit_trail"
id = "id"

[job.events]
time = "created_at"
name = "events.{{measure}}"
"""
LARGE = """\
[graphite]
port = {port}
prefix = "audit"
retentions = "1m:1d"

[source.app]
url = "{url}"

[job.events]
every = "1s"
start = "beginning"
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
name = "events.{{action}}.{{measure}}"
"""
FEW, ALL = 15_000, 100_000
MOST_SERIES = 10_001
"""Series of a job by default, and `_other`."""
OTHER_SOURCE = """\
[source.other]
url = "mysql+pymysql://127.0.0.1:9/app"
credentials = "other.cnf"

[defaults]
source = "other"
"""
INSERT = """
import sqlite3, sys
db = sqlite3.connect("/srv/audit.db")
db.execute("CREATE TABLE IF NOT EXISTS audit_trail (id INTEGER PRIMARY KEY, created_at TEXT)")
db.executemany("INSERT INTO audit_trail (created_at) VALUES (datetime('now'))", [()] * int(sys.argv[1]))
db.commit()
"""
BIND = "import socket; socket.create_server(('127.0.0.1', 0))"
WATERMARK = """
import sqlite3
(row,) = sqlite3.connect("file:/var/lib/shipper/shipper.db?mode=ro", uri=True).execute("SELECT value FROM watermark")
print(row[0])
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, built: Path, debian_release: str) -> Iterator[Machine]:
    """Boot a machine with shipper installed, and its credentials."""
    machine = Machine(tmp_path_factory.mktemp("machine"), debian_release)
    machine.check_out(built)
    try:
        machine.boot()
        done = machine.install()
        assert done.returncode == 0, done.stderr
        machine.run("python3", "-c", INSERT, "0")
        yield machine
    finally:
        machine.close()


@pytest.fixture
def carbon_cache(tmp_path: Path) -> Iterator[CarbonCache]:
    """Give a private carbon-cache, not started yet."""
    server = CarbonCache(tmp_path / "carbon", retentions="1m:1d")
    yield server
    server.close()


@pytest.fixture
def service(machine: Machine, carbon_cache: CarbonCache) -> Iterator[Machine]:
    """Give a machine on which the service was never started, configured for this Carbon."""
    machine.run("systemctl", "stop", "shipper")
    machine.run("systemctl", "reset-failed", "shipper")
    drop_ins = "/etc/systemd/system/shipper.service.d"
    machine.run(
        "sh", "-c", f"rm -rf /var/lib/private/shipper/* {drop_ins} /etc/credstore.encrypted /etc/shipper/other.cnf"
    )
    machine.run("systemctl", "daemon-reload")
    machine.write("/etc/shipper/mysql.cnf", f"[client]\nuser = shipper\npassword = {PASSWORD}\n", mode=0o600)
    machine.write("/etc/shipper/shipper.toml", CONFIG.format(port=carbon_cache.port))
    machine.run("rm", "/srv/audit.db")
    insert(machine, 0)
    yield machine
    machine.run("systemctl", "stop", "shipper")


def shown(machine: Machine, name: str) -> str:
    """Return a property of the unit."""
    return machine.run("systemctl", "show", "--property", name, "--value", "shipper").stdout.strip()


def journal(machine: Machine) -> str:
    """Return the service's log."""
    return machine.run("journalctl", "--unit=shipper", "--output=cat").stdout


def entered(machine: Machine, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as root, with the service's view of the files."""
    return machine.run("nsenter", f"--target={shown(machine, 'MainPID')}", "--mount", *command)


def inside(machine: Machine, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code there: nothing else can be executed."""
    return entered(machine, "/opt/shipper/bin/python", "-c", code)


def drop_in(machine: Machine, *lines: str) -> None:
    """Shorten the unit's times for this test."""
    text = "\n".join(("[Service]", *lines, ""))
    machine.write("/etc/systemd/system/shipper.service.d/quick.conf", text)
    machine.run("systemctl", "daemon-reload")


def insert(machine: Machine, rows: int) -> None:
    """Commit rows with the current time."""
    done = machine.run("python3", "-c", INSERT, str(rows))
    assert done.returncode == 0, done.stderr


def total(carbon_cache: CarbonCache) -> float:
    """Add up the series as Whisper holds it."""
    return sum(carbon_cache.sums().get("events.count", {}).values())


def watermark(machine: Machine) -> int:
    """Return the watermark of the one job."""
    return int(machine.run("python3", "-c", WATERMARK).stdout)


def test_start_and_status(service: Machine, carbon_cache: CarbonCache) -> None:
    """`systemctl start` returns when the service is ready, even with Carbon down; its status shows the failure."""
    drop_in(service, "WatchdogSec=6s")  # the service sends its status at half of it
    started = service.run("systemctl", "start", "shipper")
    assert started.returncode == 0, started.stderr + journal(service)
    assert service.run("systemctl", "is-active", "shipper").stdout == "active\n"
    wait_for(lambda: "carbon does not answer" in shown(service, "StatusText"), "what it waits for")
    insert(service, 5)

    carbon_cache.start()
    wait_for(lambda: total(carbon_cache) == 5, "all rows")
    wait_for(lambda: shown(service, "StatusText") == "1 job, healthy", "healthy")


def test_starved_watchdog(service: Machine, carbon_cache: CarbonCache) -> None:
    """A service that makes no progress is killed and started again."""
    # a stopped process does not even abort: it is killed after TimeoutAbortSec
    drop_in(service, "WatchdogSec=2s", "TimeoutAbortSec=1s", "RestartSec=1s")
    service.run("systemctl", "start", "shipper")
    first = shown(service, "MainPID")
    service.run("systemctl", "kill", "--signal=STOP", "shipper")

    wait_for(lambda: "Watchdog timeout" in journal(service), "a watchdog that bites")
    wait_for(lambda: shown(service, "MainPID") not in {first, "0"}, "another process")
    wait_for(lambda: shown(service, "ActiveState") == "active", "active again")
    assert int(shown(service, "NRestarts")) >= 1


def test_reload_good_and_broken(service: Machine, carbon_cache: CarbonCache) -> None:
    """`systemctl reload` succeeds once the new configuration runs; else it names file and line, and nothing changes."""
    carbon_cache.start()
    service.run("systemctl", "start", "shipper")
    process = shown(service, "MainPID")
    service.write("/etc/shipper/conf.d/more.toml", '[job.more]\ntime = "created_at"\nname = "more.{measure}"\n')
    good = service.run("systemctl", "reload", "shipper")
    insert(service, 2)
    wait_for(lambda: "more.count" in carbon_cache.sums(), "the new job")

    service.write("/etc/shipper/conf.d/more.toml", '[job.more]\nname = "more.{measure}"\nevery = "often"\n')
    broken = service.run("systemctl", "reload", "shipper")
    service.run("rm", "/etc/shipper/conf.d/more.toml")
    assert (good.returncode, broken.returncode) == (0, 1)
    wait_for(lambda: "/etc/shipper/conf.d/more.toml:3:" in journal(service), "the line")
    assert (shown(service, "MainPID"), shown(service, "ActiveState")) == (process, "active")


def test_broken_configuration_stays_down(service: Machine) -> None:
    """With a configuration that cannot run it exits with 78 and is not restarted."""
    service.write("/etc/shipper/shipper.toml", "[graphite]\n")
    started = service.run("systemctl", "start", "shipper")
    wait_for(lambda: shown(service, "ActiveState") == "failed", "failed")

    assert started.returncode != 0
    assert (shown(service, "ExecMainStatus"), shown(service, "NRestarts")) == ("78", "0")
    wait_for(lambda: "/etc/shipper/shipper.toml:1: " in journal(service), "the line")


def test_missing_credentials_stay_down(service: Machine) -> None:
    """Without a credential of the unit it is not restarted either; log and `check` name the file and the remedy."""
    service.run("rm", "/etc/shipper/mysql.cnf")
    service.run("systemctl", "start", "shipper")
    wait_for(lambda: shown(service, "ActiveState") == "failed", "failed")

    remedy = "`install -m 600 /dev/null /etc/shipper/mysql.cnf`"
    assert (shown(service, "ExecMainStatus"), shown(service, "NRestarts")) == ("243", "0")
    wait_for(
        lambda: "error: load credentials for the service: /etc/shipper/mysql.cnf does not" in journal(service), "it"
    )
    assert remedy in journal(service)
    checked = service.run("shipper", "check").stdout
    assert "✗ credential /etc/shipper/mysql.cnf: does not exist, so the service does not start" in checked
    service.run("sh", "-c", re.findall("`(.*)`", remedy)[0])
    assert service.run("systemctl", "start", "shipper").returncode == 0
    assert "✗ credential" not in service.run("shipper", "check").stdout


def test_credential_that_the_unit_lacks(service: Machine) -> None:
    """`check` of root can read what the service cannot, and says so; the remedy is enough."""
    secret = f"[client]\nuser = shipper\npassword = {PASSWORD}\n"
    service.write("/etc/shipper/other.cnf", secret, mode=0o600)
    service.write("/etc/shipper/shipper.toml", CONFIG.format(port=9).replace("[defaults]", OTHER_SOURCE))
    checked = service.run("shipper", "check").stdout
    started = service.run("systemctl", "start", "shipper")
    lines = re.findall("LoadCredential=.*", checked)
    drop_in(service, *lines)

    assert "✗ credential /etc/shipper/other.cnf: only root can read it, so the service cannot" in checked
    assert started.returncode != 0
    assert lines == ["LoadCredential=other.cnf:/etc/shipper/other.cnf"]
    assert service.run("systemctl", "start", "shipper").returncode == 0
    assert "✗ credential" not in service.run("shipper", "check").stdout


def test_credentials_are_nowhere_else(service: Machine) -> None:
    """The service reads its credential; no other user can, and it is in no place that others can read."""
    service.run("systemctl", "start", "shipper")
    process = shown(service, "MainPID")
    copy = "/run/credentials/shipper.service/mysql.cnf"
    reads = inside(service, f"print(open({copy!r}).read())")
    other = service.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", copy)
    places = "journalctl; systemctl show shipper; systemctl status shipper; systemctl cat shipper"
    files = f"cat /proc/{process}/environ /proc/{process}/cmdline; cat /var/lib/shipper/*; ls -R /run/shipper"

    assert PASSWORD in reads.stdout
    assert other.returncode != 0
    assert PASSWORD not in service.run("sh", "-c", f"{places}; {files}").stdout


def test_encrypted_credentials(service: Machine, carbon_cache: CarbonCache, mariadb: MariaDB) -> None:
    """The handbook's commands for encrypted credentials; then all commands read them, though the service runs or not.

    Mutants: a command does not decrypt; it does so after it has become the state's owner.
    """
    encrypt, empty = handbook("install.md", "Credentials")[1:3]
    source = f'[source.app]\nurl = "mysql+pymysql://127.0.0.1:{mariadb.port}/app"\ncredentials = "mysql.cnf"\n'
    config = CONFIG.format(port=carbon_cache.port).partition("[source.app]")
    jobs = config[2].partition("[defaults]")
    service.write("/etc/shipper/shipper.toml", "".join([config[0], source, *jobs[1:]]))
    mariadb.make_database("app")
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE OR REPLACE USER shipper@'127.0.0.%' IDENTIFIED BY '{PASSWORD}'")
        cursor.execute("GRANT SELECT ON app.* TO shipper@'127.0.0.%'")
        cursor.execute("INSERT INTO audit_trail (created_at) VALUES (NOW()), (NOW())")
    carbon_cache.start()
    service.run("systemctl", "start", "shipper")
    done = service.run("sh", "-ec", encrypt)
    assert done.returncode == 0, done.stderr
    found = service.run("sh", "-c", "grep -r correct-horse /etc")
    assert found.stdout == ""
    service.run("sh", "-ec", f"umask 022; {empty}")
    assert service.run("stat", "--format=%a %u %s", "/etc/shipper/mysql.cnf").stdout == "600 0 0\n"
    service.run("rm", "/etc/shipper/mysql.cnf")
    wait_for(lambda: total(carbon_cache) == 2, "all rows, with the credential from systemd")
    for command in ("check", "status", "preview events", "admin grants", "history events"):
        done = service.run("shipper", *command.split())
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    _change_password(service, mariadb, encrypt)
    service.run("systemctl", "stop", "shipper")
    for command in ("check", "once", "preview events", "backfill events --from 1h --yes", "reset events --restored -y"):
        done = service.run("shipper", *command.split())
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    shown_source = re.search("^source app .*", service.run("shipper", "status").stdout, re.MULTILINE)
    assert shown_source is not None
    assert "answers" in shown_source[0]
    service.write("/etc/credstore.encrypted/mysql.cnf", "of another machine")
    assert "✗ source app: decrypt /etc/credstore.encrypted/mysql.cnf: " in service.run("shipper", "check").stdout
    # systemd rejects a file that it cannot decrypt, but starts the service without one that is missing
    assert _failed_start(service) == ("243", "0")
    service.run("rm", "/etc/credstore.encrypted/mysql.cnf")
    service.run("systemctl", "reset-failed", "shipper")
    assert _failed_start(service) == ("78", "0")
    checked = service.run("shipper", "check").stdout
    assert "✗ credential /etc/credstore.encrypted/mysql.cnf: does not exist" in checked


def _change_password(service: Machine, mariadb: MariaDB, encrypt: str) -> None:
    """A plain file with the new password changes nothing, and `check` says so; the handbook's commands do."""
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("ALTER USER shipper@'127.0.0.%' IDENTIFIED BY 'new-correct-horse'")
        cursor.execute("KILL USER shipper")
    secret = "[client]\nuser = shipper\npassword = new-correct-horse\n"
    service.write("/etc/shipper/mysql.cnf", secret, mode=0o600)
    service.run("systemctl", "restart", "shipper")
    wait_for(lambda: "rejects the login" in service.run("shipper", "status").stdout, "its rejection")
    checked = service.run("shipper", "check").stdout
    done = service.run("sh", "-ec", encrypt)
    assert done.returncode == 0, done.stderr

    assert "! credential /etc/shipper/mysql.cnf: the service ignores it, and uses the encrypted " in checked
    assert "source app rejects the login of the service, but accepts that of this command: " in checked
    assert checked.count("    Encrypt /etc/shipper/mysql.cnf again: ") == 2
    assert "systemctl restart" not in checked
    wait_for(lambda: "rejects the login" not in service.run("shipper", "status").stdout, "the new password")
    assert not re.search("^[!✗]", service.run("shipper", "check").stdout, re.MULTILINE)


def _failed_start(service: Machine) -> tuple[str, str]:
    """Start the service, which fails; return its status, and how often systemd has tried again."""
    service.run("systemctl", "start", "shipper")
    wait_for(lambda: shown(service, "ActiveState") == "failed", "failed")
    return shown(service, "ExecMainStatus"), shown(service, "NRestarts")


def test_backup_and_restore(service: Machine, carbon_cache: CarbonCache) -> None:
    """The handbook's commands, as they are printed: the service continues from the copy, and all rows are counted."""
    backup, restore = handbook("install.md", "Backup and restore")
    carbon_cache.start()
    service.run("systemctl", "start", "shipper")
    insert(service, 4)
    wait_for(lambda: total(carbon_cache) == 4, "the first rows")
    saved = service.run("sh", "-ec", backup)
    assert saved.returncode == 0, saved.stderr
    insert(service, 2)
    wait_for(lambda: total(carbon_cache) == 6, "more rows")
    restored = service.run("sh", "-ec", restore)
    assert restored.returncode == 0, restored.stderr
    insert(service, 1)

    wait_for(lambda: total(carbon_cache) == 7, "all rows, once")
    wait_for(lambda: watermark(service) == 7, "their confirmation")


def test_kill_keeps_the_state(service: Machine, carbon_cache: CarbonCache) -> None:
    """After SIGKILL it is restarted, continues from its watermark, and loses and doubles nothing."""
    drop_in(service, "RestartSec=1s")
    carbon_cache.start()
    service.run("systemctl", "start", "shipper")
    insert(service, 4)
    wait_for(lambda: total(carbon_cache) == 4, "the first rows")
    wait_for(lambda: watermark(service) == 4, "their confirmation")
    service.run("systemctl", "kill", "--signal=KILL", "shipper")
    insert(service, 3)

    wait_for(lambda: total(carbon_cache) == 7, "all rows")
    wait_for(lambda: watermark(service) == 7, "their confirmation")
    assert shown(service, "NRestarts") == "1"


def test_stops_in_time(service: Machine) -> None:
    """It stops in order, though Carbon is down and totals are not delivered."""
    service.run("systemctl", "start", "shipper")
    insert(service, 4)
    wait_for(lambda: "capture.finished" in journal(service).rpartition("service.started")[2], "a capture")
    service.run("systemctl", "stop", "shipper")  # after TimeoutStopSec it would be killed

    assert (shown(service, "Result"), shown(service, "ExecMainStatus")) == ("success", "0")


def test_sandbox(service: Machine) -> None:
    """No other user may read its state; only Python runs there, not even a shell; a core would hold passwords."""
    service.run("systemctl", "start", "shipper")
    process = shown(service, "MainPID")
    service.run("sh", "-c", "printf '#!/bin/sh\\necho ran' >/var/lib/shipper/x; chmod 755 /var/lib/shipper/x")

    assert service.run("stat", "--dereference", "--format=%a", "/var/lib/shipper").stdout == "700\n"
    for program in ("/var/lib/shipper/x", "/bin/sh", "/usr/bin/env"):
        assert "ermission denied" in entered(service, program).stderr
    assert "Read-only file system" in inside(service, "open('/etc/x', 'w')").stderr
    assert set(service.run("sh", "-c", f"grep ^Cap /proc/{process}/status | cut -f2").stdout.split()) == {"0" * 16}
    assert service.run("grep", "core file size", f"/proc/{process}/limits").stdout.split()[-3:-1] == ["0", "0"]


def test_journal_stops(service: Machine, carbon_cache: CarbonCache) -> None:
    """Rows are counted and delivered while no journal runs; what was to be logged is in the next one.

    Mutant: keep the old connection, which no journal reads any more.
    """
    units = [f"systemd-journald{end}" for end in (".socket", "-dev-log.socket", "-audit.socket", ".service")]
    carbon_cache.start()
    service.run("systemctl", "start", "shipper")
    insert(service, 3)
    wait_for(lambda: total(carbon_cache) == 3, "the first rows")
    service.run("systemctl", "stop", *units)
    insert(service, 4)
    wait_for(lambda: total(carbon_cache) == 7, "rows without a journal")
    service.run("systemctl", "start", *units)
    insert(service, 5)

    wait_for(lambda: total(carbon_cache) == 12, "all rows")
    wait_for(lambda: {"captured=3", "captured=7", "captured=12"} <= {*journal(service).split()}, "all lines")
    assert shown(service, "NRestarts") == "0"


def test_ports(service: Machine) -> None:
    """The service listens at no port until a drop-in allows one, where a systemd can restrict that at all.

    Mutant: no SocketBindDeny.
    """
    port = free_port()
    service.write("/etc/shipper/shipper.toml", f'{CONFIG.format(port=9)}\n[status]\nlisten = "127.0.0.1:{port}"\n')
    service.run("systemctl", "start", "shipper")
    denied = service.run("systemd-run", "--wait", "--quiet", "--property=SocketBindDeny=any", "python3", "-c", BIND)
    if denied.returncode != 0:
        wait_for(lambda: f"127.0.0.1:{port}: Operation not permitted" in journal(service), "the denial")
        drop_in(service, f"SocketBindAllow=tcp:{port}")
        service.run("systemctl", "restart", "shipper")
    wait_for(lambda: answer(port) == b"ok\n", "the page")


def answer(port: int) -> bytes:
    """Return the answer of the page at a port; nothing if there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=20) as page:
            return bytes(page.read())
    except OSError:
        return b""


@pytest.mark.timeout(900)  # with --soak
def test_memory(service: Machine, mariadb_server: MariaDB, request: pytest.FixtureRequest) -> None:
    """Hostile values are counted below the unit's limit of memory, and no process is killed.

    Mutants: read whole values; with --soak, also read 100,000 labels at once; recount them without `_share`.
    """
    url = mariadb_server.make_database("large")
    is_long = request.config.getoption("--soak", default=0.0)
    rows = write(mariadb_server, ALL if is_long else FEW)
    with closing(Sink()) as sink:
        service.write("/etc/shipper/shipper.toml", LARGE.format(port=sink.port, url=url))
        service.run("systemctl", "start", "shipper")
        process = shown(service, "MainPID")
        wait_for(lambda: sum(sink.sums().values()) == rows, "all rows", seconds=600)

        if is_long:
            done = service.run("shipper", "backfill", "events", "--from", "2h", "--yes")
            assert done.returncode == 0, done.stderr
        assert len(sink.sums()) == MOST_SERIES
        assert (shown(service, "MainPID"), shown(service, "NRestarts")) == (process, "0")
        assert most_memory(service, process) < int(shown(service, "MemoryMax"))


def write(server: MariaDB, many: int) -> int:
    """Insert a value of 200 MB, some of 1 MB, and many of 255 characters; return the number of rows."""
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL max_allowed_packet = 1073741824")  # of later sessions
    with closing(server.connect("large")) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_trail MODIFY action LONGTEXT")
        rows = 0
        for action, number in (
            ("REPEAT('x', 200000000)", 1),
            ("CONCAT(REPEAT('x', 1000000), seq)", 20),
            ("CONCAT(REPEAT('\U0001f600', 249), LPAD(seq, 6, '0'))", many),
        ):
            sequence = f"FROM seq_1_to_{number}"
            cursor.execute(f"INSERT INTO audit_trail (created_at, action) SELECT UTC_TIMESTAMP(6), {action} {sequence}")
            rows += number
        cursor.execute("SET GLOBAL max_allowed_packet = DEFAULT")
    return rows


def most_memory(machine: Machine, process: str) -> int:
    """Return the most memory that the service has had, in bytes, as the kernel compares it with the limit."""
    peak = machine.run("cat", "/sys/fs/cgroup/system.slice/shipper.service/memory.peak").stdout
    if not peak:  # the machine's kernel counts in an older way
        peak = machine.run("sh", "-c", f"awk '/VmHWM/ {{ print $2 * 1024 }}' /proc/{process}/status").stdout
    return int(peak)


@pytest.mark.parametrize(("has_lockdown", "most"), [(False, 1.1), (True, 0.9)])
def test_exposure(has_lockdown: bool, most: float, machine: Machine) -> None:  # noqa: FBT001 - a table's column
    """The rating of the unit's exposure by systemd, also with the drop-in that lists the addresses."""
    lockdown = (ROOT / "deploy/lockdown.conf").read_text().partition("[Service]\n")[2] if has_lockdown else ""
    text = (ROOT / "deploy/shipper.service").read_text().replace("\n[Install]", f"\n{lockdown}\n[Install]")
    machine.write("/tmp/exposed/shipper.service", text)
    output = machine.run("systemd-analyze", "security", "--offline=true", "/tmp/exposed/shipper.service")
    score = re.search(r"Overall exposure level for .*: ([\d.]+)", output.stdout)

    assert score is not None, output.stderr
    assert float(score[1]) <= most


def test_unit_is_well_formed() -> None:
    """Nothing in the unit is unknown to systemd or misspelt, except for what is not installed here."""
    output = subprocess.run(
        ["systemd-analyze", "verify", str(ROOT / "deploy/shipper.service")], capture_output=True, text=True, check=False
    )

    assert [
        line for line in output.stderr.splitlines() if "shipper.service:" in line and "not executable" not in line
    ] == []
