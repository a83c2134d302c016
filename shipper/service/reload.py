"""Another configuration while the service runs: all of it, or nothing and the reason."""

from shipper.config.load import load
from shipper.core.errors import ConfigError, StateBusy
from shipper.runtime.clocks import PATIENCE_SECONDS, Part, wait_idle
from shipper.runtime.delivery import Delivery
from shipper.runtime.pipeline import Exchange, Pipeline, affected
from shipper.runtime.poller import group_key


def prepared(pipeline: Pipeline, delivery: Delivery) -> Exchange:
    """Make all that is new in the configuration file, and stop what that replaces: the courier, too, if need be.

    Raises:
        ConfigError: the file cannot be run as it is; the configuration in force stays.
        StateBusy: something in flight did not end in time; it stays, too.
    """
    before = pipeline.config
    after = load(before.file)
    if after.state.path != before.state.path:
        raise ConfigError(
            f"reload {after.file}: [state] path is another", hint="That needs a restart: it is another memory."
        )
    if after.status != before.status:
        raise ConfigError(f"reload {after.file}: [status] is another", hint="That needs a restart.")
    is_other_carbon = before.graphite != after.graphite
    workers = [pipeline.workers[name] for name in affected(before, after) if name in pipeline.workers]
    polling_groups = {pipeline.polling_groups[group_key(worker.job)] for worker in workers}
    for worker in workers:
        worker.stop()
    try:
        parts: list[Part] = [*workers, *polling_groups]
        for part in parts:
            wait_idle(part)
        if is_other_carbon:
            _end(delivery)
        return Exchange(pipeline, after)
    except BaseException:
        for worker in workers:
            worker.resume()
        if is_other_carbon:
            delivery.resume()
        raise


def _end(delivery: Delivery) -> None:
    if not delivery.stop(seconds=PATIENCE_SECONDS):
        raise StateBusy("reload: a delivery did not end in time", hint="Try again: Carbon takes its time.")
