"""`shipper preview`: captures the next chunk of a job into a scratch copy of the state, which is never delivered."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from shipper.config.load import Config
from shipper.core.capture import capture
from shipper.core.errors import TransientError
from shipper.core.model import ALWAYS, Group, Ids, Job, Now, Observation, Query, RejectReason, Row, Span, Window
from shipper.core.paths import is_safe
from shipper.core.repair.indivisible import recount_lacking
from shipper.core.repair.reset import check_identity
from shipper.core.rows.table import CaptureStep, Context, Event
from shipper.graphite.carbon import line
from shipper.log.results import rejected_rows
from shipper.runtime.clocks import Clocks
from shipper.runtime.endpoints import readable_state
from shipper.source.dialects.dialect import Plan
from shipper.source.inspection import Examination
from shipper.state.copies import ScratchState, scratch_state


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
    datapoints: list[tuple[str, int]]
    """Lines of Carbon's protocol, and their slots."""
    sanitized: dict[Group, str]
    """Path of each group whose values it does not show; of several measures the first."""
    deferred: int
    """Number of totals that wait until their archive takes them."""
    rejected: dict[RejectReason, int]
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
            "lines": [text for text, _ in self.datapoints[:limit]],
            "sanitized": [{"path": path, "values": group} for group, path in self.sanitized.items()],
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
        horizon, is_trusted = _observe(job, source, config.sources[job.source].max_skew, events)
        capturing = capture(job, horizon, source=source, ledger=state, now=int(time.time()), is_trusted=is_trusted)
        with closing(capturing):
            steps = [*events, *_first_chunk(capturing)]
        if (progress := state.progress(job.name)) is not None:
            context = Context(job, source, state, Now(int(time.time()), is_trusted))
            steps += [step for step in recount_lacking(context, progress) if step is not None]
        return _preview(job, source, state, horizon.id, steps)


def _observe(job: Job, source: Examination, max_skew: int, events: list[Event]) -> tuple[Observation, bool]:
    """Observe as a tick does; return whether the clocks agree, too."""
    clocks, lag = Clocks(), source.lag()
    observation = source.observe(job.query)
    try:
        clocks.observed(job.source, observation.time, max_skew=max_skew)
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
    query, window, span = source.last or (job.query, Window(max(horizon - 1, 0), max(horizon, 1)), ALWAYS)
    changes, offsets = state.changes(job.name), state.offsets(job.name)
    return Preview(
        job=job.name,
        source=str(source),
        window=next((step.window for step in steps if step.window), None),
        horizon=horizon,
        rows=sum(step.rows for step in steps),
        events=[event for event in captured if isinstance(event, Event)],
        sql=source.sql(query, window, span),
        plan=source.plan(query, window),
        datapoints=[
            (line(one.path, one.value, one.slot).decode().rstrip(), one.slot) for one in changes if not one.is_deferred
        ],
        sanitized={one.group: one.path for one in reversed(changes) if not is_safe(one.group)},
        deferred=sum(change.is_deferred for change in changes),
        rejected=rejected_rows(steps),
        watermark=offsets.captured if offsets else 0,
        is_along=job.query.is_along,
    )
