"""Shell. TOML to a frozen Config, or every problem at once with its line and a remedy.

Two stages: the models of sections.py say what the file may hold; `_related` says what must fit together.
"""

import configparser
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shipper.errors import ConfigError
from shipper.fold import EDGE_SECONDS, ROOM_SECONDS
from shipper.locate import line_of
from shipper.model import COUNT, Archive, Condition, Job, Query
from shipper.render import MEASURE, may_collide, placeholders
from shipper.sections import File, GraphiteSection, JobSection, Section, SourceSection, StateSection, toml

DEFAULT_PATH = "/etc/shipper/shipper.toml"

_REMEDIES = {
    "int_type": "Write a whole number, without quotes.",
    "string_type": 'Write it in quotes: "...".',
    "list_type": 'Write a list: ["...", "..."].',
    "dict_type": "Write a section or { key = value }.",
    "model_type": "Write a section or { key = value }.",
}
OPTION_FILE_HINT = "Write a MySQL option file there: [client], user = NAME, password = SECRET; readable for this user."

_EXAMPLES = {
    "graphite": '[graphite] with retentions = "1m:30d,1h:5y"',
    "retentions": 'retentions = "1m:30d,1h:5y", what carbon keeps of these series',
    "source": '[source.app] with url = "mysql+pymysql://db1.internal/app"',
    "url": 'url = "mysql+pymysql://db1.internal/app"',
    "job": "[job.NAME] with table, id and name",
    "table": 'table = "audit_trail"',
    "id": 'id = "id", the ever-growing key of the table',
    "name": 'name = "logins.{measure}", the path of its metrics',
}


class Problem(NamedTuple):
    """Something wrong at a place of the file, and what to do."""

    place: tuple[str | int, ...]
    message: str
    remedy: str


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
            if place.is_file() and os.access(place, os.R_OK):
                _check_option_file(place)
                return str(place)
        raise ConfigError(
            f'read credentials "{name}" of source "{source}": none readable at {", ".join(map(str, places))}',
            hint=OPTION_FILE_HINT,
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
        is_twice = "twice" in str(error) or "overwrite" in str(error)
        hint = "A section or key stands twice." if is_twice else "The file is not TOML: is a quote or a bracket open?"
        raise ConfigError(f"{file}:{line}: {error}", hint=hint) from error
    problems = _default_problems(raw)
    try:
        parsed = File.model_validate(_with_defaults(raw))
    except ValidationError as error:
        problems += [_explained(one, one["loc"]) for one in error.errors()]
        raise _report(file, text, raw, problems) from None
    problems += _related(parsed)
    if problems:
        raise _report(file, text, raw, problems)
    jobs = {name: _job(name, job, parsed) for name, job in parsed.job.items()}
    return Config(file, parsed.state, parsed.graphite, parsed.source, jobs)


def _check_option_file(file: Path) -> None:
    """Refuse what PyMySQL would stumble over."""
    parser = configparser.RawConfigParser(allow_no_value=True)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
        parser["client"].getint("port", 0)
    except (configparser.Error, KeyError, ValueError) as error:
        reason = (
            str(error).partition("\n")[0] if isinstance(error, configparser.Error) else "no usable [client] section"
        )
        raise ConfigError(f"read credentials {file}: {reason}", hint=OPTION_FILE_HINT) from None


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
    if not isinstance(defaults, dict) or not isinstance(jobs, dict):
        return raw
    return raw | {"job": {name: defaults | job if isinstance(job, dict) else job for name, job in jobs.items()}}


def _default_problems(raw: dict[str, Any]) -> list[Problem]:
    """Look at [defaults] by itself: a job that says otherwise would hide what is wrong there."""
    defaults = raw.get("defaults")
    if not isinstance(defaults, dict):
        return []
    try:
        JobSection.model_validate({"table": "any", "id": "any", "name": "any"} | defaults)
    except ValidationError as error:
        return [_explained(one, ("defaults", *one["loc"])) for one in error.errors()]
    return []


def _related(parsed: File) -> Iterator[Problem]:
    """Yield what is well-formed but does not fit together."""
    graphite = parsed.graphite
    if sorted(graphite.replay) != graphite.replay:
        yield Problem(("graphite", "replay"), "replay does not grow", 'Write the shortest first: ["1m", "10m", "1h"].')
    for name, job in parsed.job.items():
        place = ("job", name)
        yield from _bucket_problems(name, job, graphite.retentions[0])
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


def _bucket_problems(name: str, job: JobSection, finest: Archive) -> Iterator[Problem]:
    place, kept = ("job", name, "bucket"), finest.duration
    if job.bucket % finest.step:
        remedy = f"Carbon keeps one value per {finest.step} s (its finest step): make bucket a multiple of that."
        yield Problem(place, "counts of this bucket would overwrite each other", remedy)
    if kept < 2 * job.bucket + job.every + ROOM_SECONDS + EDGE_SECONDS:
        remedy = f"Let carbon keep the finest archive longer: {kept} s are not enough to deliver and replay in."
        yield Problem(("graphite", "retentions"), f'too short for job "{name}"', remedy)
    if job.time is None and job.bucket < job.every:
        remedy = "Without `time` a bucket holds what a tick found: make bucket at least as long as every."
        yield Problem(place, "bucket is shorter than every", remedy)


def _template_problems(place: tuple[str, ...], job: JobSection) -> Iterator[Problem]:
    used = placeholders(job.name)
    for name in used:
        if name not in {*job.by, MEASURE}:
            yield Problem(
                place, f"{{{name}}} is neither a column of `by` nor {{measure}}", _suggest(name, [*job.by, MEASURE])
            )
    if MEASURE in job.by:
        yield Problem(place, '{measure} is "count", not the column', "Shipper cannot group by a column of that name.")
    for column in job.by:
        if column not in used:
            remedy = f"Put {{{column}}} into the name, else its groups would overwrite each other."
            yield Problem(place, f'the column "{column}" of `by` is missing', remedy)


def _full_name(job: JobSection, parsed: File) -> str:
    return f"{parsed.graphite.prefix}.{job.name}" if parsed.graphite.prefix else job.name


def _job(name: str, job: JobSection, parsed: File) -> Job:
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


def _explained(error: ErrorDetails, place: tuple[str | int, ...]) -> Problem:
    """Say one of pydantic's findings in our words."""
    kind, context = error["type"], error.get("ctx", {})
    key = place[-1] if place else ""
    match kind:
        case "shipper":
            return Problem(place, context["message"], context["remedy"])
        case "extra_forbidden":
            return Problem(place, f'no such key "{key}"', _suggest(str(key), _known(place)))
        case "missing":
            return Problem(place, f'"{key}" is missing', f"Add, for example, {_EXAMPLES[str(key)]}.")
        case _:
            remedy = _REMEDIES.get(kind, f"{error['msg']}.")
            return Problem(place, f"{key} = {toml(error['input'])} does not fit", remedy)


def _known(place: tuple[str | int, ...]) -> list[str]:
    sections: dict[object, type[Section]] = {
        "state": StateSection,
        "graphite": GraphiteSection,
        "source": SourceSection,
        "job": JobSection,
        "defaults": JobSection,
    }
    return list((File if len(place) == 1 else sections[place[0]]).model_fields)


def _suggest(wrong: str, known: Iterable[str]) -> str:
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
        case ("job", job, key, *rest) if isinstance(raw.get("defaults"), dict) and key in raw["defaults"]:
            if key in raw["job"][job]:
                return place
            return ("defaults", key, *rest)
    return place
