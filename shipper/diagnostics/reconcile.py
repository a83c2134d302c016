"""`shipper reconcile`: compares the rows of the sources with the values in Graphite, whether the service runs or not.

It only reads. A running service may just be delivering a row that differs, so differences are compared again.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from shipper.config.load import Config
from shipper.core.errors import ConfigError
from shipper.core.ledger import JobSnapshot
from shipper.core.model import Job, Span, definition_digest
from shipper.core.repair.reset import check_identity
from shipper.core.verify.reconcile import Comparison, compare_job, requested_span
from shipper.graphite.render_api import Readback
from shipper.runtime.endpoints import open_source, required_readback
from shipper.source.database import Source
from shipper.state.database import holder
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
    """Number of captured ids that are not delivered yet."""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Return the spans that differ, adjoining slots as one."""
        return [(one.start, one.end) for one in self.comparison.spans]

    @property
    def strays(self) -> list[tuple[int, int, str]]:
        """Return slots, steps and paths with a value in Graphite, but without rows in the source."""
        return [(one.slot, one.step, one.path) for one in self.comparison.differences if not one.source]


def reconcile(
    config: Config, names: Iterable[str], start: int | None, end: int | None, *, is_recounted: bool = False
) -> Iterator[Reconciled]:
    """Compare jobs, or all of them, in a span of time, with the defaults of `requested_span`.

    While a service runs, differences may be on their way, and are compared again. If the span was just recounted, they
    may be, too, and its slots are complete, even before the job's first complete slot.

    Raises:
        ConfigError: there is no such job, or no render_url; or a job has captured nothing with its present definition.
    """
    readback = required_readback(config, "reconcile")
    for job in [job for name in names for job in config.named(name)] or list(config.jobs.values()):
        source = open_source(config, job.source)
        try:
            comparer = _Comparer(job, source, readback, config.state.path, is_recounted=is_recounted)
            yield comparer.repeated(start, end)
        finally:
            source.close()


class _Comparer:
    """A job with its source, its state and Graphite."""

    def __init__(self, job: Job, source: Source, readback: Readback, state: str, *, is_recounted: bool) -> None:
        self._job = job
        self._source = source
        self._readback = readback
        self._state = state
        self._is_recounted = is_recounted

    def repeated(self, start: int | None, end: int | None) -> Reconciled:
        """Compare, and compare differences again that may be on their way."""
        result = self.once(start, end)
        for _ in range(1, COMPARISONS):
            before = result.comparison
            if not before.differences or not (self._is_recounted or holder(self._state)):
                break
            time.sleep(PAUSE_SECONDS)
            again = self.once(before.spans[0].start, before.spans[-1].end)
            equal = before.equal + len(before.differences) - len(again.comparison.differences)
            again.comparison = replace(before, equal=equal, differences=again.comparison.differences)
            result = again
        return result

    def once(self, start: int | None, end: int | None) -> Reconciled:
        """Compare the present rows and values."""
        # read the state, first for the position, then for the span
        job, now = self._job, int(time.time())
        snapshot = read_snapshot(self._state, job.name, Span(now, now))
        span = requested_span(job, snapshot and snapshot.progress, start, end)
        snapshot = snapshot and read_snapshot(self._state, job.name, span)
        if snapshot is None:
            slots = (span.end - span.start) // job.archives[0].step
            return Reconciled(job.name, Comparison([], +Counter(not_whole=slots), requested=slots), has_begun=False)
        # compare
        _check(job, snapshot)
        if self._is_recounted:
            since = min(snapshot.progress.since, span.start)
            snapshot = snapshot._replace(progress=snapshot.progress._replace(since=since))
        job = replace(job, query=self._source.prepared(job.query))
        comparison = compare_job(
            job, snapshot, span.start, span.end, source=self._source, graphite=self._readback, now=now
        )
        return Reconciled(job.name, comparison, undelivered=snapshot.offsets.captured - snapshot.offsets.watermark)


def _check(job: Job, snapshot: JobSnapshot) -> None:
    """Raise if the job was counted with another definition."""
    check_identity(job, snapshot.offsets)
    if snapshot.progress.definition_digest != definition_digest(job):
        raise ConfigError(
            f"reconcile job {job.name}: nothing captured yet with its present definition",
            hint="Run `shipper admin reload` and wait for its next tick, or `shipper once` where no service runs.",
        )
