"""Rows to cells."""

from decimal import Decimal

import pytest
from builders import NOW, job
from hypothesis import given
from hypothesis import strategies as st

from shipper.core.measures import Kind, Value, combined
from shipper.core.model import Archive, RejectedValue, Rejection, RejectReason, Row, Span
from shipper.core.retention import EDGE_SECONDS, ROOM_SECONDS
from shipper.core.rows.folding import FAR, MAX_SKEW_SECONDS, Cell, fold, shown_span

SPAN = Span(600, 6001)
KINDS = (Kind.COUNT, Kind.SUM, Kind.MAX)
GROUPS = st.tuples(st.sampled_from(["a", "b", None]))
VALUES = st.none() | st.integers(-(10**30), 10**30) | st.decimals(allow_nan=False, allow_infinity=False, places=5)
ROWS = st.lists(
    st.builds(
        lambda bucket, group, rows, value: Row(bucket, group, rows, (rows, value, value)),
        st.sampled_from([None, 0, 540, 600, 660, 6000, 6060]),
        GROUPS,
        st.integers(1, 50),
        VALUES,
    )
)


@pytest.mark.parametrize(
    ("bucket", "reason"),
    [
        (None, Rejection(RejectReason.NO_TIME)),
        (540, Rejection(RejectReason.TOO_OLD)),
        (-60, Rejection(RejectReason.TOO_OLD)),
        (600, None),
        (6000, None),
        (6060, Rejection(RejectReason.FUTURE, 6060)),
        (10**9, Rejection(RejectReason.FUTURE, FAR)),
    ],
)
def test_fold_unshown(bucket: int | None, reason: Rejection | None) -> None:
    """A row whose slot cannot be shown is counted under its reason, any other in its bucket.

    One that may be shown one day is counted by its bucket, too; of mistakes there may be any number.
    """
    folded = fold([Row(bucket, ("a",), 3, (3,))], SPAN, (Kind.COUNT,))

    assert folded.rejected == ({} if reason is None else {reason: 3})
    assert folded.cells == ({(("a",), bucket): Cell(3, (3,))} if reason is None else {})


def test_fold_refused() -> None:
    """What was left out is told whatever becomes of the row. Mutant: only where the bucket is shown."""
    told = (RejectedValue("ms", 1, "inf", 7),)
    rows = [Row(bucket, ("a",), 3, (3,), told) for bucket in (None, 540, 600, 600, 6060)]

    assert fold(rows, SPAN, (Kind.COUNT,)).rejected_values == [*told] * 5


@given(ROWS)
def test_fold_loses_nothing(rows: list[Row]) -> None:
    """Every row is in a bucket or under a cause. Mutant: count 1 for each result row."""
    assert sum(row.rows for row in rows) == fold(rows, SPAN, KINDS).rows


@given(ROWS, st.integers(0, 20))
def test_fold_in_parts(rows: list[Row], cut: int) -> None:
    """Rows folded in two windows are what they are in one. Mutant: replace instead of add."""
    parts = fold(rows[:cut], SPAN, KINDS)
    fold(rows[cut:], SPAN, KINDS, into=parts)

    assert fold(rows, SPAN, KINDS) == parts


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (Kind.SUM, [1, 2, 3], 6),
        (Kind.SUM, [2**70, Decimal("0.1"), Decimal("0.2")], Decimal(2**70) + Decimal("0.3")),
        (Kind.SUM, [Decimal("1e40"), Decimal("1e-40")], Decimal("1" + "0" * 40 + "." + "0" * 39 + "1")),
        (Kind.SUM, [Decimal("0.5"), Decimal("0.5")], 1),
        (Kind.SUM, [5, -5], 0),
        (Kind.MAX, [0, -3], 0),
        (Kind.MAX, [-3, Decimal("-2.5")], Decimal("-2.5")),
        (Kind.MIN, [0, 3], 0),
        (Kind.MIN, [7, 7], 7),
    ],
)
def test_total_exact(kind: Kind, values: list[Value], expected: Value) -> None:
    """Values are put together exactly, however long they are. Mutant: Python's default context of 28 digits."""
    assert combined(kind, values) == expected


@pytest.mark.parametrize("kind", list(Kind))
def test_together_with_none(kind: Kind) -> None:
    """None adds nothing, and is never a 0."""
    assert kind.combine(None, 7) == kind.combine(7, None) == 7
    assert kind.combine(None, None) is None


def test_shown_span() -> None:
    """Rows are shown from where the last archive has room for their delivery, to a little in the future."""
    archives = (Archive(60, 86400), Archive(3600, 30 * 86400))
    span = shown_span(job(archives=archives), now=NOW, source_time=NOW - 10)

    assert span.start == NOW - 30 * 86400 + EDGE_SECONDS + ROOM_SECONDS
    assert span.end == NOW - 10 + 60 + MAX_SKEW_SECONDS + 1
    long = shown_span(job(archives=archives, bucket=3600), now=NOW, source_time=NOW)
    assert long.end == NOW + EDGE_SECONDS + 1


@pytest.mark.parametrize(
    ("ahead", "end"),
    [(-300, NOW - 300 + 600), (0, NOW + 600), (300, NOW + 600), (600, NOW + 600), (900, NOW + 900)],
)
def test_shown_by_a_clock_that_is_ahead(ahead: int, end: int) -> None:
    """Buckets are shown up to ten minutes ahead of both clocks, and those of the source's present in any case.

    Mutants: ten minutes ahead of the source's clock alone; not its present rows (all were rejected).
    """
    assert shown_span(job(bucket=300), now=NOW, source_time=NOW + ahead).end == end + 1


def test_shown_never_zero() -> None:
    """Slot 0 is not shown however long the archive is: Carbon drops it, and its batch would never go through."""
    assert shown_span(job(archives=(Archive(60, 100 * 31536000),)), now=NOW, source_time=NOW).start == 60
