"""Kinds of values of jobs alone: columns, names of series, schedules, measures, conditions.

Each has the function that reads it, which raises an error with a remedy, and the pattern that editors check.
"""

import math
import re
from datetime import date, datetime, time
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from shipper.config.cron import Cron as CronLine
from shipper.config.values import NODE, matches, node, toml, wrong
from shipper.core.measures import Kind
from shipper.core.model import MAX_ID, Condition, Scalar
from shipper.core.paths import MAX_TEMPLATE, is_template

IDENTIFIER = r'[^\x00-\x1f\x7f.;{}"`]{1,64}'
"""Names in databases, which are quoted in statements; dots, semicolons and braces have a meaning in paths."""
_NODES = r"([A-Za-z0-9_-]|\{[^{}]*\})+"
_OF_COLUMN = [kind.value for kind in Kind if kind is not Kind.COUNT]
_OPERATORS = [operator for operator in get_args(Condition.__annotations__["operator"]) if operator != "in"]
_SCALAR = {"type": ["string", "number", "boolean"]}
_SCALARS = {"type": "array", "items": _SCALAR, "minItems": 1}
_TEST: dict[str, Any] = {
    "type": "object",
    "properties": {
        "not": {"anyOf": [_SCALAR, _SCALARS]},
        "like": {"type": "string"},
        **dict.fromkeys(("ge", "gt", "le", "lt"), _SCALAR),
        "null": {"type": "boolean"},
    },
    "minProperties": 1,
    "additionalProperties": False,
}


def identifier(value: str) -> str:
    """Accept the name of a table or column."""
    if not re.fullmatch(IDENTIFIER, value):
        remedy = "Write it without quotes. If a quote or one of .;{} is a part of it, create a view with other names."
        raise wrong(f'"{value}" is not a name that shipper can use', remedy)
    return value


def table(value: str) -> str:
    """Accept the name of a table, or SCHEMA.TABLE."""
    schema, dot, name = value.rpartition(".")
    if "." in schema:
        raise wrong(f'"{value}" is not a table', "Write TABLE or SCHEMA.TABLE, and name the database in the source.")
    return (identifier(schema) + dot if dot else "") + identifier(name)


Identifier = Annotated[str, AfterValidator(identifier), matches(IDENTIFIER)]
Table = Annotated[str, AfterValidator(table), matches(rf"({IDENTIFIER}\.)?{IDENTIFIER}")]


def sources(value: object) -> tuple[str, ...]:
    """Read the name of a source, or a list of names."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise wrong(f"source = {toml(value)} is not a source", 'Write the name of one, or a list: ["app", "other"].')
    if len(set(names)) < len(names):
        raise wrong(f"source = {toml(value)} names a source twice", "Name each source once.")
    return tuple(names)


_NAMES = {"type": "array", "items": {"type": "string"}, "minItems": 1}
Sources = Annotated[tuple[str, ...], BeforeValidator(sources), WithJsonSchema({"anyOf": [{"type": "string"}, _NAMES]})]


def template(value: str) -> str:
    """Accept a metric path with placeholders."""
    if ";" in value or not is_template(value) or len(value) > MAX_TEMPLATE:
        raise wrong(f'name = "{value}" does not give metric paths', 'Write nodes as in "logins.{action}.{measure}".')
    return value


def tag(value: str) -> str:
    """Accept the value of a tag, with or without placeholders; carbon rejects an empty one and a leading ~."""
    if {";", "="} & set(value) or not is_template(f"x;x={value}"):
        raise wrong(f'"{value}" cannot be the value of a tag', "Use letters, digits, _ - . and {column}.")
    return value


def tag_name(value: str) -> str:
    """Accept the name of a tag; carbon uses the tag `name` for the path."""
    if value == "name":
        raise wrong('"name" cannot be a tag', "Choose another: carbon uses it for the path itself.")
    return node(value)


Template = Annotated[str, AfterValidator(template), matches(rf"{_NODES}(\.{_NODES})*")]
Tags = dict[
    Annotated[str, AfterValidator(tag_name), matches(NODE)],
    Annotated[str, AfterValidator(tag), matches(r"([A-Za-z0-9_.-]|\{[^{}]*\})+")],
]


def start(value: object) -> object:
    """Accept where a job begins."""
    if value in ("now", "beginning") or (type(value) is int and 0 <= value <= MAX_ID):
        return value
    raise wrong(f"start = {toml(value)} is not a start", 'Write "now", "beginning", or an id after which to start.')


def cron(value: str) -> str:
    """Accept a line of cron."""
    try:
        CronLine(value, "UTC")
    except ValueError as error:
        remedy = f'{error}. Write, for example, "*/5 6-20 * * mon-fri".'
        raise wrong(f'cron = "{value}" is not a schedule', remedy[0].upper() + remedy[1:]) from None
    return value


Start = Annotated[
    Literal["now", "beginning"] | int,
    BeforeValidator(start),
    WithJsonSchema({"anyOf": [{"enum": ["now", "beginning"]}, {"type": "integer", "minimum": 0}]}),
]
Cron = Annotated[str, AfterValidator(cron), matches(r"(@[a-z]+|\s*\S+(\s+\S+){4}\s*)")]


def measure(value: object) -> tuple[Kind, str | None]:
    """Read `count`, or an aggregate of a column."""
    kind, _, column = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind == Kind.COUNT and not column:
        return Kind.COUNT, None
    if kind in _OF_COLUMN and column:
        return Kind(kind), identifier(column)
    remedy = (
        'Write "count", "sum:column", "max:column", "min:column" or "distinct:column"; '
        "a mean is divideSeries(sum, count) in Graphite."
    )
    raise wrong(f"{toml(value)} is not a measure", remedy)


def groups(value: object) -> tuple[tuple[str, ...], ...]:
    """Read declared groups: values of one column, or lists of values of several."""
    if not isinstance(value, list):
        raise wrong(f"{toml(value)} are not groups", 'Write a list of values, or of lists: [["login", "ok"]].')
    rows = [group if isinstance(group, list) else [group] for group in value]
    if not all(isinstance(part, str) for row in rows for part in row):
        raise wrong(f"{toml(value)} are not groups", "Write their values as strings.")
    return tuple(tuple(row) for row in rows)


Measure = Annotated[
    tuple[Kind, str | None],
    BeforeValidator(measure),
    matches(f"({Kind.COUNT}|({'|'.join(_OF_COLUMN)}):{IDENTIFIER})"),
]
_GROUP = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
Groups = Annotated[
    tuple[tuple[str, ...], ...], BeforeValidator(groups), WithJsonSchema({"type": "array", "items": _GROUP})
]


def names(value: object) -> str | dict[str, str]:
    """Read names by value, or the statement that selects them."""
    if isinstance(value, str) and re.match(r"\s*(select|with)\b", value, re.IGNORECASE):
        return value
    if isinstance(value, dict) and value and all(isinstance(name, str) and name for name in value.values()):
        return value
    remedy = 'Write { 1 = "added", 2 = "changed" }, or "SELECT id, name FROM actions".'
    raise wrong(f"{toml(value)} are not names", remedy)


_GIVEN = {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}, "minProperties": 1}
_SELECT = {"type": "string", "pattern": r"^\s*([Ss][Ee][Ll][Ee][Cc][Tt]|[Ww][Ii][Tt][Hh])\b"}
Names = Annotated[str | dict[str, str], BeforeValidator(names), WithJsonSchema({"anyOf": [_SELECT, _GIVEN]})]


def conditions(value: object) -> tuple[tuple[str, tuple[Scalar, ...]], ...]:
    """Read the tests of one column: a value, any of several, or tests such as { ge = 1, lt = 10 }."""
    if not isinstance(value, dict):
        return (("in", _values(value)),)
    if unknown := [key for key in value if key not in _OPERATORS]:
        raise wrong(f'"{unknown[0]}" is not an operator', f"Use one of: {', '.join(_OPERATORS)}.")
    if not value:
        raise wrong("{} is not a value to compare with", "Write a value, a list, or a test as in { ge = 1 }.")
    return tuple(_test(operator, operand) for operator, operand in value.items())


Tests = Annotated[
    tuple[tuple[str, tuple[Scalar, ...]], ...],
    BeforeValidator(conditions),
    WithJsonSchema({"anyOf": [_SCALAR, _SCALARS, _TEST]}),
]


def _test(operator: str, operand: object) -> tuple[str, tuple[Scalar, ...]]:
    if operator == "null":
        if not isinstance(operand, bool):
            raise wrong(f"null = {toml(operand)} is not a test", "Write { null = true } or { null = false }.")
        return operator, (operand,)
    values = _values(operand)
    if len(values) > 1 and operator != "not":
        raise wrong(f"{operator} = {toml(operand)} is not a test", "Only `not` takes a list.")
    if operator == "like" and not isinstance(values[0], str):
        raise wrong(f"like = {toml(operand)} is not a test", 'Write a pattern, as in { like = "login_%" }.')
    return operator, values


def _values(value: object) -> tuple[Scalar, ...]:
    """Accept one value or several, of one kind that a column can be compared with."""
    values = [_scalar(item) for item in (value if isinstance(value, list) else [value])]
    if not values or None in values or len({type(item) for item in values}) > 1:
        raise wrong(
            f"{toml(value)} is not a value to compare with",
            "Write a string, a number, or a list of only strings or only numbers.",
        )
    return tuple(item for item in values if item is not None)


def _scalar(value: object) -> Scalar | None:
    """Return the value that a database compares with; TOML's times as text; None for a value that it cannot compare."""
    if isinstance(value, datetime):
        if value.tzinfo:  # most databases ignore it, or compare the text
            raise wrong(
                f"{toml(value)} has an offset from UTC, which databases ignore",
                "Write it as the column does, without an offset; `timestamptz` and TIMESTAMP are in UTC here.",
            )
        return value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) else None
