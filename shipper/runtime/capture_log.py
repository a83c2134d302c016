"""What captures brought, in the log."""

from collections import Counter
from collections.abc import Callable, Sequence

from shipper.core.ledger import Tally
from shipper.core.model import Cause, Group, Job, Refusal
from shipper.core.paths import brief, is_clean
from shipper.core.rows.table import Captured, Noticed
from shipper.log import logger

_HARMLESS = {"job.begun", "job.changed"}


def tell_noticed(job: Job, noticed: Noticed) -> None:
    """Say what a capture came across."""
    level = logger().info if noticed.event in _HARMLESS else logger().warning
    level(noticed.event, job=job.name, **noticed.details)


def tell_steps(
    job: Job, steps: Sequence[Captured], *, seconds: float, late_rows: Callable[[], int] = lambda: 0
) -> None:
    """Say what the steps of a capture brought: rows, and which of them Graphite will not show as they are.

    late_rows gives how many rows came late since the job began.
    """
    _tell_rows(job, steps, seconds)
    if late := sum(step.late_rows for step in steps):
        logger().info("rows.late", job=job.name, rows=late, total=late_rows())
    tallies = [step.tally for step in steps if not step.tally.is_plain]
    if not tallies:
        return
    _tell_unshown(job, tallies)
    if other := sum(tally.other_rows for tally in tallies):
        value = _brief(next(tally.other for tally in tallies if tally.other is not None))
        logger().warning("series.limited", job=job.name, rows=other, limit=job.max_groups, value=value)
    if cleaned := [found for tally in tallies for found in tally.cleaned]:
        path, group = cleaned[0]
        value = _brief(tuple(value for value in group if not is_clean((value,))))
        logger().info("series.cleaned", job=job.name, series=len(cleaned), first=path, value=value)
    _tell_refused(job, [refusal for tally in tallies for refusal in tally.refused])


def _tell_rows(job: Job, steps: Sequence[Captured], seconds: float) -> None:
    rows, windows = sum(step.rows for step in steps), [step.window for step in steps if step.window]
    if rows and windows:
        logger().info(
            "capture.finished",
            job=job.name,
            rows=rows,
            windows=len(windows),
            captured=windows[-1].upto,
            seconds=round(seconds, 3),
        )


def _tell_unshown(job: Job, tallies: Sequence[Tally]) -> None:
    unshown = Counter[Cause]()
    for tally in tallies:
        for reason, rows in tally.unshown.items():
            unshown[reason.cause] += rows
    nameless = [tally.nameless for tally in tallies if tally.nameless is not None]
    for cause, count in (+unshown).items():  # a repair may bring some less than none
        first = {"value": _brief(nameless[0])} if nameless and cause is Cause.REFUSED else {}
        logger().warning("rows.unshown", job=job.name, cause=cause.value, rows=count, **first)


def _tell_refused(job: Job, refused: Sequence[Refusal]) -> None:
    """Say once for each column that values were left out, and which was the first."""
    for column in dict.fromkeys(refusal.column for refusal in refused):
        found = [refusal for refusal in refused if refusal.column == column]
        first = next((refusal for refusal in found if refusal.value is not None), found[0])
        group = None if first.group is None else _brief(first.group)
        known = {"id": first.id, "group": group, "value": first.value}
        told = {name: value for name, value in known.items() if value is not None}
        rows = sum(refusal.rows for refusal in found)
        logger().warning("value.refused", job=job.name, column=column, **told, rows=rows)


def _brief(group: Group) -> str:
    """Show group values in one short line; the one without brackets."""
    return brief(group[0] if len(group) == 1 else group)
