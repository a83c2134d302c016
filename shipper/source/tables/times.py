"""How the form of a job's times is found, and errors of columns that contain no times.

Strategy: the type of the column decides which SQL reads it (dialects/stored_times.py; units: statements/clauses.py).
Whether that SQL can read the values is seen from the newest ones: if it cannot read any, the job must not run, since
all its rows would be rejected. Single values that are no times are rejected as `no_time`.
"""

import re
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from shipper.core.errors import QueryRefused
from shipper.core.model import Query, TimeForm
from shipper.core.paths import brief
from shipper.source.dialects.by_name import dialect_named
from shipper.source.dialects.expressions import Beginning
from shipper.source.dialects.stored_times import TIMES, Times
from shipper.source.statements.clauses import UNITS, epoch_of, table_of, time_of
from shipper.source.tables.catalog import Table, described

NEWEST_ROWS = 1000
"""Number of newest rows that show whether times can be read: the work of a millisecond."""
PLAUSIBLE = (31_536_000, 7_258_118_400)
"""Epochs of the years 1971 to 2199: with a wrong unit, present times are outside."""
_TICKS = ((10**7, 62_135_596_800), (10**7, 11_644_473_600), (10**9, 0))
"""Other numbers of times: ticks in a second, and seconds from their first year to 1970; .NET, Windows, nanoseconds.

In this order: the first two would be nanoseconds of the years 1973 to 1992.
"""
SAMPLE = 20
"""Number of values that are read of them."""
_NO_TIME = re.compile(r"[0 :./TZ-]*", re.IGNORECASE)
"""Texts that mean no time: empty ones, 0, 0000-00-00."""
_NUMBER = re.compile(r"-?\d+(\.\d*)?(e[-+]?\d+)?")
_COMPACT = re.compile(r"(19|20)\d{6}(\d{6})?")
_OTHER_DIGITS = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-3])[0-5]\d([0-5]\d{4})?")
"""Digits of a time without seconds, or with thousandths."""
_TIME_OF_DAY = re.compile(r"\d?\d:")


def timed(connection: sa.Connection, query: Query) -> Query:
    """Return a query with the form of its times.

    Raises:
        QueryRefused: its time has another type.
    """
    times = TIMES[connection.dialect.name]
    with connection.execute(_type(query)) as answer:
        type_ = answer.cursor.description[0][1]
    if type_ not in times.forms:
        raise _not_times(query, described(connection, query.table), times)
    query = replace(query, time_form=times.forms[type_])
    if query.time_unit is not None and _has_only_times(connection, query):
        raise QueryRefused(
            f"read {query.table}: {query.time} contains times, not numbers",
            hint=_NO_KEY,
        )
    return query


def units_of(number: float) -> list[str]:
    """Return the units in which a number of present times may count."""
    return [unit for unit, units in UNITS.items() if unit and is_plausible(number / units)]


def check_values(connection: sa.Connection, query: Query) -> None:
    """Check that times can be read among the newest rows that have any value.

    Raises:
        QueryRefused: they are no times, or numbers of another unit.
    """
    if _has_only_times(connection, query):
        return
    values = connection.execute(_sample(query)).all()
    present = [(value, epoch) for value, epoch in values if not _is_nothing(value)]
    is_good = [epoch is not None if query.time_unit is None else is_plausible(epoch) for _, epoch in present]
    if present and not any(is_good):
        raise _unreadable(query, present[0][0], TIMES[connection.dialect.name])


def _has_only_times(connection: sa.Connection, query: Query) -> bool:
    return query.time_form is TimeForm.TIME and dialect_named(connection.dialect.name).CATALOG.has_types


def _unreadable(query: Query, newest: object, times: Times) -> QueryRefused:
    value = _text(newest)
    is_number = _NUMBER.fullmatch(value) is not None
    message = f"read {query.table}: the newest {query.time} is {value if is_number else brief(value)}"
    if not is_number:
        example = times.combine if _TIME_OF_DAY.match(value) else times.parse
        return QueryRefused(f"{message}, which is not a time", hint=_convert(query, example))
    if query.time_unit is not None and _COMPACT.fullmatch(value):
        return QueryRefused(f"{message}, which is a date in digits, not a number since 1970", hint=_NO_KEY)
    if query.time_sql is None and _OTHER_DIGITS.fullmatch(value):
        is_long = len(value) > len("YYYYMMDDhhmmss")
        sql = times.divide.format(time=query.time, size=1000 if is_long else 1) + ("" if is_long else " * 100")
        hint = f'Instead of `time`, write time_sql = "{sql}", without `time_unit`.'
        what = "with thousandths of a second" if is_long else "without seconds"
        return QueryRefused(f"{message}, which is a time {what}", hint=hint)
    units = units_of(float(value))
    wrong = "not a time" if query.time_unit is None else f'not a current time with time_unit = "{query.time_unit}"'
    if not units:
        return QueryRefused(f"{message}, which is {wrong}", hint=_of_ticks(query, value, times) or _NO_UNIT)
    shown = datetime.fromtimestamp(float(value) / UNITS[units[0]], UTC)
    hint = f'Set `time_unit = "{units[0]}"`: that value is then {shown:%Y-%m-%d %H:%M:%S} UTC.'
    return QueryRefused(f"{message}, which is {wrong}", hint=hint)


def _of_ticks(query: Query, value: str, times: Times) -> str | None:
    """Return the hint for a number of ticks, None for others."""
    for size, since in _TICKS if query.time_sql is None else ():
        if is_plausible(moment := int(Decimal(value)) // size - since):
            sql = times.divide.format(time=query.time, size=size) + (f" - {since}" if since else "")
            shown = datetime.fromtimestamp(moment, UTC)
            return (
                f'Set `time_unit = "s"`, and instead of `time` write time_sql = "{sql}": '
                f"that value is then {shown:%Y-%m-%d %H:%M:%S} UTC."
            )
    return None


_NO_KEY = "Remove `time_unit` from the job, or from [defaults]."
_NO_UNIT = "Set `time` to another column, or write `time_sql`, which converts it to a time."


def _not_times(query: Query, table: Table, times: Times) -> QueryRefused:
    """Return the error of a time whose type is none of times; of an expression the type has no name."""
    if query.time is None or query.time not in table.columns:
        return QueryRefused(f"read {query.table}: {query.time} gives no times", hint=_convert(query, times.parse))
    type_ = table.columns[query.time].type
    hint = _convert(query, times.combine) if type_.startswith("time") else _NO_UNIT
    return QueryRefused(f"read {query.table}: {query.time} has type {type_}, which is not a time", hint=hint)


def _convert(query: Query, example: str) -> str:
    if query.time_sql is not None:
        return f'Correct `time_sql`, as in time_sql = "{example.format(time="COLUMN")}".'
    return f'Write `time_sql` instead of `time`, as in time_sql = "{example.format(time=query.time)}".'


def is_plausible(epoch: float | None) -> bool:
    """Whether a time is that of a present row."""
    return epoch is not None and PLAUSIBLE[0] <= epoch <= PLAUSIBLE[1]


def _is_nothing(value: object) -> bool:
    return value == 0 or _NO_TIME.fullmatch(_text(value)) is not None


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _sample(query: Query) -> sa.Select[Any]:
    """Select stored times and their epochs among the newest rows: plausible ones first, then the newest."""
    table = table_of(query.ids_by_time)
    identity, time, epoch = table.c[query.id], time_of(query, table), epoch_of(query, table)
    if query.time_form is not TimeForm.NUMBER:  # a text may be long
        time = Beginning(time)
    labelled = [column.label(f"shipper_{n}") for n, column in enumerate((identity, time, epoch))]
    newest_rows = (
        sa.select(*labelled).where(identity.is_not(None)).order_by(identity.desc()).limit(NEWEST_ROWS).subquery()
    )
    newest_id, value, moment = newest_rows.c
    is_bad = sa.case((moment.between(*PLAUSIBLE), 0), else_=1)
    return sa.select(value, moment).where(value.is_not(None)).order_by(is_bad, newest_id.desc()).limit(SAMPLE)


def _type(query: Query) -> sa.Select[Any]:
    """Select a query's time of no row: the answer has its type. Aggregates are no times: WHERE rejects them."""
    table = table_of(query.ids_by_time)
    time = time_of(query, table)
    return sa.select(time.label("shipper_time")).select_from(table).where(time.is_not(None)).limit(0)
