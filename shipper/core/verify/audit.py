"""Audit of a job: a comparison with Graphite as a few numbers, which the state keeps for reports."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from shipper.core.measures import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shipper.core.verify.reconcile import Comparison, Difference


class Outcome(Enum):
    """Result of an audit, best first."""

    EQUAL = "equal"
    INCOMPLETE = "incomplete"
    """No difference, but less than half of the slots could be compared."""
    DIFFERENT = "different"
    FAILED = "failed"
    """Nothing could be compared."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of a job's newest audit; the numbers are 0 if it failed."""

    at: int
    """When it ended, in epoch seconds."""
    requested: int = 0
    """Number of slots of the finest archive that it was to compare."""
    compared: int = 0
    """Number of slots that it compared."""
    different: int = 0
    """Number of slots in which a series differs."""
    missing: int = 0
    """Rows of the source that Graphite lacks, in these slots."""
    surplus: int = 0
    """Rows that Graphite has in addition: they were deleted in the source, or counted twice, which look the same."""
    start: int | None = None
    """First slot that differs."""
    end: int | None = None
    """End of the last slot that differs."""
    error: str | None = None
    """Reason why nothing could be compared."""
    hint: str | None = None

    @property
    def outcome(self) -> Outcome:
        """Return its result."""
        if self.error is not None:
            return Outcome.FAILED
        if self.different:
            return Outcome.DIFFERENT
        return Outcome.EQUAL if 0 < self.requested <= 2 * self.compared else Outcome.INCOMPLETE


def audit_of(comparison: "Comparison", step: int, at: int) -> Audit:
    """Return the numbers of a comparison that ended at a time; step is that of the finest archive, in seconds."""
    spans, (missing, surplus) = comparison.spans, _rows(comparison.differences)
    return Audit(
        at,
        comparison.requested,
        comparison.compared,
        sum(span.end - span.start for span in spans) // step,
        missing,
        surplus,
        spans[0].start if spans else None,
        spans[-1].end if spans else None,
    )


def _rows(differences: "Iterable[Difference]") -> tuple[int, int]:
    """Return how many rows Graphite lacks, and how many it has in addition; other measures than counts are no rows."""
    missing = surplus = 0
    for one in differences:
        if one.kind is not Kind.COUNT or not math.isfinite(one.graphite or 0.0):
            continue
        rows = int(one.source or 0) - round(one.graphite or 0.0)
        missing, surplus = missing + max(0, rows), surplus + max(0, -rows)
    return missing, surplus
