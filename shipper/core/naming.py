"""Which paths a group's measures have: claimed in the state, so that no two groups ever share one.

Strategy: nearly always they are known, and one look says so for all groups together. Of the others, the first that
cleans to a path has it; a later, different one gets a hash of its raw value behind it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from shipper.core.errors import BadMetric
from shipper.core.ledger import Name, Recording, Tally
from shipper.core.model import Group, Job
from shipper.core.paths import HASH_DIGITS, is_clean, paths_of

GROUPS = 50_000  # whose names are remembered: 15 MB at most
OTHER = "_other"
"""The group of all groups beyond `limits.series`."""

Paths = dict[Group, list[str] | None]
"""The path of each measure, in their order, by group; None where Carbon could not hold one."""


def named(job: Job, groups: Mapping[Group, int], recording: Recording, tally: Tally) -> Paths:
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
    job: Job, wanted: Mapping[Group, tuple[Name, ...]], rows: Mapping[Group, int], recording: Recording, tally: Tally
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
    tally.cleaned += [(names[0], group) for group in new[:room] if (names := paths[group]) and not is_clean(group)]
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
