"""Edge. One database: what a table's largest id is, and what a range of its ids holds.

With statement.py, measure.py, dialect.py and connect.py the only module that knows SQL.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import sqlalchemy as sa

from shipper.errors import QueryRefused, SourceUnavailable
from shipper.model import (
    ALWAYS,
    MAX_ID,
    Checksum,
    Evidence,
    Fingerprint,
    Kind,
    Measure,
    Observation,
    Query,
    Row,
    Span,
    Window,
)
from shipper.source import evidence
from shipper.source.connect import Access, Overflow, engine, server_of, translated
from shipper.source.explain import planned
from shipper.source.measure import traced
from shipper.source.statement import (
    DAY_SECONDS,
    bounds,
    counted,
    extremes,
    first_unfit,
    labels_of,
    largest,
    newest,
    rows_of,
    smallest,
    utc,
)

KNOWN_ROWS = 16
"""By so many rows a table is known again; some of them may be deleted."""


class _Held(threading.local):
    """The connection that a thread has, and whether it keeps it when a statement has ended well."""

    connection: sa.Connection | None = None
    is_wanted = False


class Source:
    """One database, for any number of threads."""

    def __init__(self, name: str, access: Access, *, threads: int = 1) -> None:
        """Connect nowhere yet."""
        self.name = name
        self._access = access
        self._engine = engine(access, threads=threads)
        self._leading: dict[tuple[str, str], bool] = {}
        self._held = _Held()

    def __str__(self) -> str:
        return str(self._access)

    def observe(self, query: Query) -> Observation:
        """Read the table's largest id and the source's time.

        Raises:
            SourceUnavailable: no answer, or not in time.
            QueryRefused: the database will not run it.
        """
        with self._connected(f"observe {query.table}") as connection:
            found, source_time = connection.execute(largest(query)).one()
        clock = time.monotonic()
        if found is not None and not (isinstance(found, int) and 0 <= found <= MAX_ID):
            raise QueryRefused(
                f"observe {query.table}: {query.id} holds {found!r}, which is not an id",
                hint="`id` names a column of integers that only grow, from 1 to 2^64 - 1.",
            )
        return Observation(id=found or 0, time=int(source_time), clock=clock)

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """Find where the table goes on: see shipper.scan.Source."""
        with self._connected(f"look for ids of {query.table} above {after}") as connection:
            return evidence.first_id(connection, query, Window(after, upto)) or upto

    def newest(self, query: Query, upto: int) -> tuple[int, int | None]:
        """Find the row that stands at an id: see shipper.scan.Source."""
        with self._connected(f"look for the row of {query.table} at {upto}") as connection:
            row = connection.execute(newest(query, 1), {"upto": upto}).one_or_none()
        if row is None:
            return 0, None
        return row[0], None if row[1] is None else utc(int(row[1]), query.zone)

    def first_in(self, query: Query, window: Window, span: Span, *, open_above: int | None = None) -> int | None:
        """Find the smallest id of a row in a span of time: see shipper.scan.Source."""
        if query.sql is not None:  # only the statement knows the time: all of the window, or nothing
            found = [row for row in self.read(query, window, span) if row.bucket is not None]
            return window.after + 1 if found else None
        statement = smallest(query, is_open=open_above is not None)
        values = bounds(query, window, span) | ({} if open_above is None else {"open_above": open_above})
        with self._connected(f"look for rows of {query.table} {window}") as connection:
            first: int | None = connection.execute(statement, values).scalar_one()
        return first

    def times(self, query: Query, window: Window) -> Span | None:
        """Find between which times the window's rows are: see shipper.scan.Source."""
        if query.sql is not None:  # only the statement knows them
            buckets = [row.bucket for row in self.read(query, window) if row.bucket is not None]
            return Span(min(buckets), max(buckets) + query.bucket) if buckets else None
        with self._connected(f"look for times of {query.table} {window}") as connection:
            first, last = connection.execute(extremes(query), bounds(query, window)).one()
        if first is None:
            return None
        # a zone's clock goes back once a year: the extremes are its own to the day only
        margin = 0 if query.zone == "UTC" else DAY_SECONDS
        return Span(utc(int(first), query.zone) - margin, utc(int(last), query.zone) + 1 + margin)

    def read(self, query: Query, window: Window, span: Span = ALWAYS) -> list[Row]:
        """Count the window's rows by bucket and group: see shipper.scan.Source.

        Where a sum overflows, each half of the window is counted by itself, and more than one row may have one group.
        """
        try:
            return self._read(query, window, span)
        except Overflow:
            middle = (window.after + window.upto) // 2
            if middle == window.after:  # one row alone does: an expression of the job's own
                raise
        halves = Window(window.after, middle), Window(middle, window.upto)
        return [row for half in halves for row in self.read(query, half, span)]

    def _read(self, query: Query, window: Window, span: Span) -> list[Row]:
        is_within, values = span != ALWAYS, bounds(query, window, span)
        with self._connected(f"read {query.table} {window}") as connection:
            rows = rows_of(query, connection.execute(counted(query, is_within=is_within), values), span)
            # what a group comes to is known; of what the statement left out, look for the first
            found: dict[str, tuple[int, object]] = {}
            for column in {refusal.column for row in rows for refusal in row.refused if refusal.value is None}:
                for first in connection.execute(first_unfit(query, column, is_within=is_within), values):
                    found[column] = (first[0], first[1])
        return traced(rows, found) if found else rows

    def count(self, query: Query, window: Window) -> int:
        """Count the window's rows: see shipper.scan.Source."""
        with self._connected(f"count the ids of {query.table} {window}") as connection:
            return evidence.count(connection, query, window)

    def checksum(self, query: Query, window: Window) -> Checksum:
        """Add up a window's ids: see shipper.recheck.Source."""
        with self._connected(f"add up the ids of {query.table} {window}") as connection:
            return evidence.checksum(connection, query, window)

    def evidence(self, query: Query, window: Window) -> Evidence:
        """Add up a window's ids, and find rows in flight where the guard is on: see shipper.scan.Source."""
        if self.unguarded(query) is not None:
            return _evidence(window, self.checksum(query, window))
        with self._connected(f"look for rows in flight of {query.table} {window}") as connection:
            checksum, in_flight = evidence.guarded(connection, query, window)
        return _evidence(window, checksum, in_flight)

    def unguarded(self, query: Query) -> str | None:
        """Return why the guard cannot see rows of this table that are in flight, None where it does."""
        if not self._access.guard:
            return "it is off"
        if self._access.lag_query is not None:
            return "a replica does not show what is in flight on its primary"
        if self._access.kind not in {"mysql", "mariadb"}:
            return f"{self._access.kind} does not show rows before they are committed"
        key = (query.table, query.id)
        if key not in self._leading:
            with self._connected(f"look at the keys of {query.table}") as connection:
                self._leading[key] = evidence.leads_primary_key(connection, query)
        return None if self._leading[key] else f"{query.id} is not the first column of the primary key"

    def fingerprint(self, query: Query, upto: int) -> Fingerprint:
        """Say by what the table is known again: see shipper.scan.Source."""
        with self._connected(f"look for the rows of {query.table} up to {upto}") as connection:
            rows = connection.execute(newest(query, KNOWN_ROWS), {"upto": upto}).all()
            if "server" not in connection.info:  # each connection asks once
                connection.info["server"] = server_of(connection)
            server: str | None = connection.info["server"]
        # whatever its zone is: it is compared with nothing but itself
        return Fingerprint(server, tuple((row[0], None if row[1] is None else int(row[1])) for row in rows))

    def lag(self) -> float:
        """Return how many seconds this replica is behind, 0 where no lag_query says that it is one.

        Raises:
            SourceUnavailable: nobody knows now.
            QueryRefused: the statement gives something else.
        """
        if self._access.lag_query is None:
            return 0.0
        with self._connected("read lag") as connection:
            answer = connection.exec_driver_sql(self._access.lag_query).scalar()
        if answer is None:
            raise SourceUnavailable("read lag: lag_query gave NULL", hint="Is replication running?")
        try:
            return max(0.0, float(answer))
        except (TypeError, ValueError) as error:
            raise QueryRefused(
                f"read lag: lag_query gave {answer!r:.60}, which is not a number", hint="Select seconds, or NULL."
            ) from error

    def prepared(self, query: Query) -> Query:
        """Return the query as it is, or a statement of one's own with its measures, having had it explained.

        Raises:
            QueryRefused: it would read the whole table for each window, or lacks a column.
        """
        if query.sql is None:
            return query
        window = Window(0, 1)
        with self._connected("explain sql") as connection:
            is_range = planned(connection, query, window).is_range
            columns = list(connection.execute(counted(query, is_within=False), bounds(query, window)).keys())
        if not is_range:
            raise QueryRefused(
                f"explain sql: it reads the whole table for each window, no range of {query.id}",
                hint=f"Write the plain column in its range, as in `WHERE {query.id} > :after AND {query.id} <= :upto`.",
            )
        measures = tuple(Measure(name, Kind.SUM, name) for name in labels_of(query, columns))
        return replace(query, measures=measures)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let all statements of this thread within have one connection: to take one costs as much as to ask one."""
        self._held.is_wanted = True
        try:
            yield
        finally:
            self._held.is_wanted = False
            self._release()

    def _release(self) -> None:
        connection, self._held.connection = self._held.connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def _connected(self, step: str) -> Iterator[sa.Connection]:
        held = self._held
        try:
            if held.connection is None:
                held.connection = self._engine.connect()
            is_kept = False
            try:
                yield held.connection
                is_kept = held.is_wanted
            finally:
                if not is_kept:
                    self._release()
        except sa.exc.TimeoutError as error:
            raise SourceUnavailable(f"{step}: all connections to {self.name} are busy") from error
        except sa.exc.DBAPIError as error:
            raise translated(error, step) from error
        except (sa.exc.StatementError, OverflowError) as error:
            message = str(error).partition("\n")[0]
            raise QueryRefused(f"{step}: {message}", hint="Check the values of `where`.") from error
        except RuntimeError as error:  # PyMySQL without cryptography, at MySQL 8's usual authentication
            if "cryptography" not in str(error):
                raise
            raise QueryRefused(f"{step}: {error}", hint="`pip install pymysql[rsa]`, or connect by TLS.") from error


def _evidence(window: Window, checksum: Checksum, in_flight: tuple[int, ...] = ()) -> Evidence:
    is_complete = checksum.rows == window.upto - window.after
    return Evidence(None if is_complete else checksum, in_flight)
