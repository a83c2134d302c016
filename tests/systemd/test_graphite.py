"""Graphite on Debian: the handbook's commands, on a booted machine that has a network."""

import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest
from handbook import handbook
from harness import Shipper
from servers import SCHEMAS
from systemd.machine import Machine, why_not

REASON = why_not()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=f"no systemd-nspawn here: {REASON}"),
    pytest.mark.timeout(1200),
]

RELEASE = "bookworm"
PORTS = (80, 2003, 2004, 7002)
"""Those of Debian's Carbon and Apache; the machine shares them with the host."""


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """Boot a machine that can reach Debian's servers."""
    if request.config.getoption("--debian") != RELEASE:
        pytest.skip(f"it takes minutes: pytest tests/systemd --debian {RELEASE}")
    for port in PORTS:
        with closing(socket.socket()) as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"port {port} is in use")
    (folder := tmp_path / "machine").mkdir()
    machine = Machine(folder, RELEASE)
    machine.write("/etc/resolv.conf", Path("/etc/resolv.conf").read_text())
    machine.boot()
    yield machine
    machine.close()


def test_handbook(machine: Machine, tmp_path: Path) -> None:
    """The commands give a Carbon and a graphite-web which `check` accepts, once the stanzas are written.

    Mutants: leave out the line of envvars (graphite-web answers 500), the migration, or the new file of aggregations.
    """
    (commands,) = handbook("install.md", "Graphite on Debian")
    done = machine.run("bash", "-c", commands)
    assert done.returncode == 0, done.stdout + done.stderr
    with closing(connect(tmp_path / "app.db")) as connection:
        connection.execute(SCHEMAS["sqlite"])
    app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=2003)
    app.config.write_text(app.config.read_text().replace("port = 2003", 'port = 2003\nrender_url = "http://127.0.0.1"'))
    etc = tmp_path / "machine/upper/etc/carbon"
    before = app.call("check", "--carbon", str(etc))
    _, *parts = re.split(r"^# ([a-z-]+\.conf), .*\n", app.call("admin carbon-conf").stdout, flags=re.MULTILINE)
    for name, text in zip(parts[:4:2], parts[1:4:2], strict=True):
        old = machine.run("cat", f"/etc/carbon/{name}").stdout
        machine.write(f"/etc/carbon/{name}", text + old)
    assert machine.run("systemctl", "restart", "carbon-cache").returncode == 0
    after = app.call("check", "--canary", "--carbon", str(etc))

    assert [line.partition(": ")[0] for line in before.stdout.splitlines() if line.startswith("✗")] == [
        f"✗ carbon {etc}/storage-schemas.conf",
        f"✗ carbon {etc}/storage-aggregation.conf",
    ]
    assert after.returncode == 0, after.stdout + after.stderr
