"""Names and lines: group values become paths, totals become bytes that Carbon cannot misread.

Strategy: Carbon never says no. It stores `a..b` as a file `a/b`, splits at a non-breaking space, drops the
connection at a byte that is not UTF-8 and closes it as if all were well. So whatever could be misread is made
impossible before it is stored, and refused once more before it is sent.

How the service's own numbers are called in Graphite: the configuration keeps the data's names off them.

Which paths a group's measures have: claimed in the state, so that no two groups ever share one.

Strategy: nearly always they are known, and one look says so for all groups together. Of the others, the first that
cleans to a path has it; a later, different one gets a hash of its raw value behind it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from functools import lru_cache
from hashlib import sha256

from shipper.core.errors import BadMetric
from shipper.core.ledger import Name, Recording, RecordResult
from shipper.core.model import Group, Job

MEASURE = "measure"
MAX_VALUE = 100  # bytes of a group value in a path; a longer one is cut and gets a hash: half a node, room for more
MAX_TEMPLATE = 200  # leaves room for seven long values in a line
MAX_NODE = 251  # Whisper's file name is the node and ".wsp", at most 255 bytes
MAX_LINE = 1024  # bytes; carbon drops the connection at 16384, some relays far earlier
MAX_BRIEF = 60  # characters of a value in the log
HASH_DIGITS = (0, 6, 16, 64)

_SHORT = Context(prec=17, traps=[])  # as many digits as tell doubles apart
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_PATH = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*(?:;[A-Za-z0-9_-]+=[A-Za-z0-9_.-]+)*")


def placeholders(template: str) -> list[str]:
    """Return the names in braces, in order."""
    return PLACEHOLDER.findall(template)


def is_template(template: str) -> bool:
    """Is this a metric path, perhaps with tags, once its placeholders are filled?"""
    return bool(_PATH.fullmatch(PLACEHOLDER.sub("x", template)))


def node(text: str) -> str:
    """Make one node of a path of any name."""
    return _UNSAFE.sub("_", text)[:MAX_VALUE] or "_"


def is_safe(group: Group) -> bool:
    """Does a path show these values as they are?"""
    return all(value and not _UNSAFE.search(value) and len(value) <= MAX_VALUE for value in group)


def brief(value: object) -> str:
    """Show any value in one short line of a log, whatever characters or digits it has."""
    if isinstance(value, int | Decimal):
        return f"{Decimal(value).normalize(_SHORT):g}"
    shown = repr(value)  # escapes all that could end a line
    return shown if len(shown) <= MAX_BRIEF else f"{shown[: MAX_BRIEF - 3]}..."


def paths_of(job: Job, group: Group, *, digits: int = 0) -> list[str]:
    """Fill a job's template for each measure; digits > 0 puts so many of the group's hash behind its last value.

    Raises:
        BadMetric: a path would be too long for Carbon.
    """
    values = {column: _clean(value, job) for column, value in zip(job.query.by, group, strict=True)}
    if digits and group:
        values[job.query.by[-1]] += "-" + _digest(group)[:digits]
    paths = []
    for measure in job.query.measures:
        values[MEASURE] = measure.name
        paths.append(job.template.format_map(values))
        check_path(paths[-1])
    return paths


def _clean(value: str | None, job: Job) -> str:
    if value is None:
        return job.null_as
    if not value:
        return job.empty_as
    clean = _UNSAFE.sub("_", value)
    if len(clean) > MAX_VALUE:
        clean = clean[: MAX_VALUE - 7] + "-" + _digest((value,))[:6]
    return clean


def _digest(group: Group) -> str:
    """Hash what an operator has at hand: the one value as it stands, else the group as the state keeps it."""
    text = group[0] if len(group) == 1 and group[0] is not None else json.dumps(group)
    return sha256(text.encode()).hexdigest()


def check_path(path: str) -> None:
    """Raise BadMetric for a path that Carbon would misread."""
    if not _PATH.fullmatch(path):
        raise BadMetric(f"render: {path!r} is not a metric path")
    # 48: the value, the timestamp, two blanks and the line's end
    nodes = path.partition(";")[0].split(".") if len(path) > MAX_NODE else []
    if len(path) > MAX_LINE - 48 or any(len(node) > MAX_NODE for node in nodes):
        raise BadMetric(f"render: a path of {len(path)} bytes is too long", hint="Shorten `name`, or group by less.")


NODE = "shipper"
GAUGES = ("complete_until_age", "lag_rows", "series", "unproven", "overdue", "up")
"""As they stand, of which a coarser archive keeps the worst: the largest, of `up` the smallest."""
COUNTS = ("rows", "late_rows", "too_late", "datapoints", "capture_ms", "deliver_ms", "failures")
"""What came within a minute, which add up."""


def path(host: str, job: str, name: str) -> str:
    """Return the path of one number, behind the prefix."""
    return f"{NODE}.{host}.{job}.{name}"


GROUPS = 50_000  # whose names are remembered: 15 MB at most
OTHER = "_other"
"""The group of all groups beyond `limits.series`."""

Paths = dict[Group, list[str] | None]
"""The path of each measure, in their order, by group; None where Carbon could not hold one."""


def named(job: Job, groups: Mapping[Group, int], recording: Recording, tally: RecordResult) -> Paths:
    """Return the paths of groups, which are given with their rows; one beyond the job's limit has those of OTHER."""
    wanted = {group: _names(job, group) for group in groups}
    theirs = recording.adopt([name for names in wanted.values() for name in names])
    paths: Paths = {group: [name.path for name in names] or None for group, names in wanted.items()}
    if strange := {group: names for group, names in wanted.items() if not theirs.issuperset(names)}:
        paths |= _named_anew(job, strange, groups, recording, tally)
    if tally.nameless is None:
        tally.nameless = next((group for group in groups if paths[group] is None), None)
    return paths


class Directory:
    """The names of a job's series, to look up: it claims none."""

    def __init__(self, job: Job, names: Iterable[Name]) -> None:
        self._job = job
        self._owners = {name.path: (name.group, name.measure.name) for name in names}
        self._groups = {group for group, _ in self._owners.values()}

    def paths(self, group: Group) -> list[str]:
        """Return the path of each measure of a group: its own, or what it would have; none where Carbon could not."""
        other = (OTHER,) * len(self._job.query.by)
        if group not in self._groups and other in self._groups:
            group = other
        found: dict[str, str] = {}
        for digits in HASH_DIGITS:
            for path, _, measure in _names(self._job, group, digits):
                if self._owners.get(path, (group, measure.name)) == (group, measure.name):
                    found.setdefault(measure.name, path)
        measures = [measure.name for measure in self._job.query.measures]
        return [found[name] for name in measures] if len(found) == len(measures) else []


def _named_anew(
    job: Job,
    wanted: Mapping[Group, tuple[Name, ...]],
    rows: Mapping[Group, int],
    recording: Recording,
    tally: RecordResult,
) -> Paths:
    """Name groups that lack a path: as many new ones as there is room for."""
    count = recording.count_groups()
    known = recording.known(wanted) if count else ()
    new = [group for group in wanted if group not in known]
    room = max(0, job.max_groups - count)
    beyond = frozenset(new[room:])
    paths = _claimed(job, {group: names for group, names in wanted.items() if group not in beyond}, recording)
    if beyond:
        other = (OTHER,) * len(job.query.by)
        paths |= dict.fromkeys(beyond, _claimed(job, {other: _names(job, other)}, recording)[other])
        tally.other_rows += sum(rows[group] for group in beyond)
        tally.other = new[room] if tally.other is None else tally.other
    tally.sanitized += [(names[0], group) for group in new[:room] if (names := paths[group]) and not is_safe(group)]
    return paths


def _claimed(job: Job, wanted: Mapping[Group, tuple[Name, ...]], recording: Recording) -> Paths:
    """Make paths the groups' own: those that are wanted, else ones with as many digits of a hash as it takes."""
    own: dict[Group, dict[str, str]] = {group: {} for group in wanted}
    for digits in HASH_DIGITS:
        if digits:
            wanted = {group: _names(job, group, digits) for group in wanted}
        lacking = [name for group, names in wanted.items() for name in names if name.measure.name not in own[group]]
        for name in recording.claim(lacking):
            own[name.group][name.measure.name] = name.path
        wanted = {group: names for group, names in wanted.items() if len(own[group]) < len(job.query.measures)}
        if not wanted:
            break
    measures = [measure.name for measure in job.query.measures]
    return {
        group: None if group in wanted else [paths[measure] for measure in measures] for group, paths in own.items()
    }


@lru_cache(GROUPS)
def _names(job: Job, group: Group, digits: int = 0) -> tuple[Name, ...]:
    """Return the names that a group would have; none, where Carbon could not hold one."""
    try:
        paths = paths_of(job, group, digits=digits)
    except BadMetric:
        return ()
    return tuple(Name(path, group, measure) for path, measure in zip(paths, job.query.measures, strict=True))
