"""What the state costs: whether it grows, and how often it is written to when many jobs are due at once."""

import json
import statistics
import subprocess

from daemons import commits, daemon
from ground import HERE, Ground
from measured import Measured

AGE_DAYS = 12  # `keep` is two days, and the 10,000 newest commits are listed: from then on nothing is added
COMPARED_DAYS = 3
TIMES = 2  # that all are due
REST_SECONDS = 1.0  # what follows a capture: delivery, and its commit


def state(ground: Ground) -> list[Measured]:
    """A month of operation in minutes, early days against the last; and many jobs that are due at the same time."""
    command = [ground.python, str(HERE / "month.py"), str(ground.sizes.days)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    days = [json.loads(line) for line in done.stdout.splitlines()]
    days = days[min(AGE_DAYS, len(days) - 1) :]
    early, late = days[:COMPARED_DAYS], days[-COMPARED_DAYS:]
    what, other = f"day {late[-1]['number']}", f"day {early[0]['number']}"

    def compared(name: str) -> tuple[float, str, float]:
        ours, others = (statistics.median(day[name] for day in part) for part in (late, early))
        return ours, other, others

    jobs = ground.sizes.few_jobs
    return [
        Measured(f"{what}: file", *compared("size"), "B", 1.05),
        Measured(f"{what}: rows of all tables", *compared("rows"), "", 1.05),
        Measured(f"{what}: captures and commit", *compared("ms"), "ms", 1.1),
        Measured(
            f"{jobs} jobs due at once: transactions a tick", _transactions(ground, jobs), "one each", 1.0, "", 0.1
        ),
    ]


def _transactions(ground: Ground, jobs: int) -> float:
    """Let jobs be due at the same time, with new rows each time; return how many transactions a capture takes."""
    ground.table(1000)
    ground.configure(jobs=jobs, schedule=ground.sizes.together, start="now")
    with daemon(ground) as service:
        service.until("job.started", jobs)
        service.wait(REST_SECONDS)
        before, captured = commits(ground), service.count("capture.finished")
        for n in range(TIMES):
            ground.insert(1000)
            service.until("capture.finished", captured + (n + 1) * jobs)
            service.wait(REST_SECONDS)
        return (commits(ground) - before) / (service.count("capture.finished") - captured)
