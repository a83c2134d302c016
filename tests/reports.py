"""Reports of services that do well, and of others."""

from shipper.report import EndReport, JobReport, JobState, Report, Trouble

NOW = 1_800_000_000.0
TROUBLE = Trouble(
    "read window (8412000, 8412556]: unknown column 'amout' in <script>alert(1)</script> " + "long" * 60,
    "Does the job name a column that the table has not?",
    NOW - 340,
    7,
)


def job(name: str, state: JobState = JobState.OK, **fields: object) -> JobReport:
    """Return a job that is somewhere."""
    known: dict[str, object] = {
        "watermark": 8_412_556,
        "captured": 8_412_556,
        "source_max": 8_412_556,
        "complete_until": int(NOW) - 12,
        "delivered_at": NOW - 20,
        "next_tick": NOW + 34,
        "totals": tuple(range(60)),
    }
    schedule, table = "every 60 s", "audit_trail"
    return JobReport(name, f"Title of {name}", schedule, "app", table, state, **{**known, **fields})  # type: ignore[arg-type] # fields of its own


def report(*jobs: JobReport, **fields: object) -> Report:
    """Return a service that runs."""
    ends = (EndReport("source app", "mysql db1.internal/app", NOW - 3), EndReport("carbon", "graphite:2003", NOW - 20))
    known: dict[str, object] = {
        "ends": ends,
        "state_path": "/var/lib/shipper/shipper.db",
        "state_bytes": 49_152,
        "config_file": "/etc/shipper/shipper.toml",
        "pid": 812,
        "started_at": NOW - 273_000,
        "loaded_at": NOW - 273_000,
    }
    return Report("0.1.0", "web1", NOW, jobs or (job("logins"),), **{**known, **fields})  # type: ignore[arg-type] # likewise


def troubled() -> Report:
    """Return a service with a job in each state, and names and errors that could harm a page."""
    jobs = [job(state.value, state) for state in JobState]
    bad = job(
        "a_very_long_job_name_" * 5,
        JobState.FAILING,
        trouble=TROUBLE,
        source_max=8_999_999,
        unshown={"no_time": 4, "too_late": 2},
        late_rows=3,
    )
    new = job("<b>new</b>", JobState.NEW, watermark=None, source_max=None, delivered_at=None, totals=())
    ends = (EndReport("source app", "mysql db1", NOW - 3), EndReport("carbon", "graphite:2003", None, TROUBLE))
    return report(*jobs, bad, new, *(job(f"many{number}") for number in range(50)), ends=ends)
