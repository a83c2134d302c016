"""What a dashboard shows: a panel for each measure of each job, whose sum stays right however it is zoomed.

Strategy: Graphite draws averages where there are more datapoints than pixels, unless `consolidateBy` says otherwise.
Counts and sums are added up, so that the bars of any picture together are the count; of extremes the worst stays.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shipper.core.measures import Kind, Measure
from shipper.core.model import Job
from shipper.core.paths import COUNTS, GAUGES, MEASURE, PLACEHOLDER, path

_ANY = Measure("*", Kind.SUM)
"""Of a statement of one's own: its measures are not known before the database is asked, and are sums."""
_UNITS = (("_ms", "ms"), ("_seconds", "s"), ("_bytes", "bytes"))
"""What the name of a column tells of its values."""
_OWN = (
    ("For how long nothing more is captured", "s", ("complete_until_age",)),
    ("Ids that are not delivered yet", "", ("lag_rows",)),
    ("Rows captured", "", ("rows",)),
    ("Datapoints delivered", "", ("datapoints",)),
    ("Failed ticks and captures", "", ("failures",)),
    ("Rows that came late, or too late", "", ("late_rows", "too_late")),
    ("Time for captures", "ms", ("capture_ms",)),
    ("Time for deliveries", "ms", ("deliver_ms",)),
    ("Totals that are not proven yet", "", ("unproven",)),
    ("Series", "", ("series",)),
    ("Overdue jobs", "", ("overdue",)),
    ("Jobs that run", "", ("up",)),
)


class Target(NamedTuple):
    """What Graphite's render API is asked for."""

    series: str
    nodes: Sequence[int | str]
    """By which nodes and tags the series differ."""
    name: str
    """What it is called where there is only one."""

    def __str__(self) -> str:
        return self.named(self.series)

    def named(self, series: str) -> str:
        """Call what an expression gives as people call it."""
        if not self.nodes:
            return f"alias({series},'{self.name}')"
        return f"aliasByNode({series},{','.join(map(repr, self.nodes))})"


class Panel(NamedTuple):
    """One graph."""

    title: str
    targets: Sequence[Target]
    about: str
    """What the numbers are; empty for counts."""
    unit: str
    """ms, s, bytes; empty for plain numbers."""
    adds_up: bool
    """Stacked bars, or else lines."""


class Dashboard(NamedTuple):
    """Some of them, and how they are called."""

    name: str
    title: str
    panels: Sequence[Panel]


def panels_of(job: Job, step: int) -> Iterator[Panel]:
    """Yield a panel for each measure of a job; step is that of Carbon's finest archive."""
    measures = (_ANY,) if job.query.sql else job.query.measures
    title = job.title or ", by ".join(filter(None, (job.name.partition("@")[0], ", ".join(job.query.by))))
    if "@" in job.name:
        title += f" ({job.source})"
    for measure in measures:
        series, nodes = _series(job, measure)
        how = measure.kind.aggregation
        if job.query.bucket > step:  # else it would be a thin line at the bucket's start
            series = f"summarize({series},'{job.query.bucket}s','{how}')"
        yield Panel(
            title if len(measures) == 1 else f"{title}: {measure.name}",
            [Target(f"consolidateBy({series},'{how}')", nodes, measure.name)],
            f"{measure.kind} of {measure.column}" if measure.column else "",
            next((unit for end, unit in _UNITS if (measure.column or "").endswith(end)), ""),
            how == "sum",
        )


def own_panels(prefix: str | None) -> list[Panel]:
    """Return the panels of the service's own metrics, of all hosts."""
    begin = f"{prefix}." if prefix else ""
    host = begin.count(".") + 1
    made = []
    for title, unit, names in _OWN:
        nodes = [host + 1, host] + [host + 2] * (len(names) > 1)
        targets = [
            Target(f"consolidateBy({begin}{path('*', '*', name)},'{_own_consolidation(name)}')", nodes, name)
            for name in names
        ]
        made.append(Panel(title, targets, unit, unit, adds_up=names[0] in COUNTS))
    return made


def _own_consolidation(name: str) -> str:
    assert name in (*GAUGES, *COUNTS)
    return "min" if name == "up" else "sum" if name in COUNTS else "max"


def _series(job: Job, measure: Measure) -> tuple[str, list[int | str]]:
    """Return the expression for all series of a measure, and by which of their nodes and tags they differ."""
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
    """Return what a tag must be; a group's value is one node of it."""
    if not PLACEHOLDER.search(template):
        return f"{tag}={template}"
    return f"{tag}=~^{PLACEHOLDER.sub('[^.]+', template.replace('.', '[.]'))}$"
