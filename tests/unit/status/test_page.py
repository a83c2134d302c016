"""Health, metrics and page of a report."""

import html
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from prometheus_client.parser import text_string_to_metric_families
from reports import NOW, TROUBLE, audited, job, report, troubled

from shipper.core.errors import StateBusy
from shipper.status.page.html import page
from shipper.status.page.server import answer
from shipper.status.report import EndpointReport, JobState, Report

ENDS = (EndpointReport("source app", "mysql db1", NOW - 3), EndpointReport("carbon", "graphite:2003", None, TROUBLE))


def samples(of: Report) -> dict[tuple[str, ...], float]:
    """Return the metrics as Prometheus reads them, by name and label values."""
    families = text_string_to_metric_families(answer("/metrics", "", lambda **_: of).body)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


class Outline(HTMLParser):
    """Elements of a document; it asserts that they are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Remember the element."""
        self.tags.append(tag)
        if tag not in {"meta", "link", "col"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last."""
        assert self._open.pop() == tag


@pytest.mark.parametrize(
    ("of", "live", "ready"),
    [
        (report(), 200, 200),
        (report(endpoints=ENDS), 200, 503),  # a restart does not cure a dead Carbon
        (report(stalled=("delivery",)), 503, 503),
        (report(job("a", JobState.STOPPED)), 200, 503),
        (report(job("a", JobState.FAILING, failure=TROUBLE)), 200, 503),  # as `shipper status` says
        (report(endpoints=(EndpointReport("carbon", "x"),)), 200, 503),  # not reached yet
        (report(endpoints=(EndpointReport("graphite", "x", is_needed=False),)), 200, 200),  # nothing waits for it
        (report(endpoints=(EndpointReport("graphite", "x", None, TROUBLE, is_needed=False),)), 200, 503),
    ],
)
def test_health(of: Report, live: int, ready: int) -> None:
    """Liveness fails if a restart could help, readiness unless all is healthy."""
    assert (answer("/livez", "", lambda **_: of).status, answer("/readyz", "", lambda **_: of).status) == (live, ready)


def test_readyz_verbose() -> None:
    """Each check has one line, in the format of Kubernetes, whatever an error contains."""
    lines = answer("/readyz", "verbose", lambda **_: report(endpoints=ENDS)).body.splitlines()

    assert lines[:2] == ["[+]alive ok", "[+]source app ok"]
    assert lines[2].startswith("[-]carbon failed: read window")
    assert lines[3:] == ["[+]configuration ok", "[+]job logins ok", "readyz check failed"]


def test_values_missing_in_graphite() -> None:
    """Page and metrics show that Graphite does not hold the values."""
    of = report(
        endpoints=(EndpointReport("graphite", "web", NOW - 3, TROUBLE, "does not hold what was sent", is_needed=False),)
    )

    assert "✕ does not hold what was sent" in answer("/", "", lambda **_: of).body
    assert samples(of)["shipper_endpoint_consecutive_failures", "graphite"] == TROUBLE.failures


def test_metrics() -> None:
    """Prometheus reads the metrics: base units, no sample for an unknown value, a 0 for what can be counted."""
    values, bad = samples(troubled()), "a_very_long_job_name_" * 5

    assert values["shipper_job_watermark", "ok"] == 8_412_556
    assert values["shipper_job_behind_ids", "ok"] == 0
    assert values["shipper_job_complete_until_timestamp_seconds", "ok"] == NOW - 12
    assert values["shipper_job_state", "held", "held"] == 1
    assert values["shipper_job_state", "held", "ok"] == 0
    assert [values["shipper_job_rejected_rows_total", bad, one] for one in ("no_time", "too_late", "future")] == [
        4,
        2,
        0,
    ]
    assert (values["shipper_job_rows_total", bad], values["shipper_job_late_rows_total", bad]) == (9, 3)
    assert values["shipper_job_waiting_datapoints", bad] == 18
    assert ("shipper_job_watermark", "<b>new</b>") not in values
    assert (values["shipper_job_consecutive_failures", bad], values["shipper_job_failures_total", bad]) == (7, 7)
    assert values["shipper_job_capture_duration_seconds_sum", "ok"] == 1.5
    assert values["shipper_job_capture_duration_seconds_count", "ok"] == 120
    assert values["shipper_delivery_duration_seconds_count",] == values["shipper_deliveries_total",] == 80
    assert (values["shipper_ready",], values["shipper_delivery_failures_total",]) == (0, 1)


def test_metrics_of_audits() -> None:
    """Numbers of an audit exist if it compared; its time and success, if there was one. Mutant: 0 for a failed one."""
    values = samples(audited())
    numbers = ("compared_slots", "different_slots", "missing_rows", "surplus_rows")

    assert [values[f"shipper_job_audit_{name}", "bad"] for name in numbers] == [10_080, 2, 3, 1]
    assert [values[f"shipper_job_audit_{name}", "good"] for name in numbers] == [10_000, 0, 0, 0]
    assert not {(f"shipper_job_audit_{name}", job) for name in numbers for job in ("failed", "new")} & values.keys()
    assert [values["shipper_job_audit_successful", job] for job in ("good", "bad", "failed")] == [1, 1, 0]
    assert values["shipper_job_audit_timestamp_seconds", "good"] == NOW - 7200
    assert ("shipper_job_audit_timestamp_seconds", "new") not in values


def test_status_is_json() -> None:
    """`/status` is the report as JSON."""
    document = json.loads(answer("/status", "", lambda **_: troubled()).body)

    assert document["is_running"] is True
    assert document["is_ready"] is False
    assert document["jobs"][0] | {"totals": []} == {**document["jobs"][0], "totals": []}
    assert {one["state"] for one in document["jobs"]} == {state.value for state in JobState}


def test_page_is_closed_and_escaped() -> None:
    """Names and errors add no elements to the document, whatever they contain. Mutant: do not escape."""
    outline = Outline(page(troubled()))

    assert "script" not in outline.tags
    assert (
        outline.tags.count("b") == page(report()).count("<b>") + page(report()).count("<b ") + len(troubled().jobs) - 1
    )
    assert outline.tags.count("table") == 1


def test_backlog_that_is_unknown() -> None:
    """The tile is green only if each job has read its table, unless it is paused; a job with `cron` starts later.

    Mutants: whatever jobs read; what a job has not started to count is unknown.
    """
    blind = job("blind", JobState.FAILING, failure=TROUBLE, source_max=None)

    assert "● nothing" in page(report(job("ok")))
    assert "● nothing" in page(report(job("ok"), job("idle", JobState.PAUSED, source_max=None)))
    assert "● nothing" in page(report(job("ok"), job("nightly", watermark=None)))
    assert "● nothing" not in page(report(job("ok"), blind))
    assert "not read yet: job blind" in page(report(job("ok"), blind))


def test_page_shows_worst_first() -> None:
    """An operator first sees the jobs that need help, with error, remedy, time and number of failures."""
    shown = page(troubled())

    assert shown.index("■ stopped") < shown.index("✕ failing") < shown.index("▲ late") < shown.index("● ok")
    assert "Name a column that the table has." in shown
    assert "5m40s" in shown
    assert "7 times" in shown
    assert "no time 4, too late 2" in shown
    assert "18 datapoints waiting" in shown


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (report(), "● healthy"),
        (report(job("a", JobState.NEW)), "… health not known yet: job a not read"),
        (report(job("a", JobState.LATE)), "✕ unhealthy: late: a"),
        (report(endpoints=ENDS), "✕ unhealthy: carbon does not answer"),
        (report(stalled=("delivery",)), "✕ unhealthy: no progress: delivery"),
    ],
)
def test_page_shows_health(of: Report, words: str) -> None:
    """The page shows the health in words, and in the title, not by colour alone."""
    assert f"<title>{words}" in page(of)


def test_page_shows_errors_of_endpoints() -> None:
    """An error that is in no row of a job is shown above the jobs, with its remedy; one that is in a row only there.

    Mutants: show only those of jobs; show all.
    """
    ends = (EndpointReport("carbon", "graphite:2003", NOW - 9, TROUBLE),)
    failing, remedy = job("a", JobState.FAILING, failure=TROUBLE), str(TROUBLE.hint)
    alone, both = page(report(job("a"), endpoints=ends)), page(report(failing, endpoints=ends))

    assert f"carbon: {TROUBLE.error}" in html.unescape(alone)
    assert alone.index(remedy) < alone.index("<table")
    assert both.count(remedy) == 1
    assert both.index(remedy) > both.index("<table")


def test_tile_of_an_endpoint_that_was_not_reached() -> None:
    """No time is shown for an answer that never came. Mutant: the last answer of any endpoint."""
    fresh, reached = (page(report(endpoints=(EndpointReport("web", "web:80", at),))) for at in (None, NOW - 9))

    assert ("; last" in fresh, "; last" in reached) == (False, True)


def test_sparkline_has_a_bar_for_each_minute_with_rows() -> None:
    """The highest bar is as high as the picture; unknown rows have no picture."""
    flat = page(report(job("a", totals=(0,) * 59 + (5,))))

    assert flat.count("<rect") == 1
    assert 'height="24"' in flat
    assert "<svg" not in page(report(job("a", totals=())))


def test_unknown_path_and_busy_state() -> None:
    """An unknown path is 404; a report that fails is 503 with its reason, and no traceback."""

    def busy() -> Report:
        raise StateBusy("read state: disk full", hint="Make room.")

    assert answer("/etc/passwd", "", report).status == 404
    assert answer("/", "", lambda **_: busy())[::2] == (503, "read state: disk full\nMake room.\n")


def test_summary() -> None:
    """`systemctl status` has one line: number of jobs, complaints, backlog and errors."""
    behind = job("slow", JobState.LATE, source_max=8_412_600)

    assert report().summary() == "1 job, healthy"
    assert report(job("a"), behind).summary() == "2 jobs, unhealthy: late: slow; slow 44 ids behind"
    assert (
        replace(report(), endpoints=ENDS)
        .summary()
        .startswith("1 job, unhealthy: carbon does not answer; carbon: read window")
    )


def test_only_some_answers_need_the_rows_of_minutes() -> None:
    """Probes and scrapes, which come every few seconds, do not add up the rows of the last hour.

    Mutant: ask for them always.
    """
    asked = []

    def reported(*, with_totals: bool = False) -> Report:
        asked.append(with_totals)
        return report()

    paths = ("/", "/status", "/metrics", "/livez", "/readyz")
    for path in paths:
        answer(path, "", reported)

    assert dict(zip(paths, asked, strict=True)) == {**dict.fromkeys(paths, False), "/": True, "/status": True}
