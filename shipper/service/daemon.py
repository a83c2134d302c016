"""The service: its parts at work, and who looks after them.

Each source's threads observe and capture; one thread is the courier, woken by every record. The main thread waits for
signals and beats: it follows the clock, tells systemd how things are, and feeds the watchdog as long as everything
comes forward. Messages to stop, captures end after the window at hand, what they recorded is delivered, and the state
closes. Killed instead, the next start is a normal start.
"""

import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from shipper.config.load import Config
from shipper.core.errors import ConfigError, ShipperError, StateBusy
from shipper.log import RepeatedFailure, logger
from shipper.runtime.delivery import Delivery, drain
from shipper.runtime.endpoints import open_carbon
from shipper.runtime.pipeline import Pipeline, composed
from shipper.service import systemd
from shipper.service.control import Command, Control
from shipper.service.executor import Operator
from shipper.service.reload import Reloader
from shipper.service.schedule import Schedule
from shipper.service.vitals import Vitals
from shipper.state.queries import series_counts
from shipper.status.own_metrics import Counts, SelfMetrics
from shipper.status.page.server import Page
from shipper.status.report import Report

BEAT_SECONDS = 5.0
TOLD_BEATS = 3  # systemd hears how things are with every third beat
STEP_SECONDS = 2.0  # a clock that goes wrong by so much between two beats was set, not adjusted
END_SECONDS = 40.0  # what is in flight has so long to end once told to stop
DRAIN_SECONDS = 15.0  # and then the rest has so long to be delivered: both are within TimeoutStopSec
PRUNE_SECONDS = 600.0
PRUNE_MOST_SECONDS = 6 * PRUNE_SECONDS  # a courier that is never idle does not put it off for ever
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def run(config: Config) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        SystemExit: a bug has ended it; the process must be started again.
    """
    # Blocked before a thread starts, so that none of them has them; this thread asks for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, signal.SIGHUP})
    with composed(config) as pipeline:
        gc.collect()
        gc.freeze()  # what is there now stays
        service = Service(pipeline)
        service.start()
        service.serve()
        is_ended = service.stop()
    logger().info("service.stopped")
    if service.has_failed:
        raise SystemExit(1)
    if not is_ended:
        os._exit(0)  # a thread hangs in a driver, and Python would wait for it


class Service:
    """A pipeline on schedule, and what tells of it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._delivery = Delivery(pipeline, self._chore)
        self._schedule = Schedule(pipeline)
        self._vitals = Vitals(pipeline, self._delivery, next_tick=self._schedule.next_tick)
        self._own_metrics = self._new_own_metrics()
        self._parted = time.time() - time.monotonic()
        self._pruned = time.monotonic()
        self._stuck = RepeatedFailure("service.stalled", "service.recovered")
        self._reloader = Reloader(pipeline, self._delivery, self._schedule, renewed=self._renew_own_metrics)
        self._operator = Operator(pipeline, self._delivery, self._reloader.lock)
        self._status = ""
        self._opened = ExitStack()

    @property
    def has_failed(self) -> bool:
        """Has a bug ended a part of it, so that a new start must mend it?"""
        return self._reloader.has_failed or self._delivery.has_failed

    def start(self) -> None:
        """Put everything to work."""
        pipeline = self._pipeline
        runtime = os.environ.get("RUNTIME_DIRECTORY") or Path(pipeline.state.path).absolute().parent
        commands: dict[str, Command] = {
            "reload": lambda _arguments, _tell: self._reloader.reload(),
            "status": lambda arguments, _tell: self.report(with_totals=True).only(arguments.get("jobs", ())).document(),
            "operate": self._operator.do,
        }
        control = Control(f"{runtime}/control.sock", commands)
        self._opened.callback(control.close)
        pipeline.state.announce(control.path)
        self._open_page(f"unix:{runtime}/status.sock")
        self._schedule.start()
        self._delivery.start()
        logger().info("service.started", jobs=len(pipeline.workers), carbon=str(pipeline.carbon), pid=os.getpid())
        systemd.notify(READY=1, STATUS=f"{len(pipeline.workers)} jobs are on schedule")

    def _open_page(self, default: str) -> None:
        """Answer over HTTP; a page that cannot be shown is no reason to ship nothing."""
        address = self._pipeline.config.status.listen or default
        if address == "off":
            return
        try:
            page = Page(address, partial(self.report, with_totals=True))
        except ConfigError as error:
            logger().error("page.failed", error=str(error), hint=error.hint)
            return
        self._opened.callback(page.close)

    def serve(self) -> None:
        """Look after everything until a signal says stop."""
        beat = min(systemd.watchdog_seconds() or BEAT_SECONDS, BEAT_SECONDS)
        beats = 0
        while True:
            caught = signal.sigtimedwait({*STOP_SIGNALS, signal.SIGHUP}, beat)
            if caught is not None and caught.si_signo in STOP_SIGNALS:
                return
            if caught is not None:
                threading.Thread(target=self._reload_by_signal, name="reload").start()
            self._follow_clock()
            self._watch()
            if beats % TOLD_BEATS == 0:
                self._tell_status()
            beats += 1

    def stop(self) -> bool:
        """End what is in flight, deliver the rest; return whether everything has ended."""
        logger().info("service.stopping")
        systemd.notify(STOPPING=1, STATUS="stopping: what is in flight ends, and the rest is delivered")
        self._operator.stop()
        with self._reloader.lock:  # a running reload or operation ends first
            workers = list(self._pipeline.workers.values())
            for worker in workers:
                worker.stop()
        is_idle = _until(lambda: all(part.is_idle for part in self._pipeline.parts), seconds=END_SECONDS)
        if not is_idle:
            jobs = ",".join(worker.job.name for worker in workers if not worker.is_idle)
            logger().warning("capture.abandoned", jobs=jobs, seconds=END_SECONDS)
        self._schedule.stop(wait=is_idle)
        has_ended = self._delivery.stop(seconds=END_SECONDS)
        if has_ended and not self._delivery.has_failed:
            drain(self._pipeline, seconds=DRAIN_SECONDS)
        self._opened.close()
        return is_idle and has_ended

    def _reload_by_signal(self) -> None:
        """Reload; only the log shows the result."""
        with suppress(ShipperError):
            self._reloader.reload()

    def _follow_clock(self) -> None:
        """See whether the wall clock was set: what is planned by it would come late, or not before it has caught up."""
        parted = time.time() - time.monotonic()
        step, self._parted = parted - self._parted, parted
        if abs(step) < STEP_SECONDS:
            return
        logger().info("clock.stepped", seconds=round(step, 1))
        if step < 0:
            self._schedule.shift(-step)

    def _watch(self) -> None:
        """Feed the watchdog, unless something hangs that a restart would cure."""
        stuck = self._stuck_parts()
        if not stuck:
            self._stuck.recovered()
            systemd.notify(WATCHDOG=1)
            return
        hint = "systemd starts it again: its watchdog gets nothing more. The stacks in the journal show where it hangs."
        self._stuck.failed(StateBusy(f"no progress: {', '.join(stuck)}", hint=hint), clock=time.monotonic())

    def _stuck_parts(self) -> tuple[str, ...]:
        stuck = [str(part) for part in self._pipeline.parts if part.is_stuck]
        if self._delivery.is_stuck or (self._delivery.is_gone and not self._reloader.lock.locked()):
            stuck.append("courier")
        if self._schedule.is_stuck:
            stuck.append("scheduler")
        return tuple(stuck)

    def _tell_status(self) -> None:
        with suppress(ShipperError):
            status = self.report().summary()
            if status != self._status:
                systemd.notify(STATUS=status)
            self._status = status

    def report(self, *, with_totals: bool = False) -> Report:
        """Return how the service does: see Vitals."""
        return self._vitals.report(stuck=self._stuck_parts(), with_totals=with_totals)

    def _new_own_metrics(self, told: Mapping[str, Counts] | None = None) -> SelfMetrics:
        config = self._pipeline.config
        return SelfMetrics(
            open_carbon(config),
            prefix=config.graphite.prefix,
            host=socket.gethostname(),
            step=config.graphite.retentions[0].step,
            report=self.report,
            totals=self._vitals.totals,
            series=partial(series_counts, str(config.state.path)),
            told=told or {},
        )

    def _renew_own_metrics(self) -> None:
        """Send them as [graphite] says now, and continue with the counts sent so far."""
        self._own_metrics = self._new_own_metrics(self._own_metrics.told)

    def _chore(self, is_idle: bool) -> float:  # noqa: FBT001 - one of two callers' only word
        """Do what is to be done between deliveries, and return the seconds until there is more of it."""
        since = time.monotonic() - self._pruned
        if since > (PRUNE_SECONDS if is_idle else PRUNE_MOST_SECONDS):
            self._pruned = time.monotonic()
            self._pipeline.prune()
        return min(self._own_metrics.send(time.time()), PRUNE_SECONDS)


def _until(is_true: Callable[[], bool], *, seconds: float) -> bool:
    """Wait for so long until something is true; return whether it is."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
