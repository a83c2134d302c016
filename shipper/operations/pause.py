"""Operations pause and resume: jobs stop looking at their tables, for a maintenance, and continue where they were.

A pause is in the state, so it survives restarts. It stops captures only: counted totals are still delivered. Nothing is
lost, because positions do not move, and no id grows old without looks.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from shipper.config.load import Config
from shipper.log.logger import logger
from shipper.operations.context import OperationContext
from shipper.runtime.clocks import PATIENCE_SECONDS, PAUSE_SECONDS, Part
from shipper.runtime.pipeline import Pipeline
from shipper.state.store import State


def pause(context: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Pause `jobs`, wait until none of them looks at its table, name those that do; raises as `names_of` does."""
    pipeline = context.pipeline
    result = pause_in(pipeline.state, pipeline.config, arguments["jobs"])
    for name in result["changed"]:
        logger().warning("pause.started", job=name)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (running := _running(pipeline, result["jobs"])) and time.monotonic() < deadline:
        context.pause(PAUSE_SECONDS)
    return {**result, "running": running}


def resume(context: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let paused `jobs` continue at their next tick, after their last position; raises as `names_of` does."""
    pipeline, before = context.pipeline, context.pipeline.state.pauses
    for name in names_of(pipeline.config, arguments["jobs"]):
        if name in pipeline.workers and name in before:
            pipeline.workers[name].refresh()
    result = resume_in(pipeline.state, pipeline.config, arguments["jobs"])
    for name in result["changed"]:
        logger().info("pause.ended", job=name, seconds=int(time.time()) - before[name])
    return result


def pause_in(state: State, config: Config, jobs: Iterable[str]) -> dict[str, Any]:
    """Pause jobs in the state; return all of them, and those that were not paused before."""
    names = names_of(config, jobs)
    changed = [name for name in names if name not in state.pauses]
    state.pause(changed, since=int(time.time()))
    return {"jobs": names, "changed": changed, "running": []}


def resume_in(state: State, config: Config, jobs: Iterable[str]) -> dict[str, Any]:
    """End the pauses of jobs in the state; return all of them, and those that were paused."""
    names = names_of(config, jobs)
    changed = [name for name in names if name in state.pauses]
    state.resume(changed)
    return {"jobs": names, "changed": changed}


def names_of(config: Config, jobs: Iterable[str]) -> list[str]:
    """Return the names of jobs, each once; a job on several sources has one for each.

    Raises:
        ConfigError: there is no such job.
    """
    return list(dict.fromkeys(job.name for name in jobs for job in config.named(name)))


def _running(pipeline: Pipeline, names: Iterable[str]) -> list[str]:
    """Return the parts that still look at the tables of paused jobs."""
    parts: list[Part] = [pipeline.workers[name] for name in names if name in pipeline.workers]
    groups = list(pipeline.polling_groups.values())
    parts += [group for group in groups if all(worker.is_paused for worker in group.workers)]
    audits = [f"running audit of job {name}" for name in names if name == pipeline.audited]
    return [str(part) for part in parts if not part.is_idle] + audits
