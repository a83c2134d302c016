"""SQLAlchemy: measures as expressions and as exact numbers.

Strategy: Carbon takes an infinity and never gives the sum back, so a value that it could not hold is left out in the
database, and all others of its group are kept. What was left out is counted, found and told.
"""

import decimal
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa

from shipper.core.errors import QueryRefused
from shipper.core.measures import Kind, Value, exact
from shipper.core.model import Group, Query, RejectedValue, Row
from shipper.core.paths import brief
from shipper.core.rows.totals import MOST
from shipper.source.dialects.expressions import Fit, Unfit

PLACES = 400  # behind the point: more than any double has, and few enough to add up exactly

_AGGREGATES: dict[Kind, Callable[[sa.ColumnElement[Any]], sa.ColumnElement[Any]]] = {
    Kind.SUM: sa.func.sum,
    Kind.MAX: sa.func.max,
    Kind.MIN: sa.func.min,
}
_WIDE = decimal.Context(prec=1000, traps=[])


def measured(query: Query) -> list[str]:
    """Return the columns that are measured, each once."""
    return list(dict.fromkeys(measure.column for measure in query.measures if measure.column))


def aggregates(query: Query, table: sa.TableClause) -> list[sa.ColumnElement[Any]]:
    """Return the measures of columns, and for each column how many values they leave out."""
    columns = [_AGGREGATES[kind](Fit(table.c[column])) for _, kind, column in query.measures if column]
    unfit = [sa.func.count(sa.case((Unfit(table.c[name]), 1))) for name in measured(query)]
    return [*columns, *unfit]


def values_of(
    query: Query, rows: int, cells: Iterable[Any], group: Group
) -> tuple[list[Value | None], list[RejectedValue]]:
    """Read the cells of `aggregates`; what good values come to may be too large, too."""
    others = iter(cells)
    named = [(column or name, next(others) if column else rows) for name, _, column in query.measures]
    values, refused = numbers(named, rows, group)
    for column, left_out in zip(measured(query), others, strict=True):
        if left_out:
            refused.append(RejectedValue(column, left_out))
    return values, refused


def numbers(
    named: Iterable[tuple[str, object]], rows: int, group: Group
) -> tuple[list[Value | None], list[RejectedValue]]:
    """Return exact numbers, and what is to be told of those that Carbon could not hold: they are None."""
    values: list[Value | None] = []
    refused = []
    for column, value in named:
        values.append(number(value, column))
        if values[-1] is None and value is not None:
            refused.append(RejectedValue(column, rows, brief(value), group=group))
    return values, refused


def number(value: object, column: str) -> Value | None:
    """Return an exact number, None for one that Carbon could not hold.

    Raises:
        QueryRefused: it is no number.
    """
    if value is None:
        return None
    if isinstance(value, float):
        value = decimal.Decimal(repr(value))
    if not isinstance(value, int | decimal.Decimal):
        raise QueryRefused(
            f"read measure: {column} comes to {brief(value)}, which is not a number",
            hint="Measure a numeric column, and leave such rows out with `where` or `where_sql`.",
        )
    is_finite = isinstance(value, int) or value.is_finite()
    if not is_finite or not -MOST <= value <= MOST:
        return None
    return int(value) if isinstance(value, int) else exact(_short(value))


def traced(rows: list[Row], found: dict[str, tuple[int, object]]) -> list[Row]:
    """Add the id and the value of the first that was left out of each column."""

    def told(refusal: RejectedValue) -> RejectedValue:
        if refusal.value is not None or refusal.column not in found:
            return refusal
        identity, value = found[refusal.column]
        return refusal._replace(id=identity, value=brief(value))

    return [
        row._replace(rejected_values=tuple(map(told, row.rejected_values))) if row.rejected_values else row
        for row in rows
    ]


def _short(value: decimal.Decimal) -> decimal.Decimal:
    """Round to what can be added up; PostgreSQL's NUMERIC has up to 16383 places."""
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -PLACES:
        return value.quantize(decimal.Decimal(1).scaleb(-PLACES), context=_WIDE)
    return value
