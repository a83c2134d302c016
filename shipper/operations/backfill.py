"""Shell. Operation backfill: spans of time are counted again, piece by piece, while captures go on in between."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shipper.backfill import Limits, backfill, pieces, widened
from shipper.capture_log import tell_steps
from shipper.errors import ShipperError, StateBusy
from shipper.fold import shown
from shipper.journal import logger
from shipper.model import ALWAYS, Job, Progress, Span, Window
from shipper.operations.doing import Doing, Plan, Standpoint, standpoint, written
from shipper.search import Chunk, chunks, windows_in
from shipper.shape import shape_of
from shipper.worker import Worker

BREATH_SECONDS = 0.05
"""Between two pieces others have the job, and the database."""
EVER_SECONDS = 2**33
LATE_SECONDS = 3600
"""A row is not looked for below the ids of slots that are so much older than its own, where the state knows these."""


def plan(doing: Doing, arguments: Mapping[str, Any]) -> Plan:
    """Find the whole slots of a job's `spans`, or of the time since so many seconds `back` before it is complete.

    Raises:
        ShipperError: none of it can be counted again; StateBusy, SourceUnavailable: not now.
    """
    name = arguments["job"]
    with doing.locked(name) as worker:
        stands = standpoint(doing, worker)
        complete_until = stands.progress.complete_until
        asked = [Span(*one) for one in arguments.get("spans", ())]
        if "back" in arguments:
            asked = [Span(complete_until - arguments["back"], complete_until)]
        spans = _widened(doing, stands, asked)
        low = _low(doing, worker, spans)
        is_timed = worker.job.query.time is not None
    facts = {
        "job": name,
        "asked": _pairs(asked),
        "spans": _pairs(spans),
        "ids": stands.progress.captured - low if is_timed else None,
        "resumes_at": _resumes_at(doing, name, spans),
    }
    rest = {"rate": arguments.get("rate"), "is_fix": arguments.get("is_fix", False)}
    return Plan(facts, {"job": name, "spans": facts["spans"]} | rest)


def carry_out(doing: Doing, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Count spans again that were planned, from where an earlier attempt came to; `rate` datapoints a second at most.

    If it `is_fix`, zeros take the place of bars that no row is for, also of a job that has no zeros else.

    Raises:
        ShipperError: what ends it early; what is done stays done, and the same spans go on with the rest.
    """
    name, spans = arguments["job"], [Span(*one) for one in arguments["spans"]]
    logger().info("backfill.started", job=name, start=spans[0].start, end=spans[-1].end, spans=len(spans))
    began = time.monotonic()
    work = Work(doing, name, spans, rate=arguments["rate"] or math.inf, is_fix=arguments["is_fix"])
    work.do(_resumes_at(doing, name, spans))
    for span in reversed(spans):
        doing.pipeline.state.include(name, span)
    doing.pipeline.state.remember(_note(name), None)
    done = {"rows": work.rows, "datapoints": work.datapoints, "seconds": round(time.monotonic() - began, 3)}
    logger().info("backfill.finished", job=name, **done)
    return {"job": name} | done


class Work:
    """A backfill under way: which chunks of ids hold its times, and what is counted so far."""

    def __init__(self, doing: Doing, name: str, spans: Sequence[Span], *, rate: float, is_fix: bool) -> None:
        self.rows = 0
        self.datapoints = 0
        self._doing = doing
        self._name, self._spans, self._rate, self._is_fix = name, spans, rate, is_fix
        self._chunks: list[Chunk] = []
        self._looked_upto = 0
        self._shape = ""

    def do(self, resumes_at: int | None) -> None:
        """Count all that is not counted yet, with breaths in between."""
        with self._doing.locked(self._name) as worker:
            captured = standpoint(self._doing, worker).progress.captured
            self._looked_upto = _low(self._doing, worker, self._spans)
            self._shape = shape_of(worker.job)
        self._look(worker, captured)
        todo = [piece for span in self._spans for piece in pieces(span, worker.unit) if piece.end > (resumes_at or 0)]
        for done, piece in enumerate(todo, start=1):
            began, before = time.monotonic(), self.datapoints
            with self._doing.locked(self._name) as worker:
                self._count(worker, piece)
            self._note(piece.end)
            self._doing.tell({"done": done / len(todo), "rows": self.rows, "datapoints": self.datapoints})
            due = began + (self.datapoints - before) / self._rate
            self._doing.pause(max(BREATH_SECONDS, due - time.monotonic()))

    def _look(self, worker: Worker, captured: int) -> None:
        """See between which times the rows of each chunk are, up to captured."""
        job, after = worker.job, self._looked_upto
        if job.query.time is None:
            return
        for chunk in chunks(job, after, captured, source=worker.source):
            if chunk is not None:
                self._chunks.append(chunk)
                self._doing.tell({"looked": chunk.window.upto - after, "of": captured - after})
            self._doing.pause(0)
        self._looked_upto = max(after, captured)

    def _count(self, worker: Worker, piece: Span) -> None:
        """Count a piece again, of all ids that are captured by now."""
        stands, job = standpoint(self._doing, worker), worker.job
        if shape_of(job) != self._shape or stands.progress.captured < self._looked_upto:
            raise StateBusy(
                f"backfill {job.name}: the job, or its table, is another one now", hint="Give the command again."
            )
        self._look(worker, stands.progress.captured)
        if self._is_fix and job.zeros is None:
            job = replace(job, zeros=EVER_SECONDS)
        for step in backfill(
            job,
            piece,
            windows_in(self._chunks, piece),
            stands.horizon,
            stands.progress,
            source=worker.source,
            ledger=self._doing.pipeline.state,
            moment=stands.moment,
        ):
            self._doing.pause(0)
            if step is not None:
                self.rows += step.rows
                self.datapoints += step.tally.totals
                tell_steps(job, [step], seconds=0.0)

    def _note(self, done_until: int) -> None:
        note = json.dumps({"spans": _pairs(self._spans), "done_until": done_until})
        self._doing.pipeline.state.remember(_note(self._name), note)


def _widened(doing: Doing, stands: Standpoint, asked: Sequence[Span]) -> list[Span]:
    """Return the spans to be counted, those that adjoin as one.

    Raises:
        ShipperError: there are none; or ids of a time are not known any more.
    """
    worker, progress, horizon, moment = stands
    job = worker.job
    if not moment.is_trusted:
        raise StateBusy(f"backfill {job.name}: clocks differ", hint="Where slots belong depends on them.")
    pruned = doing.pipeline.state.pruned(job.name)
    shows = shown(job, now=moment.now, source_time=horizon.time)
    limits = Limits(shows, pruned, worker.unit, _oldest(worker, progress))
    found = [widened(job, span, limits, now=moment.now) for span in asked]
    spans: list[Span] = []
    for span in sorted((one for one in found if one is not None), key=lambda one: one.start):
        begins = spans.pop() if spans and span.start <= spans[-1].end else span
        spans.append(Span(begins.start, max(begins.end, span.end)))
    if not spans:
        raise ShipperError(
            f"backfill {job.name}: nothing of that time can be counted again",
            hint="It is in the future, or older than what Graphite keeps, or than the rows that the table holds.",
        )
    if job.query.time is None:
        _check_slots(doing, job, spans, pruned)
    return spans


def _check_slots(doing: Doing, job: Job, spans: Sequence[Span], pruned: Sequence[Span]) -> None:
    """Refuse what was pruned of a job without a time column, and what was before its first slot."""
    oldest = doing.pipeline.state.lowest(job.name, ALWAYS)
    since = max([oldest[0], *(one.end for one in pruned)]) if oldest else ALWAYS.end
    if spans[0].start < since:
        known = f"here since {written(since)}" if oldest else "and here not yet"
        raise ShipperError(
            f"backfill {job.name}: which rows belong to that time is not known",
            hint=f"Of a job without `time` it is known for as long as [state] keep says, {known}.",
        )


def _oldest(worker: Worker, progress: Progress) -> int | None:
    """Return the time of the table's oldest row, None where none can have been purged before it."""
    source, query = worker.source, worker.job.query
    first = source.first_id(query, 0, max(progress.captured, 1))
    if query.time is None or first <= 1:
        return None
    times = source.times(query, Window(first - 1, first))
    return None if times is None else times.end - 1


def _low(doing: Doing, worker: Worker, spans: Sequence[Span]) -> int:
    """Return an id above which the rows of all spans are."""
    state, job = doing.pipeline.state, worker.job
    if job.query.time is None:
        return 0
    late = LATE_SECONDS if job.revisit is None else job.max_age
    since = Span(spans[0].start - late, ALWAYS.end)
    is_pruned = any(one.end > since.start for one in state.pruned(job.name))
    known = state.lowest(job.name, since)
    return known[1] if known and known[0] <= spans[0].start and not is_pruned else 0


def _resumes_at(doing: Doing, name: str, spans: Sequence[Span]) -> int | None:
    """Return up to which time an earlier attempt at these spans has come."""
    noted = json.loads(doing.pipeline.state.recall(_note(name)) or "{}")
    return noted["done_until"] if noted.get("spans") == _pairs(spans) else None


def _pairs(spans: Sequence[Span]) -> list[list[int]]:
    return [[one.start, one.end] for one in spans]


def _note(name: str) -> str:
    return f"backfill {name}"
