"""Operations on what the state has of jobs: forget it, give it to another name, take over an older program's."""

from collections.abc import Mapping
from typing import Any

from shipper.core.errors import ConfigError, ShipperError
from shipper.core.model import JobStatus
from shipper.log import logger
from shipper.operations.context import OperationContext, Plan
from shipper.core.repair.reset import check_identity
from shipper.state.queries import job_statuses


def plan_forget(doing: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Say what would be dropped of a `job` that left the configuration.

    Raises:
        ShipperError: nothing is known of it, or it is still configured.
    """
    name = arguments["job"]
    standing = _standing(doing, name)
    if name in doing.pipeline.config.jobs:
        raise ShipperError(
            f"forget {name}: it is in the configuration",
            hint="It would begin anew at once, and count rows twice: take it out first, and reload.",
        )
    return Plan({"job": name} | _facts(standing), {"job": name})


def forget(doing: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Drop all that is known of a job; what Graphite has stays there."""
    name = plan_forget(doing, arguments).arguments["job"]
    doing.pipeline.state.forget(name)
    logger().warning("job.forgotten", job=name)
    return {"job": name}


def plan_rename(doing: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Say what would go from a job that left the configuration, `before`, to another name, `job`.

    Raises:
        ShipperError: nothing is known of it, or it is still configured.
        ConfigError: the other job has ids of another table.
    """
    config, before, name = doing.pipeline.config, arguments["before"], arguments["job"]
    standing = _standing(doing, before)
    if before in config.jobs:
        raise ShipperError(
            f"rename {before}: it is in the configuration", hint="Give it its new name there first, and reload."
        )
    if name in config.jobs:
        check_identity(config.jobs[name], standing.offsets)
    lost = _standings(doing).get(name)
    facts = {"before": before, "job": name} | _facts(standing)
    facts |= {"is_configured": name in config.jobs, "dropped": _facts(lost) if lost else None}
    return Plan(facts, {"before": before, "job": name})


def rename(doing: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give all that one job has to another name."""
    plan_rename(doing, arguments)
    pipeline, before, name = doing.pipeline, arguments["before"], arguments["job"]
    if name in pipeline.workers:
        with doing.locked(name) as worker:
            pipeline.state.move(before, name)
            worker.moved()
    else:
        pipeline.state.move(before, name)
    pipeline.renew_courier()  # what it has under way bears the old name
    logger().info("job.renamed", job=name, before=before)
    return {"before": before, "job": name}


def _standings(doing: OperationContext) -> Mapping[str, JobStatus]:
    return job_statuses(doing.pipeline.state.path)


def _standing(doing: OperationContext, name: str) -> JobStatus:
    known = _standings(doing)
    if name not in known:
        raise ConfigError(f"choose a job: the state knows no {name!r}", hint=f"It knows: {', '.join(known) or 'none'}.")
    return known[name]


def _facts(standing: JobStatus) -> dict[str, Any]:
    where = standing.offsets
    return {
        "source": where.source,
        "table": where.table,
        "watermark": where.watermark,
        "captured": where.captured,
        "unproven": standing.unproven,
    }
