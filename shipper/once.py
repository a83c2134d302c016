"""Shell. One pass of all jobs, or of some, in line."""

import time
from collections.abc import Iterable

from shipper.cohort import Cohort
from shipper.config import Config
from shipper.delivery import drain
from shipper.pipeline import composed


def once(config: Config, names: Iterable[str]) -> bool:
    """Observe, settle, capture and deliver once; return whether all of it succeeded."""
    with composed(config, names) as pipeline:
        cohorts = list(pipeline.cohorts.values())
        observed = [cohort for cohort in cohorts if cohort.observe()]
        captured = [cohort for cohort in observed if _captured(cohort)]
        is_drained = drain(pipeline)
        pipeline.prune()
        return is_drained and len(captured) == len(cohorts) and not pipeline.held


def _captured(cohort: Cohort) -> bool:
    """Wait until what a cohort has observed has settled, and capture it; return whether that succeeded."""
    while (delay := cohort.settles_in()) is not None:
        time.sleep(delay)
        if not cohort.capture():
            return False
    return True
