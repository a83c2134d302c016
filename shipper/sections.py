"""Shell. What a configuration file may hold: its sections and keys, and the kinds of their values.

A value that a model accepts is valid by itself; what must fit together is checked in config.py.
"""

import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from shipper.model import MAX_ID, Archive, Scalar
from shipper.render import MAX_TEMPLATE, is_template

DIALECTS = ("mysql+pymysql", "mariadb+pymysql", "sqlite")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_LONGEST = 100 * 31536000  # a century; beyond it time-outs and timestamps overflow


def _wrong(message: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("shipper", "{message}", {"message": message, "remedy": remedy})


def toml(value: object) -> str:
    """Write a value as it may have stood in the file."""
    return f'"{value}"' if isinstance(value, str) else str(value)


def _duration(value: object) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,9})([smhdwy])", value) if isinstance(value, str) else None
    if match is None or int(match[1]) * _UNITS[match[2]] > _LONGEST:
        raise _wrong(f"{toml(value)} is not a duration", 'Write a whole number and a unit, as in "90s" (s m h d w y).')
    return int(match[1]) * _UNITS[match[2]]


def _retentions(value: object) -> tuple[Archive, ...]:
    """Read carbon's own notation, `1m:30d,1h:5y`, by Whisper's rules (whisper.py validateArchiveList)."""
    remedy = 'Write carbon\'s retentions for these series, finest first, as in "1m:30d,1h:5y".'
    if not isinstance(value, str):
        raise _wrong(f"{toml(value)} are not retentions", remedy)
    archives = []
    for part in value.split(","):
        step, _, kept = part.strip().partition(":")
        try:
            archives.append(Archive(_duration(step), _duration(kept)))
        except (ValueError, PydanticCustomError):
            raise _wrong(f'"{part.strip()}" is not an archive', remedy) from None
    for fine, coarse in pairwise(archives):
        if coarse.step % fine.step or coarse.step == fine.step or coarse.duration <= fine.duration:
            raise _wrong(
                f'"{value}" would be refused by carbon',
                "Each archive's step is a multiple of the one before, and it reaches further back.",
            )
    return tuple(archives)


def _identifier(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,63}", value):
        raise _wrong(f'"{value}" is not a name in a database', "Write a plain table or column name.")
    return value


def _table(value: str) -> str:
    schema, dot, name = value.rpartition(".")
    return (_identifier(schema) + dot if dot else "") + _identifier(name)


def _node(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value):
        raise _wrong(f'"{value}" cannot be part of a metric path', "Use letters, digits, _ and - only.")
    return value


def _prefix(value: str) -> str:
    return ".".join(_node(node) for node in value.split("."))


def _template(value: str) -> str:
    if not is_template(value) or len(value) > MAX_TEMPLATE:
        raise _wrong(f'name = "{value}" does not give metric paths', 'Write nodes as in "logins.{action}.{measure}".')
    return value


def _start(value: object) -> object:
    if value in ("now", "beginning") or (isinstance(value, int) and 0 <= value <= MAX_ID):
        return value
    raise _wrong(f"start = {toml(value)} is not a start", 'Write "now", "beginning", or the last id not to count.')


def _host(value: str) -> str:
    labels = value.removesuffix(".").split(".")
    if ":" not in value and not all(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})", label) for label in labels):
        raise _wrong(f'"{value}" is not a host', 'Write a name or an address, as in "graphite.internal".')
    return value


def _path(value: str) -> str:
    if not Path(value).is_absolute() or "\0" in value:
        raise _wrong(
            f'"{value}" is not an absolute path', "Write it from the root on: it must not depend on a directory."
        )
    return value


def _url(value: str) -> str:
    remedy = 'Write it as in "mysql+pymysql://db1.internal/app" or "sqlite:////var/lib/app/audit.db".'
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise _wrong(f'"{value}" is not a database url', remedy) from None
    if url.drivername not in DIALECTS:
        raise _wrong(f'"{url.drivername}" is not a kind of source', f"Use one of: {', '.join(DIALECTS)}.")
    if url.password is not None or "password" in url.query:
        raise _wrong(
            "url holds a password",
            'Put user and password into a MySQL option file ([client]), and name it with `credentials = "FILE"`.',
        )
    is_sqlite = url.drivername == "sqlite"
    if unknown := sorted(set(url.query) - (set() if is_sqlite else {"unix_socket"})):
        raise _wrong(
            f'url has "{unknown[0]}", which is not known', "The url of MySQL may have unix_socket=PATH, no more."
        )
    if not url.database or (is_sqlite and not Path(url.database).is_absolute()):
        raise _wrong(f'"{value}" names no database', remedy)
    if url.host is not None:
        _host(url.host)
    return value


def _values(value: object) -> object:
    """Accept one value or several, of the kinds that a column can be compared with."""
    values = value if isinstance(value, list) else [value]
    if not values or type(values[0]) not in {str, int, float, bool} or len({type(one) for one in values}) > 1:
        raise _wrong(
            f"{toml(value)} is not a value to compare with", "Write a string, a number, or a list of one kind."
        )
    return tuple(values)


Seconds = Annotated[int, BeforeValidator(_duration)]
Identifier = Annotated[str, AfterValidator(_identifier)]
Node = Annotated[str, AfterValidator(_node)]


class Section(BaseModel):
    """A table of the file: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StateSection(Section):
    """Where the state lives."""

    path: Annotated[str, AfterValidator(_path)] = Field(
        default_factory=lambda: f"{os.environ.get('STATE_DIRECTORY', '/var/lib/shipper')}/shipper.db"
    )


class GraphiteSection(Section):
    """Where the metrics go, and what carbon keeps of them."""

    host: Annotated[str, AfterValidator(_host)] = "127.0.0.1"
    port: int = Field(2003, ge=1, le=65535)
    prefix: Annotated[str, AfterValidator(_prefix)] | None = None
    retentions: Annotated[tuple[Archive, ...], BeforeValidator(_retentions)]
    timeout: Seconds = Field(10, le=3600)
    batch: int = Field(2500, ge=1, le=10000)  # relays queue 10,000
    proof: Literal["replay", "none"] = "replay"
    replay: list[Seconds] = Field([60, 600, 3600], min_length=1)


class SourceSection(Section):
    """A database to count in."""

    url: Annotated[str, AfterValidator(_url)]
    credentials: str | None = None
    timeout: Seconds = Field(30, le=3600)
    settle: Seconds = 10


class JobSection(Section):
    """What to count, where, how often, under which names."""

    title: str = ""
    source: str | None = None
    table: Annotated[str, AfterValidator(_table)]
    id: Identifier
    time: Identifier | None = None
    where: dict[Identifier, Annotated[tuple[Scalar, ...], BeforeValidator(_values)]] = {}
    by: list[Identifier] = []
    name: Annotated[str, AfterValidator(_template)]
    every: Seconds = 60
    bucket: Seconds = 60
    start: Annotated[Literal["now", "beginning"] | int, BeforeValidator(_start)] = "now"
    chunk: int = Field(100_000, ge=1, le=10_000_000)
    null_as: Node = "none"
    empty_as: Node = "empty"


class File(Section):
    """The whole file."""

    defaults: dict[str, object] = {}
    state: StateSection = Field(default_factory=StateSection)
    graphite: GraphiteSection
    source: dict[Node, SourceSection] = Field(min_length=1)
    job: dict[Node, JobSection] = Field(min_length=1)
