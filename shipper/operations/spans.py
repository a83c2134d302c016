"""Which spans of time of a job can be counted again, and where their rows are."""

from collections.abc import Sequence

from shipper.core.errors import ShipperError, StateBusy
from shipper.core.model import ALWAYS, Job, Span
from shipper.core.repair.backfill import Limits, widened
from shipper.core.retention import joined
from shipper.core.rows.fold import shown
from shipper.core.rows.search import late_seconds, purged_below, purged_until
from shipper.core.rows.table import walk_back
from shipper.operations.context import Doing, Standpoint, written
from shipper.runtime.worker import Worker
from shipper.source.database import Source
from shipper.state.store import State


def widened_spans(doing: Doing, stands: Standpoint, asked: Sequence[Span]) -> list[Span]:
    """Return the spans to be counted, whole slots, those that adjoin as one.

    Raises:
        ShipperError: there are none; or ids of a time are not known any more.
    """
    worker, progress, horizon, moment = stands
    job, state = worker.job, doing.pipeline.state
    if not moment.is_trusted:
        raise StateBusy(f"backfill {job.name}: clocks differ", hint="Where slots belong depends on them.")
    is_timed, upto = job.query.time is not None, progress.captured
    oldest = purged_until(job, upto, source=worker.source) if is_timed else -1
    shows = shown(job, now=moment.now, source_time=horizon.time)
    limits = Limits(shows, state.pruned(job.name), worker.unit, oldest)
    found = [widened(job, span, limits, now=moment.now) for span in asked]
    spans = joined(one for one in found if one is not None)
    if not spans:
        raise ShipperError(
            f"backfill {job.name}: nothing of that time can be counted again",
            hint="It is in the future, or older than what Graphite keeps, or than the rows that the table holds.",
        )
    if not is_timed and spans[0].start < (since := _known_since(job, upto, state, worker.source)):
        known = "here not yet" if since == ALWAYS.end else f"here since {written(since)}"
        raise ShipperError(
            f"backfill {job.name}: which rows belong to that time is not known",
            hint=f"Of a job without `time` it is known for as long as [state] keep says, and {known}.",
        )
    return spans


def low_of(state: State, worker: Worker, spans: Sequence[Span]) -> int:
    """Return an id above which the rows of all spans are; 0 where the state does not know."""
    job = worker.job
    since = Span(spans[0].start - late_seconds(job), ALWAYS.end)
    known = state.lowest(job.name, since)
    if known is None or known[0] > spans[0].start or any(one.end > since.start for one in state.pruned(job.name)):
        return 0
    return walk_back(job, known[1], since, source=worker.source)


def _known_since(job: Job, upto: int, state: State, source: Source) -> int:
    """Return since when the state knows which rows are in the slots of a job without a time, and the table has them."""
    oldest = state.lowest(job.name, ALWAYS)
    if oldest is None:
        return ALWAYS.end
    below = purged_below(job, upto, source=source)
    lack = [
        slot.slot + slot.step for slot in state.slots(job.name) if slot.after + 1 < below and slot.after < slot.upto
    ]
    return max([oldest[0], *(one.end for one in state.pruned(job.name)), *lack])
