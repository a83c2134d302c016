"""Two booted machines with one state: the handbook's page as it is printed, with a machine that loses its power.

MariaDB, PostgreSQL and Carbon are on the host. After each step the sum of the series in Graphite equals the number of
rows in the table.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from handbook import FOLDER, handbook
from harness import wait_for
from servers import MariaDB, PostgreSQL
from systemd.machine import CHECKOUT, Machine, why_not
from systemd.test_walk import CONFIG, PASSWORD, Operator, answer

from shipper.demo.carbon_cache import CarbonCache

REASON = why_not()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=f"no systemd-nspawn here: {REASON}"),
    pytest.mark.timeout(1800),
]

PAGE = "two-machines.md"
TOML = re.search(r"^ *```toml\n(.*?)^ *```$", (FOLDER / PAGE).read_text(), re.DOTALL | re.MULTILINE)
SCP = """\
#!/bin/sh
# scp -pr root@web1:/PATH DIRECTORY
exec cp -a "/srv/web1${2#root@web1:}" "$3"
"""
"""Stands for scp: what web1 has is there."""
TRUST = "host all root 127.0.0.1/32 trust\nlocal all root trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


class Pair:
    """Operators of two machines, with what both reach."""

    def __init__(self, first: Operator, second: Operator, postgresql: PostgreSQL) -> None:
        self.first, self.second, self.postgresql = first, second, postgresql

    def log_in(self) -> None:
        """Insert two rows, of which both operators know."""
        self.first.log_in()
        self.second.counted = self.first.counted

    def is_led_by(self, leader: Operator) -> None:
        """Wait until a machine leads and the other stands by, and all rows are in Graphite, once."""
        other = self.second if leader is self.first else self.first
        self.log_in()
        leader.agree("healthy")
        host = leader.do("hostname").strip()
        wait_for(lambda: verdict(other).startswith(f"stands by; {host} leads since "), "the other stands by")
        assert other.machine.run("shipper", "status").returncode == 0
        wait_for(leader.is_exact, "all rows")


def verdict(operator: Operator) -> str:
    """Return the last line of `status`."""
    return (operator.machine.run("shipper", "status").stdout.strip().splitlines() or [""])[-1]


def follow(operator: Operator, block: str, *, given: str | None = None) -> None:
    """Run a block of the page, line by line; `status` is repeated until its exit code is 0."""
    for line in block.splitlines():
        if line.strip() == "shipper status":
            wait_for(lambda: operator.machine.run("shipper", "status").returncode == 0, "status")
        else:
            operator.do(line, given=given)


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Boot two machines without shipper; a database with an old row, a PostgreSQL, a Carbon that was not started."""
    if request.config.getoption("--debian") is None:
        pytest.skip("it takes minutes: pytest tests/systemd --debian RELEASE")
    built: Path = request.getfixturevalue("built")
    mariadb = MariaDB(tmp_path / "mariadb")
    with ExitStack() as stack:
        stack.callback(mariadb.stop)
        mariadb.make_database("app")
        postgresql = stack.enter_context(closing(PostgreSQL()))
        carbon = stack.enter_context(closing(CarbonCache(tmp_path / "carbon", retentions="1m:1d")))
        operators = []
        for host in ("web1", "web2"):
            (folder := tmp_path / host).mkdir()
            machine = stack.enter_context(
                closing(Machine(folder, request.getfixturevalue("debian_release"), host=host))
            )
            machine.check_out(built)
            machine.write("/usr/local/bin/scp", SCP, mode=0o755)
            machine.boot()
            operators.append(Operator(machine, mariadb, carbon, tmp_path / "carbon/conf"))
        operators[0].ask("INSERT INTO audit_trail (created_at, action) VALUES (NOW() - INTERVAL 1 DAY, 'login')")
        yield Pair(operators[0], operators[1], postgresql)


def test_two_machines(pair: Pair) -> None:
    """The page's walk: set up, stop, no power, upgrade, and the state moved to a file and back."""
    make_database(pair)
    set_up(pair)
    stop_and_start(pair)
    lose_power(pair)
    upgrade(pair)
    move_back_and_forth(pair)


def make_database(pair: Pair) -> None:
    """Run the statements of the page; the role needs its password from now on."""
    (statements,) = handbook(PAGE, "Requirements")
    with pair.postgresql.connect("postgres") as session:
        ((file,),) = session.execute("SHOW hba_file").fetchall()
        for statement in statements.replace("'...'", f"'{PASSWORD}'").split(";"):
            if statement.strip():
                session.execute(statement.strip().encode())
        Path(file).write_text(TRUST)
        session.execute("SELECT pg_reload_conf()")


def set_up(pair: Pair) -> None:
    """Install both machines, as the page says."""
    password, drop_in, check_first, copy, check_second, _, _ = handbook(PAGE, "Set-up")
    first, second = pair.first, pair.second
    assert first.machine.install().returncode == 0
    answer(first)
    assert TOML is not None
    state = TOML[1].replace("db1.internal,db2.internal", f"127.0.0.1:{pair.postgresql.port}")
    assert state != TOML[1]
    first.edit("[state]\n", state)
    follow(first, password, given=f"{PASSWORD}\n")
    follow(first, drop_in)
    follow(first, check_first)
    pair.log_in()
    wait_for(first.is_exact, "the first rows")

    assert second.machine.install().returncode == 0
    files = first.do("tar -C / -c etc/shipper etc/systemd/system/shipper.service.d | base64")
    second.do("mkdir /srv/web1 && base64 -d | tar -C /srv/web1 -x", given=files)
    follow(second, copy)
    follow(second, check_second)
    pair.is_led_by(first)


def stop_and_start(pair: Pair) -> None:
    """Stop the leader and start it again; the other leads from then on."""
    *_, stop, start = handbook(PAGE, "Set-up")
    follow(pair.first, stop)
    pair.log_in()
    pair.second.agree("healthy")
    wait_for(pair.second.is_exact, "rows after a stop")
    follow(pair.first, start)
    pair.is_led_by(pair.second)


def lose_power(pair: Pair) -> None:
    """Take the power of the leader, and give it back: each time no row is lost or doubled."""
    pair.log_in()
    pair.second.machine.hang()
    pair.log_in()
    pair.first.agree("healthy")
    pair.second.machine.cut_power()
    pair.log_in()
    wait_for(pair.first.is_exact, "rows without the other machine")
    pair.second.machine.boot()
    pair.is_led_by(pair.first)


def upgrade(pair: Pair) -> None:
    """Upgrade the one that stands by, then the leader."""
    for operator, leader in ((pair.second, pair.first), (pair.first, pair.second)):
        said = operator.do(f"{CHECKOUT}/deploy/install --wheels /srv/wheels")
        assert "The service is restarted, and runs." in said
        pair.is_led_by(leader)


def move_back_and_forth(pair: Pair) -> None:
    """Move the state to a file on the leader, and into the database again."""
    stop, into_database, start, stop_both, into_file, start_alone = handbook(PAGE, "Move an existing state")
    follow(pair.first, stop_both)
    follow(pair.second, stop_both)
    follow(pair.second, into_file.replace("--to path", "--to path --yes"))
    text = pair.second.do(f"cat {CONFIG}")
    pair.second.machine.write(
        CONFIG, re.sub(r"^ *(database|user|password) = .*\n", "", text, count=3, flags=re.MULTILINE)
    )
    follow(pair.second, start_alone)
    pair.log_in()
    pair.second.agree("healthy")
    wait_for(pair.second.is_exact, "rows with a file")

    pair.second.machine.write(CONFIG, text)
    follow(pair.second, stop)
    follow(pair.second, into_database.replace("--to database", "--to database --yes"))
    follow(pair.second, start)
    follow(pair.first, start)
    pair.is_led_by(pair.second)
