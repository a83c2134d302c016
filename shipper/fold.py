"""Core. Counts and totals: which slot a row belongs to, and what the slot's total becomes.

Strategy: Carbon keeps only the last write of a slot, so a slot's running total is kept and always sent whole.
Whatever reaches a slot, from whichever window, is added here and nowhere else.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shipper.model import Archive, Cause, Group, Key, Row

EDGE_SECONDS = 600
"""Carbon decides by its own clock, when it writes, which archive a point goes to: keep this far from the edge."""
ROOM_SECONDS = 2 * 3600
"""What is captured must still be fine enough to be sent when its last replay is due."""
MAX_SKEW_SECONDS = 300
"""How far a row's time may be ahead of its source's clock, beyond its own bucket."""


@dataclass(frozen=True, slots=True)
class Span:
    """The slots that can be shown: oldest <= slot <= newest, epoch seconds."""

    oldest: int
    newest: int


@dataclass(frozen=True, slots=True)
class Folded:
    """The rows of one window, by group and slot, and those that cannot be shown, by cause."""

    counts: dict[tuple[Group, int], int] = field(default_factory=dict)
    unshown: Counter[Cause] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """How many rows were folded, shown or not."""
        return sum(self.counts.values()) + self.unshown.total()


def oldest_fine(archive: Archive, now: int) -> int:
    """Return the oldest slot that is surely still Carbon's finest archive's business.

    An older point would be written to the next archive, over the sum that stands there.
    """
    return now - archive.duration + EDGE_SECONDS


def shown(archive: Archive, *, now: int, source_time: int, bucket: int) -> Span:
    """Return the slots that rows may fall into.

    The old end leaves room for the delivery and its replays; the new end lets clocks differ a little.
    """
    oldest = max(bucket, oldest_fine(archive, now) + ROOM_SECONDS)  # Carbon drops a timestamp of 0
    return Span(oldest, source_time + bucket + MAX_SKEW_SECONDS)


def bucket_of(time: int, length: int) -> int:
    """Return the start of the bucket that holds time, epoch seconds."""
    return time - time % length


def fold(rows: Iterable[Row], span: Span) -> Folded:
    """Add up the rows of one window by group and slot."""
    folded = Folded()
    for bucket, group, rows_in in rows:
        cause = _refusal(bucket, span)
        if bucket is None or cause is not None:
            folded.unshown[cause or Cause.NO_TIME] += rows_in
        else:
            folded.counts[group, bucket] = folded.counts.get((group, bucket), 0) + rows_in
    return folded


def add(totals: Mapping[Key, int], changes: Mapping[Key, int]) -> dict[Key, int]:
    """Return the new totals of all keys that change; a key without a total starts at 0."""
    return {key: totals.get(key, 0) + change for key, change in changes.items()}


def _refusal(bucket: int | None, span: Span) -> Cause | None:
    if bucket is None:
        return Cause.NO_TIME
    if bucket < span.oldest:
        return Cause.TOO_OLD
    if bucket > span.newest:
        return Cause.FUTURE
    return None
