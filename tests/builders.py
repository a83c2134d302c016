"""Short ways to valid nouns; what a test does not mention does not matter to it."""

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
)
from shipper.core.position import Position
from shipper.state.store import State

NOW = 1_790_000_040
"""A wall clock in tests, epoch seconds; a whole minute."""
ARCHIVE = Archive(step=60, duration=30 * 86400)
QUERY = ("time", "bucket", "by", "where", "table", "id", "measures", "sql", "time_zone")


def query(**changed: Any) -> Query:
    """Build the query of the example table: all rows by minute and action."""
    given: dict[str, Any] = {"table": "audit_trail", "id": "id", "time": "created_at", "bucket": 60, "by": ("action",)}
    return Query(**(given | changed))


def points(lines: bytes | str) -> list[Datapoint]:
    """Return the datapoints of lines as Carbon reads them."""
    text = lines if isinstance(lines, str) else lines.decode("ascii")
    fields = (line.split() for line in text.splitlines())
    return [Datapoint(path, int(value), int(slot)) for path, value, slot in fields]


def job(name: str = "events", **changed: Any) -> Job:
    """Build a job on that query; keys of a query go there."""
    asked = {key: changed.pop(key) for key in QUERY if key in changed}
    given: dict[str, Any] = {
        "source": "app",
        "query": query(**asked),
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
    """Build what a new job goes on from."""
    nothing = {"complete_until": 0, "zero_filled_until": 0, "not_before": 0, "recount_from": None, "low": captured}
    shapes = {"definition_digest": definition_digest(wanted), "path_digest": path_digest(wanted)}
    return Progress(**({"captured": captured} | nothing | shapes | changed))


def position(captured: int = 0) -> Position:
    """Build the position of a job that has counted all ids up to one."""
    return Position(captured, IdSet(0, captured))


def begin(state: State, wanted: Job, captured: int = 0, **changed: Any) -> None:
    """Begin a job that has counted all ids up to one."""
    state.begin(wanted, progress(wanted, captured, **changed), position(captured))


def done(state: State, window: Window | None, name: str = "events", **changed: Any) -> RecordUpdate:
    """Build what follows from a window without gaps."""
    before = state.position(name)
    return RecordUpdate(before if window is None else before.with_window(window, None), **changed)


def captured(state: State, name: str = "events") -> int | None:
    """Return how far a job has captured."""
    found = state.progress(name)
    return found.captured if found else None
