"""Panels of dashboards: one for each measure of each job, with sums that stay right at every zoom.

Strategy: Graphite draws averages where there are more datapoints than pixels, unless `consolidateBy` says otherwise.
Counts and sums are added, which makes the bars of any picture add up to the count; of extremes the worst remains.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from shipper.core.measures import Kind, Measure
from shipper.core.model import Job
from shipper.core.paths import COUNTS, GAUGES, MEASURE, PLACEHOLDER, path

_ANY = Measure("*", Kind.SUM)
"""Measures of custom sql: unknown before the database has explained it, and all sums."""
_UNITS = (("_ms", "ms"), ("_seconds", "s"), ("_bytes", "bytes"))
"""Ends of column names, and the units of their values."""
_OWN = (
    ("Capture lag", "s", ("complete_until_age",)),
    ("Backlog (ids)", "", ("lag_rows",)),
    ("Rows captured", "", ("rows",)),
    ("Datapoints delivered", "", ("datapoints",)),
    ("Failed ticks and captures", "", ("failures",)),
    ("Late rows: counted, rejected", "", ("late_rows", "too_late")),
    ("Capture time", "ms", ("capture_ms",)),
    ("Delivery time", "ms", ("deliver_ms",)),
    ("Unproven totals", "", ("unproven",)),
    ("Series", "", ("series",)),
    ("Audit: missing rows, surplus rows", "", ("audit_missing", "audit_surplus")),
    ("Audit: slots compared, different", "", ("audit_compared", "audit_different")),
    ("Audit: failed", "", ("audit_failed",)),
    ("Overdue and paused jobs", "", ("overdue", "paused")),
    ("Running jobs", "", ("up",)),
    ("Two machines: leaders, term, slots sent again", "", ("leader", "term", "late_slots")),
    ("Two machines: time of a commit", "ms", ("push_ms",)),
)


class Target(NamedTuple):
    """Expression for Graphite's render API."""

    series: str
    nodes: Sequence[int | str]
    """Nodes and tags by which the series differ."""
    name: str
    """Name in the legend, if there is only one series."""

    def __str__(self) -> str:
        return self.named(self.series)

    def named(self, series: str) -> str:
        """Return an expression that names its series in the legend."""
        if not self.nodes:
            return f"alias({series},'{self.name}')"
        return f"aliasByNode({series},{','.join(map(repr, self.nodes))})"


class Panel(NamedTuple):
    """One graph."""

    title: str
    targets: Sequence[Target]
    about: str
    """Meaning of the numbers; empty for counts."""
    unit: str
    """ms, s, bytes; empty for plain numbers."""
    adds_up: bool
    """Whether it has stacked bars, not lines."""


class Dashboard(NamedTuple):
    """A named set of panels."""

    name: str
    title: str
    panels: Sequence[Panel]


def dashboards(prefix: str | None, jobs: Iterable[Job], chosen: Sequence[Job], step: int) -> list[Dashboard]:
    """Return a dashboard of all jobs and one of the service; of chosen jobs only one, with a separate name."""
    name = f"shipper-{prefix.replace('.', '-')}" if prefix else "shipper"
    panels = [panel for job in chosen or jobs for panel in panels_of(job, step)]
    if chosen:
        names = [job.name.replace("@", "-") for job in chosen]
        return [Dashboard("-".join([name, *names]), ", ".join(job.name for job in chosen), panels)]
    title = f"{prefix}: counted by shipper" if prefix else "Counted by shipper"
    own = Dashboard(f"{name}-self", f"shipper itself, for {prefix}" if prefix else "shipper itself", own_panels(prefix))
    return [Dashboard(f"{name}-jobs", title, panels), own]


def panels_of(job: Job, step: int) -> Iterator[Panel]:
    """Yield a panel for each measure of a job; step is that of Carbon's finest archive, in seconds."""
    measures = (_ANY,) if job.query.sql else job.query.measures
    title = job.title or ", by ".join(filter(None, (job.name.partition("@")[0], ", ".join(job.query.by))))
    if "@" in job.name:
        title += f" ({job.source})"
    for measure in measures:
        series, nodes = _series(job, measure)
        method = measure.kind.aggregation
        if job.query.bucket > step:  # one datapoint per bucket would be a thin line at its start
            series = f"summarize({series},'{job.query.bucket}s','{method}')"
        yield Panel(
            title if len(measures) == 1 else f"{title}: {measure.name}",
            [Target(f"consolidateBy({series},'{method}')", nodes, measure.name)],
            f"{measure.kind} of {measure.column}" if measure.column else "",
            next((unit for end, unit in _UNITS if (measure.column or "").endswith(end)), ""),
            method == "sum",
        )


def own_panels(prefix: str | None) -> list[Panel]:
    """Return the panels of shipper's own metrics, for all hosts."""
    host = len(prefix.split(".")) + 1 if prefix else 1
    panels = []
    for title, unit, names in _OWN:
        nodes = [host + 1, host] + [host + 2] * (len(names) > 1)
        targets = [
            Target(f"consolidateBy({path(prefix, '*', '*', name)},'{_own_consolidation(name)}')", nodes, name)
            for name in names
        ]
        panels.append(Panel(title, targets, unit, unit, adds_up=names[0] in COUNTS))
    return panels


def _own_consolidation(name: str) -> str:
    assert name in (*GAUGES, *COUNTS)
    return "min" if name == "up" else "sum" if name in COUNTS else "max"


def _series(job: Job, measure: Measure) -> tuple[str, list[int | str]]:
    """Return the expression for all series of a measure, and the nodes and tags by which they differ."""
    named = job.template if measure is _ANY else job.template.replace(f"{{{MEASURE}}}", measure.name)
    name, *tags = named.split(";")
    nodes: list[int | str] = [index for index, node in enumerate(name.split(".")) if PLACEHOLDER.search(node)]
    if not tags:
        return PLACEHOLDER.sub("*", name), nodes
    pairs = [tag.partition("=")[::2] for tag in tags]
    nodes += [key for key, value in pairs if PLACEHOLDER.search(value)]
    conditions = ",".join(f"'{_condition(key, value)}'" for key, value in [("name", name), *pairs])
    return f"seriesByTag({conditions})", nodes


def _condition(tag: str, template: str) -> str:
    """Return the condition on a tag; a group's value is one node of it."""
    if not PLACEHOLDER.search(template):
        return f"{tag}={template}"
    return f"{tag}=~^{PLACEHOLDER.sub('[^.]+', template.replace('.', '[.]'))}$"
