"""Short ways to valid nouns; what a test does not mention does not matter to it."""

from typing import Any

from shipper.model import Archive, Job, Observation, Query

NOW = 1_790_000_040
"""A wall clock in tests, epoch seconds; a whole minute."""
ARCHIVE = Archive(step=60, duration=30 * 86400)


def query(**changed: Any) -> Query:
    """Build the query of the example table: all rows by minute and action."""
    given: dict[str, Any] = {"table": "audit_trail", "id": "id", "time": "created_at", "bucket": 60, "by": ("action",)}
    return Query(**(given | changed))


def job(name: str = "events", **changed: Any) -> Job:
    """Build a job on that query; keys of a query go there."""
    asked = {key: changed.pop(key) for key in ("time", "bucket", "by", "where", "table", "id") if key in changed}
    given: dict[str, Any] = {
        "source": "app",
        "query": query(**asked),
        "every": 60,
        "start": "beginning",
        "chunk": 100,
        "template": name + ".{action}.{measure}",
    }
    return Job(name=name, **(given | changed))


def horizon(upto: int, *, time: int = NOW, clock: float = 0.0) -> Observation:
    """Build an observation that has settled."""
    return Observation(id=upto, time=time, clock=clock)
