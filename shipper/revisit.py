"""Core. Rows that are completed later: inserted at the start of something, their time set at its end.

Strategy: the time is the guide, and ids only make the SQL faster. Each cycle recounts every bucket since `revisit`
before the last cycle that succeeded, over all ids above `low`: everything up to that is complete, or given up.
"""

from collections import Counter
from collections.abc import Iterator

from shipper.fold import Folded, fold, shown
from shipper.ledger import CountedUnshown, Done, Ledger
from shipper.model import ALWAYS, Cause, Job, Moment, Observation, Progress, Reason, Span, Window
from shipper.record import replace
from shipper.retention import floor, placed
from shipper.scan import Captured, Source, scan
from shipper.seen import Seen
from shipper.window import next_window

_OF_THIS_CYCLE = frozenset({Cause.FUTURE, Cause.TOO_OLD, Cause.REFUSED})


def revisit(
    job: Job,
    horizon: Observation,
    progress: Progress,
    *,
    seen: Seen,
    ledger: Ledger,
    moment: Moment,
    closes: Span | None,
) -> Iterator[Captured | None]:
    """Recount the buckets that may have changed; yield None while reading."""
    assert job.revisit is not None
    source = seen.source
    since = progress.recount_from
    if since is None:
        bucket = max(0, floor(progress.complete_until - job.revisit, job.query.bucket))
        place = placed(job.archives, bucket, moment.now)
        since = place[0] if place else bucket
    span = Span(since, ALWAYS.end)

    # how far the rows are complete, or were waited for long enough
    given_up = ledger.horizon_at(job.name, horizon.time - job.max_age)
    awaited = Span(since, horizon.time + job.max_age)
    low = _low(job, horizon.id, progress, awaited, given_up=given_up, source=source)

    # rows that it passes without a usable time are never completed; all others are counted
    never, folded = 0, Folded()
    places = shown(job, now=moment.now, source_time=horizon.time)
    for after, upto in ((progress.low, low), (low, horizon.id)):
        for _, rows in scan(job, after, upto, source=source, span=span):
            fold(rows, places, job.kinds, into=folded)
            yield None
        passed = folded.unshown.pop(Reason(Cause.NO_TIME), 0)
        if upto == low:
            future = [reason for reason in folded.unshown if reason.cause is Cause.FUTURE]
            never = passed + sum(folded.unshown.pop(reason) for reason in future)
    folded.unshown[Reason(Cause.NEVER_COMPLETED)] = never

    # rows that came with a time from before the span
    if progress.recount_from is None:
        before = Span(ALWAYS.start, since)
        for _, rows in scan(job, progress.captured, horizon.id, source=source, span=before):
            for row in rows:
                if row.bucket is not None:
                    folded.unshown[Reason(Cause.TOO_LATE, row.bucket)] += row.rows
            yield None

    window = Window(progress.captured, horizon.id) if horizon.id > progress.captured else None
    late = Counter({reason: rows for reason, rows in folded.unshown.items() if reason.cause is Cause.TOO_LATE})
    done = Done(
        folded.unshown,
        horizon.time,
        low=low,
        seen_from=progress.low,
        is_recounted=True,
        replaces=_OF_THIS_CYCLE,
        fingerprint=seen.fingerprint(job, horizon.id),
        unshown_in=CountedUnshown(window, late) if window and late else None,
    )
    rows_found = folded.rows
    tally = replace(job, span, folded, done, window=window, ledger=ledger, moment=moment, closes=closes)
    yield Captured(window, rows_found, tally, is_rest=False)  # it is one step, and leaves nothing


def _low(job: Job, upto: int, progress: Progress, span: Span, *, given_up: int, source: Source) -> int:
    """Return the id up to which no row can be completed within the span any more."""
    after, first = progress.low, None
    while after < upto:
        window = next_window(after, upto, chunk=job.chunk, first=first)
        found = source.first_in(job.query, window, span, open_above=given_up)
        if found is not None:
            return found - 1
        after = window.upto
        first = source.first_id(job.query, after, upto) if after < upto else None
    return after
