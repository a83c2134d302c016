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
        if any(own.like(template)):
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
            message = f'the own metrics of jobs "{other}" and "{name}" would have the same paths'
            yield Problem(("job", section), message, "Rename one of the two jobs: [job.NAME].")


class _Templates:
    """Templates of metric paths, each with its owner."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, template: str, owner: str) -> None:
        """Add a template."""
        here = self._root
        for part in _parts(template):
            here = here.below.setdefault(part, _Node())
        here.owners.append(owner)

    def like(self, template: str) -> Iterator[str]:
        """Yield the owners of the templates that could give the same path; in doubt, a template could."""
        nodes = [self._root]
        for part in _parts(template):
            nodes = [below for node in nodes for below in _alike(node, part)]
        for node in nodes:
            yield from node.owners


@dataclass(slots=True)
class _Node:
    """A beginning that templates share."""

    below: "dict[str, _Node]" = field(default_factory=dict)
    owners: list[str] = field(default_factory=list)


def _alike(node: _Node, part: str) -> Iterator[_Node]:
    if part in node.below:
        yield node.below[part]
    for other, below in node.below.items():
        if other != part and ("{" in part or "{" in other) and _may_be_equal(part, other):
            yield below


def _parts(template: str) -> list[str]:
    """Split into nodes and tags, after their numbers: paths with other numbers are never equal."""
    name, *tags = template.split(";")
    nodes = name.split(".")
    return [f"{len(nodes)};{len(tags)}", *nodes, *tags]


def _may_be_equal(node: str, other: str) -> bool:
    """Whether two nodes could be equal: their literal beginnings and ends agree, as far as both go."""
    ends = [(text.partition("{")[0], text.rpartition("}")[2], "{" in text) for text in (node, other)]
    (start, end, is_open), (other_start, other_end, other_is_open) = ends
    if not is_open or not other_is_open:
        pattern = PLACEHOLDER.sub(".+", node if is_open else other)  # nodes contain no other special character of re
        return re.fullmatch(pattern, other if is_open else node) is not None
    length, end_length = min(len(start), len(other_start)), min(len(end), len(other_end))
    return (
        start[:length] == other_start[:length]
        and end[len(end) - end_length :] == other_end[len(other_end) - end_length :]
    )
