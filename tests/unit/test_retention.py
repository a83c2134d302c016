"""Which archive receives a slot, and when."""

import pytest

from shipper.model import Archive
from shipper.retention import EDGE_SECONDS as EDGE
from shipper.retention import has_left, is_ripe, merged, placed, ripe

MINUTES, HOURS, DAYS = Archive(60, 7 * 86400), Archive(3600, 90 * 86400), Archive(86400, 1825 * 86400)
ALL = (MINUTES, HOURS, DAYS)
HOUR = 1_790_002_800  # a whole hour, and no whole day
WEEK = MINUTES.duration


def test_slots_of_an_hour_leave_together() -> None:
    """All minutes of an hour leave the finest archive with the hour's first. Mutant: each by itself."""
    last = HOUR + 59 * 60
    for slot in (HOUR, last):
        assert not has_left(ALL, slot, 60, HOUR + WEEK - EDGE - 1)
        assert has_left(ALL, slot, 60, HOUR + WEEK - EDGE)


def test_hour_is_ripe_once_all_of_it_has_left() -> None:
    """An hour's sum is sent when Carbon, however late, writes its last minute to the coarser archive."""
    assert not is_ripe(ALL, HOUR, 3600, bucket=60, now=HOUR + 3600 + WEEK + EDGE - 1)
    assert is_ripe(ALL, HOUR, 3600, bucket=60, now=HOUR + 3600 + WEEK + EDGE)


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
def test_slot_of_one_bucket_is_always_ripe(step: int, bucket: int, expected: bool) -> None:  # noqa: FBT001 - a table
    """A slot that holds one bucket only may be sent whatever its age: both archives hold the same number."""
    assert is_ripe(ALL, HOUR, step, bucket=bucket, now=HOUR) is expected


def test_placed() -> None:
    """A bucket belongs to the finest archive that it has not left, and to none in the end."""
    ages = (0, WEEK, 90 * 86400, 1825 * 86400 + 86400)
    day = HOUR - HOUR % 86400

    assert [placed(ALL, HOUR + 120, HOUR + age) for age in ages] == [(HOUR + 120, 60), (HOUR, 3600), (day, 86400), None]


def test_merged() -> None:
    """A slot that has left goes to the slot of the next archive that holds it; the last goes nowhere."""
    day = HOUR - HOUR % 86400

    assert merged(ALL, HOUR + 120, 60) == (HOUR, 3600)
    assert merged(ALL, HOUR, 3600) == (day, 86400)
    assert merged(ALL, day, 86400) is None
    assert merged(ALL, HOUR + 120, 10) == (HOUR, 3600)  # a step that Carbon had once


def test_ripe_agrees_with_is_ripe() -> None:
    """What may be released together is what may be sent one by one. Mutant: forget the slot's own length."""
    now = HOUR + 100 * 86400
    for step, newest in ripe(ALL, now):
        slot = newest - newest % step
        assert is_ripe(ALL, slot, step, bucket=60, now=now)
        assert step == 60 or not is_ripe(ALL, slot + step, step, bucket=60, now=now)
