"""Edge. One database: what a table's largest id is, and what a range of its ids holds.

With statement.py, measure.py, dialect.py and connect.py the only module that knows SQL.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import sqlalchemy as sa

from shipper.errors import QueryRefused, SourceUnavailable
from shipper.model import ALWAYS, MAX_ID, Kind, Measure, Observation, Query, Row, Span, Window
from shipper.source.connect import Access, Overflow, engine, translated
from shipper.source.dialect import Epoch, ServerTime
from shipper.source.explain import reads_range
from shipper.source.measure import traced
from shipper.source.statement import counted, first_unfit, labels_of, rows_of, smallest, table_of, utc


class Source:
    """One database, for any number of threads."""

    def __init__(self, name: str, access: Access, *, threads: int = 1) -> None:
        """Connect nowhere yet."""
        self.name = name
        self._access = access
        self._engine = engine(access, threads=threads)

    def __str__(self) -> str:
        return str(self._access)

    def observe(self, query: Query) -> Observation:
        """Read the table's largest id and the source's time.

        Raises:
            SourceUnavailable: no answer, or not in time.
            QueryRefused: the database will not run it.
        """
        table = table_of(replace(query, by=(), where=(), measures=(), time=None))
        statement = sa.select(sa.func.max(table.c[query.id]), ServerTime()).select_from(table)
        with self._connected(f"observe {query.table}") as connection:
            largest, source_time = connection.execute(statement).one()
        clock = time.monotonic()
        if largest is not None and not (isinstance(largest, int) and 0 <= largest <= MAX_ID):
            raise QueryRefused(
                f"observe {query.table}: {query.id} holds {largest!r}, which is not an id",
                hint="`id` names a column of integers that only grow, from 1 to 2^64 - 1.",
            )
        return Observation(id=largest or 0, time=int(source_time), clock=clock)

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """Find where the table goes on: see shipper.scan.Source."""
        table = table_of(replace(query, by=(), where=(), measures=(), time=None))
        identity = table.c[query.id]
        statement = sa.select(sa.func.min(identity)).where(identity > after, identity <= upto)
        with self._connected(f"look for ids of {query.table} above {after}") as connection:
            return connection.execute(statement).scalar_one() or upto

    def newest(self, query: Query, upto: int) -> tuple[int, int | None]:
        """Find the row that stands at an id: see shipper.scan.Source."""
        asked = replace(query, by=(), where=(), measures=(), time=None if query.sql else query.time)
        table = table_of(asked)
        identity = table.c[query.id]
        epoch = Epoch(table.c[asked.time]) if asked.time else sa.null()
        statement = sa.select(identity, epoch).where(identity <= upto).order_by(identity.desc()).limit(1)
        with self._connected(f"look for the row of {query.table} at {upto}") as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            return 0, None
        return row[0], None if row[1] is None else utc(int(row[1]), query.zone)

    def first_in(self, query: Query, window: Window, span: Span, *, open_above: int | None = None) -> int | None:
        """Find the smallest id of a row in a span of time: see shipper.scan.Source."""
        if query.sql is not None:  # only the statement knows the time: all of the window, or nothing
            found = [row for row in self.read(query, window, span) if row.bucket is not None]
            return window.after + 1 if found else None
        statement = smallest(query, window, span, open_above)
        with self._connected(f"look for rows of {query.table} {window}") as connection:
            first: int | None = connection.execute(statement).scalar_one()
        return first

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
        with self._connected(f"read {query.table} {window}") as connection:
            rows = rows_of(query, connection.execute(counted(query, window, span)), span)
            # what a group comes to is known; of what the statement left out, look for the first
            found: dict[str, tuple[int, object]] = {}
            for column in {refusal.column for row in rows for refusal in row.refused if refusal.value is None}:
                for first in connection.execute(first_unfit(query, window, span, column)):
                    found[column] = (first[0], first[1])
        return traced(rows, found)

    def prepared(self, query: Query) -> Query:
        """Return the query as it is, or a statement of one's own with its measures, having had it explained.

        Raises:
            QueryRefused: it would read the whole table for each window, or lacks a column.
        """
        if query.sql is None:
            return query
        window = Window(0, 1)
        with self._connected("explain sql") as connection:
            is_range = reads_range(connection, query, window)
            columns = list(connection.execute(counted(query, window, ALWAYS)).keys())
        if not is_range:
            raise QueryRefused(
                f"explain sql: it reads the whole table for each window, no range of {query.id}",
                hint=f"Write the plain column in its range, as in `WHERE {query.id} > :after AND {query.id} <= :upto`.",
            )
        measures = tuple(Measure(name, Kind.SUM, name) for name in labels_of(query, columns))
        return replace(query, measures=measures)

    def version(self) -> str:
        """Return the server's version, having connected."""
        with self._connected("connect") as connection:
            info = connection.dialect.server_version_info or ()
            kind = "MariaDB" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name
        return f"{kind} {'.'.join(str(part) for part in info if isinstance(part, int))}"

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    @contextmanager
    def _connected(self, step: str) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
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
