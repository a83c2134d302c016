"""The operators' handbook, whose commands tests run as they are printed."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from harness import PATIENCE_SECONDS

FOLDER = Path(__file__).parents[1] / "deploy"


def handbook(page: str, section: str) -> list[str]:
    """Return the indented blocks of commands in a section of a page."""
    text = (FOLDER / page).read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [
        re.sub("^    ", "", block, flags=re.MULTILINE) for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    ]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def walk(config: Path, line: str, **environment: str) -> tuple[int, str]:
    """Run a command of the handbook with a terminal that answers yes; return the exit code and its output."""
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
