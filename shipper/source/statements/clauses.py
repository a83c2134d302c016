"""Clauses of statements on ranges of ids: columns, times, windows, spans, and their parameters.

Each column is named with its table: SQLite would take a bare name that is no column for a string.
"""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from shipper.core.model import ALWAYS, Ids, Query, Span, TimeForm, Window
from shipper.source.dialects.expressions import Moment, table_named
from shipper.source.dialects.stored_times import Epoch, EpochOfNumber, EpochOfText

QUARTER_SECONDS = 900
"""All present zones differ from UTC by a multiple of it."""
MINUTE_SECONDS = 60
DAY_SECONDS = 86_400
"""No zone differs from UTC by more."""
STATEMENTS = 1000
"""Statements of each kind that are kept."""
UTC_MARK = QUARTER_SECONDS * 2**40
"""Added to a time that `time_zone` must not move: beyond all times, and a multiple of all units of grouping."""
FORMS = {TimeForm.TIME: Epoch, TimeForm.NUMBER: EpochOfNumber, TimeForm.TEXT: EpochOfText}
UNITS = {None: 0, "s": 1, "ms": 1000, "us": 1_000_000}
"""Units of a number in a second; None where a number is no epoch. stored_times.py has six decimals on PostgreSQL."""
LAST_SECOND = 253_402_300_799
"""9999-12-31 23:59:59."""
AFTER, UPTO, SINCE, BEFORE, SKIPPED, ROWS = (
    sa.bindparam(name, type_=sa.BigInteger()) for name in ("after", "upto", "since", "before", "skipped", "rows")
)
IDS, ASIDE = (sa.bindparam(name, expanding=True, type_=sa.BigInteger()) for name in ("ids", "aside"))


def bounds(query: Query, rows: Window | Ids, span: Span = ALWAYS) -> dict[str, Any]:
    """Return the parameters of a statement on a window or on listed ids, and on a span of time unless it is ALWAYS."""
    ids: dict[str, Any] = {"ids": rows}
    if isinstance(rows, Window):
        ids = {"after": rows.after, "upto": rows.upto}
        if query.is_along:
            ids = {name: beginning_of(query, second + 1) for name, second in ids.items()}
    if span == ALWAYS:
        return ids
    # with a zone the statement is exact to the day only; `rows_of` is exact
    margin = 0 if query.time_zone == "UTC" else DAY_SECONDS + query.bucket
    # a span need not begin or end with a bucket: a slot may be shorter than the bucket that begins in it
    start, end = (-(-edge // query.bucket) * query.bucket for edge in (span.start, span.end))
    return ids | {"since": start - margin, "before": end + margin}


def beginning_of(query: Query, second: int) -> datetime | int:
    """Return the first value of a query's time column that is in a second, or in a later one."""
    second = min(second, LAST_SECOND)
    if query.time_unit is not None:
        return second * UNITS[query.time_unit]
    return datetime(1970, 1, 1) + timedelta(seconds=second)  # noqa: DTZ001 - as the column has it


def edges(query: Query) -> tuple[sa.BindParameter[Any], sa.BindParameter[Any]]:
    """Return the first value of a window along a time, and the first one behind it."""
    type_ = Moment() if query.time_unit is None else sa.BigInteger()
    return sa.bindparam("after", type_=type_), sa.bindparam("upto", type_=type_)


def table_of(query: Query) -> sa.TableClause:
    """Return the table with all columns that a query uses."""
    return table_named(query.table, columns_of(query) | {query.id, *query.by})


def columns_of(query: Query) -> set[str]:
    """Return the columns of its table that a query names; of custom `sql` only the id is known."""
    if query.sql is not None:
        return {query.id}
    names = {query.id, *(set(query.by) - dict(query.by_sql).keys()), *(condition.column for condition in query.where)}
    names |= {query.time} if query.time and query.time_sql is None else set()
    return names | {measure.column for measure in query.measures if measure.column}


def time_of(query: Query, table: sa.TableClause) -> sa.ColumnElement[Any]:
    """Return a query's time as the database stores it."""
    if query.time_sql is not None:
        return sa.literal_column(f"({query.time_sql})")
    return table.c[query.time or query.id]


def epoch_of(query: Query, table: sa.TableClause, *, is_marked: bool = False) -> sa.ColumnElement[int]:
    """Return a query's time as epoch seconds; is_marked: with UTC_MARK where `time_zone` must not move it."""
    mark = UTC_MARK if is_marked and query.time_zone != "UTC" else 0
    return FORMS[query.time_form](time_of(query, table), literal(UNITS[query.time_unit]), literal(mark))


def number_in(query: Query, table: sa.TableClause) -> sa.ColumnElement[int]:
    """Return the number that windows are made of: the id; along a time the second, as the column has it."""
    return epoch_of(query, table) if query.is_along else table.c[query.id]


def in_window(query: Query, identity: sa.ColumnElement[Any]) -> tuple[sa.ColumnElement[bool], ...]:
    """Choose the rows of a window."""
    if query.is_along:
        first, end = edges(query)
        return identity >= first, identity < end
    return identity > AFTER, identity <= UPTO


def in_span(epoch: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Choose the rows with a time in a span."""
    return sa.and_(epoch >= SINCE, epoch < BEFORE)


def chosen(query: Query, identity: sa.ColumnElement[int], *, are_listed: bool) -> tuple[sa.ColumnElement[bool], ...]:
    """Choose the rows of a window; with are_listed, of listed ids."""
    return (identity.in_(IDS),) if are_listed else in_window(query, identity)


def bucket_of(query: Query, table: sa.TableClause) -> sa.ColumnElement[Any]:
    """Return the unit of time that a row is grouped by, as its beginning; NULL without a time."""
    # in other zones, buckets of UTC consist of these units
    grain = query.bucket if query.time_zone == "UTC" else math.gcd(query.bucket, QUARTER_SECONDS)
    return floor(epoch_of(query, table, is_marked=True), grain) if query.time else sa.null()


def floor(epoch: sa.ColumnElement[int], length: int) -> sa.ColumnElement[int]:
    """Round down to a bucket, also before 1970, where % is negative."""
    size = literal(length)
    return epoch - ((epoch % size) + size) % size


def literal(value: int) -> sa.ColumnElement[int]:
    """Write a number into the text of a statement."""
    return sa.literal_column(str(value))


def places(first: int, last: int) -> Iterator[sa.TextClause]:
    """Yield the places of selected columns for GROUP BY, where a name would be a column of the table first."""
    yield from (sa.text(str(place)) for place in range(first, last + 1))


def bound_id(name: str, number: int) -> sa.BindParameter[int]:
    """Return the parameter for one of several ids."""
    return sa.bindparam(f"{name}_{number}", type_=sa.BigInteger())
