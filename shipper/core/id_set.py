"""Exact, compressed sets of ids.

Strategy: a set consists of *words* of 64 ids each, because a database can return the ids of a range in this form with
at most one row for 64 ids. Words are packed into immutable segments: a set that grows shares all segments but the last
one with the set before, and only changed segments are stored. Where no id is missing, the set is two numbers.
"""

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from shipper.core.model import MAX_ID, adjoined

BITS = 64
FULL = 2**BITS - 1
SEGMENT_WORDS = 1024
"""Words of one segment: at most 16 KB, about 2 KB packed. A record writes only changed segments."""
DECODED = 256  # unpacked segments that are cached: at most 25 MB
ROWS_PER_GAP = 4
"""Reading this number of rows costs as much as looking up one id that may not be there (measured)."""

Words = Mapping[int, int]
"""Ids as {id // 64: bitmap of the 64 ids}."""


def words_of(ids: Iterable[int]) -> dict[int, int]:
    """Return the words of ids."""
    words: dict[int, int] = {}
    for identity in ids:
        key = identity // BITS
        words[key] = words.get(key, 0) | 1 << identity % BITS
    return words


def ids_of(words: Words) -> list[int]:
    """Return the ids of words, in order."""
    return [key * BITS + bit for key in sorted(words) for bit in _bits(words[key])]


def size_of(words: Words) -> int:
    """Return the number of ids in words."""
    return sum(map(int.bit_count, words.values()))


def union_of(one: Words, other: Words) -> dict[int, int]:
    """Return the ids that are in either."""
    union = dict(one)
    for key, bits in other.items():
        union[key] = union.get(key, 0) | bits
    return union


def all_of(after: int, upto: int) -> dict[int, int]:
    """Return the words of all ids in (after, upto]."""
    first, last = (after + 1) // BITS, upto // BITS
    return clipped(dict.fromkeys(range(first, last + 1), FULL), after, upto)


def clipped(words: Words, after: int, upto: int) -> dict[int, int]:
    """Return the ids of words that are in (after, upto]."""
    first, last = (after + 1) // BITS, upto // BITS
    inside = {key: bits for key, bits in words.items() if first <= key <= last}
    if first in inside:
        inside[first] &= FULL << (after + 1) % BITS & FULL
    if last in inside:
        inside[last] &= (2 << upto % BITS) - 1
    return {key: inside[key] for key in inside if inside[key]}


class Segment(NamedTuple):
    """Packed words of a set, from the word `start` up to the start of the next segment."""

    start: int
    words: int
    ids: int
    packed: bytes

    @property
    def unpacked(self) -> Words:
        """Words of the segment."""
        return unpack(self.packed)


class Gaps(NamedTuple):
    """Ids that are not counted yet: as ranges to scan, and as single ids to look up, whichever is cheaper."""

    ranges: list[tuple[int, int]]
    """Each (after, upto]."""
    ids: list[int]


@dataclass(frozen=True, slots=True)
class IdSet:
    """Set of ids above a floor. It knows nothing about ids at or below the floor."""

    floor: int
    solid: int
    """All ids in (floor, solid] are in the set."""
    segments: tuple[Segment, ...] = ()
    """Ids above solid."""

    def missing(self, words: Words) -> dict[int, int]:
        """Return the ids above the floor that are in words but not in the set."""
        missing: dict[int, int] = {}
        for segment, part in self._shares(clipped(words, self.solid, MAX_ID)):
            known = segment.unpacked if segment is not None else {}
            missing |= {key: rest for key, bits in part.items() if (rest := bits & ~known.get(key, 0))}
        return missing

    def added(self, words: Words) -> "IdSet":
        """Return the set with more ids; ids at or below the floor are ignored."""
        words = clipped(words, self.solid, MAX_ID)
        if not words:
            return self
        touched = dict(self._shares(words))
        segments = [one for one in self.segments if one not in touched]
        for segment, part in touched.items():
            known, start = (segment.unpacked, segment.start) if segment is not None else ({}, min(part))
            segments += _packed(union_of(known, part), start)
        return replace(self, segments=tuple(sorted(segments)))

    def extended(self, after: int, upto: int) -> "IdSet":
        """Return the set with all ids of (after, upto]; it has none above `after` yet."""
        if self.solid == after and not self.segments:
            return replace(self, solid=upto)
        return self.added(all_of(after, upto))

    def raised(self, floor: int) -> "IdSet":
        """Return the set without the ids at or below a new floor."""
        if floor <= self.floor:
            return self
        if floor <= self.solid:
            return replace(self, floor=floor)
        kept: list[Segment] = []
        for segment, end in self._ends():
            if segment.start * BITS > floor:
                kept.append(segment)
            elif end > floor:
                kept += _packed(clipped(segment.unpacked, floor, end), (floor + 1) // BITS)
        return IdSet(floor, floor, tuple(kept))

    def collapsed(self, upto: int) -> "IdSet":
        """Return the set as two numbers if no id up to `upto`, its largest, is missing."""
        return IdSet(self.floor, upto) if self.segments and self.size == upto - self.solid else self

    @property
    def size(self) -> int:
        """Number of ids above solid."""
        return sum(segment.ids for segment in self.segments)

    @property
    def words(self) -> int:
        """Number of words in its segments."""
        return sum(segment.words for segment in self.segments)

    def within(self, after: int, upto: int) -> dict[int, int]:
        """Return the ids of the set in (after, upto]."""
        words = all_of(max(after, self.floor), min(upto, self.solid)) if upto > self.floor < self.solid else {}
        for segment, end in self._ends():
            if segment.start * BITS <= upto and end > after:
                words = union_of(words, clipped(segment.unpacked, after, upto))
        return words

    def count(self, after: int, upto: int) -> int:
        """Return the number of its ids in (after, upto]."""
        ids = max(0, min(upto, self.solid) - max(after, self.floor))
        for segment, end in self._ends():
            if after < segment.start * BITS and end <= upto:
                ids += segment.ids
            elif segment.start * BITS <= upto and end > after:
                ids += size_of(clipped(segment.unpacked, after, upto))
        return ids

    def gaps(self, after: int, upto: int) -> Gaps:
        """Return the ids in (after, upto] that are not in the set, in the form that is cheapest to ask for."""
        ranges: list[tuple[int, int]] = []
        ids: list[int] = []
        begins = max(after, self.solid)
        for segment, end in [*self._ends(), (Segment(0, 0, 0, b""), upto)]:
            last = min(end, upto)
            if last <= begins:
                continue
            words = clipped(segment.unpacked, begins, last) if segment.words else {}
            rows, gaps = size_of(words), last - begins - size_of(words)
            if gaps and rows >= ROWS_PER_GAP * gaps:
                ids += ids_of({key: ~words.get(key, 0) & bits for key, bits in all_of(begins, last).items()})
            elif gaps:
                ranges.append((begins, last))
            begins = last
        return Gaps(adjoined(ranges), ids)

    def _ends(self) -> Iterator[tuple[Segment, int]]:
        """Yield each segment with the last id before the next segment."""
        starts = [segment.start * BITS for segment in self.segments[1:]]
        yield from zip(self.segments, [*(start - 1 for start in starts), MAX_ID], strict=False)

    def _shares(self, words: Words) -> Iterator[tuple[Segment | None, dict[int, int]]]:
        """Divide words by the segments that they belong to; None while there is no segment."""
        starts = [segment.start for segment in self.segments]
        shares: dict[int, dict[int, int]] = {}
        for key, bits in words.items():
            shares.setdefault(max(0, bisect_right(starts, key) - 1), {})[key] = bits
        for number, part in shares.items():
            yield self.segments[number] if self.segments else None, part


def _packed(words: Words, start: int) -> list[Segment]:
    """Pack words into segments; the first one begins at start, or at the first word if that is lower."""
    keys = sorted(words)
    segments = []
    for number in range(0, len(keys), SEGMENT_WORDS):
        part = keys[number : number + SEGMENT_WORDS]
        first = part[0] if number else min(start, part[0])
        chosen = tuple((key, words[key]) for key in part)
        segments.append(Segment(first, len(part), sum(bits.bit_count() for _, bits in chosen), _pack(chosen)))
    return segments


@lru_cache(DECODED)  # jobs on one table mostly have equal sets
def _pack(words: tuple[tuple[int, int], ...]) -> bytes:
    keys = [key for key, _ in words]
    steps = [keys[0], *(key - before for before, key in pairwise(keys))]
    return zlib.compress(struct.pack(f"<{2 * len(words)}Q", *steps, *(bits for _, bits in words)), 1)


@lru_cache(DECODED)
def unpack(packed: bytes) -> Words:
    """Return the words of a segment; callers must not change them."""
    decompressor = zlib.decompressobj()
    raw = decompressor.decompress(packed, 2 * SEGMENT_WORDS * 8)
    if decompressor.unconsumed_tail:
        raise ValueError("a segment has too many ids")
    numbers = struct.unpack(f"<{len(raw) // 8}Q", raw)
    half, key = len(numbers) // 2, 0
    words: dict[int, int] = {}
    for step, bits in zip(numbers[:half], numbers[half:], strict=True):
        key += step
        words[key] = bits
    return words


def segment_of(start: int, packed: bytes) -> Segment:
    """Return the segment of stored bytes."""
    words = unpack(packed)
    return Segment(start, len(words), size_of(words), packed)


def _bits(word: int) -> Iterator[int]:
    while word:
        lowest = word & -word
        yield lowest.bit_length() - 1
        word ^= lowest
