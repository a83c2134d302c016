"""Problems of a configuration: reported all at once, each with its line and a remedy.

The standard library's parser gives values without lines. tree-sitter finds them, and is only imported for a problem.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pydantic_core import ErrorDetails

from shipper.config.keys import File
from shipper.config.values import toml
from shipper.core.errors import ConfigError, visible_line

if TYPE_CHECKING:
    import tree_sitter

Place = tuple[str | int, ...]
"""Keys from the top of the file to a value."""

MOST_DEPTH = 20
"""Most tables and lists within each other; four are of use."""
SECRET_LENGTH = 4  # a shorter text is no secret, and part of many words


def is_secret(place: Place) -> bool:
    """Whether a value may contain a password."""
    return not {"url", "password"}.isdisjoint(place[-1:]) or place[:2] == ("state", "database")


_MANY_DIGITS = re.compile(r"[0-9][0-9_]{999,}")
_REMEDIES = {
    "int_type": "Write an integer, without quotes.",
    "string_type": 'Write it in quotes: "...".',
    "list_type": 'Write a list: ["...", "..."].',
    "dict_type": "Write a section or { key = value }.",
    "model_type": "Write a section or { key = value }.",
}
_EXAMPLES = {
    "graphite": '[graphite] with retentions = "1m:30d,1h:5y"',
    "retentions": 'retentions = "1m:30d,1h:5y", the archives that carbon keeps of these series',
    "source": '[source.app] with url = "mysql+pymysql://db1.internal/app"',
    "job": "[job.NAME] with table, id and name",
    "table": 'table = "audit_trail"',
    "id": 'id = "id", the growing key of the table',
    "name": 'name = "logins.{measure}", the path of its series',
}


class Problem(NamedTuple):
    """A problem at one place of a file, and its remedy."""

    place: Place
    message: str
    remedy: str
    file: str | None = None
    """File of the problem, if several files have the place."""


class Document(NamedTuple):
    """One file of a configuration."""

    file: str
    text: str
    raw: dict[str, Any]

    @property
    def depth(self) -> int:
        """Number of tables and lists within each other."""
        depth, level = 0, list[Any]([self.raw])
        while level:
            depth += 1
            inner = [one for outer in level for one in (outer.values() if isinstance(outer, dict) else outer)]
            level = [one for one in inner if isinstance(one, dict | list)]
        return depth

    def holds(self, place: Place) -> bool:
        """Whether this file has a place that begins with a section."""
        here: Any = self.raw
        for key in place[:2]:
            if not isinstance(here, dict) or key not in here:
                return False
            here = here[key]
        return True


def explained(error: ErrorDetails, place: Place) -> Problem:
    """Return pydantic's error as a problem in plain words."""
    kind, context = error["type"], error.get("ctx", {})
    key = next((part for part in reversed(place) if isinstance(part, str) and part != "[key]"), "")
    match kind:
        case "shipper":
            return Problem(place, context["message"], context["remedy"])
        case "extra_forbidden":
            return Problem(place, f'no such key "{key}"', suggest(str(key), _known(place)))
        case "missing":
            return Problem(place, f'"{key}" is missing', f"Add, for example, {_EXAMPLES[str(key)]}.")
        case _:
            remedy = _REMEDIES.get(kind, f"{error['msg']}.")
            value = "(hidden)" if is_secret(place) else toml(error["input"])
            return Problem(place, f"{key} = {value} is invalid", remedy)


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return a remedy for a wrong name: the nearest known one, or all of them."""
    near = nearest(wrong, known)
    return f'Did you mean "{near}"?' if near else f"Known here: {visible_line(', '.join(known)) or 'none'}."


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a wrong one, to be shown; None if none is like it, in whatever case."""
    from difflib import get_close_matches  # noqa: PLC0415 - only imported for a problem

    names = {name.casefold(): name for name in known}
    close = get_close_matches(wrong.casefold(), list(names), n=1)
    return visible_line(names[close[0]]) if close else None


def report(documents: list[Document], problems: Iterable[Problem], secrets: Iterable[str]) -> ConfigError:
    """Return all problems as one error, each once and at its line, in the order of the files; it shows no secrets."""
    # each problem goes to the file that has its place
    by_document: dict[str, list[Problem]] = {document.file: [] for document in documents}
    for problem in problems:
        message, remedy = visible_line(_hidden(problem.message, secrets)), visible_line(problem.remedy)
        moved = problem._replace(place=_place(problem.place, documents), message=message, remedy=remedy)
        holder = next((document for document in documents if document.holds(moved.place)), documents[0])
        by_document[problem.file or holder.file].append(moved)
    # then all of a file, in the order of its lines
    report_lines = []
    for file, text, _ in documents:
        own = by_document[file]
        numbers = line_of(text, [problem.place for problem in own])
        entries = sorted({(number, p.message, p.remedy) for number, p in zip(numbers, own, strict=True)})
        report_lines += [f"{file}:{number}: {message}\n    {remedy}" for number, message, remedy in entries]
    return ConfigError("\n".join(report_lines))


def _hidden(message: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if len(secret) >= SECRET_LENGTH:
            message = message.replace(secret, "(hidden)")
    return message


def not_toml(file: str, text: str, error: ValueError) -> ConfigError:
    """Return the error of a file that is not TOML."""
    message, hint = str(error), 'Put texts and durations in quotes, as in every = "30s"; close each quote and bracket.'
    line = re.search(r"\(at line (\d+)", message)
    number = int(line[1]) if line else text.count("\n") + 1
    if "twice" in message or "overwrite" in message:
        hint = "Remove the section or key that is there twice."
    elif digits := _MANY_DIGITS.search(text) if "digits" in message else None:
        message, hint = f"a number of {len(digits[0])} digits", "Write a shorter number."
        number = text.count("\n", 0, digits.start()) + 1
    elif "\0" in text:
        message, hint = "a NUL character", "Save the file as UTF-8 text."
        number = text.count("\n", 0, text.index("\0")) + 1
    return ConfigError(f"{file}:{number}: {message}", hint=hint)


def too_deep(file: str, text: str) -> ConfigError:
    """Return the error of a file with too many tables and lists within each other, at the line where they are."""
    depths, depth = [], 0
    for line in text.split("\n"):
        depth += sum(map(line.count, "[{"))
        depths.append(depth + line.count("."))
        depth -= sum(map(line.count, "]}"))
    number = 1 + next((n for n, most in enumerate(depths) if most > MOST_DEPTH), 0)
    return ConfigError(f"{file}:{number}: nested too deeply", hint="Close each bracket; no key is that deep.")


def _known(place: Place) -> list[str]:
    """Return the keys of the section that a wrong key is in."""
    if len(place) == 1:
        return list(File.model_fields)
    kind: Any = File.model_fields["job" if place[0] == "defaults" else str(place[0])].annotation
    return list((get_args(kind) or [kind])[-1].model_fields)  # of several sections by name, that of one


def _place(place: Place, documents: list[Document]) -> Place:
    """Return the place in [defaults] of a job's key that only [defaults] has."""
    match place:
        case ("job", job, key, *rest):
            defaults = documents[0].raw.get("defaults")
            holder = next((document for document in documents if document.holds(place)), None)
            is_own = holder is not None and key in holder.raw["job"][job]
            if isinstance(defaults, dict) and key in defaults and not is_own:
                return ("defaults", key, *rest)
    return place


def line_of(text: str, places: Sequence[Place]) -> list[int]:
    """Return the line of each place; of a key that is missing, the line of its table."""
    import tree_sitter  # noqa: PLC0415 - a second parser, only needed for a problem
    import tree_sitter_toml  # noqa: PLC0415 - likewise

    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
    lines: dict[Place, int] = {(): 1}
    _walk(parser.parse(text.encode()).root_node, (), lines)
    return [next(lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in lines) for place in places]


def _walk(node: "tree_sitter.Node", place: Place, lines: dict[Place, int]) -> None:
    """Note the first line of each place below a node; a table's own header wins over the headers of its parts."""
    for child in node.named_children:
        if child.type not in {"pair", "table", "table_array_element"}:
            continue
        key, *rest = child.named_children
        below = place
        for name in _names(key):
            below = (*below, name)
            lines.setdefault(below, child.start_point.row + 1)
        lines[below] = child.start_point.row + 1
        if child.type != "pair":
            _walk(child, below, lines)
        elif rest and rest[0].type == "inline_table":
            _walk(rest[0], below, lines)


def _names(key: "tree_sitter.Node") -> list[str]:
    if key.type == "dotted_key":
        return [name for part in key.named_children for name in _names(part)]
    text = (key.text or b"").decode()
    return [text[1:-1] if key.type == "quoted_key" else text]
