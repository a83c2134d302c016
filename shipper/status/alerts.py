"""Alerts as rules for Prometheus, each with a link to its symptom in the handbook."""

import json
from typing import NamedTuple


class Alert(NamedTuple):
    """One rule."""

    name: str
    expression: str
    lasts: str
    """How long the expression must hold before the alert fires."""
    severity: str
    """`critical`: rows do not reach Graphite, or not all; `warning`: an operator should look at it today."""
    summary: str
    page: str
    """Page and heading in the handbook."""


_JOB = "job {{ $labels.job_name }}"
ALERTS = (
    Alert(
        "ShipperDown",
        'up{job="shipper"} == 0 or absent(up{job="shipper"})',
        "5m",
        "critical",
        "shipper does not answer Prometheus: it is stopped, cannot start, or its status page cannot be reached.",
        "troubleshoot.md#the-service-does-not-start",
    ),
    Alert(
        "ShipperJobStale",
        # a job may change between these states
        'max without (state) (shipper_job_state{state=~"late|failing|overdue"}) == 1',
        "10m",
        "critical",
        f"{_JOB}: its rows do not reach Graphite.",
        "troubleshoot.md#a-job-lags",
    ),
    Alert(
        "ShipperJobHeld",
        'shipper_job_state{state=~"held|stopped"} == 1',
        "1m",
        "critical",
        f"{_JOB} is {{{{ $labels.state }}}}: it does not continue by itself.",
        "troubleshoot.md#a-job-is-{{ $labels.state }}",
    ),
    Alert(
        "ShipperJobPaused",
        "time() - shipper_job_paused_timestamp_seconds > 4 * 3600",
        "0s",
        "warning",
        f"{_JOB} has been paused for {{{{ $value | humanizeDuration }}}}: was it forgotten after a maintenance?",
        "repair.md#pause-a-job",
    ),
    Alert(
        "ShipperConfigRejected",
        "shipper_config_last_reload_successful == 0",
        "1m",
        "warning",
        "The last reload was rejected: shipper still runs with the previous configuration.",
        "troubleshoot.md#a-reload-fails",
    ),
    Alert(
        "ShipperStateDisk",
        # an upgrade copies the state
        "shipper_state_free_bytes < shipper_state_bytes + 100e6"
        ' or shipper_endpoint_consecutive_failures{endpoint="state"} > 0',
        "1m",
        "critical",
        "The disk of the state is full or nearly full, or the state cannot be used.",
        "troubleshoot.md#disk-full",
    ),
    Alert(
        "ShipperRowsRejected",
        "increase(shipper_job_rejected_rows_total[15m]) > 0",
        "0s",
        "warning",
        f"{_JOB}: Graphite cannot show some rows ({{{{ $labels.reason }}}}).",
        "troubleshoot.md#rows-are-rejected",
    ),
    Alert(
        "ShipperUnproven",
        'shipper_endpoint_consecutive_failures{endpoint="graphite"} > 0',
        "15m",
        "critical",
        "Graphite lacks values that Carbon has confirmed, or does not answer when they are read back.",
        "troubleshoot.md#carbon-confirms-but-does-not-store",
    ),
    Alert(
        "ShipperAuditDiffers",
        "shipper_job_audit_different_slots > 0 or shipper_job_audit_successful == 0",
        "0s",
        "warning",
        f"{_JOB}: the newest audit found a difference between source and Graphite, or failed.",
        "monitor.md#audits",
    ),
    Alert(
        "ShipperNoLeader",
        "max(shipper_leader) == 0",
        "2m",
        "critical",
        "All machines stand by: no rows reach Graphite.",
        "troubleshoot.md#no-machine-leads",
    ),
    Alert(
        "ShipperLeaseLost",
        "max(max_over_time(shipper_term[1h])) - min(min_over_time(shipper_term[1h])) > 3",
        "0s",
        "warning",
        "Machines have taken over the lead {{ $value }} times within an hour.",
        "troubleshoot.md#the-lease-is-lost-again-and-again",
    ),
)


def rules(handbook: str = "") -> str:
    """Return a file of rules; handbook is the address of the folder with the handbook's pages, or empty."""
    return "groups:\n- name: shipper\n  rules:\n" + "".join(_rule(alert, handbook) for alert in ALERTS)


def _rule(alert: Alert, handbook: str) -> str:
    page = f"{handbook.rstrip('/')}/{alert.page}" if handbook else alert.page
    return (
        f"  - alert: {alert.name}\n"
        f"    expr: {_text(alert.expression)}\n"
        f"    for: {alert.lasts}\n"
        f"    labels:\n"
        f"      severity: {alert.severity}\n"
        f"    annotations:\n"
        f"      summary: {_text(alert.summary)}\n"
        f"      runbook_url: {_text(page)}\n"
    )


def _text(value: str) -> str:
    """Quote a text: strings of JSON are strings of YAML."""
    return json.dumps(value, ensure_ascii=False)
