"""Two machines with one state in PostgreSQL: how soon the other one sends, and what a tick costs more than alone."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from daemons import DUE_SHARE, paced
from ground import HERE, Ground
from measured import Measured
from processes import Service, run, told, when
from servers import PostgreSQL

LEASE_SECONDS = 10.0
ENDS = {
    "SIGTERM": (signal.SIGTERM, 2.0),
    "SIGKILL": (signal.SIGKILL, 2.0),
    "SIGSTOP": (signal.SIGSTOP, 13.0),
}
"""How the leader goes, and the most seconds until the first batch of the other one."""
LOAD_SECONDS = 6.0
MORE_CPU_MS = 0.5
ROWS = 100  # while one follows the other


def pair(ground: Ground) -> list[Measured]:
    """The leader ends in each way; a large state is loaded; many jobs a second behind a slow link."""
    with closing(PostgreSQL()) as server:
        return [*_handovers(ground, server), _load(ground, server), *_costs(ground, server)]


def _handovers(ground: Ground, server: PostgreSQL) -> Iterator[Measured]:
    totals, _ = ground.sizes.totals
    _with_totals(ground, server, totals)
    for name, (number, most) in ENDS.items():
        seconds = _seconds_until_sent(ground, number)
        what = f"{name}, {totals:,} totals: to the other's first batch"
        yield Measured(what, seconds, "target", most, "s", 1.0)


def _with_totals(ground: Ground, server: PostgreSQL, totals: int) -> None:
    """Let the state in the database have so many totals, of many minutes."""
    ground.table(totals, actions=max(totals // 1440, 1) + 1)  # in no minute twice the same
    ground.configure(state=_state(server))
    run(ground.shipper("once"))


def _state(server: PostgreSQL, port: int | None = None) -> str:
    """Return the lines of a new state in a database, which a port leads to."""
    url = server.make_database("states")
    return f'database = "{url.replace(str(server.port), str(port or server.port))}"\nlease = "{LEASE_SECONDS:g}s"'


def _seconds_until_sent(ground: Ground, number: int) -> float:
    """Return the seconds from a signal to the leader until the other machine has sent something."""
    grow = partial(ground.insert, ROWS, seconds=1)
    config = ground.folder / "shipper.toml"
    other = ground.folder / "other.toml"
    other.write_text(config.read_text().replace("/shipper.db", "/other.db"))
    commands = [ground.shipper("run"), [*ground.shipper("run")[:-1], str(other)]]
    with Service(commands[0], ground.folder / "leader.log") as leader:
        leader.until("service.started", 1)
        with Service(commands[1], ground.folder / "other.log") as follower:
            follower.until("service.standing_by", 1)
            leader.until("delivery.finished", 1, grow)
            began = time.time()
            leader.send(number)
            follower.until("delivery.finished", 1, grow)
            leader.send(signal.SIGKILL)
            return when(next(told(follower.text(), "delivery.finished"))) - began


def _load(ground: Ground, server: PostgreSQL) -> Measured:
    """A pass with nothing to do, which loads a large state."""
    _, totals = ground.sizes.totals
    _with_totals(ground, server, totals)
    found = ground.compare({"load": partial(run, ground.shipper("once"))}, rounds=ground.sizes.slowest_rounds)
    return Measured(f"once, {totals:,} totals to load", found["load"], "target", LOAD_SECONDS, "s", 1.0)


def _costs(ground: Ground, server: PostgreSQL) -> list[Measured]:
    """Many jobs every second, with the state in a database behind a slow link, and in a file."""
    jobs = ground.sizes.jobs
    alone = paced(ground, jobs)
    with _slow_link(server.port) as port:
        ours = paced(ground, jobs, state=_state(server, port))
    what = f"{jobs} jobs a second, 1 ms away"
    more = 1000 * (ours.cpu - alone.cpu)
    return [
        Measured(f"{what}: share of due ticks", ours.share, "target", DUE_SHARE, "", 1.0, more_is_better=True),
        Measured(f"{what}: more processor a tick", more, "target", MORE_CPU_MS, "ms", 1.0),
    ]


@contextmanager
def _slow_link(port: int) -> Iterator[int]:
    """Yield a port from which answers take longer."""
    command = [sys.executable, str(HERE / "slow_link.py"), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as link:
        assert link.stdout
        yield int(link.stdout.readline())
        link.communicate()
