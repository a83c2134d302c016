"""SQLAlchemy: how a database would run a query on a window: over a range of ids, or over the whole table?"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import replacement_traverse

from shipper.core.model import ALWAYS, Query, Span, Window
from shipper.source.statement import bounds, counted


class Plan(NamedTuple):
    """How a statement would be run."""

    text: str
    rows: int | None
    """About how many it would look at, where the database tells."""
    is_range: bool
    """Does it read a range of ids?"""
    is_scan: bool
    """Does it read a whole table, or a whole index?"""

    def __str__(self) -> str:
        return self.text if self.rows is None else f"{self.text}, about {self.rows} rows"


class _Explain(sa.Executable, sa.ClauseElement):
    """A statement behind the words that have it explained."""

    inherit_cache = False

    def __init__(self, words: str, statement: sa.Select[Any] | sa.TextClause) -> None:
        self.words, self.statement = words, statement


@compiles(_Explain)
def _explain(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:
    return f"{element.words} {compiler.process(element.statement, **options)}"


def planned(connection: sa.Connection, query: Query, window: Window) -> Plan:
    """Ask the database how it would count a window."""
    return _ASKS.get(connection.dialect.name, _mysql)(connection, query, window)


def written(dialect: Any, query: Query, window: Window, span: Span) -> str:
    """Write the statement that counts a window with its values in it, for people."""
    values = bounds(query, window, span)

    def typed(element: Any, **_: Any) -> Any:
        if not isinstance(element, sa.BindParameter):
            return None
        value = values.get(element.key, element.value)
        return sa.bindparam(None, value, type_=_TYPES[type(value)])

    statement: Any = replacement_traverse(counted(query, is_within=span != ALWAYS), {}, typed)
    # without its own style of parameters no % is doubled
    plain = type(dialect)(paramstyle="named")
    return str(statement.compile(dialect=plain, compile_kwargs={"literal_binds": True})).replace(" \n", "\n")


def _mysql(connection: sa.Connection, query: Query, window: Window) -> Plan:
    steps = _explained(connection, "EXPLAIN", query, window).mappings().all()
    ranges = [step for step in steps if step["type"] == "range"]
    step = (ranges or steps)[0]
    text = f"{step['type']} on {step['key']}" if step["key"] else str(step["type"] or step["Extra"])
    rows = None if step["rows"] is None else int(step["rows"])  # a text, of views
    return Plan(text, rows, bool(ranges), is_scan=not ranges and step["type"] in {"ALL", "index"})


def _postgresql(connection: sa.Connection, query: Query, window: Window) -> Plan:
    # a small table is read whole whatever there is to choose from
    connection.execute(sa.text("SET enable_seqscan = off"))
    try:
        (plan,) = _explained(connection, "EXPLAIN (FORMAT JSON)", query, window).scalar_one()
    finally:
        connection.execute(sa.text("RESET enable_seqscan"))
    node = plan["Plan"]
    while "Plans" in node:
        node = node["Plans"][0]
    text = f"{node['Node Type']} on {node.get('Index Name') or node.get('Relation Name')}"
    is_range = bool(re.search(rf'"Index Cond": "[^"]*\b{query.id}\b\W* > ', json.dumps(plan)))
    return Plan(text, node["Plan Rows"], is_range, is_scan=not is_range and node["Node Type"] == "Seq Scan")


def _sqlite(connection: sa.Connection, query: Query, window: Window) -> Plan:
    steps = [step["detail"] for step in _explained(connection, "EXPLAIN QUERY PLAN", query, window).mappings()]
    ranges = [step for step in steps if re.search(rf"SEARCH .*\((?:rowid|{query.id})>", step)]
    step = (ranges or steps)[0]
    return Plan(step, None, bool(ranges), is_scan=not ranges and step.startswith("SCAN"))


def _explained(connection: sa.Connection, words: str, query: Query, window: Window) -> sa.CursorResult[Any]:
    explained = _Explain(words, counted(query, is_within=False))
    return connection.execute(explained, bounds(query, window))


_TYPES: dict[type, sa.types.TypeEngine[Any]] = {
    str: sa.String(),
    bool: sa.Boolean(),
    int: sa.BigInteger(),
    float: sa.Float(),
}
_ASKS: dict[str, Callable[[sa.Connection, Query, Window], Plan]] = {"postgresql": _postgresql, "sqlite": _sqlite}
