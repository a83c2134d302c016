"""Operation seek: a job leaves rows out, and goes on elsewhere; forward only."""

from collections.abc import Mapping
from typing import Any

from shipper.core.errors import ShipperError
from shipper.core.model import Job
from shipper.core.rows.start import Target, by_end, by_id, by_time, passed
from shipper.log import logger
from shipper.operations.context import JobContext, OperationContext, Plan, standpoint


def plan(doing: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Find where a job would go on: behind an `id`, with the slot of a `time`, or, without either, at the end.

    Raises:
        ShipperError: it cannot go there; StateBusy, SourceUnavailable: not now.
    """
    name = arguments["job"]
    with doing.locked(name) as worker:
        stands = standpoint(doing, worker)
        progress = stands.progress
        target = _target(worker.job, arguments, stands)
        if target.captured == progress.captured and worker.job.lookback is None:
            raise ShipperError(f"move job {name}: there is nothing to pass, all rows of before are counted")
    facts = {
        "job": name,
        "captured": progress.captured,
        "to": target.captured,
        "ids": target.captured - progress.captured,
        "slot": target.slot,
        "not_before": target.not_before or None,
        "complete_until": progress.complete_until or None,
    }
    return Plan(facts, {"job": name, "target": target._asdict()})


def carry_out(doing: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let a job go on where it was planned to.

    Raises:
        ShipperError: it has come further meanwhile.
    """
    name, target = arguments["job"], Target(**arguments["target"])
    with doing.locked(name) as worker:
        progress = standpoint(doing, worker).progress
        if worker.job.lookback is not None:  # a time is its guide, and its ids go on
            target = target._replace(captured=progress.captured)
        if progress.captured > target.captured:
            raise ShipperError(f"move job {name}: it has come to {progress.captured} by itself meanwhile")
        position = passed(worker.job, target.captured, source=worker.source, before=doing.pipeline.state.position(name))
        doing.pipeline.state.seek(name, target, position)
        worker.moved()
    logger().warning("rows.skipped", job=name, before=progress.captured, captured=target.captured)
    return {"job": name, "before": progress.captured, "captured": target.captured}


def _target(job: Job, arguments: Mapping[str, Any], stands: JobContext) -> Target:
    worker, progress, horizon, moment = stands
    if "id" in arguments:
        return by_id(job, arguments["id"], progress, horizon, source=worker.source, now=moment.now)
    if "time" in arguments:
        return by_time(job, arguments["time"], progress, horizon, source=worker.source, now=moment.now)
    return by_end(job, progress, horizon, now=moment.now)
