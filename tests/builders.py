"""Builders of valid values: a test names only the fields that matter to it."""

from typing import Any

from shipper.core.id_set import IdSet
from shipper.core.ledger import RecordUpdate
from shipper.core.model import (
    Archive,
    Datapoint,
    Job,
    Observation,
    Progress,
    Query,
    Window,
    definition_digest,
    path_digest,
    time_digest,
)
from shipper.core.position import Position
from shipper.state.store import State

NOW = 1_790_000_040
"""Wall clock of tests, the start of a minute, in epoch seconds."""
ARCHIVE = Archive(step=60, duration=30 * 86400)
QUERY = ("time", "bucket", "by", "by_sql", "names", "where", "table", "id", "measures", "sql", "time_zone")

MINIMAL = """\
[graphite]
retentions = "1m:1d"
[source.app]
url = "sqlite:////app.db"
[job.events]
table = "audit_trail"
id = "id"
name = "events.{measure}"
"""
"""The shortest configuration."""


def query(**changed: Any) -> Query:
    """Build the query of the example table: all rows by minute and action."""
    given: dict[str, Any] = {"table": "audit_trail", "id": "id", "time": "created_at", "bucket": 60, "by": ("action",)}
    return Query(**(given | changed))


def points(lines: bytes | str) -> list[Datapoint]:
    """Parse lines as Carbon does."""
    text = lines if isinstance(lines, str) else lines.decode("ascii")
    fields = (line.split() for line in text.splitlines())
    return [Datapoint(path, int(value), int(slot)) for path, value, slot in fields]


def job(name: str = "events", **changed: Any) -> Job:
    """Build a job; fields of a query change the query of the example table."""
    of_query = {key: changed.pop(key) for key in QUERY if key in changed}
    given: dict[str, Any] = {
        "source": "app",
        "query": query(**of_query),
        "every": 60,
        "start": "beginning",
        "chunk": 100,
        "template": name + ".{action}.{measure}",
    }
    given["archives"] = (ARCHIVE,)
    return Job(name=name, **(given | changed))


def horizon(upto: int, *, time: int = NOW, clock: float = 0.0) -> Observation:
    """Build an observation."""
    return Observation(id=upto, time=time, clock=clock)


def progress(wanted: Job, captured: int = 0, **changed: Any) -> Progress:
    """Build the progress of a new job."""
    new = {"complete_until": 0, "zero_filled_until": 0, "not_before": 0, "recount_from": None, "low": captured}
    digests = {"definition_digest": definition_digest(wanted), "path_digest": path_digest(wanted)}
    digests["time_digest"] = time_digest(wanted)
    return Progress(**({"captured": captured} | new | digests | changed))


def position(captured: int = 0) -> Position:
    """Build the position of a job that has counted all ids up to one."""
    return Position(captured, IdSet(0, captured))


def begin(state: State, wanted: Job, captured: int = 0, **changed: Any) -> None:
    """Store a new job that has counted all ids up to one."""
    state.begin(wanted, progress(wanted, captured, **changed), position(captured), None)


def done(state: State, window: Window | None, name: str = "events", **changed: Any) -> RecordUpdate:
    """Build the update that records a window without gaps."""
    before = state.position(name)
    return RecordUpdate(before if window is None else before.with_window(window, None), **changed)


def captured(state: State, name: str = "events") -> int | None:
    """Return the captured id of a job."""
    known = state.progress(name)
    return known.captured if known else None
