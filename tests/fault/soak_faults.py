"""All faults at random, several at once, for as long as `--soak` says."""

import random
import signal
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

from fault.process_faults import LATE_SECONDS, SETTLE_LATE
from fault.proxy import Mode, Proxy
from fault.running import fault
from fault.score import Score
from fault.stage import Stage

SHORT_SECONDS = 20.0  # without --soak
LONGEST_SECONDS = 4.0  # of one fault
BROKEN = (Mode.REFUSE, Mode.RESET, Mode.HALF_READ, Mode.BLACKHOLE)


@fault(settle=SETTLE_LATE, replay='["3s", "6s", "9s"]', has_own_mariadb=True)
def all_at_random(stage: Stage) -> list[Score]:
    """Do anything at any time. Mutant: any of the others."""
    dice, struck = random.Random(), 0
    with closing(Proxy(stage.carbon.port)) as carbon, closing(Proxy(stage.mariadb.port)) as mariadb:
        stage.configure(f"port = {stage.carbon.port}\n", f"port = {carbon.port}\n")
        stage.configure(f"127.0.0.1:{stage.mariadb.port}/", f"127.0.0.1:{mariadb.port}/")
        stage.configure('timeout = "10s"', 'timeout = "2s"')
        faults = _faults(stage, dice)
        faults += [partial(_break, carbon, dice), partial(_break, mariadb, dice)]
        stage.app.start()
        stage.write(longest=LATE_SECONDS)
        until = time.monotonic() + (stage.soak_seconds or SHORT_SECONDS)
        while time.monotonic() < until:
            dice.choice(faults)()
            struck += 1
            time.sleep(dice.uniform(0, 2))
        return [stage.finish("all at random", struck)]


def _faults(stage: Stage, dice: random.Random) -> list[Callable[[], None]]:
    def restart_shipper() -> None:
        stage.app.stop(dice.choice([signal.SIGKILL, signal.SIGTERM]))
        _pause(dice)
        stage.app.start()

    def restart_carbon() -> None:
        stage.carbon.stop(dice.choice([signal.SIGKILL, signal.SIGTERM]))
        _pause(dice)
        stage.carbon.start()

    def freeze_carbon() -> None:
        stage.carbon.send_signal(signal.SIGSTOP)
        _pause(dice)
        stage.carbon.send_signal(signal.SIGCONT)

    def restart_mariadb() -> None:
        stage.mariadb.stop(dice.choice([signal.SIGKILL, signal.SIGTERM]))
        _pause(dice)
        stage.mariadb.start()

    return [restart_shipper, restart_carbon, freeze_carbon, restart_mariadb]


def _break(proxy: Proxy, dice: random.Random) -> None:
    proxy.become(dice.choice(BROKEN))
    _pause(dice)
    proxy.become(Mode.PASS)


def _pause(dice: random.Random) -> None:
    time.sleep(dice.uniform(0, LONGEST_SECONDS))
