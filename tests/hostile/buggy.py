"""Run shipper with a bug: `python tests/hostile/buggy.py reading|sending run --config FILE`.

The first three readings raise an exception that nothing expects, or each sending; five in a row end the process.
"""

import runpy
import sys
from itertools import count
from pathlib import Path

from shipper.cli.commands import main
from shipper.core.delivery import courier, readings
from shipper.runtime import delivery

REAL = readings.compare
CALLS = count(1)


def _compare(*arguments: object) -> object:
    if next(CALLS) <= 3:
        raise ZeroDivisionError("a bug")
    return REAL(*arguments)  # type: ignore[arg-type]


def _load(*_arguments: object) -> object:
    raise ZeroDivisionError("a bug")


def break_down(part: str) -> None:
    """Put the bug in its place."""
    changed: dict[str, tuple[object, str, object]] = {
        "reading": (courier, "compare", _compare),
        "sending": (courier.Courier, "_load", _load),
    }
    for owner, name, value in (changed[part], (delivery, "MOST_BUGS", 5)):
        setattr(owner, name, value)


if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("quick.py")))["hurry"]()
    break_down(sys.argv[1])
    main(sys.argv[2:])
