"""`shipper preview`: captures the next chunk of a job into a scratch copy of the state, which is never delivered."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from shipper.config.keys import SourceSection
from shipper.config.load import Config
from shipper.core.capture import capture
from shipper.core.errors import TransientError
from shipper.core.model import ALWAYS, Group, Ids, Job, Now, Observation, Query, Row, Span, Window
from shipper.core.paths import is_safe
from shipper.core.repair.indivisible import recount_lacking
from shipper.core.repair.reset import check_identity
from shipper.core.rows.table import CaptureStep, Context, Event
from shipper.graphite.line_protocol import line
from shipper.runtime.clocks import Clocks
from shipper.runtime.endpoints import readable_state
from shipper.source.dialects.dialect import Plan
from shipper.source.inspection import Examination
from shipper.state.copies import Change, ScratchState, scratch_state


class DatapointLine(NamedTuple):
    """A line of Carbon's protocol, and its slot."""

    line: str
    slot: int


class Sanitized(NamedTuple):
    """A path that differs from its group's values; of several measures the first."""

    path: str
    values: Group


class Preview(NamedTuple):
    """The result of one chunk of a job."""

    job: str
    source: str
    window: Window | None
    """None if there are no new ids."""
    horizon: int
    """The largest id: ids beyond the window are left for the next chunks."""
    rows: int
    events: list[Event]
    """Events that the log would have."""
    sql: str
    plan: Plan
    datapoints: list[DatapointLine]
    sanitized: list[Sanitized]
    deferred: int
    """Number of totals that wait until their archive takes them."""
    rejected: dict[str, int]
    watermark: int
    """The watermark after the delivery."""
    is_along: bool
    """Whether it reads along a time: seconds take the place of ids."""

    def document(self, limit: int | None) -> dict[str, Any]:
        """Return JSON values, with at most `limit` lines."""
        window = self.window and {"after": self.window.after, "upto": self.window.upto}
        return {
            **self._asdict(),
            "window": window,
            "events": [{"event": event, **details} for event, details, _ in self.events],
            "plan": self.plan._asdict(),
            "datapoints": len(self.datapoints),
            "lines": [one.line for one in self.datapoints[:limit]],
            "sanitized": [one._asdict() for one in self.sanitized],
        }


class _Recorder(Examination):
    """A source that keeps its last query."""

    last: tuple[Query, Window, Span] | None = None

    def read(self, query: Query, rows: Window | Ids, span: Span = ALWAYS) -> list[Row]:
        """Count rows."""
        if isinstance(rows, Window) and query != query.bare:
            self.last = query, rows, span
        return super().read(query, rows, span)


def preview(config: Config, job: Job) -> Preview:
    """Capture the next chunk of a job into a scratch copy of the state.

    Raises:
        ShipperError: the job would fail with the same error.
    """
    section = config.sources[job.source]
    with (
        closing(_Recorder(job.source, config.access(job.source))) as source,
        readable_state(config) as path,
        scratch_state(path) as state,
    ):
        # prepare as a worker does
        events: list[Event] = []
        if before := state.housekeeping.rename(job, config.jobs):
            events.append(Event("job.renamed", {"before": before}, "info"))
        check_identity(job, state.offsets(job.name))
        job = replace(job, query=source.prepared(job.query))
        horizon, is_trusted = _observe(job, source, section, events)
        capturing = capture(
            job,
            horizon,
            source=source,
            ledger=state,
            now=int(time.time()),
            is_trusted=is_trusted,
        )
        with closing(capturing):
            steps = [*events, *_first_chunk(capturing)]
        if (progress := state.progress(job.name)) is not None:
            context = Context(job, source, state, Now(int(time.time()), is_trusted))
            steps += [step for step in recount_lacking(context, progress) if step is not None]
        return _preview(job, source, state, horizon.id, steps)


def _observe(job: Job, source: Examination, section: SourceSection, events: list[Event]) -> tuple[Observation, bool]:
    """Observe as a tick does; return whether the clocks agree, too."""
    clocks, lag = Clocks(), source.lag()
    observation = source.observe(job.query)
    try:
        clocks.observed(job.source, observation.time, max_skew=section.max_skew)
    except TransientError as error:
        events.append(Event("clock.failed", {"error": str(error)}, "warning"))
    return replace(observation, time=observation.time - math.ceil(lag)), clocks.agrees(job.source)


def _first_chunk(capturing: Iterable[CaptureStep | Event | None]) -> Iterator[CaptureStep | Event]:
    """Yield the steps of a capture up to the first with a window of new rows."""
    for step in capturing:
        if step is not None:
            yield step
        if isinstance(step, CaptureStep) and step.window is not None:
            return


def _preview(
    job: Job, source: _Recorder, state: ScratchState, horizon: int, captured: Sequence[CaptureStep | Event]
) -> Preview:
    steps = [step for step in captured if isinstance(step, CaptureStep)]
    changes, rejected = state.changes(job.name), Counter[str]()
    for reason, rows in (pair for step in steps for pair in step.tally.rejected.items()):
        rejected[reason.reason.value] += rows
    query, window, span = source.last or (job.query, Window(max(horizon - 1, 0), max(horizon, 1)), ALWAYS)
    offsets = state.offsets(job.name)
    paths = {change.group: change.path for change in reversed(changes) if not is_safe(change.group)}
    return Preview(
        job=job.name,
        source=str(source),
        window=next((step.window for step in steps if step.window), None),
        horizon=horizon,
        rows=sum(step.rows for step in steps),
        events=[event for event in captured if isinstance(event, Event)],
        sql=source.sql(query, window, span),
        plan=source.plan(query, window),
        datapoints=[_datapoint(change) for change in changes if not change.is_deferred],
        sanitized=[Sanitized(path, group) for group, path in paths.items()],
        deferred=sum(change.is_deferred for change in changes),
        rejected=dict(+rejected),
        watermark=offsets.captured if offsets else 0,
        is_along=job.query.is_along,
    )


def _datapoint(change: Change) -> DatapointLine:
    return DatapointLine(line(change.path, change.value, change.slot).decode().rstrip(), change.slot)
