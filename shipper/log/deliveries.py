"""The results of deliveries in the log: one line for each that moves a watermark, others summed up for a minute."""

import time
from collections.abc import Mapping
from itertools import islice

from shipper.core.delivery.courier import Delivered
from shipper.core.retry import LOG_SECONDS
from shipper.log.logger import logger

MOST_SHOWN = 10  # watermarks in a log line


class DeliveryLog:
    """Batches that were delivered and not logged yet."""

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
        watermarks = _brief(delivered.watermarks)
        logger().info(
            "delivery.finished", datapoints=self._datapoints, watermarks=watermarks, seconds=round(self._seconds, 3)
        )
        self._datapoints, self._seconds, self._logged_at = 0, 0.0, time.monotonic()


def _brief(watermarks: Mapping[str, int]) -> str:
    """Format the first watermarks: those of hundreds of jobs would make a long line."""
    shown = [f"{job}:{value}" for job, value in islice(watermarks.items(), MOST_SHOWN)]
    return ",".join([*shown, f"and {len(watermarks) - MOST_SHOWN} more"] if len(watermarks) > MOST_SHOWN else shown)
