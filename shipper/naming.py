"""Core. Which paths a group's measures have: claimed in the state, so that no two groups ever share one.

Strategy: nearly always they are known, and one look says so for all groups together. Of the others, the first that
cleans to a path has it; a later, different one gets a hash of its raw value behind it.
"""

from collections.abc import Mapping, Sequence

from shipper.errors import BadMetric
from shipper.ledger import Name, Recording, Tally
from shipper.model import Group, Job
from shipper.render import HASH_DIGITS, is_clean, path_of

OTHER = "_other"
"""The group of all groups beyond `limits.series`."""

Paths = dict[Group, list[str] | None]
"""The path of each measure, in their order, by group; None where Carbon could not hold one."""


def named(job: Job, groups: Mapping[Group, int], recording: Recording, tally: Tally) -> Paths:
    """Return the paths of groups, which are given with their rows; one beyond the job's limit has those of OTHER."""
    wanted = {group: _names(job, group) for group in groups}
    theirs = recording.adopt([name for names in wanted.values() for name in names])
    paths: Paths = {group: [name.path for name in names] or None for group, names in wanted.items()}
    if strange := [group for group, names in wanted.items() if not theirs.issuperset(names)]:
        paths |= _named_anew(job, strange, groups, recording, tally)
    if tally.nameless is None:
        tally.nameless = next((group for group in groups if paths[group] is None), None)
    return paths


def _named_anew(
    job: Job, groups: Sequence[Group], rows: Mapping[Group, int], recording: Recording, tally: Tally
) -> Paths:
    """Name groups that lack a path: as many new ones as there is room for."""
    known = recording.known(groups)
    new = [group for group in groups if group not in known]
    room = max(0, job.max_groups - recording.count_groups())
    beyond = frozenset(new[room:])
    paths = _claimed(job, [group for group in groups if group not in beyond], recording)
    if beyond:
        other = (OTHER,) * len(job.query.by)
        paths |= dict.fromkeys(beyond, _claimed(job, [other], recording)[other])
        tally.other_rows += sum(rows[group] for group in beyond)
        tally.other = new[room] if tally.other is None else tally.other
    tally.cleaned += [(names[0], group) for group in new[:room] if (names := paths[group]) and not is_clean(group)]
    return paths


def _claimed(job: Job, groups: Sequence[Group], recording: Recording) -> Paths:
    """Make paths the groups' own, with as many digits of a hash as it takes."""
    found: dict[Group, dict[str, str]] = {group: {} for group in groups}
    for digits in HASH_DIGITS:
        names = [
            name for group in groups for name in _names(job, group, digits) if name.measure.name not in found[group]
        ]
        for name in recording.claim(names):
            found[name.group][name.measure.name] = name.path
        groups = [group for group in groups if len(found[group]) < len(job.query.measures)]
        if not groups:
            break
    measures = [measure.name for measure in job.query.measures]
    is_all = len(measures)
    return {group: [own[name] for name in measures] if len(own) == is_all else None for group, own in found.items()}


def _names(job: Job, group: Group, digits: int = 0) -> list[Name]:
    """Return the names that a group would have; none, where Carbon could not hold one."""
    try:
        return [
            Name(path_of(job, group, measure.name, digits=digits), group, measure) for measure in job.query.measures
        ]
    except BadMetric:
        return []
