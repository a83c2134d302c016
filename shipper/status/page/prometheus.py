"""Metrics in Prometheus' text format 0.0.4: base units, one family after the other.

What is unknown is left out: a 0 would be a claim.
"""

from collections.abc import Callable, Iterable

from shipper.status.report import JobReport, JobState, Report

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

Samples = Iterable[tuple[dict[str, str], float | None]]
"""Labels and value; None is unknown."""

_JOB_GAUGES: tuple[tuple[str, str, Callable[[JobReport], float | None]], ...] = (
    ("watermark", "Rows up to this id are counted and delivered.", lambda job: job.watermark),
    ("captured", "Rows up to this id are counted.", lambda job: job.captured),
    ("source_max", "The largest id at the last look.", lambda job: job.source_max),
    ("behind_ids", "Ids that are not delivered yet: at least as many as rows.", lambda job: job.behind),
    (
        "complete_until_timestamp_seconds",
        "The source's time up to which all is captured.",
        lambda job: job.complete_until,
    ),
    ("waiting_totals", "Totals that Carbon has not confirmed yet.", lambda job: job.waiting),
    ("unproven_totals", "Totals that are not proven yet.", lambda job: job.unproven),
    ("delivered_timestamp_seconds", "When the watermark moved last.", lambda job: job.delivered_at),
    ("next_tick_timestamp_seconds", "When the job runs next.", lambda job: job.next_tick),
    ("failures", "Failures in a row, 0 if it does not fail.", lambda job: job.trouble.failures if job.trouble else 0),
)


def metrics(report: Report) -> str:
    """Return all families."""
    return "".join((*_service(report), *_jobs(report), *_ends(report)))


def _service(report: Report) -> Iterable[str]:
    for name, about, value in (
        ("shipper_up", "1 if the service runs.", report.pid is not None),
        ("shipper_ready", "1 if it runs, reaches its ends, and runs all its jobs.", report.is_ready),
        ("shipper_stuck", "Parts that make no progress and should.", len(report.stuck)),
        ("process_start_time_seconds", "When the process was started.", report.started_at),
        ("shipper_config_loaded_timestamp_seconds", "When the configuration was loaded.", report.loaded_at),
        ("shipper_state_bytes", "Size of the state file.", report.state_bytes),
    ):
        yield _family(name, "gauge", about, [({}, value)])
    yield _family("shipper_build_info", "gauge", "The version that runs.", [({"version": report.version}, 1)])


def _jobs(report: Report) -> Iterable[str]:
    for name, about, value in _JOB_GAUGES:
        yield _family(f"shipper_job_{name}", "gauge", about, [({"job": job.job}, value(job)) for job in report.jobs])
    yield _family(
        "shipper_job_state",
        "gauge",
        "1 for the state in which the job is, 0 for the others.",
        [({"job": job.job, "state": state.value}, job.state is state) for job in report.jobs for state in JobState],
    )
    yield _family(
        "shipper_job_rejected_rows_total",
        "counter",
        "Rows that Graphite cannot show, by reason.",
        [({"job": job.job, "reason": reason}, rows) for job in report.jobs for reason, rows in job.rejected.items()],
    )
    yield _family(
        "shipper_job_late_rows_total",
        "counter",
        "Rows of the job's table that became visible late; they are counted.",
        [({"job": job.job}, job.late_rows) for job in report.jobs],
    )


def _ends(report: Report) -> Iterable[str]:
    reached: Samples = [({"end": end.name}, end.reached_at) for end in report.ends]
    failures: Samples = [({"end": end.name}, end.trouble.failures if end.trouble else 0) for end in report.ends]
    yield _family("shipper_end_reached_timestamp_seconds", "gauge", "When it last answered.", reached)
    yield _family("shipper_end_failures", "gauge", "Failures in a row, 0 if it does not fail.", failures)


def _family(name: str, kind: str, about: str, samples: Samples) -> str:
    lines = [f"{name}{_labels(labels)} {_value(value)}\n" for labels, value in samples if value is not None]
    return f"# HELP {name} {about}\n# TYPE {name} {kind}\n{''.join(lines)}" if lines else ""


def _labels(labels: dict[str, str]) -> str:
    pairs = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _value(value: float) -> str:
    return str(int(value)) if isinstance(value, int) else repr(value)
