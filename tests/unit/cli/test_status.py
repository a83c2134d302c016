"""The text of `shipper status`."""

import html
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import click
import pytest
from reports import DIFFERENT, EQUAL, FAILED, NOW, TROUBLE, audited, job, report, troubled

from shipper.cli.status import exit_code, status_text
from shipper.core.errors import ConfigError
from shipper.runtime.endpoints import evidence_of
from shipper.status.page.html import page
from shipper.status.page.server import answer
from shipper.status.report import EndpointReport, Failure, JobState, Report

SHARDS = report(job("logins@a"), job("logins@b"), job("orders", JobState.LATE), job("left", JobState.GONE))

LACKING = EndpointReport("graphite", "web", NOW - 3, TROUBLE, "does not hold what was sent", is_needed=False)


def plain(of: Report) -> str:
    """Return the text without its colours."""
    return click.unstyle(status_text(of.document()))


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (report(), []),
        (report(job("new", JobState.NEW), job("left", JobState.GONE)), []),
        (SHARDS, ["late: orders"]),
        (report(job("a", JobState.HELD), job("b", JobState.FAILING)), ["held: a", "failing: b"]),
        (report(endpoints=(EndpointReport("carbon", "x", None, TROUBLE),)), ["carbon does not answer"]),
        (report(endpoints=(EndpointReport("carbon", "x"),)), []),  # not known yet
        (report(endpoints=(LACKING,)), ["graphite does not hold what was sent"]),
        (report(endpoints=(replace(LACKING, failure=None, reached_at=None),)), []),  # nothing was to be read yet
        (report(stalled=("delivery",)), ["no progress: delivery"]),
        (report(*(job(f"j{n}", JobState.FAILING) for n in range(7))), ["failing: j0, j1, j2, j3, j4, 2 more"]),
    ],
)
def test_complaints(of: Report, said: list[str]) -> None:
    """Complaints decide the exit code; states that end by themselves are none."""
    assert of.complaints() == of.document()["complaints"] == said


def test_text_of_a_good_service() -> None:
    """The text shows service, uptime, endpoints and jobs in a hundred columns."""
    wanted = job("failed_logins", waiting=18, unproven=41, source_max=8_413_760, complete_until=int(NOW) - 340)
    shown = plain(report(wanted, job("new", JobState.NEW, watermark=None, delivered_at=None)))

    assert shown.startswith("shipper 1.0.0 on web1: running for 3d3h, process 812; configuration loaded 2027-01-")
    rows = {line.split()[0]: line for line in shown.splitlines() if line}
    assert rows["source"].split() == ["source", "app", "mysql", "db1.internal/app", "answers", "3s", "ago"]
    assert rows["JOB"] == "JOB            STATE  WATERMARK  BEHIND  LAG    WAITING  UNPROVEN  DELIVERED  NEXT"
    assert rows["failed_logins"].split() == "failed_logins ok 8412556 1204 5m40s 18 41 20s ago in 34s".split()  # noqa: SIM905
    assert rows["new"].split() == ["new", "new", *"------", "in", "34s"]
    assert shown.splitlines()[-1] == "health not known yet: job new not read"
    assert max(map(len, shown.splitlines())) <= 100


def test_text_of_what_is_wrong() -> None:
    """An error that many jobs share is shown once, by its endpoint, with its hint; rejected and late rows are shown."""
    shown = plain(troubled())

    assert shown.count(TROUBLE.error) == 1
    assert f"\ncarbon: {TROUBLE.error}\n    7 times since 2027-01-15 " in shown
    assert f"\n    {TROUBLE.hint}\n" in shown
    assert "rejected rows: no_time 4, too_late 2; see Rows are rejected in deploy/troubleshoot.md\n" in shown
    assert "counted late rows of audit_trail: 3\n" in shown
    assert shown.splitlines()[-1].startswith("unhealthy: carbon does not answer; stopped: stopped; held: held; ")


def test_text_of_a_graphite_that_lacks_something() -> None:
    """Values that Graphite lacks are shown at its endpoint, beside the kind of proof."""
    of = report(endpoints=(LACKING,), evidence="samples are proven")
    shown = plain(of)

    assert "\ngraphite  web      does not hold what was sent  3s ago\n" in shown
    assert "\nproof: samples are proven\n" in shown
    assert f"\ngraphite: {TROUBLE.error}\n" in shown
    assert shown.endswith("\nunhealthy: graphite does not hold what was sent")
    assert of.summary().startswith(
        f"1 job, unhealthy: graphite does not hold what was sent; graphite: {TROUBLE.error[:20]}"
    )
    assert "\nproof" not in plain(report())


@pytest.mark.parametrize(
    ("replay", "proof", "render_url", "said"),
    [
        ((60, 600, 3600), "readback", "http://web", "every value is proven, by reading it back from Graphite"),
        (
            (60, 600, 3600),
            "replay",
            "http://web",
            "some values (samples) are read back from Graphite; all others count as stored after 4 sends",
        ),
        (
            (60,),
            "replay",
            None,
            "no proof without render_url: a value counts as stored after 2 sends",
        ),
    ],
)
def test_evidence(replay: tuple[int, ...], proof: str, render_url: str | None, said: str) -> None:
    """The kind of proof fits in a line."""
    config: Any = SimpleNamespace(graphite=SimpleNamespace(replay=replay, proof=proof, render_url=render_url))
    assert evidence_of(config) == said
    assert len(f"proof: {said}") <= 100


def test_text_of_a_service_that_does_not_run() -> None:
    """Jobs of a stopped service have no state, and the text does not say healthy."""
    shown = plain(report(job("a", JobState.NEW), pid=None, started_at=None, loaded_at=None))

    assert "on web1: not running; " in shown
    assert "\n    Start it: systemctl start shipper.\n" in shown
    assert "\na    -      8412556 " in shown
    assert "healthy" not in shown


def test_text_while_a_single_command_uses_the_state() -> None:
    """A process that uses the state, but is no service, is named, and the text does not say healthy."""
    shown = plain(report(pid=None, user_pid=22424, started_at=None, loaded_at=None))

    assert "no service runs; process 22424 (a single command, such as `shipper once`) uses the state now" in shown
    assert "healthy" not in shown


def test_reset_job() -> None:
    """A job that was reset is not known yet, and status and page say that it continues at its next tick."""
    of = report(job("a", JobState.NEW, reset_at=NOW - 5), job("b"))

    assert "\na: reset 5s ago; it continues at its next tick\n" in plain(of)
    assert plain(of).endswith("\nhealth not known yet: job a not read")
    assert "Reset by an operator" in page(of)
    assert "continues at its next tick" not in plain(report()) + page(report())


def test_paused_job() -> None:
    """A paused job is intended, and each tool says it. Mutants: leave the remark out of any."""
    of = report(job("a", JobState.PAUSED, paused_since=NOW - 3600, next_tick=None), job("b"))
    shown = plain(of)

    assert (of.complaints(), of.is_ready) == ([], True)
    assert shown.endswith("\nhealthy; paused: a")
    assert "\na: paused since 2027-01-15 " in shown
    assert "; `shipper resume a` lets it continue where it was" in shown
    assert of.summary() == "2 jobs, healthy; paused: a"
    assert "<title>● healthy; paused: a" in page(of)
    assert "Paused by an operator" in page(of)
    assert answer("/readyz", "", lambda **_: of).body == "ok; paused: a\n"
    assert "[+]job a (paused) ok" in answer("/readyz", "verbose", lambda **_: of).body
    assert (
        f'shipper_job_paused_timestamp_seconds{{job_name="a"}} {NOW - 3600}'
        in answer("/metrics", "", lambda **_: of).body
    )
    assert of.document()["remarks"] == ["paused: a"]
    stopped = plain(replace(of, pid=None, started_at=None, loaded_at=None))
    assert "\na    paused  8412556" in stopped
    assert "\nb    -       8412556" in stopped


def test_only() -> None:
    """A report can be limited to jobs, by name or for all sources, with the endpoints that they need."""
    ends = tuple(EndpointReport(name, "", None, TROUBLE) for name in ("source app", "source other", "carbon"))
    of = replace(SHARDS, endpoints=ends)

    assert [one.job for one in of.only(["logins"]).jobs] == ["logins@a", "logins@b"]
    assert [one.job for one in of.only(["left", "logins@b", "left"]).jobs] == ["left", "logins@b"]
    assert [one.name for one in of.only(["orders"]).endpoints] == ["source app", "carbon"]
    assert of.only(["logins@a"]).complaints() == ["source app does not answer", "carbon does not answer"]
    assert of.only([]) == of
    with pytest.raises(ConfigError, match="no job 'ordrs'") as caught:
        of.only(["ordrs"])
    assert caught.value.hint == "The jobs are: logins@a, logins@b, orders, left."


CARBON = EndpointReport("carbon", "x", NOW)
SITUATIONS: list[dict[str, Any]] = [
    {},
    {"stalled": ("delivery",)},
    {"rejected": TROUBLE},
    {"is_config_changed": True},
    {"rejected": TROUBLE, "is_config_changed": True},
    *({"endpoints": (replace(CARBON, name=name, failure=TROUBLE),)} for name in ("carbon", "source app", "state")),
    {"endpoints": (replace(CARBON, reached_at=None),)},
    {"endpoints": (replace(CARBON, reached_at=None, failure=TROUBLE),)},
    {"endpoints": (LACKING,)},
    {"endpoints": (replace(LACKING, failure=None, reached_at=None),)},
]


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("failure", [None, TROUBLE])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_judges_agree(state: JobState, failure: Failure | None, situation: dict[str, Any]) -> None:
    """Page, command, exit code, systemd, readiness and metrics never disagree, whatever the situation is.

    Mutants: a second list of healthy states; any of the situations left out of complaints, or of checks.
    """
    of = report(job("a", state, failure=failure), job("b"), **{"endpoints": (CARBON,), **situation})
    verdict, ready = of.verdict(), answer("/readyz", "verbose", lambda **_: of)
    is_healthy = verdict.partition(";")[0] == "healthy"

    assert verdict.startswith(("healthy", "unhealthy: ", "health not known yet: "))
    assert is_healthy is of.is_ready is of.document()["is_ready"]
    assert exit_code(of.document()) == (0 if is_healthy else 1)
    assert plain(of).splitlines()[-1] == verdict
    assert f"{html.escape(verdict)} · shipper on" in page(of)
    assert ("<title>● " in page(of)) is is_healthy
    assert f"job{'' if state is JobState.GONE else 's'}, {verdict}" in of.summary()
    assert (ready.status == 200) is ("[-]" not in ready.body) is is_healthy
    assert (answer("/readyz", "", lambda **_: of).body.startswith("ok")) is is_healthy
    assert f"shipper_ready {int(is_healthy)}\n" in answer("/metrics", "", lambda **_: of).body
    stopped = replace(of, pid=None)
    assert (exit_code(stopped.document()), stopped.is_ready) == (3, False)


def test_configuration_is_shown() -> None:
    """A rejected reload is shown with its error by all tools; a file that was not loaded yet is a remark."""
    rejected, changed = report(rejected=TROUBLE), report(is_config_changed=True)

    assert plain(rejected).endswith("\nunhealthy: configuration rejected")
    assert f"\nreload: {TROUBLE.error}\n    7 times since 2027-01-15 " in plain(rejected)
    assert html.escape(TROUBLE.error) in page(rejected)
    assert "[-]configuration failed: read window" in answer("/readyz", "", lambda **_: rejected).body
    assert plain(changed).endswith("\nhealthy; configuration changed, not reloaded")
    metrics = answer("/metrics", "", lambda **_: replace(rejected, is_config_changed=True)).body
    assert "\nshipper_config_last_reload_successful 0\n" in metrics
    assert "\nshipper_config_file_changed 1\n" in metrics
    assert f"\nshipper_config_last_reload_success_timestamp_seconds {NOW - 273_000}\n" in metrics


def test_state_is_an_endpoint() -> None:
    """The state's disk is shown with its path, by all tools, also of a report of some jobs."""
    path = "/var/lib/shipper/shipper.db"
    of = report(endpoints=(EndpointReport("state", path, NOW - 9, TROUBLE, "cannot be used", "written"),))
    good = report(endpoints=(EndpointReport("state", path, NOW - 9, praise="written"),))

    assert f"\nstate     {path}  cannot be used  9s ago\n" in plain(of)
    assert of.only(["logins"]).complaints() == ["state cannot be used"]
    assert "✕ cannot be used" in page(of)
    assert f"{path}, 48.0 KiB; last " in page(of)
    assert 'shipper_endpoint_consecutive_failures{endpoint="state"} 7' in answer("/metrics", "", lambda **_: of).body
    assert f"\nstate     {path}  written  9s ago\n" in plain(good)


def test_audits() -> None:
    """Each tool shows the newest audits, with what to do; only an audit that compared is equal.

    Mutants: a failed audit is equal; one that compared little is equal; different is no complaint.
    """
    shown = plain(audited())
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if " slots " in line or " - " in line}

    assert rows["good"] == ["equal", *"10,000 of 10,080 slots".split(), "0", "0", "0", "2h", "ago"]  # noqa: SIM905
    assert rows["few"][:2] == ["incomplete", "10"]
    assert rows["bad"] == ["different", *"10,080 of 10,080 slots".split(), "2", "3", "1", "1h58m", "ago"]  # noqa: SIM905
    assert rows["failed"] == ["failed", *"----", "1h56m", "ago"]
    assert "new" not in rows
    assert "\naudit: next in 22h\n" in shown
    assert f"\naudit of failed: {TROUBLE.error}\n" in shown
    problem = "2 of 10,080 slots differ in Graphite: 3 rows missing, 1 surplus"
    assert f"\naudit of bad: {problem}\n" in shown
    span = "--from 2027-01-14T07:00:00Z --until 2027-01-14T09:46:00Z"
    assert f"    `shipper reconcile bad {span}` shows the differences; with --fix it corrects Graphite.\n" in shown
    assert shown.endswith("\nunhealthy: Graphite differs: bad; audit failed: failed")
    assert f"[-]audit of bad failed: {problem}\n" in answer("/readyz", "", lambda **_: audited()).body
    assert "[+]audit of few ok\n" in answer("/readyz", "", lambda **_: audited()).body
    assert '<b class="bad">✕ 1 incomplete, 1 different, 1 failed</b>' in page(audited())
    assert f'<p class="error">audit: {problem}</p>' in page(audited())
    assert '<b class="good">● equal</b>' in page(report(job("a", audit=EQUAL)))
    assert "… not compared yet" in page(report(next_audit=NOW + 60))
    assert "20<i>090</i> of 21<i>600</i> slots compared" in page(audited())
    assert re.search(r"Audit: incomplete, <[^>]*>10 of 1<i>440</i> slots compared<", page(audited()))
    assert f"shipper reconcile bad {span}" in page(audited())


@pytest.mark.parametrize(
    ("of", "code", "line"),
    [
        (report(job("a", audit=EQUAL), next_audit=NOW + 60), 0, "audit: next in 1m"),
        (report(audit_since=NOW - 60, next_audit=NOW + 60), 0, "audit: running for 1m"),
        (report(job("a", audit=DIFFERENT)), 1, "unhealthy: Graphite differs: a"),
        (report(job("a", audit=FAILED)), 1, "unhealthy: audit failed: a"),
    ],
)
def test_verdict_of_audits(of: Report, code: int, line: str) -> None:
    """A difference or a failed audit makes the service unhealthy; an equal one, and none yet, do not."""
    assert exit_code(of.document()) == code
    assert f"\n{line}" in plain(of)
