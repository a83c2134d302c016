"""Indivisible measures: each slot with new rows is counted again, all of it.

Strategy: the same user may be in two windows of ids, so the distinct values of a bucket cannot be added up. A capture
adds its rows to all other measures, and notes in the same transaction how many rows the indivisible ones lack in which
slot. When such a slot is due, one statement counts all its rows: at first at once, then after each sixtieth of its
bucket, and once more when the bucket is over.

The gate is that of all recounts: if counted rows of a slot are gone, its value stays; recount.limited reports that.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shipper.core.errors import ShipperError
from shipper.core.ledger import Lacking
from shipper.core.model import Progress, Span, Window
from shipper.core.repair.recount import first_whole, received, slots_without_rows
from shipper.core.retention import place_of
from shipper.core.rows.folding import fold, folded_within_limit, read_span
from shipper.core.rows.table import CaptureStep, Context, Event
from shipper.core.rows.totals import complete, give_up, put_off

SHARE = 60
"""A slot that changes is counted again after this part of its bucket: a day after 24 minutes."""


class _Place(NamedTuple):
    """Slot that is due; a slot of a coarser archive contains finer ones."""

    span: Span
    window: Window | None
    """Window that contains the ids of its rows; None if it cannot be counted again."""
    rows: int
    """Number of rows that its indivisible measures lack."""
    recounted: int
    """Time of the last attempt, in epoch seconds; 0 if there was none."""


def recount_lacking(context: Context, progress: Progress) -> Iterator[CaptureStep | Event | None]:
    """Recount the indivisible measures of all slots that are due, newest first; yield None while reading."""
    job, _, ledger, moment = context
    if job.query.is_divisible:
        return
    places: dict[Span, _Place] = {}
    for one in ledger.lacking(job.name):
        if _is_due(one, job.query.bucket, moment.now):
            place = _place(context, one, progress)
            before = places.get(place.span)
            places[place.span] = place if before is None else before._replace(rows=before.rows + place.rows)
    # those that failed come last
    for adjoining in _adjoining(sorted(places.values(), key=lambda place: place.recounted), job.chunk):
        yield from _recount(context, adjoining, progress)


def _is_due(one: Lacking, bucket: int, now: int) -> bool:
    length = max(one.step, bucket)
    is_over = one.recounted < one.slot + length <= now
    return is_over or not one.recounted <= now < one.recounted + length // SHARE


def _place(context: Context, one: Lacking, progress: Progress) -> _Place:
    """Return the slot that has the rows of another one now."""
    job, _, ledger, moment = context
    span = received(job, one.slot, one.step, ledger, moment.now)
    # not a slot that has left the last archive, nor one of another definition or table
    has_place = place_of(job.archives, one.slot, moment.now) is not None
    is_whole = first_whole(progress, span) == span.start and span.end > progress.since
    slots = [each for each in ledger.slots(job.name, span=span) if each.after < each.upto]
    can_be_counted = has_place and is_whole and slots
    window = Window(min(each.after for each in slots), max(each.upto for each in slots)) if can_be_counted else None
    return _Place(span, window, one.rows, one.recounted)


def _adjoining(places: Iterable[_Place], chunk: int) -> list[list[_Place]]:
    """Group adjoining slots, newest first, as far as the ids of a group are at most a chunk."""
    groups: list[list[_Place]] = []
    for place in places:
        before = groups[-1] if groups else []
        window = _hull([*before, place]) if before and before[-1].span.start == place.span.end else None
        if window is not None and window.upto - window.after <= chunk:
            before.append(place)
        else:
            groups.append([place])
    return groups


def _hull(places: list[_Place]) -> Window | None:
    """Return the window that contains those of all places; None if one has none."""
    windows = [place.window for place in places if place.window is not None]
    if len(windows) < len(places):
        return None
    return Window(min(window.after for window in windows), max(window.upto for window in windows))


def _recount(context: Context, places: list[_Place], progress: Progress) -> Iterator[CaptureStep | Event | None]:
    """Recount adjoining slots in one transaction, or, if rows of some are gone, each by itself."""
    job, source, ledger, _ = context
    span, window, position = Span(places[-1].span.start, places[0].span.end), _hull(places), ledger.position(job.name)
    folded, is_complete = folded_within_limit(job, ledger), False
    if window is not None:
        try:
            fold(read_span(job, window, span, source=source), span, job.kinds, into=folded)
            yield None
            # the gate, after reading: rows that are there now were there before
            is_complete = not (yield from slots_without_rows(context, span, position))
        except ShipperError:  # a statement that takes too long must not run at each tick, nor keep others waiting
            put_off(context, span, position=position)
            raise
    if is_complete:
        zero_fill = Span(span.start, min(span.end, progress.zero_filled_until)) if job.zeros is not None else None
        yield CaptureStep(None, 0, complete(context, span, folded, position=position, zero_fill=zero_fill))
    elif len(places) > 1:
        for place in places:
            yield from _recount(context, [place], progress)
    else:
        yield Event("recount.limited", {"span": span, "slots": 1}, "warning")
        is_shown = any(kind.is_divisible for kind in job.kinds)
        yield CaptureStep(None, 0, give_up(context, span, 0 if is_shown else places[0].rows, position=position))
