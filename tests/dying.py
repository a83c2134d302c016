"""Run shipper with a bug in a part: `python tests/dying.py PART run --config FILE`.

The part works for a second (a report never does), then it raises an exception that no code expects.
"""

import sys
import time
from typing import Any

from shipper.cli.commands import main
from shipper.runtime import delivery, run_queue, scheduler
from shipper.service import daemon, vitals

WORKS_SECONDS = 1.0

PARTS: dict[str, tuple[Any, str]] = {
    "main": (daemon.Service, "_follow_clock"),
    "courier": (delivery.Delivery, "_deliver"),
    "scheduler": (scheduler._Scheduler, "_process_jobs"),
    "round": (run_queue.RunQueue, "_run_captures"),
    "report": (vitals.Vitals, "report"),
}


def break_down(part: str) -> None:
    """Give a part its bug."""
    owner, name = PARTS[part]
    works = getattr(owner, name)
    ends = time.monotonic() + (0.0 if part == "report" else WORKS_SECONDS)

    def call(*arguments: object, **named: object) -> object:
        if time.monotonic() > ends:
            raise ZeroDivisionError
        return works(*arguments, **named)

    setattr(owner, name, call)
    daemon.BEAT_SECONDS = 0.1


if __name__ == "__main__":
    break_down(sys.argv[1])
    main(sys.argv[2:])
