"""Columns of a real table that suit a job: as id, as time, as labels.

Strategy: the catalog names the keys; the newest rows show whether a column contains times, and how many values it has.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from shipper.source.catalog import Column, Table, described, is_unique
from shipper.source.connection import Connections
from shipper.source.dialects.expressions import table_named
from shipper.source.times import units_of

NEWEST_ROWS = 1000
MOST_VALUES = 50
"""A column with more values among the newest rows would make too many series."""
_TIME = re.compile(r"date|timestamp")
_LONG = re.compile(r"json|xml|blob|bytea|binary|(medium|long)text|time|date|uuid|point|geometry", re.IGNORECASE)
_NAMED_TIME = re.compile(r"time|date|stamp|created|clock|when|(^|_)(at|on|ts)$", re.IGNORECASE)


class TimeColumn(NamedTuple):
    """A column that contains times."""

    name: str
    unit: str | None
    """Unit of numbers since 1970."""
    is_indexed: bool


class Candidates(NamedTuple):
    """Columns that suit a job, the best ones first."""

    ids: list[str]
    """Unique integer keys."""
    times: list[TimeColumn]
    labels: list[str]


def candidates(connections: Connections, path: str) -> Candidates:
    """Return the columns of a table that suit a job; of a table that does not exist there are none.

    Raises:
        ShipperError: the database does not answer, or denies a column.
    """
    with connections.connected(f"look at {path}") as connection:
        table = described(connection, path)
        leading = list(dict.fromkeys(index.column for index in table.indices if index.required is None))
        keys = [name for name in leading if name in table.columns and table.columns[name].is_integer]
        ids = [name for name in keys if is_unique(connection, path, name)]
        if not table.columns:
            return Candidates([], [], [])
        order = (ids or leading or list(table.columns))[0]
        times = list(_times(connection, path, table, order, leading))
        others = [name for name in table.columns if name not in {*ids, *(time.name for time in times)}]
        short = [name for name in others if not _LONG.search(table.columns[name].type)]
        return Candidates(ids, times, _labels(connection, path, short, order))


def _times(
    connection: sa.Connection, path: str, table: Table, order: str, leading: Sequence[str]
) -> Iterator[TimeColumn]:
    """Yield columns that contain times: those of a type for times first."""
    typed = [name for name, column in table.columns.items() if _TIME.match(column.type.lower())]
    for name in typed:
        yield TimeColumn(name, None, name in leading)
    named = [name for name in table.columns if name not in typed and _NAMED_TIME.search(name)]
    newest = _newest(connection, path, named, order) if named else {}
    for name, value in newest.items():
        is_time, unit = _read(value, table.columns[name])
        if is_time:
            yield TimeColumn(name, unit, name in leading)


def _newest(connection: sa.Connection, path: str, names: Sequence[str], order: str) -> dict[str, Any]:
    """Return the values of the newest row."""
    columns = table_named(path, {*names, order}).columns
    chosen = sa.select(*(columns[name] for name in names)).order_by(columns[order].desc()).limit(1)
    row = connection.execute(chosen).one_or_none()
    return dict(zip(names, row, strict=True)) if row else {}


def _read(value: object, column: Column) -> tuple[bool, str | None]:
    """Return whether a value is a time, and the unit of a number."""
    try:
        if column.is_integer or not isinstance(value, str):
            units = units_of(float(str(value)))
            return bool(units), units[0] if units else None
        datetime.fromisoformat(value)
    except ValueError:
        return False, None
    return True, None


def _labels(connection: sa.Connection, path: str, names: Sequence[str], order: str) -> list[str]:
    """Return the columns with few values among the newest rows, those with the fewest first."""
    if not names:
        return []
    columns = table_named(path, {*names, order}).columns
    rows = sa.select(*(columns[name] for name in names)).order_by(columns[order].desc()).limit(NEWEST_ROWS).subquery()
    counts = connection.execute(sa.select(*(sa.func.count(column.distinct()) for column in rows.columns))).one()
    found = sorted((count, name) for name, count in zip(names, counts, strict=True) if 0 < count <= MOST_VALUES)
    return [name for count, name in found if count > 1] + [name for count, name in found if count == 1]
