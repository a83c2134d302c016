"""The context of an operation: the pipeline, the lock of a job, and the position of the job."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

from shipper.core.errors import ShipperError, StateBusy
from shipper.core.model import Now, Observation, Progress, definition_digest
from shipper.core.repair.reset import check
from shipper.core.rows.look import TableLook
from shipper.runtime.pipeline import Pipeline
from shipper.runtime.worker import Worker

_TICK = "its next tick (if it is paused: `shipper resume` first); if no service runs: `shipper once`."


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


def observe_job(context: OperationContext, worker: Worker) -> tuple[Progress, Observation]:
    """Prepare a paused job and observe its table, as a tick does; return its progress and the observation.

    Raises:
        ShipperError: the job has not started.
        SourceUnavailable: its source does not answer.
        TransientError: the clocks differ.
    """
    pipeline, name = context.pipeline, worker.job.name
    progress = pipeline.state.progress(name)
    if progress is None:
        raise ShipperError(f"job {name} has not started", hint=f"Wait for {_TICK}")
    worker.prepare()
    horizon = worker.source.observe(worker.job.query)
    source = worker.job.source
    pipeline.clocks.observed(source, horizon.time, max_skew=pipeline.config.sources[source].max_skew)
    return progress, horizon


def inspect_job(context: OperationContext, worker: Worker) -> JobContext:
    """Return the position of a paused job whose table is still the same.

    Raises:
        ShipperError: the job must recount slots first; or as for `observe_job`.
        SourceReset: the table was reset.
    """
    progress, horizon = observe_job(context, worker)
    # a changed definition is recounted by the next capture, which would undo this operation
    job, state = worker.job, context.pipeline.state
    if progress.definition_digest != definition_digest(job) or progress.recount_from is not None:
        raise StateBusy(
            f"job {job.name} must first recount some slots, because it is new, its configuration was changed, or "
            "`shipper admin seek` moved it",
            hint=f"Run the command again after {_TICK}",
        )
    # a table that was reset raises here; the events of the check are left to the next capture
    for _ in check(job, progress, state.position(job.name), look=TableLook(worker.source, horizon), ledger=state):
        pass
    return JobContext(worker, progress, horizon, worker.moment)
