"""What the jobs of a table share: evidence and fingerprints are asked for once."""

from collections import Counter
from typing import Any

import pytest
from builders import job, query
from fakes import FakeSource

from shipper.model import Checksum, Condition, Evidence, Window
from shipper.seen import Seen

FAILURES = query(where=(Condition("outcome", "in", ("bad",)),))


class Counting(FakeSource):
    """A table that knows what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = Counter[str]()

    def __getattribute__(self, name: str) -> Any:
        if name in {"read", "count", "evidence", "checksum", "fingerprint"}:
            self.asked[name] += 1
        return super().__getattribute__(name)


@pytest.fixture
def source() -> Counting:
    """Give a table with four rows, the id 3 missing."""
    source = Counting()
    for number in (1, 2, 4, 5):
        source.insert(number, "2026-11-01 00:00:00", "login", "ok")
    return source


def test_complete_window_asked_once(source: Counting) -> None:
    """A window without holes is known from the counts of whoever reads all of it; others read their rows, no more.

    Mutants: forget it; take a window that is not within it for complete, too.
    """
    seen, window = Seen(source), Window(0, 2)
    rows, evidence = seen.read(query(), window, 0)
    assert ([row.rows for row in rows], evidence) == ([2], Evidence(None))
    assert source.asked == {"read": 1}
    assert seen.read(FAILURES, window, 0) == ([], Evidence(None))
    assert source.asked == {"read": 2}

    assert seen.read(FAILURES, Window(0, 4), 0)[1].checksum == Checksum(3, 7, 7)


def test_complete_window_counted(source: Counting) -> None:
    """Who counts some of the rows only asks how many there are."""
    assert Seen(source).read(FAILURES, Window(0, 2), 0) == ([], Evidence(None))
    assert source.asked == {"read": 1, "count": 1}


def test_evidence_asked_once(source: Counting) -> None:
    """Where ids are missing the first job's evidence is good for all; whoever has the window recorded needs none."""
    seen, window = Seen(source, has_gaps=True), Window(0, 5)
    found = [seen.read(asked, window, 0)[1] for asked in (query(), FAILURES)]
    assert found == [Evidence(Checksum(4, 12, 2))] * 2
    before = source.asked.copy()
    assert seen.read(FAILURES, window, 5)[1] == Evidence(None)

    assert source.asked["evidence"] == 1
    assert source.asked - before == {"read": 1}


def test_in_flight_holds_all(source: Counting) -> None:
    """A row in flight is looked for once; no job reads beyond it, unless it is to be passed."""
    source.begin(3, None, "late")
    seen, window = Seen(source, has_gaps=True), Window(0, 5)
    for asked in (query(), FAILURES):
        assert seen.read(asked, window, 0) == ([], Evidence(Checksum(4, 12, 2), (3,)))
    assert source.asked["evidence"] == 1
    assert source.asked["read"] == 0

    rows, evidence = seen.read(query(), window, 0, passes=True)
    assert (sum(row.rows for row in rows), evidence.in_flight) == (4, (3,))


def test_fingerprint_asked_once(source: Counting) -> None:
    """A table is known by the same rows for all jobs that go by the same column. Mutant: whatever the column."""
    seen = Seen(source)
    timed = [seen.fingerprint(one, 5) for one in (job(), job("other", by=()))]
    assert timed[0] == timed[1]
    assert source.asked["fingerprint"] == 1
    timeless = seen.fingerprint(job(time=None), 5)

    assert timeless.rows[0] == (5, None) != timed[0].rows[0]
    assert seen.fingerprint(job(revisit=900), 5).rows[0] == (5, None)
    assert seen.fingerprint(job(), 4).rows[0][0] == 4
