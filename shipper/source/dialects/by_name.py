"""The databases by name."""

from functools import cache

from shipper.source.dialects.dialect import Dialect

# ruff: noqa: PLC0415 - drivers are slow to import, and need memory: only those of the configured sources


@cache
def dialect_named(name: str) -> Dialect:
    """Return the dialect of a database, by SQLAlchemy's name.

    Raises:
        KeyError: no such database.
    """
    if name in {"mysql", "mariadb"}:
        from shipper.source.dialects import mysql

        return mysql
    if name == "postgresql":
        from shipper.source.dialects import postgresql

        return postgresql
    if name == "sqlite":
        from shipper.source.dialects import sqlite

        return sqlite
    raise KeyError(name)
