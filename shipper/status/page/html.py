"""The page: one document that needs nothing else."""

from collections import Counter

from shipper.status.page.jobs import jobs
from shipper.status.page.markup import Markup, join, tag
from shipper.status.page.style import STYLE
from shipper.status.page.tiles import tiles
from shipper.status.page.words import ago, duration, plural
from shipper.status.report import JobState, Report

REFRESH_SECONDS = 10
_FINE = {JobState.OK, JobState.GONE}


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
    """Say how it does, in a word for the style and in a sentence."""
    if report.stuck:
        return "bad", f"✕ no progress: {', '.join(report.stuck)}"
    down = [end.name for end in report.ends if end.trouble]
    states = Counter(job.state for job in report.jobs if job.state not in _FINE)
    others = ", ".join(f"{count} {state.value}" for state, count in states.items())
    if down:
        return "bad", f"✕ waiting for {' and '.join(down)}" + (f"; {others}" if others else "")
    if states:
        return ("warn" if states.keys() <= {JobState.NEW, JobState.LATE} else "bad"), f"▲ jobs: {others}"
    return "good", "● all is well"


def _header(report: Report) -> Markup:
    up = "does not run" if report.started_at is None else f"up {duration(report.now - report.started_at)}"
    return tag("header", tag("h1", "shipper"), tag("span", f"{report.host} · {report.version} · {up}", class_="muted"))


def _footer(report: Report) -> Markup:
    links = [tag("a", path, href=path) for path in ("/status", "/readyz?verbose", "/livez", "/metrics")]
    loaded = ago(report.loaded_at, report.now)
    return tag("footer", f"{report.config_file}, loaded ", loaded, " · ", *(join(link, " ") for link in links))
