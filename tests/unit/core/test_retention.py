"""Archives: which one stores a slot, and when the slot may be sent."""

import pytest

from shipper.core.model import Archive, Span
from shipper.core.retention import EDGE_SECONDS as EDGE
from shipper.core.retention import (
    Part,
    after,
    ceil,
    coalesce,
    due,
    enclosing,
    floor,
    has_left,
    is_due,
    merge_target,
    oldest_in_finest,
    oldest_shown,
    parts,
    place_of,
    without,
)

MINUTES, HOURS, DAYS = Archive(60, 7 * 86400), Archive(3600, 90 * 86400), Archive(86400, 1825 * 86400)
ALL = (MINUTES, HOURS, DAYS)
HOUR = 1_790_002_800  # the start of an hour, and not of a day
WEEK = MINUTES.duration


def test_slots_of_an_hour_leave_together() -> None:
    """All minutes of an hour leave the finest archive with the hour's first. Mutant: each by itself."""
    last = HOUR + 59 * 60
    for slot in (HOUR, last):
        assert not has_left(ALL, slot, 60, HOUR + WEEK - EDGE - 1)
        assert has_left(ALL, slot, 60, HOUR + WEEK - EDGE)


def test_hour_is_due_once_all_of_it_has_left() -> None:
    """An hour's sum is sent once Carbon, however slow, stores its last minute in the coarser archive."""
    assert not is_due(ALL, HOUR, 3600, bucket=60, now=HOUR + 3600 + WEEK + EDGE - 1)
    assert is_due(ALL, HOUR, 3600, bucket=60, now=HOUR + 3600 + WEEK + EDGE)


@pytest.mark.parametrize(
    ("step", "bucket", "expected"),
    [
        (60, 60, True),
        (3600, 3600, True),
        (3600, 7200, True),
        (3600, 5400, False),
        (3600, 60, False),
        (86400, 3600, False),
    ],
)
def test_slot_of_one_bucket_is_always_due(step: int, bucket: int, expected: bool) -> None:  # noqa: FBT001 - a table
    """A slot of a single bucket may be sent at any age: both archives hold the same value."""
    assert is_due(ALL, HOUR, step, bucket=bucket, now=HOUR) is expected


def test_place_of() -> None:
    """A bucket belongs to the finest archive that it has not left; after the last one, to none."""
    ages = (0, WEEK, 90 * 86400, 1825 * 86400 + 86400)
    day = HOUR - HOUR % 86400

    assert [place_of(ALL, HOUR + 120, HOUR + age) for age in ages] == [
        (HOUR + 120, 60),
        (HOUR, 3600),
        (day, 86400),
        None,
    ]


def test_merge_target() -> None:
    """A slot that has left is merged into the slot of the next archive around it; after the last one, into none."""
    day = HOUR - HOUR % 86400

    assert merge_target(ALL, HOUR + 120, 60) == (HOUR, 3600)
    assert merge_target(ALL, HOUR, 3600) == (day, 86400)
    assert merge_target(ALL, day, 86400) is None
    assert merge_target(ALL, HOUR + 130, 10) == (HOUR + 120, 60)  # steps that Carbon had once
    assert merge_target(ALL, HOUR + 600, 600) == (HOUR, 3600)


def test_due_agrees_with_is_due() -> None:
    """Slots that are released together are those that may be sent one by one. Mutant: forget the slot's length."""
    now = HOUR + 100 * 86400
    for step, span in due(ALL, now):
        slot = floor(span.end - 1, step)
        assert is_due(ALL, slot, step, bucket=60, now=now)
        assert step == 60 or not is_due(ALL, slot + step, step, bucket=60, now=now)


@pytest.mark.parametrize("archives", [ALL, ALL[:1]])
def test_oldest_in_finest_agrees_with_has_left(archives: tuple[Archive, ...]) -> None:
    """The oldest slot of the finest archive is the first that has not left it. Mutant: forget the coarser slot."""
    for now in range(HOUR, HOUR + 2 * 3600, 20):
        oldest = oldest_in_finest(archives, now)
        assert not has_left(archives, oldest, 60, now)
        assert has_left(archives, oldest - 60, 60, now)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (-61, (-120, -60, -60)),
        (-60, (-60, 0, -60)),
        (-1, (-60, 0, 0)),
        (0, (0, 60, 0)),
        (1, (0, 60, 60)),
        (60, (60, 120, 60)),
    ],
)
def test_rounding(time: int, expected: tuple[int, int, int]) -> None:
    """Times are rounded to the start of a slot: down, to the next one, up; a start stays, but for the next one."""
    assert (floor(time, 60), after(time, 60), ceil(time, 60)) == expected


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], []),
        ([(0, 60), (60, 120)], [(0, 120)]),
        ([(0, 60), (61, 120)], [(0, 60), (61, 120)]),
        ([(60, 120), (0, 61)], [(0, 120)]),
        ([(0, 300), (60, 120)], [(0, 300)]),
        ([(60, 120), (0, 300), (300, 301)], [(0, 301)]),
    ],
)
def test_coalesce(spans: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    """Spans that adjoin become one. Mutants: only those that overlap; take the end of the last."""
    assert coalesce(Span(*one) for one in spans) == [Span(*one) for one in expected]


def test_oldest_shown() -> None:
    """The oldest bucket stays in the last archive for 2 hours and 10 minutes more. Mutant: forget either."""
    assert oldest_shown(ALL, HOUR) == HOUR - 1825 * 86400 + 7200 + 600
    assert oldest_shown((MINUTES,), HOUR) == HOUR - WEEK + 7200 + 600


@pytest.mark.parametrize(
    ("ago", "is_fine"),
    [
        # two hours and ten minutes before the first minute of its hour would leave
        (WEEK - 600 - 7200 - 1, True),
        (WEEK - 600 - 7200, False),
        (0, True),
        (WEEK, False),
    ],
)
def test_enclosing(ago: int, is_fine: bool) -> None:  # noqa: FBT001 - a table
    """A slot that may be merged within two hours is replaced by the coarsest slot around it. Mutant: no room."""
    bucket, now = HOUR + 59 * 60, HOUR + ago

    day = HOUR - HOUR % 86400
    assert enclosing(ALL, bucket, now) == (Span(bucket, bucket + 60) if is_fine else Span(day, day + 86400))


@pytest.mark.parametrize(
    ("second", "hours", "minutes"),
    [
        # seconds of the hour in which the finest archive ends: its minutes are left out, and ten minutes on both sides
        (0, -1, 1),
        (599, -1, 1),
        (600, 0, 1),
        (2999, 0, 1),
        (3000, 0, 2),
        (3599, 0, 2),
    ],
)
def test_parts(second: int, hours: int, minutes: int) -> None:
    """Each archive has a part up to ten minutes from its end, which begins with a slot of the next archive.

    Mutants: the margin on the other side of either archive; minutes from the next minute on.
    """
    now, span = HOUR + WEEK + second, Span(HOUR - 2 * 86400 - HOUR % 86400, HOUR + 86400)
    coarse, fine = parts((MINUTES, HOURS), span, now)

    assert coarse == Part(Span(span.start, HOUR + hours * 3600), 3600)
    assert fine == Part(Span(HOUR + minutes * 3600, span.end), 60)


def test_parts_in_complete_slots() -> None:
    """Slots that the span cuts are in no part."""
    now = HOUR + WEEK + 30 * 86400

    assert parts((MINUTES, HOURS), Span(HOUR + 1, HOUR + 3 * 3600 - 1), now) == [
        Part(Span(HOUR + 3600, HOUR + 7200), 3600)
    ]
    assert parts((MINUTES, HOURS), Span(HOUR + 1, HOUR + 2 * 3600 - 1), now) == []
    assert parts((MINUTES, HOURS), Span(now + 1, now + 119), now) == []
    assert parts((MINUTES, HOURS), Span(now + 1, now + 120), now) == [Part(Span(now + 60, now + 120), 60)]


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ([], [(0, 300)]),
        ([(0, 60)], [(60, 300)]),
        ([(240, 300)], [(0, 240)]),
        ([(61, 62)], [(0, 60), (120, 300)]),
        ([(-60, 0), (300, 360)], [(0, 300)]),
        ([(120, 180), (60, 121)], [(0, 60), (180, 300)]),
        ([(-60, 360)], []),
    ],
)
def test_without(gone: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
    """Slots that a span touches are removed, and no others."""
    rest = without(Part(Span(0, 300), 60), [Span(*one) for one in gone])

    assert rest == [Part(Span(*one), 60) for one in left]
