"""The results of captures and deliveries in the log."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from shipper.core.delivery.courier import Delivered
from shipper.core.model import Group, Job, RejectedValue, RejectReason, Span
from shipper.core.paths import brief, is_safe
from shipper.core.retry import LOG_SECONDS
from shipper.core.rows.table import CaptureStep, Event
from shipper.log.logger import format_utc, logger

MOST_SHOWN = 10  # watermarks in a log line
_HINTS = {
    "late.shortened": "The job has too many missing ids, so it asks for each of them for {late} s only. Run "
    "`shipper reconcile --fix` to count rows that appear later. To end this warning, lower `late` of its source.",
    "recount.limited": "These slots keep their values, usually because rows were deleted: see deploy/log-events.md.",
    "source.changed": "Do nothing after a failover, or if the newest row was deleted; otherwise check the server in "
    "[source.NAME].",
    "source.rotated": "Rows with ids between {captured} and {first} were perhaps not counted: "
    "see Table reset in deploy/repair.md.",
}
"""Remedies for events of captures that an operator should look at, with fields of the event."""
_REJECTED = "See Rows are rejected in deploy/troubleshoot.md."
_LIMITED = (
    "The job has as many groups as it may have, so rows of further groups are counted as `_other`. "
    "Group by a column with fewer values, or raise `series` in [limits]."
)
_LEFT_OUT = "The rows are counted, but without these values. Correct the rows, or exclude them with `where`."
_UNREADABLE = "The query fails with this row, which is not counted. Correct the row; see deploy/troubleshoot.md."


def log_event(job: Job, event: Event) -> None:
    """Log an event that a capture raised."""
    log = logger().info if event.level == "info" else logger().warning
    details: dict[str, int | str] = {}
    for name, value in event.details.items():
        if isinstance(value, Span):
            details |= {"start": format_utc(value.start), "end": format_utc(value.end)}
        else:
            details[name] = value
    if (hint := _HINTS.get(event.event)) is not None:
        details["hint"] = hint.format(**details)
    log(event.event, job=job.name, **details)


def log_steps(
    job: Job, steps: Sequence[CaptureStep], *, seconds: float, late_rows: Callable[[], int] = lambda: 0
) -> None:
    """Log the results of a capture: rows, and which of them Graphite will not show as they are.

    late_rows returns the number of late rows since the job began.
    """
    _log_rows(job, steps, seconds)
    if late := sum(step.late_rows for step in steps):
        logger().info("rows.late", job=job.name, rows=late, total=late_rows())
    tallies = [step.tally for step in steps if not step.tally.is_plain]
    if not tallies:
        return
    _log_rejected(job, steps)
    if other := sum(tally.other_rows for tally in tallies):
        value = _brief(next(tally.other for tally in tallies if tally.other is not None))
        logger().warning("series.limited", job=job.name, rows=other, limit=job.max_groups, value=value, hint=_LIMITED)
    if series := sum(tally.sanitized_series for tally in tallies):
        path, group = next(first for tally in tallies for first in tally.sanitized)
        value = _brief(tuple(value for value in group if not is_safe((value,))))
        logger().info("series.sanitized", job=job.name, series=series, first=path, value=value)
    _log_rejected_values(job, [value for tally in tallies for value in tally.rejected_values])


def _log_rows(job: Job, steps: Sequence[CaptureStep], seconds: float) -> None:
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


def rejected_rows(steps: Iterable[CaptureStep]) -> Counter[RejectReason]:
    """Return how many rows a capture rejected, by reason."""
    rejected = Counter[RejectReason]()
    for step in steps:
        for rejection, rows in step.tally.rejected.items():
            rejected[rejection.reason] += rows
    return +rejected  # a recount may lower a counter


def _log_rejected(job: Job, steps: Sequence[CaptureStep]) -> None:
    nameless = [step.tally.nameless for step in steps if step.tally.nameless is not None]
    for reason, count in rejected_rows(steps).items():
        first = {"value": _brief(nameless[0])} if nameless and reason is RejectReason.REFUSED else {}
        logger().warning("rows.rejected", job=job.name, reason=reason.value, rows=count, **first, hint=_REJECTED)


def _log_rejected_values(job: Job, values: Sequence[RejectedValue]) -> None:
    """Log once for each column how many values were left out, and the first of them."""
    for column in dict.fromkeys(value.column for value in values):
        of_column = [value for value in values if value.column == column]
        first = next((value for value in of_column if value.value is not None), of_column[0])
        group = None if first.group is None else _brief(first.group)
        details = {"id": first.id, "group": group, "value": first.value}
        known = {name: value for name, value in details.items() if value is not None}
        rows = sum(value.rows for value in of_column)
        hint = _UNREADABLE if column == job.query.id else _LEFT_OUT
        logger().warning("value.rejected", job=job.name, column=column, **known, rows=rows, hint=hint)


def _brief(group: Group) -> str:
    """Format group values in one short line; a single value without brackets."""
    return brief(group[0] if len(group) == 1 else group)


class DeliveryLog:
    """Batches that were delivered and not logged yet: one line for each that moves a watermark, others in a sum."""

    def __init__(self) -> None:
        self._datapoints = 0
        self._seconds = 0.0
        self._logged_at = float("-inf")

    def add(self, delivered: Delivered, *, seconds: float) -> None:
        """Add a batch, which took some seconds; log all since the last line if a watermark moved, or after a minute.

        Backfills, zeros and the batches of a long catch-up move none.
        """
        self._datapoints += sum(delivered.datapoints.values())
        self._seconds += seconds
        is_due = time.monotonic() - self._logged_at >= LOG_SECONDS
        if not self._datapoints or not (delivered.watermarks or is_due):
            return
        watermarks = _shown(delivered.watermarks)
        logger().info(
            "delivery.finished", datapoints=self._datapoints, watermarks=watermarks, seconds=round(self._seconds, 3)
        )
        self._datapoints, self._seconds, self._logged_at = 0, 0.0, time.monotonic()


def _shown(watermarks: Mapping[str, int]) -> str:
    """Format the first watermarks: those of hundreds of jobs would make a long line."""
    shown = [f"{job}:{value}" for job, value in islice(watermarks.items(), MOST_SHOWN)]
    return ",".join([*shown, f"and {len(watermarks) - MOST_SHOWN} more"] if len(watermarks) > MOST_SHOWN else shown)
