"""The outbox in the state file: totals to send, totals that wait for their archive, what was sent, commits."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from itertools import groupby

from typing_extensions import override

from shipper.core.delivery.outbox import Changed, Outbox, Pending, Replay, Waiting
from shipper.core.measures import Kind, combined
from shipper.core.model import Span
from shipper.state.database import StateFile
from shipper.state.schema import NOW, decoded
from shipper.state.values import loaded, stored

HISTORY_ROWS = 10_000  # a week of a commit a minute; a few hundred KB

# Number of pending totals, by job and slot, newest slot first.
_WAITING = """
    SELECT series.job, total.slot, total.step, COUNT(*)
    FROM total INDEXED BY total_changed JOIN series ON series.id = total.series
    WHERE total.changed = 1 AND total.revision > ? AND total.revision <= ?
    GROUP BY series.job, total.slot, total.step ORDER BY total.slot DESC, total.step, series.job"""
# Pending totals of one slot.
_CHANGED = """
    SELECT total.series, series.job, series.path, total.value, series.is_made
    FROM total JOIN series ON series.id = total.series
    WHERE total.slot = :slot AND total.step = :step AND total.series > :beyond
        AND total.changed = 1 AND total.revision > :after AND total.revision <= :upto
    ORDER BY total.series LIMIT :limit"""
_JOBS_WITH_DEFERRED = """
    SELECT DISTINCT series.job FROM total INDEXED BY total_deferred JOIN series ON series.id = total.series
    WHERE total.changed = 2"""

# A watermark moves neither back nor beyond captured.
_COMMIT = f"""
    UPDATE watermark SET value = :value, updated = {NOW}
    WHERE job = :job AND (length(:value), :value) > (length(value), value)
        AND (length(:value), :value) <= (length(captured), captured)"""
_ADD_HISTORY = f"INSERT INTO history (job, value, datapoints, committed) VALUES (?, ?, ?, {NOW})"
_CONFIRM = "INSERT OR REPLACE INTO setting (name, value) VALUES ('confirmed', ?)"
_TRIM_HISTORY = "DELETE FROM history WHERE id <= (SELECT MAX(id) FROM history) - ?"
_KEEP_REPLAY = "INSERT INTO replay (after, upto, stage, confirmed, due, repeats, reads) VALUES (?, ?, ?, ?, ?, ?, ?)"

# Totals that changed again have a newer revision, and stay pending.
_PROVE = "UPDATE total SET changed = 0 WHERE changed = 1 AND revision > ? AND revision <= ?"
_PROVE_SERIES = """
    UPDATE total SET changed = 0 WHERE slot = ? AND step = ? AND series IN (SELECT value FROM json_each(?))
        AND changed = 1 AND revision > ? AND revision <= ?"""
# Carbon has the file of a series once one of its totals is proven.
_MADE = """
    UPDATE series SET is_made = 1 WHERE is_made = 0 AND id IN (
        SELECT series FROM total INDEXED BY total_changed WHERE changed = 1 AND revision > ? AND revision <= ?)"""
_MADE_SERIES = "UPDATE series SET is_made = 1 WHERE is_made = 0 AND id IN (SELECT value FROM json_each(?))"
# Number of series without a file, if a pending total of the range belongs to one.
_COUNT_NEW = """
    SELECT COUNT(*) FROM series WHERE is_made = 0 AND EXISTS (
        SELECT 1 FROM series WHERE is_made = 0 AND id IN (
            SELECT series FROM total INDEXED BY total_changed WHERE changed = 1 AND revision > ? AND revision <= ?))"""

_DEFER = "UPDATE total SET changed = 2 WHERE changed = 1 AND slot = ? AND step = ?"
# A step that no archive has any more belongs to the next coarser one, or to the last.
_RELEASE = """
    UPDATE total SET changed = 1, revision = ? WHERE changed = 2 AND slot >= ? AND slot < ? AND (step <= ? OR ?)"""
# The totals of slots, and those into which they were merged; deferred totals are not sent yet.
AGAIN = """
    UPDATE total SET changed = 1, revision = ? WHERE changed <> 2 AND (slot, step) IN (
        SELECT value - value % step, step FROM json_each(?) JOIN (SELECT DISTINCT step FROM total))"""
# Deferred totals stay deferred: no archive of the new Carbon receives them yet.
_RETARGET = "UPDATE total SET changed = 1, revision = ? WHERE changed <> 2"

# Totals to merge: those of the changed series in the coarse slot, in it and in all finer slots.
_FINER = """
    SELECT series.id, series.job, series.kind, total.value FROM total JOIN series ON series.id = total.series
    WHERE total.slot >= :start AND total.slot < :end
        AND (total.step < :into OR (total.slot = :start AND total.step = :into))
        AND total.series IN (SELECT series FROM total WHERE slot = :slot AND step = :step AND changed = 1)
    ORDER BY series.id"""
_DELETE_FINER = """
    DELETE FROM total WHERE slot >= :start AND slot < :end AND step < :into
        AND series IN (SELECT value FROM json_each(:series))"""
_PUT_DEFERRED = """
    INSERT INTO total (slot, step, series, value, revision, changed) VALUES (?, ?, ?, ?, ?, 2)
    ON CONFLICT DO UPDATE SET value = excluded.value, revision = excluded.revision, changed = 2"""
# The coarse slot has the rows of all finer ones: the smallest `after`, the largest `upto`, the latest change.
_COARSE_SLOT = """
    INSERT OR IGNORE INTO slot (job, slot, step, after, upto, changed)
    SELECT job, :start, :into, MIN(after), MAX(upto), MAX(changed) FROM (
        SELECT job, changed,
            FIRST_VALUE(after) OVER (ORDER BY length(after), after) AS after,
            FIRST_VALUE(upto) OVER (ORDER BY length(upto) DESC, upto DESC) AS upto
        FROM slot WHERE job = :job AND slot >= :start AND slot < :end)"""
# Totals of a slot that no archive takes: all; or those of jobs of whose coarse slot a part was pruned, so that its sum
# is not known.
_TOO_OLD = """
    slot = :slot AND step = :step AND changed = 1 AND (:start IS NULL OR series IN (
        SELECT series.id FROM pruned JOIN series USING (job) WHERE pruned.start < :end AND pruned.end > :start))"""
# Several counts of a group are of the same rows. Without one, a measure called "count" is the number of rows, as custom
# sql names it; without that, too, the number is not known, but above 0.
_ROWS_TOO_OLD = f"""
    SELECT job, SUM(rows) FROM (
        SELECT series.job AS job, COALESCE(
            MAX(CASE WHEN kind = 'count' THEN total.value END),
            MAX(CASE WHEN measure = 'count' AND typeof(total.value) = 'integer' THEN total.value END),
            MAX(total.value <> 0)) AS rows
        FROM total JOIN series ON series.id = total.series WHERE {_TOO_OLD} GROUP BY series.job, series."group")
    GROUP BY job"""
_DELETE_TOO_OLD = f"DELETE FROM total WHERE {_TOO_OLD}"
_REJECT_TOO_OLD = """
    INSERT INTO rejected (job, reason, rows) VALUES (?, 'too_old', ?)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows"""


class StateOutbox(Outbox):
    """The totals of the state file that are not proven yet, and what was sent of them."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    @override
    def pending(self, after: int, upto: int | None = None) -> Pending:
        # a total is not delivered before it is durable
        with self._file.reading_durable("read pending totals") as connection:
            upto = self._file.revision if upto is None else upto
            waiting = connection.execute(_WAITING, (after, upto)).fetchall() if upto > after else []
            behind = connection.execute("SELECT job, captured FROM watermark WHERE value <> captured").fetchall()
            deferred = connection.execute(_JOBS_WITH_DEFERRED).fetchall() if behind else []
            return Pending(
                upto,
                {job: int(captured) for job, captured in behind},
                [Waiting(*row) for row in waiting],
                frozenset(job for (job,) in deferred),
            )

    @override
    def changed(self, slot: int, step: int, *, after: int, upto: int, beyond: int, limit: int) -> list[Changed]:
        place = {"slot": slot, "step": step, "after": after, "upto": upto, "beyond": beyond, "limit": limit}
        with self._file.reading("read what changed") as connection:
            rows = connection.execute(_CHANGED, place).fetchall()
            return [Changed(series, job, path, loaded(value), bool(made)) for series, job, path, value, made in rows]

    @override
    def commit(self, watermarks: Mapping[str, int], datapoints: Mapping[str, int], *, confirmed: int = 0) -> None:
        with self._file.writing("commit watermarks") as connection:
            for job, value in watermarks.items():
                if connection.execute(_COMMIT, {"job": job, "value": str(value)}).rowcount:
                    connection.execute(_ADD_HISTORY, (job, str(value), datapoints.get(job, 0)))
            connection.execute(_TRIM_HISTORY, (HISTORY_ROWS,))
            connection.execute(_CONFIRM, (str(confirmed),))

    @override
    def prove(self, *, after: int, upto: int) -> None:
        with self._file.writing("prove totals") as connection:
            connection.execute(_MADE, (after, upto))
            connection.execute(_PROVE, (after, upto))

    @override
    def prove_series(self, slot: int, step: int, series: Sequence[int], *, after: int, upto: int) -> None:
        with self._file.writing("prove totals") as connection:
            connection.execute(_PROVE_SERIES, (slot, step, json.dumps(series), after, upto))
            connection.execute(_MADE_SERIES, (json.dumps(series),))

    @override
    def count_new(self, after: int, upto: int) -> int:
        with self._file.reading("count new series") as connection:
            count: int = connection.execute(_COUNT_NEW, (after, upto)).fetchone()[0]
        return count

    @override
    def merge(self, slot: int, step: int, into: tuple[int, int] | None) -> dict[str, int]:
        start, coarse = (None, 0) if into is None else into
        place = {"slot": slot, "step": step, "start": start, "end": (start or 0) + coarse, "into": coarse}
        with self._file.writing("merge totals", has_revision=True) as connection:
            # reject what no archive takes
            rows_too_old = dict(connection.execute(_ROWS_TOO_OLD, place).fetchall())
            connection.executemany(_REJECT_TOO_OLD, rows_too_old.items())
            connection.execute(_DELETE_TOO_OLD, place)
            if into is None:
                return rows_too_old
            # read the finer totals and those of the coarse slot, and delete the finer ones
            with decoded("merge totals"):
                finer = connection.execute(_FINER, place)
                totals = [(series, job, Kind(kind), loaded(value)) for series, job, kind, value in finer]
            connection.execute(_DELETE_FINER, place | {"series": json.dumps([row[0] for row in totals])})
            # store one total for each series
            for (series, kind), rows in groupby(totals, key=lambda row: (row[0], row[2])):
                value = combined(kind, [row[3] for row in rows])
                connection.execute(_PUT_DEFERRED, (start, coarse, series, stored(value), self._file.revision + 1))
            # remember which rows the coarse slot holds
            self._file.steps.add(coarse)
            for job in {row[1] for row in totals}:
                connection.execute(_COARSE_SLOT, place | {"job": job})
            return rows_too_old

    @override
    def defer(self, slot: int, step: int) -> None:
        with self._file.writing("defer totals") as connection:
            connection.execute(_DEFER, (slot, step))

    @override
    def release(self, due: Mapping[int, Span]) -> None:
        with self._file.writing("release totals", has_revision=True) as connection:
            for step, span in due.items():
                is_last = step == max(due)
                connection.execute(_RELEASE, (self._file.revision + 1, span.start, span.end, step, is_last))

    def send_again(self, slots: Sequence[int]) -> None:
        """Mark all totals of slots as changed now: another process may have sent older ones over them."""
        with self._file.writing("send slots again", has_revision=True) as connection:
            connection.execute(AGAIN, (self._file.revision + 1, json.dumps(list(slots))))

    def keep_replays(self, replays: Iterable[Replay]) -> None:
        """Keep which replays are to come; their times are wall-clock, in epoch seconds."""
        rows = [[int(number) for number in astuple(one)] for one in replays]
        with self._file.writing("keep replays") as connection:
            connection.executemany(_KEEP_REPLAY, rows)

    def take_replays(self) -> list[Replay]:
        """Return the kept replays and delete them: after a kill all totals that are not proven are sent again."""
        with self._file.writing("read replays") as connection:
            statement = "SELECT after, upto, stage, confirmed, due, repeats, reads FROM replay"
            rows = connection.execute(statement).fetchall()
            connection.execute("DELETE FROM replay")
        replays = [
            Replay(after, upto, stage, confirmed, due, repeats, bool(reads))
            for after, upto, stage, confirmed, due, repeats, reads in rows
        ]
        self._file.revision = max([self._file.revision, *(one.upto for one in replays)])
        return replays

    def retarget(self, carbon: str) -> bool:
        """Mark every total as changed if Carbon's address has changed; return whether it has."""
        with self._file.writing("compare Carbon's address", has_revision=True) as connection:
            row = connection.execute("SELECT value FROM setting WHERE name = 'carbon'").fetchone()
            connection.execute("INSERT OR REPLACE INTO setting (name, value) VALUES ('carbon', ?)", (carbon,))
            has_changed = row is not None and row[0] != carbon
            if has_changed:
                connection.execute(_RETARGET, (self._file.revision + 1,))
                connection.execute("UPDATE series SET is_made = 0")
                connection.execute("DELETE FROM replay")
        return has_changed
