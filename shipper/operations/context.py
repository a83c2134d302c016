"""What every operation needs of whoever does it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from shipper.core.errors import ShipperError, StateBusy
from shipper.core.model import Now, Observation, Progress, definition_digest
from shipper.core.repair.reset import check
from shipper.core.rows.look import TableLook
from shipper.runtime.pipeline import Pipeline
from shipper.runtime.worker import Worker


class Plan(NamedTuple):
    """What an operation will do."""

    facts: Mapping[str, Any]
    """For people, and for programs: JSON values; times are epoch seconds."""
    arguments: Mapping[str, Any]
    """For carrying it out."""


@dataclass(frozen=True, slots=True)
class OperationContext:
    """How an operation is done."""

    pipeline: Pipeline
    locked: Callable[[str], AbstractContextManager[Worker]]
    """Gives the worker of a job, which captures nothing within."""
    tell: Callable[[Mapping[str, Any]], None]
    """Tells how far it is; may raise, as `pause` does, when it is to end early."""
    pause: Callable[[float], None]
    """Waits for so many seconds."""
    deliver: Callable[[], bool]
    """Waits until all is delivered that can be now, and returns whether Carbon has all."""


class JobContext(NamedTuple):
    """Where a job that is not in the midst of anything stands."""

    worker: Worker
    progress: Progress
    horizon: Observation
    """An observation of now."""
    moment: Now


def written(at: int) -> str:
    """Write a time, epoch seconds, so that commands can read it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def standpoint(doing: OperationContext, worker: Worker) -> JobContext:
    """Look where a paused job stands.

    Raises:
        ShipperError: it has not begun, or has something to do first.
        SourceUnavailable: its source does not answer.
        SourceReset: the table went back.
        TransientError: the clocks differ.
    """
    pipeline, job = doing.pipeline, worker.job
    progress = pipeline.state.progress(job.name)
    if progress is None:
        raise ShipperError(
            f"job {job.name} has not begun", hint="Its `start` says where it begins; `shipper once` lets it."
        )
    worker.prepare()
    job = worker.job
    if progress.definition_digest != definition_digest(job) or progress.recount_from is not None:
        raise StateBusy(
            f"job {job.name} is about to count slots again, because it is new or was changed",
            hint="Try again after its next tick, or let it: `shipper once`.",
        )
    horizon = worker.source.observe(job.query)
    max_skew = pipeline.config.sources[job.source].max_skew
    pipeline.clocks.observed(job.source, horizon.time, max_skew=max_skew)
    position, look = pipeline.state.position(job.name), TableLook(worker.source, horizon)
    for _ in check(job, progress, position, look=look, ledger=pipeline.state):
        pass  # what is not held against the table the next capture tells
    return JobContext(worker, progress, horizon, worker.moment)
