"""The one transaction of a capture or a recount: totals, what they stand for, how far the job has come."""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from shipper.core.ledger import Name, RecordUpdate, Total
from shipper.core.measures import Kind, Value
from shipper.core.model import Group, Key, RejectReason, Span, Window
from shipper.core.position import Position
from shipper.state import positions
from shipper.state.positions import reject, take_shown
from shipper.state.schema import NOW
from shipper.state.series import COLUMNS, Registry, Series

_SUMS = "(" + ", ".join(f"'{kind}'" for kind in Kind if kind.is_additive) + ")"

# A job with nothing waiting has nothing to send: its watermark follows captured at once.
_CAPTURED = f"""
    UPDATE watermark SET
        value = CASE WHEN value = captured AND :totals = 0 THEN :upto ELSE value END, captured = :upto, updated = {NOW},
        complete_until = COALESCE(strftime('%Y-%m-%dT%H:%M:%SZ', :complete_until, 'unixepoch'), complete_until)
    WHERE job = :job AND captured = :after"""
_PROGRESS = """
    UPDATE job SET
        zero_filled_until = COALESCE(:zero_filled_until, zero_filled_until), low = COALESCE(:low, low),
        since = MAX(since, COALESCE(:since, since)), not_before = MAX(not_before, COALESCE(:not_before, not_before)),
        recount_from = CASE WHEN :is_recounted THEN NULL ELSE recount_from END, bucket = COALESCE(:bucket, bucket)
    WHERE job = :job AND (:is_recounted OR COALESCE(:zero_filled_until, :low, :since) IS NOT NULL
        OR not_before < :not_before)"""
_TOTAL = """
    INSERT INTO total (slot, step, series, value, revision, changed) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET value = excluded.value, revision = excluded.revision, changed = excluded.changed"""
_ZERO = f"""
    INSERT OR IGNORE INTO total (slot, step, series, value, revision, changed)
    SELECT :slot, :step, id, 0, :revision, 1 FROM series
    WHERE job = :job AND kind IN {_SUMS} AND first_slot < :slot AND last_slot >= :seen_since"""
_DECLARED = f"""
    INSERT OR IGNORE INTO total (slot, step, series, value, revision, changed)
    SELECT ?, ?, id, 0, ?, 1 FROM series WHERE id = ? AND kind IN {_SUMS}"""
_FINER = "SELECT slot, step FROM slot WHERE job = ? AND slot >= ? AND slot < ? AND step < ?"
_THERE = "slot = ? AND step = ? AND series IN (SELECT value FROM json_each(?))"
_LOOK = f"SELECT series, value FROM total WHERE {_THERE}"
_TAKE = f"DELETE FROM total WHERE {_THERE} RETURNING series, value"
_STORED = f"""
    SELECT slot, step, {COLUMNS} FROM series JOIN total ON total.series = series.id
    WHERE slot >= ? AND slot < ? AND job = ? AND kind IN {_SUMS} AND measure IN (SELECT value FROM json_each(?))"""
# ids as text: the longer is the larger
_WIDER = """
    ON CONFLICT DO UPDATE SET changed = excluded.changed,
        after = CASE WHEN (length(excluded.after), excluded.after) < (length(after), after)
            THEN excluded.after ELSE after END,
        upto = CASE WHEN (length(excluded.upto), excluded.upto) > (length(upto), upto)
            THEN excluded.upto ELSE upto END"""
_SLOT = f"INSERT INTO slot (job, slot, step, after, upto, changed) VALUES (?, ?, ?, ?, ?, unixepoch()) {_WIDER}"
_FINER_IDS = f"""
    INSERT INTO slot (job, slot, step, after, upto, changed)
    SELECT job, ?, ?, after, upto, unixepoch() FROM slot WHERE (job, slot, step) = (?, ?, ?) {_WIDER}"""
_UNSHOWN = """
    INSERT INTO rejected (job, reason, rows) VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET rows = excluded.rows + CASE WHEN ? THEN 0 ELSE rows END"""


class Recording:
    """One open transaction of State.recording: see Recording."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        registry: Registry,
        job: str,
        window: Window | None,
        *,
        before: Position,
        revision: int,
    ) -> None:
        self.after: Position | None = None
        """The position that is stored now; None where nothing is."""
        self._before = before
        self._connection = connection
        self._registry = registry
        self._job = job
        self._has_window = window is not None
        self._after, self._upto = (window.after, window.upto) if window else (before.captured,) * 2
        self._revision = revision
        self._puts = 0
        self._finer: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._slots: set[tuple[int, int]] = set()
        self._held: dict[tuple[int, int], Window] = {}
        self._closed: set[tuple[int, int]] = set()
        self._gone: dict[tuple[int, int], bool] = {}
        self._pruned = self._pruned_ranges()
        self._begins: int = self._one("SELECT begins FROM job WHERE job = ?", job)[0]

    def _pruned_ranges(self) -> list[tuple[int, int]]:
        return self._connection.execute("SELECT start, end FROM pruned WHERE job = ?", (self._job,)).fetchall()

    def is_pruned(self, time: int) -> bool:
        """Was the slot that holds time pruned, or is it from before the job began?"""
        return time < self._begins or any(start <= time < end for start, end in self._pruned)

    def has_gone(self, slot: int, step: int) -> bool:
        """Does the job have a total in this slot of a coarser archive?"""
        if (slot, step) not in self._gone:
            row = self._one("SELECT 1 FROM slot WHERE job = ? AND slot = ? AND step = ?", self._job, slot, step)
            self._gone[slot, step] = row is not None
        return self._gone[slot, step]

    def adopt(self, names: Collection[Name]) -> set[Name]:
        """Return the names that are theirs already: see Recording."""
        return self._registry.adopt(self._job, names)

    def known(self, groups: Collection[Group]) -> set[Group]:
        """Return those of the groups that have series."""
        return self._registry.groups(self._job, groups)

    def count_groups(self) -> int:
        """Return how many groups have series."""
        return self._registry.count_groups(self._job)

    def claim(self, names: Sequence[Name]) -> set[Name]:
        """Claim paths: see Recording."""
        return self._registry.claim(self._job, names)

    def take(self, keys: Collection[Key]) -> dict[Key, list[Value]]:
        """Return totals, and take away those of finer slots within them: see Recording."""
        self._registry.save()
        places: dict[tuple[int, int], dict[int, Key]] = {}
        for key in keys:
            places.setdefault(key[1:], {})[self._registry.id_of(key.path)] = key
        found: dict[Key, list[Value]] = {}
        for place, of_series in places.items():
            series = json.dumps(list(of_series))
            rows = self._connection.execute(_LOOK, (*place, series)).fetchall()
            for finer in self._finer_places(*place):
                rows += self._connection.execute(_TAKE, (*finer, series)).fetchall()
            for number, value in rows:
                found.setdefault(of_series[number], []).append(loaded(value))
        return found

    def revive(self, span: Span) -> None:
        """Take notice of slots again that were pruned: see Recording."""
        for start, end in self._pruned:
            if start < span.end and span.start < end:
                self._connection.execute("DELETE FROM pruned WHERE job = ? AND start = ?", (self._job, start))
                left = [(start, min(end, span.start)), (max(start, span.end), end)]
                kept = [(self._job, *one) for one in left if one[0] < one[1]]
                self._connection.executemany("INSERT INTO pruned (job, start, end) VALUES (?, ?, ?)", kept)
        if span.start < self._begins:  # what is between stays as it is
            if span.end < self._begins:
                between = (self._job, span.end, self._begins)
                self._connection.execute("INSERT OR REPLACE INTO pruned (job, start, end) VALUES (?, ?, ?)", between)
            self.begin_at(span.start)
        self._pruned = self._pruned_ranges()

    def begin_at(self, slot: int) -> None:
        """Hold slots from this one on for the job's own: they are whole."""
        if slot < self._begins:
            self._connection.execute("UPDATE job SET begins = ? WHERE job = ?", (slot, self._job))
            self._begins = slot

    def own(self, paths: Collection[str]) -> set[str]:
        """Return those of the paths that are the job's: see Recording."""
        return self._registry.own(self._job, paths)

    def stored(self, span: Span, measures: Iterable[str]) -> list[Key]:
        """Return the keys of counts and sums of the job's measures in the slots of a span, and claim their paths."""
        keys = []
        asked = (span.start, span.end, self._job, json.dumps(list(measures)))
        for slot, step, *series in self._connection.execute(_STORED, asked):
            self._registry.learn(Series(*series))
            keys.append(Key(series[0], slot, step))
        return keys

    def put(self, totals: Iterable[Total], *, resends: bool = False) -> None:
        """Store totals: see Recording."""
        self._registry.save()
        rows = [
            (slot, step, self._registry.id_of(path), stored(value), self._revision, 1 if is_due else 2)
            for (path, slot, step), value, is_due in totals
        ]
        statement = _TOTAL if resends else f"{_TOTAL} WHERE value IS NOT excluded.value"
        self._puts += self._connection.executemany(statement, rows).rowcount if rows else 0
        self._slots.update((row[0], row[1]) for row in rows)

    def see(self, bucket: int, paths: Iterable[str]) -> None:
        """Remember that the series had rows in a bucket."""
        self._registry.see(bucket, paths)

    def mark(self, slot: int, step: int) -> None:
        """Remember that the slot holds this window's rows, though there may be none."""
        self._slots.add((slot, step))

    def rejected(self, reason: RejectReason) -> int:
        """Return how many rows are counted as rejected: see Recording."""
        row = self._one("SELECT rows FROM rejected WHERE job = ? AND reason = ?", self._job, reason.value)
        return row[0] if row else 0

    def hold(self, slot: int, step: int, window: Window) -> None:
        """Remember that the slot's rows are among these ids: see Recording."""
        known = self._held.get((slot, step), window)
        self._held[slot, step] = Window(min(known.after, window.after), max(known.upto, window.upto))

    def first_seen(self) -> int | None:
        """Return the oldest bucket in which a series of the job had rows."""
        first: int | None = self._one("SELECT MIN(first_slot) FROM series WHERE job = ?", self._job)[0]
        return first

    def zero_fill(self, slot: int, step: int, *, seen_since: int, declared: Iterable[str]) -> None:
        """Store a 0 for counts and sums without a total there: those seen since then and before it, or declared."""
        self._registry.save()
        what = {"job": self._job, "slot": slot, "step": step, "revision": self._revision, "seen_since": seen_since}
        puts = self._connection.execute(_ZERO, what).rowcount
        for path in declared:
            puts += self._connection.execute(
                _DECLARED, (slot, step, self._revision, self._registry.id_of(path))
            ).rowcount
        if puts:
            self._puts += puts
            self._closed.add((slot, step))

    def write(self, done: RecordUpdate) -> None:
        """Store how far the job has come. The last call."""
        self._registry.save()
        progress: dict[str, Any] = {
            "job": self._job,
            "after": str(self._after),
            "upto": str(self._upto),
            "totals": self._puts,
            "complete_until": done.complete_until,
            "zero_filled_until": done.zero_filled_until,
            "low": None if done.low is None else str(done.low),
            "since": done.since,
            "not_before": done.not_before,
            "is_recounted": done.is_recounted,
            "bucket": done.bucket,
        }
        is_captured = self._connection.execute(_CAPTURED, progress).rowcount == 1
        is_written = positions.write(self._connection, self._job, self._before, done.position, done.late_rows)
        if is_captured and is_written:
            self.after = replace(done.position, version=done.position.version + 1, settled=0)
        self._connection.execute(_PROGRESS, progress)
        self._write_slots(done.ids_within)
        self._count(done)
        reject(self._connection, self._job, done.rejected, done.ids_within.after if done.ids_within else self._after)
        if done.late is not None:
            positions.add_late(self._connection, self._job, done.late)
        if done.fingerprint is not None:
            positions.identify(self._connection, self._job, done.fingerprint)
        elif self._has_window:
            positions.outdate(self._connection, self._job)

    def _write_slots(self, seen: Window | None) -> None:
        """Store whose rows the slots hold that something was put into; a slot without new rows gets no ids."""
        none = (str(self._upto), "0")
        ids = (str(self._after), str(self._upto)) if self._has_window else none
        ids = ids if seen is None else (str(seen.after), str(seen.upto))
        held = {place: (str(one.after), str(one.upto)) for place, one in self._held.items()}
        slots = dict.fromkeys(self._closed, none) | {place: held.get(place, ids) for place in self._slots}
        for place, found in slots.items():
            self._connection.execute(_SLOT, (self._job, *place, *found))
            for finer in self._finer_places(*place):  # whose rows it has, too
                self._connection.execute(_FINER_IDS, (*place, self._job, *finer))

    def _finer_places(self, slot: int, step: int) -> list[tuple[int, int]]:
        """Return the job's slots of finer archives within a slot."""
        if (slot, step) not in self._finer:
            span = (self._job, slot, slot + step, step)
            self._finer[slot, step] = self._connection.execute(_FINER, span).fetchall()
        return self._finer[slot, step]

    def _count(self, done: RecordUpdate) -> None:
        """Add to the counters of what cannot be shown, or set them."""
        counts = Counter[RejectReason]()
        for rejection, rows in done.rejected.items():
            counts[rejection.reason] += rows
        counts.subtract(take_shown(self._connection, self._job, done.shows))
        for reason, rows in (dict.fromkeys(done.replaces, 0) | counts).items():
            self._connection.execute(_UNSHOWN, (self._job, reason.value, rows, reason in done.replaces))

    def _one(self, statement: str, *values: object) -> Any:
        return self._connection.execute(statement, values).fetchone()


def stored(value: Value) -> int | str:
    """Return a value as the state keeps it: SQLite's integers end at 2^63 - 1."""
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else str(value)


def loaded(value: int | str) -> Value:
    """Return a value that the state has kept."""
    if isinstance(value, int):
        return value
    number = Decimal(value)
    return int(number) if number == number.to_integral_value() else number
