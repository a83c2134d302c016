"""A job's query as SQL statements on ranges of ids.

Each column is named with its table: SQLite would take a bare name that is no column for a string.
A query's statements are built once, because building takes as long as running. Windows differ only in their
parameters, which `bounds` returns.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from shipper.core.measures import Kind
from shipper.core.model import ALWAYS, Condition, Ids, Query, Scalar, Span, TimeForm, Window
from shipper.source.dialects.expressions import (
    AsText,
    Beginning,
    BitsOfIds,
    Fit,
    Label,
    ListOfIds,
    Moment,
    ServerTime,
    Text,
    Unfit,
    WithinMinute,
    WithText,
    WordOfId,
    table_named,
)
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

_OPERATORS: dict[str, Callable[[sa.ColumnElement[Any], list[sa.BindParameter[Any]]], sa.ColumnElement[bool]]] = {
    "in": lambda column, values: column == values[0] if len(values) == 1 else column.in_(values),
    "not": lambda column, values: column != values[0] if len(values) == 1 else column.not_in(values),
    "like": lambda column, values: column.like(values[0]),
    "ge": lambda column, values: column >= values[0],
    "gt": lambda column, values: column > values[0],
    "le": lambda column, values: column <= values[0],
    "lt": lambda column, values: column < values[0],
}
_AGGREGATES: dict[Kind, Callable[[sa.ColumnElement[Any]], sa.ColumnElement[Any]]] = {
    Kind.SUM: lambda column: sa.func.sum(Fit(column)),
    Kind.MAX: lambda column: sa.func.max(Fit(column)),
    Kind.MIN: lambda column: sa.func.min(Fit(column)),
}
_INDIVISIBLE: dict[Kind, Callable[[sa.ColumnElement[Any]], sa.ColumnElement[Any]]] = {
    Kind.DISTINCT: lambda text: sa.func.count(sa.distinct(text)),
}
"""These are read as whole numbers (result.py)."""
_AFTER, _UPTO, _SINCE, _BEFORE, _SKIPPED = (
    sa.bindparam(name, type_=sa.BigInteger()) for name in ("after", "upto", "since", "before", "skipped")
)
_IDS, _ASIDE = (sa.bindparam(name, expanding=True, type_=sa.BigInteger()) for name in ("ids", "aside"))
LAST_SECOND = 253_402_300_799
"""9999-12-31 23:59:59."""


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


def _edges(query: Query) -> tuple[sa.BindParameter[Any], sa.BindParameter[Any]]:
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


def measured(query: Query) -> list[str]:
    """Return the columns of divisible measures, each once."""
    columns = (measure.column for measure in query.measures if measure.kind.is_divisible)
    return list(dict.fromkeys(column for column in columns if column))


def time_of(query: Query, table: sa.TableClause) -> sa.ColumnElement[Any]:
    """Return a query's time as the database stores it."""
    if query.time_sql is not None:
        return sa.literal_column(f"({query.time_sql})")
    return table.c[query.time or query.id]


def epoch_of(query: Query, table: sa.TableClause, *, is_marked: bool = False) -> sa.ColumnElement[int]:
    """Return a query's time as epoch seconds; is_marked: with UTC_MARK where `time_zone` must not move it."""
    mark = UTC_MARK if is_marked and query.time_zone != "UTC" else 0
    numbers: list[sa.ColumnElement[int]] = [sa.literal_column(str(one)) for one in (UNITS[query.time_unit], mark)]
    return FORMS[query.time_form](time_of(query, table), *numbers)


@lru_cache(STATEMENTS)
def counted(
    query: Query, *, is_within: bool, are_listed: bool = False, most: int | None = None
) -> sa.Select[Any] | sa.TextClause:
    """Select bucket, group columns, number of rows and measures of a window; with is_within, in a span only.

    With are_listed, listed ids take the place of the window; with most, one row more than that ends the result.
    """
    if query.sql is not None:
        return sa.text(query.sql)
    table = table_of(query)
    columns: list[sa.ColumnElement[Any]] = [_bucket(query, table), *_groups(query, table)]
    labelled = [column.label(f"shipper_{n}") for n, column in enumerate(columns)]
    statement: sa.Select[Any] = sa.select(*labelled, sa.func.count(), *_aggregates(query, table)).select_from(table)
    statement = statement.where(*_conditions(query, table, is_within=is_within, are_listed=are_listed))
    if query.time is None and not query.by:  # without GROUP BY there is a row even if nothing matches
        return statement.having(sa.func.count() > 0)
    statement = statement.group_by(*_places(1 if query.time else 2, len(labelled)))
    return statement if most is None else statement.limit(most + 1)


Offsets = tuple[tuple[int, int], ...]
"""Differences from a zone's clock to UTC, in seconds, each with the local time at which it begins."""


Same = tuple[tuple[int, str, str], ...]
"""Label values that count as another one: position in `by`, value, other value."""


@lru_cache(STATEMENTS)
def undivided(query: Query, offsets: Offsets, same: Same, *, has_aside: bool) -> sa.Select[Any]:
    """Select bucket, group columns and indivisible measures of a span; buckets are those of UTC.

    With has_aside, some ids are left out.
    """
    table = table_of(query)
    moment, identity = _moved(epoch_of(query, table, is_marked=True), offsets), table.c[query.id]
    labelled = [
        column.label(f"shipper_{n}")
        for n, column in enumerate((_floor(moment, query.bucket), *_groups(query, table, same)))
    ]
    values = [
        _INDIVISIBLE[kind](_text(query, column, table.c[column]))
        for _, kind, column in query.measures
        if column and not kind.is_divisible
    ]
    conditions = [*_conditions(query, table, is_within=False, are_listed=False), _in_span(epoch_of(query, table))]
    if has_aside:  # the only construct that computes nothing for these rows
        rest = sa.case((identity.not_in(_ASIDE), sa.and_(*conditions)), else_=sa.false())
        conditions = [*_in_window(query, identity), rest]
    statement = sa.select(*labelled, *values).select_from(table).where(*conditions)
    return statement.group_by(*_places(1, len(labelled)))


def _places(first: int, last: int) -> Iterator[sa.TextClause]:
    """Yield the places of selected columns for GROUP BY, where a name would be a column of the table first."""
    yield from (sa.text(str(place)) for place in range(first, last + 1))


def _moved(epoch: sa.ColumnElement[int], offsets: Offsets) -> sa.ColumnElement[int]:
    """Move a zone's local time to UTC, but not a time that is marked."""
    if not offsets:
        return epoch
    (_, first), *later = offsets
    offset = _number(first)
    for start, new in later:
        offset = sa.case((epoch >= _number(start), _number(new)), else_=offset)
    return epoch + sa.case((epoch > _number(UTC_MARK // 2), _number(-UTC_MARK)), else_=offset)


@lru_cache(STATEMENTS)
def present(query: Query, *, are_listed: bool) -> sa.Select[Any]:
    """Select the existing ids, as words, by the grain of buckets if the query has a time.

    Each row has the time, the word's number, its bits, and the number of rows.
    """
    table = table_of(query)
    identity = table.c[query.id]
    bucket, word = _bucket(query, table).label("shipper_bucket"), WordOfId(identity).label("shipper_word")
    statement = sa.select(bucket, word, BitsOfIds(identity), sa.func.count()).select_from(table)
    statement = statement.where(*_chosen(query, identity, are_listed=are_listed))
    return statement.group_by(*_places(1 if query.time else 2, 2))


@lru_cache(STATEMENTS)
def smallest(query: Query) -> sa.Select[Any]:
    """Select the smallest id of a row with a bucket in a span."""
    table = table_of(query)
    identity = table.c[query.id]
    chosen = *_in_window(query, identity), _in_span(epoch_of(query, table))
    return _smallest(query, table).where(*chosen)


@lru_cache(STATEMENTS)
def listed(query: Query) -> sa.Select[Any]:
    """Select the ids of a window in one text, and their number."""
    table = table_of(query.ids_only)
    identity = table.c[query.id]
    columns: list[sa.ColumnElement[Any]] = [ListOfIds(identity), sa.func.count()]
    return sa.select(*columns).select_from(table).where(*_in_window(query, identity))


@lru_cache(STATEMENTS)
def number_of(query: Query) -> sa.Select[Any]:
    """Count the rows of a window, without the query's conditions."""
    table = table_of(query.ids_only)
    return sa.select(sa.func.count()).select_from(table).where(*_in_window(query, table.c[query.id]))


@lru_cache(STATEMENTS)
def first(query: Query) -> sa.Select[Any]:
    """Select the smallest id of a window."""
    table = table_of(query.ids_only)
    return _smallest(query, table).where(*_in_window(query, table.c[query.id]))


@lru_cache(STATEMENTS)
def following(query: Query, *, is_backward: bool) -> sa.Select[Any]:
    """Select the id that follows the skipped ids of a window; with is_backward, counted from its end."""
    table = table_of(query.ids_only)
    identity = table.c[query.id]
    order = identity.desc() if is_backward else identity
    statement = sa.select(number_in(query, table)).where(*_in_window(query, identity))
    return statement.order_by(order).limit(1).offset(_SKIPPED)


@lru_cache(STATEMENTS)
def uncountable(query: Query) -> sa.Select[Any]:
    """Count the rows whose id is NULL or below 1; along a time, those with no time since 1970."""
    table = table_of(query.ids_only)
    identity = table.c[query.id]
    rows = sa.select(sa.func.count()).select_from(table)
    if query.is_along:
        early, without = identity < _edges(query)[0], identity.is_(None)
        return sa.select(rows.where(early).scalar_subquery() + rows.where(without).scalar_subquery())
    # MIN first, which reads one row: PostgreSQL scans a table without statistics for `id < 1`
    first_id = sa.select(sa.func.min(identity)).select_from(table).scalar_subquery()
    below = sa.case((first_id < 1, rows.where(identity < 1).scalar_subquery()), else_=0)
    return sa.select(below + rows.where(identity.is_(None)).scalar_subquery())


def names_in(sql: str) -> WithText:
    """Select all columns of a text's result, and no row."""
    names = sa.table("shipper_names")
    return WithText("shipper_names", sql, sa.select(sa.literal_column("*")).select_from(names).limit(0))


def names_of(sql: str, rows: int) -> WithText:
    """Select values and names, as `counted` selects labels, from a text's result; at most that number of rows."""
    names = sa.table("shipper_names", sa.column("value"), sa.column("name"))
    statement = sa.select(Label(names.c.value), Label(names.c.name)).limit(rows)
    return WithText("shipper_names (value, name)", sql, statement)


@lru_cache(STATEMENTS)
def beyond(query: Query) -> sa.Select[Any]:
    """Count the rows from a time on."""
    table = table_of(query.ids_only)
    return sa.select(sa.func.count()).select_from(table).where(table.c[query.id] >= _edges(query)[0])


@lru_cache(STATEMENTS)
def minutes(query: Query) -> sa.Select[Any]:
    """Select each minute of a window that has rows, with their number and a checksum of their times."""
    table = table_of(query)
    minute = _floor(epoch_of(query, table), MINUTE_SECONDS).label("shipper_minute")
    within: sa.ColumnElement[Any] = WithinMinute(table.c[query.id])
    if query.time_unit is not None:
        length: sa.ColumnElement[int] = sa.literal_column(str(MINUTE_SECONDS * UNITS[query.time_unit]))
        within = sa.cast(table.c[query.id], sa.Numeric(30, 6)) % length
    columns: list[sa.ColumnElement[Any]] = [minute, sa.func.count(), sa.func.sum(within)]
    statement = sa.select(*columns).select_from(table).where(*_in_window(query, table.c[query.id]))
    return statement.group_by(*_places(1, 1))


def twice(query: Query, rows: int) -> sa.Select[Any]:
    """Select the smallest id that two of the newest `rows` rows share."""
    identity = table_of(query.ids_only).c[query.id]
    newest_ids = sa.select(identity).where(identity > 0).order_by(identity.desc()).limit(rows).subquery()
    newest_id = newest_ids.c[query.id]
    return sa.select(newest_id).group_by(newest_id).having(sa.func.count() > 1).order_by(newest_id).limit(1)


@lru_cache(STATEMENTS)
def extremes(query: Query) -> sa.Select[Any, Any]:
    """Select the smallest and the largest time of a window's rows."""
    table = table_of(query)
    epoch = epoch_of(query, table)
    return sa.select(sa.func.min(epoch), sa.func.max(epoch)).where(*_in_window(query, table.c[query.id]))


@lru_cache(STATEMENTS)
def first_unfit(query: Query, measure: str, *, is_within: bool, are_listed: bool = False) -> sa.Select[Any]:
    """Select the id and the value of the first row whose value `counted` leaves out."""
    table = table_of(query)
    conditions = [*_conditions(query, table, is_within=is_within, are_listed=are_listed), Unfit(table.c[measure])]
    columns = number_in(query, table), Beginning(table.c[measure])
    # labels, because the measured column may be the id
    labelled = [column.label(f"shipper_{n}") for n, column in enumerate(columns)]
    return sa.select(*labelled).select_from(table).where(*conditions).order_by(table.c[query.id]).limit(1)


@lru_cache(STATEMENTS)
def largest(query: Query) -> sa.Select[Any, int]:
    """Select the table's largest id, and the time of the server's clock; along a time NULL and the time."""
    if query.is_along:
        return sa.select(sa.null(), ServerTime())
    table = table_of(query.ids_only)
    return sa.select(sa.func.max(table.c[query.id]), ServerTime()).select_from(table)


@lru_cache(STATEMENTS)
def newest(query: Query, rows: int, *, is_marked: bool = False) -> sa.Select[Any]:
    """Select ids and times of the newest rows up to an id."""
    plain = query.ids_by_time
    table = table_of(plain)
    identity = table.c[query.id]
    epoch = epoch_of(plain, table, is_marked=is_marked) if plain.time else sa.null()
    chosen = identity < _edges(query)[1] if query.is_along else identity <= _UPTO
    columns: list[sa.ColumnElement[Any]] = [number_in(query, table), epoch]
    return sa.select(*columns).where(chosen).order_by(identity.desc()).limit(rows)


def newest_value(query: Query) -> sa.Select[Any]:
    """Select the beginning of the largest value of the column that windows are made of."""
    table = table_of(query.ids_only)
    return sa.select(Beginning(sa.func.max(table.c[query.id]))).select_from(table)


def _label(query: Query, table: sa.TableClause, name: str) -> sa.ColumnElement[Any]:
    """Return the column or the expression that `by` names."""
    text = dict(query.by_sql).get(name)
    return table.c[name] if text is None else sa.literal_column(f"({text})")


def _text(query: Query, text: str, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a value of a column or expression as a label; where all are short, that is their text."""
    return Text(value) if text in query.short else Label(value)


def labels(query: Query) -> tuple[list[str], sa.Select[Any]]:
    """Return the columns and expressions that are labels or distinct values, and select no row of them, for types."""
    table, expressions = table_of(query), dict(query.by_sql)
    values = {expressions.get(name, name): _label(query, table, name) for name in query.by}
    distinct = (measure.column for measure in query.measures if not measure.kind.is_divisible)
    values |= {column: table.c[column] for column in distinct if column}
    labelled = [value.label(f"shipper_{n}") for n, value in enumerate(values.values())]
    return list(values), sa.select(*labelled).select_from(table).limit(0)


def columns(query: Query, names: Sequence[str]) -> sa.Select[Any]:
    """Select no row of some of a query's columns, for their types."""
    table = table_of(query)
    return sa.select(*(table.c[name] for name in names)).select_from(table).limit(0)


def _aggregates(query: Query, table: sa.TableClause) -> list[sa.ColumnElement[Any]]:
    """Return the divisible measures of columns, and for each column the number of values left out."""
    columns = [_AGGREGATES[kind](table.c[column]) for _, kind, column in query.measures if column and kind.is_divisible]
    unfit = [sa.func.count(sa.case((Unfit(table.c[name]), 1))) for name in measured(query)]
    return [*columns, *unfit]


def _groups(query: Query, table: sa.TableClause, same: Same = ()) -> list[sa.ColumnElement[Any]]:
    """Return the labels of groups; some of their values are replaced by others."""
    groups: list[sa.ColumnElement[Any]] = []
    for at, name in enumerate(query.by):
        label = _text(query, dict(query.by_sql).get(name, name), _label(query, table, name))
        others = [
            (label == sa.literal(value, AsText()), sa.literal(other, AsText()))
            for place, value, other in same
            if place == at
        ]
        groups.append(sa.case(*others, else_=label) if others else label)
    return groups


def number_in(query: Query, table: sa.TableClause) -> sa.ColumnElement[int]:
    """Return the number that windows are made of: the id; along a time the second, as the column has it."""
    return epoch_of(query, table) if query.is_along else table.c[query.id]


def _smallest(query: Query, table: sa.TableClause) -> sa.Select[Any]:
    """Select the smallest id; along a time from the row that the index has first."""
    identity: sa.ColumnElement[Any] = table.c[query.id]
    if query.is_along:
        return sa.select(number_in(query, table)).order_by(identity).limit(1)
    return sa.select(sa.func.min(identity))


def _in_window(query: Query, identity: sa.ColumnElement[Any]) -> tuple[sa.ColumnElement[bool], ...]:
    if query.is_along:
        first, end = _edges(query)
        return identity >= first, identity < end
    return identity > _AFTER, identity <= _UPTO


def _in_span(epoch: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    return sa.and_(epoch >= _SINCE, epoch < _BEFORE)


def _chosen(query: Query, identity: sa.ColumnElement[int], *, are_listed: bool) -> tuple[sa.ColumnElement[bool], ...]:
    return (identity.in_(_IDS),) if are_listed else _in_window(query, identity)


def _conditions(
    query: Query, table: sa.TableClause, *, is_within: bool, are_listed: bool
) -> list[sa.ColumnElement[bool]]:
    conditions = [*_chosen(query, table.c[query.id], are_listed=are_listed)]
    conditions += [_holds(table.c[condition.column], condition) for condition in query.where]
    if query.where_sql:
        conditions.append(sa.literal_column(f"({query.where_sql})"))
    if query.time and is_within:
        epoch = epoch_of(query, table)
        conditions.append(sa.or_(epoch.is_(None), _in_span(epoch)))
    return conditions


def _holds(column: sa.ColumnElement[Any], condition: Condition) -> sa.ColumnElement[bool]:
    if condition.operator == "null":
        return column.is_(None) if condition.values[0] else column.is_not(None)
    return _OPERATORS[condition.operator](column, [_bound(value) for value in condition.values])


def _bound(value: Scalar) -> sa.BindParameter[Any]:
    """Bind a value without a type: PostgreSQL cannot compare a timestamp with a VARCHAR."""
    return sa.bindparam(None, value, type_=sa.types.NullType())


def _bucket(query: Query, table: sa.TableClause) -> sa.ColumnElement[Any]:
    return _floor(epoch_of(query, table, is_marked=True), _grain(query)) if query.time else sa.null()


def _grain(query: Query) -> int:
    """Return the length of the units of time to group by, which buckets of UTC consist of."""
    return query.bucket if query.time_zone == "UTC" else math.gcd(query.bucket, QUARTER_SECONDS)


def _floor(epoch: sa.ColumnElement[int], length: int) -> sa.ColumnElement[int]:
    """Round down to a bucket, also before 1970, where % is negative."""
    size = _number(length)
    return epoch - ((epoch % size) + size) % size


def _number(value: int) -> sa.ColumnElement[int]:
    return sa.literal_column(str(value))
