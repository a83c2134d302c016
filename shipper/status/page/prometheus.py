"""Metrics in Prometheus' text format 0.0.4, in base units.

An unknown value is missing: a 0 would be a claim. Counters begin with 0 at the start of the process. A job is the label
`job_name`: Prometheus itself sets `job`.
"""

from collections.abc import Callable, Iterable, Iterator

from shipper.status.counters import JobCounters
from shipper.status.report import JobReport, JobState, Report

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

Samples = Iterable[tuple[str, float | None]]
"""Labels and value; None is unknown."""

_SERVICE_GAUGES: tuple[tuple[str, str, Callable[[Report], float | None]], ...] = (
    ("shipper_ready", "1 if the service is healthy, as /readyz and shipper status say.", lambda one: one.is_ready),
    ("shipper_stalled_components", "Components that make no progress.", lambda one: len(one.stalled)),
    ("process_start_time_seconds", "Start time of the process.", lambda one: one.started_at),
    (
        "shipper_config_last_reload_successful",
        "0 if the last reload was rejected.",
        lambda one: one.rejected is None,
    ),
    (
        "shipper_config_last_reload_success_timestamp_seconds",
        "Time at which the active configuration was loaded.",
        lambda one: one.loaded_at,
    ),
    (
        "shipper_config_file_changed",
        "1 if the configuration file differs from the active configuration.",
        lambda one: one.is_config_changed,
    ),
    ("shipper_state_bytes", "Size of the state file.", lambda one: one.state_bytes),
    ("shipper_state_free_bytes", "Free space on the disk of the state file.", lambda one: one.state_free_bytes),
    (
        "shipper_leader",
        "1 if this machine leads, 0 if it stands by.",
        lambda one: not one.is_standing_by and one.leader and one.leader.is_here,
    ),
    ("shipper_term", "Number of the newest take-over.", lambda one: one.leader.term if one.leader else None),
    (
        "shipper_leader_heard_timestamp_seconds",
        "Time at which the leader last renewed its lease.",
        lambda one: one.leader.heard_at if one.leader else None,
    ),
    (
        "shipper_state_push_seconds",
        "Duration of the last commit in the database that keeps the state.",
        lambda one: one.replication.push_seconds if one.replication else None,
    ),
)
_JOB_GAUGES: tuple[tuple[str, str, Callable[[JobReport], float | None]], ...] = (
    ("watermark", "Watermark: rows up to this id are counted and confirmed by Carbon.", lambda job: job.watermark),
    ("captured", "Rows up to this id have been read.", lambda job: job.captured),
    ("source_max", "Largest id of the table at the last tick.", lambda job: job.source_max),
    (
        "behind_ids",
        "Backlog: ids above the watermark, an upper bound for rows that are not delivered yet.",
        lambda job: job.behind,
    ),
    (
        "complete_until_timestamp_seconds",
        "Source time up to which all rows are counted.",
        lambda job: job.complete_until,
    ),
    ("waiting_datapoints", "Datapoints that Carbon has not confirmed yet.", lambda job: job.waiting),
    (
        "unproven_datapoints",
        "Datapoints that are not sent yet, or not yet verified in Graphite.",
        lambda job: job.unproven,
    ),
    (
        "delivered_timestamp_seconds",
        "Time of the last delivery that moved the watermark.",
        lambda job: job.delivered_at,
    ),
    ("next_tick_timestamp_seconds", "Time of the next tick.", lambda job: job.next_tick),
    (
        "paused_timestamp_seconds",
        "Time at which an operator paused the job; missing if it is not paused.",
        lambda job: job.paused_since,
    ),
    (
        "audit_compared_slots",
        "Slots that the newest audit compared with Graphite; missing if it failed.",
        lambda job: _audited(job, "compared"),
    ),
    (
        "audit_different_slots",
        "Slots of the newest audit in which source and Graphite differ.",
        lambda job: _audited(job, "different"),
    ),
    (
        "audit_missing_rows",
        "Rows that Graphite lacks, by the newest audit.",
        lambda job: _audited(job, "missing"),
    ),
    (
        "audit_surplus_rows",
        "Rows that Graphite has in addition, by the newest audit: deleted in the source, or counted twice.",
        lambda job: _audited(job, "surplus"),
    ),
    (
        "audit_timestamp_seconds",
        "Time at which the newest audit ended.",
        lambda job: job.audit.at if job.audit else None,
    ),
    (
        "audit_successful",
        "1 if the newest audit could compare the job, 0 if it failed.",
        lambda job: job.audit.error is None if job.audit else None,
    ),
    (
        "consecutive_failures",
        "Failures since the last success.",
        lambda job: job.failure.failures if job.failure else 0,
    ),
)
_JOB_COUNTERS: tuple[tuple[str, str, Callable[[JobCounters], float]], ...] = (
    ("rows_total", "Captured rows.", lambda counters: counters.rows),
    ("late_rows_total", "Rows that committed after a higher id was read; they are counted.", lambda one: one.late_rows),
    ("datapoints_total", "Datapoints that Carbon confirmed, repetitions included.", lambda one: one.datapoints),
    ("failures_total", "Failed ticks and captures.", lambda counters: counters.failures),
)


def _audited(job: JobReport, name: str) -> int | None:
    """Return a number of the newest audit; None if it failed, or there was none."""
    return None if job.audit is None or job.audit.error is not None else getattr(job.audit, name)


def metrics(report: Report) -> str:
    """Return all metrics of a report."""
    return "".join((*_service(report), *_jobs(report), *_counters(report), *_endpoints(report)))


def _service(report: Report) -> Iterator[str]:
    yield _family(
        "shipper_build_info", "gauge", "Version of the running service.", [(_label("version", report.version), 1)]
    )
    for name, about, value in _SERVICE_GAUGES:
        yield _family(name, "gauge", about, [("", value(report))])
    if (deliveries := report.deliveries) is not None:
        about = "Batches that Carbon confirmed, repetitions included."
        yield _family("shipper_deliveries_total", "counter", about, [("", deliveries.batches)])
        about = "Failed attempts to deliver a batch."
        yield _family("shipper_delivery_failures_total", "counter", about, [("", deliveries.failures)])
        about = "Time from the choice of a batch to its confirmation by Carbon."
        yield _summary("shipper_delivery_duration_seconds", about, [("", deliveries.batches, deliveries.seconds)])
    if (replication := report.replication) is not None:
        about = "Slots sent again, because a process may have sent their totals after its lease."
        yield _family("shipper_late_slots_total", "counter", about, [("", replication.slots_again)])


def _jobs(report: Report) -> Iterator[str]:
    jobs = [(_label("job_name", job.job), job) for job in report.jobs]
    for name, about, value in _JOB_GAUGES:
        yield _family(f"shipper_job_{name}", "gauge", about, [(label, value(job)) for label, job in jobs])
    states = [(state, _label("state", state.value)) for state in JobState]
    yield _family(
        "shipper_job_state",
        "gauge",
        "1 for the state of the job, 0 for the others.",
        [(f"{label},{state_label}", job.state is state) for label, job in jobs for state, state_label in states],
    )


def _counters(report: Report) -> Iterator[str]:
    jobs = [(_label("job_name", job.job), job.counters) for job in report.jobs if job.counters]
    for name, about, value in _JOB_COUNTERS:
        yield _family(f"shipper_job_{name}", "counter", about, [(job, value(counters)) for job, counters in jobs])
    yield _family(
        "shipper_job_rejected_rows_total",
        "counter",
        "Rejected rows, which Graphite cannot show, by reason.",
        [
            (f"{job},{_label('reason', reason)}", rows)
            for job, counters in jobs
            for reason, rows in counters.rejected.items()
        ],
    )
    about = "Duration of captures."
    samples = [(job, counters.captures, counters.capture_seconds) for job, counters in jobs]
    yield _summary("shipper_job_capture_duration_seconds", about, samples)


def _endpoints(report: Report) -> Iterator[str]:
    endpoints = [(_label("endpoint", endpoint.name), endpoint) for endpoint in report.endpoints]
    reached: Samples = [(label, endpoint.reached_at) for label, endpoint in endpoints]
    failures: Samples = [(label, one.failure.failures if one.failure else 0) for label, one in endpoints]
    yield _family("shipper_endpoint_reached_timestamp_seconds", "gauge", "Time of the endpoint's last answer.", reached)
    about = "Failures since the last success."
    yield _family("shipper_endpoint_consecutive_failures", "gauge", about, failures)


def _label(name: str, value: str) -> str:
    return f'{name}="{value.translate(_ESCAPES)}"'


def _family(name: str, kind: str, about: str, samples: Samples) -> str:
    lines = "".join(_line(name, labels, value) for labels, value in samples if value is not None)
    return f"# HELP {name} {about}\n# TYPE {name} {kind}\n{lines}" if lines else ""


def _summary(name: str, about: str, samples: Iterable[tuple[str, int, float]]) -> str:
    """Return a summary without quantiles: number and sum, whose rates give the mean of any time."""
    pairs = (
        _line(f"{name}_count", labels, count) + _line(f"{name}_sum", labels, seconds)
        for labels, count, seconds in samples
    )
    lines = "".join(pairs)
    return f"# HELP {name} {about}\n# TYPE {name} summary\n{lines}" if lines else ""


def _line(name: str, labels: str, value: float) -> str:
    number = int(value) if isinstance(value, int) else value
    return f"{name}{{{labels}}} {number!r}\n" if labels else f"{name} {number!r}\n"
