"""Rows of a job's slots, and of single ids, read by the ids that the state keeps."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from shipper.core.errors import RowRefused
from shipper.core.id_set import Words, ids_of
from shipper.core.ledger import LateIds, Slot
from shipper.core.model import ALWAYS, Ids, Job, Row, Span, Window
from shipper.core.position import Position
from shipper.core.rows.table import Size, Source, each_window, size_of_rows


def outermost(slots: Sequence[Slot]) -> Iterator[Slot]:
    """Yield the slots that are not part of a slot of a coarser archive, which contains their rows."""
    places = {(slot.slot, slot.step) for slot in slots}
    steps = {slot.step for slot in slots}
    for slot in slots:
        if not any((slot.slot - slot.slot % step, step) in places for step in steps if step > slot.step):
            yield slot


def rows_by_ids(
    job: Job,
    slots: Sequence[Slot],
    late: Sequence[LateIds],
    span: Span,
    *,
    source: Source,
    position: Position | None,
) -> Iterator[list[Row]]:
    """Read the rows of slots that begin in a span, of a job without a time column.

    Each slot is a range of ids; a late id belongs to the slot in which it was counted. With a position, rows
    that are not counted yet are left out.
    """
    elsewhere = [one for each in late for one in ids_of(each.words)]

    def read(window: Window) -> tuple[list[Row], Size]:
        return read_counted(job, window, source=source, position=position, elsewhere=elsewhere)

    # the range of each slot, then the late ids
    for slot in outermost(slots):
        if slot.slot not in span or slot.after >= slot.upto:
            continue
        for _, rows in each_window(job, slot.after, slot.upto, read, source=source):
            yield [row._replace(bucket=slot.slot) for row in rows]
    for each in late:
        if each.slot in span:
            for part in rows_to_read(job, each.words):
                yield [row._replace(bucket=each.slot) for row in _read(job, part, source)]


def read_counted(
    job: Job,
    window: Window,
    *,
    source: Source,
    position: Position | None,
    span: Span = ALWAYS,
    elsewhere: Sequence[int] = (),
) -> tuple[list[Row], Size]:
    """Read the rows of a window, and their size, without some ids, and without rows that are not counted yet."""
    rows: list[Row] = []
    timed = None if job.query.time is None else span  # rows without a time are in no span, and there may be many
    with source.snapshot(job.query):
        new = [] if position is None else ids_of(uncounted(job, window, position, source, timed))
        # between the ids that are left out
        after = window.after
        for one in [*sorted({one for one in (*elsewhere, *new) if one in window}), window.upto + 1]:
            if after < one - 1:
                rows += source.read(job.query, Window(after, one - 1), span)
            after = one
    return rows, size_of_rows(rows)


def _read(job: Job, part: Window | Ids, source: Source) -> list[Row]:
    """Read some ids; if one of them is unreadable, each in turn."""
    try:
        return source.read(job.query, part)
    except RowRefused as error:
        ids = (part.upto,) if isinstance(part, Window) else part
        if len(ids) > 1:
            return [row for one in ids for row in _read(job, (one,), source)]
        source.set_aside(job.query, ids[0], error)
        return source.read(job.query, part)


def uncounted(job: Job, window: Window, position: Position, source: Source, span: Span | None) -> Words:
    """Return the ids of late rows in a window that are not counted yet; with a span only of rows in it.

    With custom sql all of them: it alone knows the times.
    """
    if not position.has_gaps or window.upto <= position.counted.floor:
        return {}
    within = span if job.query.sql is None else None
    return position.counted.missing(source.words(job.query, window, within))


def rows_to_read(job: Job, words: Words, position: Position | None = None) -> list[Window | Ids]:
    """Return how to read some ids: as a list; with custom sql as windows that contain no id that is counted already.

    Without a position, each id is a window.
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
