"""Shipper's own metrics, which go to Graphite each minute, separate from the data.

They are PREFIX.shipper.HOST.JOB.NAME; those of a state in a database have `_lease` instead of a job. Counts contain the
increase since the last time, and therefore add up; gauges contain the present value. The first time has gauges only:
its slot may have the counts of the process before. They use a separate connection: that of the data is also the witness
of Carbon's restarts.
"""

import time
from collections.abc import Callable, Iterator, Mapping

from shipper.core.model import Datapoint
from shipper.core.paths import AUDIT, COUNTS, GAUGES, LEASE, OF_LEASE, node, path
from shipper.graphite.receivers import Receivers
from shipper.status.counters import JobCounters
from shipper.status.report import JobReport, JobState, Report

EVERY_SECONDS = 60
_OF_STATE = ("late_rows", "too_late")  # counted by the state since its beginning; the others by this process

Counts = Mapping[str, int]
"""Value so far of each of COUNTS."""


class SelfMetrics:
    """Sender of the metrics."""

    def __init__(
        self,
        carbon: Receivers,
        *,
        prefix: str | None,
        host: str,
        step: int,
        report: Callable[[], Report],
        series: Callable[[], Mapping[str, int]],
        sent: Mapping[str, Counts],
    ) -> None:
        """Send nothing yet; step is that of Carbon's finest archive, in seconds; sent: earlier counts, by job."""
        self.sent = sent
        self.sent_at = 0.0
        """When Carbon last confirmed them, in epoch seconds; 0 before the first time."""
        self._carbon = carbon
        self._prefix, self._host = prefix, node(host)
        self._every = max(step, EVERY_SECONDS // step * step)
        self._step = step
        self._report, self._series = report, series
        self._due = 0.0

    def send(self, now: float) -> float:
        """Send the metrics if they are due, and return the time until they are due next, in seconds.

        Raises:
            DeliveryFailed: Carbon did not confirm them; the next counts include theirs.
        """
        if now < self._due <= now + self._every:
            return self._due - now
        # measure, and plan the next time
        report, series = self._report(), self._series()
        counts = {job.job: _counts(job, job.counters) for job in report.jobs if job.counters}
        if report.replication is not None:
            counts[LEASE] = {**counts.get(LEASE, {}), "late_slots": report.replication.slots_again}
        slot = int(now) // self._step * self._step
        self._due = (int(now) // self._every + 1) * self._every
        # send, without the connection of the data
        try:
            self._carbon.deliver(self._datapoints(report, counts if self.sent_at else {}, series, slot))
        finally:
            self._carbon.close()
        self.sent = counts if self.sent_at else {name: _base(one) for name, one in counts.items()} | {**self.sent}
        self.sent_at = time.time()
        return self._due - time.time()

    def _datapoints(
        self, report: Report, counts: Mapping[str, Counts], series: Mapping[str, int], slot: int
    ) -> Iterator[Datapoint]:
        gauges = {
            job.job: _gauges(job, report.now) | _audited(job) | {"series": series.get(job.job, 0)}
            for job in report.jobs
        }
        gauges[LEASE] = gauges.get(LEASE, {}) | _leading(report)
        for job, values in gauges.items():
            if job in counts:
                before = self.sent.get(job) or _base(counts[job])
                values |= {name: value - before.get(name, 0) for name, value in counts[job].items()}
            for name in (*GAUGES, *COUNTS):
                if (value := values.get(name)) is not None:
                    yield Datapoint(path(self._prefix, self._host, node(job), name), value, slot)


def _base(counts: Counts) -> Counts:
    """Return what the first counts of a job leave out: counts of the state from before this process."""
    return {name: counts[name] for name in _OF_STATE if name in counts}


def _gauges(job: JobReport, now: float) -> dict[str, int | None]:
    # a job that left the configuration looks at no table, and is not late
    until = None if job.state is JobState.GONE else job.complete_until
    return {
        "complete_until_age": None if until is None else max(0, int(now) - until),
        "lag_rows": job.behind,
        "unproven": job.unproven,
        "overdue": int(job.state is JobState.OVERDUE),
        "paused": int(job.state is JobState.PAUSED),
        "up": int(job.state not in {JobState.HELD, JobState.STOPPED}),
    }


def _audited(job: JobReport) -> dict[str, int | None]:
    """Return the numbers of the newest audit; an audit that failed has none but that it did."""
    audit = job.audit
    if audit is None or audit.error is not None:
        return {"audit_failed": None if audit is None else 1}
    numbers = (audit.compared, audit.different, audit.missing, audit.surplus, 0)
    return dict(zip(AUDIT, numbers, strict=True))


def _leading(report: Report) -> dict[str, int | None]:
    """Return the numbers of a process that leads; none if the state is a file."""
    if report.replication is None or report.leader is None:
        return {}
    return dict(zip(OF_LEASE, (1, report.leader.term, round(report.replication.push_seconds * 1000)), strict=True))


def _counts(job: JobReport, counters: JobCounters) -> Counts:
    return {
        "rows": counters.rows,
        "late_rows": job.late_rows,
        "too_late": job.rejected.get("too_late", 0),
        "datapoints": counters.datapoints,
        "capture_ms": round(counters.capture_seconds * 1000),
        "deliver_ms": round(counters.deliver_seconds * 1000),
        "failures": counters.failures,
    }
