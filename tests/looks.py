"""Looks of real jobs at a real table, with a real state and a clock that tests set."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from builders import NOW, job
from tables import Table

from shipper.core.capture import capture
from shipper.core.id_set import ids_of
from shipper.core.model import Archive, Job
from shipper.core.repair.reset import After, restarted
from shipper.core.rows.look import TableLook
from shipper.core.rows.table import Event
from shipper.state.store import State

ARCHIVES = (Archive(60, 7 * 86400), Archive(3600, 365 * 86400))
TOTALS = """
    SELECT path, slot, value FROM total JOIN series ON series.id = total.series
    WHERE series.job = ? AND value <> 0"""
QUIET = {"job.started", "job.changed"}


def wanted(name: str = "events", **changed: Any) -> Job:
    """Build the default job of the tests."""
    return job(name, archives=ARCHIVES, **changed)


class Looks:
    """A table, and a state that looks at it are recorded in."""

    def __init__(self, table: Table, folder: Path) -> None:
        """Set up an empty state."""
        self.table = table
        self.state = State(str(folder / "shipper.db"))
        self.now = NOW
        self.has_gaps = False

    def close(self) -> None:
        """Close the state."""
        self.state.close()

    def look(self, *jobs: Job, source: Any = None, steps: int | None = None) -> list[Event]:
        """Let jobs capture with one look, all rows or a number of steps; return the events that operators see."""
        observed = replace(self.table.observe(jobs[0].query), time=self.now)
        look = TableLook(source or self.table, observed, has_gaps=self.has_gaps, is_alone=len(jobs) == 1)
        noticed: list[Event] = []
        with self.table.held():
            for one in jobs:
                run = capture(one, observed, source=source or self.table, ledger=self.state, now=self.now, look=look)
                for number, step in enumerate(run, 1):
                    if isinstance(step, Event) and step.event not in QUIET:
                        noticed.append(step)
                    if number == steps:
                        break
                run.close()
        self.has_gaps = look.has_gaps
        return noticed

    def reset(self, one: Job, what: After) -> None:
        """Let a job continue after its table went back."""
        progress, position = self.state.progress(one.name), self.state.position(one.name)
        assert progress is not None
        observed = replace(self.table.observe(one.query), time=self.now)
        restart = restarted(one, what, progress, position, observed, source=self.table)
        self.state.reset(one.name, **restart._asdict())

    def created(self, ago: int = 0) -> str:
        """Format the time a number of seconds ago."""
        return datetime.fromtimestamp(self.now - ago, UTC).strftime("%Y-%m-%d %H:%M:%S")

    def insert(self, ids: Iterable[int], *, ago: int = 0, column: str = "created_at") -> None:
        """Commit rows with a time a number of seconds ago."""
        with self.table.session() as execute:
            execute("BEGIN")
            for identity in ids:
                self.put(execute, identity, ago=ago, column=column)
            execute("COMMIT")

    def put(self, execute: Any, identity: int, *, ago: int = 0, column: str = "created_at") -> None:
        """Insert a row in a session."""
        statement = f"INSERT INTO audit_trail (id, {column}, action, outcome) VALUES (%s, %s, 'login', 'ok')"
        execute(statement, (identity, self.created(ago)))

    def slots(self, one: Job, measure: str = "count") -> dict[int, int]:
        """Return a job's totals of all groups, by slot, in seconds before NOW."""
        slots = Counter[int]()
        for path, slot, value in self.state._connection.execute(TOTALS, (one.name,)):
            if path.endswith(f".{measure}"):
                slots[NOW - slot] += int(value)
        return dict(slots)

    def total(self, one: Job, measure: str = "count") -> int:
        """Return the sum of a job's totals."""
        return sum(self.slots(one, measure).values())

    def ids(self, one: Job) -> list[int]:
        """Return the ids that a job has counted."""
        position = self.state.position(one.name)
        return ids_of(position.counted.within(0, position.captured))

    def rejected(self, one: Job) -> dict[str, int]:
        """Return the number of a job's rejected rows, by reason."""
        rows = self.state._connection.execute(
            "SELECT reason, rows FROM rejected WHERE job = ? AND rows > 0", (one.name,)
        )
        return dict(rows.fetchall())


def brief(noticed: Iterable[Event]) -> str:
    """Return events as one line."""
    return "; ".join(f"{one.event} {json.dumps(dict(one.details), sort_keys=True)}" for one in noticed)
