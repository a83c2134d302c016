"""Days of operation in minutes: do memory and the state file stay as they are, and are all rows shown?

Run `python tests/bench/day.py`: 50 jobs, three days (the state keeps one, so its growth ends after it), 13 minutes.
It prints a line for every three hours, then what must not grow, and ends with 1 if something did, or a value differs
from the table. See `operation.py`, and `accelerated.py` for the clocks.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import wait_for
from operation import HOUR, Day, Plan, Sample

EVERY = 3  # hours between lines
HEADERS = ("hour", "MiB", "threads", "files", "state KiB", "total", "history", "others", "rows", "datapoints")


def line(sample: Sample) -> tuple[object, ...]:
    """Return what is said of a sample."""
    history = sample.tables["history"]
    others = sum(sample.tables.values()) - sample.totals - history
    of_process = (f"{sample.memory / 2**20:.1f}", sample.threads, sample.files, sample.size // 1024)
    return (int(sample.elapsed // HOUR), *of_process, sample.totals, history, others, sample.rows, sample.datapoints)


def main() -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=float, default=3.1)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--factor", type=float, default=360.0)
    asked = parser.parse_args()
    # durable writes cost nothing there, and time is short
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        with Day.begun(Plan(asked.days, asked.jobs, asked.factor), Path(folder)) as day:
            print(*(f"{header:>10}" for header in HEADERS))
            for sample in day.run():
                if int(sample.elapsed // HOUR) % EVERY == 0:
                    print(*(f"{value:>10}" for value in line(sample)), flush=True)
            try:
                wait_for(lambda: not day.differing(), "all rows to be shown")
            except AssertionError:
                print(f"differing: {len(day.differing())}, as {day.differing()[:5]}")
            differing = day.differing()
        rows = [(name, *values) for name, values in day.growth().items()]
        print(tabulate(rows, ("", "before", "after", "may be"), floatfmt=",.0f"))
        print(*sorted({event for event in day.app.events() if "finished" not in event}))
    faults = [*day.faults(), *(["values differ from the table"] if differing else [])]
    print(*(faults or ["nothing grew, and all values equal the table's"]), sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
