"""Comparison of jobs with Graphite: the state says what was counted, the source and Graphite are read; nothing else.

A running service may just be delivering a row that differs, so differences are compared again, and then without the
rows that have appeared since the last look at them.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial

from shipper.config.load import Config
from shipper.core.errors import ConfigError
from shipper.core.ledger import JobSnapshot
from shipper.core.model import Job, Span, definition_digest
from shipper.core.repair.reset import check_identity
from shipper.core.verify.reconcile import DAY_SECONDS, MOST_CELLS, Comparison, Graphite, compare_job, requested_span
from shipper.runtime.endpoints import open_reader, open_source, readable_state, required_readback
from shipper.source.database import Source
from shipper.state.lock import holder
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


@dataclass(frozen=True, slots=True)
class Comparer:
    """A job with its source, its state and Graphite."""

    job: Job
    source: Source
    graphite: Graphite
    state: Callable[[], AbstractContextManager[str]]
    """Yields the path of the state, to read as it is then."""
    _: KW_ONLY
    is_recounted: bool = False
    """Whether the span was just recounted: slots before the job's first are complete."""
    length: int = DAY_SECONDS
    """Length of the span that is compared without a start, in seconds."""
    cells: int = MOST_CELLS
    """Maximum number of cells counted at once."""
    wait: Callable[[float], None] = time.sleep

    def compare(self, start: int | None, end: int | None, *, times: int = COMPARISONS) -> Reconciled:
        """Compare the present rows and values, and differences again, several times: they may be on their way."""
        result, snapshot = self._once(start, end)
        captured = snapshot.offsets.captured if snapshot else 0
        for _ in range(1, times):
            before = result.comparison
            if not before.differences:
                break
            self.wait(PAUSE_SECONDS)
            again, snapshot = self._once(before.spans[0].start, before.spans[-1].end, knows_ids=True)
            equal = before.equal + len(before.differences) - len(again.comparison.differences)
            found = again.comparison
            again.comparison = replace(before, equal=equal, late_rows=found.late_rows, differences=found.differences)
            result = again
        if snapshot is not None:
            result.undelivered = max(0, captured - snapshot.offsets.watermark)
        return result

    def _once(
        self, start: int | None, end: int | None, *, knows_ids: bool = False
    ) -> tuple[Reconciled, JobSnapshot | None]:
        # read the state, first for the position, then for the span
        job, now = self.job, int(time.time())
        with self.state() as state:
            snapshot = read_snapshot(state, job.name, Span(now, now))
            span = requested_span(job, snapshot and snapshot.progress, start, end, length=self.length)
            snapshot = snapshot and read_snapshot(state, job.name, span, knows_ids=knows_ids)
        if snapshot is None:
            slots = (span.end - span.start) // job.archives[0].step
            return Reconciled(job.name, Comparison([], +Counter(not_whole=slots), requested=slots), False), None
        # compare
        _check(job, snapshot)
        if self.is_recounted:
            since = min(snapshot.progress.since, span.start)
            snapshot = snapshot._replace(progress=snapshot.progress._replace(since=since))
        job = replace(job, query=self.source.prepared(job.query))
        comparison = compare_job(
            job,
            snapshot,
            span.start,
            span.end,
            source=self.source,
            graphite=self.graphite,
            now=now,
            cells=self.cells,
        )
        return Reconciled(job.name, comparison), snapshot


def _check(job: Job, snapshot: JobSnapshot) -> None:
    """Raise if the job was counted with another definition."""
    check_identity(job, snapshot.offsets)
    if snapshot.progress.definition_digest != definition_digest(job):
        raise ConfigError(
            f"reconcile job {job.name}: it has not counted rows since its configuration was changed",
            hint="Run `shipper admin reload` (and `shipper resume`, if it is paused) and wait for its next tick; or "
            "`shipper once` where no service runs.",
        )


def reconcile(
    config: Config, names: Iterable[str], start: int | None, end: int | None, *, is_recounted: bool = False
) -> Iterator[Reconciled]:
    """Compare jobs, or all of them, in a span of time, whether the service runs or not; defaults as `requested_span`.

    While a service runs, differences may be on their way, and are compared again. If the span was just recounted, they
    may be, too, and its slots are complete, even before the job's first complete slot.

    Raises:
        ConfigError: there is no such job, or no render_url; or a job has captured nothing with its present definition.
    """
    readback = required_readback(config, "reconcile")
    may_change = is_recounted or _may_change(config)
    for job in [job for name in names for job in config.named(name)] or list(config.jobs.values()):
        with closing(open_source(config, job.source)) as source:
            comparer = Comparer(job, source, readback, partial(readable_state, config), is_recounted=is_recounted)
            yield comparer.compare(start, end, times=COMPARISONS if may_change else 1)


def _may_change(config: Config) -> bool:
    """Whether a process works with the state; with one in a database, on any machine."""
    database = open_reader(config)
    if database is None:
        return holder(config.state.path) is not None
    leadership = database.leadership()
    return leadership is not None and leadership.leader is not None
