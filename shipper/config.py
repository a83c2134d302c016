"""Shell. TOML to a frozen Config, or every problem at once with its line and a remedy.

Two stages: the pydantic models say what the file may hold; `_related` says what must fit together.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from shipper.errors import ConfigError
from shipper.locate import line_of
from shipper.model import COUNT, MAX_ID, Archive, Condition, Job, Query, Scalar
from shipper.render import MAX_TEMPLATE, MEASURE, is_template, may_collide, placeholders

DEFAULT_PATH = "/etc/shipper/shipper.toml"
DIALECTS = ("mysql+pymysql", "mariadb+pymysql", "sqlite")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


class Problem(NamedTuple):
    """Something wrong at a place of the file, and what to do."""

    place: tuple[str | int, ...]
    message: str
    remedy: str


def _wrong(message: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("shipper", "{message}", {"message": message, "remedy": remedy})


def _duration(value: object) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhdwy])", value) if isinstance(value, str) else None
    if match is None:
        raise _wrong(f"{_toml(value)} is not a duration", 'Write a whole number and a unit, as in "90s" (s m h d w y).')
    return int(match[1]) * _UNITS[match[2]]


def _retentions(value: object) -> tuple[Archive, ...]:
    """Read carbon's own notation, `1m:30d,1h:5y`, by Whisper's rules (whisper.py validateArchiveList)."""
    remedy = 'Write carbon\'s retentions for these series, finest first, as in "1m:30d,1h:5y".'
    if not isinstance(value, str):
        raise _wrong(f"{_toml(value)} are not retentions", remedy)
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
    if value in {"now", "beginning"} or (isinstance(value, int) and 0 <= value <= MAX_ID):
        return value
    raise _wrong(f"start = {_toml(value)} is not a start", 'Write "now", "beginning", or the last id not to count.')


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in DIALECTS:
        raise _wrong(f'"{parts.scheme}" is not a kind of source', f"Use one of: {', '.join(DIALECTS)}.")
    if parts.password is not None:
        raise _wrong(
            "url holds a password",
            'Put user and password into a MySQL option file ([client]), and name it with `credentials = "FILE"`.',
        )
    return value


def _values(value: object) -> object:
    """Accept one value or several, of the kinds that a column can be compared with."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(one, str | int | float | bool) for one in values):
        raise _wrong(f"{_toml(value)} is not a value to compare with", "Write a string, a number, or a list of them.")
    return tuple(values)


Seconds = Annotated[int, BeforeValidator(_duration)]
Identifier = Annotated[str, AfterValidator(_identifier)]
Node = Annotated[str, AfterValidator(_node)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StateSection(_Section):
    """Where the state lives."""

    path: str = Field(default_factory=lambda: f"{os.environ.get('STATE_DIRECTORY', '/var/lib/shipper')}/shipper.db")


class GraphiteSection(_Section):
    """Where the metrics go, and what carbon keeps of them."""

    host: str = "127.0.0.1"
    port: int = Field(2003, ge=1, le=65535)
    prefix: Annotated[str, AfterValidator(_prefix)] | None = None
    retentions: Annotated[tuple[Archive, ...], BeforeValidator(_retentions)]
    timeout: Seconds = 10
    batch: int = Field(2500, ge=1, le=10000)  # relays queue 10,000
    proof: Literal["replay", "none"] = "replay"
    replay: list[Seconds] = Field([60, 600, 3600], min_length=1)


class SourceSection(_Section):
    """A database to count in."""

    url: Annotated[str, AfterValidator(_url)]
    credentials: str | None = None
    timeout: Seconds = 30
    settle: Seconds = 10


class JobSection(_Section):
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


class _File(_Section):
    state: StateSection = Field(default_factory=StateSection)
    graphite: GraphiteSection
    source: dict[Node, SourceSection] = Field(min_length=1)
    job: dict[Node, JobSection] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration that can be run."""

    file: str
    state: StateSection
    graphite: GraphiteSection
    sources: Mapping[str, SourceSection]
    jobs: Mapping[str, Job]

    def option_file(self, source: str) -> str | None:
        """Return the path of a source's MySQL option file: a systemd credential, or a file beside this one.

        Raises:
            ConfigError: there is none, with the places where it was looked for.
        """
        name = self.sources[source].credentials
        if name is None:
            return None
        places = [Path(self.file).parent / name]
        if directory := os.environ.get("CREDENTIALS_DIRECTORY"):
            places.insert(0, Path(directory) / name)
        for place in places:
            if os.access(place, os.R_OK):
                return str(place)
        raise ConfigError(
            f'source "{source}": no readable credentials "{name}"; looked at {", ".join(map(str, places))}',
            hint="Write a MySQL option file there ([client], user=, password=), readable for this user alone.",
        )


def load(file: str) -> Config:
    """Read a configuration.

    Raises:
        ConfigError: with a line `FILE:LINE: what is wrong` and a remedy for every problem found.
    """
    text = _read(file)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line (\d+)", str(error))
        line = where[1] if where else text.count("\n") + 1
        raise ConfigError(f"{file}:{line}: {error}", hint="The file is not TOML; see https://toml.io.") from error
    problems: list[Problem] = []
    try:
        parsed = _File.model_validate(_with_defaults(raw))
    except ValidationError as error:
        problems = [_explained(one) for one in error.errors()]
        raise _report(file, text, raw, problems) from None
    problems = list(_related(parsed))
    if problems:
        raise _report(file, text, raw, problems)
    jobs = {name: _job(name, job, parsed) for name, job in parsed.job.items()}
    return Config(file, parsed.state, parsed.graphite, parsed.source, jobs)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"read configuration {file}: {error.strerror}",
            hint=f"Name it with --config FILE, or put it at {DEFAULT_PATH}.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"read configuration {file}: not UTF-8", hint="TOML files are UTF-8 text.") from error


def _with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """Give each job what [defaults] says and it does not say itself."""
    defaults, jobs = raw.get("defaults", {}), raw.get("job")
    rest = {key: value for key, value in raw.items() if key != "defaults"}
    if isinstance(defaults, dict) and isinstance(jobs, dict):
        rest["job"] = {name: defaults | job if isinstance(job, dict) else job for name, job in jobs.items()}
    return rest


def _related(parsed: _File) -> Iterator[Problem]:
    """Yield what is well-formed but does not fit together."""
    graphite = parsed.graphite
    if sorted(graphite.replay) != graphite.replay:
        yield Problem(("graphite", "replay"), "replay does not grow", 'Write the shortest first: ["1m", "10m", "1h"].')
    for name, job in parsed.job.items():
        place = ("job", name)
        step = graphite.retentions[0].step
        if job.bucket % step:
            remedy = f"Carbon keeps one value per {step} s (its finest step): make bucket a multiple of that."
            yield Problem((*place, "bucket"), "counts of this bucket would overwrite each other", remedy)
        if job.time is None and job.bucket < job.every:
            remedy = "Without `time` a bucket holds what a tick found: make bucket at least as long as every."
            yield Problem((*place, "bucket"), "bucket is shorter than every", remedy)
        if job.source is None and len(parsed.source) > 1:
            yield Problem((*place, "source"), "no source is named", f"There are several: {', '.join(parsed.source)}.")
        if job.source is not None and job.source not in parsed.source:
            yield Problem((*place, "source"), f'no source "{job.source}"', _suggest(job.source, parsed.source))
        yield from _template_problems((*place, "name"), job)
    names = {name: _full_name(job, parsed).replace("{measure}", COUNT) for name, job in parsed.job.items()}
    for (one, its), (other, theirs) in combinations(names.items(), 2):
        if may_collide(its, theirs):
            message = f'jobs "{one}" and "{other}" could write the same metric path'
            yield Problem(("job", other, "name"), message, "Begin one of the names differently.")


def _template_problems(place: tuple[str, ...], job: JobSection) -> Iterator[Problem]:
    used = placeholders(job.name)
    for name in used:
        if name not in {*job.by, MEASURE}:
            yield Problem(place, f"{{{name}}} is neither a column of `by` nor {{measure}}", _suggest(name, job.by))
    for column in job.by:
        if column not in used:
            remedy = f"Put {{{column}}} into the name, else its groups would overwrite each other."
            yield Problem(place, f'the column "{column}" of `by` is missing', remedy)


def _full_name(job: JobSection, parsed: _File) -> str:
    return f"{parsed.graphite.prefix}.{job.name}" if parsed.graphite.prefix else job.name


def _job(name: str, job: JobSection, parsed: _File) -> Job:
    where = tuple(Condition(column, values) for column, values in job.where.items())
    return Job(
        name=name,
        source=job.source or next(iter(parsed.source)),
        query=Query(job.table, job.id, job.time, job.bucket, where, tuple(job.by)),
        every=job.every,
        start=job.start,
        chunk=job.chunk,
        template=_full_name(job, parsed),
        null_as=job.null_as,
        empty_as=job.empty_as,
    )


def _explained(error: ErrorDetails) -> Problem:
    """Say one of pydantic's findings in our words."""
    place, kind, context = error["loc"], error["type"], error.get("ctx", {})
    key = place[-1] if place else ""
    match kind:
        case "shipper":
            return Problem(place, context["message"], context["remedy"])
        case "extra_forbidden":
            return Problem(place, f'no such key "{key}"', _suggest(str(key), _known(place)))
        case "missing":
            return Problem(place, f'"{key}" is missing', f"Add it; {DEFAULT_PATH} shows how.")
        case _:
            value = error["input"]
            return Problem(place, f"{key} = {_toml(value)} does not fit", f"{error['msg']}.")


def _known(place: tuple[str | int, ...]) -> list[str]:
    sections: dict[object, type[_Section]] = {
        "state": StateSection,
        "graphite": GraphiteSection,
        "source": SourceSection,
        "job": JobSection,
    }
    section = _File if len(place) == 1 else sections.get(place[0], _File)
    return [*section.model_fields, *(["defaults"] if section is _File else [])]


def _suggest(wrong: str, known: Any) -> str:
    close = get_close_matches(wrong, list(known), n=1)
    return f'Did you mean "{close[0]}"?' if close else f"Known here: {', '.join(known) or 'none'}."


def _report(file: str, text: str, raw: dict[str, Any], problems: list[Problem]) -> ConfigError:
    """Put every problem at its line, once, in the order of the file."""
    places = [_place(problem.place, raw) for problem in problems]
    found = sorted({(line, p.message, p.remedy) for line, p in zip(line_of(text, places), problems, strict=True)})
    lines = [f"{file}:{line}: {message}\n    {remedy}" for line, message, remedy in found]
    return ConfigError("\n".join(lines))


def _place(place: tuple[str | int, ...], raw: dict[str, Any]) -> tuple[str | int, ...]:
    """Lead a job's key that the job does not have itself to [defaults]."""
    match place:
        case ("job", job, key, *rest) if key in raw.get("defaults", {}) and key not in raw["job"][job]:
            return ("defaults", key, *rest)
    return place


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
