"""Kinds of values of any section, each with the function that reads it and the pattern that editors check.

A function raises an error with a remedy.
"""

import os
import re
from ipaddress import IPv6Address
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from shipper.core import durations
from shipper.core.model import Archive

DIALECTS = ("mysql+pymysql", "mariadb+pymysql", "postgresql+psycopg", "sqlite")
NODE = r"[A-Za-z0-9_-]{1,100}"
_ARCHIVE = rf"\s*{durations.SINGLE}:{durations.SINGLE}\s*"
_MAX_PORT = 65535
_PERCENT = "[1-9][0-9]?|100"
_SHOWN = 200
"""Characters of a value in a message."""
_SOCKET_BYTES = 107  # of the path in a client's address, unix(7)


def wrong(message: str, remedy: str) -> PydanticCustomError:
    """Return the error that a validator raises."""
    return PydanticCustomError("shipper", "{message}", {"message": message, "remedy": remedy})


def toml(value: object) -> str:
    """Write a value as the file may have it, or its beginning."""
    try:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    except ValueError:  # Python shows no number with thousands of digits
        text = "a number with thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def matches(pattern: str) -> WithJsonSchema:
    """Describe a kind of text to editors, by its pattern."""
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


def duration(value: object) -> int:
    """Return a duration in seconds."""
    seconds = durations.parse(value) if isinstance(value, str) else None
    if seconds is None:
        raise wrong(f"{toml(value)} is not a duration", 'Write it as in "90s" or "1h30m" (units s m h d w y).')
    return seconds


def single_duration(value: str) -> int:
    """Return a duration in one unit, as Carbon reads it, in seconds."""
    if not re.fullmatch(durations.SINGLE, value):
        raise wrong(f"{toml(value)} is not a duration", 'Write a whole number and a unit, as in "90s" (s m h d w y).')
    return duration(value)


Seconds = Annotated[int, BeforeValidator(duration), matches(durations.PATTERN)]
SecondsOrFalse = Annotated[
    int | None,
    BeforeValidator(lambda value: None if value is False else duration(value)),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{durations.PATTERN}$"}, {"const": False}]}),
]


def share(value: object) -> float:
    """Return a percentage of the time as a fraction."""
    percent = re.fullmatch(f"({_PERCENT}) ?%", value) if isinstance(value, str) else None
    if percent is None:
        raise wrong(f"{toml(value)} is not a share of the time", 'Write a percentage from "1%" to "100%".')
    return int(percent[1]) / 100


Share = Annotated[float, BeforeValidator(share), matches(f"({_PERCENT}) ?%")]


def listen(value: str) -> str:
    """Accept an address to listen at: off, unix:PATH, or HOST:PORT of loopback."""
    if value == "off":
        return value
    if value.startswith("unix:"):
        socket = value.removeprefix("unix:")
        if not socket.startswith("/"):
            raise wrong(f'"{value}" is not a socket', 'Write an absolute path, as in "unix:/run/shipper/page.sock".')
        if len(os.fsencode(socket)) > _SOCKET_BYTES:
            raise wrong(f"the path of {toml(value)} is too long", f"Use at most {_SOCKET_BYTES} bytes.")
        return value
    host, _, port = value.rpartition(":")
    if host not in {"127.0.0.1", "localhost", "[::1]"} or not re.fullmatch("[0-9]{1,5}", port) or int(port) > _MAX_PORT:
        remedy = 'Write "127.0.0.1:PORT"; let users of other machines come through a proxy or ssh.'
        raise wrong(f'"{value}" is no loopback address', remedy)
    return value


Listen = Annotated[str, AfterValidator(listen), matches(r"(off|unix:/.*|(127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5})")]


def render_url(value: str) -> str:
    """Accept the address of graphite-web."""
    parts = urlsplit(value)
    if parts.password is not None:
        raise wrong("render_url contains a password", "Let this machine read from graphite-web without a password.")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise wrong(f"{toml(value)} is not an address", 'Write graphite-web\'s, as in "http://graphite.internal".')
    return value.rstrip("/")


RenderUrl = Annotated[str, AfterValidator(render_url), matches("https?://[^?#]+")]


def retentions(value: object) -> tuple[Archive, ...]:
    """Read carbon's notation, `1m:30d,1h:5y`, by Whisper's rules (whisper.py validateArchiveList)."""
    remedy = 'Write carbon\'s retentions for these series, finest first, as in "1m:30d,1h:5y".'
    if not isinstance(value, str):
        raise wrong(f"{toml(value)} are not retentions", remedy)
    archives = []
    for part in value.split(","):
        step, _, length = part.strip().partition(":")
        try:
            archives.append(Archive(single_duration(step), single_duration(length)))
        except (ValueError, PydanticCustomError):
            raise wrong(f'"{part.strip()}" is not an archive', remedy) from None
    for fine, coarse in pairwise(archives):
        if (
            coarse.step % fine.step
            or coarse.step == fine.step
            or coarse.duration <= fine.duration
            or fine.duration < coarse.step
        ):
            remedy = "Make each step a multiple of the one before, and each archive reach further back."
            raise wrong(f'carbon would reject "{value}"', remedy)
    return tuple(archives)


Retentions = Annotated[tuple[Archive, ...], BeforeValidator(retentions), matches(f"{_ARCHIVE}(,{_ARCHIVE})*")]


def node(value: str) -> str:
    """Accept one node of a metric path."""
    if not re.fullmatch(NODE, value):
        raise wrong(f'"{value}" cannot be part of a metric path', "Use letters, digits, _ and - only.")
    return value


def prefix(value: str) -> str:
    """Accept the first nodes of metric paths."""
    return ".".join(node(part) for part in value.split("."))


Node = Annotated[str, AfterValidator(node), matches(NODE)]
Prefix = Annotated[str, AfterValidator(prefix), matches(rf"{NODE}(\.{NODE})*")]


def host(value: str) -> str:
    """Accept a host's name or address; the brackets around an IPv6 address are optional."""
    if ":" in value:
        address = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        try:
            IPv6Address(address)
        except ValueError:
            remedy = 'Write a name or an address, as in "graphite.internal" or "::1"; a port does not belong to it.'
            raise wrong(f'"{value}" is not a host', remedy) from None
        return address
    labels = value.removesuffix(".").split(".")
    if not all(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})", label) for label in labels):
        raise wrong(f'"{value}" is not a host', 'Write a name or an address, as in "graphite.internal".')
    return value


def address(value: object) -> tuple[str, int]:
    """Read HOST:PORT, with an IPv6 address in brackets."""
    name, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) <= _MAX_PORT or (":" in name and name[0] != "["):
        remedy = 'Write HOST:PORT, as in "relay1.internal:2003" or "[::1]:2003".'
        raise wrong(f"{toml(value)} is not the address of a receiver", remedy)
    return host(name), int(port)


def path(value: str) -> str:
    """Accept an absolute path of a file."""
    if not FilePath(value).is_absolute() or "\0" in value:
        remedy = "Begin it with /: it must not depend on the directory in which shipper is started."
        raise wrong(f'"{value}" is not an absolute path', remedy)
    return value


Host = Annotated[str, AfterValidator(host), WithJsonSchema({"type": "string", "minLength": 1})]
Address = Annotated[tuple[str, int], BeforeValidator(address), matches(r"(\[[^\]]+\]|[^:\[\]]+):[0-9]{1,5}")]
Path = Annotated[str, AfterValidator(path), matches("/.*")]


def url(value: str) -> str:
    """Accept a database's URL."""
    remedy = 'Write it as in "mysql+pymysql://db1.internal/app" or "sqlite:////var/lib/app/audit.db".'
    try:
        parsed = make_url(value)
    except (ArgumentError, ValueError):
        raise wrong("url is not a database url", remedy) from None
    backend = parsed.get_backend_name()
    # behind a password with a sign that is not escaped, its end is taken for the host, which messages show
    if backend != "sqlite" and "@" in f"{parsed.host}{parsed.database}":
        raise wrong("url contains several @", "Write an @ of a user or a password as %40.")
    if parsed.drivername not in DIALECTS:
        raise wrong(f'"{parsed.drivername}" is not a kind of database', f"Use one of: {', '.join(DIALECTS)}.")
    options = {"sqlite": set[str](), "postgresql": {"host", "password"}}.get(backend, {"unix_socket", "password"})
    if unknown := sorted(set(parsed.query) - options):
        raise wrong(
            f'url has an unknown option "{unknown[0]}"',
            "Remove it: MySQL has only unix_socket=PATH here, PostgreSQL host=DIRECTORY, and SQLite none.",
        )
    if not parsed.database or (backend == "sqlite" and not FilePath(parsed.database).is_absolute()):
        raise wrong("url names no database", remedy)
    if parsed.host is not None:
        host(parsed.host)
    return value


_SEVERAL = re.compile(r"([^/]*//(?:[^/@]*@)?)([^/?@]*,[^/?@]*)(/.*)")


def with_ports_apart(value: str) -> str:
    """Return a URL that may have several hosts and ports, as a list of hosts, and an option with a list of ports."""
    several = _SEVERAL.fullmatch(value)
    if several is None:
        return value
    begin, addresses, end = several.groups()
    hosts, ports = zip(*(one.partition(":")[::2] for one in addresses.split(",")), strict=True)
    options = f"{'&' if '?' in end else '?'}port={','.join(ports)}" if any(ports) else ""
    return f"{begin}{','.join(hosts)}{end}{options}"


Url = Annotated[str, AfterValidator(url), matches(f"({'|'.join(map(re.escape, DIALECTS))})://.*")]


def database_url(value: str) -> str:
    """Accept a URL of PostgreSQL; it may name several hosts."""
    if not value.startswith("postgresql+psycopg://"):
        remedy = 'Write the URL of a PostgreSQL, as in "postgresql+psycopg://db1.internal/shipper".'
        raise wrong("`database` is not the URL of a PostgreSQL", remedy)
    several = _SEVERAL.fullmatch(value)
    if several is None:
        return url(value)
    begin, addresses, end = several.groups()
    for one in addresses.split(","):
        url(f"{begin}{one}{end}")
    if "[" in addresses:
        raise wrong("several hosts cannot be IPv6 addresses", "Write their names.")
    return with_ports_apart(value)


DatabaseUrl = Annotated[str, AfterValidator(database_url), matches(r"postgresql\+psycopg://.*")]


def zone(value: str) -> str:
    """Accept a name of the tz database."""
    try:
        ZoneInfo(value)
    except (KeyError, OSError, ValueError):
        remedy = 'Write a name of the tz database: "UTC", "Europe/Berlin".'
        raise wrong(f'"{value}" is not a time zone', remedy) from None
    return value


Zone = Annotated[str, AfterValidator(zone), WithJsonSchema({"type": "string", "minLength": 1})]
