"""Names of label values: given ones, and small tables of the source that are read again for unknown values.

Strategy: rows get their names right after they are read, so all that counts, recounts and compares has the same
groups. A new value and its name may be committed together; therefore a value that was not seen before reads the table
again, in the snapshot of its row.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from shipper.core.errors import QueryRefused, RowRefused
from shipper.core.model import Names, Query, Row
from shipper.source.connections.connection import Connections
from shipper.source.result import group_of
from shipper.source.statements.counts import Same, names_in, names_of

MOST_NAMES = 10_000
FRESH_SECONDS = 60.0
"""Age from which names are read again."""


class _Lookup(NamedTuple):
    """Names that a SELECT returned, and values that had none then."""

    names: Mapping[str, str]
    unknown: frozenset[str]
    read_at: float
    """Our monotonic clock, in seconds."""


class Lookups:
    """Names of all label values of one source."""

    def __init__(self, connections: Connections, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read nothing yet."""
        self._connections, self._clock = connections, clock
        self._lookups: dict[str, _Lookup] = {}

    def renamed(self, query: Query, rows: list[Row]) -> list[Row]:
        """Return rows with names in place of label values; two groups may become equal.

        Raises:
            SourceUnavailable: no answer, or not in time.
            QueryRefused: a SELECT of names is rejected, or its result is ambiguous.
        """
        for names in query.names:
            at = query.by.index(names.column)
            named = self._named(query, names, {value for row in rows if (value := row.group[at]) is not None})
            rows = [_renamed(row, at, named) for row in rows]
        return rows

    def _named(self, query: Query, names: Names, values: set[str]) -> Mapping[str, str]:
        if names.sql is None:
            return dict(names.given)
        lookup, now = self._lookups.get(names.sql), self._clock()
        if lookup is None or now - lookup.read_at >= FRESH_SECONDS:
            lookup = _Lookup({}, frozenset(), now)
        if not lookup.names or values.difference(lookup.names) - lookup.unknown:
            found = self._read(query, names.column, names.sql)
            lookup = _Lookup(found, (lookup.unknown | values) - found.keys(), now)
            self._lookups[names.sql] = lookup
        return lookup.names

    def _read(self, query: Query, column: str, sql: str) -> dict[str, str]:
        step = f"read names.{column}"
        try:
            with self._connections.connected(step) as connection:
                width = len(connection.execute(names_in(sql)).keys())
                if width != 2:  # noqa: PLR2004 - value and name
                    raise QueryRefused(f"{step}: its result has {width} columns", hint="Select two: value and name.")
                rows = connection.execute(names_of(sql, MOST_NAMES + 1)).all()
                self._connections.check_snapshot(connection, query.table, reads_others=True)
        except RowRefused as error:  # not of a counted row
            raise QueryRefused(str(error), hint=error.hint) from error
        return _checked(step, [group_of(row) for row in rows])


def same_names(rows: list[Row], named: list[Row]) -> Same:
    """Return which label values have the name of another one, if two groups became equal by their names."""
    if len({row[:2] for row in named}) == len(named):
        return ()
    first: dict[tuple[int, str], str] = {}
    same = set()
    for row, with_name in zip(rows, named, strict=True):
        for at, (value, name) in enumerate(zip(row.group, with_name.group, strict=True)):
            if value is not None and name is not None and first.setdefault((at, name), value) != value:
                same.add((at, value, first[at, name]))
    return tuple(sorted(same))


def _checked(step: str, rows: list[tuple[Any, ...]]) -> dict[str, str]:
    """Return the names by value; rows without a value or without a name do not count."""
    # a table that is filled again is empty for a moment: the values would count under themselves
    if not rows:
        raise QueryRefused(f"{step}: its result is empty", hint="Fill the table of names, or remove this key.")
    if len(rows) > MOST_NAMES:
        hint = "Select only values that occur, or count with custom `sql` and a join."
        raise QueryRefused(f"{step}: its result has more than {MOST_NAMES} rows", hint=hint)
    names: dict[str, str] = {}
    for value, name in rows:
        if value is not None and name is not None and names.setdefault(value, name) != name:
            reason = f"{value!r:.60} has two names, {names[value]!r:.60} and {name!r:.60}"
            raise QueryRefused(f"{step}: {reason}", hint="Select one name for each value.")
    return names


def _renamed(row: Row, at: int, names: Mapping[str, str]) -> Row:
    value = row.group[at]
    if value is None or (name := names.get(value)) is None:
        return row
    group = (*row.group[:at], name, *row.group[at + 1 :])
    rejected = tuple(value._replace(group=group) if value.group else value for value in row.rejected_values)
    return row._replace(group=group, rejected_values=rejected)
