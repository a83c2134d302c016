"""A run without MySQL: it reports what it skips, or fails if MySQL is required."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ON_MYSQL = "tests/integration/test_exactness.py::test_rotated[mysql]"


def run_without_mysql(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest where there is no MySQL."""
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "SHIPPER_MYSQLD": "/nowhere/mysqld"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=60)


def test_skipped() -> None:
    """The last lines before pytest's own show how many tests did not run. Mutant: write them first."""
    ended = run_without_mysql(ON_MYSQL)

    assert ended.returncode == 0, ended.stdout
    *_, reason, title, skipped, remedy, last = ended.stdout.splitlines()
    assert reason.endswith("no MySQL: SHIPPER_MYSQLD=/nowhere/mysqld is not a program")
    assert "NOT RUN ON MYSQL" in title
    assert skipped.startswith("No MySQL here: 1 test skipped")
    assert "SHIPPER_MYSQLD" in remedy
    assert "1 skipped" in last


def test_required() -> None:
    """With --require-mysql nothing runs, and the error has a remedy."""
    ended = run_without_mysql("--require-mysql", ON_MYSQL)

    assert ended.returncode == 4
    assert "no MySQL: SHIPPER_MYSQLD=/nowhere/mysqld is not a program\nCheck the network, or set" in ended.stderr
