"""Which templates could ever give the same metric path.

Strategy: the templates are a tree of their nodes, so that each is compared only with those that begin as it does: two
thousand jobs have two million pairs.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from shipper.core.paths import PLACEHOLDER


class Templates:
    """Templates and whose they are."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, template: str, owner: str) -> None:
        """Add a template."""
        here = self._root
        for part in _parts(template):
            here = here.below.setdefault(part, _Node())
        here.owners.append(owner)

    def like(self, template: str) -> Iterator[str]:
        """Yield the owners of those that could give the same path. Says so in doubt."""
        found = [self._root]
        for part in _parts(template):
            found = [below for node in found for below in _alike(node, part)]
        for node in found:
            yield from node.owners


@dataclass(slots=True)
class _Node:
    """Where templates with the same beginning part."""

    below: "dict[str, _Node]" = field(default_factory=dict)
    owners: list[str] = field(default_factory=list)


def _alike(node: _Node, part: str) -> Iterator[_Node]:
    if part in node.below:
        yield node.below[part]
    for other, below in node.below.items():
        if other != part and ("{" in part or "{" in other) and _may_be_equal(part, other):
            yield below


def _parts(template: str) -> list[str]:
    """Split into nodes and tags; how many there are comes first, because paths with more are others."""
    name, *tags = template.split(";")
    nodes = name.split(".")
    return [f"{len(nodes)};{len(tags)}", *nodes, *tags]


def _may_be_equal(node: str, other: str) -> bool:
    """Do the literal beginnings and ends of two nodes agree as far as both go?"""
    ends = [(text.partition("{")[0], text.rpartition("}")[2], "{" in text) for text in (node, other)]
    (start, end, is_open), (other_start, other_end, other_is_open) = ends
    if not is_open or not other_is_open:
        pattern = PLACEHOLDER.sub(".+", node if is_open else other)  # nodes hold nothing else that re would read
        return re.fullmatch(pattern, other if is_open else node) is not None
    length, end_length = min(len(start), len(other_start)), min(len(end), len(other_end))
    return (
        start[:length] == other_start[:length]
        and end[len(end) - end_length :] == other_end[len(other_end) - end_length :]
    )
