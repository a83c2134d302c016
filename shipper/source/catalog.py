"""SQLAlchemy: what a database's catalog tells of a table; of MySQL only what its user is granted.

SQLAlchemy's own inspection needs SHOW CREATE TABLE there, which grants on columns do not allow.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa


class Column(NamedTuple):
    """A column's type, as the database calls it."""

    type: str
    is_integer: bool
    is_moment: bool
    """Does it hold points in time, which need no `time_zone`?"""


class Table(NamedTuple):
    """What the catalog tells of a table, or of a view."""

    columns: Mapping[str, Column]
    leading: Mapping[str, str]
    """The first column of each index, by the index's name."""
    is_view: bool
    engine: str | None
    """The name of its engine, if that has no transactions."""
    gives_again: str | None
    """The column whose largest values are given a second time once their rows are deleted."""


class _Catalog(NamedTuple):
    columns: str
    leading: str
    kind: str
    engine: str | None
    gives_again: str | None
    unique: str


_IN_MYSQL = "WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name = :table"
_CATALOGS = {
    "mysql": _Catalog(
        f"SELECT column_name, data_type FROM information_schema.columns {_IN_MYSQL}",
        f"SELECT index_name, column_name FROM information_schema.statistics {_IN_MYSQL} AND seq_in_index = 1",
        f"SELECT table_type FROM information_schema.tables {_IN_MYSQL}",
        f"""SELECT engine FROM information_schema.tables {_IN_MYSQL} AND engine IN (
            SELECT engine FROM information_schema.engines WHERE transactions <> 'YES')""",
        None,
        f"""SELECT MAX(column_name) FROM information_schema.statistics {_IN_MYSQL} AND non_unique = 0
            GROUP BY index_name HAVING COUNT(*) = 1""",
    ),
    "postgresql": _Catalog(
        """SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
            WHERE attrelid = to_regclass(:path) AND attnum > 0 AND NOT attisdropped""",
        """SELECT relname, attname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
            JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] WHERE indrelid = to_regclass(:path)""",
        "SELECT CASE relkind WHEN 'v' THEN 'VIEW' END FROM pg_class WHERE oid = to_regclass(:path)",
        None,
        None,
        """SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
            WHERE indrelid = to_regclass(:path) AND indisunique AND indisvalid AND indnkeyatts = 1
                AND indpred IS NULL AND indexprs IS NULL AND NOT EXISTS (SELECT 1 FROM pg_inherits
                    JOIN pg_class ON pg_class.oid = inhparent WHERE inhparent = indrelid AND relkind = 'r')""",
    ),
    "sqlite": _Catalog(
        "SELECT name, type FROM pragma_table_info(:table)",
        """SELECT 'PRIMARY KEY', name FROM pragma_table_info(:table) WHERE pk = 1 UNION ALL
            SELECT listed.name, leading.name FROM pragma_index_list(:table) AS listed, pragma_index_info(listed.name)
            AS leading WHERE leading.seqno = 0""",
        "SELECT UPPER(type) FROM sqlite_schema WHERE name = :table",
        None,
        # sqlite.org/autoinc.html: without that keyword the ids of the last rows are given again once these are deleted
        """SELECT MAX(name) FROM pragma_table_info(:table) WHERE pk > 0 AND NOT EXISTS (
                SELECT 1 FROM sqlite_schema WHERE name = :table AND sql LIKE '%AUTOINCREMENT%')
            HAVING COUNT(*) = 1 AND UPPER(MAX(type)) = 'INTEGER'""",
        """SELECT MAX(name) FROM pragma_table_info(:table) WHERE pk > 0 HAVING COUNT(*) = 1 UNION ALL
            SELECT MAX(indexed.name) FROM pragma_index_list(:table) AS listed, pragma_index_info(listed.name) AS indexed
            WHERE listed."unique" AND NOT listed.partial GROUP BY listed.name HAVING COUNT(*) = 1""",
    ),
}
_MOMENTS = {("mysql", "timestamp"), ("postgresql", "timestamp with time zone")}


def described(connection: sa.Connection, path: str) -> Table:
    """Look a table up, or `schema.table`; one that is not there has no columns."""
    names, dialect = _names(path), connection.dialect.name
    catalog = _CATALOGS.get(dialect, _CATALOGS["mysql"])
    columns, leading, kind, engine, gives_again = (_rows(connection, statement, names) for statement in catalog[:5])
    return Table(
        {name: _column(str(type_), dialect) for name, type_ in columns},
        dict(map(tuple, leading)),
        any("VIEW" in str(row[0]) for row in kind),
        engine[0][0] if engine else None,
        gives_again[0][0] if gives_again else None,
    )


def is_unique(connection: sa.Connection, path: str, column: str) -> bool:
    """Say whether an index of its own proves that no two rows of a table have the same value of a column."""
    catalog = _CATALOGS.get(connection.dialect.name, _CATALOGS["mysql"])
    found = _rows(connection, catalog.unique, _names(path))
    return column.lower() in {str(row[0]).lower() for row in found}


def plain_engine(connection: sa.Connection, path: str) -> str | None:
    """Return the name of a table's engine, if that has no transactions."""
    found = _rows(connection, _CATALOGS.get(connection.dialect.name, _CATALOGS["mysql"]).engine, _names(path))
    return found[0][0] if found else None


def _names(path: str) -> dict[str, Any]:
    schema, _, table = path.rpartition(".")
    quoted = ".".join(f'"{part}"' for part in (schema, table) if part)
    return {"schema": schema or None, "table": table, "path": quoted}


def _rows(connection: sa.Connection, statement: str | None, names: Mapping[str, str | None]) -> list[Any]:
    if statement is None:
        return []
    asked = sa.text(statement)
    return list(connection.execute(asked, {name: names[name] for name in asked.compile().params}))


def _column(type_: str, dialect: str) -> Column:
    # a type says nothing about what SQLite holds
    is_integer = dialect == "sqlite" or (type_.endswith(("int", "integer")) and not type_.endswith("point"))
    is_mysql = dialect in {"mysql", "mariadb"}
    return Column(type_, is_integer, ("mysql" if is_mysql else dialect, type_) in _MOMENTS)
