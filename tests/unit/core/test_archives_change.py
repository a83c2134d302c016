"""What outlives a change of `retentions`: totals of steps that no archive has any more, and longer slots."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import NOW, job
from dispatch import Desk
from fakes import FakeCarbon
from life import Life

from shipper.core.model import Archive
from shipper.state.store import State

DAY, HOUR = 86400, NOW // 3600 * 3600
YEAR = 365 * DAY


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """Give a Carbon that stores each value at the time that it is sent with."""
    life = Life(tmp_path)
    life.carbon = FakeCarbon()  # type: ignore[assignment]
    yield life
    life.state.close()


def test_finest_step_gets_shorter(life: Life) -> None:
    """A bucket that is filled while `retentions` change keeps its rows. Mutant: look for steps of present archives."""
    archives: tuple[Archive, ...]
    for archives in [(Archive(300, YEAR),), (Archive(60, DAY), Archive(3600, YEAR))]:
        life.insert((0, "login", "ok"))
        life.ship(job(bucket=300, archives=archives))

    assert life.carbon.sums() == {"events.login.count": {NOW - NOW % 300: 2}}


def test_finest_step_gets_longer(tmp_path: Path) -> None:
    """Minutes that wait for Carbon are added up to the slots that it has now. Mutant: send them as they are."""
    with State(str(tmp_path / "shipper.db")) as state:
        Desk(state, archives=(Archive(60, YEAR),)).record("a", 0, 5, {("x", HOUR + 60 * n): 1 for n in range(7)})
        desk = Desk(state, archives=(Archive(300, YEAR),), replay=(0,))
        for _ in range(3):
            desk.step()
            desk.clock += 60

        assert {line for batch in desk.batches for line in batch} == {
            f"a.x.count 5 {HOUR}",
            f"a.x.count 2 {HOUR + 300}",
        }
        assert desk.watermark("a") == 5


def test_step_goes_while_its_totals_wait(tmp_path: Path) -> None:
    """Totals of an archive that is gone are added up in the next coarser one. Mutant: send each to that archive."""
    with State(str(tmp_path / "shipper.db")) as state:
        before = Desk(state, archives=(Archive(60, DAY), Archive(600, 10 * DAY), Archive(86400, YEAR)), replay=(0,))
        before.record("a", 0, 5, {("x", HOUR): 7, ("x", HOUR + 600): 4}, now=HOUR + DAY)
        assert before.run() == []
        desk = Desk(state, archives=(Archive(60, DAY), Archive(3600, YEAR)), replay=(0,))
        for _ in range(5):
            desk.step(now=HOUR + 3 * DAY)
            desk.clock += 60

        assert {line for batch in desk.batches for line in batch} == {f"a.x.count 11 {HOUR}"}
        assert desk.watermark("a") == 5


def test_lookback_begins_within_a_longer_slot(life: Life) -> None:
    """A slot of an archive that is gone is recounted as a whole. Mutant: begin with the bucket of the lookback."""
    before = job(bucket=300, archives=(Archive(300, YEAR),), lookback=600, max_age=DAY)
    start = NOW - NOW % 300
    life.insert((NOW - start, "login", "ok"), (NOW - start - 240, "login", "ok"))
    life.ship(before)
    for seconds in (300, 720, 780):
        life.now = start + seconds
        life.ship(job(bucket=60, archives=(Archive(60, YEAR),), lookback=600, max_age=DAY))

    assert life.carbon.sums() == {"events.login.count": {start: 2}}


def test_last_step_gets_longer(life: Life) -> None:
    """A day of which hours were pruned is not replaced by its rest (6 rows were 1). Mutant: ask for the hour."""
    day = (NOW - 5 * DAY) // DAY * DAY
    life.insert(*[(NOW - day - 7200, "login", "ok")] * 5)
    before, after = (job(archives=(Archive(60, DAY), Archive(step, YEAR))) for step in (3600, DAY))
    life.ship(before)
    life.state.housekeeping.prune("events", unit=3600, before=10**10)
    life.insert((NOW - day - 5 * 3600, "login", "ok"))
    life.ship(after)

    assert life.carbon.sums() == {"events.login.count": {day + 7200: 5}}
    assert life.rejected() == {"too_late": 1}


@pytest.mark.parametrize("torn", ["a", "b"])
def test_last_step_gets_longer_while_an_hour_waits(tmp_path: Path, torn: str) -> None:
    """An hour that waits for Carbon is not sent as its day if other hours of the job were pruned (5 rows were 2).

    Mutants: merge what is left of the day; look at the hours of other jobs.
    """
    day = NOW // DAY * DAY
    with State(str(tmp_path / "shipper.db")) as state:
        before = Desk(state, archives=(Archive(60, 3600), Archive(3600, YEAR)), replay=(0,))
        for number, name in enumerate("ab"):
            before.record(name, number, 5, {("x", day): 4, ("x", day + 6 * 3600): 1}, now=day + DAY)
        for _ in range(5):
            before.step(now=day + DAY)
        state._connection.execute("UPDATE slot SET changed = 0 WHERE slot = ?", (day,))
        assert state.housekeeping.prune(torn, unit=3600, before=day + DAY) == 1
        before.record("a", 5, 6, {("x", day + 6 * 3600): 1}, now=day + DAY)
        desk = Desk(state, archives=(Archive(60, 3600), Archive(3600, DAY), Archive(DAY, YEAR)), replay=(0,))
        for _ in range(5):
            desk.step(now=day + 4 * DAY)
            desk.clock += 60

        sent = {line for batch in desk.batches for line in batch}
        assert sent == (set() if torn == "a" else {f"a.x.count 6 {day}"})
        assert desk.courier.given_up == ({"a": 2} if torn == "a" else {})
        assert desk.watermark("a") == 6
