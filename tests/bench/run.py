"""What shipper costs, as ratios to others on the same work, measured in turns within one run.

`./tests/run bench` runs all scenarios, `./tests/run bench wide tick` some. README.md beside this file has the
contenders, and the last table.
"""

import argparse
import signal
import sys

from ground import SMOKE, Sizes, ground
from measured import Measured
from scenarios import SCENARIOS
from tabulate import tabulate

HEADERS = ("scenario", "", "shipper", "contender", "theirs", "", "ratio", "at most", "met")
ALIGNED = ("left", "left", "right", "left", "right", "left", "right", "right", "left")
MET = {None: "", True: "yes", False: "NO"}


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="./tests/run bench", description=__doc__.partition("\n")[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; else all")
    parser.add_argument("--smoke", action="store_true", help="hardly any work: does it run?")
    parser.add_argument(
        "--python", default=sys.executable, help="what contenders run in; else what runs this, with the tests' packages"
    )
    parser.add_argument("--install-peers", action="store_true", help="install peers that are not there")
    asked = parser.parse_args()
    chosen = asked.scenarios or list(SCENARIOS)
    if unknown := [name for name in chosen if name not in SCENARIOS]:
        parser.error(f"no scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # whoever ends us ends our servers, too
    rows = []
    sizes = SMOKE if asked.smoke else Sizes()
    with ground(sizes, python=asked.python, installs_peers=asked.install_peers) as made:
        for name in chosen:
            made.forget()
            for one in SCENARIOS[name](made):
                rows.append(line(name, one))
                print(f"{name}: {one.what}: {one.ratio:.2f} of {one.other}", file=sys.stderr)
    print(tabulate(rows, HEADERS, colalign=ALIGNED, disable_numparse=True))
    return 0


def line(scenario: str, one: Measured) -> tuple[str, ...]:
    """Write a row of the table."""
    target = "" if one.target is None else f"{one.target:.2f}"
    numbers = (brief(one.ours), one.other, brief(one.others), one.unit)
    return (scenario, one.what, *numbers, f"{one.ratio:.2f}", target, MET[one.is_met])


def brief(number: float) -> str:
    """Write a number with the digits that tell something."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.1f}" if number >= 10 else f"{number:.3f}"


if __name__ == "__main__":
    sys.exit(main())
