"""Collisions: jobs that could write the same metric path.

Strategy: the templates of paths form a tree of nodes, in which each template is compared only with those that begin
alike: two thousand jobs have two million pairs.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from shipper.config.problems import Problem
from shipper.core.paths import COUNTS, GAUGES, NODE, PLACEHOLDER, path
from shipper.core.paths import node as sanitized


def collisions(jobs: Iterable[tuple[str, str]], prefix: str | None) -> Iterator[Problem]:
    """Yield jobs that could write each other's paths, or those of shipper's own metrics; jobs have full templates."""
    own, known = _Templates(), _Templates()
    for name in (*GAUGES, *COUNTS):
        own.add(path(prefix, "{host}", "{job}", name), NODE)
    for name, template in jobs:
        if own.like(template):
            message = f'job "{name}" could write the paths of shipper\'s own metrics'
            yield Problem(("job", name, "name"), message, f'Begin `name` with another node than "{NODE}".')
        for other in dict.fromkeys(known.like(template)):
            if other != name:
                message = f'jobs "{other}" and "{name}" could write the same metric path'
                yield Problem(("job", name, "name"), message, "Begin `name` of one of the two jobs differently.")
        known.add(template, name)


def shared_nodes(jobs: Iterable[tuple[str, str]]) -> Iterator[Problem]:
    """Yield jobs whose own metrics would have the same paths; jobs are names of sections, each with that of a job."""
    known: dict[str, str] = {}
    for section, name in jobs:
        other = known.setdefault(sanitized(name), name)
        if other != name:
            message = f'shipper\'s metrics of jobs "{other}" and "{name}" would share paths'
            yield Problem(("job", section), message, "Rename one of the two jobs: [job.NAME].")


@dataclass(slots=True)
class _Templates:
    """Templates of metric paths that begin alike, by their next node."""

    below: "dict[str, _Templates]" = field(default_factory=dict)
    owners: list[str] = field(default_factory=list)
    """Owners of the templates that end here."""

    def add(self, template: str, owner: str) -> None:
        """Add a template."""
        here = self
        for part in _parts(template):
            here = here.below.setdefault(part, _Templates())
        here.owners.append(owner)

    def like(self, template: str) -> list[str]:
        """Return the owners of the templates that could give the same path; in doubt, a template could."""
        found = [self]
        for part in _parts(template):
            found = [
                below
                for here in found
                for other, below in here.below.items()
                if other == part or (("{" in part or "{" in other) and _may_be_equal(part, other))
            ]
        return [owner for here in found for owner in here.owners]


def _parts(template: str) -> list[str]:
    """Split into nodes and tags, after their numbers: paths with other numbers are never equal."""
    name, *tags = template.split(";")
    nodes = name.split(".")
    return [f"{len(nodes)};{len(tags)}", *nodes, *tags]


def _may_be_equal(node: str, other: str) -> bool:
    """Whether nodes could be equal, at least one with a placeholder: their literal beginnings and ends agree."""
    if "{" not in node:
        node, other = other, node
    if "{" not in other:
        pattern = PLACEHOLDER.sub(".+", node)  # nodes contain no other special character of re
        return re.fullmatch(pattern, other) is not None
    ends = ((text.partition("{")[0], text.rpartition("}")[2]) for text in (node, other))
    (start, end), (other_start, other_end) = ends
    begin_alike = start.startswith(other_start) or other_start.startswith(start)
    return begin_alike and (end.endswith(other_end) or other_end.endswith(end))
