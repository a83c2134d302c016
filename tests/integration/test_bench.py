"""The benchmarks run; what they find is for those who run them in earnest."""

import subprocess
import sys
from pathlib import Path


def test_smoke() -> None:
    """Scenarios of each kind do their work, and have a row in the table."""
    program = Path(__file__).parents[1] / "bench/run.py"
    done = subprocess.run(
        [sys.executable, program, "--smoke", "wide", "delivery", "many"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    found = {line.split()[0] for line in done.stdout.splitlines()[2:]}
    assert found == {"wide", "delivery", "many"}
