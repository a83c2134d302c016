"""Rows of the state on their way to a database and back: what a commit has changed, and a file made of all rows.

Strategy: temporary triggers note the keys of changed rows; just before a commit, one statement reads these rows as they
are then. A row travels as one text of SQL literals. Every type of SQLite therefore comes back as it was, and the tables
are defined once, in schema.py.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

ROWS_AT_ONCE = 500  # rows of one INSERT
_LITERAL = r"(?:(?:'[^']*+')++|-?[0-9]++(?:\.[0-9]++)?(?:e[+-][0-9]++)?|NULL|X'[0-9A-F]*+')"
_LITERALS = re.compile(rf"{_LITERAL}(?:, {_LITERAL})*+")
"""Results of SQLite's quote(): a database may contain other expressions, which may have no end."""


class MirroredRow(NamedTuple):
    """A row of a table, as SQL literals."""

    table: str
    key: str
    """Its primary key."""
    values: str | None
    """All its columns; None if the row was deleted."""


class Mirror:
    """Notes of one connection about the rows that its transactions change."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Note changes from now on."""
        self._connection = connection
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA recursive_triggers = ON")  # else a row that REPLACE deletes would not be noted
        tables = _tables(connection)
        for table in tables:
            for statement in _noting(table):
                connection.execute(statement)
        self._changed = " UNION ALL ".join(map(_changed, tables))

    def take(self) -> list[MirroredRow]:
        """Return the rows that the open transaction has changed until now, each once, as they are now."""
        rows = [MirroredRow(*row) for row in self._connection.execute(self._changed)]
        for table in {row.table for row in rows}:
            self._connection.execute(f"DELETE FROM temp.{_noted(table)}")
        return rows


def all_rows(connection: sqlite3.Connection) -> Iterator[MirroredRow]:
    """Yield every row of the state."""
    for table in _tables(connection):
        key, values = _literals(table.key, "now"), _literals(table.columns, "now")
        rows = connection.execute(f"SELECT '{table.name}', {key}, {values} FROM {table.name} AS now")
        yield from map(MirroredRow._make, rows)


def load(connection: sqlite3.Connection, rows: Iterable[tuple[str, str]]) -> None:
    """Insert rows, each of a table and its literals, into empty tables. Order by table is quickest.

    Raises:
        sqlite3.Error: a row does not belong to these tables.
    """
    names = {table.name for table in _tables(connection)}
    for name, group in groupby(rows, key=lambda row: row[0]):
        if name not in names:
            raise sqlite3.DatabaseError(f"no table {name!r}")
        while chunk := list(islice(group, ROWS_AT_ONCE)):
            if not all(_LITERALS.fullmatch(literals) for _, literals in chunk):
                raise sqlite3.DatabaseError(f"a row of {name!r} that is not of literals")
            values = ", ".join(f"({literals})" for _, literals in chunk)
            connection.execute(f"INSERT INTO {name} VALUES {values}")


class _Table(NamedTuple):
    name: str
    key: Sequence[str]
    """Columns of the primary key, with their types."""
    types: Sequence[str]
    columns: Sequence[str]


def _tables(connection: sqlite3.Connection) -> list[_Table]:
    """Return the tables of the state, each before those that refer to it."""
    names = connection.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table' ORDER BY rowid").fetchall()
    tables = []
    for (name,) in names:
        columns = connection.execute(f"SELECT name, type, pk FROM pragma_table_info('{name}')").fetchall()
        key = sorted((place, column, kind) for column, kind, place in columns if place)
        tables.append(
            _Table(
                name,
                [f'"{column}"' for _, column, _ in key],
                [kind for _, _, kind in key],
                [f'"{column}"' for column, _, _ in columns],
            )
        )
    return tables


def _noted(table: str) -> str:
    return f"changed_{table}"


def _noting(table: _Table) -> Iterator[str]:
    """Yield the statements that make the notes about a table; keys are noted as often as they change."""
    noted, name = _noted(table.name), table.name
    # with the types of the columns: else SQLite could not look the keys up in the table's index
    columns = ", ".join(f"{column} {kind}" for column, kind in zip(table.key, table.types, strict=True))
    yield f"CREATE TEMP TABLE {noted} ({columns})"
    old, new = (", ".join(f"{row}.{column}" for column in table.key) for row in ("OLD", "NEW"))
    key = ", ".join(table.key)
    events = (("INSERT", new), ("DELETE", old), ("UPDATE", new), (f"UPDATE OF {key}", old))  # a key may change
    for number, (event, values) in enumerate(events):
        yield (
            f"CREATE TEMP TRIGGER {noted}_{number} AFTER {event} ON main.{name} "
            f"BEGIN INSERT INTO {noted} VALUES ({values}); END"
        )


def _literals(columns: Sequence[str], of: str) -> str:
    return " || ', ' || ".join(f"quote({of}.{column})" for column in columns)


def _changed(table: _Table) -> str:
    """Return the statement that reads the changed rows of a table."""
    key = ", ".join(table.key)
    same = " AND ".join(f"now.{column} = noted.{column}" for column in table.key)
    values = _literals(table.columns, "now")  # NULL where there is no such row any more
    return (
        f"SELECT '{table.name}', {_literals(table.key, 'noted')}, "
        f"CASE WHEN now.{table.key[0]} IS NOT NULL THEN {values} END "
        f"FROM (SELECT DISTINCT {key} FROM temp.{_noted(table.name)}) AS noted "
        f"LEFT JOIN main.{table.name} AS now ON {same}"
    )
