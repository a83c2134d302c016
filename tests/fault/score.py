"""Rows that Graphite lacks or has too many, bucket by bucket; and the table of all faults."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tabulate import tabulate

Series = Mapping[str, Mapping[int, float]]


class Score(NamedTuple):
    """The result of one fault."""

    fault: str
    injected: int
    written: int
    lost: int
    doubled: int
    rejected: int = 0
    note: str = ""


Record = Callable[[Score], Score]
"""Function that adds a row to the table, and returns it."""


def differences(expected: Series, shipped: Series) -> tuple[int, int]:
    """Return how much all buckets lack, and how much they have too many; a bucket without a value holds 0."""
    places = {(path, slot) for series in (expected, shipped) for path, slots in series.items() for slot in slots}
    surplus = [shipped.get(path, {}).get(slot, 0) - expected.get(path, {}).get(slot, 0) for path, slot in places]
    return int(sum(-n for n in surplus if n < 0)), int(sum(n for n in surplus if n > 0))


def table(scores: list[Score]) -> str:
    """Render the scores, shipper's first."""
    headers = ["fault", "times injected", "rows written", "lost", "doubled", "rejected", ""]
    rows = sorted(scores, key=_rank)
    return tabulate([list(row) for row in rows], headers)


def _rank(score: Score) -> tuple[bool, str]:
    return score.fault.startswith("naive"), score.fault


def is_exact(score: Score) -> bool:
    """Whether the sums equal the source, and no row was rejected."""
    return (score.lost, score.doubled, score.rejected) == (0, 0, 0) and score.written > 0
