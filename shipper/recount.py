"""Core. The one repair: whole slots counted again from the source, and their totals replaced.

It is idempotent: two repairs of one row cannot double it.
"""

from collections.abc import Iterator

from shipper.fold import Folded, fold, shown
from shipper.ledger import Done, Ledger, replace
from shipper.model import ALWAYS, Job, Moment, Observation, Progress, Span
from shipper.scan import Captured, Source, scan, walk_back


def recount(
    job: Job, horizon: Observation, progress: Progress, *, source: Source, ledger: Ledger, moment: Moment
) -> Iterator[Captured | None]:
    """Count all slots from progress.recount_from on, over the ids that are captured; yield None while reading."""
    since = progress.recount_from
    assert since is not None
    span = Span(since, ALWAYS.end)
    known = ledger.lowest(job.name, since)
    low = known[1] if known else walk_back(job, progress.captured, span, source=source)
    folded, places = Folded(), shown(job, now=moment.now, source_time=horizon.time)
    for _, rows in scan(job, low, progress.captured, source=source, span=span):
        fold(rows, places, job.kinds, into=folded)
        yield None
    done = Done({}, seen_from=low, is_recounted=True)
    yield Captured(None, 0, replace(job, since, folded, done, window=None, ledger=ledger, moment=moment))
