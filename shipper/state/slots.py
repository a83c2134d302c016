"""What is known of a job's slots beside their totals: whose rows they hold, and which rows none holds."""

import sqlite3
from collections.abc import Mapping

from shipper.core.ledger import Slot
from shipper.core.model import Cause, Reason, Span

_SLOTS = """
    SELECT slot, step, after, upto FROM slot WHERE job = :job AND slot < :end AND slot + step > :start
    ORDER BY slot, step"""
_REJECT = """
    INSERT INTO unshown_in (job, cause, bucket, after, rows) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows,
        after = CASE WHEN (length(excluded.after), excluded.after) < (length(after), after)
            THEN excluded.after ELSE after END"""
_SHOWN = """
    DELETE FROM unshown_in WHERE job = ? AND cause = ? AND bucket >= ? AND bucket < ? RETURNING rows"""


def slots(connection: sqlite3.Connection, job: str, span: Span) -> list[Slot]:
    """Return the slots that overlap a span: see Ledger."""
    rows = connection.execute(_SLOTS, {"job": job, "start": span.start, "end": span.end})
    return [Slot(slot, step, int(after), int(upto)) for slot, step, after, upto in rows]


def reject(connection: sqlite3.Connection, job: str, unshown: Mapping[Reason, int], after: int) -> None:
    """Remember in which buckets rows above an id would be that cannot be shown: they may be, one day."""
    rows = [
        (job, cause.value, bucket, str(after), count)
        for (cause, bucket), count in unshown.items()
        if bucket is not None and count
    ]
    connection.executemany(_REJECT, rows)


def shown(connection: sqlite3.Connection, job: str, shows: Mapping[Cause, Span]) -> dict[Cause, int]:
    """Forget rows that were counted as unshown and are shown now; return how many they are."""
    found = {}
    for cause, span in shows.items():
        rows = connection.execute(_SHOWN, (job, cause.value, span.start, span.end)).fetchall()
        found[cause] = sum(row[0] for row in rows)
    return found
