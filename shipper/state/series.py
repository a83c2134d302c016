"""The series: each path has one owner, a group's measure of a job.

Strategy: nobody else writes them, so what was looked up is remembered, until a transaction is undone.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import NamedTuple

from shipper.core.errors import ConfigError
from shipper.core.ledger import Name
from shipper.core.measures import Kind
from shipper.core.model import Group

KEPT = 50_000  # series, and groups as text, are remembered from one recording to the next: 20 MB at most

COLUMNS = 'path, series.id, job, "group", measure, kind, first_slot, last_slot'
_OWNERS = f"SELECT {COLUMNS} FROM series WHERE path IN (SELECT value FROM json_each(?))"
_GROUPS = 'SELECT DISTINCT "group" FROM series WHERE job = ? AND "group" IN (SELECT value FROM json_each(?))'
_MAKE = """
    INSERT INTO series (path, id, job, "group", measure, kind, first_slot, last_slot) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_KIND = "UPDATE series SET kind = ? WHERE id = ?"
_SEEN = """
    UPDATE series SET first_slot = MIN(COALESCE(first_slot, ?1), ?1), last_slot = MAX(COALESCE(last_slot, ?1), ?1)
    WHERE id IN (SELECT value FROM json_each(?2)) AND (first_slot <= ?1 AND last_slot >= ?1) IS NOT TRUE"""


class Series(NamedTuple):
    """A row of the table."""

    path: str
    id: int
    job: str
    group: str
    """As JSON."""
    measure: str
    kind: str
    first_slot: int | None = None
    """The oldest and the newest bucket in which it had rows."""
    last_slot: int | None = None

    def seen(self, bucket: int) -> "Series":
        """Return it with rows in a bucket, too; itself, where that is nothing new."""
        first, last = self.first_slot, self.last_slot
        if first is None or last is None:
            return self._replace(first_slot=bucket, last_slot=bucket)
        if first <= bucket <= last:
            return self
        return self._replace(first_slot=min(first, bucket), last_slot=max(last, bucket))


class Registry:
    """Whose paths are whose. What it writes is part of the transaction that is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, Series] = {}
        self._new: dict[str, Series] = {}
        """Rows that are not written yet."""

    def forget(self) -> None:
        """Forget what was looked up: it may not be so any more."""
        self._known.clear()
        self._new.clear()

    def trim(self) -> None:
        """Forget it if it is too much."""
        if len(self._known) > KEPT:
            self.forget()

    def learn(self, series: Series) -> None:
        """Take notice of a row."""
        self._known[series.path] = series

    def id_of(self, path: str) -> int:
        """Return the id of a path that was looked up."""
        return self._known[path].id

    def adopt(self, job: str, names: Collection[Name]) -> set[Name]:
        """Return the names that are theirs already: see Recording."""
        self._look_up(name.path for name in names)
        return {name for name in names if self._is_own(job, name)}

    def claim(self, job: str, names: Sequence[Name]) -> set[Name]:
        """Claim paths: see Recording."""
        self._look_up(name.path for name in names)
        new: dict[str, Name] = {}
        for name in names:
            owner = self._known.get(name.path)
            if owner is None:
                new.setdefault(name.path, name)
            elif owner.job != job:
                raise ConfigError(
                    f"name {name.path}: it belongs to job {owner.job}",
                    hint="Give one of them another `name`: two jobs must not write the same series.",
                )
        self._make(job, new.values())
        return {*new.values(), *(name for name in names if name.path not in new and self._is_own(job, name))}

    def own(self, job: str, paths: Collection[str]) -> set[str]:
        """Return those of the paths that are counts and sums of the job: see Recording."""
        self._look_up(paths)
        known = {path: self._known[path] for path in paths if path in self._known}
        return {path for path, one in known.items() if one.job == job and Kind(one.kind).is_additive}

    def groups(self, job: str, groups: Collection[Group]) -> set[Group]:
        """Return those of the groups that have series."""
        self.save()
        raw = {raw_group(group): group for group in groups}
        return {raw[found] for (found,) in self._connection.execute(_GROUPS, (job, json.dumps(list(raw))))}

    def count_groups(self, job: str) -> int:
        """Return how many groups have series."""
        self.save()
        counted = 'SELECT COUNT(DISTINCT "group") FROM series WHERE job = ?'
        count: int = self._connection.execute(counted, (job,)).fetchone()[0]
        return count

    def see(self, bucket: int, paths: Iterable[str]) -> None:
        """Remember that the series had rows in a bucket."""
        unseen = []
        for path in paths:
            known = self._known[path]
            seen = known.seen(bucket)
            if seen is known:
                continue
            self._known[path] = seen
            if path in self._new:
                self._new[path] = seen
            else:
                unseen.append(known.id)
        if unseen:
            self._connection.execute(_SEEN, (bucket, json.dumps(unseen)))

    def save(self) -> None:
        """Write the rows of paths that were claimed."""
        if self._new:
            self._connection.executemany(_MAKE, self._new.values())
            self._new.clear()

    def _look_up(self, paths: Iterable[str]) -> None:
        if unknown := [path for path in paths if path not in self._known]:
            for row in self._connection.execute(_OWNERS, (json.dumps(unknown),)):
                self.learn(Series(*row))

    def _make(self, job: str, names: Collection[Name]) -> None:
        """Give each name's path a row of its own, to be saved."""
        if not names:
            return
        self.save()
        first: int = self._connection.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM series").fetchone()[0]
        self._new = {
            path: Series(path, number, job, raw_group(group), measure.name, measure.kind.value)
            for number, (path, group, measure) in enumerate(names, first)
        }
        self._known |= self._new

    def _is_own(self, job: str, name: Name) -> bool:
        """Is the path the name's? From now on its measure is put together as the name says."""
        path, group, measure = name
        owner = self._known.get(path)
        if owner is None or owner.job != job or owner.measure != measure.name or owner.group != raw_group(group):
            return False
        if owner.kind != measure.kind:
            self._connection.execute(_KIND, (measure.kind.value, owner.id))
            self.learn(owner._replace(kind=measure.kind.value))
        return True


@lru_cache(KEPT)
def raw_group(group: Group) -> str:
    """Return a group as the state keeps it: a JSON array, as json.dumps writes it, in a third of its time."""
    return f"[{', '.join(['null' if value is None else encode_basestring_ascii(value) for value in group])}]"
