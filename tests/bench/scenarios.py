"""What is measured: each scenario returns rows of (what, contender, value, unit, ratio's base)."""

import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

from ground import Ground, run


class Measured(NamedTuple):
    """One number of ours, and what it is held against."""

    what: str
    ours: float
    other: str
    others: float
    unit: str
    target: float | None
    """The most that ours / others may be."""

    @property
    def ratio(self) -> float:
        """Return ours as a part of the other's."""
        return self.ours / self.others


def startup(ground: Ground) -> list[Measured]:
    """Nothing but to start: `--help`, and one pass with nothing to do."""
    ground.table(0)
    ground.configure()
    help_, floor = [sys.executable, "-m", "shipper.cli", "--help"], [sys.executable, "-c", "pass"]
    contenders = {"help": help_, "python": floor, "once": ground.shipper("once"), "seed": ground.seed()}
    found = ground.compare({name: partial(run, command) for name, command in contenders.items()})
    return [
        Measured("shipper --help", found["help"] * 1000, "python -c pass", found["python"] * 1000, "ms", None),
        Measured("once, nothing to do", found["once"] * 1000, "seed", found["seed"] * 1000, "ms", 1.5),
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
    return [
        Measured("once, new rows", found["shipper"] * 1000, name, found[name] * 1000, "ms", None)
        for name in ("bare", "seed")
    ]


def wide(ground: Ground) -> list[Measured]:
    """Many series at once, from the start of a process to its last line."""
    ground.table(ground.sizes.series, actions=ground.sizes.series, seconds=30)
    ground.configure()
    commands = {"shipper": ground.shipper("once"), "bare": ground.bare(), "seed": ground.seed()}

    def timed(name: str) -> float:
        ground.forget()
        before = ground.lines()
        seconds = run(commands[name])
        assert ground.lines() - before >= ground.sizes.series
        return seconds

    found = ground.compare({name: partial(timed, name) for name in commands})
    ours = found["shipper"] * 1000
    return [
        Measured(f"{ground.sizes.series:,} series", ours, "bare", found["bare"] * 1000, "ms", 2.0),
        Measured(f"{ground.sizes.series:,} series", ours, "seed", found["seed"] * 1000, "ms", 1 / 7),
    ]


def catchup(ground: Ground) -> list[Measured]:
    """All rows of a day at once, in buckets of a minute."""
    ground.table(ground.sizes.rows)
    ground.configure()
    commands = {"shipper": ground.shipper("once"), "sqlclient": ground.sqlclient(0), "bare": ground.bare()}

    def timed(name: str) -> float:
        ground.forget()
        return run(commands[name])

    found = ground.compare({name: partial(timed, name) for name in commands})
    ours = found["shipper"] * 1000
    return [
        Measured(f"{ground.sizes.rows:,} rows", ours, "sqlclient", found["sqlclient"] * 1000, "ms", 1.3),
        Measured(f"{ground.sizes.rows:,} rows", ours, "bare", found["bare"] * 1000, "ms", None),
    ]


def scale(ground: Ground) -> list[Measured]:
    """A pass over 1,000 new rows behind few and behind many."""
    found = {}
    few, many = ground.sizes.scale
    for rows in (few, many):
        ground.table(rows)
        ground.configure()
        ground.forget()
        run(ground.shipper("once"))
        times = []
        for _ in range(ground.sizes.rounds):
            ground.insert(1000)
            times.append(run(ground.shipper("once")))
        found[rows] = 1000 * statistics.median(times)
    return [Measured(f"tick at {many:,} rows", found[many], f"at {few:,} rows", found[few], "ms", 1.1)]


def delivery(ground: Ground) -> list[Measured]:
    """As many lines into a sink: by the courier's Carbon, and by one sendall."""
    from shipper.carbon import Carbon  # noqa: PLC0415 - it is what is measured

    lines = b"".join(b"bench.series%d.count 1 1700000000\n" % n for n in range(ground.sizes.series))

    def ours() -> float:
        carbon = Carbon("127.0.0.1", ground.port, timeout=60)
        began = time.perf_counter()
        carbon.deliver(lines)
        seconds = time.perf_counter() - began
        carbon.close()
        return seconds

    def raw() -> float:
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", ground.port)) as end:
            end.sendall(lines)
            end.shutdown(socket.SHUT_WR)
            end.recv(1)
        return time.perf_counter() - began

    found = ground.compare({"ours": ours, "raw": raw})
    return [
        Measured(f"{ground.sizes.series:,} lines", found["ours"] * 1000, "raw socket", found["raw"] * 1000, "ms", 1.25)
    ]


def idle(ground: Ground) -> list[Measured]:
    """The daemon with 50 jobs every 10 s and nothing new: memory, and processor time a minute."""
    ground.table(1000)
    ground.configure(jobs=50, every="10s", settle="10s", start="now")
    with _Daemon(ground.shipper("run")) as daemon:
        daemon.wait(ground.sizes.warm)  # until all have begun
        before = daemon.cpu()
        daemon.wait(3 * ground.sizes.seconds)
        cpu, memory = (daemon.cpu() - before) * 20 / ground.sizes.seconds, daemon.memory()
    return [
        Measured("memory of 50 idle jobs", memory, "target", 60, "MiB", 1.0),
        Measured("processor a minute", cpu, "target", 0.25, "s", 1.0),
    ]


def many(ground: Ground) -> list[Measured]:
    """Many jobs every second on one table that grows: how many of the due captures are made, and what each costs."""
    jobs = ground.sizes.jobs
    ground.table(1000)
    ground.configure(jobs=jobs, every="1s", start="now")
    with _Daemon(ground.shipper("run")) as daemon:
        daemon.wait(ground.sizes.warm)
        ticks, cpu, began = daemon.count("capture.finished"), daemon.cpu(), time.monotonic()
        daemon.wait(ground.sizes.seconds, doing=lambda: ground.insert(100, seconds=1))
        ticks, cpu = daemon.count("capture.finished") - ticks, daemon.cpu() - cpu
        share = max(ticks, 1) / jobs / (time.monotonic() - began)
    bare = _looped(ground, ground.bare(jobs, ground.sizes.seconds), jobs)
    return [
        Measured(f"{jobs} jobs a second: share of due ticks, 1 / ours", 1 / share, "1", 1.0, "", 1 / 0.995),
        Measured(f"{jobs} jobs a second: processor a tick", 1000 * cpu / max(ticks, 1), "target", 0.8, "ms", 1.0),
        Measured("the same", 1000 * cpu / max(ticks, 1), "bare", 1000 * bare[1], "ms", None),
    ]


def _looped(ground: Ground, command: list[str], jobs: int) -> tuple[float, float]:
    """Run a contender's loop while rows come; return its share of due ticks, and the processor time of a tick."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            ground.insert(100, seconds=1)
            time.sleep(0.5)
        assert process.stdout
        ticks = int(process.stdout.read())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ticks / jobs / ground.sizes.seconds, cpu / max(ticks, 1)


class _Daemon:
    """A daemon that runs, and what it uses."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._log = Path(command[-1]).with_name("daemon.log")

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(90)

    def wait(self, seconds: float, doing: Callable[[], None] = lambda: None) -> None:
        """Let it work for so long, which is what is measured, while something is done."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            doing()
            time.sleep(0.5)
        assert self._process.poll() is None, self._log.read_text()[-2000:]

    def cpu(self) -> float:
        """Return the processor time that it has used, seconds."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def memory(self) -> float:
        """Return its resident memory, MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def count(self, event: str) -> int:
        """Return how often it told an event."""
        return self._log.read_text().count(f"event={event}")


SCENARIOS: dict[str, Callable[[Ground], list[Measured]]] = {
    one.__name__: one for one in (startup, tick, wide, catchup, scale, delivery, idle, many)
}
