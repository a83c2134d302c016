"""Operations that change jobs: each plans what it would do, then does it; pause and resume need no plan.

An operation has two steps, because its command shows a plan and asks. The plan changes nothing; it returns facts for
people, and the arguments with which the second step does exactly that. The running service does both; where no service
runs, the command does.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from shipper.config.load import Config
from shipper.operations import backfill, import_legacy, jobs, pause, reset, seek
from shipper.operations.context import OperationContext
from shipper.runtime.delivery import drain
from shipper.runtime.pipeline import composed

_OPERATIONS = {
    "seek": (seek.plan, seek.run),
    "reset": (reset.plan, reset.run),
    "backfill": (backfill.plan, backfill.run),
    "forget": (jobs.plan_forget, jobs.forget),
    "rename": (jobs.plan_rename, jobs.rename),
    "import": (import_legacy.plan, import_legacy.run),
}
_UNPLANNED = {"pause": pause.pause, "resume": pause.resume}


def operate(
    context: OperationContext, *, operation: str, arguments: Mapping[str, Any], is_plan: bool
) -> Mapping[str, Any]:
    """Plan an operation, or run it and wait for the delivery of its changes; return JSON values."""
    if operation in _UNPLANNED:
        return _UNPLANNED[operation](context, arguments)
    plan, run = _OPERATIONS[operation]
    if is_plan:
        return plan(context, arguments)._asdict()
    return {**run(context, arguments), "is_delivered": context.deliver()}


@contextmanager
def alone(config: Config, report: Callable[[Mapping[str, Any]], None]) -> Iterator[OperationContext]:
    """Provide the context of operations where no service runs, and hold the state meanwhile.

    Raises:
        StateBusy: a service has been started meanwhile.
        ConfigError: a part cannot be made as configured.
    """
    with composed(config) as pipeline:

        def deliver() -> bool:
            """Deliver what the operation has changed; replays of other totals are left to the service, or a pass."""
            revision = pipeline.state.revision
            return drain(pipeline, is_done=lambda: pipeline.courier.has_delivered(revision))

        yield OperationContext(pipeline, pipeline.locked, report, pause=time.sleep, deliver=deliver)
