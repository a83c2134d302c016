"""Doubles of the two ends, lawful because they pass the contracts in contract.py that the real ends pass."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shipper.errors import DeliveryFailed, QueryRefused
from shipper.model import Group, Observation, Query, Row, Window

COLUMNS = {"id", "created_at", "action", "outcome"}


@dataclass
class FakeSource:
    """A table in memory."""

    rows: list[dict[str, object]] = field(default_factory=list)
    now: Callable[[], float] = time.time

    def insert(self, id: int, created_at: str | None, action: str | None, outcome: str = "ok") -> None:  # noqa: A002
        """Add a committed row."""
        self.rows.append({"id": id, "created_at": created_at, "action": action, "outcome": outcome})

    def observe(self, query: Query) -> Observation:
        """Return the largest id, as shipper.source.Source.observe."""
        largest = max((int(str(row["id"])) for row in self.rows), default=0)
        return Observation(id=largest, time=int(self.now()), clock=time.monotonic())

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """Find where the table goes on, as shipper.capture.Source.first_id."""
        return min((found for row in self.rows if after < (found := int(str(row["id"]))) <= upto), default=upto)

    def read(self, query: Query, window: Window) -> list[Row]:
        """Count, as shipper.capture.Source.read."""
        asked = {query.id, *query.by, *(condition.column for condition in query.where), query.time or query.id}
        if unknown := asked - COLUMNS:
            raise QueryRefused(f"unknown columns {unknown}")
        counts = Counter[tuple[int | None, Group]]()
        for row in self.rows:
            is_asked = all(row[column] in values for column, values in query.where)
            if is_asked and window.after < int(str(row["id"])) <= window.upto:
                group = tuple(None if (value := row[column]) is None else str(value) for column in query.by)
                counts[_bucket(row[query.time], query.bucket) if query.time else None, group] += 1
        return [Row(bucket, group, rows) for (bucket, group), rows in counts.items()]


class FakeCarbon:
    """A Carbon with a cache that dies with it, and files that do not."""

    def __init__(self) -> None:
        self.is_up = True
        self.files: dict[str, dict[int, float]] = {}
        self.cache: dict[str, dict[int, float]] = {}
        self.has_witness: bool | None = None
        """None before the first delivery; False once it has ended, until somebody has looked."""
        self.breaks_after: int | None = None
        """Store so many lines of the next batch, and never confirm it."""

    def deliver(self, lines: bytes) -> None:
        """Store lines, as Carbon does: the last write of a slot wins."""
        if not self.is_up:
            self.has_witness = None
            raise DeliveryFailed("deliver: refused")
        for line in lines.decode("ascii").splitlines()[: self.breaks_after]:
            path, value, timestamp = line.split()
            self.cache.setdefault(path, {})[int(float(timestamp))] = float(value)
        if self.breaks_after is not None:
            self.breaks_after, self.has_witness = None, None
            raise DeliveryFailed("deliver: reset")
        self.has_witness = self.has_witness is not False

    def is_alive(self) -> bool:
        """Is the witness still there?"""
        is_there = self.has_witness is True
        if not is_there:
            self.has_witness = None
        return is_there

    def flush(self) -> None:
        """Write the cache to the files."""
        for path, slots in self.cache.items():
            self.files.setdefault(path, {}).update(slots)
        self.cache.clear()

    def kill(self) -> None:
        """End it; what was not flushed is gone."""
        self.cache.clear()
        self.is_up = False
        if self.has_witness:
            self.has_witness = False

    def start(self) -> None:
        """Run it again."""
        self.is_up = True

    def sums(self) -> dict[str, dict[int, float]]:
        """Return what a reader sees: files and cache."""
        seen = {path: dict(slots) for path, slots in self.files.items()}
        for path, slots in self.cache.items():
            seen.setdefault(path, {}).update(slots)
        return seen


def _bucket(value: object, length: int) -> int | None:
    if value is None:
        return None
    seconds = int(datetime.fromisoformat(str(value)).replace(tzinfo=UTC, microsecond=0).timestamp())
    return seconds - seconds % length
