"""Counts and totals."""

from collections import Counter

import pytest
from builders import ARCHIVE, NOW
from hypothesis import given
from hypothesis import strategies as st

from shipper.fold import EDGE_SECONDS, MAX_SKEW_SECONDS, ROOM_SECONDS, Span, add, bucket_of, fold, oldest_fine, shown
from shipper.model import Archive, Cause, Key, Row

SPAN = Span(oldest=600, newest=6000)
GROUPS = st.tuples(st.sampled_from(["a", "b", None]))
ROWS = st.lists(st.builds(Row, st.sampled_from([None, 0, 540, 600, 660, 6000, 6060]), GROUPS, st.integers(1, 50)))


@pytest.mark.parametrize(
    ("bucket", "cause"),
    [
        (None, Cause.NO_TIME),
        (540, Cause.TOO_OLD),
        (-60, Cause.TOO_OLD),
        (600, None),
        (6000, None),
        (6060, Cause.FUTURE),
    ],
)
def test_fold_unshown(bucket: int | None, cause: Cause | None) -> None:
    """A row whose slot cannot be shown is counted under its cause, any other in its slot."""
    folded = fold([Row(bucket, ("a",), 3)], SPAN)

    assert folded.unshown == ({} if cause is None else {cause: 3})
    assert folded.counts == ({(("a",), bucket): 3} if cause is None else {})


@given(ROWS)
def test_fold_loses_nothing(rows: list[Row]) -> None:
    """Every row is in a slot or under a cause. Mutant: count 1 for each result row."""
    assert sum(row.rows for row in rows) == fold(rows, SPAN).rows


@given(ROWS, st.integers(0, 20))
def test_fold_in_parts(rows: list[Row], cut: int) -> None:
    """Rows folded in two windows add up to what they are in one. Mutant: replace instead of add."""
    totals: dict[Key, int] = {}
    for part in (rows[:cut], rows[cut:]):
        counts = fold(part, SPAN).counts
        totals |= add(totals, {Key(str(group), slot, 60): rows for (group, slot), rows in counts.items()})
    whole = {Key(str(group), slot, 60): rows for (group, slot), rows in fold(rows, SPAN).counts.items()}

    assert Counter(whole) == Counter(totals)


def test_add_only_what_changes() -> None:
    """New totals are those that change, no others."""
    one, two, three = Key("a", 60, 60), Key("b", 60, 60), Key("c", 60, 60)

    assert add({one: 5, two: 7}, {one: 2, three: 1}) == {one: 7, three: 1}


def test_shown_span() -> None:
    """Rows are shown from where the finest archive has room for their delivery, to a little in the future."""
    span = shown(ARCHIVE, now=NOW, source_time=NOW - 10, bucket=60)

    assert span.oldest == NOW - ARCHIVE.duration + EDGE_SECONDS + ROOM_SECONDS
    assert oldest_fine(ARCHIVE, NOW) == NOW - ARCHIVE.duration + EDGE_SECONDS
    assert span.newest == NOW - 10 + 60 + MAX_SKEW_SECONDS


def test_shown_never_zero() -> None:
    """Slot 0 is not shown however long the archive is: Carbon drops it, and its batch would never go through."""
    assert shown(Archive(60, 100 * 31536000), now=NOW, source_time=NOW, bucket=60).oldest == 60


@pytest.mark.parametrize(("time", "bucket"), [(0, 0), (59, 0), (60, 60), (3599, 3540)])
def test_bucket_of(time: int, bucket: int) -> None:
    """A bucket is named by its start."""
    assert bucket_of(time, 60) == bucket
