"""The operators' handbook, whose commands tests run as they stand."""

import re
from pathlib import Path

HANDBOOK = Path(__file__).parents[1] / "deploy/README.md"


def handbook(section: str) -> list[str]:
    """Return the commands that a section of the handbook shows."""
    text = HANDBOOK.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [
        re.sub("^    ", "", block, flags=re.MULTILINE) for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    ]
