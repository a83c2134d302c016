"""Shell. One pass of all jobs, or of some, in line."""

import time
from collections.abc import Iterable

from shipper.config import Config
from shipper.delivery import drain
from shipper.pipeline import composed
from shipper.worker import Worker


def once(config: Config, names: Iterable[str]) -> bool:
    """Observe, settle, capture and deliver once; return whether all of it succeeded."""
    with composed(config, names) as pipeline:
        workers = list(pipeline.workers.values())
        observed = [worker for worker in workers if worker.observe()]
        captured = [worker for worker in observed if _captured(worker)]
        is_drained = drain(pipeline)
        pipeline.prune()
        return is_drained and len(captured) == len(workers) and not pipeline.held


def _captured(worker: Worker) -> bool:
    """Wait until what a worker has observed has settled, and capture it; return whether that succeeded."""
    while (delay := worker.settles_in()) is not None:
        time.sleep(delay)
        if not worker.capture(lambda: None):
            return False
    return True
