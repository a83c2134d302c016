"""Carbon's archives: which of them receives a slot, and when it may be sent.

Strategy: a point that is older than the finest archive overwrites the sum that stands in the coarser one. So a
total belongs to the archive that will receive it, and once a slot reaches the end of an archive its totals are
merged into one of the next. Carbon decides by its own clock, when it writes: near an edge nothing is sent.

Only where a bucket is as long as the coarser archive's step, or longer, both archives hold the same number, and Carbon
may choose.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from shipper.core.model import Archive, Span

EDGE_SECONDS = 600
"""How far Carbon's clock and its queue may be off: keep so far from the edge of an archive."""
ROOM_SECONDS = 2 * 3600
"""What is captured must still be young enough for the last archive when its last replay is due."""


def floor(time: int, length: int) -> int:
    """Return the start of the slot or bucket of that length that holds time, epoch seconds."""
    return time - time % length


def after(time: int, length: int) -> int:
    """Return the start of the first slot or bucket of that length that begins after time."""
    return floor(time, length) + length


def ceil(time: int, length: int) -> int:
    """Return the start of the first slot or bucket of that length that begins at time, or after it."""
    return -(-time // length) * length


def coalesced(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, those that adjoin or overlap as one."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda one: one.start):
        before = found.pop() if found and span.start <= found[-1].end else span
        found.append(Span(before.start, max(before.end, span.end)))
    return found


class Part(NamedTuple):
    """A range of time for which one archive answers, in whole slots of its step."""

    span: Span
    step: int


def parts(archives: Sequence[Archive], span: Span, now: int) -> list[Part]:
    """Cut a range of time where archives end, oldest first, without the slots that are about to leave one."""
    found, newest = [], span.end
    for archive, coarser in pairwise([*archives, archives[-1]]):
        oldest = now - archive.duration + EDGE_SECONDS
        if archive is coarser:
            oldest = oldest_shown(archives, now)
        start = max(ceil(span.start, archive.step), after(oldest, coarser.step))
        end = floor(min(span.end, newest), archive.step)
        if start < end:
            found.append(Part(Span(start, end), archive.step))
        newest = now - archive.duration - EDGE_SECONDS
    return found[::-1]


def without(part: Part, spans: Iterable[Span]) -> list[Part]:
    """Return what is left of a part, in whole slots, when spans are taken out."""
    left = [part.span]
    for span in spans:
        start, end = floor(span.start, part.step), ceil(span.end, part.step)
        pieces = [Span(one.start, min(one.end, start)) for one in left]
        pieces += [Span(max(one.start, end), one.end) for one in left]
        left = [piece for piece in pieces if piece.start < piece.end]
    return [part._replace(span=one) for one in sorted(left, key=lambda one: one.start)]


def has_left(archives: Sequence[Archive], slot: int, step: int, now: int) -> bool:
    """Is the slot about to be, or already, beyond the archive with that step?

    All the slots that make one of the next archive leave together, with the first of them.
    """
    index = _index(archives, step)
    if index + 1 < len(archives):
        slot = floor(slot, archives[index + 1].step)
    return now - slot >= archives[index].duration - EDGE_SECONDS


def is_due(archives: Sequence[Archive], slot: int, step: int, *, bucket: int, now: int) -> bool:
    """Is the whole slot beyond the next finer archive, so that Carbon writes it where it belongs?

    Or does it hold one bucket only, so that it does not matter?
    """
    index = _index(archives, step)
    return index == 0 or bucket % step == 0 or now - slot - step >= archives[index - 1].duration + EDGE_SECONDS


def due(archives: Sequence[Archive], now: int) -> Iterator[tuple[int, int]]:
    """Yield, for each step, the newest slot that may be sent."""
    yield archives[0].step, now
    for finer, archive in pairwise(archives):
        yield archive.step, now - archive.step - finer.duration - EDGE_SECONDS


def placed(archives: Sequence[Archive], bucket: int, now: int) -> tuple[int, int] | None:
    """Return the slot and the step that a bucket belongs to; None when it is too old for all archives."""
    for archive in archives:
        slot = floor(bucket, archive.step)
        if not has_left(archives, slot, archive.step, now):
            return slot, archive.step
    return None


def enclosing(archives: Sequence[Archive], bucket: int, now: int) -> Span:
    """Return the span around a bucket whose edges no merge will cross within ROOM_SECONDS."""
    step = archives[0].step
    if has_left(archives, floor(bucket, step), step, now + ROOM_SECONDS):
        step = archives[-1].step
    start = floor(bucket, step)
    return Span(start, start + step)


def merged(archives: Sequence[Archive], slot: int, step: int) -> tuple[int, int] | None:
    """Return the slot and the step that a slot goes to when it has left its archive; None when it goes nowhere."""
    index = _index(archives, step) + 1
    return (floor(slot, archives[index].step), archives[index].step) if index < len(archives) else None


def oldest_shown(archives: Sequence[Archive], now: int) -> int:
    """Return the oldest bucket that can be shown, delivered and replayed."""
    return now - archives[-1].duration + EDGE_SECONDS + ROOM_SECONDS


def _index(archives: Sequence[Archive], step: int) -> int:
    """Find the archive of a step; a step that Carbon was configured with once belongs to the next coarser one."""
    return next((n for n, archive in enumerate(archives) if archive.step >= step), len(archives) - 1)
