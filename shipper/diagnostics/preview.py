"""What a job would do now: its next chunk is captured into a copy of the state, which nobody delivers from."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from shipper.config.load import Config
from shipper.config.sections import SourceSection
from shipper.core.capture import capture
from shipper.core.errors import TransientError
from shipper.core.model import ALWAYS, Group, Ids, Job, Observation, Query, Row, Span, Window
from shipper.core.paths import is_safe
from shipper.core.repair.reset import check_identity
from shipper.core.rows.table import CaptureStep, Event
from shipper.graphite.line_protocol import line
from shipper.runtime.clocks import Clocks
from shipper.source.inspection import Examination
from shipper.source.dialects.dialect import Plan
from shipper.state.snapshot import Change, ScratchState, scratch_state


class DatapointLine(NamedTuple):
    """A line as Carbon would get it, and the slot in it."""

    line: str
    slot: int


class Sanitized(NamedTuple):
    """A path that does not show its group's values as they are; of several measures the first."""

    path: str
    values: Group


class Preview(NamedTuple):
    """What one chunk of a job would come to."""

    job: str
    source: str
    window: Window | None
    """None where no id is new."""
    horizon: int
    """The largest id: what is beyond the window is left for the next chunks, or waits for a row in flight."""
    rows: int
    noticed: list[Event]
    """What the log would tell."""
    sql: str
    plan: Plan
    datapoints: list[DatapointLine]
    sanitized: list[Sanitized]
    deferred: int
    """Totals that wait until their archive may receive them."""
    rejected: dict[str, int]
    watermark: int
    """What would be stored once all is delivered."""

    def document(self, limit: int | None) -> dict[str, Any]:
        """Return it as JSON holds it, with so many lines."""
        window = self.window and {"after": self.window.after, "upto": self.window.upto}
        return {
            **self._asdict(),
            "window": window,
            "noticed": [{"event": event, **details} for event, details, _ in self.noticed],
            "plan": self.plan._asdict(),
            "datapoints": len(self.datapoints),
            "lines": [one.line for one in self.datapoints[:limit]],
            "sanitized": [one._asdict() for one in self.sanitized],
        }


class _Watched(Examination):
    """Remembers what it was asked to count last."""

    asked: tuple[Query, Window, Span] | None = None

    def read(self, query: Query, rows: Window | Ids, span: Span = ALWAYS) -> list[Row]:
        """Count rows."""
        if isinstance(rows, Window) and query != query.bare:
            self.asked = query, rows, span
        return super().read(query, rows, span)


def preview(config: Config, job: Job) -> Preview:
    """Capture the next chunk of a job, up to now, without anybody else seeing it.

    Raises:
        ShipperError: the job would fail so.
    """
    section = config.sources[job.source]
    with (
        closing(_Watched(job.source, config.access(job.source))) as source,
        scratch_state(str(config.state.path)) as state,
    ):
        noticed: list[Event] = []
        if before := state.housekeeping.rename(job, config.jobs):
            noticed.append(Event("job.renamed", {"before": before}, "info"))
        check_identity(job, state.offsets(job.name))
        job = replace(job, query=source.prepared(job.query))
        horizon, is_trusted = _observed(job, source, section, noticed)
        capturing = capture(
            job,
            horizon,
            source=source,
            ledger=state,
            now=int(time.time()),
            is_trusted=is_trusted,
        )
        with closing(capturing):
            found = [*noticed, *_first_chunk(capturing)]
        return _told(job, source, state, horizon.id, found)


def _observed(job: Job, source: Examination, section: SourceSection, noticed: list[Event]) -> tuple[Observation, bool]:
    """Observe as a tick does, and say whether the clocks agree."""
    clocks, lag = Clocks(), source.lag()
    observation = source.observe(job.query)
    try:
        clocks.observed(job.source, observation.time, max_skew=section.max_skew)
    except TransientError as error:
        noticed.append(Event("clock.failed", {"error": str(error)}, "warning"))
    return replace(observation, time=observation.time - math.ceil(lag)), clocks.agrees(job.source)


def _first_chunk(capturing: Iterable[CaptureStep | Event | None]) -> Iterator[CaptureStep | Event]:
    """Let it go on until it has a window of new rows."""
    for found in capturing:
        if found is not None:
            yield found
        if isinstance(found, CaptureStep) and found.window is not None:
            return


def _told(
    job: Job, source: _Watched, state: ScratchState, horizon: int, found: Sequence[CaptureStep | Event]
) -> Preview:
    steps = [one for one in found if isinstance(one, CaptureStep)]
    changes, rejected = state.changes(job.name), Counter[str]()
    for reason, rows in (pair for step in steps for pair in step.tally.rejected.items()):
        rejected[reason.reason.value] += rows
    query, window, span = source.asked or (job.query, Window(max(horizon - 1, 0), max(horizon, 1)), ALWAYS)
    position = state.offsets(job.name)
    paths = {one.group: one.path for one in reversed(changes) if not is_safe(one.group)}
    return Preview(
        job=job.name,
        source=str(source),
        window=next((step.window for step in steps if step.window), None),
        horizon=horizon,
        rows=sum(step.rows for step in steps),
        noticed=[one for one in found if isinstance(one, Event)],
        sql=source.sql(query, window, span),
        plan=source.plan(query, window),
        datapoints=[_datapoint(one) for one in changes if not one.is_deferred],
        sanitized=[Sanitized(path, group) for group, path in paths.items()],
        deferred=sum(one.is_deferred for one in changes),
        rejected=dict(+rejected),
        watermark=position.captured if position else 0,
    )


def _datapoint(change: Change) -> DatapointLine:
    return DatapointLine(line(change.path, change.value, change.slot).decode().rstrip(), change.slot)
