"""Edge. SQLAlchemy: which ids a window holds, as numbers; which of its rows another session has not committed yet.

Strategy: at READ UNCOMMITTED, MySQL and MariaDB show rows before they are committed, without any privilege and on the
primary only. What such a read has and a later committed one lacks is in flight. The order matters: the other way
round a row committed in between would be missed. So does the index: through a secondary one, rows that wait for a
unique key are not seen.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from shipper.model import Checksum, Query, Window
from shipper.source.dialect import IdSum, IdXor
from shipper.source.statement import STATEMENTS, bounds, table_of, within

_DIRTY = "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"  # of the next statement only
_LEADS = """
    SELECT COUNT(*) FROM information_schema.statistics
    WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name = :table AND index_name = 'PRIMARY'
        AND seq_in_index = 1 AND column_name = :id"""


def leads_primary_key(connection: sa.Connection, query: Query) -> bool:
    """Is the id the first column of the table's primary key, so that a dirty read can be one of a range?"""
    schema, _, table = query.table.rpartition(".")
    asked = {"schema": schema or None, "table": table, "id": query.id}
    return bool(connection.execute(sa.text(_LEADS), asked).scalar_one())


def checksum(connection: sa.Connection, query: Query, window: Window) -> Checksum:
    """Add up a window's ids, as they are committed."""
    return _checksum(connection.execute(_added_up(query.ids_only), bounds(query, window)).one())


def count(connection: sa.Connection, query: Query, window: Window) -> int:
    """Count the rows of a window, whatever the conditions."""
    found: int = connection.execute(_counted(query.ids_only), bounds(query, window)).scalar_one()
    return found


def first_id(connection: sa.Connection, query: Query, window: Window) -> int | None:
    """Return the smallest id of a window, None when it has none."""
    found: int | None = connection.execute(_first(query.ids_only), bounds(query, window)).scalar_one()
    return found


def guarded(connection: sa.Connection, query: Query, window: Window) -> tuple[Checksum, tuple[int, ...]]:
    """Add up a window's ids, and find those of rows in flight; there are none to be seen on a replica."""
    # by itself: beside a table MariaDB 10.11 gives 0 whatever it is
    is_replica = connection.exec_driver_sql("SELECT @@read_only").scalar_one()
    added_up, ids, values = _added_up(query.ids_only, forced=True), _ids(query.ids_only), bounds(query, window)
    connection.exec_driver_sql(_DIRTY)
    seen = connection.execute(added_up, values).one()
    committed = connection.execute(added_up, values).one()
    if is_replica or seen == committed:
        return _checksum(committed), ()
    connection.exec_driver_sql(_DIRTY)
    dirty = set(connection.execute(ids, values).scalars())
    in_flight = dirty - set(connection.execute(ids, values).scalars())
    return _checksum(committed), tuple(sorted(in_flight))


def _checksum(sums: Sequence[Any]) -> Checksum:
    rows, id_sum, id_xor = sums
    return Checksum(rows, int(id_sum or 0), int(id_xor or 0))


@lru_cache(STATEMENTS)
def _added_up(query: Query, *, forced: bool = False) -> sa.Select[Any]:
    table = table_of(query)
    identity = table.c[query.id]
    columns: list[sa.ColumnElement[Any]] = [sa.func.count(), IdSum(identity), IdXor(identity)]
    statement = sa.select(*columns).select_from(table).where(*within(identity))
    return _forced(statement) if forced else statement


@lru_cache(STATEMENTS)
def _counted(query: Query) -> sa.Select[Any]:
    table = table_of(query)
    return sa.select(sa.func.count()).select_from(table).where(*within(table.c[query.id]))


@lru_cache(STATEMENTS)
def _first(query: Query) -> sa.Select[Any]:
    identity = table_of(query).c[query.id]
    return sa.select(sa.func.min(identity)).where(*within(identity))


@lru_cache(STATEMENTS)
def _ids(query: Query) -> sa.Select[Any]:
    identity = table_of(query).c[query.id]
    return _forced(sa.select(identity).where(*within(identity)))


def _forced(statement: sa.Select[Any]) -> sa.Select[Any]:
    return statement.with_hint(statement.get_final_froms()[0], "FORCE INDEX (PRIMARY)")
