"""Audits on the scheduler."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from builders import job

from shipper.config.cron import Cron
from shipper.runtime.poller import GroupKey, group_key
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


class Group:
    """A polling group that counts its ticks."""

    def __init__(self) -> None:
        self.ticks, self.is_observed = threading.Semaphore(0), threading.Event()
        self.workers = [SimpleNamespace(seen=None, is_broken=False)]
        self.overdue_ticks = 0

    def observe(self) -> bool:
        """Let its worker see the table."""
        self.workers[0].seen = object()
        self.is_observed.set()
        return True

    def tick(self, later: object) -> None:
        """Count."""
        self.ticks.release()

    def overdue(self) -> None:
        """Count a tick that was left out."""
        self.overdue_ticks += 1

    def comes(self) -> bool:
        """Whether it ticks at least twice more: a tick may run already."""
        while self.ticks.acquire(blocking=False):
            pass
        return all(self.ticks.acquire(timeout=PATIENCE_SECONDS) for _ in range(2))


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


def test_groups_of_one_table(office: Office) -> None:
    """Jobs on one table that read along other columns, or in other zones, tick all, also after one of them has left.

    Mutant: name the ticks by the table and the schedule.
    """
    jobs = [job("ids", every=1), job("times", id="created_at", every=1)]
    jobs.append(job("local", id="created_at", time_zone="Europe/Berlin", every=1))
    groups: Any = {group_key(one): Group() for one in jobs}
    pipeline: Any = office.schedule._pipeline
    office.config.sources["app"] = SimpleNamespace(connections=1)
    pipeline.sources["app"], pipeline.polling_groups = object(), groups
    office.schedule.change({}, {})
    assert all(group.comes() for group in groups.values())
    pipeline.polling_groups = {key: group for key, group in groups.items() if key != group_key(jobs[1])}
    office.schedule.change(groups, pipeline.sources)

    assert all(group.comes() for group in pipeline.polling_groups.values())
    assert office.schedule.next_tick(jobs[0]) is not None
    assert office.schedule.next_tick(jobs[1]) is None


@pytest.mark.parametrize(("number", "most"), [(3, 3.0), (200, 60.0)])
def test_first_ticks(office: Office, number: int, most: float) -> None:
    """The first ticks of a few jobs are seconds apart, those of many within a minute.

    Frequent restarts or take-overs must not keep a job from its first tick. Mutant: spread a few over a minute.
    """
    office.config.sources["app"] = SimpleNamespace(connections=1)
    jobs = [job(f"job{one}", table=f"table{one}", every=3600) for one in range(number)]
    pipeline: Any = office.schedule._pipeline
    pipeline.sources["app"], pipeline.polling_groups = object(), {group_key(one): Group() for one in jobs}
    began = time.time()
    office.schedule.change({}, {})
    upto = time.time() + most
    first = [office.schedule.next_tick(one) or 0.0 for one in jobs]

    assert all(began <= one <= upto or one > upto + most for one in first)  # it may have ticked already
    assert max(one for one in first if one <= upto) > began + most * 0.6


def test_job_with_cron_after_a_reload(office: Office) -> None:
    """A job with cron that a reload changed reads its table at once, also where its group stays.

    Mutant: only the jobs of new groups do; the others are not known until their next tick, which may be a day away.
    """
    daily = job(every=None, cron="0 3 * * *")
    group, pipeline = Group(), office.schedule._pipeline
    groups: Any = {group_key(daily): group}
    office.config.sources["app"], sources = SimpleNamespace(connections=1), {"app": object()}
    pipeline.sources, pipeline.polling_groups = sources, groups  # type: ignore[assignment] # no real source
    office.schedule.change({}, {})
    assert group.is_observed.wait(PATIENCE_SECONDS)
    group.is_observed.clear()
    group.workers = [SimpleNamespace(seen=None, is_broken=False)]
    office.schedule.change(groups, sources)  # type: ignore[arg-type] # likewise

    assert group.is_observed.wait(PATIENCE_SECONDS)


def test_skipped_tick(office: Office) -> None:
    """A tick that is due while the one before runs is told by its group alone, and found without a look at the others.

    Mutant: find the group by the names of all groups, which took most of the processor with 500 tables.
    """
    made = []

    class Key(GroupKey):
        """A key that notes when its name is made."""

        def __repr__(self) -> str:
            made.append(self)
            return super().__repr__()

    groups: Any = {Key(*group_key(job(id=name, every=1))): Group() for name in ("id", "number", "serial")}
    office.config.sources["app"] = SimpleNamespace(connections=1)
    pipeline: Any = office.schedule._pipeline
    pipeline.sources["app"], pipeline.polling_groups = object(), groups
    office.schedule.change({}, {})
    name = repr(list(groups)[1])
    made.clear()
    office.schedule._skipped(name)

    assert [group.overdue_ticks for group in groups.values()] == [0, 1, 0]
    assert not made
