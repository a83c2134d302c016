"""Series: each metric path has one owner, a measure of a group of a job.

Strategy: only this process writes them, so that rows are cached until a transaction is rolled back.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from json.encoder import encode_basestring_ascii

from shipper.core.errors import ConfigError
from shipper.core.ledger import Name
from shipper.core.measures import Kind
from shipper.core.model import Group
from shipper.state.schema import decoded

CACHE_SIZE = 50_000  # series from one recording to the next: at most 20 MB
ASKED = 2000  # groups that are looked up at once: the longest, as JSON in JSON, need 6 MB
GROUPS = 20_000  # groups as digests: at most 25 MB
DIGITS = 64  # of a SHA-256

COLUMNS = 'series.path, series.id, job, "group", measure, kind, first_slot, last_slot'
_OWNERS = f"SELECT {COLUMNS} FROM json_each(?) AS asked CROSS JOIN series ON series.path = asked.value"
_GROUPS = 'SELECT DISTINCT "group" FROM series WHERE job = ? AND "group" IN (SELECT value FROM json_each(?))'
_INSERT = """
    INSERT INTO series (path, id, job, "group", measure, kind, first_slot, last_slot) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_MEASURE = "UPDATE series SET measure = ?, kind = ? WHERE id = ?"
_SEEN = """
    UPDATE series SET first_slot = MIN(COALESCE(first_slot, ?1), ?1), last_slot = MAX(COALESCE(last_slot, ?1), ?1)
    WHERE id IN (SELECT value FROM json_each(?2)) AND (first_slot <= ?1 AND last_slot >= ?1) IS NOT TRUE"""


@dataclass(slots=True)
class Series:
    """Row of the table `series`."""

    path: str
    id: int
    job: str
    group: str
    """As JSON; in the cache the digest of a long one."""
    measure: str
    kind: str
    first_slot: int | None = None
    """Oldest bucket with rows."""
    last_slot: int | None = None
    """Newest bucket with rows."""

    def see(self, bucket: int) -> bool:
        """Add a bucket; return whether that changes anything."""
        first, last = self.first_slot, self.last_slot
        if first is None or last is None:
            self.first_slot = self.last_slot = bucket
        elif bucket < first:
            self.first_slot = bucket
        elif bucket > last:
            self.last_slot = bucket
        else:
            return False
        return True


class Registry:
    """Cache of series, and writes to them as part of the open transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, Series] = {}
        self._new: dict[str, str] = {}
        """Claimed paths whose rows are not written yet, with their groups as JSON."""

    def forget(self) -> None:
        """Drop the cache."""
        self._known.clear()
        self._new.clear()

    def trim(self) -> None:
        """Drop the cache if it is too large."""
        if len(self._known) > CACHE_SIZE:
            self.forget()

    def learn(self, series: Series) -> str:
        """Add a row to the cache, and return its path, which is one object for all of its slots."""
        known = self._known.get(series.path)
        if known is None:
            series.group = _digest(series.group)
            known = self._known[series.path] = series
        return known.path

    def id_of(self, path: str) -> int:
        """Return the id of a path that is in the cache."""
        return self._known[path].id

    def adopt(self, job: str, names: Collection[Name]) -> list[Name]:
        """Return the names that do not own their path, and claim the paths of the others: `Recording.adopt`."""
        self._look_up(name.path for name in names)
        return [name for name in names if not self._is_own(job, name)]

    def claim(self, job: str, names: Sequence[Name]) -> list[Name]:
        """Claim unowned paths, and return all names that own their path: `Recording.claim`."""
        self._look_up(name.path for name in names)
        new: dict[str, Name] = {}
        for name in names:
            owner = self._known.get(name.path)
            if owner is None:
                new.setdefault(name.path, name)
            elif owner.job != job:
                raise ConfigError(
                    f"series {name.path} belongs to job {owner.job} already",
                    hint=f"Give one of the two jobs another `name`. If job {owner.job} is not configured any more: "
                    f"`shipper admin rename {owner.job} {job}` (continue with its state) or "
                    f"`shipper admin forget {owner.job}`.",
                )
        self._make(job, new.values())
        return [*new.values(), *(name for name in names if name.path not in new and self._is_own(job, name))]

    def own(self, job: str, paths: Collection[str]) -> set[str]:
        """Return which of the paths are counts or sums of the job: `Recording.own`."""
        self._look_up(paths)
        known = {path: self._known[path] for path in paths if path in self._known}
        with decoded("read series"):
            return {path for path, one in known.items() if one.job == job and Kind(one.kind).has_zero}

    def groups(self, job: str, groups: Collection[Group]) -> set[Group]:
        """Return which of the groups have series."""
        self.save()
        known, rest = set[Group](), iter(groups)
        while raw := {raw_group(group): group for group in islice(rest, ASKED)}:
            known |= {raw[text] for (text,) in self._connection.execute(_GROUPS, (job, json.dumps(list(raw))))}
        return known

    def count_groups(self, job: str) -> int:
        """Return how many groups have series."""
        self.save()
        counted = 'SELECT COUNT(DISTINCT "group") FROM series WHERE job = ?'
        count: int = self._connection.execute(counted, (job,)).fetchone()[0]
        return count

    def see(self, bucket: int, paths: Iterable[str]) -> None:
        """Store that series had rows in a bucket."""
        changed = []
        for path in paths:
            known = self._known[path]
            if known.see(bucket) and path not in self._new:
                changed.append(known.id)
        if changed:
            self._connection.execute(_SEEN, (bucket, json.dumps(changed)))

    def save(self) -> None:
        """Write the claimed rows."""
        if self._new:
            new = ((self._known[path], group) for path, group in self._new.items())
            rows = ((s.path, s.id, s.job, group, s.measure, s.kind, s.first_slot, s.last_slot) for s, group in new)
            self._connection.executemany(_INSERT, rows)
            self._new.clear()

    def _look_up(self, paths: Iterable[str]) -> None:
        if unknown := [path for path in paths if path not in self._known]:
            for row in self._connection.execute(_OWNERS, (json.dumps(unknown),)):
                self.learn(Series(*row))

    def _make(self, job: str, names: Collection[Name]) -> None:
        """Make a row for each name, which `save` writes."""
        if not names:
            return
        self.save()
        first: int = self._connection.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM series").fetchone()[0]
        for number, (path, group, measure) in enumerate(names, first):
            self._new[path] = text = raw_group(group)
            self.learn(Series(path, number, job, text, measure.name, measure.kind.value))

    def _is_own(self, job: str, name: Name) -> bool:
        """Whether the name owns its path; its measure becomes that of the name.

        No two measures of a group have one path: where another owns it, the job's configuration has renamed it.
        """
        path, group, measure = name
        owner = self._known.get(path)
        if owner is None or owner.job != job or owner.group != digest_of(group):
            return False
        if owner.measure != measure.name or owner.kind != measure.kind:
            self._connection.execute(_MEASURE, (measure.name, measure.kind.value, owner.id))
            owner.measure, owner.kind = measure.name, measure.kind.value
        return True


@lru_cache(GROUPS)
def digest_of(group: Group) -> str:
    """Return a group's JSON, or its digest where that takes less memory."""
    return _digest(raw_group(group))


def _digest(text: str) -> str:
    return text if len(text) <= DIGITS else sha256(text.encode()).hexdigest()


def raw_group(group: Group) -> str:
    """Return a group as a JSON array, the same text as json.dumps writes, in a third of the time."""
    return f"[{', '.join(['null' if value is None else encode_basestring_ascii(value) for value in group])}]"
