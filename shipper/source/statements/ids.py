"""Statements that ask which ids a table has: in ranges, above and below, the newest, the missing.

As in counts.py, a query's statements are built once.
"""

from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from shipper.core.model import Query
from shipper.source.dialects.expressions import Beginning, BitOfId, BitsOfIds, ListOfIds, Moment, ServerTime, WordOfId
from shipper.source.statements.clauses import (
    ROWS,
    SKIPPED,
    STATEMENTS,
    UPTO,
    bound_id,
    bucket_of,
    chosen,
    edges,
    epoch_of,
    in_span,
    in_window,
    number_in,
    places,
    table_of,
    time_of,
)


@lru_cache(STATEMENTS)
def present(query: Query, *, are_listed: bool) -> sa.Select[Any]:
    """Select the existing ids, as words, by the grain of buckets if the query has a time.

    Each row has the time, the word's number, its bits, and the number of rows.
    """
    table = table_of(query)
    identity = table.c[query.id]
    bucket, word = bucket_of(query, table).label("shipper_bucket"), WordOfId(identity).label("shipper_word")
    statement = sa.select(bucket, word, BitsOfIds(identity), sa.func.count()).select_from(table)
    statement = statement.where(*chosen(query, identity, are_listed=are_listed))
    return statement.group_by(*places(1 if query.time else 2, 2))


@lru_cache(STATEMENTS)
def unknown(query: Query, ranges: int) -> sa.Select[Any] | sa.CompoundSelect[Any]:
    """Select the ids of a number of ranges whose bits are not set, each range with its bits from a first id on."""
    table = table_of(query.ids_only)
    identity = table.c[query.id]
    parts = []
    for n in range(ranges):
        bits = sa.bindparam(f"bits_{n}", type_=sa.LargeBinary())
        is_unknown = BitOfId(identity, bound_id("first", n), bits) == sa.literal_column("0")
        within = identity > bound_id("after", n), identity <= bound_id("upto", n)
        parts.append(sa.select(identity).select_from(table).where(*within, is_unknown))
    return (sa.union_all(*parts) if ranges > 1 else parts[0]).limit(ROWS)


@lru_cache(STATEMENTS)
def listed(query: Query) -> sa.Select[Any]:
    """Select the ids of a window in one text, and their number."""
    table = table_of(query.ids_only)
    identity = table.c[query.id]
    columns: list[sa.ColumnElement[Any]] = [ListOfIds(identity), sa.func.count()]
    return sa.select(*columns).select_from(table).where(*in_window(query, identity))


@lru_cache(STATEMENTS)
def number_of(query: Query) -> sa.Select[Any]:
    """Count the rows of a window, without the query's conditions."""
    table = table_of(query.ids_only)
    return sa.select(sa.func.count()).select_from(table).where(*in_window(query, table.c[query.id]))


@lru_cache(STATEMENTS)
def smallest(query: Query) -> sa.Select[Any]:
    """Select the smallest id of a row with a bucket in a span."""
    table = table_of(query)
    identity = table.c[query.id]
    chosen = *in_window(query, identity), in_span(epoch_of(query, table))
    return _smallest(query, table).where(*chosen)


@lru_cache(STATEMENTS)
def timed(query: Query) -> sa.Select[Any]:
    """Select the smallest and the largest id of a window's rows in a span, and their number: by an index of the time.

    Only the column itself is compared, which must have times in UTC.
    """
    table, moment = table_of(query.ids_by_time), Moment()
    identity, time = table.c[query.id], time_of(query, table)
    since, before = (sa.bindparam(name, type_=moment) for name in ("since", "before"))
    columns: list[sa.ColumnElement[Any]] = [sa.func.min(identity), sa.func.max(identity), sa.func.count()]
    return sa.select(*columns).select_from(table).where(*in_window(query, identity), time >= since, time < before)


@lru_cache(STATEMENTS)
def first(query: Query) -> sa.Select[Any]:
    """Select the smallest id of a window."""
    table = table_of(query.ids_only)
    return _smallest(query, table).where(*in_window(query, table.c[query.id]))


@lru_cache(STATEMENTS)
def following(query: Query, *, is_backward: bool) -> sa.Select[Any]:
    """Select the id that follows the skipped ids of a window; with is_backward, counted from its end."""
    table = table_of(query.ids_only)
    identity = table.c[query.id]
    order = identity.desc() if is_backward else identity
    statement = sa.select(number_in(query, table)).where(*in_window(query, identity))
    return statement.order_by(order).limit(1).offset(SKIPPED)


@lru_cache(STATEMENTS)
def uncountable(query: Query) -> sa.Select[Any]:
    """Count the rows whose id is NULL or below 1; along a time, those with no time since 1970."""
    table = table_of(query.ids_only)
    identity = table.c[query.id]
    rows = sa.select(sa.func.count()).select_from(table)
    if query.is_along:
        early, without = identity < edges(query)[0], identity.is_(None)
        return sa.select(rows.where(early).scalar_subquery() + rows.where(without).scalar_subquery())
    # MIN first, which reads one row: PostgreSQL scans a table without statistics for `id < 1`
    first_id = sa.select(sa.func.min(identity)).select_from(table).scalar_subquery()
    below = sa.case((first_id < 1, rows.where(identity < 1).scalar_subquery()), else_=0)
    return sa.select(below + rows.where(identity.is_(None)).scalar_subquery())


@lru_cache(STATEMENTS)
def beyond(query: Query) -> sa.Select[Any]:
    """Count the rows from a time on."""
    table = table_of(query.ids_only)
    return sa.select(sa.func.count()).select_from(table).where(table.c[query.id] >= edges(query)[0])


def twice(query: Query, rows: int) -> sa.Select[Any]:
    """Select the smallest id that two of the newest `rows` rows share."""
    identity = table_of(query.ids_only).c[query.id]
    newest_ids = sa.select(identity).where(identity > 0).order_by(identity.desc()).limit(rows).subquery()
    newest_id = newest_ids.c[query.id]
    return sa.select(newest_id).group_by(newest_id).having(sa.func.count() > 1).order_by(newest_id).limit(1)


@lru_cache(STATEMENTS)
def largest(query: Query) -> sa.Select[Any, int]:
    """Select the table's largest id, and the time of the server's clock; along a time NULL and the time."""
    if query.is_along:
        return sa.select(sa.null(), ServerTime())
    table = table_of(query.ids_only)
    return sa.select(sa.func.max(table.c[query.id]), ServerTime()).select_from(table)


@lru_cache(STATEMENTS)
def newest(query: Query, *, is_marked: bool = False) -> sa.Select[Any]:
    """Select ids and times of a number of newest rows up to an id."""
    plain = query.ids_by_time
    table = table_of(plain)
    identity = table.c[query.id]
    epoch = epoch_of(plain, table, is_marked=is_marked) if plain.time else sa.null()
    chosen = identity < edges(query)[1] if query.is_along else identity <= UPTO
    columns: list[sa.ColumnElement[Any]] = [number_in(query, table), epoch]
    return sa.select(*columns).where(chosen).order_by(identity.desc()).limit(ROWS)


def newest_value(query: Query) -> sa.Select[Any]:
    """Select the beginning of the largest value of the column that windows are made of."""
    table = table_of(query.ids_only)
    return sa.select(Beginning(sa.func.max(table.c[query.id]))).select_from(table)


def _smallest(query: Query, table: sa.TableClause) -> sa.Select[Any]:
    """Select the smallest id; along a time from the row that the index has first."""
    identity: sa.ColumnElement[Any] = table.c[query.id]
    if query.is_along:
        return sa.select(number_in(query, table)).order_by(identity).limit(1)
    return sa.select(sa.func.min(identity))
