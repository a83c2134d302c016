"""Audits on the scheduler."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from shipper.config.cron import Cron
from shipper.service.schedule import AUDIT, Schedule

PATIENCE_SECONDS = 120.0


class Calls:
    """An auditor whose audits last until the test ends them."""

    def __init__(self) -> None:
        self.began, self.may_end, self.skipped = threading.Event(), threading.Event(), threading.Event()

    def run(self) -> None:
        """Begin, and wait."""
        self.began.set()
        self.may_end.wait(PATIENCE_SECONDS)

    def skip(self) -> None:
        """Note that an audit was left out."""
        self.skipped.set()


class Office:
    """A schedule of audits without jobs."""

    def __init__(self) -> None:
        self.auditor = Calls()
        auditor: Any = self.auditor
        audit = SimpleNamespace(cron="0 3 * * *", cron_zone="UTC")
        self.config = SimpleNamespace(audit=audit, sources={})
        pipeline: Any = SimpleNamespace(config=self.config, sources={}, polling_groups={})
        self.schedule = Schedule(pipeline, auditor)
        self.schedule.start()

    def come(self) -> None:
        """Let the time of an audit come."""
        self.schedule._scheduler._scheduler.modify_job(AUDIT, next_run_time=datetime.now(UTC))


@pytest.fixture
def office() -> Iterator[Office]:
    """Give a schedule that has started."""
    office = Office()
    yield office
    office.auditor.may_end.set()
    office.schedule.stop(wait=True)


def test_audit(office: Office) -> None:
    """An audit begins at its time; one that is due while it runs is left out and told. Mutant: run both in turn."""
    office.come()
    assert office.auditor.began.wait(PATIENCE_SECONDS)
    office.come()

    assert office.auditor.skipped.wait(PATIENCE_SECONDS)


def test_reload(office: Office) -> None:
    """A reload changes the times of audits, or ends them. Mutants: keep the old times; keep the last one."""
    for line, zone in (("0 3 * * *", "UTC"), ("30 4 * * *", "Europe/Berlin")):
        office.config.audit = SimpleNamespace(cron=line, cron_zone=zone)
        office.schedule.change({}, {})
        following = Cron(line, zone).first_from(datetime.now(UTC))
        assert following is not None
        assert office.schedule.next_audit == following.timestamp()
    office.config.audit = SimpleNamespace(cron=None, cron_zone="UTC")
    office.schedule.change({}, {})

    assert office.schedule.next_audit is None
    office.schedule.change({}, {})
