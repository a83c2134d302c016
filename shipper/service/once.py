"""`shipper once`: one capture and delivery of all jobs, or of some, one after the other."""

from collections.abc import Iterable

from shipper.config.load import Config
from shipper.runtime.delivery import drain
from shipper.runtime.pipeline import composed


def once(config: Config, names: Iterable[str]) -> bool:
    """Observe, capture and deliver once; return whether everything succeeded."""
    with composed(config, names) as pipeline:
        polling_groups = list(pipeline.polling_groups.values())
        observed = [polling_group for polling_group in polling_groups if polling_group.observe()]
        captured = [polling_group for polling_group in observed if polling_group.capture()]
        is_drained = drain(pipeline)
        pipeline.prune()
        return is_drained and len(captured) == len(polling_groups) and not pipeline.held
