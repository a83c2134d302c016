"""Operations forget and rename: they drop a job's state, or give it to another job."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from shipper.core.errors import ConfigError, ShipperError
from shipper.core.model import JobStatus
from shipper.core.repair.reset import check_identity
from shipper.log.logger import logger
from shipper.operations.context import OperationContext, Plan
from shipper.state.queries import job_statuses


def plan_forget(context: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Plan to drop the state of a `job` that is not configured any more.

    Raises:
        ShipperError: the state does not know the job, or it is still configured.
    """
    name = arguments["job"]
    status = _status(context, name)
    if name in context.pipeline.config.jobs:
        raise ShipperError(
            f"forget {name}: the job is still in the configuration",
            hint="Remove it there and reload first; otherwise it starts again and counts rows twice.",
        )
    return Plan({"job": name} | _facts(status), {"job": name})


def forget(context: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Drop the state of a job; Graphite keeps its datapoints."""
    name = plan_forget(context, arguments).arguments["job"]
    context.pipeline.state.housekeeping.forget(name)
    logger().warning("job.forgotten", job=name)
    return {"job": name}


def plan_rename(context: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Plan to give the state of a job that is not configured any more, `before`, to another job, `job`.

    Raises:
        ShipperError: the state does not know the former job, or it is still configured.
        ConfigError: the other job reads another table.
    """
    config, before, name = context.pipeline.config, arguments["before"], arguments["job"]
    status = _status(context, before)
    if before in config.jobs:
        raise ShipperError(
            f"rename {before}: the job is still in the configuration", hint="Change its name there first, and reload."
        )
    if name in config.jobs:
        check_identity(config.jobs[name], status.offsets)
    dropped = job_statuses(context.pipeline.state.path).get(name)
    facts = {"before": before, "job": name} | _facts(status)
    facts |= {"is_configured": name in config.jobs, "dropped": _facts(dropped) if dropped else None}
    return Plan(facts, {"before": before, "job": name})


def rename(context: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the state of a job to another job."""
    plan_rename(context, arguments)
    pipeline, before, name = context.pipeline, arguments["before"], arguments["job"]
    with context.locked(name) if name in pipeline.workers else nullcontext() as worker:
        pipeline.state.housekeeping.move(before, name)
        if worker is not None:
            worker.moved()
    pipeline.renew_courier()  # its unfinished rounds have the old name
    logger().info("job.renamed", job=name, before=before)
    return {"before": before, "job": name}


def _status(context: OperationContext, name: str) -> JobStatus:
    statuses = job_statuses(context.pipeline.state.path)
    if name not in statuses:
        raise ConfigError(
            f"choose a job: no job {name!r} in the state", hint=f"The state knows: {', '.join(statuses) or 'none'}."
        )
    return statuses[name]


def _facts(status: JobStatus) -> dict[str, Any]:
    offsets = status.offsets
    return {
        "source": offsets.source,
        "table": offsets.table,
        "watermark": offsets.watermark,
        "captured": offsets.captured,
        "unproven": status.unproven,
    }
