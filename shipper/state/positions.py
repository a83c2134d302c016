"""Position of each job, and what a recording stores with it: minutes, table identity, late ids, rejected rows."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from functools import lru_cache

from shipper.core.errors import StateCorrupt
from shipper.core.id_set import IdSet, Segment, segment_of
from shipper.core.ledger import Held, LateIds, Minute
from shipper.core.model import Fingerprint, Group, Rejection, RejectReason, Span, Window
from shipper.core.position import Mark, Position
from shipper.state.schema import ID_ORDER, RESTORE, decoded
from shipper.state.values import group, integer, loaded, stored

TOGETHER_SECONDS = 1800
"""Length of the time whose ids become one range of `settled`, in seconds.

If rows of a range were purged, none of its slots can be recounted: ranges stay short.
"""

_READ = """
    SELECT captured, floor, solid, version, age, looked, marks FROM position JOIN watermark USING (job) WHERE job = ?"""
_SEGMENTS = f"SELECT start, words FROM counted WHERE job = ? {ID_ORDER.format('start')}"
# The version grows, so that a look that began before is rejected; late_rows stays.
_BEGIN = """
    INSERT OR REPLACE INTO position (job, version, floor, solid, age, looked, marks, late_rows)
    VALUES (?1, COALESCE((SELECT version + 1 FROM position WHERE job = ?1), ?2), ?3, ?4, ?5, ?6, ?7,
        COALESCE((SELECT late_rows FROM position WHERE job = ?1), 0))"""
_WRITE = """
    UPDATE position SET version = version + 1, floor = ?, solid = ?, age = ?, looked = ?, marks = ?,
        late_rows = late_rows + ?
    WHERE job = ? AND version = ?"""
_SEGMENT = "INSERT OR REPLACE INTO counted (job, start, words) VALUES (?, ?, ?)"
# Extends the range that begins at after, or starts one.
_SETTLE = """
    INSERT INTO settled (job, after, upto, rows, at) VALUES (:job, :after, :upto, :rows, unixepoch())
    ON CONFLICT DO UPDATE SET upto = excluded.upto, rows = rows + excluded.rows"""
# The range that ends where the new one begins, if it is recent.
_LAST_SETTLED = f"""
    SELECT after FROM settled WHERE job = :job AND upto = :after AND at > unixepoch() - {TOGETHER_SECONDS}"""
_READ_MINUTES = "SELECT start, rows, checksum, held FROM minute WHERE job = ? AND start > ? AND start <= ?"
_FIRST_MINUTE = "SELECT MIN(start) FROM minute WHERE job = ? AND start > ? AND start <= ?"
_WRITE_MINUTES = "INSERT OR REPLACE INTO minute (job, start, rows, checksum, held) VALUES (?, ?, ?, ?, ?)"
_FORGET_MINUTES = "DELETE FROM minute WHERE job = ? AND start <= ? - 59"
_FORGET_EMPTY = "DELETE FROM identity WHERE job = ? AND rows = '[]' AND went_back = 0"
_IDENTIFY = "INSERT OR REPLACE INTO identity (job, server, rows, went_back) VALUES (?, ?, ?, 0)"


def read(connection: sqlite3.Connection, job: str) -> Position:
    """Return the position of a job that has begun."""
    row = connection.execute(_READ, (job,)).fetchone()
    if row is None:
        raise StateCorrupt(f"read the position of job {job}: there is none", hint=RESTORE)
    captured, floor, solid, version, age, looked, marks = row
    with decoded(f"read the position of job {job}"):
        segments = tuple(segment_of(int(start), packed) for start, packed in connection.execute(_SEGMENTS, (job,)))
        counted = IdSet(int(floor), int(solid), segments)
        return Position(int(captured), counted, version, age, looked, _marks(marks))


def begin(connection: sqlite3.Connection, job: str, position: Position) -> None:
    """Store the first position of a job, or of one that was moved."""
    connection.execute(_BEGIN, (job, position.version, *_values(position)))
    connection.execute("DELETE FROM counted WHERE job = ?", (job,))
    connection.execute("DELETE FROM settled WHERE job = ?", (job,))
    _store(connection, job, position.counted.segments)


def write(connection: sqlite3.Connection, job: str, before: Position, after: Position, late_rows: int) -> bool:
    """Store a position that follows from another; return whether no other record has changed it meanwhile."""
    # the version of after is that with which the look began
    if connection.execute(_WRITE, (*_values(after), late_rows, job, after.version)).rowcount == 0:
        return False
    _settle(connection, job, before.counted.floor, after)
    # write only those segments that differ
    known = {(one.start, one.packed) for one in before.counted.segments}
    starts = {one.start for one in after.counted.segments}
    obsolete = [(job, str(one.start)) for one in before.counted.segments if one.start not in starts]
    if obsolete:
        connection.executemany("DELETE FROM counted WHERE job = ? AND start = ?", obsolete)
    _store(connection, job, (one for one in after.counted.segments if (one.start, one.packed) not in known))
    return True


def _values(position: Position) -> tuple[str | int, ...]:
    counted = position.counted
    return str(counted.floor), str(counted.solid), position.age, position.looked, _json(position.marks)


def _store(connection: sqlite3.Connection, job: str, segments: Iterable[Segment]) -> None:
    if rows := [(job, str(one.start), one.packed) for one in segments]:
        connection.executemany(_SEGMENT, rows)


def _settle(connection: sqlite3.Connection, job: str, floor: int, after: Position) -> None:
    """Store how many ids were counted of those that the floor has passed, in the newest range if that is recent."""
    if after.counted.floor == floor and not after.settled:
        return
    newest = {"job": job, "after": str(floor), "upto": str(after.counted.floor), "rows": after.settled}
    if last := connection.execute(_LAST_SETTLED, newest).fetchone():
        newest["after"] = last[0]
    connection.execute(_SETTLE, newest)


def add_late(connection: sqlite3.Connection, job: str, late: LateIds) -> None:
    """Store in which slot late ids were counted."""
    rows = [(job, late.slot, one.packed) for one in IdSet(0, 0).added(late.words).segments]
    connection.executemany("INSERT INTO late (job, slot, words) VALUES (?, ?, ?)", rows)


def forget_empty(connection: sqlite3.Connection, job: str) -> None:
    """Forget the fingerprint of a table that had no rows up to captured: it may have some now."""
    connection.execute(_FORGET_EMPTY, (job,))


def identify(connection: sqlite3.Connection, job: str, known: Fingerprint) -> None:
    """Store the fingerprint of a job's table."""
    connection.execute(_IDENTIFY, (job, known.server, _json(known.rows)))


def forget_times(connection: sqlite3.Connection, job: str) -> None:
    """Keep only the ids of the fingerprint of a job's table."""
    row = connection.execute("SELECT rows FROM identity WHERE job = ?", (job,)).fetchone()
    if row is not None:
        with decoded(f"read the table of job {job}"):
            timeless = _json(tuple((identity, None) for identity, _ in identity_rows(row[0])))
        connection.execute("UPDATE identity SET rows = ? WHERE job = ?", (timeless, job))


def read_minutes(connection: sqlite3.Connection, job: str, window: Window) -> dict[int, Minute]:
    """Return the minutes that begin in a window, by their start."""
    rows = connection.execute(_READ_MINUTES, (job, window.after, window.upto))
    return {start: Minute(number, int(checksum), _groups(held)) for start, number, checksum, held in rows}


def read_numbers(connection: sqlite3.Connection, job: str) -> dict[int, tuple[int, int]]:
    """Return number of rows and checksum of all minutes, by their start."""
    rows = connection.execute("SELECT start, rows, checksum FROM minute WHERE job = ?", (job,))
    return {start: (number, int(checksum)) for start, number, checksum in rows}


def first_minute(connection: sqlite3.Connection, job: str, window: Window) -> int | None:
    """Return the start of the first minute that begins in a window; None if there is none."""
    first: int | None = connection.execute(_FIRST_MINUTE, (job, window.after, window.upto)).fetchone()[0]
    return first


def write_minutes(connection: sqlite3.Connection, job: str, minutes: Mapping[int, Minute], floor: int) -> None:
    """Store minutes, and forget those that end at or before the floor."""
    rows = [(job, start, one.rows, str(one.checksum), _minute_json(one)) for start, one in minutes.items()]
    connection.executemany(_WRITE_MINUTES, rows)
    connection.execute(_FORGET_MINUTES, (job, floor))


def _minute_json(minute: Minute) -> str:
    return json.dumps(
        [
            [bucket, group, rows, [value if value is None else stored(value) for value in values], left_out]
            for (bucket, group), (rows, values, left_out) in minute.groups.items()
        ]
    )


def _groups(text: str) -> dict[tuple[int, Group], Held]:
    return {
        (integer(bucket), group(labels)): Held(
            integer(rows),
            tuple(None if value is None else loaded(value) for value in values),
            {column: integer(number) for column, number in dict(left).items()},
        )
        for bucket, labels, rows, values, left in json.loads(text)
    }


# cached: most jobs on one table have the same fingerprint and the same marks
@lru_cache(200)
def _json(rows: tuple[tuple[int, int | None], ...]) -> str:
    return json.dumps(rows)


@lru_cache(100)
def identity_rows(text: str) -> tuple[tuple[int, int | None], ...]:
    """Return the rows of a fingerprint from their JSON."""
    return tuple((integer(identity), None if time is None else integer(time)) for identity, time in json.loads(text))


@lru_cache(100)
def _marks(text: str) -> tuple[Mark, ...]:
    return tuple(Mark(integer(age), integer(identity)) for age, identity in json.loads(text))


_REJECT = """
    INSERT INTO rejected_in (job, reason, bucket, after, rows) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows,
        after = CASE WHEN (length(excluded.after), excluded.after) < (length(after), after)
            THEN excluded.after ELSE after END"""
# Rejected rows of pruned units that are not at their beginning.
_TAKE_PRUNED = """
    DELETE FROM rejected_in WHERE job = :job AND bucket % :unit <> 0 AND EXISTS (
        SELECT 1 FROM pruned WHERE pruned.job = :job AND pruned.start <= bucket - bucket % :unit
            AND pruned.end >= bucket - bucket % :unit + :unit)
    RETURNING job, reason, bucket - bucket % :unit, after, rows"""
_TAKE_SHOWN = """
    DELETE FROM rejected_in WHERE job = ? AND reason = ? AND bucket >= ? AND bucket < ? RETURNING rows"""


def reject(connection: sqlite3.Connection, job: str, rejected: Mapping[Rejection, int], after: int) -> None:
    """Store the buckets of rejected rows above an id: a later recount may show them."""
    rows = [
        (job, reason.value, bucket, str(after), count)
        for (reason, bucket), count in rejected.items()
        if bucket is not None and count
    ]
    connection.executemany(_REJECT, rows)


def gather_rejected(connection: sqlite3.Connection, job: str, unit: int) -> None:
    """Store the rejected rows of each pruned unit as those of one bucket: only all of it can be recounted."""
    rows = connection.execute(_TAKE_PRUNED, {"job": job, "unit": unit}).fetchall()
    connection.executemany(_REJECT, rows)


def take_shown(connection: sqlite3.Connection, job: str, shows: Mapping[RejectReason, Span]) -> dict[RejectReason, int]:
    """Delete the buckets of rejected rows that are shown now; return how many rows these are."""
    rows = {}
    for reason, span in shows.items():
        buckets = connection.execute(_TAKE_SHOWN, (job, reason.value, span.start, span.end)).fetchall()
        rows[reason] = sum(bucket[0] for bucket in buckets)
    return rows
