"""Rows of a statement's result: buckets, groups and exact numbers.

Strategy: Carbon accepts an infinity and can never return the sum again. Therefore the database leaves out each value
that Carbon could not hold and keeps the other values of its group. Values left out are counted, located and logged.
"""

import codecs
import decimal
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from shipper.core.errors import QueryRefused
from shipper.core.measures import Value, exact
from shipper.core.model import ALWAYS, Group, Query, RejectedValue, Row, Span
from shipper.core.paths import brief, label
from shipper.core.rows.totals import MOST
from shipper.source.dialects.expressions import BINARY, CUT
from shipper.source.limits import MOST_COUNT, AnswerUnusable, whole
from shipper.source.statements.clauses import DAY_SECONDS, QUARTER_SECONDS, UTC_MARK
from shipper.source.statements.counts import Offsets, measured

PLACES = 400
"""Decimal places that are kept: more than any double has, and few enough to add exactly."""
_END = len("...") + 64
"""Length of what `label` adds to the beginning of a long value."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NO_DATE = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d(\.\d+)?)?")
"""What PyMySQL returns for a date of MySQL that does not exist: 0000-00-00, 2026-11-00."""
_WIDE = decimal.Context(prec=1000, traps=[])


def rows_of(query: Query, result: sa.CursorResult[Any]) -> list[Row]:
    """Return the rows of `counted`.

    Raises:
        QueryRefused: a value is not of the type that the query needs.
    """
    return _custom_rows(query, result) if query.sql is not None else list(counts_of(query, result.all()))


def within(rows: list[Row], span: Span) -> list[Row]:
    """Return the rows whose bucket is in a span, and those without one."""
    return rows if span == ALWAYS else [row for row in rows if row.bucket is None or row.bucket in span]


def undivided_rows(query: Query, result: sa.CursorResult[Any], span: Span) -> list[Row]:
    """Return the rows of `undivided` whose bucket is in a span."""
    rows = []
    groups_end = 1 + len(query.by)
    for row in result.all():
        rest = iter(row[groups_end:])
        values = tuple(
            None if measure.kind.is_divisible else whole(next(rest), 0, MOST_COUNT) for measure in query.measures
        )
        rows.append(Row(int(row[0]), group_of(row[1:groups_end]), 0, values))
    return [row for row in rows if row.bucket is not None and row.bucket in span]


def unambiguous(query: Query, rows: list[Row]) -> list[Row]:
    """Leave out the values of groups that differ only in bytes that are no text: their texts share a series."""
    counts = Counter(row[:2] for row in rows)
    return [
        row
        if counts[row[:2]] == 1
        else row._replace(
            values=(None,) * len(row.values), rejected_values=(RejectedValue(", ".join(query.by), 1, group=row.group),)
        )
        for row in rows
    ]


def offsets_of(zone: str, span: Span) -> Offsets:
    """Return the differences from a zone's clock to UTC around a span of UTC."""
    if zone == "UTC":
        return ()
    offsets: list[tuple[int, int]] = []
    first = span.start - DAY_SECONDS
    for local in range(first - first % QUARTER_SECONDS, span.end + DAY_SECONDS, QUARTER_SECONDS):
        offset = utc(local, zone) - local
        if not offsets or offsets[-1][1] != offset:
            offsets.append((local, offset))
    return tuple(offsets)


def labels_of(query: Query, columns: Sequence[str]) -> list[str]:
    """Return the measures of custom `sql`: all columns except labels and the bucket.

    Raises:
        QueryRefused: a column that the job names is missing.
    """
    for name in (*query.by, *([query.time] if query.time else [])):
        if name not in columns:
            raise QueryRefused(f"read by sql: its result has no column {name!r}", hint=f"It has: {', '.join(columns)}.")
    measures = [name for name in columns if name not in query.by and name != query.time]
    wrong = [name for name in measures if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name) or columns.count(name) > 1]
    if wrong or not measures:
        reason = f"the column {wrong[0]!r} cannot be a measure's name" if wrong else "its result has no measure"
        raise QueryRefused(
            f"read by sql: {reason}", hint="Give each counted column its own name, as in `COUNT(*) AS count`."
        )
    return measures


def utc(epoch: int, zone: str) -> int:
    """Return the epoch seconds of a zone's local time, which was read as if it were UTC.

    An hour that the clock shows twice, in autumn, counts as the first of the two.
    """
    if epoch > UTC_MARK // 2:  # no zone moves it
        return epoch - UTC_MARK
    return epoch if zone == "UTC" else epoch + _offset(epoch // QUARTER_SECONDS, zone)


def local(moment: int, zone: str) -> int:
    """Return the local time of a zone in epoch seconds, as if it were UTC."""
    if zone == "UTC":
        return moment
    there = datetime.fromtimestamp(moment, ZoneInfo(zone))
    return math.floor(there.replace(tzinfo=UTC).timestamp())


def utc_bucket(epoch: int, query: Query) -> int:
    """Return the bucket of a time that `counted` or `present` has grouped by."""
    if query.time_zone == "UTC":
        return epoch - epoch % query.bucket
    moment = utc(epoch, query.time_zone)
    return moment - moment % query.bucket


def group_of(values: Iterable[bytes | str | None]) -> Group:
    """Return group values as text, from those that `counted` selects."""
    return tuple([_label(value) for value in values])


def _label(value: bytes | str | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise AnswerUnusable(f"{brief(value)} is not a text")
    if value[:1] == BINARY:
        return shown(value[1:])
    if value[:1] == CUT:
        return f"{_shown_beginning(value[1:-_END])}{value[-_END:].decode()}"
    return value.decode("utf-8", "backslashreplace")


def _shown_beginning(value: bytes) -> str | None:
    """Return the beginning of bytes as `shown` does; it may end within a character."""
    with suppress(UnicodeDecodeError):
        _, length = codecs.utf_8_decode(value, "strict", False)
        return shown(value[:length])
    return shown(value)


def shown(value: object) -> str | None:
    """Return any value of a driver as text; bytes that are no printable UTF-8 in hexadecimal digits."""
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            if not _CONTROL.search(text := value.decode()):
                return text
        return value.hex()
    if isinstance(value, bool):
        return "true" if value else "false"  # as PostgreSQL writes them
    return None if value is None else str(value)


def numbers(
    named: Iterable[tuple[str, object]], rows: int, group: Group
) -> tuple[list[Value | None], list[RejectedValue]]:
    """Return exact numbers, None for those that Carbon could not hold, and these as rejected values."""
    values: list[Value | None] = []
    rejected = []
    for column, value in named:
        values.append(number(value, column))
        if values[-1] is None and value is not None:
            rejected.append(RejectedValue(column, rows, brief(value), group=group))
    return values, rejected


def number(value: object, column: str) -> Value | None:
    """Return an exact number, None for one that Carbon could not hold.

    Raises:
        QueryRefused: the value is not a number.
    """
    if value is None:
        return None
    if isinstance(value, float):
        value = decimal.Decimal(repr(value))
    if not isinstance(value, int | decimal.Decimal):
        raise QueryRefused(
            f"read measure: the result of {column} is {brief(value)}, which is not a number",
            hint="Measure a numeric column, and leave such rows out with `where` or `where_sql`.",
        )
    is_finite = isinstance(value, int) or value.is_finite()
    if not is_finite or not -MOST <= value <= MOST:
        return None
    return int(value) if isinstance(value, int) else exact(_short(value))


def traced(rows: list[Row], first: dict[str, tuple[int, object]]) -> list[Row]:
    """Add, to the values that the database left out of a column, the id and the value of the first of them."""

    def with_id(rejected: RejectedValue) -> RejectedValue:
        if rejected.value is not None or rejected.column not in first:
            return rejected
        identity, value = first[rejected.column]
        return rejected._replace(id=identity, value=brief(_number_of(value)))

    return [
        row._replace(rejected_values=tuple(map(with_id, row.rejected_values))) if row.rejected_values else row
        for row in rows
    ]


def _number_of(value: object) -> object:
    """Return the number that a text is, if it is one."""
    if not isinstance(value, str):
        return value
    try:
        exact_number = decimal.Decimal(value)
    except decimal.InvalidOperation:
        return value
    return exact_number if exact_number.is_finite() else float(exact_number)


def counts_of(query: Query, answer: Iterable[Sequence[Any]]) -> Iterator[Row]:
    """Yield the rows of `counted` from those of an answer."""
    count_at, are_counts = len(query.by) + 1, all(measure.column is None for measure in query.measures)
    for row in answer:
        epoch, group, count = row[0], group_of(row[1:count_at]), whole(row[count_at], 1, MOST_COUNT)
        bucket = None if epoch is None else utc_bucket(int(epoch), query)
        if are_counts:  # the usual case, with many rows
            yield Row(bucket, group, count, (count,) * len(query.measures))
            continue
        values, rejected = _values_of(query, count, row[count_at + 1 :], group)
        yield Row(bucket, group, count, tuple(values), tuple(rejected))


def _custom_rows(query: Query, result: sa.CursorResult[Any]) -> list[Row]:
    columns = list(result.keys())
    labels_of(query, columns)
    rows = []
    for row in result.mappings():
        group = tuple([None if (text := shown(row[name])) is None else label(text) for name in query.by])
        count = number(row.get("count"), "count")
        count = count if isinstance(count, int) and abs(count) <= MOST_COUNT else 1
        values, rejected = numbers([(measure.name, row[measure.name]) for measure in query.measures], 1, group)
        bucket = None if query.time is None else _custom_bucket(row[query.time], query, query.time)
        rows.append(Row(bucket, group, count, tuple(values), tuple(rejected)))
    return rows


def _values_of(
    query: Query, rows: int, cells: Iterable[Any], group: Group
) -> tuple[list[Value | None], list[RejectedValue]]:
    """Return the divisible measures of a row; a total of fit values may itself be too large."""
    rest = iter(cells)
    named = [
        (column or name, None if not kind.is_divisible else next(rest) if column else rows)
        for name, kind, column in query.measures
    ]
    values, rejected = numbers(named, rows, group)
    for column, left_out in zip(measured(query), rest, strict=True):
        if left_out:
            rejected.append(RejectedValue(column, whole(left_out, 1, rows)))
    return values, rejected


def _custom_bucket(value: object, query: Query, column: str) -> int | None:
    """Return the bucket of an event time of custom `sql`; `time_zone` moves only times without a zone."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    epoch = _epoch(value, column)
    if epoch is None:
        return None
    is_local = isinstance(value, date) and not (isinstance(value, datetime) and value.tzinfo)
    return utc_bucket(epoch, query) if is_local else epoch - epoch % query.bucket


def _epoch(value: object, column: str) -> int | None:
    """Return the event time of custom `sql`: epoch seconds, or a time, which is UTC without a zone."""
    if isinstance(value, datetime):
        return math.floor((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, date):
        return math.floor(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
    if value is None or (isinstance(value, float | decimal.Decimal) and not math.isfinite(value)):
        return None
    if isinstance(value, int | float | decimal.Decimal):
        return math.floor(value)
    if isinstance(value, str) and _NO_DATE.fullmatch(value):
        return None
    raise QueryRefused(
        f"read by sql: {column} is {value!r:.60}, which is not a time", hint="Select a time or an epoch."
    )


def _short(value: decimal.Decimal) -> decimal.Decimal:
    """Round to PLACES; PostgreSQL's NUMERIC has up to 16383."""
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -PLACES:
        return value.quantize(decimal.Decimal(1).scaleb(-PLACES), context=_WIDE)
    return value


@lru_cache(20_000)
def _offset(quarter: int, zone: str) -> int:
    """Return the difference from a zone's clock to UTC, in seconds."""
    naive = quarter * QUARTER_SECONDS
    try:
        local = datetime.fromtimestamp(naive, UTC).replace(tzinfo=ZoneInfo(zone))
        return math.floor(local.timestamp()) - naive
    except (OverflowError, ValueError):  # at either end of the calendar
        return 0
