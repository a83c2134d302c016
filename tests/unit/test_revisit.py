"""Rows that are completed later: each is counted once, in the minute of its end, whatever comes between."""

import tempfile
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from builders import NOW, horizon, job
from fakes import FakeSource
from hypothesis import given
from hypothesis import strategies as st

from shipper.capture import capture
from shipper.model import Cause, Job
from shipper.state import State

PATIENT = job("jobs", revisit=900, max_age=10**7, chunk=3, start="now")
HASTY = replace(PATIENT, max_age=7200)
ACTIONS = st.sampled_from(["begin", "begin", "end", "tick", "tick", "crash", "wait", "delete", "long wait"])


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

    def begin(self) -> None:
        """Something begins; it has no end yet."""
        self.given += 1
        self.source.insert(self.given, None, "a")

    def end(self, dice: int) -> None:
        """Something that has begun ends; that is seen some minutes later."""
        if open_rows := [row for row in self.source.rows if row["created_at"] is None]:
            moment = datetime.fromtimestamp(self.now - 5 * dice, UTC)
            open_rows[dice % len(open_rows)]["created_at"] = moment.strftime("%Y-%m-%d %H:%M:%S")

    def delete(self, dice: int) -> None:
        """Something that is still open is taken back."""
        if open_rows := [row for row in self.source.rows if row["created_at"] is None]:
            self.source.rows.remove(open_rows[dice % len(open_rows)])

    def tick(self, *, steps: int = 10_000) -> None:
        """Capture, perhaps not to the end."""
        upto = horizon(self.given, time=self.now)
        taken = capture(self.wanted, upto, source=self.source, ledger=self.state, now=self.now)
        for _ in zip(range(steps), taken, strict=False):
            pass
        taken.close()

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
    """As long as a capture comes within what is revisited, the totals are the table's.

    Mutants: let `low` pass open rows; recount from the last cycle on; forget the rows of an aborted cycle.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        shop = stack.enter_context(closing(Shop(folder)))
        shop.tick()
        for action, dice in actions:
            match action:
                case "begin":
                    shop.begin()
                case "end" | "delete" | "crash":
                    getattr(shop, action)(dice)
                case "tick":
                    shop.tick()
                case "wait":
                    shop.now += dice * 6
                case _:
                    shop.now += 5000
            shop.now += 1
        shop.tick()

        assert shop.totals() == shop.ends()


def test_never_completed() -> None:
    """A row that is open for longer than max_age is given up, counted, and holds nothing up any more."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        shop = stack.enter_context(closing(Shop(folder, HASTY)))
        shop.begin()
        shop.tick()
        for _ in range(4):
            shop.now += 3000
            shop.begin()
            shop.tick()
            shop.end(1)
        unshown = dict(shop.state._connection.execute("SELECT cause, rows FROM unshown WHERE rows > 0").fetchall())
        found = shop.state.progress("jobs")

    assert unshown == {Cause.NEVER_COMPLETED: 1}
    assert found is not None
    assert found.low >= 1


def test_completed_before_the_span() -> None:
    """A row that comes with a time from before the span is too late, and counted as that."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        shop = stack.enter_context(closing(Shop(folder)))
        shop.tick()
        shop.now += 7200
        shop.tick()
        old = datetime.fromtimestamp(shop.now - 3600, UTC).strftime("%Y-%m-%d %H:%M:%S")
        shop.given += 1
        shop.source.insert(shop.given, old, "a")
        shop.tick()
        shop.tick()
        unshown = dict(shop.state._connection.execute("SELECT cause, rows FROM unshown WHERE rows > 0").fetchall())
        found = shop.state.progress("jobs")

    assert unshown == {Cause.TOO_LATE: 1}
    assert found is not None
    assert found.recount_from is None
