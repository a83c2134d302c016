"""One database as a source: the counts and ids of its rows; finder.py says where they are."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

import sqlalchemy as sa
from typing_extensions import override

from shipper.core.errors import QueryRefused, RowRefused, SourceUnavailable, TooManyGroups
from shipper.core.id_set import Gaps, IdSet, ids_of, union_of
from shipper.core.model import ALWAYS, Ids, Query, RejectedValue, Row, Span, Window, adjoined
from shipper.core.rows import table
from shipper.source.access import Access
from shipper.source.connections.connection import Connections
from shipper.source.connections.turns import Wait
from shipper.source.finder import NO_ROWS, Finder
from shipper.source.limits import MOST_COUNT, whole
from shipper.source.names import Lookups, same_names
from shipper.source.present import MOST_BITS, PresentIds, brief_of, without
from shipper.source.result import (
    counts_of,
    offsets_of,
    rows_of,
    traced,
    unambiguous,
    undivided_rows,
    utc_bucket,
    within,
)
from shipper.source.statements.clauses import MINUTE_SECONDS, UTC_MARK, bounds
from shipper.source.statements.counts import Same, at_once, bounds_at_once, counted, first_unfit, undivided
from shipper.source.tables.prepare import check_times, prepared
from shipper.source.tables.times import is_plausible

MOST_AT_ONCE = 100_000
"""Labels in an answer that cannot be halved: that of one second, or of indivisible measures."""
MOST_ASIDE = 100
"""Unreadable rows of one query; more of them are rather a mistake in its expressions."""
MOST_RANGES = 100
"""Ranges of ids in one statement, each a SELECT of a UNION: SQLite allows 500."""
FEWER_GROUPS = "Group `by` fewer columns, or by columns with fewer values."


class _Aside(NamedTuple):
    """A row that makes a query fail."""

    error: str
    has_time: bool
    """Whether its time can be read, without the rest."""


class Source(Finder):
    """One database, for any number of threads."""

    def __init__(self, name: str, access: Access, *, threads: int = 1, background: float = 1.0) -> None:
        """Prepare connections without connecting; background is the share of the time for background work."""
        super().__init__(Connections(name, access, threads=threads, background=background), access)
        self.name = name
        self.turns = self.connections.turns
        self._lookups = Lookups(self.connections)
        self._ids = PresentIds(self.connections, access)
        self._aside: dict[Query, dict[int, _Aside]] = {}
        """Unreadable rows, by their ids; queries that differ in `names` have the same ones."""

    def __str__(self) -> str:
        return str(self.access)

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

    @override
    def read_at_once(self, query: Query, window: Window, gaps: Gaps) -> tuple[list[Row], dict[int, int]] | None:
        if query.sql is not None or self._needs_snapshot(query) or self._aside.get(replace(query, names=())):
            return None
        if len(gaps.ranges) > MOST_RANGES:
            return None
        ranges = adjoined([*gaps.ranges, (window.after, window.upto)])
        statement = at_once(query, len(ranges), are_listed=bool(gaps.ids))
        values = bounds_at_once(window, ranges, tuple(gaps.ids))
        with self.connections.connected(f"read {query.table}, {window}") as connection:
            counts, words = [], dict[int, int]()
            for *row, bits in connection.execute(statement, values).all():
                if bits is None:
                    counts.append(row)
                else:
                    word, count = int(row[0]), whole(row[1 + len(query.by)], 1, MOST_COUNT)
                    words[word] = words.get(word, 0) | self._ids.checked(query, window, word, int(bits), count)
            rows = list(counts_of(query, counts))
            rows = self._with_unfit(connection, query, rows, bounds(query, window), is_within=False)
        self._check_times(query, rows)
        return self._lookups.renamed(query, rows), words

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
        has_time = query.is_along
        if not has_time:
            with suppress(RowRefused):
                self._ids.words_by(query, (identity,))
                has_time = True
        aside[identity] = _Aside(str(error), has_time)

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
            if len(counts) <= most:
                counts = self._with_unfit(connection, query, counts, values, **choice)
        if len(counts) > most:
            error = f"read {query.table}, {brief_of(rows)}: more than {most} groups"
            if has_halves:
                raise TooManyGroups(error, hint=FEWER_GROUPS, rows=sum(row.rows for row in counts[:most]))
            raise QueryRefused(error, hint=FEWER_GROUPS)
        counts = within(counts, span)
        self._check_times(query, counts)
        counts = self._lookups.renamed(query, counts)
        if query.is_along and isinstance(rows, Window) and any(row.bucket is None for row in counts):
            return self._placed(query, rows, span, counts)
        return counts

    def _placed(self, query: Query, window: Window, span: Span, counts: list[Row]) -> list[Row]:
        """Give rows whose value is no time, in a window along a time, the bucket where the column sorts them."""
        if window.upto - window.after > MINUTE_SECONDS:
            middle = (window.after + window.upto) // 2 // MINUTE_SECONDS * MINUTE_SECONDS + MINUTE_SECONDS - 1
            middle = middle if middle < window.upto else middle - MINUTE_SECONDS
            halves = Window(window.after, middle), Window(middle, window.upto)
            return [row for half in halves for row in self._read(query, half, span)]
        mark = 0 if query.time_unit is None or query.time_zone == "UTC" else UTC_MARK
        bucket, rows = utc_bucket(window.after + 1 + mark, query), sum(row.rows for row in counts if row.bucket is None)
        timed = [row for row in counts if row.bucket is not None]
        if bucket not in span:
            return timed
        nothing = (None,) * len(query.by), rows, (None,) * len(query.measures)
        return [*timed, Row(bucket, *nothing, (RejectedValue(query.id, rows, "a value that is no time"),), True)]

    def _with_unfit(
        self, connection: sa.Connection, query: Query, counts: list[Row], values: dict[str, Any], **choice: bool
    ) -> list[Row]:
        """Add the first of the values that the statement left out: rejected totals are known by their groups."""
        left_out = {value.column for row in counts for value in row.rejected_values if value.value is None}
        unfit: dict[str, tuple[int, object]] = {}
        for column in left_out:
            for identity, value in connection.execute(first_unfit(query, column, **choice), values):
                unfit[column] = (int(identity), value)
        return traced(counts, unfit) if unfit else counts

    def _check_times(self, query: Query, counts: list[Row]) -> None:
        """Check how the column stores times, if no row has a plausible one."""
        is_timed = query.sql is None and query.time is not None
        may_end = query.time_sql is not None and self.connections.is_in_snapshot  # a row's error would end it
        if is_timed and not may_end and counts and not any(is_plausible(row.bucket) for row in counts):
            check_times(self.connections, query)

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
    def appeared(self, query: Query, counted: IdSet, gaps: Gaps) -> dict[int, int]:
        ranges, words = [*gaps.ranges], dict[int, int]()
        is_short = len(ranges) <= MOST_RANGES and sum(upto - after for after, upto in ranges) <= MOST_BITS
        if ranges and is_short and self.is_unique(query):
            new = self._ids.unknown(query, ranges, counted)
            ranges, words = ([], {**new}) if new is not None else (ranges, words)
        rows: list[Window | Ids] = [Window(*one) for one in ranges] + ([tuple(gaps.ids)] if gaps.ids else [])
        for part in rows:
            words = union_of(words, self.words(query, part))
        return counted.missing(words)

    @override
    def words_by(self, query: Query, rows: Window | Ids) -> dict[int | None, dict[int, int]]:
        aside = [one for one, known in self._aside_in(query, rows).items() if not known.has_time]
        by_bucket = self._ids.words_by(query, rows, aside)
        if not aside:
            return by_bucket
        # their times are unreadable
        return by_bucket | {None: union_of(by_bucket.get(None, {}), self.words(query, tuple(aside)))}

    def lag(self) -> float:
        """Return how far this replica is behind, in seconds; 0 without a lag_query.

        Raises:
            SourceUnavailable: the lag is unknown now.
            QueryRefused: the statement returns something else.
        """
        if self.access.lag_query is None:
            return 0.0
        with self.connections.connected("read lag") as connection:
            answer = connection.exec_driver_sql(self.access.lag_query).scalar()
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
        self._lookups.renamed(query, [])  # finds errors before rows come
        return prepared(self.connections, self.access, query)

    @property
    @override
    def connection_number(self) -> int:
        return self.connections.number

    @override
    def held(self) -> AbstractContextManager[None]:
        return self.connections.held()

    def background(self, wait: Wait | None = None) -> AbstractContextManager[None]:
        """Run the statements of this thread within as background work: see connections/turns.py."""
        return self.connections.background(wait)

    @override
    def snapshot(self, query: Query, *, since: float = -math.inf) -> AbstractContextManager[None]:
        return self.connections.snapshot(query.table, since=since)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.connections.engine.dispose()
