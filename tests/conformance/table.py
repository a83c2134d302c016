"""A conformance case: the rows of the table, the settings of the job, the values expected in Graphite."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

NOW = int(datetime(2026, 9, 21, 14, 14, tzinfo=UTC).timestamp())
"""Current time of every case, on a Monday; short times of cases are on that day."""
DAY = "2026-09-21"
RETENTIONS = "1m:7d,1h:1y"

COLUMNS = ("id", "created_at", "end_date", "action", "outcome", "duration_ms", "amount", "ratio")


class Event(NamedTuple):
    """One row of the table."""

    id: int
    created_at: str | None = "14:00:00"
    action: str | None = "login"
    outcome: str | None = "ok"
    duration_ms: int | None = None
    amount: float | None = None
    end_date: str | None = None
    ratio: float | None = None

    @property
    def values(self) -> tuple[object, ...]:
        """Return the values of COLUMNS."""
        times = (moment(self.created_at), moment(self.end_date))
        return (self.id, *times, self.action, self.outcome, self.duration_ms, self.amount, self.ratio)


@dataclass(frozen=True)
class Case:
    """One conformance case."""

    name: str
    rows: list[Event]
    expected: dict[str, dict[str, float]]
    """Expected values by slot, by group and measure, as in "login count"."""
    job: str = ""
    """Lines of TOML that replace or extend those of JOB."""
    rejected: dict[str, int] = field(default_factory=dict)
    rejected_values: dict[str, int] = field(default_factory=dict)
    """Number of rejected values, by column."""
    without: str = ""
    """A kind of database that cannot hold the rows."""
    there_before: int = 0
    """Number of rows that are in the table when the job starts."""
    updates: list[str] = field(default_factory=list)
    """Statements that the application runs after a capture of all rows."""
    zoom: int = 60
    """Step of the archive whose values are expected."""
    retentions: str = RETENTIONS
    has_order: bool = True
    """Whether the result does not depend on when captures run; zeros depend on the groups seen so far."""


JOB = """\
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
name = "x.{action}.{measure}"
start = "beginning"
zeros = false
"""


def moment(text: str | None) -> str | None:
    """Return a short time with its date."""
    return text if text is None or len(text) > len("14:00:00.000000") else f"{DAY} {text}"


def epoch(text: str) -> int:
    """Return a time in UTC, in epoch seconds."""
    full = moment(text)
    assert full is not None
    return int(datetime.fromisoformat(full).replace(tzinfo=UTC).timestamp())


def at(*times: str | None, start: int = 1) -> list[Event]:
    """Return rows with these times, and ids from start on."""
    return [Event(number, time) for number, time in enumerate(times, start)]


def actions(*names: str | None, start: int = 1) -> list[Event]:
    """Return rows with these actions, and ids from start on."""
    return [Event(number, action=name) for number, name in enumerate(names, start)]
