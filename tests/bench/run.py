"""What shipper costs, as ratios to others on the same work, measured in turns within one run.

`./tests/run bench` runs all scenarios, `./tests/run bench wide tick` some. README.md beside this file has the
contenders, and the last table.
"""

import sys

from ground import ground
from scenarios import SCENARIOS
from tabulate import tabulate


def main() -> int:
    """Print the table; return the exit code."""
    chosen = sys.argv[1:] or list(SCENARIOS)
    if unknown := [name for name in chosen if name not in SCENARIOS]:
        print(f"no scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    rows = []
    with ground() as made:
        for name in chosen:
            made.forget()
            for one in SCENARIOS[name](made):
                met = "" if one.target is None else "yes" if one.ratio <= one.target else "NO"
                rows.append((name, one.what, one.ours, one.other, one.others, one.unit, one.ratio, one.target, met))
                print(f"{name}: {one.what}: {one.ratio:.2f} of {one.other}", file=sys.stderr)
    headers = ("scenario", "", "shipper", "", "other", "", "ratio", "at most", "met")
    print(tabulate(rows, headers, floatfmt=("g", "g", ".1f", "g", ".1f", "g", ".2f", ".2f", "g")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
