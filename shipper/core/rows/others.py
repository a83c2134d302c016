"""Cells of groups that have no series: they share cells in memory, as they will share a path."""

from collections.abc import Callable, Collection

from shipper.core.ledger import Ledger
from shipper.core.measures import Kind
from shipper.core.model import Group, Job
from shipper.core.paths import beyond_limit, other_of
from shipper.core.rows import totals
from shipper.core.rows.totals import Cell, Folded


def share_cells(job: Job, ledger: Ledger, folded: Folded) -> None:
    """Let groups beyond the job's limit share cells, if there are many; the totals are the same."""
    share(job, folded, lambda groups: beyond_limit(job, groups, *ledger.groups(job.name, groups)))


def share(job: Job, folded: Folded, choose: Callable[[Collection[Group]], Collection[Group]]) -> None:
    """Let the chosen groups share cells, if there are many: they get OTHER's paths."""
    other = other_of(job)
    if other is None or len(folded.cells) < folded.many:
        return
    chosen = set(choose(dict.fromkeys(group for group, _ in folded.cells))) - {other}
    first = next((group for group, _ in folded.cells if group in chosen), other)
    for group, bucket in [key for key in folded.cells if key[0] in chosen]:
        rows, values = folded.cells.pop((group, bucket))
        before = folded.cells.get((other, bucket), Cell(0, (None,) * len(values)))
        combined = tuple(map(Kind.combine, job.kinds, before.values, values))
        folded.cells[other, bucket] = Cell(before.rows + rows, combined)
        folded.others[first] += rows
    folded.many = len(folded.cells) + totals.MANY_CELLS
