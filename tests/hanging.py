"""Run shipper with a part that hangs forever: `python tests/hanging.py PART run --config FILE`.

Real code calls a function that never returns; its limits are shorter than in production.
"""

import sys
import threading

from shipper.cli.commands import main
from shipper.runtime import clocks, delivery, poller, worker
from shipper.service import daemon, schedule


def _hang(*_arguments: object, **_named: object) -> None:
    threading.Event().wait()


def _read_on(job: worker.Worker, *_arguments: object) -> None:
    """Read the state again and again, and never see that the service stops."""
    while True:
        job._state.progress(job.job.name)


def hang(part: str) -> None:
    """Make a part hang from the start."""
    changed: dict[str, dict[tuple[object, str], object]] = {
        "courier": {(delivery, "step"): _hang, (delivery, "STUCK_TIMEOUTS"): 1},
        "job": {(worker.Worker, "_steps"): _hang, (clocks, "DEADLINE_STATEMENTS"): 0.2},
        "tick": {(poller.PollingGroup, "_observe"): _hang, (clocks, "DEADLINE_STATEMENTS"): 0.2},
        "capture": {(worker.Worker, "_steps"): _read_on, (daemon, "END_SECONDS"): 0.5},
        "scheduler": {(schedule.Schedule, "_pulse"): _hang, (schedule, "PULSE_MOST_SECONDS"): 1.0},
    }
    for (owner, name), value in changed[part].items():
        setattr(owner, name, value)


if __name__ == "__main__":
    hang(sys.argv[1])
    main(sys.argv[2:])
