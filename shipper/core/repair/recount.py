"""Recount: complete slots are counted from the source, and their totals replaced.

Strategy: a recount is for totals that change, while new rows are added: the first slot of a new job, a changed
definition, rows that are completed later, and requests of an operator. It reads ids at or below captured. The ids of
its rows join the counted ids in the same transaction, so a row that appears later is still added only once.

Gate: nothing automatic ever lowers a total because rows are gone. The position knows which ids were counted, or, of old
ids, how many in which range. A slot whose ids include some that are gone keeps its total, and so do all slots before
it; the event recount.limited reports them.
"""

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from shipper.core.id_set import Words, ids_of, size_of, union_of, words_of
from shipper.core.ledger import Ledger, RecordUpdate, Slot
from shipper.core.model import ALWAYS, Job, Observation, Progress, RejectReason, Row, Span, Window
from shipper.core.position import Position
from shipper.core.retention import ceil, floor, place_of, uncut_from
from shipper.core.rows.folding import Folded, fold, folded_within_limit, read_undivided, shown_span, widen
from shipper.core.rows.slots import outermost, uncounted
from shipper.core.rows.table import CaptureStep, Context, Event, Size, each_window, size_of_rows, walk_back
from shipper.core.rows.totals import replace as replace_totals

RECOUNTED = (RejectReason.UNREADABLE, RejectReason.REFUSED)
"""Reasons whose rows each recount of their buckets counts again."""


@dataclass(slots=True)
class Recounted:
    """Result of reading windows again."""

    folded: Folded
    ids: dict[int, Window] = field(default_factory=dict)
    """Window that contains the rows of each bucket."""
    new: dict[int, int] = field(default_factory=dict)
    """Words of ids that were not counted before."""


def recount(context: Context, horizon: Observation, progress: Progress) -> Iterator[CaptureStep | Event | None]:
    """Recount all slots from progress.recount_from on, over the captured ids; yield None while reading."""
    assert progress.recount_from is not None
    job, source, ledger, moment = context
    captured, position = progress.captured, ledger.position(job.name)
    places = shown_span(job, now=moment.now, source_time=horizon.time)

    # the span: complete slots, and none that is ahead of a clock that was set back
    place = received(job, progress.recount_from, job.query.bucket, ledger, moment.now)
    ahead = slots_ahead(job, place.start, places.end, progress.bucket, ledger)
    end = ahead.start if ahead else ALWAYS.end
    start = first_whole(progress, place)
    # nor one of which a part was pruned: Graphite still has that part
    if start < (pruned := max((one.end for one in ledger.pruned(job.name)), default=0)):
        start = _whole_from(job, pruned, progress, moment.now)
    span = Span(start, max(start, end))
    if span.start != place.start:
        left = Span(place.start, span.start)
        yield Event("recount.limited", {"span": left, "slots": len(ledger.slots(job.name, span=left))}, "warning")
    if ahead:
        slots = len(ledger.slots(job.name, span=ahead))
        yield Event("recount.limited", {"span": ahead, "slots": slots}, "warning")
    # the ids: rows that did not belong to the job earlier may be below those of its oldest slot
    known = ledger.lowest(job.name, span)
    low = walk_back(job, known[1] if known else captured, span, source=source)
    windows = [Window(low, captured)] if low < captured else []

    # the rows; totals within the lookback are recounted at each look, and may fall
    until = end if job.lookback is None else min(end, lookback_from(job, progress))
    span, again = yield from _read_through_gate(context, windows, span, places, progress, until=until)
    # a lookback or a backfill would count once more what is in longer buckets that stay; distinct values cannot wait
    # until those are over, because only slots that are whole have them
    waits = job.lookback is not None or job.query.is_divisible
    since = ceil(ahead.end, job.query.bucket) if ahead and waits and progress.bucket > job.query.bucket else span.start
    done = RecordUpdate(
        position.with_ids(again.new),
        again.folded.unreadable,
        since=None if since == place.start else since,
        is_recounted=True,
        low=low_for(context, span, again.new),
        bucket=job.query.bucket,
        shows=dict.fromkeys((RejectReason.TOO_LATE, *RECOUNTED), span)
        | {RejectReason.FUTURE: Span(span.start, min(end, ceil(places.end, job.query.bucket)))},
    )
    tally = replace_totals(context, span, again.folded, done, ids=again.ids)
    yield CaptureStep(None, 0, tally)


def _read_through_gate(
    context: Context, windows: Sequence[Window], span: Span, places: Span, progress: Progress, *, until: int
) -> Generator[CaptureStep | Event | None, None, tuple[Span, Recounted]]:
    """Read the rows of a span, but of no slot before `until` of which counted rows are gone; return the rest, too.

    The gate is asked before and after reading, because rows may be deleted meanwhile.
    """
    job, _, ledger, moment = context
    position, again = ledger.position(job.name), None
    while True:
        lacking = yield from slots_without_rows(context, Span(span.start, until), position)
        if lacking:
            left = max(ceil(slot.slot + 1, math.lcm(slot.step, progress.multiple)) for slot in lacking)
            yield Event("recount.limited", {"span": Span(span.start, left), "slots": len(lacking)}, "warning")
            span = Span(_whole_from(job, left, progress, moment.now), span.end)
        elif again is not None:
            return span, again
        again = yield from recount_windows(context, windows, span, places, position)


def slots_ahead(job: Job, start: int, end: int, bucket: int, ledger: Ledger) -> Span | None:
    """Return the slots with buckets from `end` on, which Graphite cannot show since clocks were set back.

    The span cuts neither a slot nor a bucket.
    """
    length = job.query.bucket
    if not ledger.slots(job.name, span=Span(end - bucket, ALWAYS.end)):
        return None
    slots = [(slot.slot, max(slot.step, bucket)) for slot in ledger.slots(job.name, span=Span(start, ALWAYS.end))]
    ahead = [slot for slot, lasts in slots if slot + max(0, lasts - length) >= end]
    if not ahead:
        return None
    first = floor(ahead[0], length)
    while cut := [slot for slot, lasts in slots if slot < first < slot + lasts]:
        first = floor(cut[0], length)
    return Span(max(start, first), max(slot + lasts for slot, lasts in slots))


def recount_windows(
    context: Context, windows: Iterable[Window], span: Span, places: Span, position: Position
) -> Generator[None, None, Recounted]:
    """Count the rows of a span in some windows; yield while reading."""
    job, source, ledger, _ = context
    again, query = Recounted(folded_within_limit(job, ledger)), job.query
    counted = Span(max(span.start, places.start), min(span.end, places.end))  # rows ahead may be counted one day

    def read(window: Window) -> tuple[tuple[list[Row], Words], Size]:
        with source.snapshot(query):
            new = uncounted(job, window, position, source, counted)
            if query.sql is not None:  # it alone knows which are in the span
                read_alone = ((one, source.read(query, Window(one - 1, one), counted)) for one in ids_of(new))
                new = words_of(one for one, rows in read_alone if any(row.bucket is not None for row in rows))
            rows = source.read(query, window, span)
        return (rows, new), size_of_rows(rows)

    for one in windows:
        for window, (rows, new) in each_window(job, one.after, one.upto, read, source=source):
            fold((row for row in rows if row.bucket is not None), places, job.kinds, into=again.folded)
            widen(again.ids, {row.bucket for row in rows if row.bucket is not None and row.bucket in places}, window)
            again.new = union_of(again.new, new)
            yield
    yield from read_undivided(job, again.ids, places, source=source, into=again.folded)
    return again


def slots_without_rows(context: Context, span: Span, position: Position) -> Generator[None, None, list[Slot]]:
    """Find the slots of which counted rows are gone."""
    job, source, ledger, _ = context
    slots = [slot for slot in outermost(ledger.slots(job.name, span=span)) if slot.slot >= span.start]
    slots = [slot for slot in slots if slot.after < slot.upto]
    if not slots:
        return []
    low, high = min(slot.after for slot in slots), max(slot.upto for slot in slots)
    counted, settled = position.counted, ledger.settled(job.name)

    # ids that no record covers count as gone; of settled ids the number of rows is known
    known_from = settled[0].after if settled else counted.floor
    gone = [Window(0, known_from)] if low < known_from else []
    for after, upto, rows in settled:
        if after < high and upto > low and source.count(job.query, Window(after, upto)) < rows:
            gone.append(Window(after, upto))
        yield

    def read(window: Window) -> tuple[Words, Size]:
        words = source.words(job.query, window)
        return words, Size(size_of(words))

    # above the floor each counted id is known
    for window, words in each_window(job, max(low, counted.floor), high, read, source=source):
        known = counted.within(window.after, window.upto)
        lost = ids_of({key: bits & ~words.get(key, 0) for key, bits in known.items()})
        gone += [Window(lost[0] - 1, lost[-1])] if lost else []
        yield
    return [slot for slot in slots if any(one.after < slot.upto and slot.after < one.upto for one in gone)]


def lookback_from(job: Job, progress: Progress) -> int:
    """Return the start of the span that each look recounts, and whose totals may fall."""
    return floor(progress.complete_until - (job.lookback or 0), job.query.bucket)


def low_for(context: Context, span: Span, new: Words) -> int | None:
    """Return the `low` of a job with lookback that reads rows which a recount has added; None if it stays."""
    job, progress = context.job, context.ledger.progress(context.job.name)
    if job.lookback is None or not new or progress is None or span.end <= lookback_from(job, progress):
        return None
    return min(progress.low, ids_of(new)[0] - 1)


def first_whole(progress: Progress, place: Span) -> int:
    """Return the start of a slot, or its end if it has rows from before `since`, which cannot be recounted.

    Such rows belong to another table, or were skipped by a recount: its total would fall. A new job has none.
    """
    is_whole = progress.since <= progress.begins or not place.start < progress.since < place.end
    return place.start if is_whole else place.end


def _whole_from(job: Job, start: int, progress: Progress, now: int) -> int:
    """Return the first time at or after `start` at which no slot of any archive is cut, and no former bucket."""
    start = uncut_from(start, job.query.bucket, progress.multiple)
    while (place := place_of(job.archives, start, now)) is not None and place[0] < start:
        start = uncut_from(place[0] + place[1], job.query.bucket, progress.multiple)
    return start


def received(job: Job, slot: int, length: int, ledger: Ledger, now: int) -> Span:
    """Return the slot that receives a slot or bucket now: a coarser one may have taken its place."""
    place = place_of(job.archives, slot, now)
    stored = [(one.slot, one.step) for one in ledger.slots(job.name, span=Span(slot, slot + 1))]
    spans = [Span(start, start + step) for start, step in [(slot, length), *stored, *([place] if place else [])]]
    return Span(min(span.start for span in spans), max(span.end for span in spans))
