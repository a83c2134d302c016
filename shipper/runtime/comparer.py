"""Comparison of a job with Graphite: the state says what was counted, the source and Graphite are read.

A running service may just be delivering a row that differs, so differences are compared again, and then without the
rows that have appeared since the last look at them.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NamedTuple

from shipper.core.errors import ConfigError
from shipper.core.ledger import JobSnapshot
from shipper.core.model import Job, Span, definition_digest
from shipper.core.repair.reset import check_identity
from shipper.core.verify.reconcile import DAY_SECONDS, MOST_CELLS, Comparison, Graphite, compare_job, requested_span
from shipper.source.database import Source
from shipper.state.queries import read_snapshot

COMPARISONS = 3
PAUSE_SECONDS = 2.0  # most captured rows are delivered in this time


@dataclass(slots=True)
class Reconciled:
    """The comparison of one job."""

    job: str
    comparison: Comparison
    has_begun: bool = True
    undelivered: int = 0
    """Number of ids that were captured at the first comparison, and not delivered at the last one."""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Return the spans that differ, adjoining slots as one."""
        return [(one.start, one.end) for one in self.comparison.spans]

    @property
    def strays(self) -> list[tuple[int, int, str]]:
        """Return slots, steps and paths with a value in Graphite, but without rows in the source."""
        return [(one.slot, one.step, one.path) for one in self.comparison.differences if not one.source]


class Limits(NamedTuple):
    """Limits of a comparison."""

    length: int = DAY_SECONDS
    """Length of the span that is compared if no start is given, in seconds."""
    cells: int = MOST_CELLS
    """Maximum number of cells counted at once."""


class Comparer:
    """A job with its source, its state and Graphite."""

    def __init__(
        self,
        job: Job,
        source: Source,
        graphite: Graphite,
        state: Callable[[], AbstractContextManager[str]],
        *,
        is_recounted: bool = False,
        limits: Limits = Limits(),  # noqa: B008 - a constant
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take what yields the path of the state, to read as it is then.

        If the span was just recounted, slots before the job's first are complete.
        """
        self._job = job
        self._source = source
        self._graphite = graphite
        self._state = state
        self._is_recounted = is_recounted
        self._limits = limits
        self._wait = wait

    def compare(self, start: int | None, end: int | None, *, times: int = COMPARISONS) -> Reconciled:
        """Compare the present rows and values, and differences again, several times: they may be on their way."""
        result, snapshot = self._once(start, end)
        captured = snapshot.offsets.captured if snapshot else 0
        for _ in range(1, times):
            before = result.comparison
            if not before.differences:
                break
            self._wait(PAUSE_SECONDS)
            again, snapshot = self._once(before.spans[0].start, before.spans[-1].end, knows_ids=True)
            equal = before.equal + len(before.differences) - len(again.comparison.differences)
            again.comparison = replace(before, equal=equal, differences=again.comparison.differences)
            result = again
        if snapshot is not None:
            result.undelivered = max(0, captured - snapshot.offsets.watermark)
        return result

    def _once(
        self, start: int | None, end: int | None, *, knows_ids: bool = False
    ) -> tuple[Reconciled, JobSnapshot | None]:
        # read the state, first for the position, then for the span
        job, now = self._job, int(time.time())
        with self._state() as state:
            snapshot = read_snapshot(state, job.name, Span(now, now))
            span = requested_span(job, snapshot and snapshot.progress, start, end, length=self._limits.length)
            snapshot = snapshot and read_snapshot(state, job.name, span, knows_ids=knows_ids)
        if snapshot is None:
            slots = (span.end - span.start) // job.archives[0].step
            return Reconciled(job.name, Comparison([], +Counter(not_whole=slots), requested=slots), False), None
        # compare
        _check(job, snapshot)
        if self._is_recounted:
            since = min(snapshot.progress.since, span.start)
            snapshot = snapshot._replace(progress=snapshot.progress._replace(since=since))
        job = replace(job, query=self._source.prepared(job.query))
        comparison = compare_job(
            job,
            snapshot,
            span.start,
            span.end,
            source=self._source,
            graphite=self._graphite,
            now=now,
            cells=self._limits.cells,
        )
        return Reconciled(job.name, comparison), snapshot


def _check(job: Job, snapshot: JobSnapshot) -> None:
    """Raise if the job was counted with another definition."""
    check_identity(job, snapshot.offsets)
    if snapshot.progress.definition_digest != definition_digest(job):
        raise ConfigError(
            f"reconcile job {job.name}: it has not counted rows since its configuration was changed",
            hint="Run `shipper admin reload` and wait for its next tick, or `shipper once` where no service runs.",
        )
