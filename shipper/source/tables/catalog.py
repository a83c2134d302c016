"""Facts that a database tells about tables and statements: columns, keys, engines, plans."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from shipper.core.model import Query, Window
from shipper.source.dialects.by_name import dialect_named
from shipper.source.dialects.dialect import Catalog, Plan
from shipper.source.statements.clauses import bounds
from shipper.source.statements.counts import counted


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


class NonTransactional(NamedTuple):
    """A table whose engine has no transactions, and the engine: the table itself, or one behind a view."""

    path: str
    engine: str


class Table(NamedTuple):
    """The catalog's facts about a table, or about a view."""

    columns: Mapping[str, Column]
    indices: Sequence[Index]
    is_view: bool
    nontransactional: NonTransactional | None
    """A table without transactions: this one, or one that it reads as a view."""
    is_opaque: bool
    """Whether it is a view, and this user does not see which tables it reads, and therefore not their engines."""
    reused: str | None
    """The id column, if the database gives ids of deleted rows to new rows."""
    moving: Sequence[str]
    """Columns that each UPDATE of a row sets to its time."""
    cycling: Mapping[str, str]
    """Statements that keep the sequences of columns from beginning again."""


def described(connection: sa.Connection, path: str) -> Table:
    """Return the facts about a table, or `schema.table`; a missing table has no columns."""
    catalog, is_view = _catalog(connection), _is_view(connection, path)
    return Table(
        {name: _column(str(type_), catalog) for name, type_ in facts(connection, catalog.columns, path)},
        [Index(*row) for row in facts(connection, catalog.leading, path)],
        is_view,
        nontransactional_table(connection, path),
        is_view and catalog.behind is not None and not facts(connection, catalog.behind, path),
        _first(connection, catalog.reused, path),
        [row[0] for row in facts(connection, catalog.moving, path)] if catalog.moving else [],
        dict(map(tuple, facts(connection, catalog.cycling, path))) if catalog.cycling else {},
    )


def nontransactional_table(connection: sa.Connection, path: str) -> NonTransactional | None:
    """Return a table without transactions: this one, or one that it reads as a view, also through others."""
    catalog, paths = _catalog(connection), [path]
    for one in paths:
        if (engine := _first(connection, catalog.engine, one)) is not None:
            return NonTransactional(one, engine)
        if catalog.behind is not None and _is_view(connection, one):
            paths += [row[0] for row in facts(connection, catalog.behind, one) if row[0] not in paths]
    return None


def is_unique(connection: sa.Connection, path: str, column: str) -> bool:
    """Return whether an index of just this column keeps its values unique."""
    found = facts(connection, _catalog(connection).unique, path)
    return column.lower() in {str(row[0]).lower() for row in found}


def is_indexed(connection: sa.Connection, path: str, column: str) -> bool:
    """Return whether an index that is in use begins with a column."""
    leading = (Index(*row) for row in facts(connection, _catalog(connection).leading, path))
    return any(index.column.lower() == column.lower() and index.required is None for index in leading)


def planned(connection: sa.Connection, query: Query, window: Window) -> Plan:
    """Return the database's plan for the statement that counts a window."""
    statement = counted(query, is_within=False)
    return dialect_named(connection.dialect.name).plan(connection, statement, bounds(query, window), query.id)


def facts(connection: sa.Connection, text: str, path: str) -> list[Any]:
    """Return the rows of a statement of the catalog about a table."""
    schema, _, table = path.rpartition(".")
    quoted = ".".join(f'"{part}"' for part in (schema, table) if part)
    names = {"schema": schema or None, "table": table, "path": quoted}
    statement = sa.text(text)
    return list(connection.execute(statement, {name: names[name] for name in statement.compile().params}))


def _catalog(connection: sa.Connection) -> Catalog:
    return dialect_named(connection.dialect.name).CATALOG


def _is_view(connection: sa.Connection, path: str) -> bool:
    return any("VIEW" in str(row[0]) for row in facts(connection, _catalog(connection).kind, path))


def _first(connection: sa.Connection, statement: str | None, path: str) -> str | None:
    found = [] if statement is None else facts(connection, statement, path)
    return found[0][0] if found else None


def _column(type_: str, catalog: Catalog) -> Column:
    is_integer = not catalog.has_types or (type_.endswith(("int", "integer")) and not type_.endswith("point"))
    return Column(type_, is_integer, type_ == catalog.moment)
