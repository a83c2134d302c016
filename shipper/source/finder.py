"""Where rows are in a table: their ids, their times, and how many they are."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

from typing_extensions import override

from shipper.core.errors import QueryRefused, RowRefused
from shipper.core.model import Fingerprint, Observation, Query, Span, TimeForm, Window
from shipper.core.paths import brief
from shipper.core.rows import table
from shipper.source.access import Access, LoginRefused
from shipper.source.connections.connection import Connections
from shipper.source.limits import MOST_COUNT, whole
from shipper.source.result import local, utc
from shipper.source.statements.clauses import DAY_SECONDS, LAST_SECOND, MINUTE_SECONDS, beginning_of, bounds
from shipper.source.statements.counts import extremes, minutes
from shipper.source.statements.ids import (
    beyond,
    first,
    following,
    largest,
    newest,
    number_of,
    smallest,
    timed,
    uncountable,
)
from shipper.source.tables.catalog import described, is_indexed, is_unique
from shipper.source.tables.grants import without_id

INDEX_SECONDS = 60.0
"""Time for which an index is expected to stay: without it each search reads the table."""
NO_ROWS = Window(2**63 - 2, 2**63 - 1)
"""Window at the end of a BIGINT, where no sequence comes."""
NOT_AN_ID = "Set `id` to a column of growing integers, from 1 to 2^64 - 1."


class Finder(table.Source):
    """Search for rows in the tables of one database; it does not count their groups."""

    def __init__(self, connections: Connections, access: Access) -> None:
        """Ask through these connections."""
        self.connections = connections
        self.access = access
        self._unique: dict[tuple[str, str], bool] = {}
        self._indexed: dict[tuple[str, str], tuple[float, bool]] = {}
        """Whether an index begins with a column of a table, and when that was asked."""

    def observe(self, query: Query) -> Observation:
        """Read the table's largest id and the source's time.

        Raises:
            SourceUnavailable: no answer, or not in time.
            QueryRefused: the database rejects it.
        """
        with self._with_id(query), self.connections.connected(f"read {query.table}") as connection:
            identity, source_time = connection.execute(largest(query)).one()
            clock = time.monotonic()
            moment = whole(source_time, 0, LAST_SECOND)
            now = self.local(query, moment)
            if query.is_along:  # rows ahead of the clock are looked at when their time comes
                row = connection.execute(newest(query), self._upto(query, now, rows=1)).first()
                identity = 0 if row is None else row[0]
            elif identity is not None and not _is_id(identity, self.connections.dialect.CATALOG.largest_id):
                raise QueryRefused(
                    f"read {query.table}: {query.id} holds {brief(identity)}, which is not an id",
                    hint=NOT_AN_ID,
                )
        if query.is_along and not _is_second(identity, 0, now):
            identity = self._nth_second(query, Window(0, now), 1, is_backward=True)
        return Observation(id=max(0, int(identity or 0)), time=moment, clock=clock)

    @contextmanager
    def _with_id(self, query: Query) -> Iterator[None]:
        """Explain an error by the type of the id column, if that is the reason."""
        try:
            yield
        except LoginRefused:
            raise
        except QueryRefused as error:
            with self.connections.connected(f"look at {query.table}") as connection:
                known = described(connection, query.table)
            column = known.columns.get(query.id)
            if query.is_along or column is None or (column.is_integer and error.hint != NOT_AN_ID):
                raise
            wrong = f"read {query.table}: {query.id} has type {column.type}, which is not an id"
            hint = without_id(self.access, query.table, query.id, column.type, is_view=known.is_view)
            raise QueryRefused(str(error) if column.is_integer else wrong, hint=hint) from error

    @override
    def first_id(self, query: Query, after: int, upto: int) -> int:
        with self.connections.connected(f"look for ids of {query.table} above {after}") as connection:
            row = connection.execute(first(query), bounds(query, Window(after, upto))).first()
            if row is None or not query.is_along:
                return upto if row is None or row[0] is None else whole(row[0], after + 1, upto)
        is_first = _is_second(row[0], after + 1, upto)
        if is_first and not self.connections.has_types and row[0] > after + 1:  # a text may be of another time
            is_first = self.count(query, Window(after, int(row[0]) - 1)) == 0
        return int(row[0]) if is_first else self._nth_second(query, Window(after, upto), 1) or upto

    @override
    def nth_id(self, query: Query, window: Window, rows: int, *, is_backward: bool = False) -> int | None:
        with self.connections.connected(f"look for ids of {query.table}, {window}") as connection:
            values = bounds(query, window) | {"skipped": rows - 1}
            row = connection.execute(following(query, is_backward=is_backward), values).first()
            if row is None or not query.is_along:
                return None if row is None else whole(row[0], window.after + 1, window.upto)
        is_second = _is_second(row[0], window.after + 1, window.upto)
        return int(row[0]) if is_second else self._nth_second(query, window, rows, is_backward=is_backward)

    def _nth_second(self, query: Query, window: Window, rows: int, *, is_backward: bool = False) -> int | None:
        """Return the second in which the column sorts its nth value, which is no time or another one.

        Such are 2026-09-00 in MySQL, and 23:59:60 or an offset from UTC in texts of SQLite.
        """
        if self.count(query, window) < rows:
            return None
        low, high = window.after, window.upto
        while high - low > 1:
            middle = (low + high) // 2
            part = Window(middle, window.upto) if is_backward else Window(window.after, middle)
            if (self.count(query, part) >= rows) == is_backward:
                low = middle
            else:
                high = middle
        return high

    @override
    def newest(self, query: Query, upto: int) -> tuple[int, int | None]:
        try:
            with self.connections.connected(f"look for the row of {query.table} at {upto}") as connection:
                row = connection.execute(newest(query, is_marked=True), self._upto(query, upto, rows=1)).one_or_none()
                if row is None:
                    return 0, None
                return int(row[0]), None if row[1] is None else utc(int(row[1]), query.time_zone)
        except RowRefused:  # its time is unreadable
            if query == query.ids_only:
                raise
            return self.newest(query.ids_only, upto)

    @override
    def first_in(self, query: Query, window: Window, span: Span) -> int | None:
        try:
            if query.sql is not None:  # only the statement knows the time: the entire window, or nothing
                is_in = any(row.bucket is not None for row in self.read(query, window, span))
                return window.after + 1 if is_in else None
            with self.connections.connected(f"look for rows of {query.table}, {window}") as connection:
                identity = connection.execute(smallest(query), bounds(query, window, span)).scalar()
                return None if identity is None else whole(identity, window.after + 1, window.upto)
        except RowRefused:  # a row is unreadable: the entire window
            return window.after + 1

    @override
    def ids_in(self, query: Query, window: Window, span: Span) -> tuple[Window, int] | None:
        values = bounds(query, window, span)
        values |= {name: beginning_of(query, values[name]) for name in ("since", "before")}
        with self.connections.connected(f"look for rows of {query.table}, {window}") as connection:
            first, last, rows = connection.execute(timed(query), values).one()
            if not rows:
                return None
            last = whole(last, window.after + 1, window.upto)
            return Window(whole(first, window.after + 1, last) - 1, last), whole(rows, 1, MOST_COUNT)

    @override
    def has_index_of_time(self, query: Query) -> bool:
        is_plain = (query.time_zone, query.time_unit, query.time_form) == ("UTC", None, TimeForm.TIME)
        if query.time is None or query.sql or query.time_sql or not is_plain or not self.connections.has_types:
            return False
        key, now = (query.table, query.time), time.monotonic()
        asked, answer = self._indexed.get(key, (-math.inf, False))
        if now - asked > INDEX_SECONDS:
            with self.connections.connected(f"look at the indices of {query.table}") as connection:
                answer = is_indexed(connection, *key)
            self._indexed[key] = now, answer
        return answer

    @override
    def times(self, query: Query, window: Window) -> Span | None:
        try:
            return self._times(query, window)
        except RowRefused:  # a row is unreadable: the times of the others
            if window.upto - window.after == 1:
                self._times(query, NO_ROWS)  # a mistake in the configuration fails here, too
                return None
        middle = (window.after + window.upto) // 2
        halves = (self.times(query, Window(*ends)) for ends in ((window.after, middle), (middle, window.upto)))
        spans = [span for span in halves if span is not None]
        return Span(min(span.start for span in spans), max(span.end for span in spans)) if spans else None

    def _times(self, query: Query, window: Window) -> Span | None:
        if query.sql is not None:  # only the statement knows times
            buckets = [row.bucket for row in self.read(query, window) if row.bucket is not None]
            return Span(min(buckets), max(buckets) + query.bucket) if buckets else None
        if query.time_zone != "UTC" and window.upto - window.after == 1:  # exact, without the margin below
            found, time = self.newest(query, window.upto)
            return Span(time, time + 1) if found == window.upto and time is not None else None
        with self.connections.connected(f"look for times of {query.table}, {window}") as connection:
            first, last = connection.execute(extremes(query), bounds(query, window)).one()
            if first is None:
                return None
            # a zone's clock goes back once a year: its extremes are exact to the day only
            margin = 0 if query.time_zone == "UTC" else DAY_SECONDS
            return Span(utc(int(first), query.time_zone) - margin, utc(int(last), query.time_zone) + 1 + margin)

    @override
    def count(self, query: Query, window: Window) -> int:
        with self.connections.connected(f"count the rows of {query.table}, {window}") as connection:
            return whole(connection.execute(number_of(query), bounds(query, window)).scalar_one(), 0, MOST_COUNT)

    @override
    def uncountable(self, query: Query) -> int:
        with self.connections.connected(f"look for rows of {query.table} without an id") as connection:
            values = {"after": beginning_of(query, MINUTE_SECONDS)}
            return whole(connection.execute(uncountable(query), values).scalar_one(), 0, MOST_COUNT)

    @override
    def local(self, query: Query, moment: int) -> int:
        return local(moment, query.time_zone) if query.time_unit is None else moment

    @override
    def minutes(self, query: Query, window: Window) -> dict[int, tuple[int, int]]:
        query = replace(query.bare, bucket=1)
        if (known := self.connections.recall((query, window))) is not None:
            return dict(known)
        with self.connections.connected(f"look for rows of {query.table} {window}") as connection:
            answers = connection.execute(minutes(query), bounds(query, window)).all()
            rows = [(minute, whole(number, 1, MOST_COUNT), int(checksum or 0)) for minute, number, checksum in answers]
        first = (window.after + 1) // MINUTE_SECONDS * MINUTE_SECONDS
        last = window.upto // MINUTE_SECONDS * MINUTE_SECONDS
        answer = {int(minute): (number, checksum) for minute, number, checksum in rows if minute is not None}
        if not all(_is_second(minute, first, last) for minute, *_ in rows):
            # values that are no times, or others, are in the minute where the column sorts them
            if first == last:
                answer = {first: (sum(row[1] for row in rows), sum(row[2] for row in rows))}
            else:
                middle = (first + last) // 2 // MINUTE_SECONDS * MINUTE_SECONDS + MINUTE_SECONDS - 1
                answer = self.minutes(query, Window(window.after, middle))
                answer |= self.minutes(query, Window(middle, window.upto))
        self.connections.remember((query, window), answer)
        return answer

    @override
    def beyond(self, query: Query, second: int) -> int:
        with self.connections.connected(f"look for rows of {query.table} in the future") as connection:
            later = {"after": beginning_of(query, second + 1)}
            return whole(connection.execute(beyond(query), later).scalar_one(), 0, MOST_COUNT)

    @staticmethod
    def _upto(query: Query, upto: int, *, rows: int) -> dict[str, Any]:
        return {"upto": beginning_of(query, upto + 1) if query.is_along else upto, "rows": rows}

    @override
    def is_unique(self, query: Query) -> bool:
        key = (query.table, query.id)
        if key not in self._unique:
            with self.connections.connected(f"look at the keys of {query.table}") as connection:
                self._unique[key] = is_unique(connection, *key)
        return self._unique[key]

    @override
    def fingerprint(self, query: Query, upto: int, *, more: int = 0) -> Fingerprint:
        if query.time_sql is not None:  # a row that makes it fail would stop the job
            query = query.ids_only
        with self.connections.connected(f"look for the rows of {query.table} up to {upto}") as connection:
            rows = connection.execute(newest(query), self._upto(query, upto, rows=table.KNOWN_ROWS + more)).all()
            server = self.connections.server_of(connection)
            # in any zone: fingerprints are compared with each other only
            return Fingerprint(server, tuple((int(row[0]), None if row[1] is None else int(row[1])) for row in rows))


def _is_id(value: object, largest_id: int) -> bool:
    """Return whether a value is an id: NUMERIC columns give decimals, also NaN."""
    if not isinstance(value, int | Decimal) or (isinstance(value, Decimal) and not value.is_finite()):
        return False
    return value == int(value) and 0 <= value <= largest_id


def _is_second(value: object, first: int, last: int) -> bool:
    """Return whether a value is a second from first to last: the time of a row may be none, or another one."""
    return isinstance(value, int | Decimal) and first <= value <= last
