"""How far each job has come, as the state file tells whoever asks.

What a job has counted, as the state file tells whoever compares it: without totals, which are in question.

How a job came to where it is, as the state file tells whoever asks: commits of its watermark, and slots.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from shipper.core.ledger import JobSnapshot, Name
from shipper.core.measures import Kind, Measure
from shipper.core.model import JobStanding, Offsets, Progress, Span
from shipper.state.positions import late_ids, slots
from shipper.state.schema import reader

OFFSETS = "SELECT source, id_table, id_column, value, captured, complete_until, updated FROM watermark"
PROGRESS = """
    SELECT captured, COALESCE(unixepoch(complete_until), 0), zero_filled_until, not_before, recount_from, low,
        definition_digest, path_digest, since, begins, bucket
    FROM watermark JOIN job USING (job) WHERE job = ?"""
_STANDING = """
    WITH unproven (job, totals, waiting) AS (
        SELECT series.job, COUNT(*), SUM(open.revision > (SELECT COALESCE(MAX(upto), 0) FROM sent)) FROM (
            SELECT series, revision FROM total INDEXED BY total_changed WHERE changed = 1
            UNION ALL SELECT series, 0 FROM total INDEXED BY total_deferred WHERE changed = 2
        ) AS open JOIN series ON series.id = open.series GROUP BY series.job)
    SELECT job, COALESCE(unproven.totals, 0), (
        SELECT json_group_object(reason, rows) FROM rejected WHERE rejected.job = watermark.job AND rows > 0),
        COALESCE((SELECT late_rows FROM position WHERE position.job = watermark.job), 0),
        (SELECT unixepoch(MAX(committed)) FROM history WHERE history.job = watermark.job),
        COALESCE(unproven.waiting, 0), source, id_table, id_column, value, captured, complete_until, updated
    FROM watermark LEFT JOIN unproven USING (job)"""
_TOTALS = """
    SELECT series.job, total.slot / :step * :step, SUM(total.value)
    FROM total JOIN series ON series.id = total.series
    WHERE total.slot >= :since AND series.kind = 'count'
    GROUP BY series.job, total.slot / :step"""


def standings(path: str) -> dict[str, JobStanding]:
    """Read how far each job has come, by job, without disturbing the process that holds the state.

    Raises:
        StateCorrupt: it is damaged, foreign or newer.
        ConfigError: there is no such file, or it may not be read.
    """
    with reader(path) as connection:
        rows = connection.execute(_STANDING).fetchall()
    return {
        job: JobStanding(offsets_of(position), unproven, json.loads(rejected), late_rows, delivered_at, waiting)
        for job, unproven, rejected, late_rows, delivered_at, waiting, *position in rows
    }


def series_counts(path: str) -> dict[str, int]:
    """Count the series of each job; raises as `standings` does."""
    with reader(path) as connection:
        return dict(connection.execute("SELECT job, COUNT(*) FROM series GROUP BY job"))


def totals(path: str, *, since: int, step: int) -> dict[str, dict[int, int]]:
    """Add up the counts of each job from an instant on, by slots of step seconds; raises as `standings` does."""
    found: dict[str, dict[int, int]] = {}
    with reader(path) as connection:
        for job, slot, rows in connection.execute(_TOTALS, {"since": since, "step": step}):
            found.setdefault(job, {})[slot] = rows
    return found


def instant(text: str) -> int:
    """Read a time as the state writes it, epoch seconds."""
    return int(datetime.fromisoformat(text).timestamp())


def offsets_of(row: Sequence[Any]) -> Offsets:
    """Read a row of OFFSETS."""
    source, table, identity, value, captured, complete_until, updated = row
    return Offsets(source, table, identity, int(value), int(captured), complete_until, updated)


def progress_of(row: Sequence[Any]) -> Progress:
    """Read a row of PROGRESS."""
    captured, complete_until, zero_filled_until, not_before, recount_from, low, *others = row
    return Progress(int(captured), complete_until, zero_filled_until, not_before, recount_from, int(low), *others)


_NAMES = 'SELECT path, "group", measure, kind FROM series WHERE job = ?'
_PRUNED = "SELECT start, end FROM pruned WHERE job = ? AND start < ? AND end > ?"


def read_snapshot(path: str, job: str, span: Span) -> JobSnapshot | None:
    """Read it, with the slots of a span, beside the process that holds the state; None for a job that has not begun.

    Raises:
        StateCorrupt: it is damaged, foreign or newer.
        ConfigError: there is no such file, or it may not be read.
    """
    with reader(path) as connection:
        connection.execute("BEGIN")  # all of it as it is at one moment
        position = connection.execute(f"{OFFSETS} WHERE job = ?", (job,)).fetchone()
        progress = connection.execute(PROGRESS, (job,)).fetchone()
        if progress is None:
            return None
        names = [
            Name(path, tuple(json.loads(group)), Measure(measure, Kind(kind)))
            for path, group, measure, kind in connection.execute(_NAMES, (job,))
        ]
        pruned = [Span(*row) for row in connection.execute(_PRUNED, (job, span.end, span.start))]
        held, late = slots(connection, job, span), late_ids(connection, job)
    return JobSnapshot(offsets_of(position), progress_of(progress), names, held, pruned, late)


_COMMITS = """
    WITH step AS (
        SELECT id, unixepoch(committed) AS committed, value, datapoints, LAG(value) OVER (ORDER BY id) AS before
        FROM history WHERE job = :job)
    SELECT committed, value, before, datapoints FROM (
        SELECT * FROM (SELECT * FROM step WHERE committed <= :at ORDER BY id DESC LIMIT :until)
        UNION ALL SELECT * FROM (SELECT * FROM step WHERE committed > :at ORDER BY id LIMIT :beyond))
    ORDER BY id"""
_SLOTS = """
    SELECT total.slot, total.step, COUNT(*), SUM(CASE series.kind WHEN 'count' THEN total.value END),
        SUM(total.changed <> 0), slot.changed
    FROM total JOIN series ON series.id = total.series
        LEFT JOIN slot ON (slot.job, slot.slot, slot.step) = (series.job, total.slot, total.step)
    WHERE series.job = :job AND total.slot > :start - :longest AND total.slot + total.step > :start
        AND total.slot <= :end
    GROUP BY total.slot, total.step ORDER BY total.slot, total.step"""


class Commit(NamedTuple):
    """A watermark, and what led to it."""

    committed: int
    """Epoch seconds."""
    watermark: int
    ids: int | None
    """How far that is from the watermark before; None where that one is forgotten."""
    datapoints: int
    """How many were delivered for it."""


class StoredSlot(NamedTuple):
    """What the state holds of a job for one slot."""

    slot: int
    step: int
    series: int
    rows: int | None
    """None where the job counts none."""
    unproven: int
    changed: int | None
    """When a record changed it last, epoch seconds."""


def commits(path: str, job: str, *, at: int, until: int, beyond: int) -> list[Commit]:
    """Return the newest so many commits of a job up to a time and the oldest so many beyond it, the newest last.

    Raises:
        StateCorrupt: the state is damaged, foreign or newer.
        ConfigError: there is no such file, or it may not be read.
    """
    with reader(path) as connection:
        rows = connection.execute(_COMMITS, {"job": job, "at": at, "until": until, "beyond": beyond}).fetchall()
    return [
        Commit(committed, int(value), None if before is None else int(value) - int(before), datapoints)
        for committed, value, before, datapoints in rows
    ]


def stored_slots(path: str, job: str, *, start: int, end: int, longest: int) -> list[StoredSlot]:
    """Return what the state holds of a job for the slots that touch a span; none is longer than longest seconds.

    Raises as `commits` does.
    """
    with reader(path) as connection:
        rows = connection.execute(_SLOTS, {"job": job, "start": start, "end": end, "longest": longest}).fetchall()
    return [StoredSlot(*row) for row in rows]
