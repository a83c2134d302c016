"""A day of operation in a minute: resources do not grow, and every row is shown. See `operation.py`.

`python tests/bench/day.py` is the same for days, with 50 jobs.
"""

from pathlib import Path

import pytest
from harness import wait_for
from operation import Day, Plan

PLAN = Plan(days=1.21, jobs=5, factor=1600.0, every=10, bucket=10, rows=300)


@pytest.mark.timeout(300)
def test_nothing_grows(tmp_path: Path) -> None:
    """Memory, threads, files and tables do not grow once the state is old enough. Mutants: no pruning, a leak."""
    with Day.begun(PLAN, tmp_path) as day:
        for _ in day.run():
            pass
        wait_for(lambda: not day.differing(), "all rows to be shown")

    assert day.faults() == []
