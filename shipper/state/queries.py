"""Read-only queries of the state, also beside the process that holds it: offsets, snapshots, history."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from shipper.core.id_set import unpack
from shipper.core.ledger import JobSnapshot, LateIds, Name, Slot
from shipper.core.measures import Kind, Measure
from shipper.core.model import Fingerprint, JobStatus, Offsets, Progress, Span
from shipper.core.verify.audit import Audit
from shipper.state import positions
from shipper.state.positions import identity_rows
from shipper.state.schema import reader
from shipper.state.values import group_of

OFFSETS = "SELECT source, id_table, id_column, value, captured, complete_until, updated FROM watermark"
PROGRESS = """
    SELECT captured, COALESCE(unixepoch(complete_until), 0), zero_filled_until, not_before, recount_from, low,
        definition_digest, path_digest, time_digest, since, begins, bucket, multiple
    FROM watermark JOIN job USING (job) WHERE job = ?"""
CONFIRMED = "(SELECT COALESCE(MAX(CAST(value AS INTEGER)), 0) FROM setting WHERE name = 'confirmed')"
"""Revision up to which all totals are confirmed."""
_STATUS = """
    SELECT job, (
        SELECT json_group_object(reason, rows) FROM rejected WHERE rejected.job = watermark.job AND rows > 0),
        COALESCE((SELECT late_rows FROM position WHERE position.job = watermark.job), 0),
        source, id_table, id_column, value, captured, complete_until, updated
    FROM watermark"""
_DELIVERED = "SELECT job, unixepoch(MAX(committed)) FROM history GROUP BY job"
# Totals that are not proven yet, of each job, and those newer than all that Carbon has confirmed; maybe millions.
# In one statement with the deferred ones SQLite would copy them all.
_CHANGED = f"""
    SELECT series.job, COUNT(*), SUM(total.revision > MAX({CONFIRMED}, (SELECT COALESCE(MAX(upto), 0) FROM replay)))
    FROM total INDEXED BY total_changed CROSS JOIN series ON series.id = total.series
    WHERE total.changed = 1 GROUP BY series.job"""
_DEFERRED = """
    SELECT series.job, COUNT(*)
    FROM total INDEXED BY total_deferred CROSS JOIN series ON series.id = total.series
    WHERE total.changed = 2 GROUP BY series.job"""
_TOTALS = """
    SELECT series.job, total.slot / :step * :step, SUM(total.value)
    FROM total JOIN series ON series.id = total.series
    WHERE total.slot >= :since AND series.kind = 'count'
    GROUP BY series.job, total.slot / :step"""


def job_statuses(path: str) -> dict[str, JobStatus]:
    """Return the status of each job, without disturbing the process that holds the state; raises as `reader` does."""
    with reader(path) as connection:
        connection.execute("BEGIN")  # one snapshot for all statements
        changed = {job: numbers for job, *numbers in connection.execute(_CHANGED)}
        deferred, delivered = (dict(connection.execute(statement)) for statement in (_DEFERRED, _DELIVERED))
        statuses = {}
        for job, rejected, late_rows, *position in connection.execute(_STATUS):
            unproven, waiting = changed.get(job, (0, 0))
            unproven += deferred.get(job, 0)
            offsets, at = offsets_of(position), delivered.get(job)
            statuses[job] = JobStatus(offsets, unproven, json.loads(rejected), late_rows, at, waiting)
        return statuses


def pauses(path: str) -> dict[str, int]:
    """Return since when an operator paused each paused job, in epoch seconds; raises as `reader` does."""
    with reader(path) as connection:
        return pauses_of(connection)


def pauses_of(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the paused jobs, and since when."""
    return dict(connection.execute("SELECT job, since FROM pause"))


def audits(path: str) -> dict[str, Audit]:
    """Return the newest audit of each job; raises as `reader` does."""
    with reader(path) as connection:
        return {job: Audit(*values) for job, *values in connection.execute("SELECT * FROM audit")}


class KnownTable(NamedTuple):
    """The identity of a job's table, and the job's definition when it was stored."""

    fingerprint: Fingerprint
    time_digest: str


def known_tables(path: str) -> dict[str, KnownTable]:
    """Return the identity of each job's table; raises as `reader` does."""
    with reader(path) as connection:
        rows = connection.execute("SELECT job, server, rows, went_back, time_digest FROM identity JOIN job USING (job)")
        return {
            job: KnownTable(Fingerprint(server, identity_rows(text), bool(went_back)), digest)
            for job, server, text, went_back, digest in rows
        }


def series_counts(path: str) -> dict[str, int]:
    """Return the number of series of each job; raises as `reader` does."""
    with reader(path) as connection:
        return dict(connection.execute("SELECT job, COUNT(*) FROM series GROUP BY job"))


def totals(path: str, *, since: int, step: int) -> dict[str, dict[int, int]]:
    """Return the sum of counts of each job since a time, by slots of step seconds; raises as `reader` does."""
    sums: dict[str, dict[int, int]] = {}
    with reader(path) as connection:
        for job, slot, rows in connection.execute(_TOTALS, {"since": since, "step": step}):
            sums.setdefault(job, {})[slot] = rows
    return sums


def instant(text: str) -> int:
    """Return a time that the state stores as text, in epoch seconds."""
    return int(datetime.fromisoformat(text).timestamp())


def offsets_of(row: Sequence[Any]) -> Offsets:
    """Return a row of OFFSETS as a value."""
    source, table, identity, value, captured, complete_until, updated = row
    if complete_until is not None:
        instant(complete_until)  # who shows it could not translate an error
    return Offsets(source, table, identity, int(value), int(captured), complete_until, updated)


def progress_of(row: Sequence[Any]) -> Progress:
    """Return a row of PROGRESS as a value."""
    captured, complete_until, zero_filled_until, not_before, recount_from, low, *others = row
    return Progress(int(captured), complete_until, zero_filled_until, not_before, recount_from, int(low), *others)


_SLOTS = """
    SELECT slot, step, after, upto FROM slot
    WHERE job = :job AND slot < :end AND slot + step > :start AND step > :longer_than
    ORDER BY slot, step"""
_NAMES = 'SELECT path, "group", measure, kind FROM series WHERE job = ?'
_LACKING = "SELECT slot, slot + step FROM slot WHERE job = ? AND slot < ? AND slot + step > ? AND lacking > 0"
_PRUNED = "SELECT start, end FROM pruned WHERE job = ? AND start < ? AND end > ?"


def slots_of(connection: sqlite3.Connection, job: str, span: Span, *, longer_than: int = 0) -> list[Slot]:
    """Return a job's slots that overlap a span, in order, and are longer than some seconds."""
    values = {"job": job, "start": span.start, "end": span.end, "longer_than": longer_than}
    rows = connection.execute(_SLOTS, values)
    return [Slot(slot, step, int(after), int(upto)) for slot, step, after, upto in rows]


def late_ids_of(connection: sqlite3.Connection, job: str) -> list[LateIds]:
    """Return which ids of a job without a time column came late, by slot."""
    rows = connection.execute("SELECT slot, words FROM late WHERE job = ? ORDER BY slot, number", (job,))
    return [LateIds(slot, unpack(words)) for slot, words in rows]


def read_snapshot(path: str, job: str, span: Span, *, knows_ids: bool = False) -> JobSnapshot | None:
    """Return a job's data without totals, with the slots of a span; None if the job has not begun.

    With knows_ids it has the ids that are counted.

    Raises as `reader` does.
    """
    with reader(path) as connection:
        connection.execute("BEGIN")  # one snapshot for all statements
        offsets = connection.execute(f"{OFFSETS} WHERE job = ?", (job,)).fetchone()
        progress = connection.execute(PROGRESS, (job,)).fetchone()
        if progress is None:
            return None
        names = [
            Name(path, group_of(group), Measure(measure, Kind(kind)))
            for path, group, measure, kind in connection.execute(_NAMES, (job,))
        ]
        pruned = [Span(*row) for row in connection.execute(_PRUNED, (job, span.end, span.start))]
        lacking = [Span(*row) for row in connection.execute(_LACKING, (job, span.end, span.start))]
        slots, late = slots_of(connection, job, span), late_ids_of(connection, job)
        snapshot = JobSnapshot(offsets_of(offsets), progress_of(progress), names, slots, pruned, late, lacking)
        if not knows_ids:
            return snapshot
        minutes = positions.read_numbers(connection, job)
        return snapshot._replace(position=positions.read(connection, job), minutes=minutes)


# Commits around a time, with the watermark of the commit before.
_COMMITS = """
    WITH step AS (
        SELECT id, unixepoch(committed) AS committed, value, datapoints, LAG(value) OVER (ORDER BY id) AS before
        FROM history WHERE job = :job)
    SELECT committed, value, before, datapoints FROM (
        SELECT * FROM (SELECT * FROM step WHERE committed <= :at ORDER BY id DESC LIMIT :until)
        UNION ALL SELECT * FROM (SELECT * FROM step WHERE committed > :at ORDER BY id LIMIT :beyond))
    ORDER BY id"""
# Series, rows and unproven totals of each slot that touches a span.
_STORED_SLOTS = """
    SELECT total.slot, total.step, COUNT(*), SUM(CASE series.kind WHEN 'count' THEN total.value END),
        SUM(total.changed <> 0), slot.changed
    FROM total JOIN series ON series.id = total.series
        LEFT JOIN slot ON (slot.job, slot.slot, slot.step) = (series.job, total.slot, total.step)
    WHERE series.job = :job AND total.slot > :start - :longest AND total.slot + total.step > :start
        AND total.slot <= :end
    GROUP BY total.slot, total.step ORDER BY total.slot, total.step"""


class Commit(NamedTuple):
    """A watermark that was committed."""

    committed: int
    """Time, in epoch seconds."""
    watermark: int
    ids: int | None
    """Distance to the previous watermark; None if that one is forgotten."""
    datapoints: int
    """Number delivered since the previous commit."""


class StoredSlot(NamedTuple):
    """Summary of a job's totals in one slot."""

    slot: int
    step: int
    series: int
    rows: int | None
    """None if the job has no count."""
    unproven: int
    changed: int | None
    """Time of the last change, in epoch seconds."""


def commits(path: str, job: str, *, at: int, until: int, beyond: int) -> list[Commit]:
    """Return a job's newest commits up to a time (until of them) and the oldest after it (beyond of them), in order.

    Raises as `reader` does.
    """
    with reader(path) as connection:
        rows = connection.execute(_COMMITS, {"job": job, "at": at, "until": until, "beyond": beyond})
        return [
            Commit(committed, int(value), None if before is None else int(value) - int(before), datapoints)
            for committed, value, before, datapoints in rows
        ]


def stored_slots(path: str, job: str, *, start: int, end: int, longest: int) -> list[StoredSlot]:
    """Return a job's slots that touch a span, in order; no slot is longer than longest, in seconds.

    Raises as `reader` does.
    """
    values = {"job": job, "start": start, "end": end, "longest": longest}
    with reader(path) as connection:
        rows = connection.execute(_STORED_SLOTS, values).fetchall()
    return [StoredSlot(*row) for row in rows]
