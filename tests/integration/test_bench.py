"""The benchmarks run; what they find is for those who run them in earnest."""

import subprocess
import sys
from pathlib import Path


def test_smoke() -> None:
    """Every scenario does its work, and has a row in the table."""
    program = Path(__file__).parents[1] / "bench/run.py"
    done = subprocess.run([sys.executable, program, "--smoke"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    found = {line.split()[0] for line in done.stdout.splitlines()[2:]}
    assert found == {"startup", "tick", "wide", "catchup", "scale", "delivery", "idle", "many"}
