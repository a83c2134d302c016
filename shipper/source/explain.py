"""Edge. SQLAlchemy: does a statement of one's own read a range of ids, or the whole table for each window?"""

import json
import re
from collections.abc import Callable

import sqlalchemy as sa

from shipper.model import Query, Window


def reads_range(connection: sa.Connection, query: Query, window: Window) -> bool:
    """Ask the database how it would run the statement."""
    return _ASKS.get(connection.dialect.name, _mysql)(connection, query, window)


def _mysql(connection: sa.Connection, query: Query, window: Window) -> bool:
    plan = _explained(connection, "EXPLAIN", query, window).mappings().all()
    return any(row["type"] == "range" for row in plan)


def _postgresql(connection: sa.Connection, query: Query, window: Window) -> bool:
    # a small table is read whole whatever there is to choose from
    connection.execute(sa.text("SET enable_seqscan = off"))
    try:
        plan = _explained(connection, "EXPLAIN (FORMAT JSON)", query, window).scalar_one()
    finally:
        connection.execute(sa.text("RESET enable_seqscan"))
    return bool(re.search(rf'"Index Cond": "[^"]*\b{query.id}\b\W* > ', json.dumps(plan)))


def _sqlite(connection: sa.Connection, query: Query, window: Window) -> bool:
    plan = _explained(connection, "EXPLAIN QUERY PLAN", query, window).mappings().all()
    return any(re.search(rf"SEARCH .*\((?:rowid|{query.id})>", row["detail"]) for row in plan)


def _explained(
    connection: sa.Connection, explain: str, query: Query, window: Window
) -> sa.CursorResult[tuple[object, ...]]:
    statement = sa.text(f"{explain} {query.sql}").bindparams(after=window.after, upto=window.upto)
    return connection.execute(statement)


_ASKS: dict[str, Callable[[sa.Connection, Query, Window], bool]] = {"postgresql": _postgresql, "sqlite": _sqlite}
