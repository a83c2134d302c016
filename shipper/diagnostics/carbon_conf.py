"""`shipper admin carbon-conf`: the stanzas that Carbon needs. carbon_diff.py compares Carbon's files with them."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from shipper.config.load import Config
from shipper.core.measures import Kind
from shipper.core.model import Job
from shipper.core.paths import COUNTS, GAUGES, NODE

SCHEMAS, AGGREGATION, CARBON = "storage-schemas.conf", "storage-aggregation.conf", "carbon.conf"


class Stanza(NamedTuple):
    """A section of one of Carbon's files."""

    name: str
    settings: Mapping[str, str]
    comment: str = ""

    def __str__(self) -> str:
        lines = [f"[{self.name}]", *(f"{key} = {value}" for key, value in self.settings.items()), ""]
        return "\n".join([f"# {self.comment}", *lines] if self.comment else lines)


def stanzas(config: Config) -> dict[str, list[Stanza]]:
    """Return the stanzas of each file, in the required order."""
    pattern = pattern_of(config)
    retentions = ",".join(f"{archive.step}s:{archive.duration}s" for archive in config.graphite.retentions)
    aggregations = [*_aggregations(config), _aggregation("shipper", pattern, "sum")]
    # Carbon rejects two stanzas of one name, as of two shippers
    end = f" {config.graphite.prefix}" if config.graphite.prefix else ""
    return {
        SCHEMAS: [Stanza(f"shipper{end}", {"pattern": pattern, "retentions": retentions})],
        AGGREGATION: [stanza._replace(name=stanza.name + end) for stanza in aggregations],
        CARBON: [Stanza("cache", {"MAX_CREATES_PER_MINUTE": "inf"})],
    }


_INDIVISIBLE = "distinct values of several buckets do not add up: a coarser archive keeps the largest number"
_WHY = {
    SCHEMAS: "before any other stanza that matches these series",
    AGGREGATION: "also before any other stanza that matches these series; xFilesFactor = 0 keeps slots with few values",
    CARBON: "in its section [cache]: change the existing line, and restart carbon; "
    "the default 50 silently drops the first datapoints of new series",
}


def rules(config: Config) -> str:
    """Return the stanzas as text to paste; of carbon.conf the line alone, since a second section would end Carbon."""
    return "\n".join(
        "\n".join([f"# {file}, {_WHY[file]}", *(str(one).removeprefix("[cache]\n") for one in group)])
        for file, group in stanzas(config).items()
    )


def pattern_of(config: Config) -> str:
    """Return a regular expression of all paths."""
    if prefix := config.graphite.prefix:
        return f"^{re.escape(prefix)}\\."
    return "|".join([*(f"^{_path_pattern(job)}$" for job in config.jobs.values()), _own_pattern(config)])


def _aggregations(config: Config) -> Iterator[Stanza]:
    """Yield the stanzas of measures that are not summed, and of the service's own metrics."""
    own = _own_pattern(config)
    worst = "|".join(name for name in GAUGES if name != "up")
    yield _aggregation("shipper-itself", f"{own}({worst})$", "max")
    yield _aggregation("shipper-itself-up", f"{own}up$", "min")
    yield _aggregation("shipper-itself-counts", f"{own}({'|'.join(COUNTS)})$", "sum")
    for kind in (kind for kind in Kind if kind.aggregation != "sum"):
        paths = [
            f"^{_path_pattern(job, measure.name)}$"
            for job in config.jobs.values()
            for measure in job.query.measures
            if measure.kind is kind
        ]
        if paths:
            stanza = _aggregation(f"shipper-{kind}", "|".join(paths), kind.aggregation)
            yield stanza if kind.is_divisible else stanza._replace(comment=_INDIVISIBLE)


def _aggregation(name: str, pattern: str, method: str) -> Stanza:
    return Stanza(name, {"pattern": pattern, "xFilesFactor": "0", "aggregationMethod": method})


def _own_pattern(config: Config) -> str:
    """Return a regular expression of the service's own metrics, without their last node."""
    begin = f"{config.graphite.prefix}." if config.graphite.prefix else ""
    return f"^{re.escape(begin + NODE)}\\.[^.]+\\.[^.]+\\."


def _path_pattern(job: Job, measure: str | None = None) -> str:
    """Return a regular expression of a job's paths, of all measures or of one."""
    template = job.template if measure is None else job.template.replace("{measure}", measure)
    literals = re.split(r"\{[^}]*\}", template)
    return "[^.]+".join(re.escape(literal).replace(r"\-", "-") for literal in literals)
