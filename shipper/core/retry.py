"""The retry policy: how long shipper waits before it tries again, in seconds.

- A failed capture is retried at the job's next tick.
- A batch that Carbon did not confirm is sent again after `backoff`, and a database that keeps the state and does not
  answer a machine that stands by is asked again after it.
- Confirmed totals are sent again after each delay of [graphite] replay; before that, once a minute while Carbon
  creates their series.
- Totals that are read back and differ are sent and read again after `reread_delay`.
- A sample that differs is read again after each delay of SAMPLE_DELAYS, then once a minute.
- Samples pause for `sample_pause` while Graphite does not answer.
- A failure that lasts is logged every LOG_SECONDS.

Who waits for something else has its own pauses: the witness (graphite/carbon.py), an audit (service/auditor.py), the
lease of another machine (service/stand_by.py).
"""

import math

MINUTE, HOUR = 60.0, 3600.0

BACKOFF_FIRST, BACKOFF_MOST = 0.25, 4.0  # the first delivery follows Carbon's return within 5 s
TAKE_OVER_MOST = 1.0  # a machine that stands by leads within 3 s after a new primary

CREATES_PER_MINUTE = 50
"""Carbon's usual MAX_CREATES_PER_MINUTE: it silently drops the datapoints of further new series."""

READ_SECONDS = 5.0
"""Delay from a confirmation to the first reading: mostly, Carbon has created the file of a new series by then."""
TRIES = 5
"""Readings after which a total is reported; then it is read once an hour."""

SAMPLE_DELAYS = (READ_SECONDS, 10.0, 45.0)
"""Delays from the confirmation to the first reading of a sample, from there to the second, and to the third."""
SAMPLE_PAUSE_FIRST, SAMPLE_PAUSE_MOST = 60.0, 600.0

LOG_SECONDS = 60.0


def backoff(failures: int, jitter: float, most: float = BACKOFF_MOST) -> float:
    """Return the delay after a number of failures in a row; most is its limit, 0 <= jitter < 1 spreads callers."""
    longest = min(most, BACKOFF_FIRST * float(2 ** min(failures - 1, 10)))
    return longest * (0.5 + jitter / 2)


def minutes_to_create(series: int) -> int:
    """Return how many minutes Carbon needs to create a number of new series."""
    return math.ceil(series / CREATES_PER_MINUTE)


def reread_delay(readings: int) -> float:
    """Return the delay after a number of readings that differed."""
    return MINUTE if readings < TRIES else HOUR


def sample_delay(readings: int) -> float:
    """Return the delay before the next reading of a sample."""
    return SAMPLE_DELAYS[readings] if readings < len(SAMPLE_DELAYS) else MINUTE


def sample_patience(new_series: int) -> float:
    """Return how long a sample of new series may differ before it is reported."""
    return MINUTE * (minutes_to_create(new_series) + TRIES)


def sample_pause(failures: int) -> float:
    """Return how long to take no samples; failures is the number of failed readings in a row before this one."""
    return min(SAMPLE_PAUSE_FIRST * 2.0**failures, SAMPLE_PAUSE_MOST)
