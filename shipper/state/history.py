"""How a job came to where it is, as the state file tells whoever asks: commits of its watermark, and slots."""

from typing import NamedTuple

from shipper.state.schema import reader

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


class Slot(NamedTuple):
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


def slots(path: str, job: str, *, start: int, end: int, longest: int) -> list[Slot]:
    """Return what the state holds of a job for the slots that touch a span; none is longer than longest seconds.

    Raises as `commits` does.
    """
    with reader(path) as connection:
        rows = connection.execute(_SLOTS, {"job": job, "start": start, "end": end, "longest": longest}).fetchall()
    return [Slot(*row) for row in rows]
