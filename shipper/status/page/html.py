"""Status page: tiles for endpoints, backlog and state, then the jobs, those that need an operator first.

It is one document without scripts and without further files.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from shipper.core import durations
from shipper.core.verify.audit import Outcome
from shipper.status.page.markup import (
    Markup,
    ago,
    ahead,
    counted,
    join,
    muted,
    number,
    plural,
    size,
    tag,
    utc,
)
from shipper.status.page.style import STYLE
from shipper.status.report import EndpointReport, Failure, JobReport, JobState, Report

_IDLE = {JobState.PAUSED, JobState.GONE}


def tiles(report: Report) -> Markup:
    """Return the list of tiles."""
    endpoints = [_endpoint(one, report) for one in report.endpoints]
    contents = [*endpoints, _backlog(report), *([_audit_tile(report)] if _has_audits(report) else [])]
    return tag("ul", *(tag("li", *content) for content in contents), class_="tiles")


def _endpoint(endpoint: EndpointReport, report: Report) -> Iterable[Markup]:
    if endpoint.failure:
        kind, words = "bad", f"✕ {endpoint.complaint}"
    elif endpoint.reached_at is None:
        kind, words = "warn", "… not reached yet"
    else:
        kind, words = "good", f"● {endpoint.praise}"
    about = f", {size(report.state_bytes)}" if endpoint.name == "state" and report.state_bytes is not None else ""
    yield muted(endpoint.name)
    yield tag("b", words, class_=kind)
    last = [] if endpoint.reached_at is None else ["; last ", ago(endpoint.reached_at, report.now)]
    yield tag("span", endpoint.address, about, *last, class_="muted")


def _backlog(report: Report) -> Iterable[Markup]:
    worst = report.worst
    yield muted("Backlog")
    unknown = [job.job for job in report.jobs if job.source_max is None and job.state not in _IDLE]
    if worst is None and unknown:
        yield tag("b", "… not known", class_="warn")
        yield muted(f"not read yet: job {unknown[0]}")
        return
    if worst is None:
        yield tag("b", "● nothing", class_="good")
        yield muted("at the last tick")
        return
    yield tag("b", counted(worst.behind or 0, "id"), class_="warn")
    yield muted(f"worst: {worst.job}")


def _has_audits(report: Report) -> bool:
    return report.next_audit is not None or any(job.audit for job in report.jobs)


def _audit_tile(report: Report) -> Iterable[Markup]:
    """Yield the results of the newest audits, and when the last one ended."""
    audits = [job.audit for job in report.jobs if job.audit]
    yield muted("Audit: source and Graphite")
    if not audits:
        yield tag("b", "… not compared yet", class_="warn")
    else:
        jobs = Counter(audit.outcome for audit in audits)
        kind, mark = _OUTCOMES[max(jobs, key=list(Outcome).index)]
        others = [f"{jobs[one]} {one.value}" for one in Outcome if jobs[one] and one is not Outcome.EQUAL]
        words = ", ".join(others) or Outcome.EQUAL.value
        yield tag("b", f"{mark} {words}", class_=kind)
        compared, requested = sum(audit.compared for audit in audits), sum(audit.requested for audit in audits)
        yield _compared(compared, requested)
    times: list[tuple[str, str]] = [("last ", ago(max(audit.at for audit in audits), report.now))] if audits else []
    if report.audit_since is not None:
        times.append(("running for ", durations.show(report.now - report.audit_since)))
    elif report.next_audit is not None:
        times.append(("next ", ahead(report.next_audit, report.now)))
    yield tag("span", *(join("; " if number else "", *words) for number, words in enumerate(times)), class_="muted")


_OUTCOMES = {
    Outcome.EQUAL: ("good", "●"),
    Outcome.INCOMPLETE: ("warn", "…"),
    Outcome.DIFFERENT: ("bad", "✕"),
    Outcome.FAILED: ("bad", "✕"),
}
_MARKS = {
    JobState.OK: ("good", "● ok"),
    JobState.GONE: ("muted", "○ gone"),
    JobState.NEW: ("warn", "… new"),
    JobState.PAUSED: ("warn", "‖ paused"),
    JobState.LATE: ("warn", "▲ late"),
    JobState.OVERDUE: ("bad", "▲ overdue"),
    JobState.FAILING: ("bad", "✕ failing"),
    JobState.HELD: ("bad", "■ held"),
    JobState.STOPPED: ("bad", "■ stopped"),
}
_URGENCY = {state: rank for rank, state in enumerate(_MARKS)}
_HEADS = (
    ("Job", "job"),
    ("State", "narrow"),
    ("Watermark", "narrow number"),
    ("Backlog", "narrow number"),
    ("Last delivery", "narrow"),
    ("Next tick", "narrow"),
    ("Rows a minute, last hour", "figures"),
)
_BAR, _GAP, _HEIGHT = 2, 1, 24


def jobs(report: Report) -> Markup:
    """Return the table of jobs, the most urgent first."""
    heads = (tag("th", head, scope="col", class_=kind) for head, kind in _HEADS)
    ordered = sorted(report.jobs, key=lambda job: (-_URGENCY[job.state], job.audit_failure is None, job.job))
    return tag("table", tag("thead", tag("tr", *heads)), *(_job(job, report.now) for job in ordered))


def _job(job: JobReport, now: float) -> Markup:
    kind, mark = _MARKS[job.state]
    about = " · ".join(words for words in (job.title, job.schedule, f"{job.table} in {job.source}") if words)
    cells = (
        tag("th", tag("b", job.job), muted(about), scope="row"),
        tag("td", mark, class_=f"state {kind}"),
        tag("td", _watermark(job), class_="number", data_label="Watermark"),
        tag("td", *_behind(job, now), class_="number", data_label="Backlog"),
        tag("td", ago(job.delivered_at, now), data_label="Last delivery"),
        tag("td", ahead(job.next_tick, now), data_label="Next tick"),
        tag("td", *_sparkline(job), class_="figures", data_label="Rows a minute, last hour"),
    )
    more = list(_more(job, now, kind))
    row = tag("tr", tag("td", *more, colspan=str(len(_HEADS))), class_="more") if more else ""
    return tag("tbody", tag("tr", *cells), row)


def _watermark(job: JobReport) -> Markup | str:
    if job.is_along and job.watermark is not None:
        return utc(job.watermark).removesuffix(" UTC")
    return number(job.watermark)


def _behind(job: JobReport, now: float) -> Iterable[Markup]:
    yield muted("unknown") if job.behind is None else counted(job.behind, "second" if job.is_along else "id")
    if job.behind and job.complete_until is not None:
        yield muted(f"complete up to {durations.show(now - job.complete_until)} ago")
    if job.waiting:
        yield muted(f"{plural(job.waiting, 'datapoint')} waiting")


def _more(job: JobReport, now: float, kind: str) -> Iterable[Markup]:
    """Yield the error of a job or its pause, its reset, its rejected and late rows, and its newest audit."""
    if job.paused_since is not None:
        hint = f"; shipper resume {job.job} lets it continue where it was"
        yield tag("p", "Paused by an operator ", ago(job.paused_since, now), hint, class_="muted")
    if job.reset_at is not None:
        yield tag("p", "Reset by an operator ", ago(job.reset_at, now), "; continues at its next tick", class_="muted")
    if job.failure is not None:
        yield _failure(job.failure, now, kind)
    if job.rejected:
        rows = ", ".join(f"{reason.replace('_', ' ')} {rows}" for reason, rows in job.rejected.items())
        page = "see Rows are rejected in deploy/troubleshoot.md"
        yield tag("p", f"Rejected rows, by reason: {rows}; {page}", class_="muted")
    if job.late_rows:
        yield tag("p", f"{plural(job.late_rows, 'row')} of {job.table} committed late, and are counted", class_="muted")
    if (problem := job.audit_failure) is not None:
        yield _failure(replace(problem, error=f"audit: {problem.error}"), now, "bad")
    elif job.audit is not None and job.audit.outcome is not Outcome.EQUAL:
        words, compared = f"Audit: {job.audit.outcome.value}, ", _compared(job.audit.compared, job.audit.requested)
        yield tag("p", words, compared, ", ", ago(job.audit.at, now), class_="muted")


def _compared(slots: int, of: int) -> Markup:
    return tag("span", number(slots), " of ", number(of), " slots compared", class_="muted")


def _failure(failure: Failure, now: float, kind: str) -> Markup:
    since = tag("time", durations.show(now - failure.since), title=utc(failure.since))
    times = join("for ", since, f", {plural(failure.failures, 'time')}")
    hint = tag("p", failure.hint) if failure.hint else ""
    return tag(
        "div", tag("p", failure.error, class_="error"), hint, tag("p", times, class_="muted"), class_=f"failure {kind}"
    )


def _sparkline(job: JobReport) -> Iterable[Markup]:
    """Yield a bar for each minute, if the rows of each minute are known."""
    if not job.totals:
        yield muted("none")
        return
    most, width = max(*job.totals, 1), len(job.totals) * (_BAR + _GAP)
    heights = [(x, round(_HEIGHT * rows / most)) for x, rows in enumerate(job.totals) if rows]
    bars = (
        tag("rect", x=str(x * (_BAR + _GAP)), y=str(_HEIGHT - height), width=str(_BAR), height=str(height))
        for x, height in heights
        if height
    )
    summary = f"{plural(sum(job.totals), 'row')} in the last hour, at most {max(job.totals)} a minute"
    yield tag(
        "svg",
        tag("title", summary),
        *bars,
        viewBox=f"0 0 {width} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        fill="currentColor",
    )


REFRESH_SECONDS = 10


def page(report: Report) -> str:
    """Return the document."""
    kind, words = _overall(report)
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="refresh", content=str(REFRESH_SECONDS)),
        tag("title", f"{words} · shipper on {report.host}"),
        tag("style", Markup(STYLE)),
    )
    main = (_header(report), tag("p", words, class_=f"overall {kind}", role="status"), tiles(report))
    table = (tag("h2", plural(len(report.jobs), "job")), jobs(report))
    body = tag("main", *main, *_failures(report), *table, _footer(report))
    return join(Markup("<!doctype html>"), tag("html", tag("head", *head), tag("body", body), lang="en"))


def _failures(report: Report) -> Iterable[Markup]:
    """Yield the errors that no row of a job shows: those of endpoints, and of a rejected configuration."""
    shown = {job.failure.error for job in report.jobs if job.failure}
    for one in report.endpoints:
        if one.failure is not None and one.failure.error not in shown:
            yield _failure(replace(one.failure, error=f"{one.name}: {one.failure.error}"), report.now, "bad")
    if report.rejected is not None:
        yield _failure(report.rejected, report.now, "bad")


def _overall(report: Report) -> tuple[str, str]:
    """Return the service's health, as a word for the style and as a sentence."""
    complaints, verdict = report.complaints(), report.verdict()
    if complaints:
        is_late = all(one.startswith(JobState.LATE.value) for one in complaints)
        return "warn" if is_late else "bad", f"✕ {verdict}"
    return ("warn", f"… {verdict}") if report.unseen() else ("good", f"● {verdict}")


def _header(report: Report) -> Markup:
    up = "not running" if report.started_at is None else f"up {durations.show(report.now - report.started_at)}"
    return tag("header", tag("h1", "shipper"), tag("span", f"{report.host} · {report.version} · {up}", class_="muted"))


def _footer(report: Report) -> Markup:
    links = [tag("a", path, href=path) for path in ("/status", "/readyz?verbose", "/livez", "/metrics")]
    loaded = ago(report.loaded_at, report.now)
    return tag("footer", f"{report.config_file}, loaded ", loaded, " · ", *(join(link, " ") for link in links))
