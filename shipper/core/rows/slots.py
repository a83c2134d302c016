"""Rows of a job's slots, and of single ids, read by the ids that the state keeps."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from shipper.core.id_set import Words, ids_of
from shipper.core.ledger import LateIds, Ledger, Slot
from shipper.core.model import Ids, Job, Row, Span, Window
from shipper.core.position import Position
from shipper.core.rows.table import Source, each_window


def outermost(slots: Sequence[Slot]) -> Iterator[Slot]:
    """Yield the slots that are not part of one of a coarser archive, which has their rows, too."""
    places = {(slot.slot, slot.step) for slot in slots}
    steps = {slot.step for slot in slots}
    for slot in slots:
        if not any((slot.slot - slot.slot % step, step) in places for step in steps if step > slot.step):
            yield slot


def rows_of_slots(job: Job, span: Span, *, source: Source, ledger: Ledger) -> Iterator[list[Row]]:
    """Read the rows of a job without a time column: each of its slots is a range of ids, without and with late ones."""
    position = ledger.position(job.name)
    slots, late = ledger.slots(job.name, span=span), ledger.late_ids(job.name)
    yield from rows_by_ids(job, slots, late, span, source=source, position=position)


def rows_by_ids(
    job: Job,
    slots: Sequence[Slot],
    late: Sequence[LateIds],
    span: Span,
    *,
    source: Source,
    position: Position | None = None,
) -> Iterator[list[Row]]:
    """Read the rows of slots that begin in a span; ids that came late belong to the slot in which they were counted.

    With a position, rows that it has not counted yet are left out.
    """
    elsewhere = [one for each in late for one in ids_of(each.words)]

    def read(window: Window) -> tuple[list[Row], int]:
        found: list[Row] = []
        with source.snapshot(job.query):
            new = [] if position is None else _uncounted(job, window, position, source)
            after = window.after
            for one in [*sorted({one for one in (*elsewhere, *new) if one in window}), window.upto + 1]:
                if after < one - 1:
                    found += source.read(job.query, Window(after, one - 1))
                after = one
        return found, sum(row.rows for row in found)

    for slot in outermost(slots):
        if slot.slot not in span or slot.after >= slot.upto:
            continue
        for _, rows in each_window(job, slot.after, slot.upto, read, source=source):
            yield [row._replace(bucket=slot.slot) for row in rows]
    for each in late:
        if each.slot in span:
            for part in rows_to_read(job, each.words):
                yield [row._replace(bucket=each.slot) for row in source.read(job.query, part)]


def _uncounted(job: Job, window: Window, position: Position, source: Source) -> list[int]:
    """Find ids of rows that appeared in a window and are to be counted as late ones."""
    if not position.has_gaps or window.upto <= position.counted.floor:
        return []
    return ids_of(position.counted.missing(source.words(job.query, window)))


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
