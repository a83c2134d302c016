"""Metric paths: templates, group values as path nodes, the owner of each path, the paths of shipper's own metrics.

Strategy: Carbon never rejects anything. It stores `a..b` as a file `a/b`, splits lines at a non-breaking space, and
drops the connection at a byte that is not UTF-8, as if it had read all. Values are therefore sanitized before a path is
stored, and each path is checked once more before it is sent.

Two values may become the same node. Paths are therefore claimed in the state: the first group keeps the path, a later
one gets a hash of its raw value behind it. Nearly always all groups have paths, and one query confirms that.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from decimal import Context, Decimal
from functools import lru_cache
from hashlib import sha256
from itertools import islice

from shipper.core.errors import BadMetric
from shipper.core.ledger import Name, Recording, RecordResult
from shipper.core.model import Group, Job

MEASURE = "measure"
MAX_VALUE = 100  # bytes of a group value in a path, half a node; a longer value is cut and gets a hash
MAX_LABEL = 100  # characters of a group value; a longer one is its beginning and a hash, wherever it is kept
MAX_TEMPLATE = 200  # bytes; leaves room for seven long values in a line
MAX_NODE = 251  # bytes; Whisper's file name is the node and ".wsp", at most 255 bytes
MAX_LINE = 1024  # bytes; carbon drops the connection at 16384, some relays far earlier
MAX_BRIEF = 60  # characters of a value in the log
JOBS = 10_000  # whose templates are cached
HASH_DIGITS = (0, 6, 16, 64)
"""Digits of a hash that are tried, one after the other, until a path is free."""

_SHORT = Context(prec=17, traps=[])  # 17 digits distinguish all doubles
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_LONG = re.compile(r"\.\.\.([0-9a-f]{64})\Z")  # the end of the label of a long value
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_PATH = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*(?:;[A-Za-z0-9_-]+=[A-Za-z0-9_.-]+)*")


def placeholders(template: str) -> list[str]:
    """Return the names in braces, in order."""
    return PLACEHOLDER.findall(template)


def is_template(template: str) -> bool:
    """Whether a text is a metric path, with or without tags, once its placeholders are filled."""
    return bool(_PATH.fullmatch(PLACEHOLDER.sub("x", template)))


def node(text: str) -> str:
    """Sanitize a name to one node of a path."""
    return _UNSAFE.sub("_", text)[:MAX_VALUE] or "_"


def is_safe(group: Group) -> bool:
    """Whether a path shows the values of a group unchanged."""
    return all(value and not _UNSAFE.search(value) and len(value) <= MAX_VALUE for value in group)


def label(text: str) -> str:
    """Return a text as a group value: a long one as its beginning and its SHA-256, as databases do it."""
    return text if len(text) <= MAX_LABEL else f"{text[:MAX_LABEL]}...{sha256(text.encode()).hexdigest()}"


def brief(value: object) -> str:
    """Show any value in one short line of a log."""
    if isinstance(value, int | Decimal):
        return f"{Decimal(value).normalize(_SHORT):g}"
    text = repr(value)  # escapes all characters that could end a line
    return text if len(text) <= MAX_BRIEF else f"{text[: MAX_BRIEF - 3]}..."


def paths_of(job: Job, group: Group, *, digits: int = 0) -> list[str]:
    """Fill a job's template for each measure; with digits, that many of the group's hash follow its last value.

    Raises:
        BadMetric: a path would be too long for Carbon.
    """
    nodes = [_sanitize(value, job) for value in group]
    if digits and group:
        nodes[-1] += "-" + _digest(group)[:digits]
    paths = [form.format(*nodes) for form in _forms(job)]
    for path in paths:
        check_path(path)
    return paths


@lru_cache(JOBS)
def _forms(job: Job) -> tuple[str, ...]:
    """Return the path of each measure, with the place of a group's value as a field of `str.format`."""
    fields = {column: f"{{{at}}}" for at, column in enumerate(job.query.by)}
    forms = []
    for measure in job.query.measures:
        fields[MEASURE] = measure.name
        forms.append(PLACEHOLDER.sub(lambda found: fields[found[1]], job.template))
    return tuple(forms)


def _sanitize(value: str | None, job: Job) -> str:
    if value is None:
        return job.null_as
    if not value:
        return job.empty_as
    text = _UNSAFE.sub("_", value)
    if len(text) > MAX_VALUE:
        text = text[: MAX_VALUE - 7] + "-" + _digest((value,))[:6]
    return text


def _digest(group: Group) -> str:
    """Hash a group in a form that operators can hash, too: a single value as it is, else the JSON of the state."""
    text = group[0] if len(group) == 1 and group[0] is not None else json.dumps(group)
    long = _LONG.search(text) if len(text) > MAX_LABEL else None
    return long[1] if long else sha256(text.encode()).hexdigest()


def check_path(path: str) -> None:
    """Raise BadMetric for a path that Carbon would misread."""
    if not _PATH.fullmatch(path):
        raise BadMetric(f"render: {path!r} is not a metric path")
    if len(path) <= MAX_NODE:
        return
    # 48 bytes: the value, the timestamp, two blanks and the end of the line
    if len(path) > MAX_LINE - 48 or any(len(node) > MAX_NODE for node in path.partition(";")[0].split(".")):
        reason = f"a path of {len(path)} bytes is too long: {brief(path)}"
        raise BadMetric(f"render: {reason}", hint="Shorten `name`, or group by less.")


NODE = "shipper"
"""First node of the paths of shipper's own metrics; the configuration keeps it free of jobs."""
LEASE = "_lease"
"""Node in the place of a job, for own metrics of a state in a database."""
OF_LEASE = ("leader", "term", "push_ms")
"""Own metrics there that are a state."""
AUDIT = ("audit_compared", "audit_different", "audit_missing", "audit_surplus", "audit_failed")
"""Own metrics about a job's newest audit."""
GAUGES = ("complete_until_age", "lag_rows", "series", "unproven", "overdue", "paused", *AUDIT, *OF_LEASE, "up")
"""Own metrics that are a state; a coarser archive keeps the worst value: the largest, of `up` the smallest."""
COUNTS = ("rows", "late_rows", "too_late", "datapoints", "capture_ms", "deliver_ms", "failures", "late_slots")
"""Own metrics that count within a minute; a coarser archive keeps the sum."""


def path(prefix: str | None, host: str, job: str, name: str) -> str:
    """Return the path of one of shipper's own metrics."""
    return ".".join(filter(None, (prefix, NODE, host, job, name)))


GROUPS = 20_000
"""Maximum number of groups whose names are cached: 25 MB at most."""
MOST_CACHED = 200
"""Maximum number of characters of such a group's values; each may take four bytes."""
CLAIMED = 5000
"""Groups whose paths are claimed at once."""
SHOWN = 10
"""New paths that differ from their values, of one transaction, which are kept for reports."""
OTHER = "_other"
"""Value of the group that all groups beyond `limits.series` share."""


def other_of(job: Job) -> Group | None:
    """Return the group that all groups beyond the limit share; None for a job without groups."""
    return (OTHER,) * len(job.query.by) or None


Paths = dict[Group, list[str] | None]
"""The path of each measure, in their order, by group; None where Carbon could not store one."""


def claim_paths(job: Job, groups: Mapping[Group, int], recording: Recording, tally: RecordResult) -> Paths:
    """Claim and return the paths of groups, given with their numbers of rows; groups beyond the limit share OTHER's."""
    paths: Paths = {}
    rest = iter(groups)
    while some := tuple(islice(rest, CLAIMED)):
        # nearly always each group owns its paths already: one query confirms that
        wanted = {group: _names(job, group) for group in some}
        unowned = {name.group for name in recording.adopt([name for names in wanted.values() for name in names])}
        paths |= {group: [name.path for name in names] or None for group, names in wanted.items()}

        # all other groups claim paths
        if unowned:
            lacking = {group: names for group, names in wanted.items() if group in unowned}
            paths |= _claim_within_limit(job, lacking, groups, recording, tally)
    if tally.nameless is None:
        tally.nameless = next((group for group in groups if paths[group] is None), None)
    return paths


class Directory:
    """Read-only lookup of the paths of a job's groups."""

    def __init__(self, job: Job, names: Iterable[Name]) -> None:
        self._job = job
        self._owners = {name.path: name.group for name in names}
        self._groups = set(self._owners.values())

    def shares(self, group: Group) -> bool:
        """Whether a group is, or would be, one of those that share OTHER's paths."""
        other = other_of(self._job)
        return other is not None and (group == other or (group not in self._groups and other in self._groups))

    def sharing(self, groups: Iterable[Group]) -> list[Group]:
        """Return those of some groups that share OTHER's paths."""
        return [group for group in groups if self.shares(group)]

    def paths(self, group: Group) -> list[str]:
        """Return the path of each measure of a group, its own or the one it would get; [] where Carbon has no room."""
        # without series, a group may be one of those that share OTHER's
        if self.shares(group):
            group = (OTHER,) * len(group)

        # the first path that is the group's own or free, as a claim would find it
        own: dict[str, str] = {}
        for digits in HASH_DIGITS:
            for path, _, measure in _names(self._job, group, digits):
                if self._owners.get(path, group) == group:
                    own.setdefault(measure.name, path)
        measures = [measure.name for measure in self._job.query.measures]
        return [own[name] for name in measures] if len(own) == len(measures) else []


def beyond_limit(job: Job, groups: Collection[Group], count: int, known: Collection[Group]) -> list[Group]:
    """Return which groups share OTHER's paths, given how many have series, and which of these do."""
    if count + len(groups) <= job.max_groups:
        return []
    other = other_of(job)
    new = [group for group in groups if group not in known and group != other and _names(job, group)]
    return new[max(0, job.max_groups - count) :]


def _claim_within_limit(
    job: Job,
    wanted: Mapping[Group, tuple[Name, ...]],
    rows: Mapping[Group, int],
    recording: Recording,
    tally: RecordResult,
) -> Paths:
    """Claim paths for groups that lack some; new groups beyond the job's limit get those of OTHER."""
    # groups that have series keep them, whatever the limit is
    count, known = recording.groups(wanted)
    beyond = beyond_limit(job, wanted, count, known)
    others = set(beyond)
    paths = _claim(job, {group: names for group, names in wanted.items() if group not in others}, recording)

    # groups beyond the limit share a path, so that no row is lost
    if beyond:
        other = (OTHER,) * len(job.query.by)
        paths |= dict.fromkeys(beyond, _claim(job, {other: _names(job, other)}, recording)[other])
        tally.others.update(beyond)
        tally.other_rows += sum(rows[group] for group in beyond)
        tally.other = beyond[0] if tally.other is None else tally.other

    # report new paths that do not show their values
    shown = [group for group in wanted if group not in known and group not in others]
    unsafe = [(names[0], group) for group in shown if (names := paths[group]) and not is_safe(group)]
    tally.sanitized_series += len(unsafe)
    tally.sanitized += unsafe[: max(0, SHOWN - len(tally.sanitized))]
    return paths


def _claim(job: Job, wanted: Mapping[Group, tuple[Name, ...]], recording: Recording) -> Paths:
    """Claim the wanted paths, or paths with more and more digits of a hash where another group owns them."""
    own: dict[Group, dict[str, str]] = {group: {} for group in wanted}
    for digits in HASH_DIGITS:
        # each measure that lacks a path claims one
        if digits:
            wanted = {group: _names(job, group, digits) for group in wanted}
        lacking = [name for group, names in wanted.items() for name in names if name.measure.name not in own[group]]
        for name in recording.claim(lacking):
            own[name.group][name.measure.name] = name.path

        # groups that still lack some try again, with a longer hash: nearly always there are none
        wanted = {group: names for group, names in wanted.items() if len(own[group]) < len(job.query.measures)}
        if not wanted:
            break
    measures = [measure.name for measure in job.query.measures]
    return {
        group: None if group in wanted else [paths[measure] for measure in measures] for group, paths in own.items()
    }


def _names(job: Job, group: Group, digits: int = 0) -> tuple[Name, ...]:
    """Return the names that a group would have; none where Carbon could not store one."""
    is_short = sum(len(value) for value in group if value) <= MOST_CACHED
    return (_cached_names if is_short else _new_names)(job, group, digits)


def _new_names(job: Job, group: Group, digits: int) -> tuple[Name, ...]:
    try:
        paths = paths_of(job, group, digits=digits)
    except BadMetric:
        return ()
    return tuple(Name(path, group, measure) for path, measure in zip(paths, job.query.measures, strict=True))


_cached_names = lru_cache(GROUPS)(_new_names)
