"""Audits: the running service compares its jobs with Graphite, on a schedule or because an operator asks for it.

Strategy: one job follows the other, on one thread, as background work of their sources (source/connections/turns.py).
A comparison that is not possible is repeated for about ten minutes, and then reported as failed: only a comparison
shows that a job is equal.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from shipper.config.load import Config
from shipper.core.errors import ConfigError, PermanentError, ShipperError, SourceReset, StateBusy, TransientError
from shipper.core.model import Job, SeriesData, Span, definition_digest
from shipper.core.retention import oldest_shown
from shipper.core.verify.audit import Audit, Outcome, audit_of
from shipper.core.verify.reconcile import Graphite
from shipper.log.logger import format_utc, logger
from shipper.operations.pause import names_of
from shipper.runtime.comparer import Comparer
from shipper.runtime.endpoints import required_readback
from shipper.runtime.pipeline import Pipeline
from shipper.runtime.worker import Worker
from shipper.status.report import audit_failure

RETRY_SECONDS = (10.0, 60.0, 600.0)  # a restart of a database or of Graphite is shorter
MOST_CELLS = 100_000  # 30 MB, beside the captures

Wait = Callable[[float], None]
"""Function that waits, in seconds; it raises StateBusy if the comparison must end."""


class Auditor:
    """The audits of a running service, one at a time. For several threads."""

    def __init__(
        self, pipeline: Pipeline, *, graphite: Callable[[Config], Graphite] = lambda of: required_readback(of, "audit")
    ) -> None:
        self._pipeline = pipeline
        self._graphite = graphite
        self._stopping = threading.Event()
        self._mutex = threading.Lock()
        self.since: float | None = None
        """When the running audit began, in epoch seconds; None if none runs."""

    def stop(self) -> None:
        """Make a running audit end soon."""
        self._stopping.set()

    def run(self) -> None:
        """Audit all jobs; never raise."""
        try:
            self._run(list(self._pipeline.config.jobs), RETRY_SECONDS)
        except ShipperError as error:
            if not self._stopping.is_set():
                _log_skipped(error)
        except Exception:  # noqa: BLE001 - the scheduler would not report it
            logger().critical("audit.failed", exc_info=True)

    def skip(self) -> None:
        """Log that an audit is due while one still runs."""
        _log_skipped(_still_runs())

    def run_now(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Audit `jobs`, or all, without waiting for what does not answer; return the outcomes, and the jobs left out.

        Raises:
            ConfigError: there is no such job, or no schedule of audits.
            StateBusy: an audit runs already, or the service is shutting down.
        """
        config = self._pipeline.config
        if config.audit.cron is None:
            raise ConfigError(
                f"audit {config.file}: no schedule of audits",
                hint="Set cron in [audit], or compare with `shipper reconcile`, which needs no schedule.",
            )
        names = names_of(config, arguments["jobs"] or config.jobs)
        outcomes = self._run(names, ())
        return {"jobs": outcomes, "left_out": [name for name in names if name not in outcomes]}

    def _run(self, names: Sequence[str], retries: Sequence[float]) -> dict[str, str]:
        """Audit jobs, store each result, and return the outcomes; jobs that cannot be compared now are left out."""
        if not self._mutex.acquire(blocking=False):
            raise _still_runs()
        try:
            self.since = time.time()
            logger().info("audit.started", jobs=len(names))
            began, outcomes = time.monotonic(), dict[str, str]()
            # a database that is down delays the audit once, not at each of its jobs
            pauses = defaultdict[str, Iterator[float]](lambda: iter(retries))
            for name in names:
                audit = self._audit(name, pauses)
                if audit is not None:
                    self._pipeline.state.keep_audit(name, audit)
                    _log(name, audit)
                    outcomes[name] = audit.outcome.value
            counts = Counter(outcomes.values())
            numbers = {outcome.value: counts[outcome.value] for outcome in Outcome}
            logger().info("audit.finished", **numbers, seconds=round(time.monotonic() - began, 1))
            return outcomes
        finally:
            self.since = None
            self._mutex.release()

    def _audit(self, name: str, pauses: Mapping[str, Iterator[float]]) -> Audit | None:
        """Compare a job, and again after the pauses that are left of its source if that is not possible.

        Return None if the job is paused, held or removed, or has counted no rows since its configuration was changed.
        """
        while (worker := self._worker(name)) is not None and self._is_counted(worker.job):
            try:
                audit = self._compare(worker)
            except ShipperError as error:
                pause = next(pauses[worker.job.source], None) if isinstance(error, TransientError) else None
                if self._stopping.wait(pause or 0.0):
                    raise
                if pause is not None:
                    continue
                audit = _failed(error)
            except Exception as bug:  # noqa: BLE001 - other jobs are still compared
                logger().critical("audit.failed", job=name, exc_info=True)
                hint = "Report the traceback of audit.failed in the log: journalctl -u shipper"
                audit = _failed(PermanentError(f"audit {name}: {type(bug).__name__}: {bug}", hint=hint))
            if self._worker(name) is worker:  # else it was changed or paused meanwhile
                return audit
        return None

    def _is_counted(self, job: Job) -> bool:
        """Return whether the present definition of a job has counted rows; of a cron job, its first tick may be far."""
        progress = self._pipeline.state.progress(job.name)
        return progress is None or progress.definition_digest == definition_digest(job)

    def _worker(self, name: str) -> Worker | None:
        """Return the worker of a job that can be compared; a reload that concerns it replaces it."""
        worker = self._pipeline.workers.get(name)
        if worker is None or worker.is_paused:
            return None
        is_reset = worker.failure is not None and isinstance(worker.failure.error, SourceReset)
        return None if is_reset else worker  # the ids of a table that was reset mean other rows

    def _compare(self, worker: Worker) -> Audit:
        pipeline, job, config = self._pipeline, worker.job, self._pipeline.config
        graphite = self._graphite(config)

        def wait(seconds: float) -> None:
            if self._stopping.wait(seconds):
                raise StateBusy("audit: the service is shutting down")
            if self._worker(job.name) is not worker:
                raise StateBusy(f"audit {job.name}: the job was changed or paused")

        comparer = Comparer(
            job,
            worker.source,
            _Interruptible(graphite, wait),
            lambda: nullcontext(config.state.path),
            length=_length(job, config.audit.span),
            cells=MOST_CELLS,
            wait=wait,
        )
        pipeline.audited = job.name
        try:
            with worker.source.background(wait):
                result = comparer.compare(None, None)
        finally:
            pipeline.audited = None
        if result.comparison.differences and (result.undelivered or pipeline.courier.may_lack(job.name)):
            waiting = f"rows of {result.undelivered} ids" if result.undelivered else "values"
            raise TransientError(
                f"audit {job.name}: Graphite differs, but {waiting} still wait for Carbon",
                hint="See `shipper status`: Carbon may be down or busy.",
            )
        return audit_of(result.comparison, job.archives[0].step, int(time.time()))


class _Interruptible:
    """Graphite, for a comparison that can end between two series."""

    def __init__(self, graphite: Graphite, wait: Wait) -> None:
        self._graphite, self._wait = graphite, wait

    def held(self, paths: Sequence[str], span: Span, step: int) -> Iterator[tuple[str, SeriesData]]:
        for series in self._graphite.held(paths, span, step):
            self._wait(0.0)
            yield series


def _length(job: Job, span: int) -> int:
    """Return how much time can be compared: what Graphite shows, and without a time, whose ids the state knows."""
    shown = -oldest_shown(job.archives, 0)
    return min(span, shown) if job.query.time is not None else min(span, shown, job.keep)


def _still_runs() -> StateBusy:
    hint = "Wait until it ends (see `shipper status`), or raise `background` of the sources."
    return StateBusy("run audit: the previous audit still runs", hint=hint)


def _log_skipped(error: ShipperError) -> None:
    logger().warning("audit.skipped", error=str(error), hint=error.hint)


def _failed(error: ShipperError) -> Audit:
    return Audit(int(time.time()), error=str(error), hint=error.hint)


def _log(name: str, audit: Audit) -> None:
    """Log a result that needs an operator."""
    failure = audit_failure(name, audit)
    if failure is None:
        return
    if audit.outcome is Outcome.FAILED:
        logger().warning("audit.failed", job=name, error=failure.error, hint=failure.hint)
        return
    numbers = {"different": audit.different, "missing": audit.missing, "surplus": audit.surplus}
    span = {"start": format_utc(audit.start or 0), "end": format_utc(audit.end or 0)}
    logger().error("audit.differed", job=name, **span, **numbers, hint=failure.hint)
