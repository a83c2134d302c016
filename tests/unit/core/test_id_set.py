"""Sets of ids: exact at every edge of a word, a segment, a floor."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper.core import id_set as idset
from shipper.core.id_set import (
    BITS,
    FULL,
    IdSet,
    Segment,
    all_of,
    clipped,
    ids_of,
    segment_of,
    size_of,
    union_of,
    words_of,
)
from shipper.core.model import MAX_ID

SNOWFLAKE = 1_541_815_603_606_036_480
STEP = 4_194_304
"""A millisecond of a snowflake: two ids so far apart share no word."""
TOP = MAX_ID - 70


def built(*ids: int, floor: int = 0, solid: int | None = None) -> IdSet:
    """Build a set of ids, and of all from floor to solid."""
    return IdSet(floor, floor if solid is None else solid).added(words_of(ids))


def content(found: IdSet) -> list[int]:
    """Return all ids above the floor."""
    return ids_of(found.within(0, MAX_ID))


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1], {0: 2}),
        ([63], {0: 1 << 63}),
        ([64], {1: 1}),
        ([65], {1: 2}),
        ([63, 64, 65], {0: 1 << 63, 1: 3}),
        ([MAX_ID - 1, MAX_ID], {2**58 - 1: 3 << 62}),
        ([SNOWFLAKE, SNOWFLAKE + STEP], {SNOWFLAKE // 64: 1, SNOWFLAKE // 64 + STEP // 64: 1}),
    ],
)
def test_words(ids: list[int], words: dict[int, int]) -> None:
    """An id is a bit of the word that it divides to, and comes back from it. Mutants: 63 ids a word; from 1 on."""
    assert words_of(ids) == words
    assert ids_of(words) == ids
    assert size_of(words) == len(ids)


@pytest.mark.parametrize(
    ("after", "upto", "words"),
    [
        (0, 63, {0: FULL - 1}),
        (0, 64, {0: FULL - 1, 1: 1}),
        (62, 63, {0: 1 << 63}),
        (63, 64, {1: 1}),
        (63, 127, {1: FULL}),
        (63, 128, {1: FULL, 2: 1}),
        (64, 65, {1: 2}),
        (MAX_ID - 1, MAX_ID, {2**58 - 1: 1 << 63}),
        (5, 5, {}),
    ],
)
def test_all_of(after: int, upto: int, words: dict[int, int]) -> None:
    """All ids of a range are those above its first end, up to its last. Mutants: from the end on; up to below it."""
    assert all_of(after, upto) == words


def test_clipped_to_nothing() -> None:
    """What is outside of a range is left out, words and bits; a word without a bit is none."""
    words = all_of(60, 200)

    assert ids_of(clipped(words, 63, 64)) == [64]
    assert ids_of(clipped(words, 126, 129)) == [127, 128, 129]
    assert clipped(words, 0, 60) == {}
    assert clipped(words, 200, 300) == {}
    assert clipped(words_of([65]), 65, 70) == {}


@pytest.mark.parametrize(
    ("known", "asked", "missing"),
    [
        (built(), [1, 63, 64, 65], [1, 63, 64, 65]),
        (built(63, 65), [62, 63, 64, 65, 66], [62, 64, 66]),
        (built(solid=63), [62, 63, 64, 65], [64, 65]),
        (built(solid=64), [63, 64, 65, 200], [65, 200]),
        (built(floor=63), [62, 63, 64], [64]),
        (built(66, floor=64), [64, 65, 66, 67], [65, 67]),
        (built(100, floor=10, solid=20), [5, 10, 11, 20, 21, 100], [21]),
        (built(MAX_ID), [MAX_ID - 1, MAX_ID], [MAX_ID - 1]),
        (built(SNOWFLAKE), [SNOWFLAKE, SNOWFLAKE + STEP, SNOWFLAKE - STEP], [SNOWFLAKE - STEP, SNOWFLAKE + STEP]),
    ],
)
def test_missing(known: IdSet, asked: list[int], missing: list[int]) -> None:
    """Missing is what is above the floor and not in it. Mutants: take the floor for a gap; forget what is solid."""
    assert ids_of(known.missing(words_of(asked))) == missing


@pytest.mark.parametrize(
    ("before", "more", "content_"),
    [
        (built(), [63, 64, 65], [63, 64, 65]),
        (built(63), [64, 63], [63, 64]),
        (built(floor=63), [62, 63, 64], [64]),
        (built(floor=64, solid=66), [63, 64, 65, 66, 68], [65, 66, 68]),
        (built(MAX_ID - 64), [MAX_ID], [MAX_ID - 64, MAX_ID]),
    ],
)
def test_added(before: IdSet, more: list[int], content_: list[int]) -> None:
    """Ids above the floor join; others are left out, and what was there stays. Mutant: take more for all."""
    assert content(before.added(words_of(more))) == content_


@pytest.mark.parametrize(
    ("before", "window", "expected"),
    [
        (built(), (0, 63), IdSet(0, 63)),
        (built(solid=63), (63, 64), IdSet(0, 64)),
        (built(floor=7), (7, 65), IdSet(7, 65)),
    ],
)
def test_extended_is_a_number(before: IdSet, window: tuple[int, int], expected: IdSet) -> None:
    """Where no id is missing nothing is kept but a number. Mutant: keep words."""
    assert before.extended(*window) == expected


@pytest.mark.parametrize("window", [(63, 64), (64, 70), (65, 200)])
def test_extended_behind_a_gap(window: tuple[int, int]) -> None:
    """Behind a gap a whole window is words, and the gap stays one. Mutant: make it solid."""
    found = built(solid=60).extended(*window)

    assert content(found) == [*range(1, 61), *range(window[0] + 1, window[1] + 1)]
    assert (found.solid, ids_of(found.missing(words_of([61, 62])))) == (60, [61, 62])


@pytest.mark.parametrize(
    ("before", "floor", "content_", "numbers"),
    [
        (built(70, solid=65), 63, [64, 65, 70], (63, 65)),
        (built(70, solid=65), 65, [70], (65, 65)),
        (built(70, solid=65), 66, [70], (66, 66)),
        (built(63, 64, 65), 63, [64, 65], (63, 63)),
        (built(63, 64, 65), 64, [65], (64, 64)),
        (built(63, 64, 65), 65, [], (65, 65)),
        (built(63, 64, 65, floor=64), 63, [65], (64, 64)),
        (built(TOP, MAX_ID), MAX_ID - 1, [MAX_ID], (MAX_ID - 1, MAX_ID - 1)),
        (built(TOP, MAX_ID), MAX_ID, [], (MAX_ID, MAX_ID)),
    ],
)
def test_raised(before: IdSet, floor: int, content_: list[int], numbers: tuple[int, int]) -> None:
    """Ids at or below the floor are forgotten, those above it stay; it never goes down.

    Mutants: keep the floor's own id; lower it; forget its segment.
    """
    found = before.raised(floor)

    assert (content(found), (found.floor, found.solid)) == (content_, numbers)


@pytest.mark.parametrize("floor", [127, 128, 129, 191, 192, 255, 256, 257, 320])
def test_raised_within_a_segment(monkeypatch: pytest.MonkeyPatch, floor: int) -> None:
    """A floor inside a segment cuts it; segments above stay as they are, those below go.

    Mutants: keep it whole; drop it; begin it where it began.
    """
    monkeypatch.setattr(idset, "SEGMENT_WORDS", 2)
    ids = [*range(1, 400, 3)]
    before = IdSet(0, 0).added(words_of(ids))
    assert [one.start for one in before.segments] == [0, 2, 4, 6]
    found = before.raised(floor)

    assert content(found) == [one for one in ids if one > floor]
    assert set(found.segments) >= {one for one in before.segments if one.start * BITS > floor}
    assert len(found.segments) == len([one for one in before.segments if ids_of(one.unpacked)[-1] > floor])
    assert ids_of(found.missing(words_of(range(1, 450)))) == [one for one in range(floor + 1, 450) if one not in ids]
    assert content(found.added(words_of([floor + 1]))) == sorted({floor + 1, *content(found)})


def test_segments_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that grows too long becomes several; ids between two belong to the one before.

    Mutants: one segment for all; begin a segment with its own first word only.
    """
    monkeypatch.setattr(idset, "SEGMENT_WORDS", 2)
    first = built(1, 64, 128, 64 * 9)
    assert [(one.start, one.words, one.ids) for one in first.segments] == [(0, 2, 2), (2, 2, 2)]
    second = first.added(words_of([64 * 5, 64 * 6]))

    assert [(one.start, one.words) for one in second.segments] == [(0, 2), (2, 2), (6, 2)]
    assert content(second) == [1, 64, 128, 64 * 5, 64 * 6, 64 * 9]
    assert content(second.added(words_of([65]))) == [1, 64, 65, 128, 64 * 5, 64 * 6, 64 * 9]


def test_segments_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that grows at its end shares all but the last segment: only that is stored. Mutant: pack all again."""
    monkeypatch.setattr(idset, "SEGMENT_WORDS", 4)
    before = built(*range(1, 5000, 2))
    after = before.added(words_of([5001]))

    assert len(before.segments) > 10
    assert len(set(after.segments) - set(before.segments)) == 1
    assert before.added(words_of([5001])).added(words_of([5001])) == after


def test_first_segment_of_the_middle() -> None:
    """An id below the first segment joins it. Mutant: look for it in the segments above its own only."""
    found = built(640).added(words_of([64]))

    assert [(one.start, one.words) for one in found.segments] == [(1, 2)]
    assert ids_of(found.missing(words_of([64, 65, 640, 641]))) == [65, 641]


@pytest.mark.parametrize(
    ("before", "upto", "is_short"),
    [
        (built(*range(1, 66)), 65, True),
        (built(*range(1, 66)), 66, False),
        (built(*range(2, 66)), 65, False),
        (built(*range(65, 130), solid=64), 129, True),
        (built(*range(64, 130), floor=63), 129, True),
        (built(*range(65, 130), floor=63), 129, False),
        (built(solid=64), 70, False),
    ],
)
def test_collapsed(before: IdSet, upto: int, is_short: bool) -> None:  # noqa: FBT001 - a table
    """Once no id is missing it is a number again. Mutants: one that is; never."""
    found = before.collapsed(upto)

    assert content(found) == content(before)
    assert (found == IdSet(before.floor, upto)) is is_short


@pytest.mark.parametrize(
    ("after", "upto", "content_"),
    [
        (0, MAX_ID, [64, 65, 66, 70, 128]),
        (63, 64, [64]),
        (64, 65, [65]),
        (65, 66, [66]),
        (66, 69, []),
        (69, 70, [70]),
        (70, 127, []),
        (0, 63, []),
        (127, 128, [128]),
        (128, MAX_ID, []),
    ],
)
def test_within(after: int, upto: int, content_: list[int]) -> None:
    """Of a range what is in it, be it solid or words, and as many. Mutants: what is solid is all; nothing of that."""
    found = built(70, 128, floor=63, solid=66)

    assert ids_of(found.within(after, upto)) == content_
    assert found.count(after, upto) == len(content_)


@pytest.mark.parametrize(
    ("known", "window", "ranges", "ids"),
    [
        # nothing may be missing
        (IdSet(0, 100), (0, 100), [], []),
        (built(*range(1, 66)), (0, 65), [], []),
        # mostly there: the few that are not by name
        (built(*[one for one in range(1, 130) if one != 64]), (0, 129), [], [64]),
        (built(*[one for one in range(1, 130) if one not in {63, 64, 65}]), (0, 129), [], [63, 64, 65]),
        (built(*[one for one in range(1, 130) if one != 64]), (64, 129), [], []),
        (built(*[one for one in range(1, 130) if one != 64]), (63, 129), [], [64]),
        # mostly missing: all of the range at once
        (built(5), (0, 100), [(0, 100)], []),
        (built(5), (50, 64), [(50, 64)], []),
        (built(), (0, 64), [(0, 64)], []),
        # from the end of what is solid on, and from the floor
        (built(90, solid=64), (0, 100), [(64, 100)], []),
        (built(90, floor=64), (0, 100), [(64, 100)], []),
        (built(floor=64), (0, 64), [], []),
        (built(MAX_ID), (TOP, MAX_ID), [(TOP, MAX_ID)], []),
        # four rows a gap is as dear as a gap
        (built(1, 2, 3, 4), (0, 5), [], [5]),
        (built(1, 2, 3), (0, 4), [(0, 4)], []),
    ],
)
def test_asks(known: IdSet, window: tuple[int, int], ranges: list[tuple[int, int]], ids: list[int]) -> None:
    """Gaps of a range are asked for, each once; where few are missing by name, else by range.

    Mutants: beyond the range; below what is solid; all by name; nothing above the last segment.
    """
    found = known.gaps(*window)

    assert (found.ranges, found.ids) == (ranges, ids)


def test_asks_by_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each segment is asked for as is best for it; ranges that adjoin are one. Mutants: one way for all; two ranges."""
    monkeypatch.setattr(idset, "SEGMENT_WORDS", 1)
    dense = [one for one in range(64, 128) if one != 100]
    found = built(1, *dense, 128, 192, 256).gaps(0, 300)

    assert found == idset.Gaps([(0, 63), (127, 300)], [100])


def test_snowflakes_share_no_word() -> None:
    """A million scattered ids would be a million words, in as many segments as it takes. Mutant: one segment."""
    ids = [SNOWFLAKE + number * STEP for number in range(3000)]
    found = IdSet(SNOWFLAKE - 1, SNOWFLAKE - 1).added(words_of(ids))

    assert [one.words for one in found.segments] == [1024, 1024, 952]
    assert (found.words, found.size) == (3000, 3000)
    assert found.gaps(SNOWFLAKE - 1, ids[-1]).ranges == [(SNOWFLAKE - 1, ids[-1])]
    assert ids_of(found.missing(words_of([ids[7], ids[7] + 1]))) == [ids[7] + 1]


@pytest.mark.parametrize("ids", [[1], [63, 64], [MAX_ID], [SNOWFLAKE, SNOWFLAKE + STEP], [1, MAX_ID]])
def test_stored_segment(ids: list[int]) -> None:
    """A segment that was stored is the same again. Mutant: forget its start."""
    (one,) = built(*ids).segments

    assert segment_of(one.start, one.packed) == one == Segment(min(ids) // 64, one.words, len(ids), one.packed)


@dataclass
class Twin:
    """A set of ids, and the plain set that it is to be."""

    made: IdSet = field(default_factory=lambda: IdSet(0, 0))
    plain: set[int] = field(default_factory=set)
    top: int = 0

    def add(self, ids: list[int]) -> None:
        """Add ids, having looked which are missing."""
        new = {one for one in ids if one > self.made.floor and one not in self.plain}
        assert set(ids_of(self.made.missing(words_of(ids)))) == new
        self.made, self.plain, self.top = self.made.added(words_of(ids)), self.plain | new, max(self.top, *ids)

    def extend(self, size: int) -> None:
        """Add a window without gaps."""
        after, self.top = self.top, self.top + size
        self.made, self.plain = self.made.extended(after, self.top), self.plain | set(range(after + 1, self.top + 1))

    def rise(self, floor: int) -> None:
        """Raise the floor."""
        self.made = self.made.raised(floor)
        self.plain, self.top = {one for one in self.plain if one > floor}, max(self.top, floor)

    def check(self, after: int, upto: int) -> None:
        """Compare them, all of it and a range."""
        assert content(self.made) == sorted(self.plain)
        expected = sorted(one for one in self.plain if after < one <= upto)
        assert ids_of(self.made.within(after, upto)) == expected
        assert self.made.count(after, upto) == len(expected)
        asks = self.made.gaps(after, upto)
        asked = {one for start, end in asks.ranges for one in range(start + 1, end + 1)}
        gaps = {one for one in range(max(after, self.made.floor) + 1, upto + 1) if one not in self.plain}
        assert all(after <= start < end <= upto for start, end in asks.ranges)
        assert gaps <= asked | set(asks.ids)
        assert set(asks.ids) <= gaps
        assert not asked & set(asks.ids)
        assert all(one.start < other.start for one, other in pairwise(self.made.segments))
        assert self.made.segments == tuple(segment_of(one.start, one.packed) for one in self.made.segments)


IDS = st.lists(st.integers(1, 700) | st.integers(1, 3000), min_size=1, max_size=40)
STEPS = st.one_of(
    st.tuples(st.just("add"), IDS),
    st.tuples(st.just("extend"), st.integers(1, 300)),
    st.tuples(st.just("rise"), st.integers(0, 3000)),
    st.tuples(st.just("collapse"), st.just(0)),
)


@given(st.lists(STEPS, max_size=15), st.integers(0, 3000), st.integers(1, 3000))
def test_as_a_plain_set(steps: list[tuple[str, int | list[int]]], after: int, size: int) -> None:
    """Whatever is done to it, it holds what a plain set would, and asks for all that it lacks.

    Mutants: join what is known with `&`; take a segment's end for its start; cut nothing at the floor.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(idset, "SEGMENT_WORDS", 4)
        twin = Twin()
        for action, value in steps:
            match action, value:
                case "add", list():
                    twin.add(value)
                case "extend", int():
                    twin.extend(value)
                case "rise", int():
                    twin.rise(value)
                case _:
                    twin.made = twin.made.collapsed(twin.top)
            twin.check(after, after + size)
            twin.check(0, twin.top + 1)


@given(IDS, IDS)
def test_joined_words(one: list[int], other: list[int]) -> None:
    """Words are coalesced as sets are."""
    assert ids_of(union_of(words_of(one), words_of(other))) == sorted({*one, *other})
