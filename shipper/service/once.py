"""`shipper once`: one capture and delivery of all jobs, or of some, one after the other."""

from collections.abc import Collection

from shipper.config.load import Config
from shipper.core.errors import StateBusy
from shipper.log.logger import logger
from shipper.runtime.delivery import drain
from shipper.runtime.pipeline import composed


def once(config: Config, names: Collection[str]) -> bool:
    """Observe, capture and deliver once; return whether everything succeeded. Jobs that are paused are left out.

    Raises:
        StateBusy: one of the names is a paused job.
    """
    with composed(config, names) as pipeline:
        paused = [name for name, worker in pipeline.workers.items() if worker.is_paused]
        if names and paused:
            hint = f"Let them continue first: shipper resume {' '.join(paused)}"
            raise StateBusy(f"run once: these jobs are paused: {', '.join(paused)}", hint=hint)
        for name in paused:
            logger().warning("job.skipped", job=name, hint=f"It is paused: shipper resume {name}")
        polling_groups = [
            group for group in pipeline.polling_groups.values() if not all(worker.is_paused for worker in group.workers)
        ]
        observed = [polling_group for polling_group in polling_groups if polling_group.observe()]
        captured = [polling_group for polling_group in observed if polling_group.capture()]
        is_drained = drain(pipeline)
        pipeline.prune()
        return is_drained and len(captured) == len(polling_groups) and not pipeline.held
