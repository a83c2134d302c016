"""HTML elements, with numbers and times as people read them.

Every str that is not Markup is escaped: names, titles and errors come from configurations and databases.
"""

from datetime import UTC, datetime
from functools import lru_cache

from shipper.core import durations

_CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160)), "�")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"}) | _CONTROLS


class Markup(str):
    """HTML that is escaped already. Added to a str it becomes a str, and is escaped twice: wrong, but harmless."""

    __slots__ = ()


def text(value: str) -> Markup:
    """Return a text as Markup, escaped; control characters become visible ones."""
    return value if isinstance(value, Markup) else Markup(value.translate(_ESCAPES))


def join(*parts: str) -> Markup:
    """Concatenate parts."""
    return Markup("".join(map(text, parts)))


def tag(name: str, /, *children: str, **attributes: str | None) -> Markup:
    """Return an element without the attributes that are None; `class_` is class and `data_label` data-label."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{pairs}>" + ("" if name == "meta" else f"{join(*children)}</{name}>"))


UNKNOWN = "unknown"
_KIB = 1024


def number(value: int | None) -> Markup:
    """Return a number with gaps between thousands, which a user still copies as one number."""
    if value is None:
        return muted(UNKNOWN)
    head, *groups = f"{value:,}".split(",")
    return join(head, *(tag("i", group) for group in groups))


def counted(value: int, noun: str) -> Markup:
    """Return a number and its noun, in the singular or plural."""
    return join(number(value), f" {noun}" if value == 1 else f" {noun}s")


def plural(value: int, noun: str) -> str:
    """Return a number and its noun as plain text."""
    return f"{value} {noun}" if value == 1 else f"{value} {noun}s"


def size(size_bytes: int) -> str:
    """Return the size of a file, in a readable unit."""
    amount, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < _KIB:
            break
        amount, unit = amount / _KIB, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def utc(when: float) -> str:
    """Return a date and time; also of a year that no calendar has."""
    try:
        return _utc(int(when // 1))
    except (OverflowError, ValueError, OSError):
        return str(when)


@lru_cache(1000)  # many jobs share their times
def _utc(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ago(when: float | None, now: float) -> Markup:
    """Return how long ago a time was, with the date in a tooltip."""
    return muted("never") if when is None else _moment(f"{durations.show(now - when)} ago", when)


def ahead(when: float | None, now: float) -> Markup:
    """Return in how long a time will come, with the date in a tooltip."""
    if when is None:
        return muted("not planned")
    return _moment(f"in {durations.show(when - now)}" if when > now else "now", when)


def muted(words: str) -> Markup:
    """Return a text of less importance."""
    return tag("span", words, class_="muted")


def _moment(words: str, when: float) -> Markup:
    return tag("time", words, datetime=utc(when).removesuffix(" UTC").replace(" ", "T") + "Z", title=utc(when))
