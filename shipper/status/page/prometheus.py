"""Metrics in Prometheus' text format 0.0.4, in base units.

An unknown value is missing: a 0 would be a claim.
"""

from collections.abc import Callable, Iterable

from shipper.status.report import JobReport, JobState, Report

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

Samples = Iterable[tuple[dict[str, str], float | None]]
"""Labels and value; None is unknown."""

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
    ("waiting_totals", "Pending totals: Carbon has not confirmed them yet.", lambda job: job.waiting),
    (
        "unproven_totals",
        "Unproven totals: not sent yet, or not yet verified in Graphite.",
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
    ("failures", "Consecutive failures; 0 after a success.", lambda job: job.failure.failures if job.failure else 0),
)


def _audited(job: JobReport, name: str) -> int | None:
    """Return a number of the newest audit; None if it failed, or there was none."""
    return None if job.audit is None or job.audit.error is not None else getattr(job.audit, name)


def metrics(report: Report) -> str:
    """Return all metrics of a report."""
    return "".join((*_service(report), *_jobs(report), *_endpoints(report)))


def _service(report: Report) -> Iterable[str]:
    for name, about, value in (
        ("shipper_up", "1 if the service runs.", report.pid is not None),
        ("shipper_ready", "1 if the service is healthy, as /readyz and shipper status say.", report.is_ready),
        ("shipper_stalled", "Stalled components: they make no progress.", len(report.stalled)),
        ("process_start_time_seconds", "Start time of the process.", report.started_at),
        ("shipper_config_last_reload_successful", "0 if the last reload was rejected.", report.rejected is None),
        (
            "shipper_config_last_reload_success_timestamp_seconds",
            "Time at which the active configuration was loaded.",
            report.loaded_at,
        ),
        (
            "shipper_config_file_changed",
            "1 if the configuration file differs from the active configuration.",
            report.is_config_changed,
        ),
        ("shipper_state_bytes", "Size of the state file.", report.state_bytes),
    ):
        yield _family(name, "gauge", about, [({}, value)])
    yield _family("shipper_build_info", "gauge", "Version of the running service.", [({"version": report.version}, 1)])


def _jobs(report: Report) -> Iterable[str]:
    for name, about, value in _JOB_GAUGES:
        yield _family(f"shipper_job_{name}", "gauge", about, [({"job": job.job}, value(job)) for job in report.jobs])
    yield _family(
        "shipper_job_state",
        "gauge",
        "1 for the state of the job, 0 for the others.",
        [({"job": job.job, "state": state.value}, job.state is state) for job in report.jobs for state in JobState],
    )
    yield _family(
        "shipper_job_rejected_rows_total",
        "counter",
        "Rejected rows, which Graphite cannot show, by reason.",
        [({"job": job.job, "reason": reason}, rows) for job in report.jobs for reason, rows in job.rejected.items()],
    )
    yield _family(
        "shipper_job_late_rows_total",
        "counter",
        "Late rows of the job's table, which committed after a higher id was read; they are counted.",
        [({"job": job.job}, job.late_rows) for job in report.jobs],
    )


def _endpoints(report: Report) -> Iterable[str]:
    reached: Samples = [({"endpoint": endpoint.name}, endpoint.reached_at) for endpoint in report.endpoints]
    failures: Samples = [
        ({"endpoint": endpoint.name}, endpoint.failure.failures if endpoint.failure else 0)
        for endpoint in report.endpoints
    ]
    yield _family("shipper_endpoint_reached_timestamp_seconds", "gauge", "Time of the endpoint's last answer.", reached)
    yield _family("shipper_endpoint_failures", "gauge", "Consecutive failures; 0 after a success.", failures)


def _family(name: str, kind: str, about: str, samples: Samples) -> str:
    lines = [f"{name}{_labels(labels)} {_value(value)}\n" for labels, value in samples if value is not None]
    return f"# HELP {name} {about}\n# TYPE {name} {kind}\n{''.join(lines)}" if lines else ""


def _labels(labels: dict[str, str]) -> str:
    pairs = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _value(value: float) -> str:
    return str(int(value)) if isinstance(value, int) else repr(value)
