"""`shipper reconcile`: what each source holds beside what Graphite holds, however the service does.

It only reads. Beside a service that runs, what differs may be a row that is just on its way: it is looked at again.
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
from shipper.runtime.endpoints import open_readback, open_source
from shipper.source.database import Source
from shipper.state.database import holder
from shipper.state.queries import read_snapshot

LOOKS = 3
PAUSE_SECONDS = 2.0  # what was captured is delivered by then, mostly


@dataclass(slots=True)
class Reconciled:
    """One job, compared."""

    job: str
    comparison: Comparison
    has_begun: bool = True
    undelivered: int = 0
    """How many ids are captured, but not delivered."""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Return when it differs, adjoining slots as one."""
        return [(one.start, one.end) for one in self.comparison.spans]

    @property
    def strays(self) -> list[tuple[int, int, str]]:
        """Return slots, steps and paths that Graphite has something for, and the source nothing."""
        return [(one.slot, one.step, one.path) for one in self.comparison.differences if not one.source]


def reconcile(
    config: Config, names: Iterable[str], start: int | None, end: int | None, *, waits: bool = False
) -> Iterator[Reconciled]:
    """Compare jobs, or all of them, in a span of time, with the defaults of `requested_span`.

    Beside a service, or if it waits, what differs may be on its way, and is compared again.

    Raises:
        ConfigError: there is no such job, or nobody to ask what Graphite holds; or a job has captured nothing yet
            as it is configured now.
    """
    readback = open_readback(config)
    if readback is None:
        raise ConfigError(
            f"reconcile {config.file}: nobody says what Graphite holds",
            hint='Add graphite-web\'s address to [graphite], as in render_url = "http://graphite.internal".',
        )
    for job in [job for name in names for job in config.named(name)] or list(config.jobs.values()):
        source = open_source(config, job.source)
        try:
            yield _Look(job, source, readback, config.state.path).repeated(start, end, waits=waits)
        finally:
            source.close()


class _Look:
    """One job, and whom to ask about it."""

    def __init__(self, job: Job, source: Source, readback: Readback, state: str) -> None:
        self._job = job
        self._source = source
        self._readback = readback
        self._state = state

    def repeated(self, start: int | None, end: int | None, *, waits: bool) -> Reconciled:
        """Compare, and compare again what differs and may be on its way."""
        found = self.once(start, end)
        for _ in range(1, LOOKS):
            before = found.comparison
            if not before.differences or not (waits or holder(self._state)):
                break
            time.sleep(PAUSE_SECONDS)
            again = self.once(before.spans[0].start, before.spans[-1].end)
            equal = before.equal + len(before.differences) - len(again.comparison.differences)
            again.comparison = replace(before, equal=equal, differences=again.comparison.differences)
            found = again
        return found

    def once(self, start: int | None, end: int | None) -> Reconciled:
        """Compare as things are now."""
        job, now = self._job, int(time.time())
        known = read_snapshot(self._state, job.name, Span(now, now))  # how far it has come
        span = requested_span(job, known and known.progress, start, end)
        known = known and read_snapshot(self._state, job.name, span)
        if known is None:
            slots = (span.end - span.start) // job.archives[0].step
            return Reconciled(job.name, Comparison([], +Counter(not_whole=slots), asked=slots), has_begun=False)
        _check(job, known)
        job = replace(job, query=self._source.prepared(job.query))
        found = compare_job(job, known, span.start, span.end, source=self._source, graphite=self._readback, now=now)
        return Reconciled(job.name, found, undelivered=known.offsets.captured - known.offsets.watermark)


def _check(job: Job, known: JobSnapshot) -> None:
    """Refuse to compare what was counted with another question in mind."""
    check_identity(job, known.offsets)
    if known.progress.definition_digest != definition_digest(job):
        raise ConfigError(
            f"reconcile job {job.name}: it has captured nothing yet as it is configured now",
            hint="Run `shipper admin reload` and wait for its next tick, or `shipper once` where no service runs.",
        )
