"""Shipper itself: overlapping commits, kill -9, SIGTERM, a wall clock that is set."""

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from fault.naive import Naive
from fault.running import fault
from fault.score import Score
from fault.stage import CARBON_DIES, EVENTS_A_SECOND, Stage
from graphite_web import GraphiteWeb
from harness import wait_for

LATE_SECONDS = 5.0
WRITING_SECONDS = 10.0
KILLS, STOPS, RELOADS = 8, 4, 18
OPERATIONS, RESTARTED = 10, 5
RELOADED = (
    ('start = "beginning"', 'start = "beginning"\nchunk = 100'),
    ('timeout = "10s"', 'timeout = "11s"'),
    ('timeout = "2s"', 'timeout = "3s"'),
)
"""Changes of jobs, source and [graphite], applied in turn, repeatedly."""
DAY_SECONDS = 86_400
KILLER = str(Path(__file__).with_name("killer.py"))
FEWEST_LINES = 700
STEPPED = str(Path(__file__).with_name("stepped.py"))


@fault()
def overlapping_commits(stage: Stage) -> list[Score]:
    """Commit rows up to 5 s after their INSERT. Mutant: ask for no gaps."""
    naive = Naive(stage.connect, stage.carbon.port)
    with closing(naive):
        stage.app.start()
        stage.write(longest=LATE_SECONDS)
        time.sleep(WRITING_SECONDS)  # as long as the fault lasts
        stage.still()
    score = stage.finish("overlapping commits, up to 5 s", naive.polls)
    return [score, stage.naive("naive loop: overlapping commits", naive.polls)]


@fault()
def killed(stage: Stage) -> list[Score]:
    """Kill the daemon at random times. Mutant: commit the totals half a second before captured."""
    dice = random.Random(1)
    stage.write()
    for _ in range(KILLS):
        stage.app.start()
        time.sleep(dice.uniform(0.2, 4.0))
        stage.app.stop(signal.SIGKILL)
    stage.app.start()
    return [stage.finish("shipper: kill -9", KILLS)]


@fault(replay=CARBON_DIES)
def terminated(stage: Stage) -> list[Score]:
    """Stop the daemon just when Carbon has died. Mutant: believe the confirmation."""
    dice = random.Random(2)
    stage.write()
    for _ in range(STOPS):
        stage.app.start()
        stage.wait("delivery.finished")
        time.sleep(dice.uniform(0, 1))
        stage.carbon.stop(signal.SIGKILL)  # the datapoints that it has just confirmed are lost
        assert stage.app.stop() == 0
        stage.carbon.start()
    stage.app.start()
    return [stage.finish("shipper: SIGTERM, Carbon just killed", STOPS)]


@fault()
def reloaded(stage: Stage) -> list[Score]:
    """Reload again and again: other jobs, another source, another courier. Mutant: exchange what is not idle."""
    dice = random.Random(3)
    stage.app.start()
    stage.write()
    for number in range(RELOADS):
        turn, which = divmod(number, len(RELOADED))
        stage.app.configure(RELOADED[which][turn % 2], RELOADED[which][(turn + 1) % 2])
        ended = stage.app.call("admin reload")
        assert ended.returncode == 0, ended.stderr
        time.sleep(dice.uniform(0, 0.5))
    wait_for(lambda: stage.app.events().count("config.reloaded") == RELOADS, "the last reload in the log")
    return [stage.finish("shipper: reload", RELOADS)]


@fault(is_long=True, in_memory=True)
def killed_at_every_line(stage: Stage) -> list[Score]:
    """Kill shipper at every line that stores, sends or decides. Mutant: captured and totals in two transactions."""
    report = kill_at_lines(stage, stage.app.config)
    assert report["lines"] > FEWEST_LINES
    stage.app.start()
    note = f"{report['lines']} lines of code, {report['survived']} not run again"
    return [stage.finish("shipper: kill -9 at every line", report["kills"], note)]


def kill_at_lines(stage: Stage, config: Path, *every: int) -> dict[str, int]:
    """Run the killer; return its report."""
    command = [sys.executable, KILLER, str(config), str(stage.mariadb.port), stage.database, *map(str, every)]
    log = config.with_name("killer.log")
    with log.open("wb") as output:
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=output, check=False)
    assert ended.returncode == 0, log.read_text()[-4000:]
    report: dict[str, int] = json.loads(ended.stdout)
    return report


@fault(program=(STEPPED,))
def clock_stepped(stage: Stage) -> list[Score]:
    """Set the wall clock a day ahead, right, a day behind, right. Mutant: trust every clock."""
    stage.app.start()
    stage.write()
    stage.wait("delivery.finished")
    offset = stage.app.folder / "offset"
    for seconds in (DAY_SECONDS, -DAY_SECONDS):
        with stage.until("clock.failed"):
            offset.write_text(str(seconds))
        time.sleep(2)  # it continues with this clock
        with stage.until("clock.recovered"):
            offset.write_text("0")
    return [stage.finish("wall clock +1 day, -1 day", 2)]


@fault(jobs=EVENTS_A_SECOND, replay='["1s", "6s"]')
def operated(stage: Stage) -> list[Score]:
    """Let an operator recount and skip rows at random, by the service and without it; finally recount everything.

    Mutants: recount what is not captured yet; leave a capture running meanwhile.
    """
    dice, done = random.Random(4), 0
    web = GraphiteWeb(stage.app.folder, root=stage.app.folder / "carbon")
    stage.app.configure("[source.app]", f'render_url = "{web.url}"\n\n[source.app]')
    web.start()
    try:
        stage.app.start()
        stage.write()
        for number in range(OPERATIONS):
            stage.wait("capture.finished")
            start = dice.randint(4, 6 + number)
            span = ("--from", f"{start}s", "--until", f"{start - dice.randint(1, 3)}s")
            newest, fix = ("--from", f"{start}s", "--until", "now"), ("--from", "1h", "--fix")
            commands = (
                ("backfill", "events", *span),
                ("backfill", "events", *newest),
                ("admin seek", "events", "--to", "end"),
            )
            done += _operates(stage, *dice.choice((*commands, ("reconcile", "events", *fix))))
            if number % RESTARTED == 0:
                stage.app.stop()
                done += _operates(stage, *commands[0])
                stage.app.start()
        stage.still()
        with stage.until("capture.finished"):
            stage.insert(1)
        wait_for(lambda: _operates(stage, "backfill", "events", "--from", "1h", "--until", "now"), "all counted again")
        return [stage.finish("operator: backfill, seek, reconcile --fix", done)]
    finally:
        web.stop()


def _operates(stage: Stage, *command: str) -> bool:
    """Run a command; return whether it had something to do."""
    ended = stage.app.call(*command, "--yes")
    if "must first recount" in ended.stderr:  # as the previous command expects
        stage.wait("capture.finished")
        ended = stage.app.call(*command, "--yes")
    idle = "there is nothing to skip", "can be recounted"
    is_done = ended.returncode in {0, 4}  # 4: equal, but most of the hour is before the skipped rows
    assert is_done or any(words in ended.stderr for words in idle), ended.stderr
    return is_done
