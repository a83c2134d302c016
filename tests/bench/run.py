"""What shipper costs, as ratios to others on the same work, measured in turns within one run.

`./tests/run bench` runs all scenarios, `./tests/run bench wide tick` some. README.md beside this file has the
contenders, and the last table.
"""

import argparse
import sys

from ground import SMOKE, Sizes, ground
from scenarios import SCENARIOS
from tabulate import tabulate


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="./tests/run bench", description=__doc__.partition("\n")[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; else all")
    parser.add_argument("--smoke", action="store_true", help="hardly any work: does it run?")
    asked = parser.parse_args()
    chosen = asked.scenarios or list(SCENARIOS)
    if unknown := [name for name in chosen if name not in SCENARIOS]:
        parser.error(f"no scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}")
    rows = []
    with ground(SMOKE if asked.smoke else Sizes()) as made:
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
