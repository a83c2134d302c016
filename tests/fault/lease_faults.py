"""Two machines: the leader is killed, or stopped, at random and at each place where that could harm."""

import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fault.pair import Pair, takes_over
from fault.running import fault
from fault.score import Score
from fault.stage import CARBON_DIES, Stage
from harness import wait_for
from servers import PostgreSQL

LEASE_SECONDS = 5.0
KILLS, SOAK_KILLS = 4, 50
STOPS, SOAK_STOPS = (0.5, 3.0, 1.0), 3 * (0.5, 3.0, 10.0, 1.0)
"""Lengths of stops, in leases. After one of 1 nobody knows which machine leads, so a short one follows."""
PAUSE, SOAK_PAUSES = 2.0, (0.5, 1.0, 3.0, 10.0)
SHORT_REPLAY = '["1s"]'
"""Shorter than a pause: only `again` mends what is sent too late."""
PAUSING, NEWER = (str(Path(__file__).with_name(name)) for name in ("pausing.py", "newer.py"))


@contextmanager
def two_machines(stage: Stage, server: PostgreSQL | None = None, **options: Any) -> Iterator[Pair]:
    """Give the stage two machines, whose state is in a PostgreSQL: that of the stage, or another; options of Pair."""
    states = states_of(stage)
    server = server or stage.postgresql
    url = server.make_database(states)
    options = {"connect": partial(server.connect, states), **options}
    with closing(Pair(stage.app, url, **options)) as pair:
        stage.app = pair
        yield pair


def states_of(stage: Stage) -> str:
    """Return the name of the database that keeps a stage's state."""
    return f"{stage.database}_states"


@fault(kind="postgresql", has_lease=True, replay=CARBON_DIES)
def leader_killed(stage: Stage) -> list[Score]:
    """Kill the leader at random times; the other takes over. Mutant: push not all that has changed."""
    dice = random.Random(11)
    kills = SOAK_KILLS if stage.soak_seconds else KILLS
    with two_machines(stage) as pair:
        pair.start()
        stage.write()
        seconds = []
        for _ in range(kills):
            leader, other = pair.roles
            time.sleep(dice.uniform(0.2, 3.0))
            began = time.monotonic()
            leader.stop(signal.SIGKILL)
            seconds.append(takes_over(other, since=began))
            leader.start()
        note = f"leads after {max(seconds):.1f} s at most"
        return [stage.finish("leader: kill -9", kills, note)]


@fault(kind="postgresql", has_lease=True, replay=CARBON_DIES)
def leader_stopped(stage: Stage) -> list[Score]:
    """Stop the leader for a part of its lease or for several; after more than one the other takes over."""
    dice = random.Random(12)
    stops = SOAK_STOPS if stage.soak_seconds else STOPS
    with two_machines(stage) as pair:
        pair.start()
        stage.write()
        seconds = []
        for leases in stops:
            leader, other = pair.roles
            time.sleep(dice.uniform(0.2, 2.0))
            began = time.monotonic()
            leader.send(signal.SIGSTOP)
            if leases > 1:
                seconds.append(takes_over(other, since=began))
            time.sleep(max(0.0, began + leases * LEASE_SECONDS - time.monotonic()))
            leader.send(signal.SIGCONT)
        note = f"{', '.join(f'{one:g}' for one in stops)} leases; leads after {max(seconds):.1f} s at most"
        return [stage.finish("leader: SIGSTOP at random", len(stops), note)]


@fault(kind="postgresql", has_lease=True, replay=CARBON_DIES)
def upgraded(stage: Stage) -> list[Score]:
    """Upgrade one machine, then the other: the old program leaves what the new one wrote. Mutant: load any version."""
    with two_machines(stage) as pair:
        old, new = pair.machines
        new.program = (NEWER,)
        for machine, is_ready in ((old, old.leads), (new, new.stands_by)):
            machine.start()
            wait_for(is_ready, "the old program leads, the new one stands by")
        stage.write()
        stage.wait("delivery.finished")
        old.stop()
        wait_for(new.leads, "the new program leads")
        old.start()
        wait_for(old.stands_by, "the old program stands by")
        new.stop(signal.SIGKILL)
        wait_for(lambda: len(old.codes) > 0, "the old program ends")
        old.program = new.program
        wait_for(old.leads, "the upgraded machine leads")
        refusals = len(old.codes)
        old.codes.clear()
        new.start()
        return [stage.finish("upgrade: old and new program side by side", 1, f"refused {refusals} times")]


def stopped_at(stage: Stage, places: Sequence[str]) -> Score:
    """Stop the leader at places."""
    pauses = SOAK_PAUSES if stage.soak_seconds else (PAUSE,)
    injected = 0
    with two_machines(stage, program=(PAUSING,)) as pair:
        pair.start()
        stage.write()
        for leases in pauses:
            for place in places:
                _stop_at(pair, place, leases)
                injected += 1
        note = f"{', '.join(f'{one:g}' for one in pauses)} leases"
        score = stage.finish(f"leader: SIGSTOP at {', '.join(places)}", injected, note)
        return score._replace(note=f"{note}; {pair.events().count('delivery.again')} times sent again")


def _stop_at(pair: Pair, place: str, leases: float) -> None:
    """Stop the leader at a place for some leases; for `again`, it gets there at its next start."""
    if place == "again":  # after a late delivery
        leader = pair.pause_at("connect")
        leader.place.write_text(place)
        _continue_after(pair, 1.5)
    pair.pause_at(place, kills=place in {"take", "load"})
    _continue_after(pair, leases)


def _continue_after(pair: Pair, leases: float) -> None:
    time.sleep(leases * LEASE_SECONDS)  # as long as the fault lasts
    for machine in pair.machines:  # the other one may have reached the place at the same time
        machine.send(signal.SIGCONT)


@fault(kind="postgresql", has_lease=True, is_long=True, replay=SHORT_REPLAY)
def stopped_as_it_sends(stage: Stage) -> list[Score]:
    """Stop the leader as it sends. Mutants: send no slot again; look at no lease after a delivery."""
    return [stopped_at(stage, ("connect", "half", "confirmation"))]


@fault(kind="postgresql", has_lease=True, is_long=True, replay=SHORT_REPLAY)
def stopped_as_it_commits(stage: Stage) -> list[Score]:
    """Stop the leader just after a push, and as it is about to say what it sent late."""
    return [stopped_at(stage, ("pushed", "again"))]


@fault(kind="postgresql", has_lease=True, is_long=True, replay=SHORT_REPLAY)
def stopped_as_it_takes_over(stage: Stage) -> list[Score]:
    """Stop the leader before its look at the lease, between the lock and its first write, and inside the loading.

    Mutant: look at no lease.
    """
    return [stopped_at(stage, ("look", "take", "load"))]
