"""The log on a terminal, in a pipe and in the journal."""

import json
import os
import subprocess
import sys

from structlog.testing import capture_logs

from shipper.core.errors import DeliveryFailed
from shipper.log.logger import RepeatedFailure

PROGRAM = """
import logging, os, sys
if "journal" in sys.argv:
    status = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
from shipper.log import logger as log
log.start(as_json="json" in sys.argv)
log.logger().info("capture.finished", job="a", rows=3, hint=None)
logging.getLogger("sqlalchemy").warning("odd thing")
try:
    1 / 0
except ZeroDivisionError:
    log.logger().critical("job.stopped", job="a", exc_info=True)
"""


def lines(*arguments: str) -> list[str]:
    """Run a program that logs, and return its lines."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stderr.splitlines()


def test_logfmt() -> None:
    """Outside the journal a line is logfmt with a time; libraries' warnings, too."""
    first, second, third, *_ = lines()

    assert first.startswith("timestamp=2")
    assert first.endswith("Z level=info event=capture.finished job=a rows=3")
    assert second.endswith('level=warning event="odd thing"')
    assert " level=critical event=job.stopped job=a exception=" in third


def test_json() -> None:
    """As JSON each line is an object, libraries' warnings and tracebacks, too."""
    first, second, third = map(json.loads, lines("json"))

    assert first.items() >= {"level": "info", "event": "capture.finished", "job": "a", "rows": 3}.items()
    assert second["event"] == "odd thing"
    assert "ZeroDivisionError" in third["exception"]


def test_journal_priorities() -> None:
    """Under systemd each line begins with its priority, and has no time: the journal adds it."""
    first, second, third, *_ = lines("journal")

    assert first == "<6>event=capture.finished job=a rows=3"
    assert second.startswith("<4>")
    assert third.startswith("<2>")


def test_failure_once_a_minute() -> None:
    """A lasting failure is logged at once, then once a minute, then as recovered; a new one at once again."""
    failure = RepeatedFailure("delivery.failed", "delivery.recovered")
    with capture_logs() as logs:
        for seconds in range(0, 130, 10):
            failure.failed(DeliveryFailed("deliver: refused", hint="Is it up?"), clock=1000.0 + seconds)
        failure.recovered()
        failure.recovered()
        failure.failed(DeliveryFailed("deliver: refused"), clock=1131.0)

    events = [(log["event"], log["failures"]) for log in logs]
    assert events == [
        ("delivery.failed", 1),
        ("delivery.failed", 7),
        ("delivery.failed", 13),
        ("delivery.recovered", 13),
        ("delivery.failed", 1),
    ]
    assert logs[0]["hint"] == "Is it up?"
