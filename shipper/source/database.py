"""One database: what a table's largest id is, and what a range of its ids holds.

With statement.py, measure.py, dialect.py and connect.py the only module that knows SQL.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count as counted_up
from typing import Any

import sqlalchemy as sa

from shipper.core.errors import QueryRefused, SourceUnavailable
from shipper.core.id_set import FULL
from shipper.core.measures import Kind, Measure
from shipper.core.model import ALWAYS, MAX_ID, Fingerprint, Ids, Observation, Query, Row, Span, Window
from shipper.source.catalog import is_unique, plain_engine
from shipper.source.connect import Access, engine, server_of, translated
from shipper.source.grants import transactional
from shipper.source.lock import check_files, is_own, lock
from shipper.source.measure import traced
from shipper.source.plan import planned
from shipper.source.statement import (
    DAY_SECONDS,
    bounds,
    counted,
    extremes,
    first,
    first_unfit,
    following,
    labels_of,
    largest,
    listed,
    newest,
    number_of,
    present,
    rows_of,
    smallest,
    uncountable,
    utc,
    utc_bucket,
)

KNOWN_ROWS = 16
"""By so many rows a table is known again; some of them may be deleted."""
LISTED = 1000
"""Ids of one statement: with some ten thousand MySQL reads the whole index instead."""
SPARSE_WORDS = 1000
"""Ids of which hardly two share a word, as of a clock's ids, are listed: so many words, each with less than two."""
SNAPSHOT_SECONDS = 0.05
"""No further job joins a snapshot that is so old: an ALTER TABLE waits for it, and every INSERT behind that."""
_BEGIN = {
    "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    "sqlite": "BEGIN",
}
_BEGIN_MYSQL = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"


_NUMBERS = counted_up(1)


class _Held(threading.local):
    """The connection that a thread has, for how many blocks it keeps it, and the snapshot that is open on it."""

    connection: sa.Connection | None = None
    number = 0
    """That of the connection; 0 where the next call takes another one."""
    wanted = 0
    snapshot: float | None = None
    """When it was opened, by the monotonic clock."""
    table = ""
    """Which table it was opened for."""
    inside = 0
    known: dict[Any, Any]
    """What was asked within, so that all jobs of the table ask it once."""

    def __init__(self) -> None:
        self.known = {}


class Source:
    """One database, for any number of threads."""

    def __init__(self, name: str, access: Access, *, threads: int = 1) -> None:
        """Connect nowhere yet."""
        self.name = name
        self._access = access
        self._engine = engine(access, threads=threads)
        self._unique: dict[tuple[str, str], bool] = {}
        self._sparse: dict[tuple[str, str], bool] = {}
        self._lockless: set[str] = set()
        """Tables of PostgreSQL that cannot be locked."""
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
        """Find where the table goes on: see Source."""
        with self._connected(f"look for ids of {query.table} above {after}") as connection:
            return connection.execute(first(query), bounds(query, Window(after, upto))).scalar_one() or upto

    def nth_id(self, query: Query, window: Window, rows: int, *, is_backward: bool = False) -> int | None:
        """Find the id of a row by counting: see Source."""
        with self._connected(f"look for ids of {query.table} {window}") as connection:
            values = bounds(query, window) | {"skipped": rows - 1}
            found: int | None = connection.execute(following(query, is_backward=is_backward), values).scalar()
        return found

    def newest(self, query: Query, upto: int) -> tuple[int, int | None]:
        """Find the row that stands at an id: see Source."""
        with self._connected(f"look for the row of {query.table} at {upto}") as connection:
            row = connection.execute(newest(query, 1), {"upto": upto}).one_or_none()
        if row is None:
            return 0, None
        return row[0], None if row[1] is None else utc(int(row[1]), query.time_zone)

    def first_in(self, query: Query, window: Window, span: Span) -> int | None:
        """Find the smallest id of a row in a span of time: see Source."""
        if query.sql is not None:  # only the statement knows the time: all of the window, or nothing
            found = [row for row in self.read(query, window, span) if row.bucket is not None]
            return window.after + 1 if found else None
        with self._connected(f"look for rows of {query.table} {window}") as connection:
            first_id: int | None = connection.execute(smallest(query), bounds(query, window, span)).scalar_one()
        return first_id

    def times(self, query: Query, window: Window) -> Span | None:
        """Find between which times the window's rows are: see Source."""
        if query.sql is not None:  # only the statement knows them
            buckets = [row.bucket for row in self.read(query, window) if row.bucket is not None]
            return Span(min(buckets), max(buckets) + query.bucket) if buckets else None
        with self._connected(f"look for times of {query.table} {window}") as connection:
            first, last = connection.execute(extremes(query), bounds(query, window)).one()
        if first is None:
            return None
        # a zone's clock goes back once a year: the extremes are its own to the day only
        margin = 0 if query.time_zone == "UTC" else DAY_SECONDS
        return Span(utc(int(first), query.time_zone) - margin, utc(int(last), query.time_zone) + 1 + margin)

    def read(self, query: Query, rows: Window | Ids, span: Span = ALWAYS) -> list[Row]:
        """Count rows by bucket and group: see Source."""
        if isinstance(rows, Window):
            return self._read(query, rows, span)
        return [row for part in batched(rows, LISTED) for row in self._read(query, part, span)]

    def _read(self, query: Query, rows: Window | Ids, span: Span) -> list[Row]:
        if is_own(query) and self._engine.dialect.name == "postgresql" and not self._held.inside:
            with self.snapshot(query, since=time.monotonic()):  # only so it is known whether a table was rewritten
                return self._read(query, rows, span)
        kind = {"is_within": span != ALWAYS, "are_listed": not isinstance(rows, Window)}
        values = bounds(query, rows, span)
        with self._connected(f"read {query.table} {_brief(rows)}") as connection:
            found = rows_of(query, connection.execute(counted(query, **kind), values), span)
            if self._held.snapshot is not None and connection.dialect.name == "postgresql":
                check_files(connection, query, self._lockless)
            # what a group comes to is known; of what the statement left out, look for the first
            unfit: dict[str, tuple[int, object]] = {}
            for column in {refusal.column for row in found for refusal in row.rejected_values if refusal.value is None}:
                for one in connection.execute(first_unfit(query, column, **kind), values):
                    unfit[column] = (one[0], one[1])
        return traced(found, unfit) if unfit else found

    def count(self, query: Query, window: Window) -> int:
        """Count the window's rows: see Source."""
        with self._connected(f"count the rows of {query.table} {window}") as connection:
            found: int = connection.execute(number_of(query), bounds(query, window)).scalar_one()
        return found

    def words(self, query: Query, rows: Window | Ids, span: Span | None = None) -> dict[int, int]:
        """Find which ids are there: see Source."""
        if span is not None:
            found: dict[int, int] = {}
            for bucket, words in self.words_by(query, rows).items():
                if bucket is not None and bucket in span:
                    for key, bits in words.items():
                        found[key] = found.get(key, 0) | bits
            return found
        return self.words_by(replace(query.ids_only, time=None), rows).get(None, {})

    def words_by(self, query: Query, rows: Window | Ids) -> dict[int | None, dict[int, int]]:
        """Find which ids are there, by bucket: see Source."""
        query = replace(query.ids_only, time=None if query.sql else query.time)
        if (known := self._recall((query, rows))) is not None:
            return dict(known)
        found: dict[int | None, dict[int, int]] = {}
        for part in [rows] if isinstance(rows, Window) else batched(rows, LISTED):
            for epoch, word, bits, count in self._present(query, part):
                bits &= FULL  # noqa: PLW2901 - PostgreSQL's integers have a sign
                if bits.bit_count() != count:
                    raise QueryRefused(
                        f"read {query.table} {_brief(rows)}: {count} rows have {bits.bit_count()} different {query.id}",
                        hint="`id` must name a column in which no two rows have the same value.",
                    )
                words = found.setdefault(None if epoch is None else utc_bucket(int(epoch), query), {})
                words[word] = words.get(word, 0) | bits
        self._remember((query, rows), found)
        return found

    def _present(self, query: Query, rows: Window | Ids) -> Iterable[tuple[int | None, int, int, int]]:
        key = (query.table, query.id)
        if query.time is None and self._sparse.get(key) and isinstance(rows, Window):
            with self._connected(f"list the ids of {query.table} {rows}") as connection:
                ids: list[int] = list(connection.execute(listed(query), bounds(query, rows)).scalars())
            counts = Counter(ids)
            self._sparse[key] = len({one // 64 for one in counts}) * 2 > len(counts)
            return [(None, one // 64, 1 << one % 64, count) for one, count in counts.items()]
        statement = present(query, are_listed=not isinstance(rows, Window))
        with self._connected(f"look for ids of {query.table} {_brief(rows)}") as connection:
            answer = connection.execute(statement, bounds(query, rows)).all()
        found = [(row[0], int(row[1]), int(row[2]), row[3]) for row in answer]
        if len(found) >= SPARSE_WORDS:
            self._sparse[key] = sum(row[3] for row in found) < 2 * len(found)
        return found

    def uncountable(self, query: Query) -> int:
        """Count the rows whose id is none: see Source."""
        with self._connected(f"look for rows of {query.table} without an id") as connection:
            found: int = connection.execute(uncountable(query)).scalar_one()
        return found

    def is_unique(self, query: Query) -> bool:
        """Say whether the catalogue proves that no two rows have the same id: see Source."""
        key = (query.table, query.id)
        if key not in self._unique:
            with self._connected(f"look at the keys of {query.table}") as connection:
                self._unique[key] = is_unique(connection, *key)
        return self._unique[key]

    def fingerprint(self, query: Query, upto: int) -> Fingerprint:
        """Say by what the table is known again: see Source."""
        with self._connected(f"look for the rows of {query.table} up to {upto}") as connection:
            rows = connection.execute(newest(query, KNOWN_ROWS), {"upto": upto}).all()
            server = self._server(connection)
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
            QueryRefused: it would read the whole table for each window, or lacks a column; or no look at the table
                would be of one moment.
        """
        self._check_engine(query)
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

    def _check_engine(self, query: Query) -> None:
        if self._access.kind in {"postgresql", "sqlite"}:
            return
        with self._connected(f"look at the engine of {query.table}") as connection:
            name = plain_engine(connection, query.table)
        if name is not None:
            raise QueryRefused(
                f"look at {query.table}: its engine, {name}, has no transactions, and so no look is of one moment",
                hint=f"Give it one that has: {transactional(self._access, query.table)}",
            )

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    @property
    def connection_number(self) -> int:
        """Return which connection this thread has: see Source."""
        return self._held.number

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let all statements of this thread within have one connection: to take one costs as much as to ask one."""
        self._held.wanted += 1
        try:
            yield
        finally:
            self._held.wanted -= 1
            if not self._held.wanted:
                self._release()

    @contextmanager
    def snapshot(self, query: Query, *, since: float = -math.inf) -> Iterator[None]:
        """Let all statements of this thread within see the table as it is at one moment: see Source."""
        held = self._held
        with self.held():
            if not held.inside and not self._may_join(query, since):
                self._end_snapshot()
                self._begin_snapshot(query)
            held.inside += 1
            try:
                yield
            finally:
                held.inside -= 1

    def _server(self, connection: sa.Connection) -> str | None:
        """Return the server's name; each connection asks once."""
        if "server" not in connection.info:
            connection.info["server"] = server_of(connection)
        found: str | None = connection.info["server"]
        return found

    def _may_join(self, query: Query, since: float) -> bool:
        begun = self._held.snapshot
        is_young = begun is not None and begun >= since and time.monotonic() - begun < SNAPSHOT_SECONDS
        return is_young and self._held.table == query.table

    def _begin_snapshot(self, query: Query) -> None:
        with self._connected(f"look at {query.table}") as connection:
            self._server(connection)  # where nobody may ask for that, it would end the transaction
            begin = _BEGIN.get(connection.dialect.name, _BEGIN_MYSQL)
            begun = time.monotonic()
            connection.exec_driver_sql(begin)
            self._held.snapshot, self._held.table = begun, query.table
            if connection.dialect.name == "postgresql" and not lock(connection, query, self._lockless):
                connection.exec_driver_sql("ROLLBACK")
                connection.exec_driver_sql(begin)

    def _end_snapshot(self, how: str = "COMMIT") -> None:
        held = self._held
        if held.snapshot is None:
            return
        held.snapshot = None
        held.known.clear()
        if held.connection is None:
            return
        try:
            held.connection.exec_driver_sql(how)
        except sa.exc.SQLAlchemyError:  # it ends with its connection, which may be gone already
            connection, held.connection, held.number = held.connection, None, 0
            with suppress(sa.exc.SQLAlchemyError):
                connection.invalidate()
                connection.close()

    def _recall(self, key: object) -> Any:
        """Return what was asked within this snapshot."""
        return self._held.known.get(key) if self._held.inside else None

    def _remember(self, key: object, answer: object) -> None:
        if self._held.inside:
            self._held.known[key] = answer

    def _release(self) -> None:
        self._end_snapshot()
        connection, self._held.connection, self._held.number = self._held.connection, None, 0
        if connection is not None:
            connection.close()

    @contextmanager
    def _connected(self, step: str) -> Iterator[sa.Connection]:
        held = self._held
        if held.inside and held.snapshot is None:
            raise SourceUnavailable(f"{step}: its snapshot has ended")
        try:
            if held.snapshot is not None and not held.inside:
                self._end_snapshot()  # what is asked outside sees what is new
            if held.connection is None:
                held.connection, held.number = self._engine.connect(), next(_NUMBERS)
            is_kept = False
            try:
                yield held.connection
                is_kept = held.wanted > 0
            finally:
                if not is_kept:
                    self._end_snapshot("ROLLBACK")
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


def batched(ids: Ids, size: int) -> Iterable[Ids]:
    """Divide ids into parts of at most that size."""
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _brief(rows: Window | Ids) -> str:
    return str(rows) if isinstance(rows, Window) else f"{len(rows)} ids from {rows[0]}"
