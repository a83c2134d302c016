"""Operation seek: a job skips rows that it has not counted yet; it moves forward only."""

from collections.abc import Mapping
from typing import Any

from shipper.core.errors import ShipperError
from shipper.core.model import Job
from shipper.core.rows.start import Target, by_end, by_id, by_time, position_behind
from shipper.log.logger import format_utc, logger
from shipper.operations.context import JobContext, OperationContext, Plan, inspect_job


def plan(context: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Plan where a job continues: after an `id`, with the slot of a `time`, or, without either, at the end.

    Raises:
        ShipperError: the job cannot continue there; StateBusy, SourceUnavailable: not now.
    """
    name = arguments["job"]
    with context.locked(name) as worker:
        current = inspect_job(context, worker)
        progress = current.progress
        target = _target(worker.job, arguments, current)
        if target.captured == progress.captured and not _keeps_ids(worker.job):
            raise ShipperError(
                f"skip rows of job {name}: there is nothing to skip: all rows up to that point are counted already",
                hint="To recount them, use `shipper backfill`.",
            )
    facts = {
        "job": name,
        "is_along": worker.job.query.is_along,
        "captured": progress.captured,
        "to": target.captured,
        "ids": target.captured - progress.captured,
        "slot": target.slot,
        "not_before": target.not_before or None,
        "complete_until": progress.complete_until or None,
    }
    return Plan(facts, {"job": name, "target": target._asdict()})


def run(context: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let a job continue where it was planned to.

    Raises:
        ShipperError: the job has captured more ids meanwhile.
    """
    name, target = arguments["job"], Target(**arguments["target"])
    with context.locked(name) as worker:
        progress = inspect_job(context, worker).progress
        if _keeps_ids(worker.job):
            target = target._replace(captured=progress.captured)
        if progress.captured > target.captured:
            is_by_time = worker.job.query.is_along and target.slot is not None
            place = format_utc(target.slot or 0) if is_by_time else f"id {target.captured}"
            raise ShipperError(
                f"skip rows of job {name}: the job has meanwhile passed {place}", hint="Run the command again."
            )
        position = position_behind(
            worker.job, target.captured, source=worker.source, before=context.pipeline.state.position(name)
        )
        context.pipeline.state.seek(name, target, position)
        worker.moved()
    logger().warning("rows.skipped", job=name, before=progress.captured, captured=target.captured)
    is_along = worker.job.query.is_along
    return {"job": name, "is_along": is_along, "before": progress.captured, "captured": target.captured}


def _target(job: Job, arguments: Mapping[str, Any], current: JobContext) -> Target:
    worker, progress, horizon, moment = current
    if "id" in arguments:
        return by_id(job, arguments["id"], progress, horizon, source=worker.source, now=moment.now)
    if "time" in arguments or job.query.is_along:
        time = arguments.get("time", horizon.time)  # along a time, the end is the bucket of now
        return by_time(job, time, progress, horizon, source=worker.source, now=moment.now)
    return by_end(job, progress, horizon, now=moment.now)


def _keeps_ids(job: Job) -> bool:
    """Return whether a job skips slots instead of ids: it recounts by time. Along a time both are the same."""
    return job.lookback is not None and not job.query.is_along
