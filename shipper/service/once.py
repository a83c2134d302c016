"""One pass of all jobs, or of some, in line."""

from collections.abc import Iterable

from shipper.config.load import Config
from shipper.runtime.delivery import drain
from shipper.runtime.pipeline import composed


def once(config: Config, names: Iterable[str]) -> bool:
    """Observe, capture and deliver once; return whether all of it succeeded."""
    with composed(config, names) as pipeline:
        cohorts = list(pipeline.cohorts.values())
        observed = [cohort for cohort in cohorts if cohort.observe()]
        captured = [cohort for cohort in observed if cohort.capture()]
        is_drained = drain(pipeline)
        pipeline.prune()
        return is_drained and len(captured) == len(cohorts) and not pipeline.held
