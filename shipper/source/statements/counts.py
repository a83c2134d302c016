"""Statements that count rows: by bucket and group, with measures, labels and their names.

A query's statements are built once, because building takes as long as running. Windows differ only in their
parameters, which `bounds` returns.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from shipper.core.measures import Kind
from shipper.core.model import Condition, Ids, Query, Scalar, Window
from shipper.source.dialects.expressions import (
    Addend,
    AsText,
    Beginning,
    BitsOfIds,
    Fit,
    Label,
    Text,
    Unfit,
    WithinMinute,
    WithText,
    WordOfId,
)
from shipper.source.statements.clauses import (
    ASIDE,
    IDS,
    MINUTE_SECONDS,
    STATEMENTS,
    UNITS,
    UTC_MARK,
    bound_id,
    bucket_of,
    chosen,
    epoch_of,
    floor,
    in_span,
    in_window,
    literal,
    number_in,
    places,
    table_of,
)

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
    Kind.SUM: lambda column: sa.func.sum(Addend(column)),
    Kind.MAX: lambda column: sa.func.max(Fit(column)),
    Kind.MIN: lambda column: sa.func.min(Fit(column)),
}


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
    columns: list[sa.ColumnElement[Any]] = [bucket_of(query, table), *_groups(query, table)]
    labelled = [column.label(f"shipper_{n}") for n, column in enumerate(columns)]
    statement: sa.Select[Any] = sa.select(*labelled, sa.func.count(), *_aggregates(query, table)).select_from(table)
    statement = statement.where(*_conditions(query, table, is_within=is_within, are_listed=are_listed))
    if query.time is None and not query.by:  # without GROUP BY there is a row even if nothing matches
        return statement.having(sa.func.count() > 0)
    statement = statement.group_by(*places(1 if query.time else 2, len(labelled)))
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
    columns = floor(moment, query.bucket), *_groups(query, table, same)
    labelled = [column.label(f"shipper_{n}") for n, column in enumerate(columns)]
    distinct = (column for _, kind, column in query.measures if column and not kind.is_divisible)
    values = [sa.func.count(sa.distinct(_text(query, column, table.c[column]))) for column in distinct]
    conditions = [*_conditions(query, table, is_within=False, are_listed=False), in_span(epoch_of(query, table))]
    if has_aside:  # the only construct that computes nothing for these rows
        rest = sa.case((identity.not_in(ASIDE), sa.and_(*conditions)), else_=sa.false())
        conditions = [*in_window(query, identity), rest]
    statement = sa.select(*labelled, *values).select_from(table).where(*conditions)
    return statement.group_by(*places(1, len(labelled)))


def _moved(epoch: sa.ColumnElement[int], offsets: Offsets) -> sa.ColumnElement[int]:
    """Move a zone's local time to UTC, but not a time that is marked."""
    if not offsets:
        return epoch
    (_, first), *later = offsets
    offset = literal(first)
    for start, new in later:
        offset = sa.case((epoch >= literal(start), literal(new)), else_=offset)
    return epoch + sa.case((epoch > literal(UTC_MARK // 2), literal(-UTC_MARK)), else_=offset)


@lru_cache(STATEMENTS)
def at_once(query: Query, ranges: int, *, are_listed: bool) -> sa.CompoundSelect[Any]:
    """Select what `counted` does of a window, and the words of the ids in a number of ranges and of listed ids.

    A last column has the bits of a word, whose number is in the place of the bucket; for counts it is NULL.
    """
    counts = counted(query, is_within=False)
    assert isinstance(counts, sa.Select)
    table = table_of(query)
    identity, by = table.c[query.id], len(query.by)
    nothing = [sa.null()] * (len(counts.selected_columns) - by - 2)
    word = WordOfId(identity).label("shipper_word")
    words = sa.select(word, *[sa.null()] * by, sa.func.count(), *nothing, BitsOfIds(identity)).select_from(table)
    chosen = [sa.and_(identity > bound_id("after", n), identity <= bound_id("upto", n)) for n in range(ranges)]
    chosen += [identity.in_(IDS)] if are_listed else []
    # counts first: their types become those of the columns
    return sa.union_all(counts.add_columns(sa.null()), *(words.where(ids).group_by(*places(1, 1)) for ids in chosen))


def bounds_at_once(window: Window, ranges: Iterable[tuple[int, int]], ids: Ids) -> dict[str, Any]:
    """Return the parameters of `at_once`."""
    values: dict[str, Any] = {"after": window.after, "upto": window.upto} | ({"ids": ids} if ids else {})
    for number, (after, upto) in enumerate(ranges):
        values |= {f"after_{number}": after, f"upto_{number}": upto}
    return values


@lru_cache(STATEMENTS)
def minutes(query: Query) -> sa.Select[Any]:
    """Select each minute of a window that has rows, with their number and a checksum of their times."""
    table = table_of(query)
    minute = floor(epoch_of(query, table), MINUTE_SECONDS).label("shipper_minute")
    within: sa.ColumnElement[Any] = WithinMinute(table.c[query.id])
    if query.time_unit is not None:
        within = sa.cast(table.c[query.id], sa.Numeric(30, 6)) % literal(MINUTE_SECONDS * UNITS[query.time_unit])
    columns: list[sa.ColumnElement[Any]] = [minute, sa.func.count(), sa.func.sum(within)]
    statement = sa.select(*columns).select_from(table).where(*in_window(query, table.c[query.id]))
    return statement.group_by(*places(1, 1))


@lru_cache(STATEMENTS)
def extremes(query: Query) -> sa.Select[Any, Any]:
    """Select the smallest and the largest time of a window's rows."""
    table = table_of(query)
    epoch = epoch_of(query, table)
    return sa.select(sa.func.min(epoch), sa.func.max(epoch)).where(*in_window(query, table.c[query.id]))


@lru_cache(STATEMENTS)
def first_unfit(query: Query, measure: str, *, is_within: bool, are_listed: bool = False) -> sa.Select[Any]:
    """Select the id and the value of the first row whose value `counted` leaves out."""
    table = table_of(query)
    conditions = [*_conditions(query, table, is_within=is_within, are_listed=are_listed), Unfit(table.c[measure])]
    columns = number_in(query, table), Beginning(table.c[measure])
    # labels, because the measured column may be the id
    labelled = [column.label(f"shipper_{n}") for n, column in enumerate(columns)]
    return sa.select(*labelled).select_from(table).where(*conditions).order_by(table.c[query.id]).limit(1)


def measured(query: Query) -> list[str]:
    """Return the columns of divisible measures, each once."""
    columns = (measure.column for measure in query.measures if measure.kind.is_divisible)
    return list(dict.fromkeys(column for column in columns if column))


def names_in(sql: str) -> WithText:
    """Select all columns of a text's result, and no row."""
    names = sa.table("shipper_names")
    return WithText("shipper_names", sql, sa.select(sa.literal_column("*")).select_from(names).limit(0))


def names_of(sql: str, rows: int) -> WithText:
    """Select values and names, as `counted` selects labels, from a text's result; at most that number of rows."""
    names = sa.table("shipper_names", sa.column("value"), sa.column("name"))
    statement = sa.select(Label(names.c.value), Label(names.c.name)).limit(rows)
    return WithText("shipper_names (value, name)", sql, statement)


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


def _conditions(
    query: Query, table: sa.TableClause, *, is_within: bool, are_listed: bool
) -> list[sa.ColumnElement[bool]]:
    conditions = [*chosen(query, table.c[query.id], are_listed=are_listed)]
    conditions += [_holds(table.c[condition.column], condition) for condition in query.where]
    if query.where_sql:
        conditions.append(sa.literal_column(f"({query.where_sql})"))
    if query.time and is_within:
        epoch = epoch_of(query, table)
        conditions.append(sa.or_(epoch.is_(None), in_span(epoch)))
    return conditions


def _holds(column: sa.ColumnElement[Any], condition: Condition) -> sa.ColumnElement[bool]:
    if condition.operator == "null":
        return column.is_(None) if condition.values[0] else column.is_not(None)
    return _OPERATORS[condition.operator](column, [_bound(value) for value in condition.values])


def _bound(value: Scalar) -> sa.BindParameter[Any]:
    """Bind a value without a type: PostgreSQL cannot compare a timestamp with a VARCHAR."""
    return sa.bindparam(None, value, type_=sa.types.NullType())
