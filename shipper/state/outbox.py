"""The outbox: which totals are to be sent, and what was sent of them."""

import json
from collections.abc import Iterable, Mapping, Sequence

from shipper.core.model import Changed, Pending, Replay, Waiting
from shipper.state.database import StateFile
from shipper.state.housekeeping import merge
from shipper.state.recording import loaded
from shipper.state.schema import NOW

HISTORY_ROWS = 10_000  # a week of a commit a minute; a few hundred KB

_WAITING = """
    SELECT series.job, total.slot, total.step, COUNT(*)
    FROM total INDEXED BY total_changed JOIN series ON series.id = total.series
    WHERE total.changed = 1 AND total.revision > ? AND total.revision <= ?
    GROUP BY series.job, total.slot, total.step ORDER BY total.slot DESC, total.step, series.job"""
_CHANGED = """
    SELECT total.series, series.job, series.path, total.value, series.is_made
    FROM total JOIN series ON series.id = total.series
    WHERE total.slot = :slot AND total.step = :step AND total.series > :beyond
        AND total.changed = 1 AND total.revision > :after AND total.revision <= :upto
    ORDER BY total.series LIMIT :limit"""
_COMMIT = f"""
    UPDATE watermark SET value = :value, updated = {NOW}
    WHERE job = :job AND (length(:value), :value) > (length(value), value)
        AND (length(:value), :value) <= (length(captured), captured)"""
_HISTORY = f"INSERT INTO history (job, value, datapoints, committed) VALUES (?, ?, ?, {NOW})"
_FORGET_HISTORY = "DELETE FROM history WHERE id <= (SELECT MAX(id) FROM history) - ?"
_PROVE = "UPDATE total SET changed = 0 WHERE changed = 1 AND revision > ? AND revision <= ?"
_RELEASE = "UPDATE total SET changed = 1, revision = ? WHERE changed = 2 AND step = ? AND slot <= ?"
_RETARGET = "UPDATE total SET changed = 1, revision = ? WHERE changed <> 2"
_PARK = "UPDATE total SET changed = 2 WHERE changed = 1 AND slot = ? AND step = ?"
_PARKED = """
    SELECT DISTINCT series.job FROM total INDEXED BY total_deferred JOIN series ON series.id = total.series
    WHERE total.changed = 2"""
_MADE = """
    UPDATE series SET is_made = 1 WHERE is_made = 0 AND id IN (
        SELECT series FROM total INDEXED BY total_changed WHERE changed = 1 AND revision > ? AND revision <= ?)"""
_NEW = """
    SELECT COUNT(*) FROM series WHERE is_made = 0 AND EXISTS (
        SELECT 1 FROM series WHERE is_made = 0 AND id IN (
            SELECT series FROM total INDEXED BY total_changed WHERE changed = 1 AND revision > ? AND revision <= ?))"""
_PROVE_SERIES = """
    UPDATE total SET changed = 0 WHERE slot = ? AND step = ? AND series IN (SELECT value FROM json_each(?))
        AND changed = 1 AND revision > ? AND revision <= ?"""
_MADE_SERIES = "UPDATE series SET is_made = 1 WHERE is_made = 0 AND id IN (SELECT value FROM json_each(?))"
_KEEP = "INSERT INTO sent (after, upto, stage, confirmed, due, repeats, reads) VALUES (?, ?, ?, ?, ?, ?, ?)"


class Outbox(StateFile):
    """What the courier needs of the state: see Outbox."""

    def note(self, after: int, upto: int | None = None) -> Pending:
        """Pending what changed: see Outbox."""
        with self._reading("note what changed") as connection:
            self._commit()  # what is not durable is not delivered
            upto = self._revision if upto is None else upto
            waiting = connection.execute(_WAITING, (after, upto)).fetchall() if upto > after else []
            behind = connection.execute("SELECT job, captured FROM watermark WHERE value <> captured").fetchall()
            deferred = connection.execute(_PARKED).fetchall() if behind else []
        return Pending(
            upto,
            {job: int(captured) for job, captured in behind},
            [Waiting(*row) for row in waiting],
            frozenset(job for (job,) in deferred),
        )

    def changed(self, slot: int, step: int, *, after: int, upto: int, beyond: int, limit: int) -> list[Changed]:
        """Return, by series, the changed totals of one slot with a revision in (after, upto], series > beyond."""
        what = {"slot": slot, "step": step, "after": after, "upto": upto, "beyond": beyond, "limit": limit}
        with self._reading("read what changed") as connection:
            rows = connection.execute(_CHANGED, what).fetchall()
        return [Changed(series, job, path, loaded(value), bool(made)) for series, job, path, value, made in rows]

    def commit(self, watermarks: Mapping[str, int], datapoints: Mapping[str, int]) -> None:
        """Store watermarks durably, and how many datapoints led to each; none moves back."""
        with self._writing("commit watermarks") as connection:
            for job, value in watermarks.items():
                if connection.execute(_COMMIT, {"job": job, "value": str(value)}).rowcount:
                    connection.execute(_HISTORY, (job, str(value), datapoints.get(job, 0)))
            connection.execute(_FORGET_HISTORY, (HISTORY_ROWS,))

    def keep_replays(self, sent: Iterable[Replay]) -> None:
        """Keep what was delivered and is to be sent again; its times are wall-clock, epoch seconds."""
        with self._writing("keep what was sent") as connection:
            connection.executemany(
                _KEEP,
                (
                    (one.after, one.upto, one.stage, int(one.confirmed), int(one.due), one.repeats, int(one.reads))
                    for one in sent
                ),
            )

    def take_replays(self) -> list[Replay]:
        """Return what was kept, and forget it: if this process is killed, all that is not proven is sent again."""
        with self._writing("take what was sent") as connection:
            rows = connection.execute("SELECT after, upto, stage, confirmed, due, repeats, reads FROM sent").fetchall()
            connection.execute("DELETE FROM sent")
        sent = [
            Replay(after, upto, stage, confirmed, due, repeats, bool(reads))
            for after, upto, stage, confirmed, due, repeats, reads in rows
        ]
        self._revision = max([self._revision, *(one.upto for one in sent)])
        return sent

    def prove(self, *, after: int, upto: int) -> None:
        """Hold what still has a revision in (after, upto] for delivered for good."""
        with self._writing("prove totals") as connection:
            connection.execute(_MADE, (after, upto))
            connection.execute(_PROVE, (after, upto))

    def prove_series(self, slot: int, step: int, series: Sequence[int], *, after: int, upto: int) -> None:
        """Hold some totals of a slot for delivered for good: see Outbox."""
        with self._writing("prove totals") as connection:
            connection.execute(_PROVE_SERIES, (slot, step, json.dumps(series), after, upto))
            connection.execute(_MADE_SERIES, (json.dumps(series),))

    def count_new(self, after: int, upto: int) -> int:
        """Return how many series were never proven, if a range of revisions has any: see Outbox."""
        with self._reading("count new series") as connection:
            count: int = connection.execute(_NEW, (after, upto)).fetchone()[0]
        return count

    def release(self, due: Iterable[tuple[int, int]]) -> None:
        """Let deferred totals go out, as changed just now: of each step up to a slot."""
        with self._changing("release totals") as connection:
            connection.executemany(_RELEASE, ((self._revision + 1, step, slot) for step, slot in due))

    def defer(self, slot: int, step: int) -> None:
        """Keep the changed totals of a slot back, until they are released."""
        with self._writing("park totals") as connection:
            connection.execute(_PARK, (slot, step))

    def merge(self, slot: int, step: int, into: tuple[int, int] | None) -> dict[str, int]:
        """Merge a slot's changed totals, and all finer ones, into a slot of a coarser archive, deferred.

        Into None they are given up: no archive would hold them. Return how many rows that were, by job.
        """
        with self._changing("merge totals") as connection:
            return merge(connection, slot, step, into, self._revision + 1)

    def retarget(self, carbon: str) -> bool:
        """Hold every total for changed if Carbon is another than before; return whether it is."""
        with self._changing("look at the target") as connection:
            row = connection.execute("SELECT value FROM setting WHERE name = 'carbon'").fetchone()
            connection.execute("INSERT OR REPLACE INTO setting (name, value) VALUES ('carbon', ?)", (carbon,))
            is_other = row is not None and row[0] != carbon
            if is_other:
                connection.execute(_RETARGET, (self._revision + 1,))
                connection.execute("UPDATE series SET is_made = 0")
                connection.execute("DELETE FROM sent")
        return is_other
