"""Scenarios of single passes: a process starts, does all there is to do, and ends."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import peers
from ground import Ground
from harness import wait_for
from measured import Measured
from processes import Ran, run, told, watched, when

HELP_MS = 120.0
STATEMENT_SECONDS = 0.5
DAY_SECONDS = 86_400
CHAPTER_SECONDS = 10.0  # a long capture tells how far it has come once in so many
SLOW_LOG = (
    "TRUNCATE mysql.slow_log",
    "SET GLOBAL log_output = 'TABLE', long_query_time = 0, slow_query_log = 1",  # of sessions that begin now
)
SLOWEST = "SELECT MAX(TIME_TO_SEC(query_time)) FROM mysql.slow_log WHERE user_host LIKE 'shipper[%'"


def startup(ground: Ground) -> list[Measured]:
    """Nothing but to start: `--help`, and one pass with nothing to do."""
    ground.table(0)
    ground.configure()
    help_, floor = [ground.python, "-m", "shipper.cli", "--help"], [ground.python, "-c", "pass"]
    contenders = {"help": help_, "python": floor, "once": ground.shipper("once"), "seed": ground.seed()}
    found = ground.compare({name: partial(run, command) for name, command in contenders.items()})
    ms = {name: seconds * 1000 for name, seconds in found.items()}
    return [
        Measured("shipper --help", ms["help"], "target", HELP_MS, "ms", 1.0),
        Measured("shipper --help", ms["help"], "python -c pass", ms["python"], "ms"),
        Measured("once, nothing to do", ms["once"], "seed", ms["seed"], "ms", 1.0),
    ]


def tick(ground: Ground) -> list[Measured]:
    """One pass over new rows behind many, each in a process of its own."""
    ground.table(ground.sizes.rows)
    ground.configure()
    commands = {"shipper": ground.shipper("once"), "bare": ground.bare(), "seed": ground.seed()}
    for command in commands.values():
        run(command)

    def timed(name: str) -> float:
        ground.insert(ground.sizes.tick)
        return run(commands[name])

    found = ground.compare({name: partial(timed, name) for name in commands})
    what, targets = f"once, {ground.sizes.tick:,} new rows", {"seed": 1.0}
    return [
        Measured(what, found["shipper"] * 1000, name, found[name] * 1000, "ms", targets.get(name))
        for name in ("bare", "seed")
    ]


def wide(ground: Ground) -> list[Measured]:
    """Many series at once, from the start of a process to its last line, or to the end of a peer's scrape; and again.

    The rows are new at each turn: minutes without any would be filled with zeros.
    """
    series = ground.sizes.series
    commands = {"shipper": ground.shipper("once"), "bare": ground.bare(), "seed": ground.seed()}

    def timed(name: str) -> float:
        ground.forget()
        ground.table(series, actions=series, seconds=1)
        return _until_sent(ground, commands[name], series)

    ground.configure()
    ground.table(series, actions=series, seconds=1)
    contenders = {name: partial(timed, name) for name in commands}
    others = {peer.name: partial(peers.first_result, peer, ground, series) for peer in peers.available(ground)}
    found = ground.compare(contenders | others, rounds=ground.sizes.slow_rounds)
    targets = {"bare": 4.5, "seed": 1 / 7}
    ours = found.pop("shipper") * 1000
    first = [
        Measured(f"{series:,} series", ours, name, seconds * 1000, "ms", targets.get(name))
        for name, seconds in found.items()
    ]
    return [*first, _again(ground, series)]


def _again(ground: Ground, series: int) -> Measured:
    """Send the same series again and again, each contender those of its own table."""
    theirs = replace(ground, database="again")
    turns = {"ours": (ground, ground.shipper("once")), "bare": (theirs, theirs.bare())}

    def timed(name: str) -> float:
        table, command = turns[name]
        table.insert(series, actions=series, seconds=1)
        return _until_sent(ground, command, series)

    ground.forget()
    for table, command in turns.values():
        table.table(series, actions=series, seconds=1)
        _until_sent(ground, command, series)
    found = ground.compare({name: partial(timed, name) for name in turns}, rounds=ground.sizes.slow_rounds)
    what = f"the same {series:,} series again"
    return Measured(what, found["ours"] * 1000, "bare", found["bare"] * 1000, "ms", 3.0)


def _until_sent(ground: Ground, command: Sequence[str], lines: int) -> float:
    """Run a command until the sink has its lines; return the seconds that the command took."""
    before = ground.lines()
    seconds = run(command)
    # who does not wait for an end of stream leaves some lines on their way
    wait_for(lambda: ground.lines() - before >= lines, "all lines")
    return seconds


def catchup(ground: Ground) -> list[Measured]:
    """All rows of a day at once, in buckets of a minute; and of few rows, for what may not depend on how many."""
    few, many = ground.sizes.catchup
    commands = {"shipper": ground.shipper("once"), "sqlclient": ground.sqlclient(), "bare": ground.bare()}
    runs: list[Ran] = []

    def timed(name: str) -> float:
        ground.forget()
        if name != "shipper":
            return run(commands[name])
        runs.append(watched(commands[name]))
        return runs[-1].seconds

    # few rows, as close together: only how many there are may differ
    ground.configure()
    ground.table(few, seconds=DAY_SECONDS * few // many)
    timed("shipper")
    before = runs.pop()

    # many, while the server notes how long each statement takes
    ground.table(many)
    _execute(ground, *SLOW_LOG)
    found = ground.compare({name: partial(timed, name) for name in commands}, rounds=ground.sizes.slowest_rounds)
    slowest = _execute(ground, SLOWEST, "SET GLOBAL slow_query_log = 0")
    ours, what = found["shipper"] * 1000, f"{many:,} rows"
    return [
        Measured(what, ours, "sqlclient", found["sqlclient"] * 1000, "ms", 1.3),
        Measured(what, ours, "bare", found["bare"] * 1000, "ms"),
        Measured(f"{what}: memory", max(one.peak for one in runs), f"with {few:,}", before.peak, "MiB", 1.1),
        Measured(f"{what}: slowest statement", slowest, "target", STATEMENT_SECONDS, "s", 1.0),
        Measured(f"{what}: longest without a word", max(map(_silence, runs)), "a chapter", CHAPTER_SECONDS, "s", 1.2),
    ]


def _silence(one: Ran) -> float:
    """Return the longest time in which a pass did not tell how far it had come, seconds."""
    times = [one.began, *(when(entry) for entry in told(one.log, "capture.finished"))]
    assert len(times) > 1, one.log[-2000:]
    return max(after - before for before, after in pairwise(times))


def _execute(ground: Ground, *statements: str) -> float:
    """Run statements as an administrator; return the number that the first one gives, if it does."""
    with ground.mysql.connect() as connection, connection.cursor() as cursor:
        numbers = [row for statement in statements if cursor.execute(statement) for row in cursor.fetchall()]
    return float(numbers[0][0]) if numbers else 0.0


def scale(ground: Ground) -> list[Measured]:
    """A pass over 1,000 new rows behind few and behind many, in turns."""
    sizes = ground.sizes.scale
    grounds = [replace(ground, database=f"rows{rows}", folder=ground.folder / f"rows{rows}") for rows in sizes]
    for one, rows in zip(grounds, sizes, strict=True):
        one.folder.mkdir()
        one.table(rows)
        one.configure()
        run(one.shipper("once"))

    def timed(one: Ground) -> float:
        one.insert(1000)
        return run(one.shipper("once"))

    found = ground.compare({one.database: partial(timed, one) for one in grounds})
    few, many = (found[one.database] * 1000 for one in grounds)
    return [Measured(f"tick at {sizes[1]:,} rows", many, f"at {sizes[0]:,} rows", few, "ms", 1.1)]
