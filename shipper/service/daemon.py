"""The daemon: it runs a pipeline on schedule until a signal ends it.

The threads of each source observe and capture; the courier's thread delivers, and each new total wakes it. The main
thread waits for signals, and every few seconds it checks the clock, reports the status to systemd, and feeds the
watchdog as long as every part makes progress. At SIGTERM captures end after their current window, their totals are
delivered, and the state is closed. After SIGKILL the next start is a normal start.
"""

import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from shipper.config.load import Config
from shipper.core.errors import LeaseLost, ShipperError, StateBusy
from shipper.log.logger import RepeatedFailure, logger
from shipper.log.logger import drain as drain_log
from shipper.runtime.bugs import contained, log_thread
from shipper.runtime.clocks import wait_until
from shipper.runtime.delivery import Delivery, drain
from shipper.runtime.endpoints import open_carbon, open_database
from shipper.runtime.pipeline import Pipeline, composed
from shipper.service import systemd
from shipper.service.auditor import Auditor
from shipper.service.door import Door, doors_of
from shipper.service.executor import Executor
from shipper.service.reload import Reloader
from shipper.service.schedule import Schedule
from shipper.service.vitals import Vitals
from shipper.state.queries import series_counts
from shipper.status.own_metrics import Counts, SelfMetrics
from shipper.status.report import Report

if TYPE_CHECKING:
    from shipper.service.control import Command
    from shipper.state.remote.database import StateDatabase

BEAT_SECONDS = 5.0
STATUS_BEATS = 3  # beats between two status reports to systemd
STEP_SECONDS = 2.0  # a clock that moves by more between two beats was set, not adjusted
END_SECONDS = 40.0  # for running captures and the current batch to end
ABANDON_SECONDS = 2.0  # for the current batch, if Carbon or graphite-web do not answer
DRAIN_SECONDS = 15.0  # for the rest to be delivered then: both fit into TimeoutStopSec
PRUNE_SECONDS = 600.0
PRUNE_MOST_SECONDS = 6 * PRUNE_SECONDS  # also if the courier is never idle
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def run(config: Config) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        SystemExit: a bug has ended the service, or the lease is lost; the process must be started again.
    """
    # blocked before any thread starts, so that only this thread receives them, with sigtimedwait
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, signal.SIGHUP})
    threading.excepthook = log_thread
    database = _waited_for(config)
    if config.state.database is not None and database is None:
        logger().info("service.stopped")
        return
    term = database.term if database else 0
    try:
        has_failed = _work(config, database)
    except LeaseLost as error:  # while no thread watches the lease: as the state is loaded, or closed
        from shipper.runtime.leadership import EX_TEMPFAIL, log_loss  # noqa: PLC0415 - most services have a file

        assert database is not None
        log_loss(term, database.loss or error)
        raise SystemExit(EX_TEMPFAIL) from error
    logger().info("service.stopped")
    if has_failed:
        raise SystemExit(1)


def _work(config: Config, database: "StateDatabase | None") -> bool:
    """Run the jobs until a signal; return whether a bug has ended the service."""
    with composed(config, database=database) as pipeline:
        if database is not None:
            systemd.loaded()
        gc.collect()
        gc.freeze()  # the objects that exist now stay
        service = Service(pipeline)
        if not _serve(service):
            with suppress(ShipperError):
                pipeline.keep_replays()
            logger().info("service.stopped")
            drain_log()
            # a thread hangs in a driver: Python would wait for it, and the state must not be closed while it works
            os._exit(service.has_failed)
    return service.has_failed


def _waited_for(config: Config) -> "StateDatabase | None":
    """Stand by until this process leads in the database that keeps the state; None without one, or after a signal.

    Raises:
        ConfigError: the credentials of a source cannot be read.
    """
    database = open_database(config)
    if database is None:
        return None
    from shipper.service.stand_by import StandBy  # noqa: PLC0415 - most services have a file

    for name in config.sources:
        config.access(name)  # a machine that could not work after the take-over must not stand by
    return database if StandBy(config, database).wait(STOP_SIGNALS) else None


def _serve(service: "Service") -> bool:
    """Start, serve and stop, whatever fails; return whether all threads have ended."""
    try:
        service.start()
        service.serve()
    except Exception:  # noqa: BLE001 - other threads would keep the process alive without the main thread
        logger().critical("service.failed", exc_info=True)
        service.has_failed = True
    try:
        return service.stop()
    except Exception:  # noqa: BLE001 - likewise
        logger().critical("service.failed", exc_info=True)
        service.has_failed = True
        return False


class Service:
    """A pipeline on schedule, with its status page, control socket and own metrics."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._delivery = Delivery(pipeline, self._chore)
        self._auditor = Auditor(pipeline)
        self._schedule = Schedule(pipeline, self._auditor)
        self._page_failure = RepeatedFailure("page.failed", "page.recovered")
        self._vitals = Vitals(
            pipeline, self._delivery, next_tick=self._schedule.next_tick, page_failure=self._page_failure
        )
        self._own_metrics = self._new_own_metrics()
        self._clock_offset = time.time() - time.monotonic()
        self._pruned = time.monotonic()
        self._stuck = RepeatedFailure("service.stalled", "service.recovered")
        self._reloader = Reloader(pipeline, self._delivery, self._schedule, renewed=self._renew_own_metrics)
        self._executor = Executor(pipeline, self._delivery, self._reloader.lock)
        self._status = ""
        self._status_failure = RepeatedFailure("status.failed", "status.recovered", {"target": "systemd"})
        self._metrics_failure = RepeatedFailure("status.failed", "status.recovered", {"target": "Graphite"})
        self.has_failed = False
        """Whether a bug has ended a part of the service, so that only a restart can repair it."""
        self._doors: list[Door] = []

    def start(self) -> None:
        """Start all parts."""
        pipeline = self._pipeline
        commands: dict[str, Command] = {
            "reload": lambda _arguments, _report: self._reloader.reload(),
            "status": lambda arguments, _report: (
                self.report(with_totals=arguments.get("with_totals", True)).only(arguments.get("jobs", ())).document()
            ),
            "operate": self._executor.do,
            "audit": lambda arguments, _report: self._auditor.run_now(arguments),
        }

        # sockets
        address, self._doors = doors_of(pipeline.config, commands, self.report, self._page_failure)
        self._check_doors()
        pipeline.state.announce(address)

        # threads
        self._schedule.start()
        self._delivery.start()
        logger().info("service.started", jobs=len(pipeline.workers), carbon=str(pipeline.carbon), pid=os.getpid())
        systemd.notify(READY=1, STATUS=f"jobs scheduled: {len(pipeline.workers)}")

    def serve(self) -> None:
        """Watch all parts until a signal stops the service."""
        beat = min(systemd.watchdog_seconds() or BEAT_SECONDS, BEAT_SECONDS)
        beats = 0
        while True:
            caught = signal.sigtimedwait({*STOP_SIGNALS, signal.SIGHUP}, beat)
            if caught is not None and caught.si_signo in STOP_SIGNALS:
                return
            # a process that was stopped and continues gets a signal without a number: CPython returns it uninitialized
            if caught is not None and caught.si_signo == signal.SIGHUP:
                threading.Thread(target=self._reload_by_signal, name="reload").start()
            self._follow_clock()
            self._watch()
            self._check_doors()
            if beats % STATUS_BEATS == 0:
                self._notify_status()
            beats += 1

    def stop(self) -> bool:
        """End the running calls and deliver the rest; return whether all threads have ended."""
        logger().info("service.stopping")
        systemd.notify(STOPPING=1, STATUS="stopping: captures end, and the rest is delivered")

        # captures
        self.has_failed |= self._reloader.has_failed or self._delivery.has_failed or self._schedule.has_failed
        self._executor.stop()
        self._auditor.stop()
        with self._reloader.lock:  # a running reload or operation ends first
            self._reloader.is_stopping = True
            workers = list(self._pipeline.workers.values())
            for worker in workers:
                worker.stop()
        is_idle = wait_until(
            lambda: self._auditor.since is None and all(part.is_idle for part in self._pipeline.parts),
            seconds=END_SECONDS,
        )
        if not all(part.is_idle for part in self._pipeline.parts):
            jobs = ",".join(worker.job.name for worker in workers if not worker.is_idle)
            hint = "Nothing is lost: the next start reads these rows again."
            logger().warning("capture.abandoned", jobs=jobs, seconds=END_SECONDS, hint=hint)
        self._schedule.stop(wait=is_idle)

        # deliveries; without an answer from Carbon, the rest waits for the next start
        has_ended = self._delivery.stop(seconds=ABANDON_SECONDS if self._delivery.is_failing else END_SECONDS)
        if has_ended and self._delivery.failure.error is None and not self._delivery.has_failed:
            drain(self._pipeline, seconds=DRAIN_SECONDS)
        for door in self._doors:
            door.close()
        return is_idle and has_ended

    def _check_doors(self) -> None:
        for door in self._doors:
            door.check()

    def _reload_by_signal(self) -> None:
        """Reload; only the log shows the result."""
        with suppress(ShipperError):
            self._reloader.reload()

    def _follow_clock(self) -> None:
        """Adapt the schedule if the wall clock was set back: ticks would wait until it catches up."""
        offset = time.time() - time.monotonic()
        step, self._clock_offset = offset - self._clock_offset, offset
        if abs(step) < STEP_SECONDS:
            return
        logger().info("clock.stepped", seconds=round(step, 1))
        if step < 0:
            self._schedule.shift(-step)

    def _watch(self) -> None:
        """Feed the watchdog, unless a part hangs that only a restart can repair."""
        stuck = self._stuck_parts()
        if not stuck:
            self._stuck.recovered()
            systemd.notify(WATCHDOG=1)
            return
        hint = "systemd restarts the service. Then report the stack traces of its log: journalctl -u shipper"
        self._stuck.failed(StateBusy(f"no progress: {', '.join(stuck)}", hint=hint), clock=time.monotonic())

    def _stuck_parts(self) -> tuple[str, ...]:
        stuck = [str(part) for part in self._pipeline.parts if part.is_stuck]
        if self._delivery.is_stuck or (self._delivery.is_gone and not self._reloader.lock.locked()):
            stuck.append("delivery")
        if self._schedule.is_stuck:
            stuck.append("scheduler")
        return tuple(stuck)

    def _notify_status(self) -> None:
        with suppress(ShipperError), contained(self._status_failure):
            status = self.report().summary()
            if status != self._status:
                systemd.notify(STATUS=status)
            self._status = status

    def report(self, *, with_totals: bool = False) -> Report:
        """Return the status of the service: see Vitals."""
        return replace(
            self._vitals.report(with_totals=with_totals),
            stalled=self._stuck_parts(),
            rejected=self._reloader.rejected,
            next_audit=self._schedule.next_audit,
            audit_since=self._auditor.since,
        )

    def _new_own_metrics(self, sent: Mapping[str, Counts] | None = None) -> SelfMetrics:
        config = self._pipeline.config
        return SelfMetrics(
            open_carbon(config),
            prefix=config.graphite.prefix,
            host=socket.gethostname(),
            step=config.graphite.retentions[0].step,
            report=self.report,
            series=partial(series_counts, str(config.state.path)),
            sent=sent or {},
        )

    def _renew_own_metrics(self) -> None:
        """Use the changed [graphite] for the own metrics, which continue with the counts sent so far."""
        self._own_metrics = self._new_own_metrics(self._own_metrics.sent)
        self._delivery.reached_at = None  # that was another Carbon

    def _chore(self, is_idle: bool) -> float:  # noqa: FBT001 - the only argument of a callback
        """Do the housekeeping between deliveries, and return the seconds until the next is due."""
        since = time.monotonic() - self._pruned
        if since > (PRUNE_SECONDS if is_idle else PRUNE_MOST_SECONDS):
            self._pruned = time.monotonic()
            self._pipeline.prune()
        rest = BEAT_SECONDS
        with contained(self._metrics_failure):
            rest = self._own_metrics.send(time.time())
            if sent_at := self._own_metrics.sent_at:
                self._delivery.reached_at = max(self._delivery.reached_at or 0.0, sent_at)
        return min(rest, PRUNE_SECONDS)
