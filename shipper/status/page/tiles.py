"""The tiles above the jobs: each end, how far behind, the state."""

from collections.abc import Iterable

from shipper.status.page.markup import Markup, tag
from shipper.status.page.words import ago, counted, muted, size
from shipper.status.report import EndReport, Report


def tiles(report: Report) -> Markup:
    """Return the list of tiles."""
    found = [*(_end(end, report.now) for end in report.ends), _behind(report), _state(report)]
    return tag("ul", *(tag("li", *parts) for parts in found), class_="tiles")


def _end(end: EndReport, now: float) -> Iterable[Markup]:
    if end.trouble:
        kind, words = "bad", f"✕ {end.complaint}"
    elif end.reached_at is None:
        kind, words = "warn", "… not reached yet"
    else:
        kind, words = "good", "● answers"
    yield muted(end.name)
    yield tag("b", words, class_=kind)
    yield tag("span", end.address, "; last answer ", ago(end.reached_at, now), class_="muted")


def _behind(report: Report) -> Iterable[Markup]:
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
