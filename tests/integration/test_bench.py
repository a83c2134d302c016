"""The benchmarks run; what they find is for those who run them in earnest."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "bench/run.py"
CHOSEN = (
    ("wide", "catchup", "delivery", "latency"),
    ("many", "pages", "repair", "state"),
    ("database", "growth"),
    ("pair",),
)
"""Scenarios that share a server."""


def smoke(names: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    """Run scenarios with hardly any work."""
    return subprocess.run([sys.executable, RUN, "--smoke", *names], capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)  # it took three minutes on a machine that was ten times slower
def test_smoke() -> None:
    """Scenarios of each kind do their work, and have rows in the table."""
    with ThreadPoolExecutor() as pool:  # times are nobody's business here, and mostly they wait
        done = dict(zip(CHOSEN, pool.map(smoke, CHOSEN), strict=True))

    failed = {names: one.stderr for names, one in done.items() if one.returncode}
    found = {names: {line.split()[0] for line in one.stdout.splitlines()[2:]} for names, one in done.items()}
    assert not failed
    assert found == {names: set(names) for names in CHOSEN}
