"""Operation backfill: recounts spans of time piece by piece, while captures continue in between."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from shipper.core.errors import ShipperError, StateBusy
from shipper.core.ledger import Slot
from shipper.core.model import ALWAYS, Job, Key, Progress, Span, definition_digest
from shipper.core.repair.backfill import MOST_TOTALS, Limits, aligned, backfill, pieces
from shipper.core.retention import coalesce, floor
from shipper.core.rows.folding import shown_span
from shipper.core.rows.search import windows_by_index
from shipper.core.rows.table import (
    CaptureStep,
    Chunk,
    Context,
    chunks,
    late_seconds,
    purged_below,
    purged_until,
    walk_back,
    windows_in,
)
from shipper.log.logger import format_utc, logger
from shipper.log.results import log_steps, rejected_rows
from shipper.operations.context import JobContext, OperationContext, Plan, inspect_job
from shipper.runtime.worker import Worker
from shipper.source.database import Source
from shipper.state.store import State

PAUSE_SECONDS = 0.05
"""Pause between two pieces, for captures and for the database."""
REPORT_SECONDS = 5.0
"""Interval of progress reports, also while `rate` makes the backfill wait."""
RESUME_SECONDS = 3600
"""Time within which an interrupted backfill is resumed; later its results may be outdated."""


def align_spans(context: OperationContext, current: JobContext, wanted: Sequence[Span]) -> list[Span]:
    """Return the complete slots to recount, as spans that do not adjoin.

    Raises:
        ShipperError: there are none; or the state does not know the ids of that time any more.
    """
    worker, progress, horizon, moment = current
    job, state = worker.job, context.pipeline.state
    if not moment.is_trusted:
        raise StateBusy(
            f"backfill {job.name}: the clocks of this machine and of source {job.source} differ",
            hint="Correct the wrong clock (NTP), then run the command again.",
        )
    # align to slots, within what source, state and Graphite still have
    is_timed, upto = job.query.time is not None, progress.captured
    oldest = purged_until(job, upto, source=worker.source) if is_timed else -1
    shows = shown_span(job, now=moment.now, source_time=horizon.time)
    longer = [*state.slots(job.name, longer_than=job.query.bucket), *_of_longer_buckets(job, progress, state)]
    limits = Limits(shows, state.pruned(job.name), worker.unit, oldest, progress.begins, longer)
    slots = [_aligned(current, span, limits) for span in wanted]
    spans = coalesce(span for span in slots if span is not None)
    asked = f"from {format_utc(wanted[0].start)} until {format_utc(wanted[-1].end)}"
    if not spans:
        raise ShipperError(
            f"backfill {job.name}: no slot {asked} can be recounted",
            hint="Choose a time that is past, that Graphite still keeps, and whose rows are still in the table. "
            "Look at the eight rows with the lowest ids: if these ids are not 1 to 8, older rows may have been purged; "
            "then choose a time that is later than the times of these rows.",
        )
    # without a time column only the state knows which ids belong to a slot
    if not is_timed and spans[0].start < (since := _known_since(job, upto, state, worker.source)):
        hint = (
            f"Choose a time from {format_utc(since)} on. This job has no `time` column, so only the state knows which "
            "rows belong to a time, and it forgets them after [state] keep."
        )
        if since == ALWAYS.end:
            hint = "The state knows no counted rows of this job, so nothing can be recounted now."
        raise ShipperError(f"backfill {job.name}: the state does not know all rows {asked}", hint=hint)
    return spans


def _aligned(current: JobContext, span: Span, limits: Limits) -> Span | None:
    """Return the complete slots that contain a span, None if none of it can be recounted."""
    worker, progress, _, moment = current
    slots = aligned(worker.job, span, limits, now=moment.now)
    if slots is None or (unit := _unit(worker, progress, slots.start)) == limits.unit:
        return slots
    return aligned(worker.job, span, limits._replace(unit=unit), now=moment.now)


def _unit(worker: Worker, progress: Progress, start: int) -> int:
    """Return the length of the units in which slots from a time on were pruned, by former definitions as well."""
    is_former = progress.multiple and start < _former_until(worker.job, progress)
    return math.lcm(worker.unit, progress.multiple) if is_former else worker.unit


def _of_longer_buckets(job: Job, progress: Progress, state: State) -> list[Slot]:
    """Return the slots that a former definition may have counted with longer buckets, as long as those."""
    length = progress.multiple
    if length <= job.query.bucket:
        return []
    until = _former_until(job, progress)
    former = (one for one in state.slots(job.name) if one.slot < until and one.step < length)
    return [one._replace(slot=floor(one.slot, length), step=length) for one in former]


def _former_until(job: Job, progress: Progress) -> int:
    """Return the time before which slots may be those of a former definition.

    With indivisible measures all may: slots count as complete before the longer bucket is over in which it changed.
    """
    return progress.since if job.query.is_divisible else ALWAYS.end


def low_of(state: State, worker: Worker, spans: Sequence[Span]) -> int:
    """Return an id below all rows of the spans; 0 if the state does not know one."""
    job = worker.job
    since = Span(spans[0].start - late_seconds(job), ALWAYS.end)
    lowest = state.lowest(job.name, since)
    if lowest is None or lowest[0] > spans[0].start or any(span.end > since.start for span in state.pruned(job.name)):
        return 0
    return walk_back(job, lowest[1], since, source=worker.source)


def _is_searched(job: Job) -> bool:
    """Whether the ids of a span are searched: without a time column the state knows them, along a time the span."""
    return job.query.time is not None and not job.query.is_along


def _searches(worker: Worker) -> bool:
    """Whether all ids have to be searched for the rows of a span, because no index finds them."""
    job = worker.job
    return _is_searched(job) and not worker.source.has_index_of_time(job.query)


def _known_since(job: Job, upto: int, state: State, source: Source) -> int:
    """Return the time from which the state knows the rows of a job without `time`, and the table still has them."""
    oldest = state.lowest(job.name, ALWAYS)
    if oldest is None:
        return ALWAYS.end
    below = purged_below(job, upto, source=source)
    purged = [
        slot.slot + slot.step for slot in state.slots(job.name) if slot.after + 1 < below and slot.after < slot.upto
    ]
    return max([oldest[0], *(span.end for span in state.pruned(job.name)), *purged])


def plan(context: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Plan to recount the complete slots of a job's `spans`.

    Raises:
        ShipperError: none of them can be recounted; StateBusy, SourceUnavailable: not now.
    """
    name = arguments["job"]
    # align the spans, and find the ids to read
    with context.locked(name) as worker:
        current = inspect_job(context, worker)
        wanted = [Span(*pair) for pair in arguments["spans"]]
        spans = align_spans(context, current, wanted)
        low = low_of(context.pipeline.state, worker, spans) if _searches(worker) else None
        digest = definition_digest(worker.job)
    # resume an interrupted backfill of the same spans
    cleared, since = arguments.get("cleared", []), current.progress.since
    resumes_at = None if cleared else _resumes_at(context, name, spans, digest)
    facts = {
        "job": name,
        "requested": _pairs(wanted),
        "spans": _pairs(spans),
        "ids": None if low is None else current.progress.captured - low,
        "resumes_at": resumes_at,
        "gap": [spans[-1].end, since] if spans[-1].end < since else None,  # up to the first complete slot of the job
        "since": since,
    }
    rest = {"rate": arguments.get("rate"), "cleared": cleared, "resumes_at": resumes_at}
    return Plan(facts, {"job": name, "spans": facts["spans"]} | rest)


def run(context: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Recount planned spans, from where an interrupted backfill ended; send at most `rate` datapoints a second.

    `cleared` are slots, steps and paths for which Graphite is known to have a value.

    Raises:
        ShipperError: it ends early; finished pieces stay, and a backfill of the same spans continues with the rest.
    """
    name, spans = arguments["job"], [Span(*pair) for pair in arguments["spans"]]
    cleared = [Key(path, slot, step) for slot, step, path in arguments["cleared"]]
    logger().info(
        "backfill.started", job=name, start=format_utc(spans[0].start), end=format_utc(spans[-1].end), spans=len(spans)
    )
    # recount
    began, work = time.monotonic(), Work(context, name, spans, arguments["rate"] or math.inf, cleared)
    try:
        work.do(arguments["resumes_at"])
    finally:
        log_steps(context.pipeline.config.jobs[name], work.steps, seconds=0.0)
        context.pipeline.counters[name].reject(rejected_rows(work.steps))
    # the job is complete for these spans, and nothing is left to resume
    for span in reversed(spans):
        context.pipeline.state.include(name, span)
    context.pipeline.state.remember(_note(name), None)
    result = {"rows": work.rows, "datapoints": work.datapoints, "seconds": round(time.monotonic() - began, 3)}
    logger().info("backfill.finished", job=name, **result)
    return {"job": name} | result


class Work:
    """A running backfill: the chunks of ids that have its rows, and the rows and datapoints counted until now."""

    def __init__(
        self, context: OperationContext, name: str, spans: Sequence[Span], rate: float, cleared: Sequence[Key]
    ) -> None:
        self.rows = 0
        self.datapoints = 0
        self.steps: list[CaptureStep] = []
        """Steps with rows or values that Graphite does not show as they are."""
        self._context, self._state = context, context.pipeline.state
        self._name, self._spans, self._rate, self._cleared = name, spans, rate, cleared
        self._progress: Mapping[str, Any] = {"searched": 0, "of": 1}
        self._digest = ""
        self._chunks: list[Chunk] = []
        self._read_upto = 0
        self._late_rows = -1

    def do(self, resumes_at: int | None) -> None:
        """Recount all pieces that are not done yet, with pauses in between."""
        # find the rows, unless an index finds those of each piece
        with self._context.locked(self._name) as worker:
            progress = inspect_job(self._context, worker).progress
            self._digest = definition_digest(worker.job)
        with worker.source.background(self._wait):
            if _searches(worker):
                self._locate(worker, progress)
        # recount piece by piece, and note each for a later attempt
        series = self._state.groups(self._name, ())[0] * len(worker.job.query.measures)
        seconds = MOST_TOTALS // max(1, series) * worker.job.query.bucket
        unit = math.lcm(_unit(worker, progress, self._spans[0].start), *self._state.steps)  # a piece cuts no slot
        parts = (piece for span in self._spans for piece in pieces(span, unit, seconds=seconds))
        todo = [piece for piece in parts if piece.end > (resumes_at or 0)]
        for number, piece in enumerate(todo, start=1):
            worker.source.turns.wait(self._wait)
            began, before = time.monotonic(), self.datapoints
            with self._context.locked(self._name) as worker, worker.source.background():  # a reload may replace it
                self._count(worker, piece)
            self._keep_note(piece.end)
            self._rest(began + (self.datapoints - before) / self._rate, number / len(todo))

    def _locate(self, worker: Worker, progress: Progress) -> list[Chunk]:
        """Return the times of each chunk of ids up to captured; chunks that cannot change are read only once."""
        job, late_rows = worker.job, self._state.late_rows(worker.job.name)
        # a late row may be below what was read
        if late_rows != self._late_rows:
            self._chunks.clear()
            self._read_upto, self._late_rows = low_of(self._state, worker, self._spans), late_rows
        # keep the chunks whose times cannot change, and read the others each time
        stays_upto = progress.captured if job.lookback is None else min(progress.captured, progress.low)
        self._chunks += self._read_chunks(worker, self._read_upto, stays_upto)
        self._read_upto = max(self._read_upto, stays_upto)
        return [*self._chunks, *self._read_chunks(worker, self._read_upto, progress.captured)]

    def _read_chunks(self, worker: Worker, after: int, upto: int) -> list[Chunk]:
        present = []
        for chunk in chunks(worker.job, after, upto, source=worker.source):
            if chunk is not None:
                present.append(chunk)
                self._report({"searched": chunk.window.upto - after, "of": upto - after})
            self._context.pause(0)
        return present

    def _count(self, worker: Worker, piece: Span) -> None:
        """Recount a piece, with all ids captured until now."""
        # the plan must still hold: captures have run since the piece before
        current, job = inspect_job(self._context, worker), worker.job
        has_changed = definition_digest(job) != self._digest or current.progress.captured < self._read_upto
        if has_changed or align_spans(self._context, current, [piece]) != [piece]:
            raise StateBusy(
                f"backfill {job.name}: the job or its table has changed since the plan was made, or more of its rows "
                "were deleted",
                hint="Run the command again.",
            )
        # recount it, transaction by transaction
        context = Context(job, worker.source, self._state, current.moment)
        windows = (
            windows_by_index(job, current.progress.captured, piece, source=worker.source) if _is_searched(job) else []
        )
        if windows is None:
            windows = windows_in(self._locate(worker, current.progress), piece)
        for step in backfill(context, piece, windows, current.horizon, current.progress, cleared=self._cleared):
            self._context.pause(0)
            if step is not None:
                self.rows += step.rows
                self.datapoints += step.tally.totals
                if not step.tally.is_plain:
                    self.steps.append(step)

    def _rest(self, due: float, done: float) -> None:
        """Report the progress, and wait until the next piece is due."""
        due = max(due, time.monotonic() + PAUSE_SECONDS)
        while True:
            self._report({"done": done, "rows": self.rows, "datapoints": self.datapoints})
            self._context.pause(max(0.0, min(due - time.monotonic(), REPORT_SECONDS)))
            if time.monotonic() >= due:
                return

    def _wait(self, seconds: float) -> None:
        """Wait for a turn at the database, and report that the backfill continues."""
        self._report(self._progress)
        self._context.pause(min(seconds, REPORT_SECONDS))

    def _report(self, progress: Mapping[str, Any]) -> None:
        self._progress = progress
        self._context.report(progress)

    def _keep_note(self, done_until: int) -> None:
        note = {"spans": _pairs(self._spans), "digest": self._digest, "done_until": done_until, "at": int(time.time())}
        self._state.remember(_note(self._name), json.dumps(note))


def _resumes_at(context: OperationContext, name: str, spans: Sequence[Span], digest: str) -> int | None:
    """Return the time up to which a recently interrupted backfill of these spans came; None if there is none."""
    note = json.loads(context.pipeline.state.recall(_note(name)) or "{}")
    is_same = (note.get("spans"), note.get("digest")) == (_pairs(spans), digest)
    return note["done_until"] if is_same and time.time() - note["at"] < RESUME_SECONDS else None


def _pairs(spans: Sequence[Span]) -> list[list[int]]:
    return [[span.start, span.end] for span in spans]


def _note(name: str) -> str:
    return f"backfill {name}"
