"""Operation backfill: spans of time are counted again, piece by piece, while captures go on in between.

Which spans of time of a job can be counted again, and where their rows are.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from shipper.core.errors import ShipperError, StateBusy
from shipper.core.model import ALWAYS, Job, Key, Progress, Span, definition_digest
from shipper.core.repair.backfill import Limits, aligned, backfill, pieces
from shipper.core.retention import coalesce
from shipper.core.rows.table import (
    Chunk,
    Context,
    chunks,
    late_seconds,
    purged_below,
    purged_until,
    walk_back,
    windows_in,
)
from shipper.core.rows.totals import shown_span
from shipper.log import logger
from shipper.operations.context import JobContext, OperationContext, Plan, format_utc, inspect_job
from shipper.runtime.capture_log import log_steps
from shipper.runtime.worker import Worker
from shipper.source.database import Source
from shipper.state.store import State


def align_spans(context: OperationContext, stands: JobContext, asked: Sequence[Span]) -> list[Span]:
    """Return the spans to be counted, whole slots, those that adjoin as one.

    Raises:
        ShipperError: there are none; or ids of a time are not known any more.
    """
    worker, progress, horizon, moment = stands
    job, state = worker.job, context.pipeline.state
    if not moment.is_trusted:
        raise StateBusy(f"backfill {job.name}: clocks differ", hint="Where slots belong depends on them.")
    is_timed, upto = job.query.time is not None, progress.captured
    oldest = purged_until(job, upto, source=worker.source) if is_timed else -1
    shows = shown_span(job, now=moment.now, source_time=horizon.time)
    limits = Limits(shows, state.pruned(job.name), worker.unit, oldest)
    found = [aligned(job, span, limits, now=moment.now) for span in asked]
    spans = coalesce(one for one in found if one is not None)
    if not spans:
        raise ShipperError(
            f"backfill {job.name}: nothing of that time can be counted again",
            hint="It is in the future, or older than what Graphite keeps, or than the rows that the table holds.",
        )
    if not is_timed and spans[0].start < (since := _known_since(job, upto, state, worker.source)):
        known = "here not yet" if since == ALWAYS.end else f"here since {format_utc(since)}"
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


BREATH_SECONDS = 0.05
"""Between two pieces others have the job, and the database."""
WORD_SECONDS = 5.0
"""So often whoever asked hears something, also where a rate makes it wait."""
RESUME_SECONDS = 3600
"""An earlier attempt is gone on with for so long: what it did may be of no worth later."""


def plan(context: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Find the whole slots of a job's `spans`.

    Raises:
        ShipperError: none of it can be counted again; StateBusy, SourceUnavailable: not now.
    """
    name = arguments["job"]
    with context.locked(name) as worker:
        stands = inspect_job(context, worker)
        asked = [Span(*one) for one in arguments["spans"]]
        spans = align_spans(context, stands, asked)
        is_timed = worker.job.query.time is not None
        low = low_of(context.pipeline.state, worker, spans) if is_timed else 0
        digest = definition_digest(worker.job)
    cleared = arguments.get("cleared", [])
    resumes_at = None if cleared else _resumes_at(context, name, spans, digest)
    facts = {
        "job": name,
        "asked": _pairs(asked),
        "spans": _pairs(spans),
        "ids": stands.progress.captured - low if is_timed else None,
        "resumes_at": resumes_at,
    }
    rest = {"rate": arguments.get("rate"), "cleared": cleared, "resumes_at": resumes_at}
    return Plan(facts, {"job": name, "spans": facts["spans"]} | rest)


def run(context: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Count spans again that were planned, from where an earlier attempt came to; `rate` datapoints a second at most.

    cleared are slots, steps and paths of which Graphite is known to hold something.

    Raises:
        ShipperError: what ends it early; what is done stays done, and the same spans go on with the rest.
    """
    name, spans = arguments["job"], [Span(*one) for one in arguments["spans"]]
    cleared = [Key(path, slot, step) for slot, step, path in arguments["cleared"]]
    logger().info("backfill.started", job=name, start=spans[0].start, end=spans[-1].end, spans=len(spans))
    began, work = time.monotonic(), Work(context, name, spans, arguments["rate"] or math.inf, cleared)
    work.do(arguments["resumes_at"])
    for span in reversed(spans):
        context.pipeline.state.include(name, span)
    context.pipeline.state.remember(_note(name), None)
    done = {"rows": work.rows, "datapoints": work.datapoints, "seconds": round(time.monotonic() - began, 3)}
    logger().info("backfill.finished", job=name, **done)
    return {"job": name} | done


class Work:
    """A backfill under way: which chunks of ids hold its times, and what is counted so far."""

    def __init__(
        self, context: OperationContext, name: str, spans: Sequence[Span], rate: float, cleared: Sequence[Key]
    ) -> None:
        self.rows = 0
        self.datapoints = 0
        self._context, self._state = context, context.pipeline.state
        self._name, self._spans, self._rate, self._cleared = name, spans, rate, cleared
        self._digest = ""
        self._chunks: list[Chunk] = []
        self._looked_upto = 0
        self._late_rows = -1

    def do(self, resumes_at: int | None) -> None:
        """Count all that is not counted yet, with breaths in between."""
        with self._context.locked(self._name) as worker:
            progress = inspect_job(self._context, worker).progress
            self._digest = definition_digest(worker.job)
        self._look(worker, progress)
        todo = [piece for span in self._spans for piece in pieces(span, worker.unit) if piece.end > (resumes_at or 0)]
        for number, piece in enumerate(todo, start=1):
            began, before = time.monotonic(), self.datapoints
            with self._context.locked(self._name) as worker:
                self._count(worker, piece)
            self._keep_note(piece.end)
            self._rest(began + (self.datapoints - before) / self._rate, number / len(todo))

    def _look(self, worker: Worker, progress: Progress) -> list[Chunk]:
        """See between which times the rows of each chunk are, up to captured; what cannot change is looked at once."""
        job, late_rows = worker.job, self._state.late_rows(worker.job.name)
        if job.query.time is None:
            return []
        if late_rows != self._late_rows:
            self._chunks.clear()
            self._looked_upto, self._late_rows = low_of(self._state, worker, self._spans), late_rows
        stays_upto = progress.captured if job.lookback is None else min(progress.captured, progress.low)
        self._chunks += self._looked(worker, self._looked_upto, stays_upto)
        self._looked_upto = max(self._looked_upto, stays_upto)
        return [*self._chunks, *self._looked(worker, self._looked_upto, progress.captured)]

    def _looked(self, worker: Worker, after: int, upto: int) -> list[Chunk]:
        found = []
        for chunk in chunks(worker.job, after, upto, source=worker.source):
            if chunk is not None:
                found.append(chunk)
                self._context.report({"looked": chunk.window.upto - after, "of": upto - after})
            self._context.pause(0)
        return found

    def _count(self, worker: Worker, piece: Span) -> None:
        """Count a piece again, of all ids that are captured by now."""
        stands, job = inspect_job(self._context, worker), worker.job
        is_other = definition_digest(job) != self._digest or stands.progress.captured < self._looked_upto
        if is_other or align_spans(self._context, stands, [piece]) != [piece]:
            raise StateBusy(
                f"backfill {job.name}: the job, its table or what can be counted is another by now",
                hint="Give the command again.",
            )
        context = Context(job, worker.source, self._state, stands.moment)
        windows = windows_in(self._look(worker, stands.progress), piece)
        for step in backfill(context, piece, windows, stands.horizon, stands.progress, cleared=self._cleared):
            self._context.pause(0)
            if step is not None:
                self.rows += step.rows
                self.datapoints += step.tally.totals
                log_steps(job, [step], seconds=0.0)

    def _rest(self, due: float, done: float) -> None:
        """Say how far it is, and wait until the next piece is due."""
        due = max(due, time.monotonic() + BREATH_SECONDS)
        while True:
            self._context.report({"done": done, "rows": self.rows, "datapoints": self.datapoints})
            self._context.pause(max(0.0, min(due - time.monotonic(), WORD_SECONDS)))
            if time.monotonic() >= due:
                return

    def _keep_note(self, done_until: int) -> None:
        note = {"spans": _pairs(self._spans), "digest": self._digest, "done_until": done_until, "at": int(time.time())}
        self._state.remember(_note(self._name), json.dumps(note))


def _resumes_at(context: OperationContext, name: str, spans: Sequence[Span], digest: str) -> int | None:
    """Return up to which time an attempt at these spans came that was ended a moment ago."""
    noted = json.loads(context.pipeline.state.recall(_note(name)) or "{}")
    is_same = (noted.get("spans"), noted.get("digest")) == (_pairs(spans), digest)
    return noted["done_until"] if is_same and time.time() - noted["at"] < RESUME_SECONDS else None


def _pairs(spans: Sequence[Span]) -> list[list[int]]:
    return [[one.start, one.end] for one in spans]


def _note(name: str) -> str:
    return f"backfill {name}"
