"""What carbon must have in its configuration for the series of a configuration."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from shipper.config.load import Config
from shipper.core.model import Job, Kind
from shipper.core.selfnames import COUNTS, GAUGES, NODE

SCHEMAS, AGGREGATION, CARBON = "storage-schemas.conf", "storage-aggregation.conf", "carbon.conf"


class Stanza(NamedTuple):
    """A section of one of carbon's files."""

    name: str
    settings: Mapping[str, str]

    def __str__(self) -> str:
        return "\n".join([f"[{self.name}]", *(f"{key} = {value}" for key, value in self.settings.items()), ""])


def stanzas(config: Config) -> dict[str, list[Stanza]]:
    """Return the stanzas of each file, in the order in which they must stand."""
    pattern = _pattern(config)
    retentions = ",".join(f"{archive.step}s:{archive.duration}s" for archive in config.graphite.retentions)
    return {
        SCHEMAS: [Stanza("shipper", {"pattern": pattern, "retentions": retentions})],
        AGGREGATION: [*_aggregations(config), _aggregation("shipper", pattern, "sum")],
        CARBON: [Stanza("cache", {"MAX_CREATES_PER_MINUTE": "inf"})],
    }


_WHY = {
    SCHEMAS: "before any other stanza that matches",
    AGGREGATION: "likewise: counts are added up, and a single one is enough",
    CARBON: "the usual 50 drops the first points of new series, without a word",
}


def rules(config: Config) -> str:
    """Return all of it as text to paste."""
    return "\n".join(
        "\n".join([f"# {file}, {_WHY[file]}", *map(str, found)]) for file, found in stanzas(config).items()
    )


def _pattern(config: Config) -> str:
    if prefix := config.graphite.prefix:
        return f"^{re.escape(prefix)}\\."
    return "|".join([*(f"^{_path_pattern(job)}$" for job in config.jobs.values()), _own_pattern(config)])


def _aggregations(config: Config) -> Iterator[Stanza]:
    """Return the stanzas of what is not added up, and of the service's own numbers."""
    own = _own_pattern(config)
    worst = "|".join(name for name in GAUGES if name != "up")
    yield _aggregation("shipper-itself", f"{own}({worst})$", "max")
    yield _aggregation("shipper-itself-up", f"{own}up$", "min")
    yield _aggregation("shipper-itself-counts", f"{own}({'|'.join(COUNTS)})$", "sum")
    for kind in (Kind.MAX, Kind.MIN):
        paths = [
            f"^{_path_pattern(job, measure.name)}$"
            for job in config.jobs.values()
            for measure in job.query.measures
            if measure.kind is kind
        ]
        if paths:
            yield _aggregation(f"shipper-{kind}", "|".join(paths), kind)


def _aggregation(name: str, pattern: str, method: str) -> Stanza:
    return Stanza(name, {"pattern": pattern, "xFilesFactor": "0", "aggregationMethod": method})


def _own_pattern(config: Config) -> str:
    """Write the paths of the service's own metrics as a regular expression, up to the last node."""
    begin = f"{config.graphite.prefix}." if config.graphite.prefix else ""
    return f"^{re.escape(begin + NODE)}\\.[^.]+\\.[^.]+\\."


def _path_pattern(job: Job, measure: str | None = None) -> str:
    """Write a job's template as a regular expression of its paths, of all measures or of one."""
    template = job.template if measure is None else job.template.replace("{measure}", measure)
    literals = re.split(r"\{[^}]*\}", template)
    return "[^.]+".join(re.escape(literal).replace(r"\-", "-") for literal in literals)
