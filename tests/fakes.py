"""Fakes of databases and of Graphite; they pass the contracts in contract.py that the real ones pass."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from functools import partial, reduce
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import whisper

from shipper.core.errors import DeliveryFailed, QueryRefused, RowRefused
from shipper.core.id_set import Gaps, IdSet, union_of, words_of
from shipper.core.measures import Kind, Measure
from shipper.core.model import (
    ALWAYS,
    MAX_ID,
    Archive,
    Datapoint,
    Fingerprint,
    Group,
    Ids,
    Observation,
    Query,
    Row,
    SeriesData,
    Span,
    Window,
)
from shipper.core.rows.table import KNOWN_ROWS

ORDER = ("id", "created_at", "action", "outcome", "duration_ms")
COLUMNS = set(ORDER)
FUTURE_SECONDS = 7200  # how far into the future `sums` reads
TESTS: dict[str, Callable[[Any, tuple[Any, ...]], bool]] = {
    "in": lambda value, values: value in values,
    "not": lambda value, values: value is not None and value not in values,
    "like": lambda value, values: value is not None and fnmatchcase(value, values[0].replace("%", "*")),
    "ge": lambda value, values: value is not None and value >= values[0],
    "gt": lambda value, values: value is not None and value > values[0],
    "le": lambda value, values: value is not None and value <= values[0],
    "lt": lambda value, values: value is not None and value < values[0],
    "null": lambda value, values: (value is None) == values[0],
}
AGGREGATES: dict[Kind, Callable[[list[Any]], Any]] = {
    Kind.SUM: sum,
    Kind.MAX: max,
    Kind.MIN: min,
    Kind.DISTINCT: lambda values: len(set(values)),
}


@dataclass
class FakeSource:
    """A table in memory."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    now: Callable[[], float] = lambda: time.time()  # noqa: PLW0108 - tests replace time.time
    in_flight: list[dict[str, Any]] = field(default_factory=list)
    """Rows that are inserted and not committed."""
    is_unique_id: bool = True
    """Whether the catalogue proves that ids are unique."""
    seen: list[dict[str, Any]] | None = None
    """Rows of the open snapshot; None outside of a snapshot."""
    unreadable: set[int] = field(default_factory=set)
    """Ids of rows with which a query fails."""
    aside: set[int] = field(default_factory=set)
    server: str = "one"
    connection_number: int = 1
    is_time_indexed: bool = True
    preparations: int = 0
    """How often a query was prepared."""

    def insert(
        self,
        id: int | None,  # noqa: A002
        created_at: str | None,
        action: str | None,
        outcome: str = "ok",
        duration_ms: int | None = None,
    ) -> None:
        """Add a committed row."""
        self.rows.append(dict(zip(ORDER, (id, created_at, action, outcome, duration_ms), strict=True)))

    def begin(self, id: int, created_at: str | None, action: str | None, outcome: str = "ok") -> None:  # noqa: A002
        """Add a row that is not committed yet."""
        self.in_flight.append(dict(zip(ORDER, (id, created_at, action, outcome, None), strict=True)))

    def commit(self) -> None:
        """Commit the rows in flight."""
        self.rows += self.in_flight
        self.in_flight.clear()

    def observe(self, query: Query) -> Observation:
        """Return the largest id, as shipper.source.database.Source.observe."""
        upto = int(self.now()) if query.is_along else MAX_ID
        largest = max((number for row in self.visible if (number := _number(query, row)) <= upto), default=0)
        return Observation(id=largest, time=int(self.now()), clock=time.monotonic())

    def prepared(self, query: Query) -> Query:
        """Return the query, as shipper.source.database.Source.prepared."""
        self.preparations += 1
        return query

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """Return the first id, as shipper.core.rows.table.Source.first_id."""
        return min((_number(query, row) for row in self._in(query, Window(after, upto))), default=upto)

    @contextmanager
    def snapshot(self, query: Query, *, since: float = 0.0) -> Iterator[None]:
        """Freeze the visible rows, as shipper.core.rows.table.Source.snapshot."""
        before = self.seen
        self.seen = self.visible if before is not None else [dict(row) for row in self.rows]
        try:
            yield
        finally:
            self.seen = before

    @property
    def visible(self) -> list[dict[str, Any]]:
        """Return the rows that a statement sees now."""
        return self.rows if self.seen is None else self.seen

    def loosen(self) -> None:
        """Allow duplicate ids."""
        self.is_unique_id = False

    def is_unique(self, query: Query) -> bool:
        """Whether ids are unique, as shipper.core.rows.table.Source.is_unique."""
        return self.is_unique_id

    def uncountable(self, query: Query) -> int:
        """Return the number of rows without an id, as shipper.core.rows.table.Source.uncountable."""
        return sum(_number(query, row) < 1 for row in self.visible)

    def local(self, query: Query, moment: int) -> int:
        """Return the second of the time column, as shipper.core.rows.table.Source.local."""
        return moment

    def minutes(self, query: Query, window: Window) -> dict[int, tuple[int, int]]:
        """Return rows and checksums by minute, as shipper.core.rows.table.Source.minutes."""
        minutes: dict[int, tuple[int, int]] = {}
        for row in self._in(query, window):
            second = _number(query, row)
            rows, checksum = minutes.get(second - second % 60, (0, 0))
            minutes[second - second % 60] = rows + 1, checksum + second % 60
        return minutes

    def beyond(self, query: Query, second: int) -> int:
        """Return the number of rows after a second, as shipper.core.rows.table.Source.beyond."""
        return sum(_number(query, row) > second for row in self.visible)

    def nth_id(self, query: Query, window: Window, rows: int, *, is_backward: bool = False) -> int | None:
        """Return the id of the n-th row, as shipper.core.rows.table.Source.nth_id."""
        ids = sorted((_number(query, row) for row in self._in(query, window)), reverse=is_backward)
        return ids[rows - 1] if rows <= len(ids) else None

    def newest(self, query: Query, upto: int) -> tuple[int, int | None]:
        """Return the newest row up to an id, as shipper.core.rows.table.Source.newest."""
        rows = [row for row in self.visible if _number(query, row) <= upto]
        if not rows:
            return 0, None
        row = max(rows, key=partial(_number, query))
        return _number(query, row), _epoch(row[query.time], query.time_zone) if query.time else None

    def first_in(self, query: Query, window: Window, span: Span) -> int | None:
        """Return the smallest id in a span of time, as shipper.core.rows.table.Source.first_in."""
        rows = self._in(query, window)
        ids = [_number(query, row) for row in rows if (at := self._bucket(query, row)) is not None and at in span]
        return min(ids, default=None)

    def ids_in(self, query: Query, window: Window, span: Span) -> tuple[Window, int] | None:
        """Return the ids of a span of time, as shipper.core.rows.table.Source.ids_in."""
        rows = self._in(query, window)
        ids = [_number(query, row) for row in rows if (at := self._bucket(query, row)) is not None and at in span]
        return (Window(min(ids) - 1, max(ids)), len(ids)) if ids else None

    def has_index_of_time(self, query: Query) -> bool:
        """Return whether ids are found by time, as shipper.core.rows.table.Source.has_index_of_time."""
        return self.is_time_indexed and query.sql is None

    def times(self, query: Query, window: Window) -> Span | None:
        """Return the span of the rows' times, as shipper.core.rows.table.Source.times."""
        assert query.time is not None
        epochs = [_epoch(row[query.time], query.time_zone) for row in self._in(query, window)]
        times = [time for time in epochs if time is not None]
        return Span(min(times), max(times) + 1) if times else None

    def read(self, query: Query, rows: Window | Ids, span: Span = ALWAYS) -> list[Row]:
        """Return the rows by bucket and group, as shipper.core.rows.table.Source.read."""
        counts = [
            Row(bucket, group, len(cell), tuple(_measured(measure, cell, is_whole=False) for measure in query.measures))
            for (bucket, group), cell in self._cells(query, rows, span).items()
        ]
        buckets = [self._bucket(query, row) for row in self._in(query, rows) if row["id"] in self.unreadable]
        found = [bucket for bucket in buckets if bucket is None or bucket in span]
        return counts + [Row(bucket, (), 1, (None,), (), is_unreadable=True) for bucket in found]

    def read_at_once(self, query: Query, window: Window, gaps: Gaps) -> tuple[list[Row], dict[int, int]] | None:
        """Return counts and ids, as shipper.core.rows.table.Source.read_at_once."""
        if query.sql is not None or self.aside:
            return None
        with self.snapshot(query):
            parts: list[Window | Ids] = [*(Window(*one) for one in gaps.ranges), window, tuple(gaps.ids)]
            return self.read(query, window), reduce(union_of, (self.words(query, part) for part in parts), {})

    def read_undivided(self, query: Query, window: Window, span: Span) -> list[Row]:
        """Return indivisible measures, as shipper.core.rows.table.Source.read_undivided."""
        return [
            Row(bucket, group, 0, tuple(_measured(measure, cell, is_whole=True) for measure in query.measures))
            for (bucket, group), cell in self._cells(query, window, span).items()
            if bucket is not None
        ]

    def _cells(
        self, query: Query, rows: Window | Ids, span: Span
    ) -> dict[tuple[int | None, Group], list[dict[str, Any]]]:
        columns = {query.id, *query.by, *(condition.column for condition in query.where), query.time or query.id}
        if unknown := columns - COLUMNS:
            raise QueryRefused(f"unknown columns {unknown}")
        cells: dict[tuple[int | None, Group], list[dict[str, Any]]] = {}
        bad = {row["id"] for row in self._in(query, rows)} & self.unreadable
        if bad - self.aside:
            raise RowRefused(f"read ids {bad}: a value does not fit")
        for row in self._in(query, rows):
            if row["id"] not in bad and all(TESTS[test](row[column], values) for column, test, values in query.where):
                group = tuple(None if (value := row[column]) is None else str(value) for column in query.by)
                bucket = self._bucket(query, row)
                if bucket is None or bucket in span:
                    cells.setdefault((bucket, group), []).append(row)
        return cells

    def renamed(self, query: Query, rows: list[Row]) -> list[Row]:
        """Return the rows, for shipper.core.rows.table.Source.renamed: values have no names."""
        return rows

    def set_aside(self, query: Query, identity: int, error: RowRefused) -> None:
        """Remember a row as unreadable, as shipper.core.rows.table.Source.set_aside."""
        if identity in self.aside or identity not in self.unreadable:
            raise error
        self.aside.add(identity)

    def retry(self, query: Query) -> None:
        """Forget rows that can be read now, as shipper.core.rows.table.Source.retry."""
        self.aside &= self.unreadable

    def count(self, query: Query, window: Window) -> int:
        """Return the number of rows, as shipper.core.rows.table.Source.count."""
        return len(self._in(query, window))

    def held(self) -> AbstractContextManager[None]:
        """Do nothing, for shipper.core.rows.table.Source.held: there is no connection to keep."""
        return nullcontext()

    def words(self, query: Query, rows: Window | Ids, span: Span | None = None) -> dict[int, int]:
        """Return the ids as words, as shipper.core.rows.table.Source.words."""
        words_by = self.words_by(query, rows)
        chosen = [
            words for bucket, words in words_by.items() if span is None or (bucket is not None and bucket in span)
        ]
        return reduce(union_of, chosen, {})

    def appeared(self, query: Query, counted: IdSet, gaps: Gaps) -> dict[int, int]:
        """Return new ids of gaps, as shipper.core.rows.table.Source.appeared."""
        parts: list[Window | Ids] = [*(Window(*one) for one in gaps.ranges), tuple(gaps.ids)]
        return counted.missing(reduce(union_of, (self.words(query, part) for part in parts), {}))

    def words_by(self, query: Query, rows: Window | Ids) -> dict[int | None, dict[int, int]]:
        """Return the ids as words, by bucket, as shipper.core.rows.table.Source.words_by."""
        chosen = self._in(query, rows)
        if len({row["id"] for row in chosen}) < len(chosen):
            raise QueryRefused("two rows have the same id")
        ids_by: dict[int | None, list[int]] = {}
        for row in chosen:
            ids_by.setdefault(self._bucket(query, row), []).append(int(row["id"]))
        return {bucket: words_of(ids) for bucket, ids in ids_by.items()}

    def fingerprint(self, query: Query, upto: int, *, more: int = 0) -> Fingerprint:
        """Return the fingerprint of the table, as shipper.core.rows.table.Source.fingerprint."""
        rows = sorted((row for row in self.visible if row["id"] <= upto), key=lambda row: -int(row["id"]))
        rows = rows[: KNOWN_ROWS + more]
        time = query.time
        return Fingerprint(self.server, tuple((row["id"], _epoch(row[time], "UTC") if time else None) for row in rows))

    def lag(self) -> float:
        """Return 0, for shipper.source.database.Source.lag: this is no replica."""
        return 0.0

    def _in(self, query: Query, rows: Window | Ids) -> list[dict[str, Any]]:
        if isinstance(rows, Window):
            return [row for row in self.visible if _number(query, row) in rows]
        listed = set(rows)
        return [row for row in self.visible if row["id"] in listed]

    def _bucket(self, query: Query, row: dict[str, Any]) -> int | None:
        epoch = _epoch(row[query.time], query.time_zone) if query.time else None
        return None if epoch is None else epoch - epoch % query.bucket


class FakeCarbon:
    """A Carbon with a cache that is lost when it dies, and files that are not."""

    def __init__(self) -> None:
        self.is_up = True
        self.files: dict[str, dict[int, float]] = {}
        self.cache: dict[str, dict[int, float]] = {}
        self.has_witness: bool | None = None
        """Whether the witness connection is open; None before the first delivery; False until `has_died` is called."""
        self.breaks_after: int | None = None
        """Number of datapoints of the next batch that are stored before the connection breaks."""
        self.is_full = False
        """Whether it confirms everything and stores nothing, as with a full disk."""
        self.may_write_old_values = False
        """Whether another relay, which hangs, may write values over newer ones."""
        self.has_switched = False

    def deliver(self, datapoints: Iterable[Datapoint]) -> None:
        """Store datapoints, as Carbon does: the last write of a slot wins."""
        if not self.is_up:
            self.has_witness = None
            raise DeliveryFailed("deliver: refused")
        for path, value, slot in islice(datapoints, self.breaks_after):
            if self.is_full:
                break
            self.cache.setdefault(path, {})[slot] = float(value)
        if self.breaks_after is not None:
            self.breaks_after, self.has_witness = None, None
            raise DeliveryFailed("deliver: reset")
        self.has_witness = self.has_witness is not False

    def has_died(self) -> bool:
        """Whether Carbon has died; connect the witness again if it was closed."""
        if self.has_switched:
            self.has_switched = False
            return True
        if self.has_witness is not False:
            return False
        self.has_witness = True if self.is_up else None
        return not self.is_up

    def switch(self) -> None:
        """Let another relay take its place."""
        self.has_switched = True

    def close_idle(self) -> None:
        """Close the idle witness connection."""
        if self.has_witness:
            self.has_witness = False

    def flush(self) -> None:
        """Write the cache to the files."""
        for path, slots in self.cache.items():
            self.files.setdefault(path, {}).update(slots)
        self.cache.clear()

    def kill(self) -> None:
        """Kill Carbon; values that were not flushed are lost."""
        self.cache.clear()
        self.is_up = False
        if self.has_witness:
            self.has_witness = False

    def start(self) -> None:
        """Start Carbon again."""
        self.is_up = True

    def sums(self) -> dict[str, dict[int, float]]:
        """Return the values of files and cache, as a reader sees them."""
        values = {path: dict(slots) for path, slots in self.files.items()}
        for path, slots in self.cache.items():
            values.setdefault(path, {}).update(slots)
        return values


class WhisperCarbon(FakeCarbon):
    """A Carbon with real Whisper files, and a clock that tests set."""

    def __init__(self, root: Path, archives: Sequence[Archive], now: Callable[[], float]) -> None:
        super().__init__()
        self.kinds: dict[str, str] = {}
        """Aggregation method by the last node of a path; the default is sum."""
        self.enough = 0.0
        """xFilesFactor."""
        self._root = root
        self._archives = archives
        self._now = now

    def flush(self) -> None:
        """Write the cache to the files."""
        for path, slots in self.cache.items():
            file = self._root / f"{path}.wsp"
            if not file.exists():
                kind = self.kinds.get(path.rpartition(".")[2], "sum")
                layout = [(archive.step, archive.duration // archive.step) for archive in self._archives]
                whisper.create(str(file), layout, xFilesFactor=self.enough, aggregationMethod=kind, sparse=True)
            whisper.update_many(str(file), sorted(slots.items()), now=int(self._now()))
        self.cache.clear()

    def sums(self) -> dict[str, dict[int, float]]:
        """Return the values of the finest archive and of the cache, as a reader sees them."""
        values = self._read(self._archives[0])
        for path, slots in self.cache.items():
            values.setdefault(path, {}).update(slots)
        return values

    def zoom(self, archive: Archive) -> dict[str, dict[int, float]]:
        """Return the values of one archive as they will be once the cache is written."""
        with tempfile.TemporaryDirectory(dir=self._root.parent) as name:
            copy = WhisperCarbon(Path(name) / "copy", self._archives, self._now)
            shutil.copytree(self._root, copy._root)
            copy.kinds, copy.cache = self.kinds, {path: dict(slots) for path, slots in self.cache.items()}
            copy.flush()
            return copy._read(archive)

    def _read(self, archive: Archive) -> dict[str, dict[int, float]]:
        until = int(self._now()) + FUTURE_SECONDS
        since = max(until - archive.duration, 0)
        series = {}
        for file in self._root.glob("*.wsp"):
            (start, end, step), values = whisper.fetch(str(file), since, until, now=until, archiveToSelect=archive.step)
            slots = zip(range(start, end, step), values, strict=True)
            series[file.name.removesuffix(".wsp")] = {slot: value for slot, value in slots if value is not None}
        return series


class FakeWeb:
    """A graphite-web that reads the files of a WhisperCarbon."""

    def __init__(self, carbon: WhisperCarbon) -> None:
        self._carbon = carbon

    def held(self, paths: Sequence[str], span: Span, step: int) -> Iterator[tuple[str, SeriesData]]:
        """Yield the values of the files, as shipper.graphite.render_api.Readback.held."""
        now = int(self._carbon._now())
        for path in paths:
            file = self._carbon._root / f"{path}.wsp"
            answer = whisper.fetch(str(file), span.start - 1, span.end - step, now=now) if file.exists() else None
            if answer is not None:  # None: the span is older than all archives
                (start, _, own_step), values = answer
                yield path, SeriesData(start, own_step, values)


def _measured(measure: Measure, rows: list[dict[str, Any]], *, is_whole: bool) -> int | None:
    """Return a measure of rows; None for one that needs all rows of a bucket where they are not, and vice versa."""
    if measure.kind.is_divisible is is_whole:
        return None
    if measure.column is None:
        return len(rows)
    values = [row[measure.column] for row in rows if row[measure.column] is not None]
    return AGGREGATES[measure.kind](values) if values or is_whole else None


def _number(query: Query, row: dict[str, Any]) -> int:
    """Return the id of a row, 0 for one without; along a time its second."""
    if query.is_along:
        return _epoch(row[query.id], "UTC") or 0
    return int(row["id"] or 0)


def _epoch(value: object, zone: str) -> int | None:
    if value is None:
        return None
    return int(datetime.fromisoformat(str(value)).replace(tzinfo=ZoneInfo(zone), microsecond=0).timestamp())
