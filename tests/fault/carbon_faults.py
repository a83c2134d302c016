"""Carbon: down, frozen, ended within a batch, killed before it writes, full; broken connections; two relays."""

import random
import signal
import time
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from fault.naive import Naive
from fault.proxy import Mode, Proxy
from fault.running import fault
from fault.score import Score
from fault.stage import CARBON_DIES, Stage
from harness import EVENTS
from relays import CarbonRelay
from servers import sequence

RETURN_SECONDS = 20.0  # the first delivery follows Carbon's return within 5 s, if the machine has nothing else to do
OUTAGES_SECONDS = (1.0, 14.0)  # until the delays between attempts have grown to their longest
KILLS = 8
WIDE_SERIES = 2000  # fewer than [graphite] batch
WIDE: dict[str, Any] = {
    "jobs": EVENTS + "zeros = false\n",
    "step": 60,
    "retentions": "1m:1d",
    "replay": CARBON_DIES,
}
"""Many series, which make one large batch."""
WIDEN = f"""
    INSERT INTO audit_trail (created_at, action, outcome)
    SELECT UTC_TIMESTAMP(6), CONCAT('action', seq), 'success' FROM {sequence(WIDE_SERIES)}"""


@fault(replay=CARBON_DIES)
def carbon_down(stage: Stage) -> list[Score]:
    """Stop Carbon for some seconds; its cache is lost. Mutant: no totals while Carbon is down."""
    stage.app.start()
    stage.write()
    for _ in range(2):
        stage.wait("delivery.finished")
        with stage.until("delivery.failed"):
            stage.carbon.stop()
        time.sleep(3)
        with stage.until("delivery.recovered"):
            stage.carbon.start()
    return [stage.finish("Carbon: down", 2)]


@fault()
def carbon_frozen(stage: Stage) -> list[Score]:
    """Freeze Carbon, which then reads abandoned batches late, after newer totals. Mutant: believe a timeout."""
    stage.app.start()
    stage.write()
    for _ in range(3):
        stage.wait("delivery.finished")
        with stage.until("delivery.failed"):
            stage.carbon.send_signal(signal.SIGSTOP)
        time.sleep(2)  # newer totals time out as well
        with stage.until("delivery.recovered"):
            stage.carbon.send_signal(signal.SIGCONT)
    return [stage.finish("Carbon: frozen, woken", 3)]


@fault(**WIDE)
def carbon_ended_amid_batch(stage: Stage) -> list[Score]:
    """End Carbon within batches: it closes in order and stores nothing. Mutant: believe the confirmation."""
    dice = random.Random(3)
    stage.app.start()
    for _ in range(4):
        captures = stage.app.events().count("capture.finished")
        _widen(stage)
        deadline = time.monotonic() + 20
        while stage.app.events().count("capture.finished") == captures and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.3))
        stage.carbon.stop(signal.SIGTERM)
        stage.carbon.start()
    return [stage.finish("Carbon: SIGTERM amid batches", 4)]


@fault(replay='["3s", "6s", "9s"]')
def carbon_killed_before_it_writes(stage: Stage) -> list[Score]:
    """Kill Carbon every 2 s, before it has written what it confirmed. Mutant: replay once, after a moment."""
    dice = random.Random(4)
    with closing(Naive(stage.connect, stage.carbon.port)):
        stage.app.start()
        stage.write()
        for _ in range(KILLS):
            time.sleep(dice.uniform(1.5, 2.5))  # not in step with Carbon, which writes every second
            stage.carbon.stop(signal.SIGKILL)
            stage.carbon.start()
        stage.still()
    score = stage.finish("Carbon: kill -9 every 2 s", KILLS)
    return [score, stage.naive("naive loop: Carbon kill -9 every 2 s", KILLS)]


def connections_broken(mode: Mode, stage: Stage) -> list[Score]:
    """Break shipper's connections to Carbon. Mutant: believe a reset."""
    with closing(Proxy(stage.carbon.port)) as proxy:
        stage.app.configure(f"port = {stage.carbon.port}\n", f"port = {proxy.port}\n")
        stage.app.start()
        stage.write()
        for _ in range(2):
            stage.wait("delivery.finished")
            with stage.until("delivery.failed"):
                proxy.become(mode)
            time.sleep(3)  # all replays of believed totals fall in here
            with stage.until("delivery.recovered"):
                proxy.become(Mode.PASS)
        return [stage.finish(f"Carbon: connections, {mode.value}", 2)]


for _mode in (Mode.RESET, Mode.HALF_READ, Mode.BLACKHOLE):
    fault(name=f"carbon_{_mode.value}")(partial(connections_broken, _mode))


@fault()
def carbon_refuses(stage: Stage) -> list[Score]:
    """Refuse connections for long; the first delivery soon follows the port's return. Mutant: back off to 60 s."""
    longest = 0.0
    with closing(Proxy(stage.carbon.port)) as proxy:
        stage.app.configure(f"port = {stage.carbon.port}\n", f"port = {proxy.port}\n")
        stage.app.start()
        stage.write()
        for seconds in OUTAGES_SECONDS:
            stage.wait("delivery.finished")
            with stage.until("delivery.failed"):
                proxy.become(Mode.REFUSE)
            time.sleep(seconds)
            since = time.monotonic()
            with stage.until("delivery.recovered"):
                proxy.become(Mode.PASS)
            longest = max(longest, time.monotonic() - since)
        note = f"first delivery after {longest:.1f} s at most"
        score = stage.finish("Carbon: refuses for up to 14 s", len(OUTAGES_SECONDS), note)
    assert longest < RETURN_SECONDS
    return [score]


@fault(**WIDE)
def carbon_full(stage: Stage) -> list[Score]:
    """Let Carbon drop datapoints when its cache is full, until it is restarted. Mutant: believe the confirmation."""
    conf = stage.app.folder / "carbon/conf/carbon.conf"
    ample = conf.read_text()
    stage.app.start()
    for _ in range(2):
        stage.carbon.stop()
        conf.write_text(ample.replace("MAX_CACHE_SIZE = inf", "MAX_CACHE_SIZE = 50"))
        stage.carbon.start()
        with stage.until("delivery.finished"):
            _widen(stage)
        stage.carbon.stop()
        conf.write_text(ample)
        stage.carbon.start()
    return [stage.finish("Carbon: full cache, until a restart", 2)]


@fault()
def relays_killed_and_frozen(stage: Stage) -> list[Score]:
    """Kill the relay in use, and freeze the other until its replays are over: it reads old values after newer ones.

    Mutant: prove values while a relay hangs.
    """
    with ExitStack() as stack:
        relays = [CarbonRelay(stage.app.folder / name, destination=stage.carbon.port) for name in ("a", "b")]
        for relay in relays:
            stack.enter_context(closing(relay)).start()
        hosts = ", ".join(f'"127.0.0.1:{relay.port}"' for relay in relays)
        stage.app.configure(f"port = {stage.carbon.port}\n", f"hosts = [{hosts}]\n")
        stage.app.start()
        stage.write(longest=3)  # totals grow after they were sent
        for _ in range(2):
            stage.wait("delivery.finished")
            with stage.until("carbon.switched"):
                relays[0].stop(signal.SIGKILL)
            relays[0].start()
            stage.wait("delivery.finished")
            with stage.until("carbon.switched"):
                relays[1].send_signal(signal.SIGSTOP)
            time.sleep(8)
            relays[1].send_signal(signal.SIGCONT)
        return [stage.finish("Relays: kill -9; frozen, woken", 4)]


def _widen(stage: Stage) -> None:
    """Insert a row for each of many series."""
    with closing(stage.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(WIDEN)
