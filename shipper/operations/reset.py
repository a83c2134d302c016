"""Operation reset: a job continues after its table was emptied, restored or replaced."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from shipper.core.errors import ShipperError, SourceReset, StateBusy
from shipper.core.model import Fingerprint, Job, Observation, Progress
from shipper.core.position import Position
from shipper.core.repair.reset import After, Outlook, check, known_again, outlook, restarted, would_double
from shipper.core.rows.look import TableLook
from shipper.log.logger import logger
from shipper.operations.context import OperationContext, Plan, observe_job
from shipper.runtime.worker import Worker


def plan(context: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Compare a job's table with its position, and plan each answer, or only `what` if that is given.

    Raises:
        ShipperError: `what` would count rows twice; StateBusy, SourceUnavailable: not now.
    """
    name = arguments["job"]
    with context.locked(name) as worker:
        if worker.job.query.is_along:
            raise ShipperError(
                f"reset job {name}: its `id`, {worker.job.query.id}, is a time: it needs no reset",
                hint="Do nothing: it counts rows with new times. `shipper backfill` recounts earlier ones.",
            )
        situation = _situation(context, worker)
    what = After(arguments["what"]) if arguments.get("what") else None
    if what is not None:
        situation.reject_doubling(what)
    return Plan(_facts(situation, what), {"job": name, "what": what, "first": situation.first, **situation.standing})


def _facts(situation: "_Situation", what: After | None) -> dict[str, Any]:
    progress = situation.progress
    return {
        "job": situation.job.name,
        "table": situation.job.query.table,
        "first": situation.first,
        "first_time": situation.first_time,
        "largest": situation.horizon.id,
        "largest_time": situation.largest_time,
        "captured": progress.captured,
        "complete_until": progress.complete_until or None,
        "is_held": situation.reason is not None,
        "reason": situation.reason,
        "known": situation.known,
        "known_again": situation.known_again,
        "what": what,
        "choices": [
            {"what": after, "is_rejected": situation.would_double(after), **situation.outlook(after)._asdict()}
            for after in After
            if what in {None, after}
        ],
    }


def run(context: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let a job continue as planned. Rows that came since the plan are new, for every answer.

    Raises:
        ShipperError: the job or its table has changed since the plan, or rows would be counted twice.
    """
    name, what = arguments["job"], After(arguments["what"])
    with context.locked(name) as worker:
        situation = _situation(context, worker, most=arguments["largest"])
        planned = outlook(what, arguments["captured"], arguments["first"], arguments["largest"])
        if {**arguments, **situation.standing} != arguments or situation.outlook(what).captured != planned.captured:
            raise StateBusy(
                f"reset job {name}: the job or its table has changed since the plan was made",
                hint="Run the command again.",
            )
        situation.reject_doubling(what)
        job, progress = situation.job, situation.progress
        restart = restarted(job, what, progress, situation.position, situation.horizon, source=worker.source)
        context.pipeline.state.reset(name, **restart._asdict())
        worker.continue_after_reset()
    done = {"job": name, "what": what, "before": progress.captured, "captured": restart.position.captured}
    logger().warning("source.reset", **done)
    return done


class _Situation(NamedTuple):
    """A job, and its table that may have been reset."""

    job: Job
    progress: Progress
    position: Position
    horizon: Observation
    reason: str | None
    """Why the job is held; None if it is not."""
    first: int
    first_time: int | None
    largest_time: int | None
    known_again: int
    """Number of the known rows that the table still has."""
    known: int
    """Number of rows that identify the table."""

    @property
    def standing(self) -> dict[str, int | None]:
        """Return what must not change after a plan: the job records nothing, and the table keeps its largest id."""
        time = self.largest_time if self.job.lookback is None else None  # else a row may get its time later
        captured, version = self.progress.captured, self.position.version
        return {"captured": captured, "version": version, "largest": self.horizon.id, "largest_time": time}

    def outlook(self, what: After) -> Outlook:
        """Return the effect of a reset."""
        return outlook(what, self.progress.captured, self.first, self.horizon.id)

    def would_double(self, what: After) -> bool:
        """Return whether a reset would count rows twice."""
        return would_double(what, self.progress.captured, self.first, is_held=self.reason is not None)

    def reject_doubling(self, what: After) -> None:
        """Raise ShipperError for a reset that would count rows twice."""
        if self.would_double(what):
            raise ShipperError(
                f"reset job {self.job.name}: --{what} would count rows twice: the job is not held, "
                f"and rows up to {self.progress.captured} are counted",
                hint="Use `shipper backfill` to recount rows that Graphite lacks.",
            )


def _situation(context: OperationContext, worker: Worker, *, most: int | None = None) -> _Situation:
    """Observe the table of a paused job, held or not, up to the id `most`."""
    progress, horizon = observe_job(context, worker)
    job, source, state = worker.job, worker.source, context.pipeline.state
    # compare the rows that identify the table
    position, look = state.position(job.name), TableLook(source, horizon)
    identity = state.fingerprint(job.name) or Fingerprint(None, ())
    present = look.fingerprint(job, identity.rows[0][0]) if identity.rows else identity
    # find out whether the job is held; the events of the check are left to the next capture
    reason = None
    try:
        for _ in check(job, progress, position, look=look, ledger=state, adds=True):
            pass
    except SourceReset as error:
        reason = str(error).partition(": ")[2]
    # find the first and the last row
    if most is not None and most < horizon.id:
        horizon = replace(horizon, id=most)
    first = source.first_id(job.query, 0, horizon.id) if horizon.id else 0
    (_, first_time), (largest, largest_time) = (
        source.newest(job.query, id_) if id_ else (0, None) for id_ in (first, horizon.id)
    )
    return _Situation(
        job,
        progress,
        position,
        replace(horizon, id=largest),
        reason,
        first if largest else 0,
        first_time,
        largest_time,
        *known_again(identity, present),
    )
