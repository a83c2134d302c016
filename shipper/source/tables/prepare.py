"""Preparation of a query: checks before its first window, and facts that only the database knows."""

import re
from contextlib import suppress
from dataclasses import replace

from shipper.core.errors import QueryRefused, RowRefused, SourceUnavailable, printable
from shipper.core.measures import Kind, Measure
from shipper.core.model import Query, TimeForm, Window
from shipper.source.access import Access, Denied, LoginRefused
from shipper.source.connections.connection import Connections
from shipper.source.dialects.dialect import WAIT
from shipper.source.result import labels_of
from shipper.source.statements.clauses import bounds
from shipper.source.statements.counts import columns, counted, labels, measured
from shipper.source.statements.ids import newest_value
from shipper.source.tables.catalog import described, nontransactional_table, planned
from shipper.source.tables.grants import transactional, without_id
from shipper.source.tables.times import check_values, timed

_ORDERED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d([.,]\d*)? ?(?P<zone>Z|UTC|GMT|[-+]00:?(00)?)?", re.IGNORECASE)
"""Texts that SQLite compares as times; with a zone, as times in UTC."""


def prepared(connections: Connections, access: Access, query: Query) -> Query:
    """Check that a query can run in windows, and return it with the form of its times; custom `sql` with measures.

    Raises:
        QueryRefused: it would read the entire table for each window, or lacks a column; or its times cannot be
            read; or the table has no transactions, and therefore no snapshots.
    """
    _check_engine(connections, access, query)
    if query.sql is not None:
        return _explained(connections, query)
    query = replace(query, short=_short(connections, query))
    _check_measures(connections, query)
    if query.time is None:
        return query
    query = _timed(connections, query)
    _check_values(connections, query)
    if query.is_along:
        _check_along(connections, access, query)
    return query


def check_times(connections: Connections, query: Query) -> None:
    """Check, after rows without a good time, that times can be read and have the same form as before.

    Raises:
        QueryRefused: the newest times cannot be read.
        SourceUnavailable: the column has another type now; a job must be prepared again.
    """
    if _timed(connections, query).time_form is not query.time_form:
        raise SourceUnavailable(f"read {query.table}: the type of {query.time} has changed", hint=WAIT)
    _check_values(connections, query)


def _check_values(connections: Connections, query: Query) -> None:
    # single rows that make time_sql fail are set aside by those who read them
    with suppress(RowRefused), connections.connected(f"read {query.time} of {query.table}") as connection:
        check_values(connection, query)


def _timed(connections: Connections, query: Query) -> Query:
    """Return a query with the form of its times."""
    try:
        with connections.connected(f"read {query.time} of {query.table}") as connection:
            return timed(connection, query)
    except (QueryRefused, SourceUnavailable) as error:
        # an error that has no meaning yet is one of the expression, too
        is_unknown = isinstance(error, SourceUnavailable) and error.hint is None
        is_refused = (
            isinstance(error, QueryRefused)
            and not isinstance(error, Denied | LoginRefused)
            and error.__cause__ is not None
        )
        if query.time_sql is None or not (is_unknown or is_refused):
            raise
        hint = f"Correct `time_sql`: an SQL expression over columns of {query.table}."
        raise QueryRefused(str(error), hint=hint) from error


def _explained(connections: Connections, query: Query) -> Query:
    """Return custom sql with its measures."""
    # run custom sql on a window without rows
    window = Window(0, 1)
    with connections.connected("explain sql") as connection:
        is_range = planned(connection, query, window).is_range
        names = list(connection.execute(counted(query, is_within=False), bounds(query, window)).keys())
    if not is_range:
        raise QueryRefused(
            f"explain sql: it reads the entire table for each window, not a range of {query.id}",
            hint=f"In WHERE, compare the column itself, without a function or cast: `WHERE {query.id} > :after AND "
            f"{query.id} <= :upto`; the column also needs an index.",
        )
    measures = tuple(Measure(name, Kind.SUM, name) for name in labels_of(query, names))
    return replace(query, measures=measures)


def _check_measures(connections: Connections, query: Query) -> None:
    """Check that the values of measured columns can be added up."""
    names = measured(query)
    if not names or not connections.dialect.NOT_SUMMED:
        return
    with connections.connected(f"look at the measures of {query.table}") as connection:
        description = connection.execute(columns(query, names)).cursor.description
    for name, column in zip(names, description, strict=True):
        if column[1] in connections.dialect.NOT_SUMMED:
            raise QueryRefused(
                f"read {query.table}: {name} contains times, which are no measures",
                hint=f"Measure a column of numbers, as TIME_TO_SEC({name}) in a view.",
            )


def _short(connections: Connections, query: Query) -> frozenset[str]:
    """Return the columns and expressions whose type allows no long values: these labels need no cut."""
    names, statement = labels(query)
    if not names:
        return frozenset()
    try:
        with connections.connected(f"look at the labels of {query.table}") as connection:
            description = connection.execute(statement).cursor.description
    except LoginRefused:
        raise
    except QueryRefused:
        return frozenset()  # the statements that count report the error
    is_short = connections.dialect.is_short
    return frozenset(name for name, column in zip(names, description, strict=True) if is_short(column))


def _check_engine(connections: Connections, access: Access, query: Query) -> None:
    if connections.dialect.CATALOG.engine is None:
        return
    with connections.connected(f"look at the engine of {query.table}") as connection:
        found = nontransactional_table(connection, query.table)
    if found is not None:
        whose = "its engine" if found.path == query.table else f"the engine of {found.path}"
        raise QueryRefused(
            f"look at {query.table}: {whose}, {found.engine}, has no transactions, and therefore no snapshots",
            hint=f"Give it an engine with transactions: {transactional(access, found.path)}",
        )


def _check_along(connections: Connections, access: Access, query: Query) -> None:
    """Check that the values of a time column have the order of times."""
    with connections.connected(f"look at {query.time} of {query.table}") as connection:
        table = described(connection, query.table)
        column = table.columns.get(query.id)
        has_types, value = connections.has_types, None
        if query.time_form is TimeForm.TEXT or not has_types:  # a time may be too large for Python, as infinity
            value = connection.execute(newest_value(query)).scalar_one()
    is_text, has_unit = isinstance(value, str | bytes), query.time_unit is not None
    if has_types or value is None:
        is_ordered = query.time_form is TimeForm.TIME or (query.time_form is TimeForm.NUMBER and has_unit)
    else:
        text = _ORDERED.fullmatch(str(value))
        is_plain = text is not None and (query.time_zone == "UTC" or text["zone"] is None)
        is_ordered = has_unit != is_text and (has_unit or is_plain)
    if not is_ordered:
        type_ = "" if is_text or column is None else column.type
        example = f", such as {printable(str(value))}," if is_text else ""
        raise QueryRefused(
            f"read {query.table} by {query.time}: its values{example} do not sort by time",
            hint=without_id(access, query.table, query.id, type_, is_view=table.is_view),
        )
