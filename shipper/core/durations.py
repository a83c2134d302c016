"""Durations as people write and read them: 90s, 15m, 1h30m, 2d, 1w, 5y."""

import re

UNITS = {"y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
SINGLE = r"[1-9][0-9]{0,9}[smhdwy]"
"""Pattern of a duration in one unit, the only kind that Carbon reads."""
PATTERN = rf"({SINGLE})+"
"""Pattern of a duration; the parser also wants larger units first."""
LONGEST = 100 * UNITS["y"]
"""Longest duration, a century: beyond it time-outs and timestamps overflow."""

_PARTS = re.compile("".join(f"(?:([1-9][0-9]{{0,9}}){unit})?" for unit in UNITS))


def parse(text: str) -> int | None:
    """Return a duration in seconds; None where the text is no duration, or a longer one than a century."""
    parts = _PARTS.fullmatch(text)
    amounts = parts.groups(default="0") if parts else ()
    seconds = sum(int(amount) * length for amount, length in zip(amounts, UNITS.values(), strict=False))
    return seconds if 0 < seconds <= LONGEST else None


def show(seconds: float) -> str:
    """Return a duration as `parse` reads it, in its two largest units up to days; "0s" for a negative one.

    Clocks that were set back cause negative ones.
    """
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit in "dhms":
        amount, left = divmod(left, UNITS[unit])
        if amount or parts:
            parts.append(f"{amount}{unit}" if amount else "")
    return "".join(parts[:2]) or "0s"
