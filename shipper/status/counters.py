"""Numbers that the parts at work count, for reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shipper.core.model import RejectReason


@dataclass(slots=True)
class JobCounters:
    """Numbers of one job since this process began; they only grow."""

    rows: int = 0
    late_rows: int = 0
    rejected: dict[RejectReason, int] = field(default_factory=lambda: dict.fromkeys(RejectReason, 0))
    datapoints: int = 0
    captures: int = 0
    capture_seconds: float = 0.0
    deliver_seconds: float = 0.0
    """Time that the batches with datapoints of the job took."""
    failures: int = 0
    """Failed ticks and captures."""

    def reject(self, rows: Mapping[RejectReason, int]) -> None:
        """Count rejected rows."""
        for reason, number in rows.items():
            self.rejected[reason] += number


@dataclass(slots=True)
class DeliveryCounters:
    """Numbers of deliveries since this process began; they only grow."""

    batches: int = 0
    """Batches that Carbon confirmed, repetitions included."""
    seconds: float = 0.0
    """Time that they took."""
    failures: int = 0
