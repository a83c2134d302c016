"""Rows that are completed later: each is counted once, in the minute of its end, whatever comes between."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders import NOW, horizon, job
from fakes import FakeSource
from hypothesis import given
from hypothesis import strategies as st
from life import recount

from shipper.core.capture import capture
from shipper.core.model import Archive, Condition, Job, RejectReason, Span
from shipper.core.rows.start import by_end
from shipper.state.store import State

PATIENT = job("jobs", lookback=900, max_age=10**7, chunk=3, start="now")
HASTY = replace(PATIENT, max_age=7200, every=3000)
ACTIONS = st.sampled_from(
    ["begin", "begin", "in flight", "commit", "end", "end", "tick", "tick", "crash", "wait", "delete", "long wait"]
)
BEGINS = NOW
"""The slot that the job begins with."""


class Shop:
    """Things that begin and end, and a job that counts their ends."""

    def __init__(self, folder: str, wanted: Job = PATIENT) -> None:
        self.wanted = wanted
        self.path = f"{folder}/shipper.db"
        self.state = State(self.path)
        self.source = FakeSource()
        self.now = NOW
        self.given = 0

    def close(self) -> None:
        """End in order."""
        self.state.close()

    def begin(self, *, is_committed: bool = True) -> None:
        """Something begins; it has no end yet."""
        self.given += 1
        self.source.begin(self.given, None, "a")
        if is_committed:
            self.source.rows.append(self.source.in_flight.pop())

    def complete(self, *when: int) -> None:
        """Some things are inserted with their ends, seconds from now."""
        for seconds in when:
            self.given += 1
            self.source.insert(self.given, self.written(seconds), "a")

    def written(self, seconds: int) -> str:
        """Write the time so many seconds from now."""
        return datetime.fromtimestamp(self.now + seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")

    def correct(self, seconds: int) -> None:
        """The newest end is written anew."""
        self.source.rows[-1]["created_at"] = self.written(seconds)

    def close_open(self, seconds: int) -> None:
        """Whatever is open ends."""
        for row in self.source.rows:
            row["created_at"] = row["created_at"] or self.written(seconds)

    def end(self, dice: int) -> None:
        """Something that has begun ends; that is seen some minutes later, or an hour."""
        if open_rows := [row for row in self.source.rows if row["created_at"] is None]:
            seconds = -5 * dice if dice % 2 else -60 * dice
            open_rows[dice % len(open_rows)]["created_at"] = self.written(seconds)

    def delete(self, dice: int) -> None:
        """Something that is still open is taken back, but for the newest, which would hold the job."""
        newest = max((row["id"] for row in self.source.rows), default=0)
        if open_rows := [row for row in self.source.rows if row["created_at"] is None and row["id"] < newest]:
            self.source.rows.remove(open_rows[dice % len(open_rows)])

    def tick(self, *, steps: int = 10_000) -> None:
        """Capture, perhaps not to the end."""
        upto = horizon(self.source.observe(self.wanted.query).id, time=self.now)
        taken = capture(self.wanted, upto, source=self.source, ledger=self.state, now=self.now)
        for _ in zip(range(steps), taken, strict=False):
            pass
        taken.close()

    def rejected(self) -> dict[str, int]:
        """Return the counters, those above 0."""
        return dict(self.state._connection.execute("SELECT reason, rows FROM rejected WHERE rows > 0").fetchall())

    def crash(self, dice: int) -> None:
        """End in the midst of a capture."""
        self.tick(steps=dice % 4)
        self.state.close()
        self.state = State(self.path)

    def totals(self) -> dict[int, int]:
        """Read the totals by minute."""
        rows = self.state._connection.execute("SELECT slot, value FROM total WHERE value > 0").fetchall()
        return dict(rows)

    def ends(self) -> dict[int, int]:
        """Count the table by minute."""
        times = [datetime.fromisoformat(row["created_at"]) for row in self.source.rows if row["created_at"]]
        return dict(Counter(int(time.replace(tzinfo=UTC).timestamp()) // 60 * 60 for time in times))


def _folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder where fsync costs nothing."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


@given(st.lists(st.tuples(ACTIONS, st.integers(0, 100)), max_size=60))
def test_every_end_is_counted_once(actions: list[tuple[str, int]]) -> None:
    """Whenever an end is written, and however long ago it was, the totals are the table's.

    Ends of before the job began are too late, and counted as that.

    Mutants: let `low` pass open rows; recount from the last cycle on; forget the rows of an aborted cycle; leave what
    is completed before the span out, or in with what the span is recounted to.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        shop = stack.enter_context(closing(Shop(folder)))
        shop.tick()
        for action, dice in actions:
            match action:
                case "begin" | "in flight":
                    shop.begin(is_committed=action == "begin")
                case "commit":
                    shop.source.commit()
                case "end" | "delete" | "crash":
                    getattr(shop, action)(dice)
                case "tick":
                    shop.tick()
                case "wait":
                    shop.now += dice * 6
                case _:
                    shop.now += 5000
            shop.now += 1
        shop.source.commit()
        shop.wanted = replace(shop.wanted, every=10**5)  # so that old gaps are due, too
        for _ in range(2):
            shop.now += 10**5
            shop.tick()

        assert shop.totals() == {minute: rows for minute, rows in shop.ends().items() if minute >= BEGINS}
        assert shop.rejected() == +Counter(too_late=sum(n for minute, n in shop.ends().items() if minute < BEGINS))


@pytest.fixture
def shop() -> Iterator[Shop]:
    """Give a shop that has been looked at once, an hour ago."""
    with ExitStack() as stack:
        shop = stack.enter_context(closing(Shop(stack.enter_context(_folder()))))
        shop.tick()
        shop.now += 3600
        yield shop


def test_never_completed() -> None:
    """A row that is open for longer than max_age is given up, counted, and holds nothing up any more.

    Mutants: at once; by the clock; never.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        shop = stack.enter_context(closing(Shop(folder, HASTY)))
        shop.begin()
        shop.tick()
        told = []
        for _ in range(4):
            shop.now += 3000
            shop.begin()
            shop.tick()
            shop.end(1)
            told.append(shop.rejected())
        found = shop.state.progress("jobs")

    assert told == [{}, {}, {RejectReason.NEVER_COMPLETED: 1}, {RejectReason.NEVER_COMPLETED: 1}]
    assert found is not None
    assert found.low >= 1


def test_completed_after_it_was_given_up() -> None:
    """A row that was given up is counted as that for good, though it is completed later. Mutant: add it, too."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        shop = stack.enter_context(closing(Shop(folder, HASTY)))
        shop.begin()
        shop.tick()
        for _ in range(4):
            shop.now += 3000
            shop.tick()
        shop.end(1)
        shop.tick()

        assert (shop.totals(), shop.rejected()) == ({}, {RejectReason.NEVER_COMPLETED: 1})


def test_completed_before_the_span(shop: Shop) -> None:
    """A row that comes with a time from before the span is added there, once, beside what is counted already.

    Mutants: leave it out; set what stands there to it; add it at each look.
    """
    shop.complete(-3000)
    shop.tick()
    shop.now += 3600
    shop.tick()
    shop.complete(-6600)
    for _ in range(3):
        shop.tick()

    assert shop.totals() == {NOW + 600: 2}
    assert shop.rejected() == {}


def test_completed_before_the_job(shop: Shop) -> None:
    """A row that comes with a time from before the job is too late, and counted as that, once."""
    shop.complete(-7200)
    for _ in range(3):
        shop.tick()
    found = shop.state.progress("jobs")

    assert (shop.totals(), shop.rejected()) == ({}, {RejectReason.TOO_LATE: 1})
    assert found is not None
    assert found.recount_from is None


def test_open_row_that_was_seen(shop: Shop) -> None:
    """An open row that a look has seen, and that then gets an end older than the span, is counted.

    Exactness 1: of four rows three were. Mutants: take a row that was seen for counted; look at no row below low.
    """
    shop.complete(0, 0, 0)
    shop.begin()
    shop.tick()
    for _ in range(60):  # low passes all that is old and complete
        shop.now += 60
        shop.tick()
    shop.close_open(-3000)
    for _ in range(2):
        shop.now += 60
        shop.tick()

    assert (sum(shop.totals().values()), shop.rejected()) == (4, {})


def test_transaction_longer_than_the_span(shop: Shop) -> None:
    """A row that is committed long after lookback has passed its time, and whose id is far below, is counted.

    Exactness 2: of sixteen rows fifteen were. Mutants: ask for no gaps of these jobs; for those above low only.
    """
    shop.begin(is_committed=False)
    shop.source.in_flight[0]["created_at"] = shop.written(-60)
    for _ in range(15):
        shop.complete(0)
        shop.tick()
        shop.now += 300
    found = shop.state.progress("jobs")
    assert found is not None
    assert found.low > 1
    shop.source.commit()
    for _ in range(300):
        shop.now += 60
        shop.tick()

    assert (sum(shop.totals().values()), shop.rejected()) == (16, {})
    assert shop.state.late_rows("jobs") == 1


@pytest.mark.parametrize("is_seek", [False, True])
def test_recounted_row_below_low(shop: Shop, *, is_seek: bool) -> None:
    """A late row below `low` that a recount adds to the span is still counted after the next look.

    Mutant: leave `low` as it is.
    """
    shop.begin(is_committed=False)
    shop.complete(0)
    shop.tick()
    shop.now += 110
    shop.tick()
    shop.now += 10
    shop.source.in_flight[0]["created_at"] = shop.written(0)
    shop.source.commit()
    progress, upto = shop.state.progress("jobs"), horizon(2, time=shop.now)
    assert progress is not None
    if is_seek:
        shop.state.seek("jobs", by_end(shop.wanted, progress, upto, now=shop.now), shop.state.position("jobs"))
    else:
        span = Span(shop.now - 600, shop.now + 60)
        list(recount(shop.wanted, span, source=shop.source, ledger=shop.state, now=shop.now))
    for _ in range(2):
        shop.tick()

    assert shop.totals() == shop.ends()


def test_slot_that_became_coarser(shop: Shop) -> None:
    """After a downtime the span begins with a coarser slot, and rows of it that were below `low` stay counted.

    Mutant: read only rows above `low`.
    """
    shop.wanted = replace(shop.wanted, archives=(Archive(60, 7200), Archive(3600, 30 * 86400)))
    shop.complete(0)
    for _ in range(20):
        shop.tick()
        shop.now += 60
    shop.complete(0)
    shop.tick()
    found = shop.state.progress("jobs")
    assert found is not None
    assert found.low == 1
    shop.now += 3 * 3600
    shop.complete(0)
    for _ in range(2):
        shop.tick()

    assert sum(shop.totals().values()) == 3


def test_end_that_is_written_twice(shop: Shop) -> None:
    """An end that is corrected within the span moves its row; out of or into the span it is counted at both times.

    Exactness 13: one row was two. This is the limit that is documented; a row that was counted is not remembered.
    """
    shop.complete(-120)
    shop.tick()
    shop.correct(-300)
    shop.tick()
    assert shop.totals() == {NOW + 3300: 1}
    shop.now += 600
    shop.tick()
    shop.correct(-30)
    shop.tick()
    assert shop.totals() == {NOW + 4140: 1}
    shop.now += 3600
    shop.tick()
    shop.now += 60
    shop.correct(-30)
    shop.tick()

    assert shop.totals() == {NOW + 4140: 1, NOW + 7800: 1}


def test_deleted_row_of_the_span(shop: Shop) -> None:
    """A row that is deleted within the span goes from the totals: they are the table's there; before it stays.

    Mutants: never lower what was counted; look at all slots.
    """
    shop.complete(-120, -700)
    shop.tick()
    shop.now += 400
    shop.tick()
    shop.now += 60
    shop.tick()
    shop.source.rows.clear()
    shop.begin()
    shop.tick()

    assert shop.totals() == {NOW + 2880: 1}


def test_gap_that_is_older_than_late() -> None:
    """A row in flight is waited for as long as one that is open: for max_age. Mutant: for late."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        shop = stack.enter_context(closing(Shop(folder, replace(PATIENT, every=3000, late=6000))))
        shop.begin(is_committed=False)
        shop.complete(0)
        shop.tick()
        for _ in range(10):
            shop.now += 3000
            shop.complete(0)
            shop.tick()
        shop.source.in_flight[0]["created_at"] = shop.written(-9000)
        shop.source.commit()
        for _ in range(11):
            shop.now += 3000
            shop.tick()

        assert sum(shop.totals().values()) == 12


def test_gaps_are_given_up() -> None:
    """What is older than max_age and late is waited for no more, and no further than what is complete.

    Mutants: never; up to what is still open, or of the span.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        shop = stack.enter_context(closing(Shop(folder, replace(HASTY, late=6000))))
        shop.complete(0)
        shop.begin(is_committed=False)
        shop.complete(0, 0)
        shop.begin()
        for _ in range(5):
            shop.source.rows[2]["created_at"] = shop.written(0)  # it stays in the span
            shop.tick()
            shop.now += 3000
        assert shop.state.position("jobs").counted.floor == 3
        shop.close_open(-6000)
        shop.source.commit()
        shop.tick()

        assert (sum(shop.totals().values()), shop.rejected()) == (4, {})


def test_completed_before_all_archives(shop: Shop) -> None:
    """A row with a time that no archive holds is too late, once. Mutants: leave it out; count it at each look."""
    shop.complete(-40 * 86400)
    for _ in range(3):
        shop.tick()

    assert (shop.totals(), shop.rejected()) == ({}, {RejectReason.TOO_LATE: 1})


@pytest.mark.parametrize("back", [1, 600, 5000])
def test_clock_that_was_set_back(shop: Shop, back: int) -> None:
    """A clock that is set back, by however little, lowers no total, then and when it has caught up.

    Mutants: look back from the clock; replace slots that are ahead of it; let `low` pass their rows.
    """
    shop.wanted = replace(shop.wanted, lookback=540, max_age=60)
    shop.now += 60
    for _ in range(20):
        shop.complete(-30)
        shop.tick()
        shop.now += 60
    for seconds in (-60 - back, 60, 120, 180, back, 3600):
        shop.now += seconds
        shop.tick()
        assert shop.totals() == shop.ends(), seconds


def test_row_that_changes_after_clocks_were_ahead(shop: Shop) -> None:
    """Once both clocks are right again, rows within the lookback are counted as they are now.

    Mutants: look back from the time until which rows were complete by the wrong clocks; let `low` pass their rows.
    """
    shop.tick()
    shop.now += 86400
    for _ in range(2):
        shop.complete(-30)
        shop.tick()
        shop.now += 60
    shop.now -= 86400
    for _ in range(3):
        shop.complete(-30)
        shop.tick()
        shop.now += 60
    shop.correct(-130)
    for _ in range(2):
        shop.tick()
        assert shop.totals() == shop.ends()


def test_start_behind_an_id_and_another_definition(tmp_path: Path) -> None:
    """A job that starts behind an id can be changed later: rows up to that id were never its own.

    Mutant: add them at each look to those that the floor has passed, of which a range without ids then has many.
    """
    with closing(Shop(str(tmp_path), replace(PATIENT, start=7))) as shop:
        shop.complete(*[-30] * 8)
        for _ in range(30):
            shop.tick()
            shop.now += 60
        ends = shop.totals()
        other = replace(shop.wanted.query, where=(Condition("action", "in", ("a",)),))
        shop.wanted = replace(shop.wanted, query=other)
        shop.tick()

        assert shop.totals() == ends
        assert sum(ends.values()) == 8
        assert shop.state.settled(shop.wanted.name) == []
