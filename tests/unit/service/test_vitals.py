"""The judgement of a job: when it is late."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from builders import horizon, job

from shipper.core.model import JobStatus, Offsets
from shipper.log.logger import RepeatedFailure, format_utc
from shipper.service.vitals import Vitals, job_report
from shipper.status.report import JobState


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
    worker: Any = SimpleNamespace(
        job=wanted,
        seen=seen,
        seen_at=now - since_look,
        is_broken=False,
        is_paused=False,
        is_overdue=False,
        failure=None,
    )
    offsets = Offsets("app", "audit_trail", "id", 5, 5, format_utc(seen.time - behind), "")
    report = job_report(wanted, JobStatus(offsets, 0, {}))
    delivery: Any = SimpleNamespace(failure=RepeatedFailure("failed", "recovered"))
    pipeline: Any = SimpleNamespace(loaded_at=now)
    page = RepeatedFailure("failed", "recovered")
    vitals = Vitals(pipeline, delivery, next_tick=lambda _: None, page_failure=page)

    assert vitals._state(worker, report) is expected
