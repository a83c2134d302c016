"""The walk of a new operator: install, init, check, start, all that breaks, upgrade and back, uninstall.

At each step all tools say the same, and what they say is right: `check`, `status`, /readyz, the page, the metrics, the
log. After each step the sum of the series in Graphite equals the count in the table.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import wait_for
from servers import MariaDB
from systemd.machine import CHECKOUT, Machine, why_not

from shipper.demo.carbon_cache import CarbonCache

REASON = why_not()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=f"no systemd-nspawn here: {REASON}"),
    pytest.mark.timeout(1200),
]

PASSWORD = "correct-horse-battery-staple"
CONFIG, CREDENTIALS = "/etc/shipper/shipper.toml", "/etc/shipper/mysql.cnf"
STATE = "/var/lib/private/shipper"
SERIES = "audit.audit_trail.login.count"
LOOK = """\
import json, re, socket, subprocess

def page(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect("/run/shipper/status.sock")
        client.sendall(f"GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()

status = subprocess.run(["shipper", "status"], capture_output=True, text=True)
seen = {"code": status.returncode, "status": (status.stdout.strip().splitlines() or [status.stderr])[-1]}
try:
    ready, html, metrics = page("/readyz"), page("/"), page("/metrics")
    seen["ready"] = int(ready.split()[1])
    seen["page"] = re.search("<title>. (.*?) . shipper on", html)[1]
    seen["metric"] = int(re.search("^shipper_ready (.)", metrics, re.M)[1])
except (OSError, IndexError, TypeError):  # it does not run
    seen |= {"ready": 0, "page": "", "metric": 0}
print(json.dumps(seen))
"""
HEALTHY = "healthy"
REJECTED = "unhealthy: configuration rejected"


class Operator:
    """A new operator at a machine, with a database and a Carbon beside it."""

    def __init__(self, machine: Machine, mariadb: MariaDB, carbon: CarbonCache, conf: Path) -> None:
        self.machine, self.mariadb, self.carbon, self.conf = machine, mariadb, carbon, conf
        self.counted = 0
        """Rows that Graphite must have."""

    def do(self, command: str, *, given: str | None = None) -> str:
        """Run a command that must succeed."""
        done = self.machine.run("sh", "-c", command, given=given)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def ask(self, *statements: str) -> None:
        """Run statements on the database, as its administrator."""
        with self.mariadb.connect("app") as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def log_in(self) -> None:
        """Insert two rows."""
        self.ask("INSERT INTO audit_trail (created_at, action) VALUES (NOW(6), 'login'), (NOW(6), 'login')")
        self.counted += 2

    def edit(self, before: str, after: str, file: str = CONFIG) -> None:
        """Change a file."""
        text = self.do(f"cat {file}")
        assert before in text
        self.machine.write(file, text.replace(before, after), mode=0o600 if file == CREDENTIALS else 0o644)

    def check(self) -> list[str]:
        """Run `check`, and return its errors; its exit code agrees."""
        done = self.machine.run("shipper", "check", "--carbon", "/srv/carbon")
        found = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("✗", "error: "))]
        assert (done.returncode == 0) == (not found), done.stdout
        return found

    def agree(self, verdict: str) -> None:
        """Wait for a verdict of `status`; exit code, /readyz, page and metrics are the same."""
        seen: dict[str, object] = {}

        def is_said() -> bool:
            done = self.machine.run("python3", "-c", LOOK)
            seen.update(json.loads(done.stdout) if done.stdout else {"status": done.stderr})
            return seen["status"] == seen.get("page") == verdict

        wait_for(is_said, f"{verdict!r} of all, instead of {seen}")
        is_ready = verdict.startswith(HEALTHY)
        assert seen == {
            "code": 0 if is_ready else 1,
            "status": verdict,
            "page": verdict,
            "ready": 200 if is_ready else 503,
            "metric": int(is_ready),
        }

    def is_exact(self) -> bool:
        """Whether Graphite has each counted row once."""
        return sum(self.carbon.sums().get(SERIES, {}).values()) == self.counted

    def log(self) -> str:
        """Return what is new in the service's log."""
        return self.do("journalctl --sync; journalctl --unit=shipper --output=cat --cursor-file=/srv/cursor")


class Break(NamedTuple):
    """Something that breaks, what all tools say about it, and its repair."""

    harm: Callable[[Operator], object]
    verdict: str
    check: Sequence[str]
    """Beginnings of the errors of `check`."""
    log: str
    heal: Callable[[Operator], object]


def repair(operator: Operator, wrong: str, right: str) -> None:
    """Correct the configuration, and reload it."""
    operator.edit(wrong, right)
    operator.do("systemctl reload shipper")


def wrong_password(operator: Operator) -> None:
    """Start with a wrong password."""
    operator.edit(PASSWORD, "wrong", CREDENTIALS)
    operator.do("systemctl restart shipper")


def right_password(operator: Operator) -> None:
    """Start with the right one."""
    operator.edit("wrong", PASSWORD, CREDENTIALS)
    operator.do("systemctl restart shipper")


def second_instance(operator: Operator) -> None:
    """Start another one by hand, which the state does not allow."""
    second = operator.machine.run("shipper", "run")
    assert second.returncode == 1
    assert "uses it already; usually that is the service" in second.stderr


def mistake(operator: Operator, right: str, wrong: str) -> None:
    """Make a mistake in the configuration, and reload it, which systemctl reports."""
    operator.edit(right, wrong)
    assert operator.machine.run("systemctl", "reload", "shipper").returncode != 0


def stop_carbon(operator: Operator) -> None:
    """Stop Carbon, and give it something to receive."""
    operator.carbon.stop()
    operator.log_in()


def restart_database(operator: Operator) -> None:
    """Stop the database, and start it again."""
    operator.mariadb.stop()
    operator.mariadb.start()


def fill(operator: Operator) -> None:
    """Fill the disk of the state, and give it something to store."""
    operator.machine.run("dd", "if=/dev/zero", f"of={STATE}/filler", "bs=4k")
    operator.log_in()


BREAKS = {
    "wrong password": Break(
        wrong_password,
        "unhealthy: source app rejects the login; failing: audit_trail",
        ["✗ source app: connect: Access denied for user 'shipper'"],
        "event=observation.failed source=app table=audit_trail",
        right_password,
    ),
    "wrong table": Break(
        lambda operator: mistake(operator, '"audit_trail"', '"audit_trial"'),
        REJECTED,
        ["✗ job audit_trail: start job audit_trail: it counted audit_trail.id", "✗ table audit_trial of app: "],
        "event=config.rejected",
        lambda operator: repair(operator, '"audit_trial"', '"audit_trail"'),
    ),
    "typo": Break(
        lambda operator: mistake(operator, "every =", "evry ="),
        REJECTED,
        [f'error: {CONFIG}:22: no such key "evry"'],
        f'event=config.rejected error="{CONFIG}:22: no such key',
        lambda operator: repair(operator, "evry =", "every ="),
    ),
    "changed, not loaded": Break(
        lambda operator: operator.edit('bucket = "1m"', 'bucket = "1m" '),
        "healthy; configuration changed, not reloaded",
        [],
        "",
        lambda operator: repair(operator, 'bucket = "1m" ', 'bucket = "1m"'),
    ),
    "carbon stopped": Break(
        stop_carbon,
        "unhealthy: carbon does not answer; failing: audit_trail",
        ["✗ carbon: deliver to 127.0.0.1:"],
        "event=delivery.failed",
        lambda operator: operator.carbon.start(),
    ),
    "database stopped": Break(
        lambda operator: operator.mariadb.stop(),
        "unhealthy: source app does not answer; failing: audit_trail",
        ["✗ source app: connect: Can't connect to MySQL server"],
        "event=observation.failed source=app table=audit_trail",
        lambda operator: operator.mariadb.start(),
    ),
    "database restarted": Break(restart_database, HEALTHY, [], "", lambda _: None),
    "kill -9": Break(
        lambda operator: operator.do("systemctl kill --signal=KILL shipper"),
        HEALTHY,
        [],
        "Main process exited, code=killed, status=9/KILL",
        lambda _: None,
    ),
    "disk full": Break(
        fill,
        "unhealthy: state cannot be used; failing: audit_trail",
        ["✗ state /var/lib/shipper/shipper.db: its disk cannot be written: No space left on device"],
        "database or disk is full",
        lambda operator: operator.do(f"rm {STATE}/filler"),
    ),
    "second instance": Break(second_instance, HEALTHY, [], "", lambda _: None),
    "purge": Break(
        lambda operator: operator.ask("DELETE FROM audit_trail ORDER BY id LIMIT 3"), HEALTHY, [], "", lambda _: None
    ),
    "truncate": Break(
        lambda operator: operator.ask("TRUNCATE audit_trail"),
        "unhealthy: held: audit_trail",
        ["✗ job audit_trail: it is held, because its table was reset"],
        "its largest id fell to 0",
        lambda operator: operator.do("shipper reset audit_trail --emptied --yes"),
    ),
}


@pytest.fixture
def operator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Operator]:
    """Boot a machine without shipper; a database with an old row; a Carbon that was not started yet."""
    if request.config.getoption("--debian") is None:
        pytest.skip("it takes minutes: pytest tests/systemd --debian RELEASE")
    built: Path = request.getfixturevalue("built")
    mariadb = MariaDB(tmp_path / "mariadb")
    mariadb.make_database("app")
    carbon = CarbonCache(tmp_path / "carbon", retentions="1m:1d")
    (folder := tmp_path / "machine").mkdir()
    machine = Machine(folder, request.getfixturevalue("debian_release"))
    machine.check_out(built)
    machine.boot()
    operator = Operator(machine, mariadb, carbon, tmp_path / "carbon/conf")
    operator.ask("INSERT INTO audit_trail (created_at, action) VALUES (NOW() - INTERVAL 1 DAY, 'login')")
    yield operator
    machine.close()
    carbon.close()
    mariadb.stop()


def test_walk(operator: Operator) -> None:
    """All tools are right at each step, and no row is lost or doubled."""
    install(operator)
    answer(operator)
    start(operator)
    for name, one in BREAKS.items():
        survive(operator, name, one)
    upgrade_and_back(operator)
    uninstall(operator)


def install(operator: Operator) -> None:
    """Install; on a disk that can be filled."""
    done = operator.machine.install()
    assert done.returncode == 0, done.stderr
    operator.do(f"mount -t tmpfs -o size=2M,mode=700 tmpfs {STATE}")


def answer(operator: Operator) -> None:
    """Create the user, answer the questions of `init`, and do what it prints; `check` has nothing to say then."""
    account = "shipper@'127.0.0.%'"
    operator.ask(f"CREATE OR REPLACE USER {account} IDENTIFIED BY '{PASSWORD}'")
    operator.ask(f"GRANT SELECT ON app.audit_trail TO {account}")
    url = f"mysql+pymysql://127.0.0.1:{operator.mariadb.port}/app"
    carbon = f"127.0.0.1:{operator.carbon.port}"
    answers = ["y", url, "shipper", PASSWORD, "", "", "created_at", "action", "", carbon, "", ""]
    told = operator.do("shipper init", given="".join(f"{one}\n" for one in answers))
    operator.ask(*re.findall(r"(?:REVOKE|GRANT) .*(?=;)", told))
    for stanzas in re.split(r"^# (?=[a-z-]+\.conf)", operator.do("shipper admin carbon-conf"), flags=re.MULTILINE)[1:]:
        name, _, text = stanzas.partition("\n")
        file = operator.conf / name.partition(",")[0]
        file.write_text(file.read_text() if file.name == "carbon.conf" else text)  # which has that line already
        operator.machine.write(f"/srv/carbon/{file.name}", file.read_text())
    operator.carbon.start()

    operator.edit('every = "1m"', 'every = "1s"')
    assert operator.check() == []


def start(operator: Operator) -> None:
    """Start; nothing in the log frightens, and the first rows arrive."""
    operator.do("systemctl enable --now shipper")
    operator.agree(HEALTHY)
    lines = operator.log().splitlines()
    odd = [
        line for line in lines if not line.startswith(("event=", "Starting shipper", "Started shipper", "-- cursor"))
    ]
    assert odd == []
    assert not re.search(r"event=\w+\.(failed|rejected)", "\n".join(lines))
    operator.log_in()
    wait_for(operator.is_exact, "the first rows")


def survive(operator: Operator, name: str, one: Break) -> None:
    """Break something, look at it with all tools, repair it, and go on."""
    one.harm(operator)
    operator.agree(one.verdict)
    found = operator.check()
    assert len(found) == len(one.check), (name, found)
    assert all(line.startswith(start) for line, start in zip(found, one.check, strict=True)), (name, found)
    assert one.log in operator.log(), name

    one.heal(operator)
    operator.log_in()
    operator.agree(HEALTHY)
    wait_for(operator.is_exact, f"all rows after: {name}")
    assert operator.check() == [], name
    assert "Traceback" not in operator.log(), name


def upgrade_and_back(operator: Operator) -> None:
    """Upgrade, and go back: each time the service continues."""
    for command in (f"{CHECKOUT}/deploy/install --wheels /srv/wheels", f"{CHECKOUT}/deploy/install back"):
        assert "The service is restarted, and runs." in operator.do(command)
        operator.log_in()
        operator.agree(HEALTHY)
        wait_for(operator.is_exact, f"all rows after {command}")


def uninstall(operator: Operator) -> None:
    """Remove the program; what is left is what it names, and its commands remove that."""
    said = operator.do(f"{CHECKOUT}/deploy/install uninstall")
    assert operator.machine.run("sh", "-c", "command -v shipper; systemctl cat shipper").returncode != 0
    assert "shipper.db" in operator.do("ls /var/lib/shipper/")
    operator.do(f"umount {STATE}; " + "; ".join(re.findall("^  (rm .*)", said, re.MULTILINE)))
    left = "find / -xdev -name '*shipper*' -not -path '/srv/*' -not -path '/proc/*' -not -path '/run/*'"
    assert operator.do(left).split() == []
