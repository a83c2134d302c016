"""What a look finds of a window: rows, exactly which ids they have, and what it must ask for that."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from builders import horizon, job, position, query
from fakes import FakeSource

from shipper.core.errors import QueryRefused
from shipper.core.id_set import Gaps, words_of
from shipper.core.model import Condition, Query, Window
from shipper.core.rows.look import Content, TableLook

FAILURES = query(where=(Condition("outcome", "in", ("bad",)),))
CREATED = "2026-11-01 00:00:00"
ASKED = {"read", "count", "words", "snapshot", "fingerprint"}


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


def test_appeared(source: Counting) -> None:
    """Of what is asked for, ranges and single ids, those have appeared that have a row and are not counted.

    Mutants: take what is counted for new; ask for ranges only.
    """
    for number in (70, 71, 200):
        source.insert(number, CREATED, "late")
    known = position(2)
    asks = Gaps([(2, 4), (64, 71)], [199, 200])
    found = TableLook(source, horizon(200)).appeared(query(), known, asks)

    assert found == words_of([4, 70, 71, 200])
    assert TableLook(source, horizon(200)).appeared(query(), position(70), asks) == words_of([71, 200])


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
