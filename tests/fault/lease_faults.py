"""Two machines: the leader is killed, stopped for longer than its lease, or cut off; PostgreSQL dies."""

import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from fault.pair import Pair, takes_over
from fault.running import fault
from fault.score import Score
from fault.stage import CARBON_DIES, Stage
from servers import PostgreSQL

LEASE_SECONDS = 3.0
KILLS, STOPS = 4, 3


@contextmanager
def two_machines(stage: Stage) -> Iterator[Pair]:
    """Give the stage two machines, whose state is in a private PostgreSQL."""
    with closing(PostgreSQL()) as postgresql:
        postgresql.make_database("states")
        url = f"postgresql+psycopg://root@127.0.0.1:{postgresql.port}/states"
        with closing(Pair(stage.app, url, partial(postgresql.connect, "states"))) as pair:
            stage.app = pair
            yield pair


@fault(replay=CARBON_DIES)
def leader_killed(stage: Stage) -> list[Score]:
    """Kill the leader at random times; the other takes over. Mutant: push after COMMIT."""
    dice = random.Random(11)
    with two_machines(stage) as pair:
        pair.start()
        stage.write()
        seconds = []
        for _ in range(KILLS):
            leader, other = pair.leader, pair.follower
            time.sleep(dice.uniform(0.2, 3.0))
            began = time.monotonic()
            leader.stop(signal.SIGKILL)
            seconds.append(takes_over(other, since=began))
            leader.start()
        note = f"leads after {max(seconds):.1f} s at most"
        return [stage.finish("leader: kill -9", KILLS, note)]


@fault(replay=CARBON_DIES)
def leader_paused(stage: Stage) -> list[Score]:
    """Stop the leader for three leases; the other takes over. Mutant: send without a look at the lease."""
    dice = random.Random(12)
    with two_machines(stage) as pair:
        pair.start()
        stage.write()
        seconds = []
        for _ in range(STOPS):
            leader, other = pair.leader, pair.follower
            time.sleep(dice.uniform(0.2, 3.0))
            began = time.monotonic()
            leader.send(signal.SIGSTOP)
            seconds.append(takes_over(other, since=began))
            time.sleep(3 * LEASE_SECONDS - seconds[-1])
            leader.send(signal.SIGCONT)
            time.sleep(1)
        note = f"leads after {max(seconds):.1f} s at most"
        return [stage.finish("leader: SIGSTOP of 3 leases", STOPS, note)]
