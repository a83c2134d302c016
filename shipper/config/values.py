"""The kinds of values in a configuration: durations, names, conditions; each with a remedy when it is wrong."""

import math
import re
from collections.abc import Iterable
from datetime import date, datetime, time
from itertools import pairwise
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic_core import PydanticCustomError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from shipper.config.cron import trigger_of
from shipper.core.measures import Kind
from shipper.core.model import MAX_ID, Archive, Condition, Scalar
from shipper.core.paths import MAX_TEMPLATE, is_template

_MAX_PORT = 65535
DIALECTS = ("mysql+pymysql", "mariadb+pymysql", "postgresql+psycopg", "sqlite")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_LONGEST = 100 * 31536000  # a century; beyond it time-outs and timestamps overflow
_OPERATORS = [operator for operator in get_args(Condition.__annotations__["operator"]) if operator != "in"]


def wrong(message: str, remedy: str) -> PydanticCustomError:
    """Return what a validator raises."""
    return PydanticCustomError("shipper", "{message}", {"message": message, "remedy": remedy})


def toml(value: object) -> str:
    """Write a value as it may have stood in the file."""
    return f'"{value}"' if isinstance(value, str) else str(value)


def duration(value: object) -> int:
    """Read a whole number and a unit as seconds."""
    match = re.fullmatch(r"([1-9][0-9]{0,9})([smhdwy])", value) if isinstance(value, str) else None
    if match is None or int(match[1]) * _UNITS[match[2]] > _LONGEST:
        raise wrong(f"{toml(value)} is not a duration", 'Write a whole number and a unit, as in "90s" (s m h d w y).')
    return int(match[1]) * _UNITS[match[2]]


def as_duration(seconds: int) -> str:
    """Write seconds as the file would, in days at most."""
    unit = next(unit for unit in "dhms" if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def duration_or_false(value: object) -> int | None:
    """Read a duration, or false as None."""
    return None if value is False else duration(value)


def listen(value: str) -> str:
    """Read where to listen: off, unix:PATH, or HOST:PORT of loopback."""
    if value == "off":
        return value
    if value.startswith("unix:"):
        if not value.removeprefix("unix:").startswith("/"):
            raise ValueError('write "unix:/PATH", with an absolute path')
        return value
    host, _, port = value.rpartition(":")
    if host not in {"127.0.0.1", "localhost", "[::1]"} or not port.isdigit() or int(port) > _MAX_PORT:
        raise ValueError('write "127.0.0.1:PORT": who looks from elsewhere comes through a proxy or ssh')
    return value


def render_url(value: str) -> str:
    """Read the address of graphite-web."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise wrong(f"{toml(value)} is not an address", 'Write graphite-web\'s, as in "http://graphite.internal".')
    if parts.password is not None:
        raise wrong("render_url holds a password", "Let graphite-web answer this machine without one.")
    return value.rstrip("/")


def retentions(value: object) -> tuple[Archive, ...]:
    """Read carbon's own notation, `1m:30d,1h:5y`, by Whisper's rules (whisper.py validateArchiveList)."""
    remedy = 'Write carbon\'s retentions for these series, finest first, as in "1m:30d,1h:5y".'
    if not isinstance(value, str):
        raise wrong(f"{toml(value)} are not retentions", remedy)
    archives = []
    for part in value.split(","):
        step, _, kept = part.strip().partition(":")
        try:
            archives.append(Archive(duration(step), duration(kept)))
        except (ValueError, PydanticCustomError):
            raise wrong(f'"{part.strip()}" is not an archive', remedy) from None
    for fine, coarse in pairwise(archives):
        if (
            coarse.step % fine.step
            or coarse.step == fine.step
            or coarse.duration <= fine.duration
            or fine.duration < coarse.step
        ):
            raise wrong(
                f'"{value}" would be refused by carbon',
                "Each archive's step is a multiple of the one before, and it reaches further back.",
            )
    return tuple(archives)


def identifier(value: str) -> str:
    """Accept a plain name in a database."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,63}", value):
        raise wrong(f'"{value}" is not a name in a database', "Write a plain table or column name.")
    return value


def table(value: str) -> str:
    """Accept a table's name, perhaps with its schema."""
    schema, dot, name = value.rpartition(".")
    return (identifier(schema) + dot if dot else "") + identifier(name)


def node(value: str) -> str:
    """Accept one node of a metric path."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value):
        raise wrong(f'"{value}" cannot be part of a metric path', "Use letters, digits, _ and - only.")
    return value


def prefix(value: str) -> str:
    """Accept the beginning of metric paths."""
    return ".".join(node(part) for part in value.split("."))


def template(value: str) -> str:
    """Accept a metric path with placeholders."""
    if ";" in value or not is_template(value) or len(value) > MAX_TEMPLATE:
        raise wrong(f'name = "{value}" does not give metric paths', 'Write nodes as in "logins.{action}.{measure}".')
    return value


def tag(value: str) -> str:
    """Accept the value of a tag, perhaps with placeholders; carbon refuses an empty one and a leading ~."""
    if not is_template(f"x;x={value}"):
        raise wrong(f'"{value}" cannot be the value of a tag', "Use letters, digits, _ - . and {column}.")
    return value


def tag_name(value: str) -> str:
    """Accept a tag's name; carbon keeps the tag `name` for the path."""
    if value == "name":
        raise wrong('"name" cannot be a tag', "Carbon keeps it for the path itself.")
    return node(value)


def start(value: object) -> object:
    """Accept where a job begins."""
    if value in ("now", "beginning") or (type(value) is int and 0 <= value <= MAX_ID):
        return value
    raise wrong(f"start = {toml(value)} is not a start", 'Write "now", "beginning", or the last id not to count.')


def host(value: str) -> str:
    """Accept a name or an address."""
    labels = value.removesuffix(".").split(".")
    if ":" not in value and not all(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})", label) for label in labels):
        raise wrong(f'"{value}" is not a host', 'Write a name or an address, as in "graphite.internal".')
    return value


def path(value: str) -> str:
    """Accept an absolute path."""
    if not Path(value).is_absolute() or "\0" in value:
        raise wrong(
            f'"{value}" is not an absolute path', "Write it from the root on: it must not depend on a directory."
        )
    return value


def url(value: str) -> str:
    """Accept a database's URL."""
    remedy = 'Write it as in "mysql+pymysql://db1.internal/app" or "sqlite:////var/lib/app/audit.db".'
    try:
        parsed = make_url(value)
    except (ArgumentError, ValueError):
        raise wrong("url is not a database url", remedy) from None
    if parsed.drivername not in DIALECTS:
        raise wrong(f'"{parsed.drivername}" is not a kind of source', f"Use one of: {', '.join(DIALECTS)}.")
    known = {"sqlite": set(parsed.query), "postgresql": {"host", "password"}}.get(
        parsed.get_backend_name(), {"unix_socket", "password"}
    )
    if unknown := sorted(set(parsed.query) - known):
        raise wrong(
            f'url has "{unknown[0]}", which is not known',
            "The url of MySQL may have unix_socket=PATH, that of PostgreSQL host=DIRECTORY, no more.",
        )
    if not parsed.database or (is_sqlite(parsed) and not Path(parsed.database).is_absolute()):
        raise wrong("url names no database", remedy)
    if parsed.host is not None:
        host(parsed.host)
    return value


def is_sqlite(parsed: URL) -> bool:
    """Is it a file?"""
    return parsed.get_backend_name() == "sqlite"


def holds_password(value: str) -> bool:
    """Does a URL that was accepted hold a password?"""
    parsed = make_url(value)
    return parsed.password is not None or "password" in parsed.query


def zone(value: str) -> str:
    """Accept a name of the tz database."""
    try:
        ZoneInfo(value)
    except (KeyError, OSError, ValueError):
        remedy = 'Write a name of the tz database: "UTC", "Europe/Berlin".'
        raise wrong(f'"{value}" is not a time zone', remedy) from None
    return value


def sources(value: object) -> tuple[str, ...]:
    """Read the name of a source, or a list of names."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise wrong(f"source = {toml(value)} is not a source", 'Write the name of one, or a list: ["app", "other"].')
    if len(set(names)) < len(names):
        raise wrong(f"source = {toml(value)} names one twice", "Name each source once.")
    return tuple(names)


def cron(value: str) -> str:
    """Accept a line of cron."""
    try:
        trigger_of(value, "UTC")
    except ValueError as error:
        remedy = f'{error}. Write, for example, "*/5 6-20 * * mon-fri".'
        raise wrong(f'cron = "{value}" is not a schedule', remedy[0].upper() + remedy[1:]) from None
    return value


def measure(value: object) -> tuple[Kind, str | None]:
    """Read `count`, or an aggregate of a column."""
    kind, _, column = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind == Kind.COUNT and not column:
        return Kind.COUNT, None
    if kind in {Kind.SUM, Kind.MAX, Kind.MIN} and column:
        return Kind(kind), identifier(column)
    remedy = (
        'Write "count", "sum:column", "max:column" or "min:column"; a mean is divideSeries(sum, count) in Graphite.'
    )
    raise wrong(f"{toml(value)} is not a measure", remedy)


def conditions(value: object) -> tuple[tuple[str, tuple[Scalar, ...]], ...]:
    """Read what a column must hold: a value, any of several, or tests such as { ge = 1, lt = 10 }."""
    if not isinstance(value, dict):
        return (("in", _values(value)),)
    if unknown := [key for key in value if key not in _OPERATORS]:
        raise wrong(f'"{unknown[0]}" is not a test', f"There are: {', '.join(_OPERATORS)}.")
    if not value:
        raise wrong("{} is not a value to compare with", "Write a value, a list, or a test as in { ge = 1 }.")
    return tuple(_test(operator, operand) for operator, operand in value.items())


def where_sql(value: str) -> str:
    """Accept a condition that stays within the parentheses that it is put into."""
    depth = 0
    for parenthesis in re.findall(r"[()]", re.sub(r"'[^']*'|\"[^\"]*\"|--[^\n]*", "", value)):
        depth += 1 if parenthesis == "(" else -1
        if depth < 0:
            break
    if depth != 0:
        raise wrong(
            "where_sql has parentheses that do not match", "It stands beside the other conditions: all must hold."
        )
    return value


def groups(value: object) -> tuple[tuple[str, ...], ...]:
    """Read declared groups: values of one column, or lists of values of several."""
    if not isinstance(value, list):
        raise wrong(f"{toml(value)} are not groups", 'Write a list of values, or of lists: [["login", "ok"]].')
    rows = [one if isinstance(one, list) else [one] for one in value]
    if not all(isinstance(part, str) for row in rows for part in row):
        raise wrong(f"{toml(value)} are not groups", "Write their values as strings.")
    return tuple(tuple(row) for row in rows)


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
    """Accept one value or several, of the kinds that a column can be compared with."""
    values = [_scalar(one) for one in (value if isinstance(value, list) else [value])]
    if not values or None in values or not _are_alike(values):
        raise wrong(f"{toml(value)} is not a value to compare with", "Write a string, a number, or a list of one kind.")
    return tuple(one for one in values if one is not None)


def _are_alike(values: Iterable[object]) -> bool:
    return len({type(one) for one in values}) == 1


def _scalar(value: object) -> Scalar | None:
    """Return what a database compares with; a time of TOML as text."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) else None
