"""The transaction of a capture or a recount: totals, the ids of their slots, the job's progress."""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import override

from shipper.core.ledger import Name, Recording, RecordUpdate, Total
from shipper.core.measures import Kind, Value
from shipper.core.model import Group, Key, RejectReason, Span, Window
from shipper.core.position import Position
from shipper.core.retention import floor
from shipper.state import positions
from shipper.state.database import StateFile
from shipper.state.schema import NOW, decoded
from shipper.state.series import COLUMNS, Series
from shipper.state.values import loaded, stored

_HAVE_ZERO, _DIVISIBLE = (
    "(" + ", ".join(f"'{kind}'" for kind in kinds if kind.has_zero) + ")"
    for kinds in (Kind, [kind for kind in Kind if kind.is_divisible])
)

# If the window changed no totals and none is waiting, the watermark follows captured at once.
_CAPTURED = f"""
    UPDATE watermark SET
        value = CASE WHEN value = captured AND :totals = 0 THEN :upto ELSE value END, captured = :upto, updated = {NOW},
        complete_until = COALESCE(strftime('%Y-%m-%dT%H:%M:%SZ', :complete_until, 'unixepoch'), complete_until)
    WHERE job = :job AND captured = :after"""
# Values of None leave their column unchanged; since and not_before only grow.
_PROGRESS = """
    UPDATE job SET
        zero_filled_until = COALESCE(:zero_filled_until, zero_filled_until), low = COALESCE(:low, low),
        since = MAX(since, COALESCE(:since, since)), not_before = MAX(not_before, COALESCE(:not_before, not_before)),
        recount_from = CASE WHEN :is_recounted THEN NULL ELSE recount_from END, bucket = COALESCE(:bucket, bucket)
    WHERE job = :job AND (:is_recounted OR COALESCE(:zero_filled_until, :low, :since) IS NOT NULL
        OR not_before < :not_before)"""
# Totals of a slot by their series; `put` adds a condition, so that an equal total changes nothing.
_TOTALS = """
    INSERT INTO total (slot, step, series, value, revision, changed)
    SELECT ?, ?, CAST(key AS INTEGER), value, ?, ? FROM json_each(?) WHERE TRUE
    ON CONFLICT DO UPDATE SET value = excluded.value, revision = excluded.revision, changed = excluded.changed"""
# Zero for every series of some measures with rows before the slot, and since a time, that has no total there.
_ZERO = """
    INSERT OR IGNORE INTO total (slot, step, series, value, revision, changed)
    SELECT :slot, :step, id, 0, :revision, 1 FROM series
    WHERE job = :job AND kind IN {kinds} AND first_slot < :slot AND last_slot >= :seen_since
        AND measure IN (SELECT value FROM json_each(:measures))"""
# Zero for one declared series.
_DECLARED = """
    INSERT OR IGNORE INTO total (slot, step, series, value, revision, changed)
    SELECT ?, ?, id, 0, ?, 1 FROM series WHERE id = ? AND kind IN {kinds}"""
# Slots of finer archives within a slot.
_FINER = "SELECT slot, step FROM slot WHERE job = ? AND slot >= ? AND slot < ? AND step < ?"
_OF_SERIES = "slot = ? AND step = ? AND series IN (SELECT value FROM json_each(?))"
_READ = f"SELECT series, value FROM total WHERE {_OF_SERIES}"
_TAKE = f"DELETE FROM total WHERE {_OF_SERIES} RETURNING series, value"
# Stored totals of a span that a recount may clear: maxima and minima of former rows stay.
_STORED = f"""
    SELECT slot, step, {COLUMNS} FROM series JOIN total ON total.series = series.id
    WHERE slot >= ? AND slot < ? AND job = ? AND kind IN {_HAVE_ZERO} AND measure IN (SELECT value FROM json_each(?))"""
# A slot keeps the smallest `after` and the largest `upto`; of two ids as text the longer is the larger.
_WIDER = """
    ON CONFLICT DO UPDATE SET changed = excluded.changed,
        after = CASE WHEN (length(excluded.after), excluded.after) < (length(after), after)
            THEN excluded.after ELSE after END,
        upto = CASE WHEN (length(excluded.upto), excluded.upto) > (length(upto), upto)
            THEN excluded.upto ELSE upto END"""
# Ids of a slot.
_SLOT = f"INSERT INTO slot (job, slot, step, after, upto, changed) VALUES (?, ?, ?, ?, ?, unixepoch()) {_WIDER}"
# Rows that the indivisible measures of a slot lack; a recount of a span.
_LACK = "UPDATE slot SET lacking = lacking + ? WHERE job = ? AND slot = ? AND step = ?"
_RECOUNTED = "UPDATE slot SET lacking = lacking * ?, recounted = ? WHERE job = ? AND slot >= ? AND slot < ?"
_LACKS = "SELECT 1 FROM slot WHERE job = ? AND slot = ? AND step = ? AND lacking > 0"
# A slot takes over the ids of a finer slot within it.
_FINER_IDS = f"""
    INSERT INTO slot (job, slot, step, after, upto, changed)
    SELECT job, ?, ?, after, upto, unixepoch() FROM slot WHERE (job, slot, step) = (?, ?, ?) {_WIDER}"""
_REJECTED = """
    INSERT INTO rejected (job, reason, rows) VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows"""
# With a lookback the buckets of all rows of the future are known: each look reads these rows, counted or not.
_SET_FUTURE = """
    UPDATE rejected SET rows = (SELECT COALESCE(SUM(rows), 0) FROM rejected_in WHERE job = :job AND reason = :reason)
    WHERE job = :job AND reason = :reason"""


class StateRecording(Recording):
    """The open transaction of `State.recording`."""

    def __init__(
        self, connection: sqlite3.Connection, file: StateFile, job: str, window: Window | None, before: Position
    ) -> None:
        self.after: Position | None = None
        """The position that `write` has stored; None before, or if captured or the position has changed meanwhile."""
        self._before = before
        self._connection = connection
        self._registry, self._steps = file.registry, file.steps
        self._job = job
        self._has_window = window is not None
        self._after, self._upto = (window.after, window.upto) if window else (before.captured,) * 2
        self._revision = file.revision + 1
        self._puts = 0
        self._finer: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._slots: set[tuple[int, int]] = set()
        self._ids: dict[tuple[int, int], Window] = {}
        self._zero_filled: set[tuple[int, int]] = set()
        self._lacking = Counter[tuple[int, int]]()
        self._stored: dict[tuple[int, int], bool] = {}
        self._pruned = self._pruned_ranges()
        self._begins: int = self._one("SELECT begins FROM job WHERE job = ?", job)[0]

    def _pruned_ranges(self) -> list[tuple[int, int]]:
        return self._connection.execute("SELECT start, end FROM pruned WHERE job = ?", (self._job,)).fetchall()

    @override
    def is_pruned(self, time: int, step: int) -> bool:
        slot = floor(time, step)
        return time < self._begins or any(start < slot + step and slot < end for start, end in self._pruned)

    @override
    def coarsest(self, time: int, longer_than: int) -> tuple[int, int] | None:
        places = ((floor(time, step), step) for step in sorted(self._steps, reverse=True) if step > longer_than)
        return next((place for place in places if self._has_slot(*place)), None)

    def _has_slot(self, slot: int, step: int) -> bool:
        if (slot, step) not in self._stored:
            row = self._one("SELECT 1 FROM slot WHERE job = ? AND slot = ? AND step = ?", self._job, slot, step)
            self._stored[slot, step] = row is not None
        return self._stored[slot, step]

    @override
    def has_finer(self, slot: int, step: int) -> bool:
        return bool(self._finer_places(slot, step))

    @override
    def adopt(self, names: Collection[Name]) -> list[Name]:
        return self._registry.adopt(self._job, names)

    @override
    def groups(self, groups: Collection[Group]) -> tuple[int, set[Group]]:
        return self._registry.count_groups(self._job), self._registry.groups(self._job, groups)

    @override
    def claim(self, names: Sequence[Name]) -> list[Name]:
        return self._registry.claim(self._job, names)

    @override
    def take(self, keys: Collection[Key]) -> dict[Key, list[Value]]:
        self._registry.save()
        # group the keys by slot
        places: dict[tuple[int, int], dict[int, Key]] = {}
        for key in keys:
            places.setdefault(key[1:], {})[self._registry.id_of(key.path)] = key
        # read the totals of each slot, and remove those of finer slots within it
        totals: dict[Key, list[Value]] = {}
        for place, of_series in places.items():
            series = json.dumps(list(of_series))
            rows = self._connection.execute(_READ, (*place, series)).fetchall()
            for finer in self._finer_places(*place):
                rows += self._connection.execute(_TAKE, (*finer, series)).fetchall()
            with decoded("read totals"):
                for number, value in rows:
                    totals.setdefault(of_series[number], []).append(loaded(value))
        return totals

    @override
    def unprune(self, span: Span) -> None:
        # cut the span out of the pruned ranges
        for start, end in self._pruned:
            if start < span.end and span.start < end:
                self._connection.execute("DELETE FROM pruned WHERE job = ? AND start = ?", (self._job, start))
                self._prune(start, min(end, span.start))
                self._prune(max(start, span.end), end)
        # let the job begin earlier; the time between the span and its old beginning stays unknown
        if span.start < self._begins:
            self._prune(span.end, self._begins)
            self.begin_at(span.start)
        self._pruned = self._pruned_ranges()

    def _prune(self, start: int, end: int) -> None:
        if start < end:
            pruned = (self._job, start, end)
            self._connection.execute("INSERT OR REPLACE INTO pruned (job, start, end) VALUES (?, ?, ?)", pruned)

    @override
    def begin_at(self, slot: int) -> None:
        if slot < self._begins:
            self._connection.execute("UPDATE job SET begins = ? WHERE job = ?", (slot, self._job))
            self._begins = slot

    @override
    def own(self, paths: Collection[str]) -> set[str]:
        return self._registry.own(self._job, paths)

    @override
    def stored_keys(self, span: Span, measures: Iterable[str]) -> Iterator[Key]:
        values = (span.start, span.end, self._job, json.dumps(list(measures)))
        for slot, step, *series in self._connection.execute(_STORED, values):
            yield Key(self._registry.learn(Series(*series)), slot, step)

    @override
    def put(self, totals: Iterable[Total], *, resends: bool = False) -> None:
        self._registry.save()
        places: dict[tuple[int, int, bool], dict[int, int | str]] = {}
        for (path, slot, step), value, is_due in totals:
            places.setdefault((slot, step, is_due), {})[self._registry.id_of(path)] = stored(value)
        statement = _TOTALS if resends else f"{_TOTALS} WHERE value IS NOT excluded.value"
        for (slot, step, is_due), values in places.items():
            self._slots.add((slot, step))
            of_series = json.dumps({number: values[number] for number in sorted(values)})  # in the order of the table
            place = (slot, step, self._revision, 1 if is_due else 2, of_series)
            self._puts += self._connection.execute(statement, place).rowcount

    @override
    def see(self, bucket: int, paths: Iterable[str]) -> None:
        self._registry.see(bucket, paths)

    @override
    def mark(self, slot: int, step: int) -> None:
        self._slots.add((slot, step))

    @override
    def lack(self, slot: int, step: int, rows: int) -> None:
        self._slots.add((slot, step))
        self._lacking[slot, step] += rows

    @override
    def recounted(self, span: Span, at: int, *, has_failed: bool = False) -> None:
        self._connection.execute(_RECOUNTED, (has_failed, at, self._job, span.start, span.end))

    @override
    def rejected(self, reason: RejectReason) -> int:
        row = self._one("SELECT rows FROM rejected WHERE job = ? AND reason = ?", self._job, reason.value)
        return row[0] if row else 0

    @override
    def limit_ids(self, slot: int, step: int, window: Window) -> None:
        known = self._ids.get((slot, step), window)
        self._ids[slot, step] = Window(min(known.after, window.after), max(known.upto, window.upto))

    @override
    def first_seen(self) -> int | None:
        first: int | None = self._one("SELECT MIN(first_slot) FROM series WHERE job = ?", self._job)[0]
        return first

    @override
    def zero_fill(
        self, slot: int, step: int, *, seen_since: int, measures: Iterable[str], declared: Iterable[str]
    ) -> None:
        self._registry.save()
        values = {"job": self._job, "slot": slot, "step": step, "revision": self._revision, "seen_since": seen_since}
        values["measures"] = json.dumps(list(measures))
        # a measure that lacks rows is not 0
        lacks = self._lacking[slot, step] or self._one(_LACKS, self._job, slot, step)
        kinds = _DIVISIBLE if lacks else _HAVE_ZERO
        puts = self._connection.execute(_ZERO.format(kinds=kinds), values).rowcount
        for path in declared:
            number = self._registry.id_of(path)
            puts += self._connection.execute(
                _DECLARED.format(kinds=kinds), (slot, step, self._revision, number)
            ).rowcount
        if puts:
            self._puts += puts
            self._zero_filled.add((slot, step))

    @override
    def write(self, update: RecordUpdate) -> None:
        self._registry.save()
        values = self._values(update)
        # captured and the position: both must be what this recording began with
        is_captured = self._connection.execute(_CAPTURED, values).rowcount == 1
        is_written = positions.write(self._connection, self._job, self._before, update.position, update.late_rows)
        if is_captured and is_written:
            self.after = replace(update.position, version=update.position.version + 1, settled=0)
        if update.minutes or update.position.counted.floor > self._before.counted.floor:
            positions.write_minutes(self._connection, self._job, update.minutes, update.position.counted.floor)
        # progress, the ids of the slots, rejected and late rows
        self._connection.execute(_PROGRESS, values)
        self._write_slots(update.ids_within)
        self._count(update)
        within = [update.ids_within] if update.ids_within else self._ids.values()
        after = min((window.after for window in within), default=self._after)
        positions.reject(self._connection, self._job, update.rejected, after)
        if update.is_lookback:
            self._connection.execute(_SET_FUTURE, {"job": self._job, "reason": RejectReason.FUTURE.value})
        if update.late is not None:
            positions.add_late(self._connection, self._job, update.late)
        # the table's identity
        if update.fingerprint is not None:
            positions.identify(self._connection, self._job, update.fingerprint)
        elif self._has_window:
            positions.forget_empty(self._connection, self._job)

    def _values(self, update: RecordUpdate) -> dict[str, Any]:
        """Return the parameters of the statements on the job's progress."""
        low = None if update.low is None else str(update.low)
        ids = {"after": str(self._after), "upto": str(self._upto), "low": low}
        return {**update._asdict(), **ids, "job": self._job, "totals": self._puts}

    def _write_slots(self, ids_within: Window | None) -> None:
        """Store the ids of the slots that were changed; zero-filled slots get none."""
        none = (str(self._upto), "0")
        default = (str(self._after), str(self._upto)) if self._has_window else none
        default = default if ids_within is None else (str(ids_within.after), str(ids_within.upto))
        ids = {place: (str(one.after), str(one.upto)) for place, one in self._ids.items()}
        slots = dict.fromkeys(self._zero_filled, none) | {place: ids.get(place, default) for place in self._slots}
        self._steps.update(step for _, step in slots)
        for place, (after, upto) in slots.items():
            self._connection.execute(_SLOT, (self._job, *place, after, upto))
            for finer in self._finer_places(*place):  # the slot has the rows of its finer slots, too
                self._connection.execute(_FINER_IDS, (*place, self._job, *finer))
        # rows that indivisible measures lack
        for place, rows in self._lacking.items():
            self._connection.execute(_LACK, (rows, self._job, *place))

    def _finer_places(self, slot: int, step: int) -> list[tuple[int, int]]:
        """Return the job's slots of finer archives within a slot."""
        if (slot, step) not in self._finer:
            span = (self._job, slot, slot + step, step)
            self._finer[slot, step] = self._connection.execute(_FINER, span).fetchall()
        return self._finer[slot, step]

    def _count(self, update: RecordUpdate) -> None:
        """Add to the counters of rejected rows."""
        counts = Counter[RejectReason]()
        for rejection, rows in update.rejected.items():
            counts[rejection.reason] += rows
        counts.subtract(positions.take_shown(self._connection, self._job, update.shows))
        for reason, rows in counts.items():
            self._connection.execute(_REJECTED, (self._job, reason.value, rows))

    def _one(self, statement: str, *values: object) -> Any:
        return self._connection.execute(statement, values).fetchone()
