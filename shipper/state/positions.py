"""Which ids each job has counted, segment by segment; and by which rows it knows its table again.

What is known of a job's slots beside their totals: whose rows they hold, and which rows none holds.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from functools import lru_cache

from shipper.core.errors import StateCorrupt
from shipper.core.id_set import IdSet, Segment, segment_of, unpack
from shipper.core.ledger import LateIds, Settled, Slot
from shipper.core.model import Fingerprint, Rejection, RejectReason, Span
from shipper.core.position import Mark, Position
from shipper.state.schema import ID_ORDER

TOGETHER_SECONDS = 1800
"""What the floor passes within that is one range: so much is not counted again together when rows of it are gone."""

_READ = """
    SELECT captured, floor, solid, version, age, looked, marks FROM position JOIN watermark USING (job) WHERE job = ?"""
_SEGMENTS = f"SELECT start, words FROM counted WHERE job = ? {ID_ORDER.format('start')}"
_BEGIN = """
    INSERT OR REPLACE INTO position (job, version, floor, solid, age, looked, marks, late_rows)
    VALUES (?1, COALESCE((SELECT version + 1 FROM position WHERE job = ?1), ?2), ?3, ?4, ?5, ?6, ?7,
        COALESCE((SELECT late_rows FROM position WHERE job = ?1), 0))"""
_WRITE = """
    UPDATE position SET version = version + 1, floor = ?, solid = ?, age = ?, looked = ?, marks = ?,
        late_rows = late_rows + ?
    WHERE job = ? AND version = ?"""
_SEGMENT = "INSERT OR REPLACE INTO counted (job, start, words) VALUES (?, ?, ?)"
_SETTLE = """
    INSERT INTO settled (job, after, upto, rows, at) VALUES (:job, :after, :upto, :rows, unixepoch())
    ON CONFLICT DO UPDATE SET upto = excluded.upto, rows = rows + excluded.rows"""
_LAST_SETTLED = f"""
    SELECT after FROM settled WHERE job = :job AND upto = :after AND at > unixepoch() - {TOGETHER_SECONDS}"""
_IDENTITY = "INSERT OR REPLACE INTO identity (job, server, rows, went_back) VALUES (?, ?, ?, 0)"
_DISTRUST = """
    INSERT INTO identity (job, server, rows, went_back) VALUES (?, NULL, '[]', 1)
    ON CONFLICT DO UPDATE SET went_back = 1 WHERE went_back = 0"""


def read(connection: sqlite3.Connection, job: str) -> Position:
    """Read the position of a job that has begun."""
    row = connection.execute(_READ, (job,)).fetchone()
    if row is None:
        raise StateCorrupt(f"read the position of job {job}: there is none", hint="Restore the state from a backup.")
    captured, floor, solid, version, age, looked, marks = row
    segments = tuple(segment_of(int(start), packed) for start, packed in connection.execute(_SEGMENTS, (job,)))
    counted = IdSet(int(floor), int(solid), segments)
    return Position(int(captured), counted, version, age, looked, _marks(marks))


def begin(connection: sqlite3.Connection, job: str, position: Position) -> None:
    """Store a position that does not follow from another."""
    counted = position.counted
    numbers = (str(counted.floor), str(counted.solid), position.age, position.looked, _dumped_marks(position.marks))
    connection.execute(_BEGIN, (job, position.version, *numbers))
    connection.execute("DELETE FROM counted WHERE job = ?", (job,))
    connection.execute("DELETE FROM settled WHERE job = ?", (job,))
    _store(connection, job, counted.segments)


def write(connection: sqlite3.Connection, job: str, before: Position, after: Position, late_rows: int) -> bool:
    """Store what a record has added to a position; return whether it still was what the look began with."""
    counted = after.counted
    numbers = (str(counted.floor), str(counted.solid), after.age, after.looked, _dumped_marks(after.marks))
    if connection.execute(_WRITE, (*numbers, late_rows, job, after.version)).rowcount == 0:
        return False
    _settle(connection, job, before.counted.floor, after)
    kept = {(one.start, one.packed) for one in before.counted.segments}
    starts = {one.start for one in counted.segments}
    gone = [(job, str(one.start)) for one in before.counted.segments if one.start not in starts]
    if gone:
        connection.executemany("DELETE FROM counted WHERE job = ? AND start = ?", gone)
    _store(connection, job, (one for one in counted.segments if (one.start, one.packed) not in kept))
    return True


def _store(connection: sqlite3.Connection, job: str, segments: Iterable[Segment]) -> None:
    if rows := [(job, str(one.start), one.packed) for one in segments]:
        connection.executemany(_SEGMENT, rows)


def _settle(connection: sqlite3.Connection, job: str, floor: int, after: Position) -> None:
    """Keep how many ids were counted of those that the floor has passed."""
    if after.counted.floor == floor and not after.settled:
        return
    passed = {"job": job, "after": str(floor), "upto": str(after.counted.floor), "rows": after.settled}
    if last := connection.execute(_LAST_SETTLED, passed).fetchone():
        passed["after"] = last[0]
    connection.execute(_SETTLE, passed)


def settled(connection: sqlite3.Connection, job: str) -> list[Settled]:
    """Return how many ids were counted at or below the floor: see Ledger."""
    rows = connection.execute(f"SELECT after, upto, rows FROM settled WHERE job = ? {ID_ORDER.format('after')}", (job,))
    return [Settled(int(after), int(upto), count) for after, upto, count in rows]


def late_ids(connection: sqlite3.Connection, job: str) -> list[LateIds]:
    """Return which ids of a job without a time column came late: see Ledger."""
    rows = connection.execute("SELECT slot, words FROM late WHERE job = ? ORDER BY slot, number", (job,))
    return [LateIds(slot, unpack(words)) for slot, words in rows]


def add_late(connection: sqlite3.Connection, job: str, late: LateIds) -> None:
    """Remember in which slot ids were counted that came late."""
    packed = IdSet(0, 0).added(late.words).segments
    rows = [(job, late.slot, one.packed) for one in packed]
    connection.executemany("INSERT INTO late (job, slot, words) VALUES (?, ?, ?)", rows)


def fingerprint(connection: sqlite3.Connection, job: str) -> Fingerprint | None:
    """Return by what the table was known when the job last captured."""
    row = connection.execute("SELECT server, rows, went_back FROM identity WHERE job = ?", (job,)).fetchone()
    return None if row is None else Fingerprint(row[0], _loaded(row[1]), bool(row[2]))


def identify(connection: sqlite3.Connection, job: str, known: Fingerprint) -> None:
    """Remember by what the table is known."""
    connection.execute(_IDENTITY, (job, known.server, _dumped(known.rows)))


def outdate(connection: sqlite3.Connection, job: str) -> None:
    """Forget that the table held nothing up to captured: by now it may."""
    connection.execute("DELETE FROM identity WHERE job = ? AND rows = '[]' AND went_back = 0", (job,))


def distrust(connection: sqlite3.Connection, job: str) -> None:
    """Remember that the table went back: see Ledger."""
    connection.execute(_DISTRUST, (job,))


# jobs on one table know it by the same rows, mostly, and have looked at it at the same times
@lru_cache(100)
def _dumped(rows: tuple[tuple[int, int | None], ...]) -> str:
    return json.dumps(rows)


@lru_cache(100)
def _loaded(text: str) -> tuple[tuple[int, int | None], ...]:
    return tuple((identity, time) for identity, time in json.loads(text))


@lru_cache(100)
def _dumped_marks(marks: tuple[Mark, ...]) -> str:
    return json.dumps(marks)


@lru_cache(100)
def _marks(text: str) -> tuple[Mark, ...]:
    return tuple(Mark(age, identity) for age, identity in json.loads(text))


_SLOTS = """
    SELECT slot, step, after, upto FROM slot WHERE job = :job AND slot < :end AND slot + step > :start
    ORDER BY slot, step"""
_REJECT = """
    INSERT INTO rejected_in (job, reason, bucket, after, rows) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows,
        after = CASE WHEN (length(excluded.after), excluded.after) < (length(after), after)
            THEN excluded.after ELSE after END"""
_SHOWN = """
    DELETE FROM rejected_in WHERE job = ? AND reason = ? AND bucket >= ? AND bucket < ? RETURNING rows"""


def slots(connection: sqlite3.Connection, job: str, span: Span) -> list[Slot]:
    """Return the slots that overlap a span: see Ledger."""
    rows = connection.execute(_SLOTS, {"job": job, "start": span.start, "end": span.end})
    return [Slot(slot, step, int(after), int(upto)) for slot, step, after, upto in rows]


def reject(connection: sqlite3.Connection, job: str, rejected: Mapping[Rejection, int], after: int) -> None:
    """Remember in which buckets rows above an id would be that cannot be shown: they may be, one day."""
    rows = [
        (job, reason.value, bucket, str(after), count)
        for (reason, bucket), count in rejected.items()
        if bucket is not None and count
    ]
    connection.executemany(_REJECT, rows)


def take_shown(connection: sqlite3.Connection, job: str, shows: Mapping[RejectReason, Span]) -> dict[RejectReason, int]:
    """Forget rows that were counted as rejected and are shown now; return how many they are."""
    found = {}
    for reason, span in shows.items():
        rows = connection.execute(_SHOWN, (job, reason.value, span.start, span.end)).fetchall()
        found[reason] = sum(row[0] for row in rows)
    return found
