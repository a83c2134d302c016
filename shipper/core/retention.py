"""Carbon's archives: which archive stores a slot, and when the slot may be sent.

Strategy: Whisper stores a datapoint in the finest archive that covers its age. A datapoint too old for the finest
archive overwrites the sum of its slot in the next coarser one: the count of a minute would replace the sum of its hour.
A total therefore belongs to the archive that will store it, and when a slot reaches the end of an archive its totals
are merged into a slot of the next one. Carbon chooses the archive by its own clock, when it writes, and not when it
reads from the socket: near the end of an archive nothing is sent.

Only where a bucket is at least as long as a coarser step, both archives hold the same value, and either may store it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from shipper.core.model import Archive, Span, adjoined

EDGE_SECONDS = 600
"""Margin around the end of an archive: the clocks may differ, and Carbon's queue delays its writes."""
ROOM_SECONDS = 2 * 3600
"""Margin before the end of the last archive: a total must be young enough for it when its last replay is due."""


def floor(time: int, length: int) -> int:
    """Return the start of the slot or bucket of that length that holds a time, in epoch seconds."""
    return time - time % length


def after(time: int, length: int) -> int:
    """Return the start of the first slot or bucket of that length that begins after a time."""
    return floor(time, length) + length


def ceil(time: int, length: int) -> int:
    """Return the start of the first slot or bucket of that length that begins at a time or after it."""
    return -(-time // length) * length


def uncut_from(time: int, length: int, former: int) -> int:
    """Return the first time at or after the end of a former bucket at which a bucket begins, and no former one is cut.

    All former buckets end at multiples of `former`.
    """
    return time if time % length == 0 else ceil(time, math.lcm(length, former))


def coalesce(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, those that adjoin or overlap as one."""
    return [Span(*edges) for edges in adjoined((span.start, span.end) for span in spans)]


class Part(NamedTuple):
    """A range of time for which one archive answers, in complete slots of its step."""

    span: Span
    step: int


def parts(archives: Sequence[Archive], span: Span, now: int) -> list[Part]:
    """Cut a range of time where archives end, oldest part first, without slots that are about to leave an archive."""
    ranges, newest = [], span.end
    for archive, coarser in pairwise([*archives, archives[-1]]):
        # An archive has the slots that are still young enough for it. All slots that make one of the next archive leave
        # it together, so its part begins with a slot of the next; the last archive needs room for replays.
        oldest = now - archive.duration + EDGE_SECONDS
        if archive is coarser:
            oldest = oldest_shown(archives, now)
        start = max(ceil(span.start, archive.step), after(oldest, coarser.step))

        # it ends where the finer one begins, on the other side of the margin around the end of that one
        end = floor(min(span.end, newest), archive.step)
        if start < end:
            ranges.append(Part(Span(start, end), archive.step))
        newest = now - archive.duration - EDGE_SECONDS
    return ranges[::-1]


def without(part: Part, spans: Iterable[Span]) -> list[Part]:
    """Return the rest of a part without the slots that spans touch."""
    left = [part.span]
    for span in spans:
        start, end = floor(span.start, part.step), ceil(span.end, part.step)
        pieces = [Span(one.start, min(one.end, start)) for one in left]
        pieces += [Span(max(one.start, end), one.end) for one in left]
        left = [piece for piece in pieces if piece.start < piece.end]
    return [part._replace(span=one) for one in sorted(left, key=lambda one: one.start)]


def has_left(archives: Sequence[Archive], slot: int, step: int, now: int) -> bool:
    """Whether a slot is too old for the archive with that step, or is about to be.

    All slots that make one slot of the next archive leave together, with the first of them. No archive has slots that
    are shorter than those of the finest one.
    """
    if step < archives[0].step:
        return True
    index = _index(archives, step)
    if index + 1 < len(archives):
        slot = floor(slot, archives[index + 1].step)
    return now - slot >= archives[index].duration - EDGE_SECONDS


def is_ahead(slot: int, now: int) -> bool:
    """Whether a slot is so far ahead that Whisper would store it over one that the finest archive still shows."""
    return slot > now + EDGE_SECONDS


def is_due(archives: Sequence[Archive], slot: int, step: int, *, bucket: int, now: int) -> bool:
    """Whether a slot may be sent: all of it has left the next finer archive, so that Carbon stores it in this one.

    A slot of a single bucket may always be sent: both archives hold the same value.
    """
    index = _index(archives, step)
    return index == 0 or bucket % step == 0 or now - slot - step >= archives[index - 1].duration + EDGE_SECONDS


def due(archives: Sequence[Archive], now: int) -> Iterator[tuple[int, Span]]:
    """Yield, for each step, the span of slots that may be sent."""
    yield archives[0].step, Span(0, now + 1)
    for finer, archive in pairwise(archives):
        yield archive.step, Span(0, max(0, now - archive.step - finer.duration - EDGE_SECONDS + 1))


def oldest_in_finest(archives: Sequence[Archive], now: int) -> int:
    """Return the oldest slot that has not left the finest archive."""
    step = archives[min(1, len(archives) - 1)].step
    return max(0, after(now - archives[0].duration + EDGE_SECONDS, step))


def place_of(archives: Sequence[Archive], bucket: int, now: int) -> tuple[int, int] | None:
    """Return the slot and the step that a bucket belongs to; None when it is too old for all archives."""
    for archive in archives:
        slot = floor(bucket, archive.step)
        if not has_left(archives, slot, archive.step, now):
            return slot, archive.step
    return None


def enclosing(archives: Sequence[Archive], bucket: int, now: int) -> Span:
    """Return the span around a bucket that no merge will exceed within ROOM_SECONDS."""
    step = archives[0].step
    if has_left(archives, floor(bucket, step), step, now + ROOM_SECONDS):
        step = archives[-1].step
    start = floor(bucket, step)
    return Span(start, start + step)


def merge_target(archives: Sequence[Archive], slot: int, step: int) -> tuple[int, int] | None:
    """Return the slot and the step into which a slot is merged when it leaves its archive; None after the last."""
    index = 0 if step < archives[0].step else _index(archives, step) + 1
    return (floor(slot, archives[index].step), archives[index].step) if index < len(archives) else None


def oldest_shown(archives: Sequence[Archive], now: int) -> int:
    """Return the oldest bucket that can be delivered and replayed before the last archive drops it."""
    return now - archives[-1].duration + EDGE_SECONDS + ROOM_SECONDS


def _index(archives: Sequence[Archive], step: int) -> int:
    """Return the index of the archive with a step; a step of an earlier configuration belongs to the next finer one."""
    return next((n for n, archive in reversed([*enumerate(archives)]) if archive.step <= step), 0)
