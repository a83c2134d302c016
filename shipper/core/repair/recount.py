"""Whole slots counted again from the source, and their totals replaced.

Strategy: a recount is for what changes instead of appearing: the first slot of a new job, another definition, rows that
are completed later, and what an operator asks for. It reads ids at or below captured, and what it finds in its slots is
counted from then on: in the same transaction these ids join those that are, so a row that appears later is added once.

Nothing automatic ever lowers a total because rows are gone. Which ids were counted is known, or, of old ones, how many
in which range; a slot whose rows are among ids of which some are gone stays as it is, and so do those before it; that
is told.
"""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from shipper.core.id_set import Words, ids_of, size_of, union_of, words_of
from shipper.core.ledger import Ledger, RecordUpdate
from shipper.core.model import ALWAYS, Job, Now, Observation, Progress, RejectReason, Row, Span, Window
from shipper.core.position import Position
from shipper.core.retention import ceil, floor, placed
from shipper.core.rows.slots import outermost
from shipper.core.rows.table import CaptureStep, Event, Source, each_window, walk_back
from shipper.core.rows.totals import Folded, fold, shown_span
from shipper.core.rows.totals import replace as replace_totals


@dataclass(slots=True)
class Recounted:
    """What is counted again: by bucket and group, where its rows are, and which ids were not counted before."""

    folded: Folded = field(default_factory=Folded)
    ids: dict[int, Window] = field(default_factory=dict)
    """Among which ids the rows of each bucket are."""
    new: dict[int, int] = field(default_factory=dict)


def recount(
    job: Job, horizon: Observation, progress: Progress, *, source: Source, ledger: Ledger, moment: Now
) -> Iterator[CaptureStep | Event | None]:
    """Count all slots from progress.recount_from on, over the ids that are captured; yield None while reading."""
    assert progress.recount_from is not None
    captured, position = progress.captured, ledger.position(job.name)
    place = _received(job, progress.recount_from, ledger, moment.now)
    places, again = shown_span(job, now=moment.now, source_time=horizon.time), None
    ahead = _ahead(job, place.start, places.end, progress.bucket, ledger)
    end = ahead.start if ahead else ALWAYS.end
    start = first_whole(progress, place)
    span = Span(start, max(start, end))
    if span.start != place.start:
        yield Event("recount.limited", {"start": place.start, "end": place.end, "slots": 1}, "warning")
    if ahead:
        slots = len(ledger.slots(job.name, span=ahead))
        yield Event("recount.limited", {"start": ahead.start, "end": ahead.end, "slots": slots}, "warning")
    known = ledger.lowest(job.name, span)
    # rows that were no rows of the job when it saw those of the oldest slot may be below
    low = walk_back(job, known[1] if known else captured, span, source=source)
    # what each look counts again may be lowered
    until = end if job.lookback is None else min(end, lookback_from(job, progress))

    # slots that rows are gone of, and all before them, stay as they are; rows may go meanwhile, too
    windows = [Window(low, captured)] if low < captured else []
    while True:
        left = yield from _lacking(
            job, Span(span.start, until), position, bucket=progress.bucket, source=source, ledger=ledger
        )
        if left is not None:
            yield Event("recount.limited", {"start": span.start, "end": left.end, "slots": left.slots}, "warning")
            span = Span(_whole_from(job, left.end, moment.now), end)
        elif again is not None:
            break
        again = yield from recount_windows(job, windows, span, places, position, source=source)

    done = RecordUpdate(
        position.with_ids(again.new),
        since=None if span.start == place.start else span.start,
        is_recounted=True,
        bucket=job.query.bucket,
        shows={RejectReason.FUTURE: Span(span.start, min(end, places.end))},
    )
    tally = replace_totals(job, span, again.folded, done, window=None, ids=again.ids, ledger=ledger, moment=moment)
    yield CaptureStep(None, 0, tally)


def _ahead(job: Job, start: int, end: int, bucket: int, ledger: Ledger) -> Span | None:
    """Return the slots with buckets from an end on: since clocks were set back none of these can be shown.

    Neither a slot nor a bucket is cut.
    """
    length = job.query.bucket
    slots = [(slot.slot, max(slot.step, bucket)) for slot in ledger.slots(job.name, span=Span(start, ALWAYS.end))]
    ahead = [slot for slot, lasts in slots if slot + max(0, lasts - length) >= end]
    if not ahead:
        return None
    first = floor(ahead[0], length)
    while cut := [slot for slot, lasts in slots if slot < first < slot + lasts]:
        first = floor(cut[0], length)
    return Span(max(start, first), max(slot + lasts for slot, lasts in slots))


def recount_windows(
    job: Job, windows: Iterable[Window], span: Span, places: Span, position: Position, *, source: Source
) -> Generator[None, None, Recounted]:
    """Count the rows of a span among the ids of windows; yield while reading."""
    again, query = Recounted(), job.query
    counted = Span(max(span.start, places.start), min(span.end, places.end))  # what is ahead may be counted one day

    def read(window: Window) -> tuple[tuple[list[Row], Words], int]:
        with source.snapshot(query):
            asks = position.has_gaps and window.upto > position.counted.floor
            new: Words = _new_in(job, window, counted, position, source) if asks else {}
            rows = source.read(query, window, span)
        return (rows, new), sum(row.rows for row in rows)

    for one in windows:
        for window, (rows, new) in each_window(job, one.after, one.upto, read, source=source):
            fold((row for row in rows if row.bucket is not None), places, job.kinds, into=again.folded)
            for bucket in {row.bucket for row in rows if row.bucket is not None and row.bucket in places}:
                known = again.ids.get(bucket, window)
                again.ids[bucket] = Window(min(known.after, window.after), max(known.upto, window.upto))
            again.new = union_of(again.new, new)
            yield
    return again


def _new_in(job: Job, window: Window, span: Span, position: Position, source: Source) -> dict[int, int]:
    """Find ids of rows in a span that are not counted yet."""
    query = job.query
    if query.sql is None:
        return position.counted.missing(source.words(query, window, span))
    new = position.counted.missing(source.words(query, window))  # only the statement knows which are in the span
    of_span = (one for one in ids_of(new) if any(row.bucket is not None for row in _one(job, one, span, source)))
    return words_of(of_span)


def _one(job: Job, identity: int, span: Span, source: Source) -> list[Row]:
    return source.read(job.query, Window(identity - 1, identity), span)


class _Left(NamedTuple):
    """What a recount leaves as it is: everything up to an end, of which so many slots lack rows."""

    end: int
    slots: int


def _lacking(
    job: Job, span: Span, position: Position, *, bucket: int, source: Source, ledger: Ledger
) -> Generator[None, None, _Left | None]:
    """Look for slots whose rows are not all there any more; None where there are none.

    Each has one bucket of that length at least, which may be longer than those of now.
    """
    slots = [slot for slot in outermost(ledger.slots(job.name, span=span)) if slot.slot >= span.start]
    slots = [slot for slot in slots if slot.after < slot.upto]
    if not slots:
        return None
    low, counted, settled = min(slot.after for slot in slots), position.counted, ledger.settled(job.name)
    known_from = settled[0].after if settled else counted.floor
    gone = [Window(0, known_from)] if low < known_from else []  # of ids that it has never seen nobody knows
    for after, upto, rows in settled:
        if upto > low and source.count(job.query, Window(after, upto)) < rows:
            gone.append(Window(after, upto))
        yield

    def read(window: Window) -> tuple[Words, int]:
        there = source.words(job.query, window)
        return there, size_of(there)

    for window, there in each_window(job, max(low, counted.floor), position.captured, read, source=source):
        known = counted.within(window.after, window.upto)
        lost = ids_of({key: bits & ~there.get(key, 0) for key, bits in known.items()})
        gone += [Window(lost[0] - 1, lost[-1])] if lost else []
        yield
    lack = [slot for slot in slots if any(one.after < slot.upto and slot.after < one.upto for one in gone)]
    return _Left(max(slot.slot + max(slot.step, bucket) for slot in lack), len(lack)) if lack else None


def lookback_from(job: Job, progress: Progress) -> int:
    """Return from where on each look counts all again, and may lower it."""
    return floor(progress.complete_until - (job.lookback or 0), job.query.bucket)


def first_whole(progress: Progress, place: Span) -> int:
    """Return where a slot begins; where it ends if it has rows of before `since` that cannot be counted again.

    Those are of another table, or were left: its total would be lowered. A new job has none.
    """
    is_whole = progress.since <= progress.begins or not place.start < progress.since < place.end
    return place.start if is_whole else place.end


def _whole_from(job: Job, start: int, now: int) -> int:
    """Return from where slots are whole that are counted again from a time on: no archive's slot is cut."""
    start = ceil(start, job.query.bucket)
    while (place := placed(job.archives, start, now)) is not None and place[0] < start:
        start = ceil(place[0] + place[1], job.query.bucket)
    return start


def _received(job: Job, slot: int, ledger: Ledger, now: int) -> Span:
    """Return the slot that receives this one by now: whole, it may take the place of finer ones."""
    place = placed(job.archives, slot, now)
    there = [(one.slot, one.step) for one in ledger.slots(job.name, span=Span(slot, slot + 1))]
    spans = [
        Span(start, start + step) for start, step in [(slot, job.query.bucket), *there, *([place] if place else [])]
    ]
    return Span(min(span.start for span in spans), max(span.end for span in spans))
