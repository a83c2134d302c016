"""Reading by ids: windows that tile, are measured in rows where ids are no sequence, and shrink where sums overflow."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from builders import job
from fakes import FakeSource
from hypothesis import given
from hypothesis import strategies as st

from shipper.core.errors import RowRefused, TooManyGroups
from shipper.core.model import ALWAYS, MAX_ID, Span, Window
from shipper.core.rows import table as table_reading
from shipper.core.rows.search import windows_by_index
from shipper.core.rows.table import Size, each_window, scan, walk_back

CREATED = "2026-09-21 14:14:10"
SNOWFLAKE = 1_541_815_603_606_036_480
STEP = 4_194_304
WANTED = replace(job(), chunk=10)


def table(*ids: int, created: str | None = CREATED) -> FakeSource:
    """Make a table of these ids."""
    source = FakeSource()
    for number in ids:
        source.insert(number, created, "login")
    return source


def windows(source: FakeSource, after: int, upto: int) -> list[tuple[int, int]]:
    """Return the windows in which all of a table is read, ten ids or rows each."""
    return [(window.after, window.upto) for window, _ in scan(WANTED, after, upto, source=source)]


@pytest.mark.parametrize(
    ("ids", "after", "upto", "expected"),
    [
        ([1], 0, 1, [(0, 1)]),
        (range(1, 11), 0, 10, [(0, 10)]),
        (range(1, 12), 0, 11, [(0, 10), (10, 11)]),
        (range(8, 31), 7, 30, [(7, 17), (17, 27), (27, 30)]),
        ([MAX_ID], MAX_ID - 1, MAX_ID, [(MAX_ID - 1, MAX_ID)]),
        ([], 5, 5, []),
        ([], 6, 5, []),
        # one id in eight is a sequence with holes, one in nine is none
        ([8, 16, 24, 32, 40], 0, 40, [(0, 10), (10, 40)]),
        ([5, 8, 15, 18, 25, 28, 35], 0, 35, [(0, 10), (10, 20), (20, 30), (30, 35)]),
        # purged rows, and a jump of the ids, are one window; behind it ids are a sequence again
        ([10**12 - 3, *range(10**12 - 2, 10**12 + 1)], 7, 10**12, [(7, 17), (17, 10**12)]),
        ([1, *range(10**6, 10**6 + 25)], 0, 10**6 + 24, [(0, 10), (10, 10**6 + 9), (10**6 + 9, 10**6 + 19)]),
    ],
)
def test_windows(ids: Sequence[int], after: int, upto: int, expected: list[tuple[int, int]]) -> None:
    """A window is a chunk of ids, or of rows where the one before lacked most.

    Mutants: always ids; always rows; end below the horizon.
    """
    found = windows(table(*ids), after, upto)

    assert found[: len(expected)] == expected
    assert not found or found[-1][1] == upto


@pytest.mark.parametrize(("chunk", "last"), [(8, 16), (9, 91)])
def test_how_many_are_most(chunk: int, last: int) -> None:
    """One id in eight is measured in ids, one in nine in rows. Mutant: another part."""
    source = table(*range(1, 101, 10))
    second = list(scan(replace(WANTED, chunk=chunk), 0, 100, source=source))[1][0]

    assert second == Window(chunk, min(last, 100))


def test_snowflakes() -> None:
    """Ids that are no sequence take as many windows as their rows fill. Mutants: a window a chunk of ids."""
    ids = [SNOWFLAKE + number * STEP for number in range(100)]

    assert len(windows(table(*ids), SNOWFLAKE - 1, ids[-1])) == 11


def test_nothing_left() -> None:
    """Where all rows are gone the end is reached in one window more. Mutant: walk through it."""
    assert windows(table(), 0, 10**12) == [(0, 10), (10, 10**12)]


@given(st.sets(st.integers(1, 400) | st.integers(10**6, 10**6 + 50), min_size=1), st.integers(1, 50))
def test_windows_tile(ids: set[int], chunk: int) -> None:
    """Windows tile the ids without gap or overlap, and none holds more than a chunk of rows.

    Mutants: captured + 1; go on behind what was planned, not what was read.
    """
    wanted, captured, seen = replace(WANTED, chunk=chunk), 0, 0
    for window, rows in scan(wanted, 0, max(ids), source=table(*ids)):
        assert window.after == captured
        assert sum(row.rows for row in rows) <= chunk
        captured, seen = window.upto, seen + sum(row.rows for row in rows)

    assert (captured, seen) == (max(ids), len(ids))


def limited(size: int, asked: list[Window]) -> FakeSource:
    """Make a table whose sums overflow where a window is longer than that."""

    class Limited(FakeSource):
        def read(self, query, rows, span=ALWAYS):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - as there
            asked.append(rows)
            if rows.upto - rows.after > size:
                raise RowRefused("read: out of range")
            return super().read(query, rows, span)

    source = Limited()
    source.rows = table(*range(1, 21)).rows
    return source


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (10, [(0, 10), (10, 20)]),
        (9, [(0, 5), (5, 10), (10, 17), (17, 20)]),
        (3, [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14), (14, 16), (16, 18), (18, 20)]),
        (1, [(number, number + 1) for number in range(20)]),
    ],
)
def test_overflow(size: int, expected: list[tuple[int, int]]) -> None:
    """A window whose sums do not fit is read by halves, each counted once. Mutants: leave the other half out."""
    found = list(scan(WANTED, 0, 20, source=limited(size, [])))
    rows = sum(row.rows for _, part in found for row in part)

    assert rows == 20
    if size != 3:
        assert [(window.after, window.upto) for window, _ in found] == expected
    assert all(window.upto - window.after <= size for window, _ in found)


def test_windows_after_an_overflow() -> None:
    """Behind a window that was too long the next ones are short, too, and grow until they are whole again.

    Mutants: a whole window at once, read in vain; short ones for ever; long ones as soon as one could be read.
    """
    asked: list[Window] = []

    def read(window: Window) -> tuple[None, Size]:
        asked.append(window)
        length = window.upto - window.after
        if window.upto <= 1000 and length > 12:
            raise RowRefused("read: out of range")
        return None, Size(length)

    wanted = replace(WANTED, chunk=200)
    found = [window for window, _ in each_window(wanted, 0, 3000, read, source=table(*range(1, 3001)))]

    assert (found[0].after, found[-1].upto) == (0, 3000)
    assert len(asked) < 2 * len(found)
    assert max(window.upto - window.after for window in found) == 200


@pytest.mark.parametrize("step", [1, STEP])
def test_windows_of_many_groups(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Windows are as long as their groups allow, with hardly a read in vain; behind them they are whole again.

    Mutants: halve a window that has too many groups; grow whatever the groups are; a share of the ids, not of the rows.
    """
    monkeypatch.setattr(table_reading, "MOST_LABELS", 50)
    asked: list[Window] = []

    def read(window: Window) -> tuple[None, Size]:
        asked.append(window)
        rows = [row for row in range(1, 3001) if row * step in window]
        groups = sum(row <= 1000 for row in rows) + any(row > 1000 for row in rows)
        if groups > 50:
            raise TooManyGroups("read: more than 50 groups", hint="", rows=50)
        return None, Size(len(rows), groups)

    wanted = replace(WANTED, chunk=400)
    source = table(*range(step, 3001 * step, step))
    found = [window for window, _ in each_window(wanted, 0, 3000 * step, read, source=source)]

    assert len(asked) <= len(found) + 2
    assert len(found) < 40
    assert max(window.upto - window.after for window in found) >= 400 * step


def test_overflow_of_one_row() -> None:
    """One row that is invalid by itself is told, not halved for ever. Mutant: halve it."""
    asked: list[Window] = []
    source = limited(0, asked)
    with pytest.raises(RowRefused):
        next(scan(WANTED, 0, 8, source=source))

    assert asked == [Window(0, 8), Window(0, 4), Window(0, 2), Window(0, 1)]


def test_unreadable_rows() -> None:
    """A row that the database cannot read does not stop those beside it. Mutant: halve no window for it."""
    source = table(*range(1, 21))
    source.unreadable = {1, 7, 8, 20}
    counts = [row for _, part in scan(WANTED, 0, 20, source=source) for row in part]

    assert sum(row.rows for row in counts if not row.is_unreadable) == 16
    assert sum(row.rows for row in counts if row.is_unreadable) == 4


def test_each_window_is_told_what_was_read() -> None:
    """What follows a window depends on its rows, as the reader counted them. Mutant: count ids."""
    found = [window for window, _ in each_window(WANTED, 0, 50, lambda _: (None, Size(0)), source=table(*range(1, 51)))]

    assert found == [Window(0, 10), Window(10, 20), Window(20, 30), Window(30, 40), Window(40, 50)]
    sparse = [window for window, _ in each_window(WANTED, 0, 50, lambda _: (None, Size(0)), source=table(1, 2))]
    assert sparse == [Window(0, 10), Window(10, 50)]


def test_walk_back() -> None:
    """The id below the rows of a span is found chunk by chunk of rows; the first without such a row ends the search.

    Mutants: the first chunk only; go on to the beginning of the table.
    """
    source = table(*range(1, 6), created="2026-09-21 10:00:00")
    source.rows += table(6, 8, 15, 27, 38).rows
    hour = Span(1_790_000_040 - 840, 1_790_000_040 + 2760)

    assert walk_back(WANTED, 38, hour, source=source) == 5
    assert walk_back(WANTED, 8, hour, source=source) == 5
    assert walk_back(WANTED, 5, hour, source=source) == 5
    assert walk_back(WANTED, 38, Span(0, 60), source=source) == 38
    assert walk_back(WANTED, 38, ALWAYS, source=source) == 0
    far = table(2, 60)
    far.rows += table(*range(30, 51), created="2026-09-21 10:00:00").rows
    assert walk_back(WANTED, 60, hour, source=far) == 59


@pytest.mark.parametrize("ends", [(5, 5), (6, 5), (-1, 5), (0, MAX_ID + 1)])
def test_window_refused(ends: tuple[int, int]) -> None:
    """What is not a window of ids cannot be built."""
    with pytest.raises(ValueError, match="not a window"):
        Window(*ends)


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        ((), [(100, 150)]),
        ((130, 131), [(100, 150)]),
        # late rows far away, and far from each other
        ((900,), [(100, 150), (899, 900)]),
        ((900, 903, 1400), [(100, 150), (899, 903), (1399, 1400)]),
        # as many as the others: one window for both would be mostly other rows
        (range(700, 750), [(100, 150), (699, 749)]),
    ],
)
def test_windows_by_index(late: Sequence[int], expected: list[tuple[int, int]]) -> None:
    """All rows of a span are found by its times, and few others, however late some of them came.

    Mutant: one window from the first to the last.
    """
    source, hour = FakeSource(), 1_790_000_000 // 3600 * 3600
    for number in range(1, 1501):
        is_in = 100 < number <= 150 or number in late
        source.insert(number, "2026-09-21 14:14:10" if is_in else "2026-09-21 12:00:00", "login")

    found = windows_by_index(WANTED, 1500, Span(hour, hour + 3600), source=source)

    assert found is not None
    assert [(window.after, window.upto) for window in found] == expected
    assert windows_by_index(WANTED, 1500, Span(hour, hour + 3600), source=FakeSource(is_time_indexed=False)) is None


@given(
    rows=st.dictionaries(st.integers(1, 400), st.integers(0, 3 * 3600), max_size=60),
    upto=st.integers(1, 400),
    start=st.integers(0, 180),
    length=st.integers(1, 180),
)
def test_windows_by_index_have_all_rows(rows: dict[int, int], upto: int, start: int, length: int) -> None:
    """No row of a span is outside of the windows, which neither overlap nor pass the horizon."""
    source, hour = FakeSource(), 1_790_000_000 // 3600 * 3600
    for number, after in rows.items():
        source.insert(number, datetime.fromtimestamp(hour + after, UTC).strftime("%Y-%m-%d %H:%M:%S"), "login")
    span = Span(hour + 60 * start, hour + 60 * (start + length))

    found = windows_by_index(WANTED, upto, span, source=source)

    assert found is not None
    wanted = [one for one, after in rows.items() if hour + after in span and one <= upto]
    assert all(any(one in window for window in found) for one in wanted)
    assert all(before.upto < after.after for before, after in pairwise(found))
    assert all(window.upto <= upto for window in found)
