"""One database as a source: its largest id, and the rows in ranges of ids."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple

from typing_extensions import override

from shipper.core.errors import QueryRefused, RowRefused, SourceUnavailable, TooManyGroups
from shipper.core.id_set import ids_of, union_of
from shipper.core.model import ALWAYS, MAX_ID, Fingerprint, Ids, Observation, Query, RejectedValue, Row, Span, Window
from shipper.core.paths import brief
from shipper.core.rows import table
from shipper.source.access import Access, LoginRefused
from shipper.source.catalog import described, is_unique
from shipper.source.connections.connection import Connections
from shipper.source.connections.turns import Turns, Wait
from shipper.source.grants import without_id
from shipper.source.limits import MOST_COUNT, whole
from shipper.source.names import Lookups, same_names
from shipper.source.prepare import check_times, prepared
from shipper.source.present import PresentIds, brief_of, without
from shipper.source.result import (
    local,
    offsets_of,
    rows_of,
    traced,
    unambiguous,
    undivided_rows,
    utc,
    utc_bucket,
    within,
)
from shipper.source.statement import (
    DAY_SECONDS,
    LAST_SECOND,
    MINUTE_SECONDS,
    UTC_MARK,
    Same,
    beginning_of,
    beyond,
    bounds,
    counted,
    extremes,
    first,
    first_unfit,
    following,
    largest,
    minutes,
    newest,
    number_of,
    smallest,
    uncountable,
    undivided,
)
from shipper.source.times import is_plausible

KNOWN_ROWS = 16
"""Rows by which a table is recognized; some of them may be deleted."""
MOST_AT_ONCE = 100_000
"""Labels in an answer that cannot be halved: that of one second, or of indivisible measures."""
MOST_ASIDE = 100
"""Unreadable rows of one query; more of them are rather a mistake in its expressions."""
NO_ROWS = Window(2**63 - 2, 2**63 - 1)
"""Window at the end of a BIGINT, where no sequence comes."""


FEWER_GROUPS = "Group `by` fewer columns, or by columns with fewer values."
NOT_AN_ID = "Set `id` to a column of growing integers, from 1 to 2^64 - 1."


class _Aside(NamedTuple):
    """A row that makes a query fail."""

    error: str
    has_time: bool
    """Whether its time can be read, without the rest."""


class Source(table.Source):
    """One database, for any number of threads."""

    def __init__(self, name: str, access: Access, *, threads: int = 1, background: float = 1.0) -> None:
        """Prepare connections without connecting; background is the share of the time for background work."""
        self.name = name
        self.connections = Connections(name, access, threads=threads, background=background)
        self._access = access
        self._lookups = Lookups(self.connections)
        self._ids = PresentIds(self.connections, access)
        self._unique: dict[tuple[str, str], bool] = {}
        self._aside: dict[Query, dict[int, _Aside]] = {}
        """Unreadable rows, by their ids; queries that differ in `names` have the same ones."""

    def __str__(self) -> str:
        return str(self._access)

    def observe(self, query: Query) -> Observation:
        """Read the table's largest id and the source's time.

        Raises:
            SourceUnavailable: no answer, or not in time.
            QueryRefused: the database rejects it.
        """
        with self._with_id(query), self.connections.connected(f"observe {query.table}") as connection:
            identity, source_time = connection.execute(largest(query)).one()
            clock = time.monotonic()
            if query.is_along:  # rows ahead of the clock are looked at when their time comes
                row = connection.execute(newest(query, 1), self._upto(query, self.local(query, source_time))).first()
                identity = max(0, int(row[0])) if row is not None else 0
            moment = whole(source_time, 0, LAST_SECOND)
            if identity is not None and not _is_id(identity):
                raise QueryRefused(
                    f"observe {query.table}: {query.id} holds {brief(identity)}, which is not an id",
                    hint=NOT_AN_ID,
                )
        return Observation(id=int(identity or 0), time=moment, clock=clock)

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
            wrong = f"observe {query.table}: {query.id} has type {column.type}, which is not an id"
            hint = without_id(self._access, query.table, query.id, column.type, is_view=known.is_view)
            raise QueryRefused(str(error) if column.is_integer else wrong, hint=hint) from error

    @override
    def first_id(self, query: Query, after: int, upto: int) -> int:
        with self.connections.connected(f"look for ids of {query.table} above {after}") as connection:
            identity = connection.execute(first(query), bounds(query, Window(after, upto))).scalar()
            return upto if identity is None else whole(identity, after + 1, upto)

    @override
    def nth_id(self, query: Query, window: Window, rows: int, *, is_backward: bool = False) -> int | None:
        with self.connections.connected(f"look for ids of {query.table}, {window}") as connection:
            values = bounds(query, window) | {"skipped": rows - 1}
            identity = connection.execute(following(query, is_backward=is_backward), values).scalar()
            return None if identity is None else whole(identity, window.after + 1, window.upto)

    @override
    def newest(self, query: Query, upto: int) -> tuple[int, int | None]:
        try:
            with self.connections.connected(f"look for the row of {query.table} at {upto}") as connection:
                row = connection.execute(newest(query, 1, is_marked=True), self._upto(query, upto)).one_or_none()
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
        with self.connections.connected(f"look for times of {query.table}, {window}") as connection:
            first, last = connection.execute(extremes(query), bounds(query, window)).one()
            if first is None:
                return None
            # a zone's clock goes back once a year: its extremes are exact to the day only
            margin = 0 if query.time_zone == "UTC" else DAY_SECONDS
            return Span(utc(int(first), query.time_zone) - margin, utc(int(last), query.time_zone) + 1 + margin)

    @override
    def read(self, query: Query, rows: Window | Ids, span: Span = ALWAYS) -> list[Row]:
        found = self._aside_in(query, rows)
        counts = [row for part in without(rows, found) for row in self._read(query, part, span)]
        for bucket, one, number in self._present_of(query, found):
            if bucket is None or bucket in span:
                value = RejectedValue(query.id, number, found[one].error, one)
                nothing = (None,) * len(query.by), number, (None,) * len(query.measures)
                counts.append(Row(bucket, *nothing, (value,), True))
        return counts

    def _present_of(self, query: Query, ids: Iterable[int]) -> Iterator[tuple[int | None, int, int]]:
        """Yield bucket, id and number of rows of some ids; along a time, the ids are seconds."""
        if query.is_along:
            mark = 0 if query.time_unit is None or query.time_zone == "UTC" else UTC_MARK
            counts = ((one, self.count(query, Window(one - 1, one))) for one in ids)
            yield from ((utc_bucket(one + mark, query), one, rows) for one, rows in counts if rows)
        elif ids:
            for bucket, words in self.words_by(query, tuple(ids)).items():
                yield from ((bucket, one, 1) for one in ids_of(words))

    @override
    def renamed(self, query: Query, rows: list[Row]) -> list[Row]:
        return self._lookups.renamed(query, rows)

    def _aside_in(self, query: Query, rows: Window | Ids) -> dict[int, _Aside]:
        """Return the unreadable rows among others, in order."""
        aside = self._aside.get(replace(query, names=()), {}).copy() if self._aside else {}
        return {one: aside[one] for one in sorted(aside) if one in rows}

    @override
    def set_aside(self, query: Query, identity: int, error: RowRefused) -> None:
        aside = self._aside.setdefault(replace(query, names=()), {})
        if identity in aside:
            raise error
        if len(aside) >= MOST_ASIDE:
            raise QueryRefused(
                f"read {query.table}: {MOST_ASIDE} rows are unreadable, the last at {query.id} {identity}: {error}",
                hint="Change `where_sql` or the expression that fails, or leave such rows out.",
            ) from error
        self._read(query, NO_ROWS, ALWAYS)  # a mistake in the configuration fails here, too
        aside[identity] = _Aside(str(error), self._has_time(query, identity))

    def _has_time(self, query: Query, identity: int) -> bool:
        try:
            if not query.is_along:
                self._ids.words_by(query, (identity,))
        except RowRefused:
            return False
        return True

    @override
    def retry(self, query: Query) -> None:
        aside = self._aside.get(replace(query, names=()), {})
        for one in tuple(aside):
            with suppress(RowRefused):
                self._read(query, Window(one - 1, one), ALWAYS)
                aside.pop(one, None)

    @override
    def read_undivided(self, query: Query, window: Window, span: Span) -> list[Row]:
        if self._needs_snapshot(query):
            with self.snapshot(query, since=time.monotonic()):
                return self.read_undivided(query, window, span)
        rows = self._undivided(query, window, span, ())
        named = self._lookups.renamed(query, rows)
        if same := same_names(rows, named):  # groups with one name are one group, which only the database can count
            named = self._lookups.renamed(query, self._undivided(query, window, span, same))
        return unambiguous(query, named)

    def _undivided(self, query: Query, window: Window, span: Span, same: Same) -> list[Row]:
        aside = self._aside_in(query, window)
        most = table.most_groups(query, MOST_AT_ONCE)
        statement = undivided(query, offsets_of(query.time_zone, span), same, has_aside=bool(aside)).limit(most + 1)
        values = bounds(query, window, span) | ({"aside": list(aside)} if aside else {})
        with self.connections.connected(f"read {query.table}, {window}") as connection:
            rows = undivided_rows(query, connection.execute(statement, values), span)
            if len(rows) > most:
                raise QueryRefused(f"read {query.table}, {window}: more than {most} groups", hint=FEWER_GROUPS)
            self.connections.check_snapshot(connection, query.table, reads_others=bool(query.texts))
        return rows

    def _needs_snapshot(self, query: Query) -> bool:
        """Whether custom SQL may read other tables: only a snapshot shows if one was rewritten."""
        hides_rewrites = self.connections.dialect.REWRITES is not None
        return bool(query.texts) and hides_rewrites and not self.connections.is_in_snapshot

    def _read(self, query: Query, rows: Window | Ids, span: Span) -> list[Row]:
        if self._needs_snapshot(query):
            with self.snapshot(query, since=time.monotonic()):
                return self._read(query, rows, span)
        choice = {"is_within": span != ALWAYS, "are_listed": not isinstance(rows, Window)}
        values = bounds(query, rows, span)
        has_halves = isinstance(rows, Window) and rows.upto - rows.after > 1
        most = table.most_groups(query, table.MOST_LABELS if has_halves else MOST_AT_ONCE)
        with self.connections.connected(f"read {query.table}, {brief_of(rows)}") as connection:
            counts = rows_of(query, connection.execute(counted(query, **choice, most=most), values))
            self.connections.check_snapshot(connection, query.table, reads_others=bool(query.texts))
            # rejected totals are known by their groups; find the first of the values that the statement left out
            left_out = {value.column for row in counts for value in row.rejected_values if value.value is None}
            unfit: dict[str, tuple[int, object]] = {}
            for column in left_out:
                for identity, value in connection.execute(first_unfit(query, column, **choice), values):
                    unfit[column] = (int(identity), value)
        if len(counts) > most:
            error = f"read {query.table}, {brief_of(rows)}: more than {most} groups"
            if has_halves:
                raise TooManyGroups(error, hint=FEWER_GROUPS, rows=sum(row.rows for row in counts[:most]))
            raise QueryRefused(error, hint=FEWER_GROUPS)
        counts = within(counts, span)
        is_timed = query.sql is None and query.time is not None
        may_end = query.time_sql is not None and self.connections.is_in_snapshot  # a row's error would end it
        if is_timed and not may_end and counts and not any(is_plausible(row.bucket) for row in counts):
            check_times(self.connections, query)
        return self._lookups.renamed(query, traced(counts, unfit) if unfit else counts)

    @override
    def count(self, query: Query, window: Window) -> int:
        with self.connections.connected(f"count the rows of {query.table}, {window}") as connection:
            return whole(connection.execute(number_of(query), bounds(query, window)).scalar_one(), 0, MOST_COUNT)

    @override
    def words(self, query: Query, rows: Window | Ids, span: Span | None = None) -> dict[int, int]:
        if span is not None:
            merged: dict[int, int] = {}
            for bucket, words in self.words_by(query, rows).items():
                if bucket is not None and bucket in span:
                    for number, bits in words.items():
                        merged[number] = merged.get(number, 0) | bits
            return merged
        return self.words_by(query.ids_only, rows).get(None, {})

    @override
    def words_by(self, query: Query, rows: Window | Ids) -> dict[int | None, dict[int, int]]:
        aside = [one for one, known in self._aside_in(query, rows).items() if not known.has_time]
        by_bucket = self._ids.words_by(query, rows, aside)
        if not aside:
            return by_bucket
        # their times are unreadable
        return by_bucket | {None: union_of(by_bucket.get(None, {}), self.words(query, tuple(aside)))}

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
            rows = connection.execute(minutes(query), bounds(query, window)).all()
            answer = {
                int(start): (whole(count, 1, MOST_COUNT), int(checksum))
                for start, count, checksum in rows
                if start is not None
            }
        self.connections.remember((query, window), answer)
        return answer

    @override
    def beyond(self, query: Query, second: int) -> int:
        with self.connections.connected(f"look for rows of {query.table} in the future") as connection:
            later = {"after": beginning_of(query, second + 1)}
            return whole(connection.execute(beyond(query), later).scalar_one(), 0, MOST_COUNT)

    @staticmethod
    def _upto(query: Query, upto: int) -> dict[str, Any]:
        return {"upto": beginning_of(query, upto + 1) if query.is_along else upto}

    @override
    def is_unique(self, query: Query) -> bool:
        key = (query.table, query.id)
        if key not in self._unique:
            with self.connections.connected(f"look at the keys of {query.table}") as connection:
                self._unique[key] = is_unique(connection, *key)
        return self._unique[key]

    @override
    def fingerprint(self, query: Query, upto: int) -> Fingerprint:
        if query.time_sql is not None:  # a row that makes it fail would stop the job
            query = query.ids_only
        with self.connections.connected(f"look for the rows of {query.table} up to {upto}") as connection:
            rows = connection.execute(newest(query, KNOWN_ROWS), self._upto(query, upto)).all()
            server = self.connections.server_of(connection)
            # in any zone: fingerprints are compared with each other only
            return Fingerprint(server, tuple((int(row[0]), None if row[1] is None else int(row[1])) for row in rows))

    def lag(self) -> float:
        """Return how far this replica is behind, in seconds; 0 without a lag_query.

        Raises:
            SourceUnavailable: the lag is unknown now.
            QueryRefused: the statement returns something else.
        """
        if self._access.lag_query is None:
            return 0.0
        with self.connections.connected("read lag") as connection:
            answer = connection.exec_driver_sql(self._access.lag_query).scalar()
        if answer is None:
            raise SourceUnavailable("read lag: lag_query gave NULL", hint="Check that replication runs.")
        try:
            return max(0.0, float(answer))
        except (TypeError, ValueError) as error:
            raise QueryRefused(
                f"read lag: lag_query gave {answer!r:.60}, which is not a number", hint="Select seconds, or NULL."
            ) from error

    def prepared(self, query: Query) -> Query:
        """Check that a query can run, and return it with what only the database knows, as `prepare.prepared`."""
        self._lookups.read(query)
        return prepared(self.connections, self._access, query)

    @property
    @override
    def connection_number(self) -> int:
        return self.connections.number

    @override
    def held(self) -> AbstractContextManager[None]:
        return self.connections.held()

    @property
    def turns(self) -> Turns:
        """Return the turns at its connections."""
        return self.connections.turns

    def background(self, wait: Wait) -> AbstractContextManager[None]:
        """Run the statements of this thread within as background work: see connections/turns.py."""
        return self.connections.background(wait)

    @override
    def snapshot(self, query: Query, *, since: float = -math.inf) -> AbstractContextManager[None]:
        return self.connections.snapshot(query.table, since=since)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.connections.close()


def _is_id(value: object) -> bool:
    """Return whether a value is an id: NUMERIC columns give decimals."""
    return isinstance(value, int | Decimal) and value == int(value) and 0 <= value <= MAX_ID
