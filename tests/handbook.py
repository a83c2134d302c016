"""The operators' handbook, whose commands tests run as they stand."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from harness import PATIENCE_SECONDS

HANDBOOK = Path(__file__).parents[1] / "deploy/README.md"


def handbook(section: str) -> list[str]:
    """Return the commands that a section of the handbook shows."""
    text = HANDBOOK.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [
        re.sub("^    ", "", block, flags=re.MULTILINE) for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    ]


def walk(config: Path, line: str, **environment: str) -> tuple[int, str]:
    """Do as a line of the handbook says, with a terminal to answer yes at; return the exit code and all it says."""
    ours, theirs = pty.openpty()
    os.write(ours, b"y\n")
    ended = subprocess.run(
        line.strip().replace("shipper ", f"{sys.executable} -m shipper.cli ", 1).split(),
        stdin=theirs,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SHIPPER_CONFIG": str(config), **environment},
        timeout=PATIENCE_SECONDS,
    )
    os.close(ours)
    os.close(theirs)
    return ended.returncode, ended.stdout + ended.stderr
