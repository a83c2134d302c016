"""`shipper reconcile`: compares the rows of the sources with the values in Graphite, whether the service runs or not.

It only reads.
"""

from collections.abc import Iterable, Iterator
from functools import partial

from shipper.config.load import Config
from shipper.runtime.comparer import COMPARISONS, Comparer, Reconciled
from shipper.runtime.endpoints import open_reader, open_source, readable_state, required_readback
from shipper.state.lock import holder


def reconcile(
    config: Config, names: Iterable[str], start: int | None, end: int | None, *, is_recounted: bool = False
) -> Iterator[Reconciled]:
    """Compare jobs, or all of them, in a span of time, with the defaults of `requested_span`.

    While a service runs, differences may be on their way, and are compared again. If the span was just recounted, they
    may be, too, and its slots are complete, even before the job's first complete slot.

    Raises:
        ConfigError: there is no such job, or no render_url; or a job has captured nothing with its present definition.
    """
    readback = required_readback(config, "reconcile")
    may_change = is_recounted or _may_change(config)
    for job in [job for name in names for job in config.named(name)] or list(config.jobs.values()):
        source = open_source(config, job.source)
        try:
            comparer = Comparer(job, source, readback, partial(readable_state, config), is_recounted=is_recounted)
            yield comparer.compare(start, end, times=COMPARISONS if may_change else 1)
        finally:
            source.close()


def _may_change(config: Config) -> bool:
    """Whether a process works with the state; with one in a database, on any machine."""
    database = open_reader(config)
    if database is None:
        return holder(config.state.path) is not None
    leadership = database.leadership()
    return leadership is not None and leadership.leader is not None
