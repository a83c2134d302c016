"""The status report of the running service, from the state of its parts."""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from shipper.config.cron import Cron
from shipper.config.load import Config, digest_of
from shipper.core.errors import ShipperError, SourceReset, SourceUnavailable, StateBusy, StateCorrupt
from shipper.core.model import Job, JobStatus
from shipper.core.verify.audit import Audit
from shipper.log.logger import RepeatedFailure
from shipper.runtime.delivery import Delivery
from shipper.runtime.endpoints import evidence_of, open_readback
from shipper.runtime.pipeline import Pipeline
from shipper.runtime.worker import BUG_HINT, Worker, period
from shipper.source.access import LoginRefused
from shipper.state.queries import audits, instant, job_statuses, totals
from shipper.status.leader import Leader, machines
from shipper.status.report import MINUTES, EndpointReport, Failure, JobReport, JobState, Replication, Report

MINUTE = 60
LACKS = "does not hold what was sent"
REJECTS = "rejects the login"
STATE_ERRORS = (StateBusy, StateCorrupt)
LATE_PERIODS = 3  # a job that is behind by more than this many ticks, and a minute, is late


class Vitals:
    """The reports of a running pipeline."""

    def __init__(
        self,
        pipeline: Pipeline,
        delivery: Delivery,
        *,
        next_tick: Callable[[Job], float | None],
        page_failure: RepeatedFailure,
    ) -> None:
        self._pipeline, self._delivery, self._page_failure = pipeline, delivery, page_failure
        self._next_tick = next_tick
        self._started_at = pipeline.loaded_at

    def report(self, *, with_totals: bool) -> Report:
        """Return the status of the service, without what only its other parts know.

        Raises:
            StateBusy: the state cannot be read now.
        """
        config, database = self._pipeline.config, self._pipeline.database
        # after a kill the courier sends all again, and the state knows what of it was confirmed
        courier, statuses = self._pipeline.courier.waiting(), dict(job_statuses(config.state.path))
        statuses = {name: one._replace(waiting=min(one.waiting, courier[name])) for name, one in statuses.items()}
        minutes = _minutes(config) if with_totals else {}
        audits = audits_of(str(config.state.path), config)
        jobs = [
            self._job(job, statuses.get(name), totals=minutes.get(name, ()), audit=audits.get(name))
            for name, job in list(config.jobs.items())
        ]
        return Report(
            jobs=(*jobs, *gone(statuses, config.jobs)),
            endpoints=(
                *(self._source(name) for name in config.sources),
                self._carbon(),
                *self._graphite(),
                *self._state_database(),
                self._state_file(),
                *self._page(),
            ),
            evidence=evidence_of(config),
            state_path=str(config.state.path),
            state_bytes=os.path.getsize(config.state.path),  # noqa: PTH202 - a number is all that is asked for
            state_free_bytes=shutil.disk_usage(config.state.path).free,
            config_file=config.file,
            pid=os.getpid(),
            started_at=self._started_at,
            loaded_at=self._pipeline.loaded_at,
            is_config_changed=digest_of(config.file) != config.digest,
            deliveries=self._delivery.counters,
            leader=self._leader(),
            replication=None if database is None else Replication(database.pushed_seconds, database.slots_again),
        )

    def _job(self, job: Job, status: JobStatus | None, **values: Any) -> JobReport:
        """Return the report of a job; values are further fields of it."""
        worker, held = self._pipeline.workers.get(job.name), self._pipeline.held.get(job.name)
        paused = None if worker is None else self._pipeline.state.pauses.get(job.name)
        next_tick = self._next_tick(job) if paused is None else None
        report = replace(job_report(job, status), next_tick=next_tick, paused_since=paused, **values)
        if worker is None:
            failure = Failure(str(held), held.hint, self._started_at, 1) if held else None
            return replace(report, state=JobState.HELD, failure=failure)
        # a failure may hide which rows the table has now; a paused job does not look
        error = last.error if (last := worker.failure) else None
        is_hidden = complaint_of(error) is not None or isinstance(error, SourceReset)
        is_seen = worker.seen is not None and paused is None and not is_hidden
        return replace(
            report,
            source_max=worker.seen.id if is_seen and worker.seen else None,
            reset_at=worker.reset_at,
            state=self._state(worker, report),
            failure=self._failure(worker, report),
            counters=worker.counters,
        )

    def _state(self, worker: Worker, report: JobReport) -> JobState:
        if worker.is_broken or worker.is_paused:
            return JobState.STOPPED if worker.is_broken else JobState.PAUSED
        failure = worker.failure
        if failure and isinstance(failure.error, SourceReset):
            return JobState.HELD
        if worker.is_overdue:
            return JobState.OVERDUE
        if failure or self._waits_for_carbon(report):
            return JobState.FAILING
        if worker.seen is None:
            return JobState.NEW
        return JobState.LATE if self._is_late(worker, report) else JobState.OK

    def _failure(self, worker: Worker, report: JobReport) -> Failure | None:
        if worker.broken_at is not None:
            return Failure("a bug stopped this job", BUG_HINT, worker.broken_at, 1)
        if (failure := worker.failure) is not None:
            return failure_of(failure)
        return failure_of(self._delivery.failure) if self._waits_for_carbon(report) else None

    def _waits_for_carbon(self, report: JobReport) -> bool:
        return self._delivery.failure.error is not None and report.captured != report.watermark

    def _is_late(self, worker: Worker, report: JobReport) -> bool:
        if (cron := worker.job.cron) is not None:
            due = _due_after(cron, worker.job.cron_zone, int(worker.waits_since) // MINUTE)
            return time.time() - due > LATE_PERIODS * period(worker.job) + MINUTE
        if worker.job.every is None or report.complete_until is None or not (worker.seen and worker.seen_at):
            return False
        # by the source's clock, as of the last look: ours may differ from it by `max_skew`
        behind = worker.seen.time - report.complete_until + time.time() - worker.seen_at
        return behind > LATE_PERIODS * worker.job.every + MINUTE

    def _source(self, name: str) -> EndpointReport:
        workers = [worker for worker in list(self._pipeline.workers.values()) if worker.job.source == name]
        reached = max((worker.seen_at or 0.0 for worker in workers), default=0.0)
        failures = [failure for worker in workers if (failure := worker.failure)]
        down = next((failure for failure in failures if complaint_of(failure.error)), None)
        complaint = complaint_of(down.error) if down else None
        address = str(self._pipeline.sources[name]) if name in self._pipeline.sources else ""
        is_needed = not workers or any(not worker.is_paused for worker in workers)
        return EndpointReport(
            f"source {name}",
            address,
            reached or None,
            failure_of(down) if down else None,
            complaint or "answers",
            is_needed=is_needed,
        )

    def _carbon(self) -> EndpointReport:
        """Return how Carbon answers; a delivery that fails because of the state says nothing about it."""
        delivery = self._delivery
        failure = None if isinstance(delivery.failure.error, STATE_ERRORS) else failure_of(delivery.failure)
        return EndpointReport("carbon", str(self._pipeline.carbon), delivery.reached_at, failure)

    def _state_file(self) -> EndpointReport:
        state = self._pipeline.state
        trouble = state.trouble
        failure = Failure(str(trouble.error), trouble.error.hint, trouble.since, trouble.failures) if trouble else None
        return EndpointReport("state", state.path, state.written_at, failure, "cannot be used", "written")

    def _state_database(self) -> Iterator[EndpointReport]:
        """Yield the database that keeps the state, if there is one; without it, this process ends."""
        if (database := self._pipeline.database) is not None:
            yield EndpointReport("state database", str(database), database.beaten_at)

    def _leader(self) -> Leader | None:
        database = self._pipeline.database
        if database is None:
            return None
        others = machines(database.others, self._pipeline.config.digest)
        return Leader(database.host, database.led_since, database.term, database.beaten_at, True, True, others)

    def _page(self) -> Iterator[EndpointReport]:
        """Yield the status page while it does not listen: monitoring then gets no answer."""
        failure = failure_of(self._page_failure)
        if failure is not None:
            listen = self._pipeline.config.status.listen or "unix:status.sock"
            yield EndpointReport("page", listen, None, failure, "cannot be reached", is_needed=False)

    def _graphite(self) -> Iterator[EndpointReport]:
        """Yield the Graphite that totals are read back from, if there is one."""
        pipeline = self._pipeline
        readback = open_readback(pipeline.config)
        if readback is None:
            return
        endpoint = EndpointReport("graphite", str(readback), pipeline.read_at, is_needed=False)
        unproven = failure_of(pipeline.unproven)
        if unproven is not None:
            yield replace(endpoint, failure=unproven, complaint=LACKS)
        else:
            yield replace(endpoint, failure=failure_of(pipeline.reading))


@lru_cache(10_000)  # it takes milliseconds, and most jobs share their lines
def _due_after(cron: str, zone: str, minute: int) -> float:
    """Return the first time of a line of cron after a minute since 1970, in epoch seconds."""
    due = Cron(cron, zone).first_from(datetime.fromtimestamp((minute + 1) * MINUTE, UTC))
    return math.inf if due is None else due.timestamp()


def complaint_of(error: ShipperError | None) -> str | None:
    """Return what an error says about its source, in a few words; None if it concerns a job alone."""
    if isinstance(error, SourceUnavailable):
        return "does not answer"
    return REJECTS if isinstance(error, LoginRefused) else None


def job_report(job: Job, status: JobStatus | None) -> JobReport:
    """Return the report of a job from its configuration and its state."""
    report = JobReport(
        job.name,
        job.title,
        f"cron {job.cron} {job.cron_zone}" if job.cron is not None else f"every {job.every} s",
        job.source,
        job.query.table,
        JobState.NEW,
        is_along=job.query.is_along,
    )
    return _with_status(report, status) if status else report


def _with_status(report: JobReport, status: JobStatus) -> JobReport:
    offsets = status.offsets
    return replace(
        report,
        watermark=offsets.watermark,
        captured=offsets.captured,
        complete_until=instant(offsets.complete_until) if offsets.complete_until else None,
        waiting=status.waiting,
        unproven=status.unproven,
        rejected=dict(status.rejected),
        late_rows=status.late_rows,
        delivered_at=status.delivered_at,
    )


def audits_of(path: str, config: Config) -> Mapping[str, Audit]:
    """Return the newest audit of each job from a state, if there is a schedule of audits."""
    return audits(path) if config.audit.cron is not None else {}


def gone(statuses: Mapping[str, JobStatus], jobs: Mapping[str, Job]) -> list[JobReport]:
    """Return the jobs that left the configuration; their totals are still delivered."""
    left = [(name, statuses[name]) for name in sorted(statuses.keys() - jobs.keys())]
    return [
        _with_status(JobReport(name, "", "", one.offsets.source, one.offsets.table, JobState.GONE), one)
        for name, one in left
    ]


def _minutes(config: Config) -> Mapping[str, tuple[int, ...]]:
    """Return each job's totals of the last hour's minutes, oldest first."""
    last = int(time.time()) // MINUTE * MINUTE
    hour = range(last - (MINUTES - 1) * MINUTE, last + MINUTE, MINUTE)
    known = totals(str(config.state.path), since=hour.start, step=MINUTE)
    return {job: tuple(slots.get(minute, 0) for minute in hour) for job, slots in known.items()}


def failure_of(repeated: RepeatedFailure) -> Failure | None:
    """Return the failure as a report shows it, None if it is over."""
    error = repeated.error
    return None if error is None else Failure(str(error), error.hint, repeated.since, repeated.failures)
