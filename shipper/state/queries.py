"""How far each job has come, as the state file tells whoever asks."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from shipper.core.model import Offsets, Progress, Standing
from shipper.state.schema import reader

OFFSETS = "SELECT source, id_table, id_column, value, captured, complete_until, updated FROM watermark"
PROGRESS = """
    SELECT captured, COALESCE(unixepoch(complete_until), 0), closed_until, not_before, recount_from, low,
        shape, places, since, begins, bucket
    FROM watermark JOIN job USING (job) WHERE job = ?"""
_STANDING = """
    WITH unproven (job, totals, waiting) AS (
        SELECT series.job, COUNT(*), SUM(open.revision > (SELECT COALESCE(MAX(upto), 0) FROM sent)) FROM (
            SELECT series, revision FROM total INDEXED BY total_changed WHERE changed = 1
            UNION ALL SELECT series, 0 FROM total INDEXED BY total_parked WHERE changed = 2
        ) AS open JOIN series ON series.id = open.series GROUP BY series.job)
    SELECT job, COALESCE(unproven.totals, 0), (
        SELECT json_group_object(cause, rows) FROM unshown WHERE unshown.job = watermark.job AND rows > 0),
        COALESCE((SELECT late_rows FROM position WHERE position.job = watermark.job), 0),
        (SELECT unixepoch(MAX(committed)) FROM history WHERE history.job = watermark.job),
        COALESCE(unproven.waiting, 0), source, id_table, id_column, value, captured, complete_until, updated
    FROM watermark LEFT JOIN unproven USING (job)"""
_TOTALS = """
    SELECT series.job, total.slot / :step * :step, SUM(total.value)
    FROM total JOIN series ON series.id = total.series
    WHERE total.slot >= :since AND series.kind = 'count'
    GROUP BY series.job, total.slot / :step"""


def standings(path: str) -> dict[str, Standing]:
    """Read how far each job has come, by job, without disturbing the process that holds the state.

    Raises:
        StateCorrupt: it is damaged, foreign or newer.
        ConfigError: there is no such file, or it may not be read.
    """
    with reader(path) as connection:
        rows = connection.execute(_STANDING).fetchall()
    return {
        job: Standing(offsets_of(position), unproven, json.loads(unshown), late_rows, delivered_at, waiting)
        for job, unproven, unshown, late_rows, delivered_at, waiting, *position in rows
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
    captured, complete_until, closed_until, not_before, recount_from, low, *others = row
    return Progress(int(captured), complete_until, closed_until, not_before, recount_from, int(low), *others)
