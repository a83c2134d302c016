"""The context of an operation: the pipeline, the lock of a job, and the position of the job."""

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
    """The plan of an operation."""

    facts: Mapping[str, Any]
    """Its effect, for people and programs: JSON values; times are epoch seconds."""
    arguments: Mapping[str, Any]
    """The arguments with which the operation runs."""


@dataclass(frozen=True, slots=True)
class OperationContext:
    """The means of an operation: those of the service, or of a command that runs alone."""

    pipeline: Pipeline
    locked: Callable[[str], AbstractContextManager[Worker]]
    """Provides the worker of a job, which captures nothing meanwhile."""
    report: Callable[[Mapping[str, Any]], None]
    """Reports progress; may raise, as `pause` may, to end the operation early."""
    pause: Callable[[float], None]
    """Waits, in seconds."""
    deliver: Callable[[], bool]
    """Waits until all that can be delivered now is delivered; returns whether Carbon has all of it."""


class JobContext(NamedTuple):
    """A paused job and its position."""

    worker: Worker
    progress: Progress
    horizon: Observation
    """An observation made now."""
    moment: Now


def format_utc(time: int) -> str:
    """Return a time, epoch seconds, as commands accept it."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def not_started(name: str) -> ShipperError:
    """Return the error about a job that has counted nothing yet."""
    return ShipperError(f"job {name} has not started", hint="Run `shipper once`; the job begins at its `start`.")


def inspect_job(context: OperationContext, worker: Worker) -> JobContext:
    """Observe the table of a paused job, and return the job's position.

    Raises:
        ShipperError: the job has not started, or must recount slots first.
        SourceUnavailable: its source does not answer.
        SourceReset: the table was reset.
        TransientError: the clocks differ.
    """
    pipeline = context.pipeline
    progress = pipeline.state.progress(worker.job.name)
    if progress is None:
        raise not_started(worker.job.name)
    # a changed definition is recounted by the next capture, which would undo this operation
    worker.prepare()
    job = worker.job
    if progress.definition_digest != definition_digest(job) or progress.recount_from is not None:
        raise StateBusy(
            f"job {job.name} is about to recount slots, because it is new or was changed",
            hint="Try again after its next tick, or run `shipper once`.",
        )
    # observe the table and compare the clocks, as a tick does
    horizon = worker.source.observe(job.query)
    max_skew = pipeline.config.sources[job.source].max_skew
    pipeline.clocks.observed(job.source, horizon.time, max_skew=max_skew)
    # a table that was reset raises here; the events of the check are left to the next capture
    position, look = pipeline.state.position(job.name), TableLook(worker.source, horizon)
    for _ in check(job, progress, position, look=look, ledger=pipeline.state):
        pass
    return JobContext(worker, progress, horizon, worker.moment)
