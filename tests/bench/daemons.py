"""Scenarios of the daemon: at rest, and with many jobs every second."""

import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import peers
from ground import Ground
from measured import Measured
from processes import PAUSE_SECONDS, Service, told, when

IDLE_MIB, IDLE_CPU_SECONDS = 45.0, 0.1
TICK_CPU_MS, TABLES_CPU_MS, DUE_SHARE, MOST_SHARE = 0.6, 1.0, 0.995, 0.6
ROWS = 100  # that come every half second
ACTIONS = 20  # of which each of many tables gets a row then
_CHANGES = slice(8, 12)  # of the WAL index: iChange, "incremented with each transaction"; sqlite.org/walformat.html


class Pace(NamedTuple):
    """How many jobs every second somebody keeps up with, and at what cost."""

    share: float
    """Of the due ticks."""
    cpu: float
    """Seconds of processor time a tick."""
    commits: float = 0.0
    """Transactions of the state a tick."""


def daemon(ground: Ground) -> Service:
    """Return the daemon on the configuration at hand, and on a state of its own."""
    ground.forget()
    return Service(ground.shipper("run"), ground.folder / "daemon.log")


def commits(ground: Ground) -> int:
    """Return how many transactions the daemon has written to its state."""
    return int.from_bytes(Path(f"{ground.folder}/shipper.db-shm").read_bytes()[_CHANGES], sys.byteorder)


def idle(ground: Ground) -> list[Measured]:
    """50 jobs every 10 s and nothing new: memory, and processor time a minute. Peers run at the same time."""
    jobs, seconds = ground.sizes.few_jobs, 3 * ground.sizes.seconds
    ground.table(1000)
    ground.configure(jobs=jobs, schedule='every = "10s"', start="now")
    with ExitStack() as stack:
        services = {"shipper": stack.enter_context(daemon(ground))}
        for peer in peers.available(ground):
            asked = peers.Asked(queries=jobs, every=10, rows=ROWS)
            services[peer.name] = stack.enter_context(peers.running(peer, ground, asked))
        services["shipper"].until("job.started", jobs)
        services["shipper"].wait(ground.sizes.warm)
        before = {name: service.cpu() for name, service in services.items()}
        services["shipper"].wait(seconds)
        cpu = {name: (service.cpu() - before[name]) * 60 / seconds for name, service in services.items()}
        memory = {name: service.memory() for name, service in services.items()}
    found = _against(f"memory of {jobs} idle jobs", memory, IDLE_MIB, "MiB")
    return found + _against("processor a minute", cpu, IDLE_CPU_SECONDS, "s")


def many(ground: Ground) -> list[Measured]:
    """Many jobs every second on one table that grows: how many of the due captures are made, and what each costs."""
    jobs, most = ground.sizes.jobs, ground.sizes.most_jobs
    ours, bare = paced(ground, jobs), _bare(ground, jobs)
    asked = peers.Asked(queries=jobs, every=1, rows=2 * ROWS)
    grow = partial(ground.insert, ROWS, seconds=1)
    others = {peer.name: peers.cpu_of_query(peer, ground, asked, grow) for peer in peers.available(ground)}
    ours_most, bare_most = paced(ground, most), _bare(ground, most)
    each = paced(ground, jobs, tables=jobs)

    what = f"{jobs} jobs a second"
    cpu = {"shipper": ours.cpu, "bare": bare.cpu} | others
    ms = {name: seconds * 1000 for name, seconds in cpu.items()}
    share = Measured(f"{what}: share of due ticks", ours.share, "target", DUE_SHARE, "", 1.0, more_is_better=True)
    share_most = share._replace(
        what=f"{most} jobs a second: share of due ticks", ours=ours_most.share, others=MOST_SHARE
    )
    share_bare = share_most._replace(other="bare", others=bare_most.share, target=None)
    each_ms = Measured(
        f"{jobs} jobs on {jobs} tables: processor a tick", 1000 * each.cpu, "target", TABLES_CPU_MS, "ms", 1.0
    )
    commits_ = Measured(f"{what}: transactions a tick", ours.commits, "one each", 1.0, "")
    return [
        share,
        *_against(f"{what}: processor a tick", ms, TICK_CPU_MS, "ms"),
        commits_,
        each_ms,
        share_most,
        share_bare,
    ]


def _against(what: str, found: dict[str, float], target: float, unit: str) -> list[Measured]:
    """Hold ours against the target, and against what others need."""
    ours = found["shipper"]
    others = [Measured(what, ours, name, value, unit) for name, value in found.items() if name != "shipper"]
    return [Measured(what, ours, "target", target, unit, 1.0), *others]


def paced(ground: Ground, jobs: int, *, tables: int = 1, state: str = "") -> Pace:
    """Run the daemon while rows come: to one table, or to as many as there are jobs; lines of [state]."""
    ground.table(1000)
    ground.copy(tables)
    ground.configure(jobs=jobs, tables=tables, start="now", state=state)
    grow = partial(ground.insert, ROWS, seconds=1) if tables == 1 else partial(ground.grow, tables, rows=ACTIONS)
    with daemon(ground) as service:
        service.until("capture.finished", jobs, grow)
        service.wait(ground.sizes.warm, grow)
        began, cpu, written = time.time(), service.cpu(), commits(ground)
        service.wait(ground.sizes.seconds, grow)
        cpu, written = service.cpu() - cpu, commits(ground) - written
        times = [when(entry) for entry in told(service.text(), "capture.finished")]
    # of whole seconds: jobs that tick together come in bursts, and half a second more could hold one more of them
    ticks = max(sum(began <= one < began + ground.sizes.seconds for one in times), 1)
    return Pace(ticks / jobs / ground.sizes.seconds, cpu / ticks, written / ticks)


def _bare(ground: Ground, jobs: int) -> Pace:
    """Run the floor's loop while rows come."""
    ground.table(1000)
    ground.forget()
    command = ground.bare(jobs, ground.sizes.warm, ground.sizes.seconds)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            ground.insert(ROWS, seconds=1)
            time.sleep(PAUSE_SECONDS)
        assert process.stdout
        ticks, counted = map(int, process.stdout.read().split())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Pace(counted / jobs / ground.sizes.seconds, cpu / max(ticks, 1))
