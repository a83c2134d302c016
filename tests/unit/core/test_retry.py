"""The retry policy."""

import pytest

from shipper.core.retry import backoff


@pytest.mark.parametrize(("failures", "shortest", "longest"), [(1, 0.125, 0.25), (3, 0.5, 1), (5, 2, 4), (1000, 2, 4)])
def test_backoff(failures: int, shortest: float, longest: float) -> None:
    """The delay doubles up to 4 s, so that the first delivery follows Carbon's return within 5 s."""
    assert backoff(failures, 0.0) == shortest
    assert backoff(failures, 1.0) == longest
