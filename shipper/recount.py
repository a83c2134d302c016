"""Core. Whole slots counted again from the source, and their totals replaced.

Strategy: a recount is for what changes instead of appearing: the first slot of a new job, another definition, rows that
are completed later, and what an operator asks for. It reads ids at or below captured, and what it finds in its slots is
counted from then on: in the same transaction these ids join those that are, so a row that appears later is added once.

Nothing automatic ever lowers a total because rows are gone. Which ids were counted is known, or, of old ones, how many
in which range; a slot whose rows are among ids of which some are gone stays as it is, and so do those before it; that
is told.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from shipper.fold import Folded, fold, shown
from shipper.idset import Words, ids_of, joined_words, size_of
from shipper.ledger import Done, LateIds, Ledger, Slot, outermost
from shipper.model import ALWAYS, Cause, Ids, Job, Moment, Observation, Progress, Row, Span, Window
from shipper.position import Position
from shipper.record import replace as replace_totals
from shipper.retention import ceil, placed
from shipper.scan import Captured, Noticed, Source, each_window, scan, walk_back


@dataclass(slots=True)
class Again:
    """What is counted again: by bucket and group, and which ids were not counted before."""

    folded: Folded = field(default_factory=Folded)
    new: dict[int, int] = field(default_factory=dict)


def recount(
    job: Job, horizon: Observation, progress: Progress, *, source: Source, ledger: Ledger, moment: Moment
) -> Iterator[Captured | Noticed | None]:
    """Count all slots from progress.recount_from on, over the ids that are captured; yield None while reading."""
    assert progress.recount_from is not None
    captured, position = progress.captured, ledger.position(job.name)
    place = _received(job, progress.recount_from, ledger, moment.now)
    span = Span(first_whole(progress, place), ALWAYS.end)
    if span.start != place.start:
        yield Noticed("recount.limited", {"start": place.start, "end": place.end, "slots": 1})
    known = ledger.lowest(job.name, span)
    # rows that were no rows of the job when it saw those of the oldest slot may be below
    low = walk_back(job, known[1] if known else captured, span, source=source)

    # slots that rows are gone of, and all before them, stay as they are
    left = yield from _lacking(job, span, position, source=source, ledger=ledger)
    if left is not None:
        yield Noticed("recount.limited", {"start": span.start, "end": left.end, "slots": left.slots})
        span = Span(max(span.start, ceil(left.end, job.query.bucket)), ALWAYS.end)

    places = shown(job, now=moment.now, source_time=horizon.time)
    windows = [Window(low, captured)] if low < captured else []
    again = yield from counted_again(job, windows, span, places, position, source=source)
    done = Done(
        position.with_ids(again.new),
        seen_from=low,
        since=None if left is None and span.start == place.start else span.start,
        is_recounted=True,
        shows={Cause.FUTURE: Span(span.start, places.end)},
    )
    tally = replace_totals(job, span, again.folded, done, window=None, ledger=ledger, moment=moment)
    yield Captured(None, 0, tally)


def counted_again(
    job: Job, windows: Iterable[Window], span: Span, places: Span, position: Position, *, source: Source
) -> Generator[None, None, Again]:
    """Count the rows of a span among the ids of windows; yield while reading."""
    again, query = Again(), job.query

    def read(window: Window) -> tuple[tuple[list[Row], Words], int]:
        with source.snapshot(query):
            asks = position.has_gaps and window.upto > position.counted.floor
            new: Words = _new_in(job, window, span, position, source) if asks else {}
            rows = source.read(query, window, span)
        return (rows, new), sum(row.rows for row in rows)

    for one in windows:
        for _, (rows, new) in each_window(job, one.after, one.upto, read, source=source):
            fold((row for row in rows if row.bucket is not None), places, job.kinds, into=again.folded)
            again.new = joined_words(again.new, new)
            yield
    return again


def _new_in(job: Job, window: Window, span: Span, position: Position, source: Source) -> dict[int, int]:
    """Find ids of rows in a span that are not counted yet."""
    query = job.query
    if query.sql is None:
        return position.counted.missing(source.words(query, window, span))
    new = position.counted.missing(source.words(query, window))  # only the statement knows which are in the span
    of_span = (one for one in ids_of(new) if any(row.bucket is not None for row in _one(job, one, span, source)))
    return {one // 64: new[one // 64] & 1 << one % 64 for one in of_span}


def _one(job: Job, identity: int, span: Span, source: Source) -> list[Row]:
    return source.read(job.query, Window(identity - 1, identity), span)


class _Left(NamedTuple):
    """What a recount leaves as it is: everything up to an end, of which so many slots lack rows."""

    end: int
    slots: int


def _lacking(
    job: Job, span: Span, position: Position, *, source: Source, ledger: Ledger
) -> Generator[None, None, _Left | None]:
    """Look for slots whose rows are not all there any more; None where there are none."""
    slots = [slot for slot in outermost(ledger.slots(job.name, span=span)) if slot.slot >= span.start]
    slots = [slot for slot in slots if slot.after < slot.upto]
    if not slots:
        return None
    low, counted = min(slot.after for slot in slots), position.counted
    gone: list[Window] = []
    for after, upto, rows in ledger.settled(job.name):
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
    return _Left(max(slot.slot + slot.step for slot in lack), len(lack)) if lack else None


def rows_of_slots(job: Job, span: Span, *, source: Source, ledger: Ledger) -> Iterator[list[Row]]:
    """Read the rows of a job without a time column: each of its slots is a range of ids, without and with late ones."""
    yield from rows_by_ids(job, ledger.slots(job.name, span=span), ledger.late_ids(job.name), span, source=source)


def rows_by_ids(
    job: Job, slots: Sequence[Slot], late: Sequence[LateIds], span: Span, *, source: Source
) -> Iterator[list[Row]]:
    """Read the rows of slots that begin in a span; ids that came late belong to the slot in which they were counted."""
    elsewhere = sorted(one for each in late for one in ids_of(each.words))
    for slot in outermost(slots):
        if slot.slot not in span or slot.after >= slot.upto:
            continue
        after = slot.after
        for one in [*(one for one in elsewhere if slot.after < one <= slot.upto), slot.upto + 1]:
            for _, rows in scan(job, after, one - 1, source=source):
                yield [row._replace(bucket=slot.slot) for row in rows]
            after = one
    for each in late:
        if each.slot in span:
            for part in rows_to_read(job, each.words):
                yield [row._replace(bucket=each.slot) for row in source.read(job.query, part)]


def rows_to_read(job: Job, words: Words, position: Position | None = None) -> list[Window | Ids]:
    """Say how to read some ids: by name; or, by a statement of one's own, in runs without an id that is counted.

    Without a position each by itself.
    """
    ids = ids_of(words)
    if job.query.sql is None:
        return [tuple(ids)] if ids else []
    runs: list[Window | Ids] = []
    first = None
    for one, following in pairwise([*ids, None]):
        assert one is not None
        first = one if first is None else first
        if following is None or position is None or position.counted.within(one, following - 1):
            runs.append(Window(first - 1, one))
            first = None
    return runs


def first_whole(progress: Progress, place: Span) -> int:
    """Return where a slot begins; where it ends if it has rows of before `since` that cannot be counted again.

    Those are of another table, or were left: its total would be lowered. A new job has none.
    """
    is_whole = progress.since <= progress.begins or not place.start < progress.since < place.end
    return place.start if is_whole else place.end


def _received(job: Job, slot: int, ledger: Ledger, now: int) -> Span:
    """Return the slot that receives this one by now: whole, it may take the place of finer ones."""
    place = placed(job.archives, slot, now)
    there = [(one.slot, one.step) for one in ledger.slots(job.name, span=Span(slot, slot + 1))]
    spans = [
        Span(start, start + step) for start, step in [(slot, job.query.bucket), *there, *([place] if place else [])]
    ]
    return Span(min(span.start for span in spans), max(span.end for span in spans))
