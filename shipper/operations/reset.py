"""Operation reset: a job goes on with its table, according to what has happened to that."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from shipper.core.errors import ShipperError, SourceReset, StateBusy
from shipper.core.model import Fingerprint, Job, Observation, Progress
from shipper.core.position import Position
from shipper.core.repair.reset import After, check, known_again, outlook, restarted, would_double
from shipper.core.rows.look import TableLook
from shipper.log import logger
from shipper.operations.context import OperationContext, Plan
from shipper.runtime.worker import Worker


def plan(doing: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Look at a job's table, and say what each answer would mean; `what` is the one that is given, if one is.

    Raises:
        ShipperError: that one would count rows twice; StateBusy, SourceUnavailable: not now.
    """
    name = arguments["job"]
    with doing.locked(name) as worker:
        stands = _look(doing, worker)
    what = After(arguments["what"]) if arguments.get("what") else None
    if what is not None:
        _refuse_doubling(what, stands)
    progress, upto = stands.progress, stands.horizon.id
    facts = {
        "job": name,
        "table": stands.job.query.table,
        "first": stands.first,
        "first_time": stands.first_time,
        "largest": upto,
        "largest_time": stands.largest_time,
        "captured": progress.captured,
        "complete_until": progress.complete_until or None,
        "is_held": stands.reason is not None,
        "reason": stands.reason,
        "known": stands.known,
        "known_again": stands.known_again,
        "what": what,
        "choices": [_choice(one, stands) for one in After if what in {None, one}],
    }
    rest = {"captured": progress.captured, "version": stands.position.version}
    seen = {"first": stands.first, "largest": upto, "largest_time": stands.settled_time}
    return Plan(facts, {"job": name, "what": what} | rest | seen)


def carry_out(doing: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let a job go on as it was planned to. Rows that came since the plan are new, whatever was said.

    Raises:
        ShipperError: the job or its table is another by now, or rows would be counted twice.
    """
    name, what = arguments["job"], After(arguments["what"])
    with doing.locked(name) as worker:
        stands = _look(doing, worker, most=arguments["largest"])
        if not _is_as_planned(what, stands, arguments):
            raise StateBusy(f"reset job {name}: the job or its table is another by now", hint="Give the command again.")
        _refuse_doubling(what, stands)
        job, progress = stands.job, stands.progress
        restart = restarted(job, what, progress, stands.position, stands.horizon, source=worker.source)
        doing.pipeline.state.reset(name, **restart._asdict())
        worker.moved()
    done = {"job": name, "what": what, "before": progress.captured, "captured": restart.position.captured}
    logger().warning("source.reset", **done)
    return done


class _Stands(NamedTuple):
    """Where a job stands whose table may have gone back."""

    job: Job
    progress: Progress
    position: Position
    horizon: Observation
    reason: str | None
    """Why it is held; None where it is not."""
    first: int
    first_time: int | None
    largest_time: int | None
    known_again: int
    """So many of the rows that the table is known by are there."""
    known: int
    """So many they are."""

    @property
    def settled_time(self) -> int | None:
        """Return the largest id's time, where no row's time is set later."""
        return self.largest_time if self.job.lookback is None else None


def _look(doing: OperationContext, worker: Worker, *, most: int | None = None) -> _Stands:
    """Look where a paused job stands, held or not; at the table up to the id most only."""
    pipeline, state = doing.pipeline, doing.pipeline.state
    progress = state.progress(worker.job.name)
    if progress is None:
        raise ShipperError(
            f"job {worker.job.name} has not begun", hint="Its `start` says where it begins; `shipper once` lets it."
        )
    worker.prepare()
    job, source = worker.job, worker.source
    horizon = source.observe(job.query)
    max_skew = pipeline.config.sources[job.source].max_skew
    pipeline.clocks.observed(job.source, horizon.time, max_skew=max_skew)
    position, look = state.position(job.name), TableLook(source, horizon)
    known = state.fingerprint(job.name) or Fingerprint(None, ())
    found = look.fingerprint(job, known.rows[0][0]) if known.rows else known
    reason = None
    try:
        for _ in check(job, progress, position, look=look, ledger=state, adds=True):
            pass  # what is not held against the table the next capture tells
    except SourceReset as error:
        reason = str(error).partition(": ")[2]
    if most is not None and most < horizon.id:
        horizon = replace(horizon, id=most)
    first = source.first_id(job.query, 0, horizon.id) if horizon.id else 0
    (_, first_time), (largest, largest_time) = (
        source.newest(job.query, one) if one else (0, None) for one in (first, horizon.id)
    )
    return _Stands(
        job,
        progress,
        position,
        replace(horizon, id=largest),
        reason,
        first if largest else 0,
        first_time,
        largest_time,
        *known_again(known, found),
    )


def _choice(what: After, stands: _Stands) -> dict[str, Any]:
    numbers = outlook(what, stands.progress.captured, stands.first, stands.horizon.id)
    return {"what": what, "is_refused": _would_double(what, stands)} | numbers._asdict()


def _is_as_planned(what: After, stands: _Stands, arguments: Mapping[str, Any]) -> bool:
    """Say whether the job has recorded nothing, and the table still holds what the plan was made of."""
    captured, version = stands.progress.captured, stands.position.version
    planned = outlook(what, captured, arguments["first"], arguments["largest"]).captured
    expected = (arguments["captured"], arguments["version"], arguments["largest"], arguments["largest_time"], planned)
    by_now = outlook(what, captured, stands.first, stands.horizon.id).captured
    return expected == (captured, version, stands.horizon.id, stands.settled_time, by_now)


def _would_double(what: After, stands: _Stands) -> bool:
    return would_double(what, stands.progress.captured, stands.first, is_held=stands.reason is not None)


def _refuse_doubling(what: After, stands: _Stands) -> None:
    if _would_double(what, stands):
        raise ShipperError(
            f"reset job {stands.job.name}: it is not held, and rows up to {stands.progress.captured} are counted: "
            f"--{what} would count them twice",
            hint="What Graphite lacks `shipper backfill` counts again.",
        )
