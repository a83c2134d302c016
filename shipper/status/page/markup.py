"""HTML that cannot be broken from outside: what is not Markup is text, and becomes that.

Names, titles and errors come from configurations and databases.
"""

import html

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
