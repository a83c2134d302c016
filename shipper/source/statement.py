"""SQLAlchemy: a job's query as statements on a range of ids, and what their rows mean.

The columns of a table are named with it: to SQLite a bare name that is no column would be a string.
A statement is made once for a query: to build it anew takes as long as to run it. What differs from window to window
are its parameters, which `bounds` gives.
"""

import decimal
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from shipper.core.errors import QueryRefused
from shipper.core.model import ALWAYS, Condition, Group, Ids, Query, Row, Scalar, Span, Window
from shipper.source.dialects.expressions import BitsOfIds, Epoch, ServerTime, Text, Unfit, WordOfId
from shipper.source.measure import aggregates, measured, number, numbers, values_of

QUARTER_SECONDS = 900  # all zones of today differ from UTC by a multiple of it
DAY_SECONDS = 86_400  # no zone differs by more
STATEMENTS = 1000  # are kept of each kind

_OPERATORS: dict[str, Callable[[sa.ColumnElement[Any], list[sa.BindParameter[Any]]], sa.ColumnElement[bool]]] = {
    "in": lambda column, values: column == values[0] if len(values) == 1 else column.in_(values),
    "not": lambda column, values: column != values[0] if len(values) == 1 else column.not_in(values),
    "like": lambda column, values: column.like(values[0]),
    "ge": lambda column, values: column >= values[0],
    "gt": lambda column, values: column > values[0],
    "le": lambda column, values: column <= values[0],
    "lt": lambda column, values: column < values[0],
}


_AFTER, _UPTO, _SINCE, _BEFORE, _SKIPPED = (
    sa.bindparam(name, type_=sa.BigInteger()) for name in ("after", "upto", "since", "before", "skipped")
)
_IDS = sa.bindparam("ids", expanding=True, type_=sa.BigInteger())


def bounds(query: Query, rows: Window | Ids, span: Span = ALWAYS) -> dict[str, Any]:
    """Return the parameters of a statement on a window or on some ids, and on a span of time where it has one."""
    ids = {"after": rows.after, "upto": rows.upto} if isinstance(rows, Window) else {"ids": rows}
    if span == ALWAYS:
        return ids
    # with a zone it is decided to the day; `rows_of` knows better
    margin = 0 if query.time_zone == "UTC" else DAY_SECONDS + query.bucket
    # a span need not begin or end with a bucket: a slot may be shorter than the bucket that begins in it
    start, end = (-(-edge // query.bucket) * query.bucket for edge in (span.start, span.end))
    return ids | {"since": start - margin, "before": end + margin}


def table_of(query: Query) -> sa.TableClause:
    """Name the table and all columns that a query uses."""
    return table_named(query.table, columns_of(query) | {query.id, *query.by, query.time or query.id})


def table_named(path: str, names: Iterable[str]) -> sa.TableClause:
    """Name a table, or `schema.table`, and some of its columns."""
    schema, _, name = path.rpartition(".")
    columns: list[sa.ColumnClause[Any]] = [sa.column(sa.quoted_name(column, quote=True)) for column in sorted(names)]
    return sa.table(sa.quoted_name(name, quote=True), *columns, schema=schema or None)


def columns_of(query: Query) -> set[str]:
    """Return the columns of its table that a query names; of a statement of one's own only the id is known."""
    if query.sql is not None:
        return {query.id}
    names = {query.id, *query.by, *(condition.column for condition in query.where)}
    names |= {query.time} if query.time else set()
    return names | {measure.column for measure in query.measures if measure.column}


@lru_cache(STATEMENTS)
def counted(query: Query, *, is_within: bool, are_listed: bool = False) -> sa.Select[Any] | sa.TextClause:
    """Select the bucket, the group columns, the rows and the measures of a window, perhaps within a span only.

    Are the ids listed, they take the place of the window.
    """
    if query.sql is not None:
        return sa.text(query.sql)
    table = table_of(query)
    epoch = Epoch(table.c[query.time]) if query.time else None
    bucket: sa.ColumnElement[Any] = sa.null() if epoch is None else _floor(epoch, _grain(query))
    columns: list[sa.ColumnElement[Any]] = [bucket, *(Text(table.c[name]) for name in query.by)]
    # labels that no table has: GROUP BY would take the table's column for the label
    labelled = [column.label(f"shipper_{n}") for n, column in enumerate(columns)]
    statement: sa.Select[Any] = sa.select(*labelled, sa.func.count(), *aggregates(query, table)).select_from(table)
    statement = statement.where(*_conditions(query, table, is_within=is_within, are_listed=are_listed))
    keys = labelled if query.time else labelled[1:]
    if not keys:  # one row also when nothing matches: leave it out
        return statement.having(sa.func.count() > 0)
    return statement.group_by(*(sa.text(key.name) for key in keys))


@lru_cache(STATEMENTS)
def present(query: Query, *, are_listed: bool) -> sa.Select[Any]:
    """Select which ids are there, as words; by time, in the grain of its buckets, where it is asked for.

    Each row has the time, the word's number, its bits, and how many rows they are.
    """
    table = table_of(query)
    identity = table.c[query.id]
    epoch: sa.ColumnElement[Any] = _floor(Epoch(table.c[query.time]), _grain(query)) if query.time else sa.null()
    bucket, word = epoch.label("shipper_bucket"), WordOfId(identity).label("shipper_word")
    chosen = (identity.in_(_IDS),) if are_listed else within(identity)
    statement = sa.select(bucket, word, BitsOfIds(identity), sa.func.count()).select_from(table).where(*chosen)
    return statement.group_by(*(sa.text(key.name) for key in ([bucket, word] if query.time else [word])))


@lru_cache(STATEMENTS)
def smallest(query: Query) -> sa.Select[tuple[Any]]:
    """Select the smallest id of a row with a bucket in a span."""
    table = table_of(query)
    identity = table.c[query.id]
    return sa.select(sa.func.min(identity)).where(*within(identity), _within(Epoch(table.c[query.time or query.id])))


@lru_cache(STATEMENTS)
def listed(query: Query) -> sa.Select[Any]:
    """Select the ids of a window."""
    identity = table_of(query.ids_only).c[query.id]
    return sa.select(identity).where(*within(identity))


@lru_cache(STATEMENTS)
def number_of(query: Query) -> sa.Select[Any]:
    """Count the rows of a window, whatever the conditions."""
    table = table_of(query.ids_only)
    return sa.select(sa.func.count()).select_from(table).where(*within(table.c[query.id]))


@lru_cache(STATEMENTS)
def first(query: Query) -> sa.Select[Any]:
    """Select the smallest id of a window."""
    identity = table_of(query.ids_only).c[query.id]
    return sa.select(sa.func.min(identity)).where(*within(identity))


@lru_cache(STATEMENTS)
def following(query: Query, *, is_backward: bool = False) -> sa.Select[Any]:
    """Select the id that stands behind so many skipped ones of a window; backward from its end."""
    identity = table_of(query.ids_only).c[query.id]
    order = identity.desc() if is_backward else identity
    return sa.select(identity).where(*within(identity)).order_by(order).limit(1).offset(_SKIPPED)


@lru_cache(STATEMENTS)
def uncountable(query: Query) -> sa.Select[Any]:
    """Count the rows whose id is none."""
    table = table_of(query.ids_only)
    identity = table.c[query.id]
    return sa.select(sa.func.count()).select_from(table).where(sa.or_(identity < 1, identity.is_(None)))


def twice(query: Query, rows: int) -> sa.Select[Any]:
    """Select the smallest id that two of so many newest rows have."""
    identity = table_of(query.ids_only).c[query.id]
    newest_ids = sa.select(identity).where(identity > 0).order_by(identity.desc()).limit(rows).subquery()
    one = newest_ids.c[query.id]
    return sa.select(one).group_by(one).having(sa.func.count() > 1).order_by(one).limit(1)


@lru_cache(STATEMENTS)
def extremes(query: Query) -> sa.Select[Any, Any]:
    """Select the smallest and the largest time of a window's rows."""
    table = table_of(query)
    epoch = Epoch(table.c[query.time or query.id])
    return sa.select(sa.func.min(epoch), sa.func.max(epoch)).where(*within(table.c[query.id]))


@lru_cache(STATEMENTS)
def first_unfit(query: Query, column: str, *, is_within: bool, are_listed: bool = False) -> sa.Select[Any]:
    """Select the first row whose value of a column `counted` leaves out, and the value."""
    table = table_of(query)
    conditions = [*_conditions(query, table, is_within=is_within, are_listed=are_listed), Unfit(table.c[column])]
    columns = table.c[query.id], table.c[column]
    # a column may be its own id
    labelled = [one.label(f"shipper_{n}") for n, one in enumerate(columns)]
    return sa.select(*labelled).select_from(table).where(*conditions).order_by(table.c[query.id]).limit(1)


@lru_cache(STATEMENTS)
def largest(query: Query) -> sa.Select[Any, int]:
    """Select the table's largest id, and what time it is there."""
    table = table_of(query.ids_only)
    return sa.select(sa.func.max(table.c[query.id]), ServerTime()).select_from(table)


@lru_cache(STATEMENTS)
def newest(query: Query, rows: int) -> sa.Select[Any]:
    """Select the newest rows up to an id: their ids and times."""
    asked = replace(query.ids_only, time=None if query.sql else query.time)
    table = table_of(asked)
    identity = table.c[query.id]
    epoch = Epoch(table.c[asked.time]) if asked.time else sa.null()
    return sa.select(identity, epoch).where(identity <= _UPTO).order_by(identity.desc()).limit(rows)


def within(identity: sa.ColumnElement[int]) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of a window."""
    return identity > _AFTER, identity <= _UPTO


def rows_of(query: Query, result: sa.CursorResult[Any], span: Span) -> list[Row]:
    """Read the rows of `counted`.

    Raises:
        QueryRefused: a value is not what the query says.
    """
    rows = _own_rows(query, result) if query.sql is not None else list(_rows(query, result))
    return rows if span == ALWAYS else [row for row in rows if row.bucket is None or row.bucket in span]


def utc(epoch: int, zone: str) -> int:
    """Return the epoch seconds of a time that stands in a column as if it were UTC.

    Of an hour that the clock shows twice, in autumn, it is the first.
    """
    return epoch if zone == "UTC" else epoch + _offset(epoch // QUARTER_SECONDS, zone)


def labels_of(query: Query, columns: Sequence[str]) -> list[str]:
    """Return the measures of a statement of one's own: what is neither a label nor the bucket.

    Raises:
        QueryRefused: a column that the job speaks of is missing.
    """
    for name in (*query.by, *([query.time] if query.time else [])):
        if name not in columns:
            raise QueryRefused(f"read by sql: its result has no column {name!r}", hint=f"It has: {', '.join(columns)}.")
    measures = [name for name in columns if name not in query.by and name != query.time]
    wrong = [name for name in measures if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name) or columns.count(name) > 1]
    if wrong or not measures:
        reason = f"the column {wrong[0]!r} cannot be a measure's name" if wrong else "its result has no measure"
        raise QueryRefused(f"read by sql: {reason}", hint="Name each by itself, as in `COUNT(*) AS count`.")
    return measures


def _rows(query: Query, result: sa.CursorResult[Any]) -> Iterator[Row]:
    count_at, are_counts = len(query.by) + 1, not measured(query)
    for row in result.all():
        epoch, group, count = row[0], group_of(row[1:count_at]), row[count_at]
        bucket = None if epoch is None else utc_bucket(int(epoch), query)
        if are_counts:  # as most are, and there may be many
            yield Row(bucket, group, count, (count,) * len(query.measures))
            continue
        values, refused = values_of(query, count, row[count_at + 1 :], group)
        yield Row(bucket, group, count, tuple(values), tuple(refused))


def _own_rows(query: Query, result: sa.CursorResult[Any]) -> list[Row]:
    columns = list(result.keys())
    labels_of(query, columns)
    rows = []
    for row in result.mappings():
        group = group_of([row[name] for name in query.by])
        told = number(row.get("count"), "count")
        count = told if isinstance(told, int) else 1
        values, refused = numbers([(measure.name, row[measure.name]) for measure in query.measures], 1, group)
        epoch = None if query.time is None else _epoch(row[query.time], query.time)
        bucket = None if epoch is None else utc_bucket(epoch, query)
        rows.append(Row(bucket, group, count, tuple(values), tuple(refused)))
    return rows


def group_of(values: Iterable[object]) -> Group:
    """Return group values as text, whatever bytes they are."""
    return tuple([_text(value) for value in values])


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return None if value is None else str(value)


def _epoch(value: object, column: str) -> int | None:
    """Read the event time of a statement of one's own: epoch seconds, or a time without a zone."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return math.floor((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, date):
        return math.floor(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
    if value is None or (isinstance(value, float | decimal.Decimal) and not math.isfinite(value)):
        return None
    if isinstance(value, int | float | decimal.Decimal):
        return math.floor(value)
    raise QueryRefused(
        f"read by sql: {column} is {value!r:.60}, which is not a time", hint="Select a time or an epoch."
    )


def _conditions(
    query: Query, table: sa.TableClause, *, is_within: bool, are_listed: bool
) -> list[sa.ColumnElement[bool]]:
    identity = table.c[query.id]
    conditions = [identity.in_(_IDS)] if are_listed else [*within(identity)]
    conditions += [_holds(table.c[condition.column], condition) for condition in query.where]
    if query.where_sql:  # on lines of its own: it may end in a comment
        conditions.append(sa.literal_column(f"(\n{query.where_sql}\n)"))
    if query.time and is_within:
        epoch = Epoch(table.c[query.time])
        conditions.append(sa.or_(epoch.is_(None), _within(epoch)))
    return conditions


def _holds(column: sa.ColumnElement[Any], condition: Condition) -> sa.ColumnElement[bool]:
    if condition.operator == "null":
        return column.is_(None) if condition.values[0] else column.is_not(None)
    return _OPERATORS[condition.operator](column, [_bound(value) for value in condition.values])


def _bound(value: Scalar) -> sa.BindParameter[Any]:
    """Bind a value without a type of SQLAlchemy's: PostgreSQL compares no timestamp with a VARCHAR."""
    return sa.bindparam(None, value, type_=sa.types.NullType())


def _grain(query: Query) -> int:
    """Return what to group times by: buckets, or what buckets of UTC can be put together from."""
    return query.bucket if query.time_zone == "UTC" else math.gcd(query.bucket, QUARTER_SECONDS)


def utc_bucket(epoch: int, query: Query) -> int:
    """Return the bucket of a time in the grain that `counted` and `present` group by."""
    if query.time_zone == "UTC":
        return epoch - epoch % query.bucket
    moment = utc(epoch, query.time_zone)
    return moment - moment % query.bucket


def _floor(epoch: sa.ColumnElement[int], length: int) -> sa.ColumnElement[int]:
    """Floor to a bucket; also right before 1970, where % is negative."""
    size: sa.ColumnElement[int] = sa.literal_column(str(length))
    return epoch - ((epoch % size) + size) % size


def _within(epoch: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Is the bucket of the time in the span?"""
    return sa.and_(epoch >= _SINCE, epoch < _BEFORE)


@lru_cache(20_000)
def _offset(quarter: int, zone: str) -> int:
    """Return what to add to a zone's clock to have UTC, seconds."""
    naive = quarter * QUARTER_SECONDS
    try:
        local = datetime.fromtimestamp(naive, UTC).replace(tzinfo=ZoneInfo(zone))
        return math.floor(local.timestamp()) - naive
    except (OverflowError, ValueError):  # at either end of the calendar
        return 0
