"""HTML that cannot be broken from outside: what is not Markup is text, and becomes that.

Names, titles and errors come from configurations and databases.

Numbers and times as people read them.
"""

import html
import re
from datetime import UTC, datetime

from shipper.core import durations

_CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160)), "�")
_VOID = {"meta", "link", "col"}


class Markup(str):
    """HTML as it goes out. Added to a plain text it is one again, and escaped once more: wrong, but harmless."""

    __slots__ = ()


def text(value: str) -> Markup:
    """Escape what is not Markup yet; a control character becomes one that can be seen."""
    return value if isinstance(value, Markup) else Markup(html.escape(value.translate(_CONTROLS)))


def join(*parts: str) -> Markup:
    """Put parts side by side."""
    return Markup("".join(map(text, parts)))


def tag(name: str, /, *children: str, **attributes: str | None) -> Markup:
    """Return an element; an attribute that is None is left out, `class_` is class and `data_label` data-label."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>" + ("" if name in _VOID else f"{join(*children)}</{name}>"))


UNKNOWN = "unknown"
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
    return muted(never) if when is None else _moment(f"{durations.show(now - when)} ago", when)


def ahead(when: float | None, now: float) -> Markup:
    """Return in how long something will be."""
    if when is None:
        return muted("not planned")
    return _moment(f"in {durations.show(when - now)}" if when > now else "now", when)


def muted(what: str) -> Markup:
    """Return what matters less."""
    return tag("span", what, class_="muted")


def _moment(words: str, when: float) -> Markup:
    return tag("time", words, datetime=utc(when).removesuffix(" UTC").replace(" ", "T") + "Z", title=utc(when))
