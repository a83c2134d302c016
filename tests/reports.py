"""Reports of healthy and unhealthy services."""

import math

from shipper.core.model import RejectReason
from shipper.core.verify.audit import Audit
from shipper.source.dialects.dialect import CHECK_NAMES
from shipper.status.counters import DeliveryCounters, JobCounters
from shipper.status.leader import Leader
from shipper.status.report import EndpointReport, Failure, JobReport, JobState, Replication, Report

NOW = 1_800_000_000.0
TROUBLE = Failure(
    "read window (8412000, 8412556]: unknown column 'amout' in <script>alert(1)</script> " + "long" * 60,
    "Name a column that the table has.",
    NOW - 340,
    7,
)


def job(name: str, state: JobState = JobState.OK, **fields: object) -> JobReport:
    """Return the report of a job at some position."""
    known: dict[str, object] = {
        "watermark": 8_412_556,
        "captured": 8_412_556,
        "source_max": 8_412_556,
        "complete_until": int(NOW) - 12,
        "delivered_at": NOW - 20,
        "next_tick": NOW + 34,
        "totals": tuple(range(60)),
        "counters": JobCounters(rows=1770, datapoints=60, captures=120, capture_seconds=1.5),
    }
    known |= {"title": f"Title of {name}", "schedule": "every 60 s", "source": "app", "table": "audit_trail"}
    return JobReport(name, state=state, **{**known, **fields})  # type: ignore[arg-type] # any fields


def report(*jobs: JobReport, with_totals: object = True, **fields: object) -> Report:
    """Return the report of a running service."""
    ends = (
        EndpointReport("source app", "mysql db1.internal/app", NOW - 3),
        EndpointReport("carbon", "graphite:2003", NOW - 20),
        EndpointReport("state", "/var/lib/shipper/shipper.db", NOW - 2, praise="written"),
    )
    known: dict[str, object] = {
        "version": "1.0.0",
        "host": "web1",
        "now": NOW,
        "endpoints": ends,
        "state_path": "/var/lib/shipper/shipper.db",
        "state_bytes": 49_152,
        "state_free_bytes": 20_000_000_000,
        "deliveries": DeliveryCounters(80, 2.5, 1),
        "config_file": "/etc/shipper/shipper.toml",
        "pid": 812,
        "started_at": NOW - 273_000,
        "loaded_at": NOW - 273_000,
    }
    return Report(jobs=jobs or (job("logins"),), **{**known, **fields})  # type: ignore[arg-type] # likewise


LEADER = Leader("web1", NOW - 3600, 7, NOW - 2, has_same_configuration=True, is_here=True)
LEADING = {"leader": LEADER, "replication": Replication(0.004, 3)}
"""Facts of a service that leads, with a state in a database."""
EQUAL = Audit(int(NOW) - 7200, 10_080, 10_000)
DIFFERENT = Audit(int(NOW) - 7100, 10_080, 10_080, 2, 3, 1, int(NOW) - 90_000, int(NOW) - 80_040)
FAILED = Audit(int(NOW) - 7000, error=TROUBLE.error, hint=TROUBLE.hint)


def audited() -> Report:
    """Return the report of a service whose audits ended in each way."""
    few = Audit(int(NOW) - 7300, 1440, 10)
    jobs = job("good", audit=EQUAL), job("few", audit=few), job("bad", audit=DIFFERENT), job("failed", audit=FAILED)
    return report(*jobs, job("new"), next_audit=NOW + 79_200)


def office() -> Report:
    """Return the report of a service on a working day, for a picture."""
    busy = [round(40 + 25 * math.sin(minute / 9) + (minute * 37) % 23) for minute in range(60)]
    logins = job("logins", title="Logins, by action", totals=tuple(busy), audit=EQUAL)
    failed = job(
        "failed_logins", title="Failed logins, by action", totals=tuple(count // 7 for count in busy), audit=EQUAL
    )
    orders = job(
        "orders",
        JobState.FAILING,
        title="Orders by status: how many, how much",
        schedule="cron */5 * * * * UTC",
        table="order_events",
        watermark=1_204_118,
        captured=1_204_118,
        source_max=1_205_322,
        complete_until=int(NOW) - 340,
        delivered_at=NOW - 352,
        totals=tuple(count * (minute % 5 == 0) if minute < 55 else 0 for minute, count in enumerate(busy)),
        failure=Failure(
            "read order_events, ids 1204119 to 1205322: Unknown column 'order_events.amout' in 'SELECT'",
            CHECK_NAMES,
            NOW - 340,
            2,
        ),
    )
    exports = job(
        "exports",
        title="Exports, by format",
        table="exports",
        watermark=55_021,
        captured=55_021,
        source_max=55_021,
        late_rows=3,
        rejected={"no_time": 4},
        audit=EQUAL,
        totals=tuple(count % 3 * (minute % 7 < 3) for minute, count in enumerate(busy)),
    )
    ends = report().endpoints
    graphite = EndpointReport("graphite", "graphite.internal", NOW - 20, is_needed=False)
    return report(logins, failed, orders, exports, endpoints=(*ends[:2], graphite, *ends[2:]), next_audit=NOW + 79_200)


def troubled() -> Report:
    """Return the report of a service with a job in each state, and with names and errors that could break a page."""
    counters = JobCounters(rows=9, late_rows=3, failures=7)
    counters.reject({RejectReason.NO_TIME: 4, RejectReason.TOO_LATE: 2})
    jobs = [job(state.value, state) for state in JobState]
    bad = job(
        "a_very_long_job_name_" * 5,
        JobState.FAILING,
        failure=TROUBLE,
        source_max=8_999_999,
        rejected={"no_time": 4, "too_late": 2},
        late_rows=3,
        waiting=18,
        counters=counters,
    )
    new = job("<b>new</b>", JobState.NEW, watermark=None, source_max=None, delivered_at=None, totals=())
    ends = (
        EndpointReport("source app", "mysql db1", NOW - 3),
        EndpointReport("carbon", "graphite:2003", None, TROUBLE),
        EndpointReport("state", "/var/lib/shipper/shipper.db", NOW - 2, praise="written"),
    )
    return report(*jobs, bad, new, *(job(f"many{number}") for number in range(50)), endpoints=ends)
