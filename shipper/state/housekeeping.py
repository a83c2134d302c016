"""What becomes of totals as they grow old: merged into a coarser slot, pruned; and of jobs that are renamed."""

import json
import sqlite3
from itertools import groupby

from shipper.core.measures import Kind, combined
from shipper.core.model import Job, definition_digest
from shipper.state.recording import loaded, stored

_FINER = """
    SELECT series.id, series.job, series.kind, total.value FROM total JOIN series ON series.id = total.series
    WHERE total.slot >= :start AND total.slot < :end
        AND (total.step <= :step OR (total.slot = :start AND total.step = :into))
        AND total.series IN (SELECT series FROM total WHERE slot = :slot AND step = :step AND changed = 1)
    ORDER BY series.id"""
_DELETE = """
    DELETE FROM total WHERE slot >= :start AND slot < :end AND step < :into
        AND series IN (SELECT value FROM json_each(:series))"""
_PUT = """
    INSERT INTO total (slot, step, series, value, revision, changed) VALUES (?, ?, ?, ?, ?, 2)
    ON CONFLICT DO UPDATE SET value = excluded.value, revision = excluded.revision, changed = 2"""
_SLOT = """
    INSERT OR IGNORE INTO slot (job, slot, step, after, upto, changed)
    SELECT job, :start, :into, MIN(after), MAX(upto), MAX(changed) FROM (
        SELECT job, changed,
            FIRST_VALUE(after) OVER (ORDER BY length(after), after) AS after,
            FIRST_VALUE(upto) OVER (ORDER BY length(upto) DESC, upto DESC) AS upto
        FROM slot WHERE job = :job AND slot >= :start AND slot < :end)"""
_GIVE_UP = """
    SELECT series.job, SUM(CASE WHEN kind = 'count' THEN total.value ELSE 0 END)
    FROM total JOIN series ON series.id = total.series
    WHERE total.slot = ? AND total.step = ? AND total.changed = 1 GROUP BY series.job"""
_TOO_OLD = """
    INSERT INTO rejected (job, reason, rows) VALUES (?, 'too_old', ?)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows"""

_OLD_UNITS = """
    SELECT slot / :unit * :unit AS start FROM slot WHERE job = :job
    GROUP BY start HAVING MAX(changed) < :before AND start + :unit <= :before ORDER BY start LIMIT 200"""
_OPEN = """
    SELECT 1 FROM total JOIN series ON series.id = total.series
    WHERE slot >= ? AND slot < ? AND job = ? AND changed > 0 LIMIT 1"""
_FORGET = "DELETE FROM total WHERE slot >= ? AND slot < ? AND series IN (SELECT id FROM series WHERE job = ?)"

# what older slots are made of, without it, is needed as long as there is one
_FORGET_LATE = """
    DELETE FROM late WHERE job = :job AND slot < COALESCE((SELECT MIN(slot) FROM slot WHERE job = :job), slot + 1)"""
_FORGET_SETTLED = """
    DELETE FROM settled WHERE job = :job AND NOT EXISTS (
        SELECT 1 FROM slot
        WHERE slot.job = :job AND (length(slot.after), slot.after) < (length(settled.upto), settled.upto))"""

_NAMES = (
    "counted",
    "identity",
    "history",
    "late",
    "position",
    "pruned",
    "series",
    "settled",
    "slot",
    "rejected",
    "rejected_in",
    "watermark",
    "job",
)
_TWIN = """
    SELECT job FROM watermark JOIN job USING (job)
    WHERE definition_digest = ? AND source = ? AND id_table = ? AND id_column = ? ORDER BY job"""


def merge(
    connection: sqlite3.Connection, slot: int, step: int, into: tuple[int, int] | None, revision: int
) -> dict[str, int]:
    """Merge the changed totals of a slot: see State.merge."""
    if into is None:
        return _give_up(connection, slot, step)
    start, coarse = into
    where = {"slot": slot, "step": step, "start": start, "end": start + coarse, "into": coarse}
    finer = connection.execute(_FINER, where).fetchall()
    connection.execute(_DELETE, where | {"series": json.dumps([row[0] for row in finer])})
    for (series, kind), rows in groupby(finer, key=lambda row: (row[0], row[2])):
        value = combined(Kind(kind), [loaded(row[3]) for row in rows])
        connection.execute(_PUT, (start, coarse, series, stored(value), revision))
    for job in {row[1] for row in finer}:
        connection.execute(_SLOT, where | {"job": job})
    return {}


def _give_up(connection: sqlite3.Connection, slot: int, step: int) -> dict[str, int]:
    lost = dict(connection.execute(_GIVE_UP, (slot, step)).fetchall())
    connection.executemany(_TOO_OLD, lost.items())
    connection.execute("DELETE FROM total WHERE slot = ? AND step = ? AND changed = 1", (slot, step))
    return lost


def prune(connection: sqlite3.Connection, job: str, unit: int, before: int) -> int:
    """Forget old slots in whole units: see State.prune."""
    units = connection.execute(_OLD_UNITS, {"unit": unit, "job": job, "before": before}).fetchall()
    pruned = 0
    for (start,) in units:
        if connection.execute(_OPEN, (start, start + unit, job)).fetchone():
            continue
        connection.execute(_FORGET, (start, start + unit, job))
        connection.execute("DELETE FROM slot WHERE job = ? AND slot >= ? AND slot < ?", (job, start, start + unit))
        _remember(connection, job, start, start + unit)
        pruned += 1
    connection.execute(_FORGET_LATE, {"job": job})
    connection.execute(_FORGET_SETTLED, {"job": job})
    return pruned


def _remember(connection: sqlite3.Connection, job: str, start: int, end: int) -> None:
    """Add a range to those that are pruned, as one with its neighbours."""
    touching = "job = ? AND start <= ? AND end >= ?"
    row = connection.execute(f"SELECT MIN(start), MAX(end) FROM pruned WHERE {touching}", (job, end, start)).fetchone()
    connection.execute(f"DELETE FROM pruned WHERE {touching}", (job, end, start))
    start, end = min(start, row[0] or start), max(end, row[1] or end)
    connection.execute("INSERT INTO pruned (job, start, end) VALUES (?, ?, ?)", (job, start, end))


def rename(connection: sqlite3.Connection, job: Job, configured: set[str]) -> str | None:
    """Give a new job what belongs to its twin: see State.rename."""
    if connection.execute("SELECT 1 FROM watermark WHERE job = ?", (job.name,)).fetchone():
        return None
    identity = (definition_digest(job), job.source, job.query.table, job.query.id)
    twins: list[str] = [name for (name,) in connection.execute(_TWIN, identity) if name not in configured]
    if not twins:
        return None
    move(connection, twins[0], job.name)
    return twins[0]


def move(connection: sqlite3.Connection, before: str, after: str) -> None:
    """Give all that belongs to a job to another name, which has nothing."""
    connection.execute("PRAGMA defer_foreign_keys = ON")
    _forget_notes(connection, before)
    for table in _NAMES:
        connection.execute(f"UPDATE {table} SET job = ? WHERE job = ?", (after, before))


def forget(connection: sqlite3.Connection, job: str) -> None:
    """Drop all that belongs to a job."""
    connection.execute("PRAGMA defer_foreign_keys = ON")
    _forget_notes(connection, job)
    connection.execute("DELETE FROM total WHERE series IN (SELECT id FROM series WHERE job = ?)", (job,))
    for table in _NAMES:
        connection.execute(f"DELETE FROM {table} WHERE job = ?", (job,))


def _forget_notes(connection: sqlite3.Connection, job: str) -> None:
    """Forget how far operations on a job have come."""
    connection.execute("DELETE FROM setting WHERE name = 'backfill ' || ?", (job,))
