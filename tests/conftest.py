"""What all tests share: Hypothesis profiles, and a clean environment."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("dev", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deterministic", parent=settings.get_profile("ci"), derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's systemd and shipper variables out."""
    for name in ("CREDENTIALS_DIRECTORY", "JOURNAL_STREAM", "SHIPPER_CONFIG", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
