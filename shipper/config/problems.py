"""What is wrong in a configuration: each problem at its line, with a remedy, all at once.

tree-sitter: on which line of a TOML file a key stands.

The standard library's parser gives values without places. This one is only asked once something is wrong.
"""

import tomllib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import tree_sitter
import tree_sitter_toml
from pydantic_core import ErrorDetails

from shipper.config.sections import (
    File,
    GraphiteSection,
    JobSection,
    LimitsSection,
    Section,
    SourceSection,
    StateSection,
)
from shipper.config.values import toml
from shipper.core.errors import ConfigError

Cursor = tuple[str | int, ...]

SECRET_LENGTH = 4  # what is shorter is none, and part of many words
_SECRET = {"url", "password"}  # they may hold what nobody should see

_REMEDIES = {
    "int_type": "Write a whole number, without quotes.",
    "string_type": 'Write it in quotes: "...".',
    "list_type": 'Write a list: ["...", "..."].',
    "dict_type": "Write a section or { key = value }.",
    "model_type": "Write a section or { key = value }.",
}
_EXAMPLES = {
    "graphite": '[graphite] with retentions = "1m:30d,1h:5y"',
    "retentions": 'retentions = "1m:30d,1h:5y", what carbon keeps of these series',
    "source": '[source.app] with url = "mysql+pymysql://db1.internal/app"',
    "job": "[job.NAME] with table, id and name",
    "table": 'table = "audit_trail"',
    "id": 'id = "id", the ever-growing key of the table',
    "name": 'name = "logins.{measure}", the path of its metrics',
}
_SECTIONS: dict[object, type[Section]] = {
    "state": StateSection,
    "graphite": GraphiteSection,
    "limits": LimitsSection,
    "source": SourceSection,
    "job": JobSection,
    "defaults": JobSection,
}


class Problem(NamedTuple):
    """Something wrong at a place of a file, and what to do."""

    place: Cursor
    message: str
    remedy: str
    file: str | None = None
    """Where several files have the place: which of them."""


class Document(NamedTuple):
    """One file of a configuration."""

    file: str
    text: str
    raw: dict[str, Any]

    def holds(self, place: Cursor) -> bool:
        """Does a place that begins with a section stand in this file?"""
        here: Any = self.raw
        for key in place[:2]:
            if not isinstance(here, dict) or key not in here:
                return False
            here = here[key]
        return True


def explained(error: ErrorDetails, place: Cursor) -> Problem:
    """Say one of pydantic's findings in our words."""
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
            shown = "(hidden)" if key in _SECRET else toml(error["input"])
            return Problem(place, f"{key} = {shown} does not fit", remedy)


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return what was probably meant."""
    close = get_close_matches(wrong, list(known), n=1)
    return f'Did you mean "{close[0]}"?' if close else f"Known here: {', '.join(known) or 'none'}."


def report(documents: list[Document], problems: Iterable[Problem], secrets: Iterable[str]) -> ConfigError:
    """Put every problem at its line, once, in the order of the files; what a reference led to is not shown."""
    from shipper.config.problems import line_of  # noqa: PLC0415 - a second parser, wanted only where something is wrong

    lines = []
    by_document: dict[str, list[Problem]] = {document.file: [] for document in documents}
    for problem in problems:
        moved = problem._replace(place=_place(problem.place, documents), message=_hidden(problem.message, secrets))
        holder = next((one for one in documents if one.holds(moved.place)), documents[0])
        by_document[problem.file or holder.file].append(moved)
    for file, text, _ in documents:
        own = by_document[file]
        places = line_of(text, [problem.place for problem in own])
        found = sorted({(line, p.message, p.remedy) for line, p in zip(places, own, strict=True)})
        lines += [f"{file}:{line}: {message}\n    {remedy}" for line, message, remedy in found]
    return ConfigError("\n".join(lines))


def _hidden(message: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if len(secret) >= SECRET_LENGTH:
            message = message.replace(secret, "(hidden)")
    return message


def not_toml(file: str, text: str, error: tomllib.TOMLDecodeError, line: str | None) -> ConfigError:
    """Say what the parser stumbled over."""
    is_twice = "twice" in str(error) or "overwrite" in str(error)
    hint = "A section or key stands twice." if is_twice else "The file is not TOML: is a quote or a bracket open?"
    return ConfigError(f"{file}:{line or text.count(chr(10)) + 1}: {error}", hint=hint)


def _known(place: Cursor) -> list[str]:
    return list((File if len(place) == 1 else _SECTIONS[place[0]]).model_fields)


def _place(place: Cursor, documents: list[Document]) -> Cursor:
    """Lead a job's key that the job does not have itself to [defaults]."""
    match place:
        case ("job", job, key, *rest):
            defaults = documents[0].raw.get("defaults")
            holder = next((one for one in documents if one.holds(place)), None)
            is_own = holder is not None and key in holder.raw["job"][job]
            if isinstance(defaults, dict) and key in defaults and not is_own:
                return ("defaults", key, *rest)
    return place


Path = tuple[str | int, ...]


def line_of(text: str, paths: Sequence[Path]) -> list[int]:
    """Return, for each path of keys, the line where it stands, or else where the table stands that lacks it."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
    lines: dict[Path, int] = {(): 1}
    _walk(parser.parse(text.encode()).root_node, (), lines)
    return [next(lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines) for path in paths]


def _walk(node: tree_sitter.Node, path: Path, lines: dict[Path, int]) -> None:
    for child in node.named_children:
        if child.type not in {"pair", "table", "table_array_element"}:
            continue
        key, *rest = child.named_children
        below = path
        for name in _names(key):
            below = (*below, name)
            lines.setdefault(below, child.start_point.row + 1)
        lines[below] = child.start_point.row + 1
        if child.type != "pair":
            _walk(child, below, lines)
        elif rest and rest[0].type == "inline_table":
            _walk(rest[0], below, lines)


def _names(key: tree_sitter.Node) -> list[str]:
    if key.type == "dotted_key":
        return [name for part in key.named_children for name in _names(part)]
    text = (key.text or b"").decode()
    return [text[1:-1] if key.type == "quoted_key" else text]
