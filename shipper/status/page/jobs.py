"""The table of jobs: those that need somebody first, each with what is wrong and what to do about it."""

from collections.abc import Iterable

from shipper.status.page.markup import Markup, join, tag
from shipper.status.page.words import ago, ahead, counted, duration, muted, number, plural, utc
from shipper.status.report import Failure, JobReport, JobState, Report

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
        yield muted(duration(now - job.complete_until))
    if job.waiting:
        yield muted(f"{plural(job.waiting, 'datapoint')} wait")


def _more(job: JobReport, now: float, kind: str) -> Iterable[Markup]:
    """Yield what an operator must know beside the figures."""
    if job.trouble is not None:
        yield _trouble(job.trouble, now, kind)
    if job.unshown:
        rows = ", ".join(f"{cause.replace('_', ' ')} {rows}" for cause, rows in job.unshown.items())
        yield tag("p", f"Rows that Graphite cannot show: {rows}", class_="muted")
    if job.late_rows:
        yield tag("p", f"{plural(job.late_rows, 'row')} of {job.table} came late, and are counted", class_="muted")


def _trouble(trouble: Failure, now: float, kind: str) -> Markup:
    since = tag("time", duration(now - trouble.since), title=utc(trouble.since))
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
