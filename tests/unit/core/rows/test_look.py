"""What a look finds of a window: rows, exactly which ids they have, and what it must ask for that."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from builders import horizon, job, query
from fakes import FakeSource

from shipper.core.capture import read_late_rows
from shipper.core.errors import QueryRefused
from shipper.core.id_set import words_of
from shipper.core.model import Condition, Query, Window
from shipper.core.position import Position, new_position
from shipper.core.rows.look import Content, TableLook

FAILURES = query(where=(Condition("outcome", "in", ("bad",)),))
CREATED = "2026-11-01 00:00:00"
ASKED = {"read", "count", "words", "snapshot", "fingerprint", "read_at_once"}


class Counting(FakeSource):
    """A table that knows what it was asked, and where something happens between two questions."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = Counter[str]()
        self.meanwhile: list[dict[str, Any]] = []
        """Rows that are committed once something was asked."""

    def __getattribute__(self, name: str) -> Any:
        if name in ASKED:
            self.asked[name] += 1
        if name in ASKED and self.asked.total() > 1:
            self.rows += self.meanwhile
            self.meanwhile = []
        return super().__getattribute__(name)

    @contextmanager
    def snapshot(self, query: Query, *, since: float = 0.0) -> Iterator[None]:
        """Remember since when it may be."""
        self.since = since
        with super().snapshot(query, since=since):
            yield


@pytest.fixture
def source() -> Counting:
    """Give a table with four rows, the id 3 missing."""
    source = Counting()
    for number in (1, 2, 4, 5):
        source.insert(number, CREATED, "login")
    return source


def counted(captured: int, *ids: int) -> Position:
    """Build the position of a job that has counted some ids."""
    return new_position(captured, 0, [words_of(ids)])


def rows_of(found: Content) -> int:
    """Count rows."""
    return sum(row.rows for row in found.rows)


def test_whole_window(source: Counting) -> None:
    """A window in which every id has its row is known from its count: no snapshot, no list of ids, one question.

    Mutants: ask for ids all the same; count first.
    """
    found = TableLook(source, horizon(5)).read(query(), Window(0, 2))

    assert (rows_of(found), found.words) == (2, None)
    assert source.asked == {"read": 1}


def test_whole_window_of_some(source: Counting) -> None:
    """Who counts some of the rows asks how many there are first, once for all who look at that window.

    Mutants: read first; ask each time; take another window for that one.
    """
    look = TableLook(source, horizon(5))
    for _ in range(2):
        assert look.read(FAILURES, Window(0, 2)) == Content([], None)
    assert source.asked == {"count": 1, "read": 2}

    assert look.read(FAILURES, Window(0, 4)).words == words_of([1, 2, 4])


def test_whole_window_on_another_connection(source: Counting) -> None:
    """What one connection has seen whole another may not have: its server may be behind, so it is asked, too.

    Mutant: believe what any connection has look, and rows that it lacks are never counted.
    """
    look = TableLook(source, horizon(5))
    assert look.read(FAILURES, Window(0, 2)).words is None
    source.connection_number = 2
    source.rows.pop(0)

    assert look.read(FAILURES, Window(0, 2)).words == words_of([2])


def test_whole_window_behind_a_pooler(source: Counting) -> None:
    """Where each statement may see another server, ids and rows come from one snapshot, also of a whole window.

    Mutant: believe the count, and rows that the next server lacks are never counted.
    """
    source.connection_number = 0

    assert TableLook(source, horizon(5)).read(FAILURES, Window(0, 2)).words == words_of([1, 2])


def test_row_between_count_and_read(source: Counting) -> None:
    """A count that is not whole is forgotten: what is read later, with the ids of then, is what counts.

    Mutant: take the ids of before for those of the rows.
    """
    source.insert(3, CREATED, "late", "bad")
    source.meanwhile = [source.rows.pop()]
    found = TableLook(source, horizon(5)).read(FAILURES, Window(0, 5))

    assert (rows_of(found), found.words) == (1, words_of([1, 2, 3, 4, 5]))


def test_snapshot_where_ids_are_missing(source: Counting) -> None:
    """Rows and ids of a window with gaps are of one snapshot, which is younger than the horizon.

    What is committed between both is in neither. Mutants: no snapshot; an older one.
    """
    source.insert(3, CREATED, "late")
    source.meanwhile = [source.rows.pop()]
    found = TableLook(source, horizon(5, clock=77.0), has_gaps=True).read(query(), Window(0, 5))

    assert (rows_of(found), found.words) == (4, words_of([1, 2, 4, 5]))
    assert source.since == 77.0
    assert source.asked == {"snapshot": 1, "words": 1, "read": 1}


def test_gaps_go_on(source: Counting) -> None:
    """Where ids were missing the next window is asked for ids at once, until none is missing any more.

    Mutants: try without each time; never again.
    """
    for number in range(6, 16):
        source.insert(number, CREATED, "login")
    look = TableLook(source, horizon(15))
    asked = []
    for window in (Window(0, 5), Window(5, 10), Window(10, 15)):
        before = source.asked.copy()
        look.read(query(), window)
        asked.append(dict(source.asked - before))

    assert asked == [{"snapshot": 1, "words": 1, "read": 2}, {"snapshot": 1, "words": 1, "read": 1}, {"read": 1}]
    assert not look.has_gaps


def test_gaps_asked_for_once(source: Counting) -> None:
    """Jobs that have counted the same ids ask once a look which rows have appeared; another job asks itself.

    Mutants: each asks; believe a job that has counted other ids; believe the look before.
    """
    look, same, other = TableLook(source, horizon(20)), counted(20, 1, 2, 4, 5), counted(20, 1, 2, 5)
    for _ in range(3):
        assert read_late_rows(job(), same, same, look) == ({}, [])
    assert source.asked["snapshot"] == 1

    assert read_late_rows(job(), other, other, look)[0] == words_of([4])
    source.insert(3, CREATED, "late")
    assert read_late_rows(job(), same, same, TableLook(source, horizon(20)))[0] == words_of([3])


def test_ids_not_proven_unique(source: Counting) -> None:
    """Two rows of one id fill the place of a missing one: where nothing proves that ids are unique they are asked for.

    Mutant: believe a count.
    """
    source.is_unique_id = False
    look = TableLook(source, horizon(5))
    assert look.read(query(), Window(0, 2)).words == words_of([1, 2])
    source.insert(2, CREATED, "twice")

    with pytest.raises(QueryRefused, match="the same id"):
        look.read(query(), Window(0, 3))


def test_rows_that_are_not_their_ids(source: Counting) -> None:
    """Rows that appear between ids and counts of one snapshot are of an engine without any. Mutant: count them."""
    source.insert(3, CREATED, "late")
    late = source.rows.pop()
    look = TableLook(source, horizon(5), has_gaps=True)
    real = source.words

    def words(*arguments: Any) -> dict[int, int]:
        found = real(*arguments)
        assert source.seen is not None
        source.seen.append(late)
        return found

    source.words = words  # type: ignore[method-assign,assignment]
    with pytest.raises(QueryRefused, match="5 rows, but 4 different ids"):
        look.read(query(), Window(0, 5))


def test_fingerprint_asked_once(source: Counting) -> None:
    """A table is known by the same rows for all jobs that go by the same column. Mutant: whatever the column."""
    look = TableLook(source, horizon(5))
    timed = [look.fingerprint(one, 5) for one in (job(), job("other", by=()))]
    assert timed[0] == timed[1]
    assert source.asked["fingerprint"] == 1
    timeless = look.fingerprint(job(time=None), 5)

    assert timeless.rows[0] == (5, None) != timed[0].rows[0]
    assert look.fingerprint(job(lookback=900), 5).rows[0] == (5, None)
    assert look.fingerprint(job(), 4).rows[0][0] == 4


def test_read_ahead(source: Counting) -> None:
    """A job that is alone asks for its gaps and a short window in one statement, without a snapshot.

    Mutants: also if other jobs look at the table; forget that ids are missing.
    """
    look, before = TableLook(source, horizon(5), has_gaps=True, is_alone=True), counted(2, 1, 2)
    look.read_ahead(job(), 2, before)
    source.asked.clear()

    assert look.has_none_late(before)
    assert not look.has_none_late(counted(2, 1, 2))
    assert (rows_of(found := look.read(query(), Window(2, 5))), found.words) == (2, words_of([4, 5]))
    assert look.has_gaps
    assert look.fingerprint(job(), 5).rows[0][0] == 5
    assert source.asked == {"fingerprint": 1}


@pytest.mark.parametrize(
    ("changed", "captured"),
    [({"is_alone": False}, 2), ({"chunk": 2}, 2), ({"lookback": 60}, 2), ({"id": "created_at"}, 2), ({}, 6)],
)
def test_nothing_read_ahead(source: Counting, changed: dict[str, Any], captured: int) -> None:
    """Nothing is read ahead for other jobs, beyond a chunk, with a lookback, along a time, or of a table that fell.

    Mutant: read ahead anyway.
    """
    is_alone = changed.pop("is_alone", True)
    look, before = TableLook(source, horizon(5), has_gaps=True, is_alone=is_alone), counted(captured, 1, 2)
    source.asked.clear()
    look.read_ahead(job(**changed), captured, before)

    assert not look.has_none_late(before)
    assert not source.asked


def test_nothing_read_ahead_without_gaps(source: Counting) -> None:
    """Where no id is missing, the count of a window is enough. Mutant: ask for ids anyway."""
    look, before = TableLook(source, horizon(2), is_alone=True), counted(0)
    look.read_ahead(job(), 0, before)

    assert look.read(query(), Window(0, 2)).words is None
    assert source.asked == {"read": 1}


@pytest.mark.parametrize(("captured", "ids"), [(4, [1, 4]), (5, [1, 4, 5])])
def test_late_row_ahead(source: Counting, captured: int, ids: list[int]) -> None:
    """If a row has appeared in a gap, nothing that was read ahead is used: its count must be of the same moment.

    Mutant: take the window, and ask for the late row at the next look.
    """
    look, before = TableLook(source, horizon(5), is_alone=True, has_gaps=True), counted(captured, *ids)
    look.read_ahead(job(), captured, before)

    assert not look.has_none_late(before)
    source.asked.clear()
    assert look.read(query(), Window(4, 5)).words == words_of([5])
    assert source.asked == {"snapshot": 1, "words": 1, "read": 1}


def test_one_fingerprint_for_both(source: Counting) -> None:
    """The known rows and the newest ones are read in one statement where few ids are between.

    Mutants: read each; take rows above the known ones for them.
    """
    for number in range(6, 40):
        source.insert(number, CREATED, "login")
    look = TableLook(source, horizon(39))
    source.asked.clear()

    assert [row[0] for row in look.fingerprint(job(), 20).rows] == [*range(20, 4, -1)]
    assert [row[0] for row in look.fingerprint(job(), 39).rows] == [*range(39, 23, -1)]
    assert source.asked == {"fingerprint": 1}


def test_fingerprint_of_shared_ids(source: Counting) -> None:
    """Where rows share ids, known rows are read by themselves. Mutant: take those that the newest ones leave."""
    for _ in range(30):
        source.insert(6, CREATED, "login")
    look = TableLook(source, horizon(6))

    assert [row[0] for row in look.fingerprint(job(), 5).rows] == [5, 4, 2, 1]
