"""The benchmarks run; what they find is for those who run them in earnest."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RUN = Path(__file__).parents[1] / "bench/run.py"
CHOSEN = ("wide", "catchup", "delivery", "many", "database", "state")


def smoke(name: str) -> "subprocess.CompletedProcess[str]":
    """Run a scenario with hardly any work."""
    return subprocess.run([sys.executable, RUN, "--smoke", name], capture_output=True, text=True, check=False)


def test_smoke() -> None:
    """Scenarios of each kind do their work, and have rows in the table."""
    with ThreadPoolExecutor() as pool:  # times are nobody's business here, and mostly they wait
        done = dict(zip(CHOSEN, pool.map(smoke, CHOSEN), strict=True))

    failed = {name: one.stderr for name, one in done.items() if one.returncode}
    found = {name: {line.split()[0] for line in one.stdout.splitlines()[2:]} for name, one in done.items()}
    assert not failed
    assert {name: {name} for name in CHOSEN} == found
