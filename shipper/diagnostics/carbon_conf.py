"""What carbon must have in its configuration for the series of a configuration.

What an operator's file of carbon's says of these series, beside what it must say.

Strategy: as carbon does, the first stanza whose pattern is found in a path decides for it, whole. A group's value is
not known here: the column's name stands for it.
"""

import re
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from configparser import Error as ParserError
from pathlib import Path
from typing import NamedTuple

from pydantic_core import PydanticCustomError

from shipper.config.load import Config
from shipper.config.values import single_duration
from shipper.core.errors import ConfigError
from shipper.core.measures import Kind
from shipper.core.model import Job
from shipper.core.paths import COUNTS, GAUGES, MEASURE, NODE, path, paths_of

SCHEMAS, AGGREGATION, CARBON = "storage-schemas.conf", "storage-aggregation.conf", "carbon.conf"


class Stanza(NamedTuple):
    """A section of one of carbon's files."""

    name: str
    settings: Mapping[str, str]

    def __str__(self) -> str:
        return "\n".join([f"[{self.name}]", *(f"{key} = {value}" for key, value in self.settings.items()), ""])


def stanzas(config: Config) -> dict[str, list[Stanza]]:
    """Return the stanzas of each file, in the order in which they must stand."""
    pattern = _pattern(config)
    retentions = ",".join(f"{archive.step}s:{archive.duration}s" for archive in config.graphite.retentions)
    return {
        SCHEMAS: [Stanza("shipper", {"pattern": pattern, "retentions": retentions})],
        AGGREGATION: [*_aggregations(config), _aggregation("shipper", pattern, "sum")],
        CARBON: [Stanza("cache", {"MAX_CREATES_PER_MINUTE": "inf"})],
    }


_WHY = {
    SCHEMAS: "before any other stanza that matches",
    AGGREGATION: "likewise: counts are added up, and a single one is enough",
    CARBON: "the usual 50 drops the first points of new series, without a word",
}


def rules(config: Config) -> str:
    """Return all of it as text to paste."""
    return "\n".join(
        "\n".join([f"# {file}, {_WHY[file]}", *map(str, found)]) for file, found in stanzas(config).items()
    )


def _pattern(config: Config) -> str:
    if prefix := config.graphite.prefix:
        return f"^{re.escape(prefix)}\\."
    return "|".join([*(f"^{_path_pattern(job)}$" for job in config.jobs.values()), _own_pattern(config)])


def _aggregations(config: Config) -> Iterator[Stanza]:
    """Return the stanzas of what is not added up, and of the service's own numbers."""
    own = _own_pattern(config)
    worst = "|".join(name for name in GAUGES if name != "up")
    yield _aggregation("shipper-itself", f"{own}({worst})$", "max")
    yield _aggregation("shipper-itself-up", f"{own}up$", "min")
    yield _aggregation("shipper-itself-counts", f"{own}({'|'.join(COUNTS)})$", "sum")
    for kind in (kind for kind in Kind if not kind.is_additive):
        paths = [
            f"^{_path_pattern(job, measure.name)}$"
            for job in config.jobs.values()
            for measure in job.query.measures
            if measure.kind is kind
        ]
        if paths:
            yield _aggregation(f"shipper-{kind}", "|".join(paths), kind.aggregation)


def _aggregation(name: str, pattern: str, method: str) -> Stanza:
    return Stanza(name, {"pattern": pattern, "xFilesFactor": "0", "aggregationMethod": method})


def _own_pattern(config: Config) -> str:
    """Write the paths of the service's own metrics as a regular expression, up to the last node."""
    begin = f"{config.graphite.prefix}." if config.graphite.prefix else ""
    return f"^{re.escape(begin + NODE)}\\.[^.]+\\.[^.]+\\."


def _path_pattern(job: Job, measure: str | None = None) -> str:
    """Write a job's template as a regular expression of its paths, of all measures or of one."""
    template = job.template if measure is None else job.template.replace("{measure}", measure)
    literals = re.split(r"\{[^}]*\}", template)
    return "[^.]+".join(re.escape(literal).replace(r"\-", "-") for literal in literals)


_DEFAULTS = {SCHEMAS: {"retentions": "60s:7d"}, AGGREGATION: {}}  # carbon/storage.py, where no stanza matches
_MOST_CREATES = "MAX_CREATES_PER_MINUTE"


class Verdict(NamedTuple):
    """What a file says of one path."""

    path: str
    stanza: str | None
    """The one that decides; None is carbon's default."""
    says: str
    wanted: str
    is_good: bool


class Diff(NamedTuple):
    """What a file says, and what to write if that is not right."""

    file: str
    verdicts: list[Verdict]
    write: str

    @property
    def is_good(self) -> bool:
        """Is all as it must be?"""
        return not self.write


def diff(config: Config, file: str) -> Diff:
    """Compare a file of carbon's with what these series need.

    Raises:
        ConfigError: it cannot be read, or carbon itself could not.
    """
    parser = _parsed(file)
    kind = _kind(file, parser)
    own = stanzas(config)[kind]
    if kind == CARBON:
        return _creates(file, parser)
    theirs = [Stanza(name, dict(parser[name])) for name in parser.sections()]
    try:
        verdicts = [_verdict(kind, shown, real, theirs, own) for shown, real in _paths(config)]
    except (ValueError, PydanticCustomError, re.error) as error:
        raise ConfigError(f"read {file}: {error}", hint="Carbon could not read it either: mend it first.") from error
    bad = [verdict for verdict in verdicts if not verdict.is_good]
    return Diff(file, verdicts, _written(bad, theirs, own) if bad else "")


def _parsed(file: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(Path(file).read_text(encoding="utf-8"), file)
    except (OSError, UnicodeDecodeError, ParserError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ConfigError(f"read {file}: {reason}", hint="Name one of carbon's files, readable for you.") from error
    return parser


def _kind(file: str, parser: ConfigParser) -> str:
    """Say which of carbon's files it is: by its name, or by what it holds."""
    keys = {key for name in parser.sections() for key in parser[name]}
    if Path(file).name in {SCHEMAS, AGGREGATION, CARBON}:
        return Path(file).name
    if "retentions" in keys:
        return SCHEMAS
    if keys & {"aggregationmethod", "xfilesfactor"}:
        return AGGREGATION
    if parser.has_section("cache"):
        return CARBON
    raise ConfigError(
        f"read {file}: nothing in it is of carbon", hint=f"Name carbon's {SCHEMAS}, {AGGREGATION} or {CARBON}."
    )


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    """Yield all paths, as they are shown and with something in the place of what is not known."""
    for job in config.jobs.values():
        group = job.groups[0] if job.groups else job.query.by
        for measure, real in zip(job.query.measures, paths_of(job, group), strict=True):
            yield job.template.replace(f"{{{MEASURE}}}", measure.name), real
    begin = f"{config.graphite.prefix}." if config.graphite.prefix else ""
    for name in (*GAUGES, *COUNTS):
        yield begin + path("{host}", "{job}", name), begin + path("host", "job", name)


def _verdict(kind: str, shown: str, real: str, theirs: list[Stanza], own: list[Stanza]) -> Verdict:
    found, wanted = _deciding(real, theirs), _deciding(real, own)
    assert wanted is not None
    says, needs = (_said(kind, stanza.settings if stanza else _DEFAULTS[kind]) for stanza in (found, wanted))
    return Verdict(shown, found and found.name, says, needs, says == needs)


def _deciding(real: str, among: list[Stanza]) -> Stanza | None:
    """Return the first stanza that matches, of those that carbon does not skip."""
    return next(
        (one for one in among if one.settings.get("pattern") and re.search(one.settings["pattern"], real)), None
    )


def _said(kind: str, settings: Mapping[str, str]) -> str:
    """Say in one way what can be written in several."""
    if kind == SCHEMAS:
        return ",".join(map(_archive, settings["retentions"].split(",")))
    known = {key.lower(): value for key, value in settings.items()}
    return f"{known.get('aggregationmethod', 'average')}, {float(known.get('xfilesfactor', '0.5')):g}"


def _archive(text: str) -> str:
    """Read an archive as carbon does (carbon/util.py parseRetentionDef): seconds and points have no unit."""
    step, _, kept = text.strip().partition(":")
    length = int(step) if step.isdigit() else single_duration(step)
    points = int(kept) if kept.isdigit() else single_duration(kept) // length
    return f"{length}s:{points * length}s"


def _written(bad: list[Verdict], theirs: list[Stanza], own: list[Stanza]) -> str:
    """Say what to write, and where."""
    names = {stanza.name for stanza in own}
    old = [f"[{stanza.name}]" for stanza in theirs if stanza.name in names]
    wrong = {verdict.stanza for verdict in bad} - names
    first = next((f"before [{stanza.name}]" for stanza in theirs if stanza.name in wrong), "into it")
    out = f"# take out {', '.join(old)}, and\n" if old else ""
    return "\n".join([f"{out}# put this {first}:", *map(str, own)])


def _creates(file: str, parser: ConfigParser) -> Diff:
    """Look at how many new series carbon makes a minute; of all others it drops the points."""
    says = parser.get("cache", _MOST_CREATES, fallback="50")
    verdict = Verdict(
        _MOST_CREATES, "cache" if parser.has_section("cache") else None, says, "inf", says.lower() == "inf"
    )
    remedy = f"# in [cache], and restart carbon:\n{_MOST_CREATES} = inf\n"
    return Diff(file, [verdict], "" if verdict.is_good else remedy)
