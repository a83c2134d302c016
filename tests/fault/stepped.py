"""Shipper with a wall clock that is off by the seconds in the file `offset` beside its configuration."""

import sys
import time
from pathlib import Path

from shipper.cli.commands import main

_right = time.time


def _stepped() -> float:
    """Read the offset at each call; without the file the clock is right."""
    return _right() + float(_offset.read_text() or 0) if _offset.exists() else _right()


if __name__ == "__main__":
    _offset = Path(sys.argv[sys.argv.index("--config") + 1]).with_name("offset")
    time.time = _stepped
    main(prog_name="shipper")
