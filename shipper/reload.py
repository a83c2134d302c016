"""Shell. Another configuration while the service runs: all of it, or nothing and the reason."""

import time
from collections.abc import Iterable

from shipper.cohort import Cohort, rhythm_of
from shipper.config import load
from shipper.delivery import Delivery
from shipper.errors import ConfigError, StateBusy
from shipper.pipeline import Exchange, Pipeline, affected
from shipper.worker import Worker

PATIENCE_SECONDS = 40.0  # for what is in flight; systemd gives a reload 60 s (TimeoutStartSec)
PAUSE_SECONDS = 0.02


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
    cohorts = {pipeline.cohorts[rhythm_of(worker.job)] for worker in workers}
    for worker in workers:
        worker.stop()
    try:
        _wait_idle([*workers, *cohorts])
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


def _wait_idle(busy: Iterable[Worker | Cohort]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    for one in busy:
        while not one.is_idle:
            if time.monotonic() > deadline:
                raise StateBusy(
                    f"reload: {one} did not end in {PATIENCE_SECONDS:.0f} s",
                    hint="A statement of it takes long. Try again, or restart.",
                )
            time.sleep(PAUSE_SECONDS)
