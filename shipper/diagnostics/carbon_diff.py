"""`shipper admin carbon-conf --diff`: Carbon's own files, compared with the stanzas that these series need.

Strategy: as in Carbon, the first stanza whose pattern is found in a path applies to it. The values of groups are not
known here: paths contain the column's name instead.
"""

import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from configparser import (
    ConfigParser,
    DuplicateOptionError,
    DuplicateSectionError,
    InterpolationError,
    MissingSectionHeaderError,
    ParsingError,
)
from configparser import Error as ParserError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pydantic_core import PydanticCustomError

from shipper.config.files import UnreadableError, read_text
from shipper.config.load import Config
from shipper.config.values import single_duration
from shipper.core.errors import ConfigError, printable
from shipper.core.paths import COUNTS, GAUGES, MEASURE, path, paths_of
from shipper.diagnostics.carbon_conf import AGGREGATION, CARBON, SCHEMAS, Stanza, pattern_of, stanzas

WHITELIST, BLACKLIST = "whitelist.conf", "blacklist.conf"
FOLDERS = (Path("/etc/carbon"), Path("/opt/graphite/conf"))  # Debian's, and the default of Graphite
DEFAULT_PORT = "2003"
LOCAL = {"localhost", "127.0.0.1", "::1", socket.gethostname()}
_DEFAULTS = {SCHEMAS: {"retentions": "60s:7d"}, AGGREGATION: {}}  # carbon/storage.py, where no stanza matches
_NO_PATTERN = (re.error, OverflowError, RecursionError)
_PORT = "LINE_RECEIVER_PORT"
_MOST_CREATES, _MOST_CONNECTIONS = "MAX_CREATES_PER_MINUTE", "MAX_RECEIVER_CONNECTIONS"
LEAST_CONNECTIONS = 5
"""Connections of shipper at a time: one that stays open, and two each for metrics of itself and for a command."""
SEARCH_SECONDS = 10.0  # for all patterns of a file; usual ones take milliseconds
_SLOW = "Simplify that pattern: Carbon needs the same time for each series that it compares with the pattern."


class Verdict(NamedTuple):
    """The stanza that applies to a path, and its effect; or a setting, and its section."""

    path: str
    stanza: str | None
    """None for Carbon's default; in a whitelist or a blacklist the pattern that is found in the path."""
    present: str
    needed: str
    is_good: bool


class Diff(NamedTuple):
    """The comparison of a file, and the text to write into it; empty if it is correct."""

    file: str
    verdicts: list[Verdict]
    write: str


def folder_of(config: Config) -> Path | None:
    """Return the directory with the configuration of the Carbon that these series go to, if it runs on this machine."""
    for host, port in config.graphite.addresses:
        for folder in FOLDERS if host in LOCAL else ():
            parser = ConfigParser(strict=False)
            try:
                parser.read_string(read_text(folder / CARBON))
                ports = {parser.get(name, _PORT, fallback=DEFAULT_PORT) for name in parser.sections()}
            except UnreadableError:
                continue
            except ParserError:  # its port is not known, but `diff` reports the error
                return folder
            if str(port) in ports:
                return folder
    return None


def diff(config: Config, file: str, *, may_miss: bool = False) -> Diff:
    """Compare one of Carbon's files with the stanzas that these series need.

    Raises:
        ConfigError: the file cannot be read, neither here nor by Carbon.
    """
    if Path(file).name in {WHITELIST, BLACKLIST}:
        return _diff_of_list(config, file)
    parser = ConfigParser() if may_miss and not Path(file).exists() else _parsed(file)
    kind = _kind(file, parser)
    try:
        if kind == CARBON:
            return _diff_of_settings(config, file, parser)
        return _diff_of_stanzas(config, file, parser, kind)
    except (ValueError, ArithmeticError, PydanticCustomError, *_NO_PATTERN) as error:
        raise ConfigError(
            f"read {file}: {error}", hint="Correct the file first: Carbon cannot read it either."
        ) from error


def _diff_of_stanzas(config: Config, file: str, parser: ConfigParser, kind: str) -> Diff:
    own, present = stanzas(config)[kind], [Stanza(name, dict(parser[name])) for name in parser.sections()]
    with _limited(file):
        matches = [(shown, _first_match(real, present), _first_match(real, own)) for shown, real in _paths(config)]
    verdicts = []
    for shown, stanza, needed in matches:
        assert needed is not None
        has, needs = (_effect(kind, one.settings if one else _DEFAULTS[kind]) for one in (stanza, needed))
        verdicts.append(Verdict(shown, stanza and stanza.name, has, needs, has == needs))
    bad = [verdict for verdict in verdicts if not verdict.is_good]
    return Diff(file, verdicts, _changes(bad, present, own) if bad else "")


def _parsed(file: str) -> ConfigParser:
    """Read a file as Carbon does, which also replaces %% and %(KEY)s in each value."""
    parser = ConfigParser()
    try:
        parser.read_string(_text(file), file)
        for section in parser.sections():
            parser.items(section)
    except ParserError as error:
        raise _syntax_error(file, error) from error
    return parser


def _syntax_error(file: str, error: ParserError) -> ConfigError:
    """Return the error of a file that configparser, as used by Carbon, rejects: its line, and how to correct it."""
    place, reason, remedy = "", str(error).partition("\n")[0], "Correct the file first"
    match error:
        case DuplicateSectionError(section=section, lineno=line):
            place, reason = f":{line}", f"section [{section}] exists already"
            remedy = f"Merge both sections [{section}] into one"
        case DuplicateOptionError(section=section, option=key, lineno=line):
            place, reason, remedy = (
                f":{line}",
                f"{key} exists already in [{section}]",
                f"Keep only one of the two lines with {key}",
            )
        case MissingSectionHeaderError(lineno=line) | ParsingError(errors=[(line, _), *_]):
            place, reason, remedy = f":{line}", "not KEY = VALUE in a section", "Correct this line"
        case InterpolationError(section=section, option=key):
            reason, remedy = f"{key} in [{section}] has a % that is not %% or %(KEY)s", "Write each such % as %%"
    return ConfigError(f"read {file}{place}: {reason}", hint=f"{remedy}: Carbon cannot read the file either.")


def _text(file: str) -> str:
    try:
        return read_text(file)
    except UnreadableError as error:
        hint = "Give one of Carbon's files that exists and that you may read."
        raise ConfigError(f"read {file}: {error}", hint=hint) from error


def _kind(file: str, parser: ConfigParser) -> str:
    """Return which of Carbon's files it is, by its name or by its keys."""
    keys = {key for name in parser.sections() for key in parser[name]}
    if Path(file).name in {SCHEMAS, AGGREGATION, CARBON}:
        return Path(file).name
    if "retentions" in keys:
        return SCHEMAS
    if keys & {"aggregationmethod", "xfilesfactor"}:
        return AGGREGATION
    if parser.has_section("cache"):
        return CARBON
    raise ConfigError(f"read {file}: not a file of Carbon", hint=f"Give Carbon's {SCHEMAS}, {AGGREGATION} or {CARBON}.")


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    """Yield all paths, once to show, and once with values for the unknown parts."""
    for job in config.jobs.values():
        group = job.groups[0] if job.groups else job.query.by
        for measure, real in zip(job.query.measures, paths_of(job, group), strict=True):
            yield job.template.replace(f"{{{MEASURE}}}", measure.name), real
    prefix = config.graphite.prefix
    for name in (*GAUGES, *COUNTS):
        yield path(prefix, "{host}", "{job}", name), path(prefix, "host", "job", name)


def _first_match(real: str, among: list[Stanza]) -> Stanza | None:
    """Return the first stanza that matches, of those that Carbon does not skip."""
    return next((one for one in among if (pattern := one.settings.get("pattern")) and _is_in(pattern, real)), None)


class _Endless(Exception):
    """A search that takes too long."""


@contextmanager
def _limited(file: str) -> Iterator[None]:
    """Let the searches of a block take SEARCH_SECONDS, else raise ConfigError; for the main thread.

    A pattern such as (a+)+b may take years. A search lets no other thread run, but looks for signals.
    """

    def end(*_: object) -> None:
        raise _Endless(f"its patterns take longer than {SEARCH_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, end)
    seconds, _ = signal.setitimer(signal.ITIMER_REAL, SEARCH_SECONDS)
    try:
        yield
    except _Endless as error:
        raise ConfigError(f"read {file}: {error}", hint=_SLOW) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _is_in(pattern: str | re.Pattern[str], real: str) -> bool:
    """Return whether a pattern is found in a path."""
    try:
        return re.search(pattern, real) is not None
    except _Endless:
        text = pattern if isinstance(pattern, str) else pattern.pattern
        raise _Endless(f"pattern {printable(text)} takes longer than {SEARCH_SECONDS:g} s to match {real}") from None


def _effect(kind: str, settings: Mapping[str, str]) -> str:
    """Return the effect of settings in one notation, though Carbon allows several."""
    if kind == SCHEMAS:
        return ",".join(map(_archive, settings.get("retentions", "").split(",")))
    values = {key.lower(): value for key, value in settings.items()}
    method, factor = values.get("aggregationmethod", "average"), float(values.get("xfilesfactor", "0.5"))
    return f"aggregationMethod = {method}, xFilesFactor = {factor:g}"


def _archive(text: str) -> str:
    """Return an archive as Carbon reads it (carbon/util.py parseRetentionDef): seconds and points have no unit."""
    step, _, length = text.strip().partition(":")
    seconds = int(step) if step.isdigit() else single_duration(step)
    points = int(length) if length.isdigit() else single_duration(length) // seconds
    return f"{seconds}s:{points * seconds}s"


def _changes(bad: list[Verdict], present: list[Stanza], own: list[Stanza]) -> str:
    """Return the text to write, and its place."""
    names = {stanza.name for stanza in own}
    old = [f"[{stanza.name}]" for stanza in present if stanza.name in names]
    wrong = {verdict.stanza for verdict in bad} - names
    first = next((f"before [{stanza.name}]" for stanza in present if stanza.name in wrong), "in the file")
    remove = f"# remove {', '.join(old)}, and\n" if old else ""
    return "\n".join([f"{remove}# insert {first}:", *map(str, own)])


def _diff_of_settings(config: Config, file: str, parser: ConfigParser) -> Diff:
    """Compare the settings of carbon.conf that make Carbon drop or delay datapoints, and the lists in use."""
    settings, lists = list(_settings(parser)), [_diff_of_list(config, name) for name in _lists(file, parser)]
    bad = (one for one in settings if not one.is_good)
    changes = [f"# in [{one.stanza or 'cache'}]; then restart carbon:\n{one.path} = inf\n" for one in bad]
    changes += [one.write for one in lists if one.write]
    return Diff(file, [*settings, *(verdict for one in lists for verdict in one.verdicts)], "\n".join(changes))


def _settings(parser: ConfigParser) -> Iterator[Verdict]:
    """Yield the number of series created a minute, beyond which datapoints are dropped, and too few connections."""
    if parser.has_section("cache") or not parser.sections():
        present = parser.get("cache", _MOST_CREATES, fallback="50")
        section = "cache" if parser.has_section("cache") else None
        yield Verdict(_MOST_CREATES, section, present, "inf", present.lower() == "inf")
    for section in parser.sections():
        present = parser.get(section, _MOST_CONNECTIONS, fallback="inf")
        if present.isdigit() and int(present) < LEAST_CONNECTIONS:
            yield Verdict(_MOST_CONNECTIONS, section, present, f"{LEAST_CONNECTIONS} or more", is_good=False)


def _lists(file: str, parser: ConfigParser) -> list[str]:
    """Return the whitelists and blacklists that are in use; Carbon takes a missing one for empty."""
    folders = {
        Path(parser.get(section, "CONF_DIR", fallback=str(Path(file).parent)))
        for section in parser.sections()
        if parser.get(section, "USE_WHITELIST", fallback="no").lower() in {"1", "yes", "true", "on"}
    }
    names = [str(folder / name) for folder in sorted(folders) for name in (WHITELIST, BLACKLIST)]
    return [name for name in names if os.access(name, os.F_OK)]


def _diff_of_list(config: Config, file: str) -> Diff:
    """Compare a whitelist or a blacklist with the paths, as Carbon does (carbon/regexlist.py)."""
    patterns, is_black = list(_patterns(_text(file))), Path(file).name == BLACKLIST
    with _limited(file):
        matches = [
            (shown, next((pattern.pattern for pattern in patterns if _is_in(pattern, real)), None))
            for shown, real in _paths(config)
        ]
    verdicts = []
    for shown, found in matches:
        is_good = found is None if is_black else found is not None or not patterns
        verdicts.append(Verdict(shown, found, "stored" if is_good else "dropped", "stored", is_good))
    bad = {verdict.stanza for verdict in verdicts if not verdict.is_good}
    if not bad:
        return Diff(file, verdicts, "")
    if is_black:
        lines = [pattern.pattern for pattern in patterns if pattern.pattern in bad]
        head = f"# remove these lines from {file}, or change them until they match no series of shipper:"
        return Diff(file, verdicts, "\n".join([head, *lines, ""]))
    return Diff(file, verdicts, f"# add to {file}:\n{pattern_of(config)}\n")


def _patterns(text: str) -> Iterator[re.Pattern[str]]:
    """Yield the patterns of a list; Carbon skips comments, and patterns that it cannot read."""
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            with suppress(*_NO_PATTERN):
                yield re.compile(line.strip())
