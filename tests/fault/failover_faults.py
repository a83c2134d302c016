"""The PostgreSQL of two machines: it ends, hangs, is cut off from its stand-by, or is replaced by it."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial

from fault.lease_faults import LEASE_SECONDS, states_of, two_machines
from fault.pair import EX_TEMPFAIL, Machine, Pair
from fault.process_faults import kill_at_lines
from fault.proxy import Mode, Proxy
from fault.running import fault
from fault.score import Score
from fault.stage import CARBON_DIES, Stage
from harness import wait_for
from servers import PostgreSQL, Replica

SHARE = 6
"""One of so many lines is killed at, unless there is time for all."""


@fault(has_lease=True, is_long=True, in_memory=True)
def killed_at_every_line_with_a_database(stage: Stage) -> list[Score]:
    """Kill the leader at every line that keeps the state in PostgreSQL. Mutant: forget deleted rows."""
    every = () if stage.soak_seconds else (SHARE,)
    with closing(PostgreSQL()) as server, two_machines(stage, server) as pair:
        report = kill_at_lines(stage, pair.machines[0].config, *every)
        pair.start()
        note = f"{report['lines']} lines of code, {report['survived']} not run again"
        return [stage.finish("leader: kill -9 at every line", report["kills"], note)]


@fault(has_lease=True, replay=CARBON_DIES)
def state_server_ends(stage: Stage) -> list[Score]:
    """End PostgreSQL, in order and at once, and stop it for longer than the lease. Mutant: keep the lease."""
    with closing(PostgreSQL()) as server, two_machines(stage, server) as pair:
        pair.start()
        stage.write()
        for number in (signal.SIGINT, signal.SIGQUIT):
            with _loses(pair.leader):
                server.stop(number)
            server.start()
        leader = pair.leader
        server.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            with _loses(leader):
                pass
            time.sleep(max(0.0, began + 2 * LEASE_SECONDS - time.monotonic()))
        finally:
            server.send_signal(signal.SIGCONT)
        wait_for(pair.leader.leads, "a leader")
        return [stage.finish("state's PostgreSQL: stop, immediate stop, SIGSTOP", 3)]


@contextmanager
def _loses(leader: Machine) -> Iterator[None]:
    """Do something, and wait until the leader has ended by itself."""
    before = len(leader.codes)
    yield
    wait_for(lambda: leader.codes[before:] == [EX_TEMPFAIL], "the leader ends")


@contextmanager
def replicated(stage: Stage) -> Iterator[tuple[Pair, PostgreSQL, Replica, Proxy, Proxy]]:
    """Give the stage two machines, a primary and its stand-by; and ways from the machines, and from the stand-by."""
    with ExitStack() as stack:
        primary = stack.enter_context(closing(PostgreSQL()))
        way = stack.enter_context(closing(Proxy(primary.port)))
        replication = stack.enter_context(closing(Proxy(primary.port)))
        replica = stack.enter_context(closing(Replica(primary, port=replication.port)))
        links = ({f"127.0.0.1:{primary.port}/": f"127.0.0.1:{way.port}/"},) * 2
        connect = partial(replica.connect, states_of(stage))
        pair = stack.enter_context(two_machines(stage, primary, links=links, connect=connect))
        yield pair, primary, replica, way, replication


@fault(has_lease=True, replay=CARBON_DIES)
def stand_by_promoted(stage: Stage) -> list[Score]:
    """Kill PostgreSQL, and promote its synchronous stand-by. Mutant: commit before the stand-by has it."""
    with replicated(stage) as (pair, primary, replica, way, _):
        pair.start()
        stage.write()
        stage.wait("delivery.finished")
        primary.stop(signal.SIGQUIT)
        replica.promote()
        began = time.monotonic()
        with stage.until("delivery.finished"):
            way.lead(replica.port)
        note = f"delivers {time.monotonic() - began:.1f} s after the promotion"
        return [stage.finish("state's PostgreSQL: killed, stand-by promoted", 1, note)]


@fault(has_lease=True, replay=CARBON_DIES)
def primary_isolated(stage: Stage) -> list[Score]:
    """Cut PostgreSQL off from its stand-by, which is promoted while the leader still reaches the old primary.

    Mutant: renew the lease by what was not replicated.
    """
    with replicated(stage) as (pair, primary, replica, way, replication):
        pair.start()
        stage.write()
        stage.wait("delivery.finished")
        began = time.monotonic()
        with _loses(pair.leader):
            replication.become(Mode.REFUSE)
        seconds = time.monotonic() - began
        replica.promote()
        with stage.until("delivery.finished"):
            way.lead(replica.port)
        note = f"the leader ends after {seconds:.1f} s; both primaries continue"
        score = stage.finish("state's PostgreSQL: isolated primary, stand-by promoted", 1, note)
        primary.stop(signal.SIGQUIT)  # in order it would wait for its stand-by
        return [score]
