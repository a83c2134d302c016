"""Facts that a database tells about tables and statements: columns, keys, engines, plans."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.sql.visitors import replacement_traverse

from shipper.core.model import ALWAYS, Query, Span, Window
from shipper.source.dialects.databases import dialect_named
from shipper.source.dialects.dialect import Catalog, Plan
from shipper.source.statement import bounds, counted, labels


class Column(NamedTuple):
    """A column's type, as the database names it."""

    type: str
    is_integer: bool
    is_moment: bool
    """Whether it contains points in time, which need no `time_zone`."""


class Index(NamedTuple):
    """An index, by its first column."""

    name: str
    column: str
    required: str | None
    """The state that it needs to be used: VISIBLE, NOT IGNORED or VALID; None where it is used."""


class Table(NamedTuple):
    """The catalog's facts about a table, or about a view."""

    columns: Mapping[str, Column]
    indices: Sequence[Index]
    is_view: bool
    engine: str | None
    """The name of its engine, if that has no transactions."""
    reused: str | None
    """The id column, if the database gives ids of deleted rows to new rows."""
    moving: Sequence[str]
    """Columns that each UPDATE of a row sets to its time."""


def described(connection: sa.Connection, path: str) -> Table:
    """Return the facts about a table, or `schema.table`; a missing table has no columns."""
    catalog = _catalog(connection)
    kind = _rows(connection, catalog.kind, path)
    return Table(
        {name: _column(str(type_), catalog) for name, type_ in _rows(connection, catalog.columns, path)},
        [Index(*row) for row in _rows(connection, catalog.leading, path)],
        any("VIEW" in str(row[0]) for row in kind),
        _first(connection, catalog.engine, path),
        _first(connection, catalog.reused, path),
        [row[0] for row in _rows(connection, catalog.moving, path)] if catalog.moving else [],
    )


def tables_beside(connection: sa.Connection, path: str) -> list[str]:
    """Return the names of all tables and views in a table's schema."""
    return [str(row[0]) for row in _rows(connection, _catalog(connection).tables, path)]


def granted(connection: sa.Connection, path: str) -> list[tuple[str, str]]:
    """Return schema and table of each GRANT by which this user may read a table, as REVOKE must name them."""
    schema, _, table = path.rpartition(".")
    statement = _catalog(connection).granted
    return [(schema, table)] if statement is None else [(row[0], row[1]) for row in _rows(connection, statement, path)]


def is_unique(connection: sa.Connection, path: str, column: str) -> bool:
    """Return whether an index of just this column keeps its values unique."""
    rows = _rows(connection, _catalog(connection).unique, path)
    return column.lower() in {str(row[0]).lower() for row in rows}


def plain_engine(connection: sa.Connection, path: str) -> str | None:
    """Return the name of a table's engine, if that has no transactions."""
    return _first(connection, _catalog(connection).engine, path)


def planned(connection: sa.Connection, query: Query, window: Window) -> Plan:
    """Return the database's plan for the statement that counts a window."""
    statement = counted(query, is_within=False)
    return dialect_named(connection.dialect.name).plan(connection, statement, bounds(query, window), query.id)


def written(dialect: sa.Dialect, query: Query, window: Window, span: Span) -> str:
    """Return the statement that counts a window, with its values in it, for people."""
    values = bounds(query, window, span)
    if not dialect_named(dialect.name).CATALOG.has_types:  # other programs have no function for long labels
        query = replace(query, short=frozenset(labels(query)[0]))

    def typed(element: Any, **_: Any) -> Any:
        if not isinstance(element, sa.BindParameter):
            return None
        value = values.get(element.key, element.value)
        value = str(value) if isinstance(value, datetime) else value
        return sa.bindparam(None, value, type_=_TYPES[type(value)])

    statement: Any = replacement_traverse(counted(query, is_within=span != ALWAYS), {}, typed)
    # the driver's own style of parameters would double each %
    plain: Any = type(dialect)
    return str(statement.compile(dialect=plain(paramstyle="named"), compile_kwargs={"literal_binds": True})).replace(
        " \n", "\n"
    )


def _catalog(connection: sa.Connection) -> Catalog:
    return dialect_named(connection.dialect.name).CATALOG


def _first(connection: sa.Connection, statement: str | None, path: str) -> str | None:
    rows = [] if statement is None else _rows(connection, statement, path)
    return rows[0][0] if rows else None


def _rows(connection: sa.Connection, text: str, path: str) -> list[Any]:
    schema, _, table = path.rpartition(".")
    quoted = ".".join(f'"{part}"' for part in (schema, table) if part)
    names = {"schema": schema or None, "table": table, "path": quoted}
    statement = sa.text(text)
    return list(connection.execute(statement, {name: names[name] for name in statement.compile().params}))


def _column(type_: str, catalog: Catalog) -> Column:
    is_integer = not catalog.has_types or (type_.endswith(("int", "integer")) and not type_.endswith("point"))
    return Column(type_, is_integer, type_ == catalog.moment)


_TYPES: dict[type, sa.types.TypeEngine[Any]] = {
    str: sa.String(),
    bool: sa.Boolean(),
    int: sa.BigInteger(),
    float: sa.Float(),
}
