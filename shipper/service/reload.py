"""Reload: a new configuration takes the place of the running one, completely or not at all."""

import threading
import time
from collections.abc import Callable
from typing import Any

from shipper.config.load import Config, load
from shipper.core.errors import ConfigError, ShipperError, StateBusy
from shipper.log.logger import logger
from shipper.runtime.bugs import end_process
from shipper.runtime.clocks import PATIENCE_SECONDS, Part, wait_idle
from shipper.runtime.delivery import Delivery
from shipper.runtime.endpoints import open_source
from shipper.runtime.pipeline import Pipeline, make_worker, rename_jobs
from shipper.runtime.poller import group_key
from shipper.service import systemd
from shipper.service.schedule import Schedule
from shipper.status.report import Failure


class Reloader:
    """Reloads of the configuration file, in a running service."""

    def __init__(
        self, pipeline: Pipeline, delivery: Delivery, schedule: Schedule, *, renewed: Callable[[], None]
    ) -> None:
        """Call renewed when [graphite] has changed, before deliveries continue."""
        self.lock = threading.Lock()
        """Lock held during a reload, an operation, and the stop of the service."""
        self.is_stopping = False
        """Whether the service stops, and a reload that waits for the lock comes too late."""
        self.has_failed = False
        """Whether a reload failed halfway, so that the process must end and start again."""
        self.rejected: Failure | None = None
        """Reason why the last reload was rejected; None if it was not."""
        self._pipeline, self._delivery, self._schedule = pipeline, delivery, schedule
        self._renewed = renewed

    def reload(self) -> dict[str, Any]:
        """Replace the running configuration by the file's, log the result, and return the new one's facts.

        Raises:
            ConfigError: the file cannot be run as it is; the running configuration continues.
            StateBusy: a call did not end in time; the running configuration continues. Or the service is stopping.
        """
        with self.lock:
            if self.is_stopping:
                raise StateBusy("reload: the service is shutting down", hint="The next start reads the file.")
            systemd.reloading()
            try:
                exchange = self._prepared()
            except ShipperError as error:
                logger().error("config.rejected", error=str(error), hint=error.hint)
                before = self.rejected
                since, failures = (before.since, before.failures) if before else (time.time(), 0)
                self.rejected = Failure(str(error), error.hint, since, failures + 1)
                raise
            else:
                self._commit(exchange)
                self.rejected = None
            finally:
                systemd.notify(READY=1)
            config = self._pipeline.config
            logger().info("config.reloaded", file=config.file, jobs=len(config.jobs))
        return {"jobs": len(config.jobs), "file": config.file}

    def _prepared(self) -> "Exchange":
        """Stop the parts that change, and make the new ones; if that fails, the old parts continue."""
        pipeline, before = self._pipeline, self._pipeline.config
        after = load(before.file)
        _check_reloadable(before, after)
        changes_graphite = before.graphite != after.graphite
        workers = [pipeline.workers[name] for name in affected(before, after) if name in pipeline.workers]
        polling_groups = {pipeline.polling_groups[group_key(worker.job)] for worker in workers}
        for worker in workers:
            worker.stop()
        try:
            parts: list[Part] = [*workers, *polling_groups]
            for part in parts:
                wait_idle(part)
            if changes_graphite:
                self._stop_delivery()
            return Exchange(pipeline, after)
        except BaseException:
            for worker in workers:
                worker.resume()
            if changes_graphite:
                self._delivery.resume()
            raise

    def _stop_delivery(self) -> None:
        if not self._delivery.stop(seconds=PATIENCE_SECONDS):
            raise StateBusy(
                f"reload: waited {PATIENCE_SECONDS:.0f} s: the running delivery has not ended",
                hint="Check Carbon's load, then reload again.",
            )

    def _commit(self, exchange: "Exchange") -> None:
        """Put the new parts in place; only a restart can repair what fails halfway."""
        pipeline = self._pipeline
        graphite, polling_groups, sources = pipeline.config.graphite, pipeline.polling_groups, pipeline.sources
        try:
            exchange.commit()
            self._schedule.change(polling_groups, sources)
            pipeline.loaded_at = time.time()
            if pipeline.database is not None:
                pipeline.database.configuration = pipeline.config.digest
            if pipeline.config.graphite != graphite:
                self._renewed()
                self._delivery.start()
        except BaseException:
            self.has_failed = True
            end_process()
            raise


class Exchange:
    """The new parts when one configuration follows another.

    They are made first, so that a part that cannot be made changes nothing. The parts that they replace must be idle:
    the affected workers, and the courier if [graphite] has changed.
    """

    def __init__(self, pipeline: Pipeline, config: Config) -> None:
        """Make the new parts.

        Raises:
            ConfigError: a job cannot run as it is configured, or credentials are not where they should be.
        """
        self._pipeline, self._config = pipeline, config
        changed, before = affected(pipeline.config, config), pipeline.config.sources
        kept = {name: one for name, one in pipeline.sources.items() if before[name] == config.sources.get(name)}
        names = {job.source for job in config.jobs.values()}
        self._sources = {name: kept.get(name) or open_source(config, name) for name in names}
        self._jobs = [job for name, job in config.jobs.items() if name in changed]
        self._workers = {
            job.name: make_worker(job, config, self._sources, pipeline.state, pipeline.clocks) for job in self._jobs
        }

    def commit(self) -> None:
        """Put the new parts in place; an error from here on needs a restart."""
        pipeline, config = self._pipeline, self._config
        before, pipeline.config = pipeline.config, config

        # the state of renamed jobs
        if rename_jobs(pipeline.state, self._jobs, config):
            pipeline.renew_courier()

        # workers, in the configuration's order, and the sources that they read
        workers = pipeline.workers | self._workers
        pipeline.workers = {name: workers[name] for name in config.jobs if name in workers}
        pipeline.sources, old = self._sources, pipeline.sources
        pipeline.regroup()
        held = config.jobs.keys() - pipeline.workers.keys()
        pipeline.held = {name: error for name, error in pipeline.held.items() if name in held}
        for name, source in old.items():
            if pipeline.sources.get(name) is not source:
                source.close()

        # Carbon
        if before.graphite != config.graphite:
            pipeline.renew_carbon()


def affected(before: Config, after: Config) -> set[str]:
    """Return the jobs that change when one configuration follows another."""
    if before.graphite != after.graphite:
        return {*before.jobs, *after.jobs}
    sources = {name for name in before.sources if after.sources.get(name) != before.sources[name]}
    pairs = {name: (before.jobs.get(name), after.jobs.get(name)) for name in {*before.jobs, *after.jobs}}
    return {name for name, (old, new) in pairs.items() if old != new or (old and old.source in sources)}


def _check_reloadable(before: Config, after: Config) -> None:
    """Reject a configuration that needs a restart."""
    keys = ("path", "database", "user", "tls", "tls_ca", "name", "lease")
    changed = [f"[state] {key}" for key in keys if getattr(after.state, key) != getattr(before.state, key)]
    changed += ["[status]"] if after.status != before.status else []
    if changed:
        is_other = changed[0] in {"[state] path", "[state] database", "[state] name"}
        effect = ", which then uses another state" if is_other else ""
        raise ConfigError(
            f"reload {after.file}: {changed[0]} has changed, and a reload cannot apply that; nothing was reloaded",
            hint=f"Restart the service{effect}: systemctl restart shipper",
        )
