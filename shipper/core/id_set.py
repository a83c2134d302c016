"""Sets of ids: exact, small, and as cheap to add to as to ask.

Strategy: a set is kept as *words* of 64 ids each, because that is how a database tells which ids a range holds: at
most one row for 64 of them. Words are packed into segments, which never change: a set that grows shares all segments
but the last one with the set before, so only what changed is stored. Where no id is missing there is nothing to keep
but a number.
"""

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from shipper.core.model import MAX_ID

BITS = 64
FULL = 2**BITS - 1
SEGMENT_WORDS = 1024
"""A record writes only the segments that changed; so many words are at most 16 KB, packed 2 KB mostly."""
DECODED = 256  # segments are kept as they are worked with: 25 MB at most
ROWS_PER_GAP = 4
"""To look at that many rows costs as much as to look for one id that may not be there: measured, exactness by words."""

Words = Mapping[int, int]
"""Ids by id // 64: a bit for each id in it."""


def words_of(ids: Iterable[int]) -> dict[int, int]:
    """Return ids as words."""
    words: dict[int, int] = {}
    for identity in ids:
        key = identity // BITS
        words[key] = words.get(key, 0) | 1 << identity % BITS
    return words


def ids_of(words: Words) -> list[int]:
    """Return the ids of words, in order."""
    return [key * BITS + bit for key in sorted(words) for bit in _bits(words[key])]


def size_of(words: Words) -> int:
    """Count the ids of words."""
    return sum(map(int.bit_count, words.values()))


def union_of(one: Words, other: Words) -> dict[int, int]:
    """Return the ids of both."""
    found = dict(one)
    for key, bits in other.items():
        found[key] = found.get(key, 0) | bits
    return found


def all_of(after: int, upto: int) -> dict[int, int]:
    """Return all ids of (after, upto] as words."""
    first, last = (after + 1) // BITS, upto // BITS
    return clipped(dict.fromkeys(range(first, last + 1), FULL), after, upto)


def clipped(words: Words, after: int, upto: int) -> dict[int, int]:
    """Return the ids of words that are in (after, upto]."""
    first, last = (after + 1) // BITS, upto // BITS
    found = {key: bits for key, bits in words.items() if first <= key <= last}
    if first in found:
        found[first] &= FULL << (after + 1) % BITS & FULL
    if last in found:
        found[last] &= (2 << upto % BITS) - 1
    return {key: found[key] for key in found if found[key]}


class Segment(NamedTuple):
    """Some words of a set, packed: those from the word start on, up to where the next segment begins."""

    start: int
    words: int
    ids: int
    packed: bytes

    @property
    def unpacked(self) -> Words:
        """Return its words."""
        return unpack(self.packed)


class Gaps(NamedTuple):
    """Where ids may have appeared: ranges that are best read whole, and ids that are best looked up."""

    ranges: list[tuple[int, int]]
    """Each (after, upto]."""
    ids: list[int]


@dataclass(frozen=True, slots=True)
class IdSet:
    """Ids above a floor. Of those at or below it nothing is known, and nobody asks."""

    floor: int
    solid: int
    """All ids in (floor, solid] are in it."""
    segments: tuple[Segment, ...] = ()
    """Its ids above solid."""

    def missing(self, words: Words) -> dict[int, int]:
        """Return those of the ids above the floor that are not in it."""
        found: dict[int, int] = {}
        for segment, part in self._shares(clipped(words, self.solid, max(words, default=0) * BITS + BITS - 1)):
            known = segment.unpacked if segment is not None else {}
            found |= {key: rest for key, bits in part.items() if (rest := bits & ~known.get(key, 0))}
        return found

    def added(self, words: Words) -> "IdSet":
        """Return it with more ids; those at or below the floor are left out."""
        words = clipped(words, self.solid, max(words, default=0) * BITS + BITS - 1)
        if not words:
            return self
        touched = dict(self._shares(words))
        segments = [one for one in self.segments if one not in touched]
        for segment, part in touched.items():
            known, start = (segment.unpacked, segment.start) if segment is not None else ({}, min(part))
            segments += _packed(union_of(known, part), start)
        return replace(self, segments=tuple(sorted(segments)))

    def extended(self, after: int, upto: int) -> "IdSet":
        """Return it with all ids of (after, upto], of which none was in it and none is above."""
        if self.solid == after and not self.segments:
            return replace(self, solid=upto)
        return self.added(all_of(after, upto))

    def raised(self, floor: int) -> "IdSet":
        """Return it without what is at or below a floor."""
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
        """Return it in its shortest form, where no id up to its largest is missing."""
        return IdSet(self.floor, upto) if self.segments and self.size == upto - self.solid else self

    @property
    def size(self) -> int:
        """Count its ids above solid."""
        return sum(segment.ids for segment in self.segments)

    @property
    def words(self) -> int:
        """How many words it takes."""
        return sum(segment.words for segment in self.segments)

    def within(self, after: int, upto: int) -> dict[int, int]:
        """Return its ids in (after, upto]."""
        found = all_of(max(after, self.floor), min(upto, self.solid)) if upto > self.floor < self.solid else {}
        for segment, end in self._ends():
            if segment.start * BITS <= upto and end > after:
                found = union_of(found, clipped(segment.unpacked, after, upto))
        return found

    def count(self, after: int, upto: int) -> int:
        """Count its ids in (after, upto]."""
        found = max(0, min(upto, self.solid) - max(after, self.floor))
        for segment, end in self._ends():
            if after < segment.start * BITS and end <= upto:
                found += segment.ids
            elif segment.start * BITS <= upto and end > after:
                found += size_of(clipped(segment.unpacked, after, upto))
        return found

    def gaps(self, after: int, upto: int) -> Gaps:
        """Say where in (after, upto] ids may have appeared that are not in it."""
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
            elif gaps and ranges and ranges[-1][1] == begins:
                ranges.append((ranges.pop()[0], last))
            elif gaps:
                ranges.append((begins, last))
            begins = last
        return Gaps(ranges, ids)

    def _ends(self) -> Iterator[tuple[Segment, int]]:
        """Yield the segments, each with the last id before the next one begins."""
        starts = [segment.start * BITS for segment in self.segments[1:]]
        yield from zip(self.segments, [*(start - 1 for start in starts), MAX_ID], strict=False)

    def _shares(self, words: Words) -> Iterator[tuple[Segment | None, dict[int, int]]]:
        """Divide words by the segments that they belong to; None where there is none yet."""
        starts = [segment.start for segment in self.segments]
        shares: dict[int, dict[int, int]] = {}
        for key, bits in words.items():
            shares.setdefault(max(0, bisect_right(starts, key) - 1), {})[key] = bits
        for number, part in shares.items():
            yield self.segments[number] if self.segments else None, part


def _packed(words: Words, start: int) -> list[Segment]:
    """Pack words, in so many segments as it takes; the first begins at start, or at the first word before."""
    keys = sorted(words)
    found = []
    for number in range(0, len(keys), SEGMENT_WORDS):
        part = keys[number : number + SEGMENT_WORDS]
        first = part[0] if number else min(start, part[0])
        chosen = tuple((key, words[key]) for key in part)
        found.append(Segment(first, len(part), sum(bits.bit_count() for _, bits in chosen), _pack(chosen)))
    return found


@lru_cache(DECODED)  # jobs on one table have the same sets, mostly
def _pack(words: tuple[tuple[int, int], ...]) -> bytes:
    keys = [key for key, _ in words]
    steps = [keys[0], *(key - before for before, key in pairwise(keys))]
    return zlib.compress(struct.pack(f"<{2 * len(words)}Q", *steps, *(bits for _, bits in words)), 1)


@lru_cache(DECODED)
def unpack(packed: bytes) -> Words:
    """Return the words of a segment; nobody changes them."""
    raw = zlib.decompress(packed)
    numbers = struct.unpack(f"<{len(raw) // 8}Q", raw)
    half, key = len(numbers) // 2, 0
    words: dict[int, int] = {}
    for step, bits in zip(numbers[:half], numbers[half:], strict=True):
        key += step
        words[key] = bits
    return words


def segment_of(start: int, packed: bytes) -> Segment:
    """Return a segment as it was stored."""
    words = unpack(packed)
    return Segment(start, len(words), size_of(words), packed)


def _bits(word: int) -> Iterator[int]:
    while word:
        lowest = word & -word
        yield lowest.bit_length() - 1
        word ^= lowest
