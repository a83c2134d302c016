"""The page: one document that needs nothing else.

The table of jobs: those that need somebody first, each with what is wrong and what to do about it.

The tiles above the jobs: each end, how far behind, the state.
"""

from collections.abc import Iterable

from shipper.core import durations
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


def tiles(report: Report) -> Markup:
    """Return the list of tiles."""
    found = [*(_end(end, report.now) for end in report.ends), _backlog(report), _state(report)]
    return tag("ul", *(tag("li", *parts) for parts in found), class_="tiles")


def _end(end: EndpointReport, now: float) -> Iterable[Markup]:
    if end.trouble:
        kind, words = "bad", f"✕ {end.complaint}"
    elif end.reached_at is None:
        kind, words = "warn", "… not reached yet"
    else:
        kind, words = "good", "● answers"
    yield muted(end.name)
    yield tag("b", words, class_=kind)
    yield tag("span", end.address, "; last answer ", ago(end.reached_at, now), class_="muted")


def _backlog(report: Report) -> Iterable[Markup]:
    worst = report.worst
    yield muted("Behind by")
    if worst is None:
        yield tag("b", "● nothing", class_="good")
        yield muted("as of the last look")
        return
    yield tag("b", counted(worst.behind or 0, "id"), class_="warn")
    yield muted(f"worst: {worst.job}")


def _state(report: Report) -> Iterable[Markup]:
    yield muted("State")
    yield tag("b", "not there yet" if report.state_bytes is None else size(report.state_bytes))
    yield tag("span", report.state_path, class_="muted")


_MARKS = {
    JobState.OK: ("good", "● ok"),
    JobState.GONE: ("muted", "○ gone"),
    JobState.NEW: ("warn", "… new"),
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
    ("Behind", "narrow number"),
    ("Last delivery", "narrow"),
    ("Next tick", "narrow"),
    ("Rows a minute, last hour", "figures"),
)
_BAR, _GAP, _HEIGHT = 2, 1, 24


def jobs(report: Report) -> Markup:
    """Return the table."""
    heads = (tag("th", head, scope="col", class_=kind) for head, kind in _HEADS)
    ordered = sorted(report.jobs, key=lambda job: (-_URGENCY[job.state], job.job))
    return tag("table", tag("thead", tag("tr", *heads)), *(_job(job, report.now) for job in ordered))


def _job(job: JobReport, now: float) -> Markup:
    kind, mark = _MARKS[job.state]
    about = " · ".join(words for words in (job.title, job.schedule, f"{job.table} in {job.source}") if words)
    cells = (
        tag("th", tag("b", job.job), muted(about), scope="row"),
        tag("td", mark, class_=f"state {kind}"),
        tag("td", number(job.watermark), class_="number", data_label="Watermark"),
        tag("td", *_behind(job, now), class_="number", data_label="Behind"),
        tag("td", ago(job.delivered_at, now), data_label="Last delivery"),
        tag("td", ahead(job.next_tick, now), data_label="Next tick"),
        tag("td", *_sparkline(job), class_="figures", data_label="Rows a minute, last hour"),
    )
    more = list(_more(job, now, kind))
    row = tag("tr", tag("td", *more, colspan=str(len(_HEADS))), class_="more") if more else ""
    return tag("tbody", tag("tr", *cells), row)


def _behind(job: JobReport, now: float) -> Iterable[Markup]:
    yield muted("unknown") if job.behind is None else counted(job.behind, "id")
    if job.behind and job.complete_until is not None:
        yield muted(durations.show(now - job.complete_until))
    if job.waiting:
        yield muted(f"{plural(job.waiting, 'datapoint')} wait")


def _more(job: JobReport, now: float, kind: str) -> Iterable[Markup]:
    """Yield what an operator must know beside the figures."""
    if job.trouble is not None:
        yield _trouble(job.trouble, now, kind)
    if job.rejected:
        rows = ", ".join(f"{reason.replace('_', ' ')} {rows}" for reason, rows in job.rejected.items())
        yield tag("p", f"Rows that Graphite cannot show: {rows}", class_="muted")
    if job.late_rows:
        yield tag("p", f"{plural(job.late_rows, 'row')} of {job.table} came late, and are counted", class_="muted")


def _trouble(trouble: Failure, now: float, kind: str) -> Markup:
    since = tag("time", durations.show(now - trouble.since), title=utc(trouble.since))
    times = join("for ", since, f", {plural(trouble.failures, 'time')}")
    hint = tag("p", trouble.hint) if trouble.hint else ""
    return tag(
        "div", tag("p", trouble.error, class_="error"), hint, tag("p", times, class_="muted"), class_=f"trouble {kind}"
    )


def _sparkline(job: JobReport) -> Iterable[Markup]:
    """Yield a bar for each minute; nothing where nobody knows."""
    if not job.totals:
        yield muted("none")
        return
    most, width = max(*job.totals, 1), len(job.totals) * (_BAR + _GAP)
    bars = (
        tag("rect", x=str(x * (_BAR + _GAP)), y=str(_HEIGHT - height), width=str(_BAR), height=str(height))
        for x, height in enumerate(round(_HEIGHT * rows / most) for rows in job.totals)
        if height
    )
    says = f"{sum(job.totals)} rows in the last hour, at most {max(job.totals)} a minute"
    yield tag(
        "svg",
        tag("title", says),
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
    body = tag("main", *main, *table, _footer(report))
    return join(Markup("<!doctype html>"), tag("html", tag("head", *head), tag("body", body), lang="en"))


def _overall(report: Report) -> tuple[str, str]:
    """Return the service's health, as a word for the style and as a sentence."""
    if complaints := report.complaints():
        is_late = all(one.startswith(JobState.LATE.value) for one in complaints)
        return "warn" if is_late else "bad", f"✕ unhealthy: {'; '.join(complaints)}"
    return "good", "● healthy"


def _header(report: Report) -> Markup:
    up = "does not run" if report.started_at is None else f"up {durations.show(report.now - report.started_at)}"
    return tag("header", tag("h1", "shipper"), tag("span", f"{report.host} · {report.version} · {up}", class_="muted"))


def _footer(report: Report) -> Markup:
    links = [tag("a", path, href=path) for path in ("/status", "/readyz?verbose", "/livez", "/metrics")]
    loaded = ago(report.loaded_at, report.now)
    return tag("footer", f"{report.config_file}, loaded ", loaded, " · ", *(join(link, " ") for link in links))
