"""Edge. The tables of the rechecks: windows that may get late rows, what is to be repaired, what a reset forgets."""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from shipper.ledger import Done, Slot
from shipper.model import Cause, Checksum, Fingerprint, Job, Reason, RecordedWindow, Span, Window

NOWHERE = -1  # is no bucket

_TABLE = "source = :source AND id_table = :table AND id_column = :id"
_COLUMNS = "after, upto, rows, id_sum, id_xor, recorded, looks, is_open"
# ids as text: the longer is the larger
_NUMERIC = "ORDER BY length(after), after"

_RECORD = f"""
    INSERT OR REPLACE INTO recorded_window (source, id_table, id_column, {_COLUMNS})
    SELECT source, id_table, id_column, ?, ?, ?, ?, ?, ?, ?, ? FROM watermark WHERE job = ?"""
_NEXT = f"""
    SELECT upto FROM recorded_window WHERE {_TABLE} AND (length(after), after) <= (length(:upto), :upto)
    ORDER BY length(after) DESC, after DESC, length(upto) DESC, upto DESC LIMIT 1"""
_OVERDUE = f"""
    SELECT 1 FROM recorded_window WHERE {_TABLE}
        AND recorded <= :now - :early - CASE WHEN looks = 0 THEN :early ELSE :late END LIMIT 1"""
_DUE = f"""
    SELECT {_COLUMNS} FROM recorded_window WHERE {_TABLE}
        AND recorded <= :now - CASE WHEN looks = 0 THEN :early ELSE :late END {_NUMERIC}"""
_DROP = f"""
    DELETE FROM recorded_window WHERE {_TABLE} AND after = :after AND upto = :upto
        AND rows = :rows AND id_sum = :id_sum AND id_xor = :id_xor AND looks = :looks"""
_REPAIR = f"""
    INSERT OR IGNORE INTO repair (job, after, upto) SELECT job, :after,
        CASE WHEN (length(captured), captured) < (length(:upto), :upto) THEN captured ELSE :upto END
    FROM watermark WHERE {_TABLE} AND (length(captured), captured) > (length(:after), :after)"""
_LATE = """
    INSERT INTO late (source, id_table, id_column, rows) VALUES (:source, :table, :id, :late)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows"""
_OVERLAP = """
    (length(after), after) < (length(:upto), :upto) AND (length(upto), upto) > (length(:after), :after)"""
_SLOTS = "SELECT slot, step, after, upto FROM slot WHERE job = :job AND slot < :end AND slot + step > :start"
_UNSHOWN_IN = "INSERT INTO unshown_in (job, after, upto, cause, bucket, rows) VALUES (?, ?, ?, ?, ?, ?)"
_SHOWN = """
    DELETE FROM unshown_in WHERE job = ? AND cause = ? AND bucket >= ? AND bucket < ? AND bucket >= 0
    RETURNING rows"""
_FORGET_UNSHOWN = """
    DELETE FROM unshown_in WHERE job = :job AND bucket < 0 AND NOT EXISTS (
        SELECT 1 FROM recorded_window AS r JOIN watermark USING (source, id_table, id_column)
        WHERE watermark.job = :job AND (length(r.after), r.after) < (length(unshown_in.upto), unshown_in.upto)
            AND (length(r.upto), r.upto) > (length(unshown_in.after), unshown_in.after))
    AND NOT EXISTS (SELECT 1 FROM repair WHERE repair.job = :job)"""
_IDENTITY = "INSERT OR REPLACE INTO identity (job, server, rows, went_back) VALUES (?, ?, ?, 0)"
_DISTRUST = """
    INSERT INTO identity (job, server, rows, went_back) VALUES (?, NULL, '[]', 1)
    ON CONFLICT DO UPDATE SET went_back = 1 WHERE went_back = 0"""
_RESET = (
    f"DELETE FROM recorded_window WHERE {_TABLE}",
    "DELETE FROM repair WHERE job = :job",
    "DELETE FROM unshown_in WHERE job = :job",
    "DELETE FROM identity WHERE job = :job",
    "DELETE FROM horizon WHERE job = :job",
    "UPDATE slot SET after = :low, upto = :low WHERE job = :job",
    # the courier commits it once all that is in the totals is delivered
    "UPDATE watermark SET value = '0', captured = :captured WHERE job = :job",
    """
    UPDATE job SET low = :low, held_since = NULL, recount_from = COALESCE(:recount_from, recount_from), since = :since,
        not_before = MAX(not_before, :since) -- a bucket with rows of both tables could not be counted again
    WHERE job = :job""",
)


def keep(connection: sqlite3.Connection, job: str, done: Done) -> None:
    """Store what a transaction leaves for rechecks and for the look at the next capture."""
    if done.recorded is not None:
        connection.execute(_RECORD, (*_columns(done.recorded), job))
    if done.fingerprint is not None:
        connection.execute(_IDENTITY, (job, done.fingerprint.server, _dumped(done.fingerprint.rows)))
    if done.unshown_in is not None:
        window, counted = done.unshown_in
        where = {"job": job, "after": str(window.after), "upto": str(window.upto)}
        connection.execute(f"DELETE FROM unshown_in WHERE job = :job AND {_OVERLAP}", where)
        for (cause, bucket), rows in counted.items():
            if rows:
                place = NOWHERE if bucket is None else bucket
                connection.execute(_UNSHOWN_IN, (job, str(window.after), str(window.upto), cause.value, place, rows))
    if done.repaired is not None:
        where = {"job": job, "after": str(done.repaired.after), "upto": str(done.repaired.upto)}
        connection.execute("DELETE FROM repair WHERE job = :job AND after = :after AND upto = :upto", where)
    if done.low is not None:  # rows that are completed later are counted again anyway
        connection.execute("DELETE FROM repair WHERE job = ?", (job,))


def fingerprint(connection: sqlite3.Connection, job: str) -> Fingerprint | None:
    """Return by what the table was known when the job last captured."""
    row = connection.execute("SELECT server, rows, went_back FROM identity WHERE job = ?", (job,)).fetchone()
    if row is None:
        return None
    return Fingerprint(row[0], _loaded(row[1]), bool(row[2]))


# jobs on one table know it by the same rows, mostly
@lru_cache(100)
def _dumped(rows: tuple[tuple[int, int | None], ...]) -> str:
    return json.dumps(rows)


@lru_cache(100)
def _loaded(text: str) -> tuple[tuple[int, int | None], ...]:
    return tuple((identity, time) for identity, time in json.loads(text))


def distrust(connection: sqlite3.Connection, job: str) -> None:
    """Remember that the table went back: see shipper.ledger.Ledger."""
    connection.execute(_DISTRUST, (job,))


def recorded_upto(connection: sqlite3.Connection, job: Job, window: Window) -> int:
    """Return how far recorded windows cover a window: see shipper.ledger.Ledger."""
    upto = window.after
    while upto < window.upto:
        row = connection.execute(_NEXT, _where(job) | {"upto": str(upto)}).fetchone()
        if row is None or int(row[0]) <= upto:
            return upto
        upto = int(row[0])
    return window.upto


def due(connection: sqlite3.Connection, job: Job, now: int, early: int, late: int) -> list[RecordedWindow]:
    """Return the recorded windows that are due: see shipper.ledger.Ledger."""
    asked = _where(job) | {"now": now, "early": early, "late": late}
    if connection.execute(_OVERDUE, asked).fetchone() is None:
        return []
    return [
        RecordedWindow(
            Window(int(after), int(upto)), Checksum(rows, int(id_sum), int(id_xor)), recorded, looks, bool(is_open)
        )
        for after, upto, rows, id_sum, id_xor, recorded, looks, is_open in connection.execute(_DUE, asked)
    ]


def rechecked(
    connection: sqlite3.Connection, job: Job, before: RecordedWindow, then: RecordedWindow | None, late_rows: int
) -> bool:
    """Store what becomes of a recorded window: see shipper.ledger.Ledger."""
    window, (rows, id_sum, id_xor) = before.window, before.checksum
    where = _where(job) | {"after": str(window.after), "upto": str(window.upto), "late": late_rows}
    found = {"rows": rows, "id_sum": str(id_sum), "id_xor": str(id_xor), "looks": before.looks}
    if connection.execute(_DROP, where | found).rowcount == 0:
        return False
    if then is not None:
        connection.execute(_RECORD, (*_columns(then), job.name))
    if late_rows:
        connection.execute(_REPAIR, where)
        connection.execute(_LATE, where)
    return True


def slots(connection: sqlite3.Connection, job: str, span: Span, window: Window | None) -> list[Slot]:
    """Return the slots that overlap a span, with rows of a window: see shipper.ledger.Ledger."""
    asked: dict[str, Any] = {"job": job, "start": span.start, "end": span.end}
    statement = _SLOTS
    if window is not None:
        asked |= {"after": str(window.after), "upto": str(window.upto)}
        statement = f"{_SLOTS} AND {_OVERLAP}"
    rows = connection.execute(f"{statement} ORDER BY slot, step", asked)
    return [Slot(slot, step, int(after), int(upto)) for slot, step, after, upto in rows]


def unshown_window(connection: sqlite3.Connection, job: str, window: Window) -> Window:
    """Return a window with those around it for which rows are unshown: see shipper.ledger.Ledger."""
    asked = {"job": job, "after": str(window.after), "upto": str(window.upto)}
    found = connection.execute(f"SELECT after, upto FROM unshown_in WHERE job = :job AND {_OVERLAP}", asked).fetchall()
    ends = [(int(after), int(upto)) for after, upto in found]
    return Window(min([window.after, *(one[0] for one in ends)]), max([window.upto, *(one[1] for one in ends)]))


def unshown_in(connection: sqlite3.Connection, job: str, window: Window) -> Counter[Reason]:
    """Return what was counted as unshown in a window: see shipper.ledger.Recording."""
    asked = {"job": job, "after": str(window.after), "upto": str(window.upto)}
    counted = Counter[Reason]()
    statement = f"SELECT cause, bucket, rows FROM unshown_in WHERE job = :job AND {_OVERLAP}"
    for cause, bucket, rows in connection.execute(statement, asked):
        counted[Reason(Cause(cause), None if bucket == NOWHERE else bucket)] += rows
    return counted


def shown(connection: sqlite3.Connection, job: str, shows: Mapping[Cause, Span]) -> dict[Cause, int]:
    """Forget rows that were counted as unshown and are shown now; return how many they are."""
    found = {}
    for cause, span in shows.items():
        rows = connection.execute(_SHOWN, (job, cause.value, span.start, span.end)).fetchall()
        found[cause] = sum(row[0] for row in rows)
    return found


def forget(connection: sqlite3.Connection, job: str) -> None:
    """Forget of which windows the job's counters are, where these are no longer rechecked."""
    connection.execute(_FORGET_UNSHOWN, {"job": job})


def reset(
    connection: sqlite3.Connection, job: Job, *, captured: int, low: int, recount_from: int | None, since: int
) -> None:
    """Forget what is known of a table by its ids: see shipper.ledger.Ledger."""
    asked = _where(job) | {"captured": str(captured), "low": str(low), "recount_from": recount_from, "since": since}
    for statement in _RESET:
        connection.execute(statement, asked | {"job": job.name})


def _columns(recorded: RecordedWindow) -> tuple[object, ...]:
    window, (rows, id_sum, id_xor) = recorded.window, recorded.checksum
    identity = (str(window.after), str(window.upto), rows, str(id_sum), str(id_xor))
    return (*identity, recorded.recorded, recorded.looks, int(recorded.is_open))


def _where(job: Job) -> dict[str, Any]:
    return {"source": job.source, "table": job.query.table, "id": job.query.id}
