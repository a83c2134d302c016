"""Numbers and times as people read them."""

import re
from datetime import UTC, datetime

from shipper.status.page.markup import Markup, join, tag

UNKNOWN = "unknown"
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_KIB = 1024


def number(value: int | None) -> Markup:
    """Return a number with its thousands set apart, and still copied as one."""
    if value is None:
        return muted(UNKNOWN)
    head, *groups = re.sub(r"(?<=\d)(?=(\d{3})+$)", ",", str(value)).split(",")
    return join(head, *(tag("i", group) for group in groups))


def counted(value: int, noun: str) -> Markup:
    """Return so many of something."""
    return join(number(value), f" {noun}" if value == 1 else f" {noun}s")


def plural(value: int, noun: str) -> str:
    """Return so many of something, as plain text."""
    return f"{value} {noun}" if value == 1 else f"{value} {noun}s"


def duration(seconds: float) -> str:
    """Return a time in its two largest units; one that a clock put below zero is none."""
    left = max(0, round(seconds))
    parts: list[tuple[int, str]] = []
    for unit, length in _UNITS:
        amount, left = divmod(left, length)
        if amount or parts:
            parts.append((amount, unit))
    return " ".join(f"{amount} {unit}" for amount, unit in parts[:2] if amount) or "0 s"


def size(size_bytes: int) -> str:
    """Return a file's size."""
    amount, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < _KIB:
            break
        amount, unit = amount / _KIB, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def utc(when: float) -> str:
    """Return a moment in full, whatever year a clock may show."""
    try:
        return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return str(when)


def ago(when: float | None, now: float, *, never: str = "never") -> Markup:
    """Return how long ago something was, its moment on pointing at it."""
    return muted(never) if when is None else _moment(f"{duration(now - when)} ago", when)


def ahead(when: float | None, now: float) -> Markup:
    """Return in how long something will be."""
    if when is None:
        return muted("not planned")
    return _moment(f"in {duration(when - now)}" if when > now else "now", when)


def muted(what: str) -> Markup:
    """Return what matters less."""
    return tag("span", what, class_="muted")


def _moment(words: str, when: float) -> Markup:
    return tag("time", words, datetime=utc(when).removesuffix(" UTC").replace(" ", "T") + "Z", title=utc(when))
