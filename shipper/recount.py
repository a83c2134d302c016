"""Core. The one repair: whole slots counted again from the source, and their totals replaced.

It is idempotent: two repairs of one row cannot double it.
"""

from collections.abc import Iterable, Iterator

from shipper.fold import Folded, fold, shown
from shipper.ledger import Done, Ledger, outermost
from shipper.model import ALWAYS, Cause, Job, Moment, Observation, Progress, Row, Span, Window
from shipper.record import amend, replace
from shipper.retention import enclosing, floor, joined, placed
from shipper.scan import Captured, Source, scan, walk_back


def recount(
    job: Job, horizon: Observation, progress: Progress, *, source: Source, ledger: Ledger, moment: Moment
) -> Iterator[Captured | None]:
    """Count all slots from progress.recount_from on, over the ids that are captured; yield None while reading."""
    assert progress.recount_from is not None
    span = Span(_received(job, progress.recount_from, ledger, moment.now), ALWAYS.end)
    known = ledger.lowest(job.name, span)
    # rows that were no rows of the job when it saw those of the oldest slot may be below
    low = walk_back(job, known[1] if known else progress.captured, span, source=source)
    folded, places = Folded(), shown(job, now=moment.now, source_time=horizon.time)
    for _, rows in scan(job, low, progress.captured, source=source, span=span):
        fold(rows, places, job.kinds, into=folded)
        yield None
    done = Done({}, seen_from=low, is_recounted=True, shows={Cause.FUTURE: Span(span.start, places.end)})
    yield Captured(None, 0, replace(job, span, folded, done, window=None, ledger=ledger, moment=moment))


def repair(
    job: Job, window: Window, horizon: Observation, captured: int, *, source: Source, ledger: Ledger, moment: Moment
) -> Iterator[Captured | None]:
    """Count all slots again that a window's rows fall in, over the ids up to captured; yield None while reading."""
    # what falls where now; what could not be shown was counted by the job's own windows, of which this is a part
    around = ledger.unshown_window(job.name, window)
    places = shown(job, now=moment.now, source_time=horizon.time)
    present = Folded()
    for _, rows in scan(job, around.after, min(around.upto, captured), source=source):
        fold(_timed(job, rows, floor(horizon.time, job.query.bucket)), places, job.kinds, into=present)
        yield None

    # those slots, or the larger ones that they may be merged into meanwhile
    buckets = {bucket for _, bucket in present.cells}
    if job.query.time is None:
        buckets = {slot.slot for slot in ledger.slots(job.name, window=window)}
    for span in _spans(job, buckets, ledger, moment.now):
        if span.start >= places.start:  # else no archive may hold it any more when it is sent
            yield from _replaced(job, span, window, captured, places, source=source, ledger=ledger, moment=moment)

    tally = amend(job, present, around, Done({}, repaired=window), ledger=ledger, moment=moment)
    yield Captured(None, 0, tally)


def _received(job: Job, slot: int, ledger: Ledger, now: int) -> int:
    """Return where the slot begins that receives this one by now: whole, it may take the place of finer ones."""
    place = placed(job.archives, slot, now)
    there = [one.slot for one in ledger.slots(job.name, span=Span(slot, slot + 1))]
    return min([slot, *there, *([place[0]] if place else [])])


def _replaced(
    job: Job, span: Span, window: Window, captured: int, places: Span, *, source: Source, ledger: Ledger, moment: Moment
) -> Iterator[Captured | None]:
    """Count the slots of one span again."""
    folded, low = Folded(), None
    if job.query.time is None:
        for rows in rows_of_slots(job, span, source=source, ledger=ledger):
            fold(rows, places, job.kinds, into=folded)
            yield None
    else:
        known = ledger.lowest(job.name, span)
        low = min(window.after, known[1]) if known else window.after
        for _, rows in scan(job, low, captured, source=source, span=span):
            fold((row for row in rows if row.bucket is not None), places, job.kinds, into=folded)
            yield None
    done = Done({}, seen_from=low, shows={Cause.FUTURE: Span(span.start, min(span.end, places.end))})
    tally = replace(job, span, folded, done, window=None, ledger=ledger, moment=moment)
    yield Captured(None, 0, tally, is_rest=False)  # the repair is noted as done with its last step


def rows_of_slots(job: Job, span: Span, *, source: Source, ledger: Ledger) -> Iterator[list[Row]]:
    """Read the rows of a job without a time column: each of its slots is a range of ids."""
    for slot in outermost(ledger.slots(job.name, span=span)):
        for _, rows in scan(job, slot.after, slot.upto, source=source):
            yield _timed(job, rows, slot.slot)


def _spans(job: Job, buckets: Iterable[int], ledger: Ledger, now: int) -> list[Span]:
    """Return the spans to be counted again, those that adjoin as one."""
    spans = []
    for bucket in buckets:
        span = enclosing(job.archives, bucket, now)
        for slot in ledger.slots(job.name, span=Span(bucket, bucket + 1)):
            span = Span(min(span.start, slot.slot), max(span.end, slot.slot + slot.step))
        spans.append(span)
    return joined(spans)


def _timed(job: Job, rows: list[Row], bucket: int) -> list[Row]:
    return rows if job.query.time is not None else [row._replace(bucket=bucket) for row in rows]
