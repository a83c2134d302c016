"""`deploy/install` on a machine: it installs, upgrades, rejects, removes, and does nothing else."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from sqlite3 import connect

import pytest
from handbook import handbook
from harness import wait_for
from systemd.machine import CHECKOUT, WHEELS, Machine, why_not

REASON = why_not()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=f"no systemd-nspawn here: {REASON}"),
    pytest.mark.timeout(900),  # each release is installed with all dependencies
]

CONFIG = """\
[graphite]
port = 9
retentions = "1m:1d"

[source.app]
url = "sqlite:////srv/audit.db"

[job.events]
every = "1s"
start = "beginning"
table = "audit_trail"
id = "id"
name = "events.{measure}"
"""
FILE = "/etc/shipper/shipper.toml"
COMPLETION = "/usr/local/share/bash-completion/completions/shipper"
COPIES = "/var/backups/shipper"


@pytest.fixture
def machine(tmp_path: Path, built: Path, debian_release: str) -> Iterator[Machine]:
    """Boot a machine without shipper, with a database of three rows."""
    machine = Machine(tmp_path, debian_release)
    machine.check_out(built)
    machine.write("/srv/README", "the database is beside it\n")
    with connect(tmp_path / "upper/srv/audit.db") as connection:
        connection.execute("CREATE TABLE audit_trail (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO audit_trail VALUES (1), (2), (3)")
    machine.boot()
    yield machine
    machine.close()


def output(machine: Machine, command: str) -> str:
    """Return the output of a command that must succeed."""
    done = machine.run("sh", "-c", command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def release(machine: Machine) -> str:
    """Return which release is in use."""
    return output(machine, "readlink /opt/shipper/bin")


def captured(machine: Machine) -> bool:
    """Whether the running service has captured all rows."""
    return " 3 " in machine.run("shipper", "status").stdout


def test_install_upgrade_uninstall(machine: Machine) -> None:
    """The life of a machine: the operator's files are never touched, and a stopped service stays stopped."""
    install_and_check(machine)
    releases = [release(machine), upgrade_running(machine)]
    releases.append(upgrade_stopped(machine))
    go_back(machine, releases)
    refuse(machine, releases)
    uninstall(machine)
    install_again(machine)


def install_and_check(machine: Machine) -> None:
    """Install; nothing is started, and the hints of `check` lead to a running service."""
    first = machine.install()
    assert "systemctl enable --now shipper" in first.stdout, first.stderr
    assert machine.run("systemctl", "is-active", "shipper").stdout == "inactive\n"
    assert output(machine, "stat --format='%a %U' /etc/shipper/mysql.cnf") == "600 root"
    assert "valid, 1 job" in output(machine, "shipper check --offline")
    assert "complete -o nosort -F _shipper_completion shipper" in output(machine, f"cat {COMPLETION}")
    assert output(machine, "shipper admin schema | cmp - /etc/shipper/shipper.schema.json") == ""
    machine.write(FILE, CONFIG)
    output(machine, f"chmod 600 {FILE}")
    assert f"✗ {FILE}: only root can read it" in machine.run("shipper", "check").stdout
    output(machine, f"chmod 644 {FILE}")
    checked = machine.run("shipper", "check").stdout
    assert "✓ state /var/lib/shipper/shipper.db: does not exist yet" in checked
    assert "only root" not in checked
    other = machine.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "shipper", "check")
    assert "this user cannot read it" in other.stdout + other.stderr
    output(machine, "systemctl enable --now shipper")
    wait_for(lambda: captured(machine), "all rows")
    written = [line.split()[1].rstrip(",") for line in first.stdout.splitlines() if line.startswith("Written: ")]
    assert written[-2:] == ["/usr/local/lib/systemd/system/shipper.service", COMPLETION]
    assert output(machine, f"ls -d {' '.join(written)}").split() == sorted(written)
    # a new operator reads this: the three known lines of systemd and the events, without Carbon
    lines = output(machine, "journalctl --sync; journalctl --unit=shipper --output=cat").splitlines()
    odd = [line for line in lines if not line.startswith(("event=", "Starting shipper", "Started shipper"))]
    assert odd == []


def upgrade_running(machine: Machine) -> str:
    """Upgrade: all files are kept, the state is copied, and the service continues with the new release."""
    before = release(machine)
    process = output(machine, "systemctl show --property=MainPID --value shipper")
    upgraded = machine.install()
    assert upgraded.returncode == 0, upgraded.stderr
    assert "The service is restarted, and runs." in upgraded.stdout
    assert release(machine) != before
    assert output(machine, "systemctl show --property=MainPID --value shipper") != process
    assert captured(machine)
    assert output(machine, f"cat {FILE}") == CONFIG.strip()
    copy = output(machine, f"ls {COPIES}/*")
    query = (
        "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT captured FROM watermark').fetchone())"
    )
    assert output(machine, f'python3 -c "{query}" {copy}') == "3"
    assert output(machine, f"stat --format=%a {COPIES} {copy}") == "700\n600"
    return release(machine)


def upgrade_stopped(machine: Machine) -> str:
    """Upgrade a stopped service: it stays stopped."""
    output(machine, "systemctl stop shipper")
    assert "not started" in machine.install().stdout
    assert machine.run("systemctl", "is-active", "shipper").stdout == "inactive\n"
    return release(machine)


def go_back(machine: Machine, releases: Sequence[str]) -> None:
    """Go back to the previous release with the handbook's command, unless it cannot read the state."""
    back = f"cd {CHECKOUT} && {handbook('install.md', 'Upgrade and remove')[0]}"
    state = "sqlite3 /var/lib/shipper/shipper.db 'PRAGMA user_version = {}'"
    version = output(machine, state.format("").replace(" = ", ""))
    output(machine, state.format(999))
    refused = machine.run("sh", "-c", back)
    output(machine, state.format(version))
    assert refused.returncode == 1
    assert f"restore {COPIES}/before-{Path(releases[2]).parent}.db" in refused.stderr
    assert release(machine) == releases[2]
    output(machine, "systemctl start shipper")
    assert "The service is restarted, and runs." in output(machine, back)
    assert captured(machine)
    assert release(machine) == releases[1]


def refuse(machine: Machine, releases: Sequence[str]) -> None:
    """A release that rejects the configuration changes nothing, nor does one with changed wheels."""
    machine.write(FILE, CONFIG.replace("every", "evry"))
    refused = machine.install()
    assert refused.returncode == 1
    assert f"{FILE}:9: " in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert release(machine) == releases[1]
    assert output(machine, "ls /opt/shipper").split() == [*(name.partition("/")[0] for name in releases), "bin"]
    machine.write(FILE, CONFIG)
    output(machine, f"echo >>{WHEELS}/shipper-1.0.0-py3-none-any.whl")
    assert "differ from their SHA256SUMS" in machine.install().stderr
    assert release(machine) == releases[1]


def uninstall(machine: Machine) -> None:
    """Remove the program, and nothing else."""
    output(machine, f"{CHECKOUT}/deploy/install uninstall")
    assert machine.run("systemctl", "cat", "shipper").returncode != 0
    assert machine.run("sh", "-c", f"ls /opt/shipper /usr/local/bin/shipper {COMPLETION}").stdout == ""
    assert output(machine, "ls /etc/shipper /var/lib/shipper/") != ""
    assert "shipper.db" in output(machine, "ls /var/lib/shipper/")


def install_again(machine: Machine) -> None:
    """Install with a configuration that is there: the next step is its check. Mutant: ask for a new one."""
    output(machine, f"truncate --size=-1 {WHEELS}/shipper-1.0.0-py3-none-any.whl")  # as it was before `refuse`
    again = machine.install()
    assert again.returncode == 0, again.stderr
    assert f"Kept: {FILE}" in again.stdout
    assert again.stdout.endswith("  1. shipper check, until it shows no ✗\n  2. systemctl enable --now shipper\n")
    assert "shipper init" not in again.stdout
    assert "deploy/install uninstall " in output(machine, f"{CHECKOUT}/deploy/install --help")
