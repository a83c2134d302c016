"""What operators do to jobs: each operation says what it will do, and does that.

An operation has two halves, as its command shows a plan and asks. `plan` looks and changes nothing; it returns facts
for people, and the arguments that `carry_out` takes to do just that. The running service does it, or the command
itself, where none runs: whoever does it gives it a OperationContext.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from shipper.config.load import Config
from shipper.operations import backfill, reset, seek
from shipper.operations import import_legacy as takeover
from shipper.operations import jobs as ownership
from shipper.operations.context import OperationContext, Plan
from shipper.runtime.delivery import drain
from shipper.runtime.pipeline import composed


class Operation(NamedTuple):
    """The two halves."""

    plan: Callable[[OperationContext, Mapping[str, Any]], Plan]
    carry_out: Callable[[OperationContext, Mapping[str, Any]], Mapping[str, Any]]


OPERATIONS: Mapping[str, Operation] = {
    "seek": Operation(seek.plan, seek.carry_out),
    "reset": Operation(reset.plan, reset.carry_out),
    "backfill": Operation(backfill.plan, backfill.carry_out),
    "forget": Operation(ownership.plan_forget, ownership.forget),
    "rename": Operation(ownership.plan_rename, ownership.rename),
    "import": Operation(takeover.plan, takeover.carry_out),
}


def _plan(doing: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Plan the operation of that name; as JSON holds it."""
    return OPERATIONS[arguments["operation"]].plan(doing, arguments["arguments"])._asdict()


def _carry_out(doing: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Carry the operation of that name out, and have delivered what it changed."""
    done = OPERATIONS[arguments["operation"]].carry_out(doing, arguments["arguments"])
    return {**done, "is_delivered": doing.deliver()}


HALVES: Mapping[str, Callable[[OperationContext, Mapping[str, Any]], Mapping[str, Any]]] = {
    "plan": _plan,
    "carry out": _carry_out,
}
"""What is done with the name of an operation and its arguments."""


@contextmanager
def alone(config: Config, tell: Callable[[Mapping[str, Any]], None]) -> Iterator[OperationContext]:
    """Do operations where no service runs: hold the state meanwhile.

    Raises:
        StateBusy: a service runs after all.
        ConfigError: a part cannot be made as it is configured.
    """
    with composed(config) as pipeline:
        yield OperationContext(
            pipeline,
            locked=pipeline.locked,
            tell=tell,
            pause=time.sleep,
            deliver=lambda: drain(pipeline),
        )
