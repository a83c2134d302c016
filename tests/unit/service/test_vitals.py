"""The judgement of a job: when it is late."""

import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from builders import horizon, job

from shipper.core.model import Job, JobStatus, Offsets
from shipper.log.logger import RepeatedFailure, format_utc
from shipper.service.vitals import Vitals, job_report
from shipper.status.report import JobState

DAY = 86_400


@pytest.mark.parametrize("ahead", [-200, 0, 200])
@pytest.mark.parametrize(
    ("behind", "since_look", "expected"),
    [(60, 1, JobState.OK), (239, 0, JobState.OK), (245, 0, JobState.LATE), (60, 200, JobState.LATE)],
)
def test_late_by_the_clock_of_the_source(ahead: int, behind: int, since_look: int, expected: JobState) -> None:
    """A job is late by its source's clock, which may be ahead of ours or behind it.

    Mutant: compare the time of the source with ours.
    """
    wanted, now = job(every=60), time.time()
    seen = horizon(5, time=int(now) - since_look + ahead)
    complete_until = format_utc(seen.time - behind)

    assert state_of(wanted, complete_until, seen=seen, seen_at=now - since_look) is expected


@pytest.mark.parametrize(
    ("ago", "expected"), [(0, JobState.OK), (170, JobState.OK), (310, JobState.LATE), (3600, JobState.LATE)]
)
def test_late_by_its_line_of_cron(ago: int, expected: JobState) -> None:
    """A job with cron is late if it has not looked at its table for four minutes after its time.

    Mutant: judge jobs with an interval only; a job that never ticks again is then healthy.
    """
    now = time.time()
    due = datetime.fromtimestamp(now - ago, UTC)
    wanted = job(every=None, cron=f"{due.minute} {due.hour} * * *")
    assert state_of(wanted, format_utc(int(now) - 2 * DAY), waits_since=now - DAY / 2) is expected

    assert state_of(wanted, format_utc(int(now) - 2 * DAY), waits_since=due.timestamp() + 1) is JobState.OK


def state_of(wanted: Job, complete_until: str, **changed: object) -> JobState:
    """Return the state of a job whose worker is like this."""
    known = {"job": wanted, "seen": horizon(5), "seen_at": 1.0, "is_broken": False, "is_paused": False}
    worker: Any = SimpleNamespace(**known | {"is_overdue": False, "failure": None} | changed)
    report = job_report(wanted, JobStatus(Offsets("app", "audit_trail", "id", 5, 5, complete_until, ""), 0, {}))
    delivery: Any = SimpleNamespace(failure=RepeatedFailure("failed", "recovered"))
    pipeline: Any = SimpleNamespace(loaded_at=0.0)
    page = RepeatedFailure("failed", "recovered")
    return Vitals(pipeline, delivery, next_tick=lambda _: None, page_failure=page)._state(worker, report)
