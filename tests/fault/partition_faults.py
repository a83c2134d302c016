"""Two machines and a broken network: no way to PostgreSQL, to Carbon, or to both; or no way back."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

from fault.lease_faults import LEASE_SECONDS, PAUSING, SHORT_REPLAY, states_of, two_machines
from fault.namespaces import Namespace
from fault.pair import Pair, takes_over
from fault.proxy import Mode, Proxy
from fault.running import fault
from fault.score import Score
from fault.stage import Stage
from harness import wait_for

BOTH = ("database", "carbon")
SOME = (
    (("database",), Mode.BLACKHOLE, 2.0),
    (BOTH, Mode.BLACKHOLE, 0.5),
    (BOTH, Mode.ONE_WAY, 2.0),
    (("carbon",), Mode.ONE_WAY, 0.5),
)
"""Ways that are cut, how, and for how many leases."""
ALL = tuple(
    (ways, mode, leases)
    for ways in (("database",), ("carbon",), BOTH)
    for mode in (Mode.BLACKHOLE, Mode.ONE_WAY)
    for leases in (0.5, 2.0, 4.0)
)
DOWN_SECONDS, UP_SECONDS = 4.5, 5.0
"""A retransmission follows within twice the time that has passed."""


class Ways(NamedTuple):
    """Ways of a machine."""

    database: Proxy
    carbon: Proxy


@contextmanager
def cuttable(
    stage: Stage, hosts: tuple[str, str] = ("127.0.0.1", "127.0.0.1"), **options: Any
) -> Iterator[tuple[Pair, list[Ways]]]:
    """Give the stage two machines with separate ways to PostgreSQL and Carbon, at an address each."""
    port, states = stage.server.port, states_of(stage)
    with ExitStack() as stack:
        ways, links = [], []
        for host in hosts:
            database, carbon, source = (
                stack.enter_context(closing(Proxy(target, host=host))) for target in (port, stage.carbon.port, port)
            )
            ways.append(Ways(database, carbon))
            links.append(
                {
                    f'127.0.0.1:{port}/{states}"': f'{host}:{database.port}/{states}"\ntls = "off"',
                    f'127.0.0.1:{port}/{stage.database}"': f'{host}:{source.port}/{stage.database}"\ntls = "off"',
                    f"\nport = {stage.carbon.port}\n": f'\nhost = "{host}"\nport = {carbon.port}\n',
                }
            )
        yield stack.enter_context(two_machines(stage, links=links, **options)), ways


@fault(kind="postgresql", has_lease=True, is_long=True, replay=SHORT_REPLAY)
def leader_cut_off(stage: Stage) -> list[Score]:
    """Cut the leader off from PostgreSQL, Carbon or both, for a part of the lease or longer. Mutant: keep the lease."""
    cuts = ALL if stage.soak_seconds else SOME
    seconds = []
    with cuttable(stage) as (pair, ways):
        pair.start()
        stage.write()
        for names, mode, leases in cuts:
            leader, other = pair.roles
            chosen = [getattr(ways[pair.machines.index(leader)], name) for name in names]
            began = time.monotonic()
            for proxy in chosen:
                proxy.become(mode)
            if "database" in names and leases > 1:
                seconds.append(takes_over(other, since=began))
            time.sleep(max(0.0, began + leases * LEASE_SECONDS - time.monotonic()))
            for proxy in chosen:
                proxy.become(Mode.PASS)
        note = f"leads after {max(seconds):.1f} s at most"
        return [stage.finish("leader: cut off from PostgreSQL, Carbon, both", len(cuts), note)]


@fault(kind="postgresql", has_lease=True, replay=SHORT_REPLAY)
def leader_killed_behind_a_link(stage: Stage) -> list[Score]:
    """Take the leader's link down, kill it, and take the link up: Carbon gets nothing of what its kernel held.

    Mutant: set no TCP_USER_TIMEOUT.
    """
    with ExitStack() as stack:
        spaces = [stack.enter_context(closing(Namespace(number))) for number in (1, 2)]
        hosts = spaces[0].host, spaces[1].host
        pair, ways = stack.enter_context(cuttable(stage, hosts, program=(PAUSING,)))
        for machine, space in zip(pair.machines, spaces, strict=True):
            machine.within = space.command
        pair.start()
        stage.write()
        stage.wait("delivery.finished")
        leader = pair.pause_at("half")
        which = pair.machines.index(leader)
        other = pair.machines[1 - which]
        began = time.monotonic()
        spaces[which].set_link("down")
        leader.send(signal.SIGCONT)
        time.sleep(0.5)  # it sends the other half
        leader.stop(signal.SIGKILL)
        seconds = takes_over(other, since=began)
        time.sleep(max(0.0, began + DOWN_SECONDS - time.monotonic()))
        before = ways[which].carbon.passed
        spaces[which].set_link("up")
        time.sleep(UP_SECONDS)  # longer than its kernel waits
        late = ways[which].carbon.passed - before
        leader.start()
        wait_for(leader.stands_by, "the former leader stands by")
        assert late == 0, f"{late} bytes arrived too late"
        return [stage.finish("leader: link down, kill -9, link up", 1, f"leads after {seconds:.1f} s")]
