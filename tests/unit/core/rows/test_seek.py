"""A job that passes rows: forward only, with whole slots, and no zeros for what nobody has looked at."""

from dataclasses import replace
from pathlib import Path

import pytest
from builders import NOW, horizon, job
from fakes import FakeSource
from life import ARCHIVES, Life, wanted

from shipper.core.errors import ShipperError
from shipper.core.model import Fingerprint, Job, Query, Window
from shipper.core.position import new_position
from shipper.core.rows.start import Target, by_end, by_id, by_time, position_behind

HOUR, DAY = 3600, 86400
QUIET = wanted(zeros=DAY)
TICKS = replace(wanted(time=None, zeros=DAY, template="ticks.{action}.{measure}"), name="ticks")
LOOKBACK = wanted(lookback=900)


def target(life: Life, job: Job, to: int | str) -> Target:
    """Find where a job goes on: behind an id, with the slot of so many seconds ago ("-60"), or at the "end"."""
    progress = life.state.progress(job.name)
    assert progress is not None
    upto = horizon(life.source.observe(job.query).id, time=life.now)
    if isinstance(to, int):
        return by_id(job, to, progress, upto, source=life.source, now=life.now)
    if to == "end":
        return by_end(job, progress, upto, now=life.now)
    return by_time(job, life.now + int(to), progress, upto, source=life.source, now=life.now)


def seek(life: Life, job: Job, to: int | str) -> None:
    """Let a job go on elsewhere."""
    found = target(life, job, to)
    life.state.seek(job.name, found, position_behind(job, found.captured, source=life.source))


def move(life: Life, job: Job, to: int | str) -> None:
    """Let a job go on elsewhere, and ship."""
    seek(life, job, to)
    life.ship(job)


@pytest.fixture
def behind(life: Life) -> Life:
    """Have two hours of rows that no job has counted: ids 6 to 9, one of them two minutes before the end."""
    for one in (QUIET, TICKS):
        life.ship(one)
    life.now += 2 * HOUR
    life.insert((HOUR, "login", "ok"), (HOUR - 10, "login", "ok"), (120, "login", "ok"), (0, "login", "ok"))
    return life


def bars(life: Life, path: str = "events.login.count") -> dict[int, int]:
    """Return the minutes of a series that came since NOW, as minutes before the end."""
    return {(ago + 2 * HOUR) // 60: value for ago, value in life.minutes(path).items() if ago < 0}


@pytest.mark.parametrize(
    ("to", "expected"),
    [(6, {60: 2, 2: 1, 0: 1}), (7, {60: 2, 2: 1, 0: 1}), (8, {2: 1, 0: 1}), ("-120", {2: 1, 0: 1}), ("end", {0: 1})],
)
def test_rows_are_passed(behind: Life, to: int | str, expected: dict[int, int]) -> None:
    """What is passed is not counted, but for the slot in which it goes on, which is whole; nothing says zero for it.

    Mutants: count the border slot from the id on; close the buckets that are passed.
    """
    move(behind, QUIET, to)

    assert {minute: rows for minute, rows in bars(behind).items() if rows} == expected
    assert min(bars(behind), default=0) == 0
    assert max(bars(behind)) == max(expected)
    assert behind.state.progress("events").captured == 9  # type: ignore[union-attr] # it has begun


def test_goes_on_as_usual(behind: Life) -> None:
    """The next rows are counted once, zeros come again, and the watermark follows.

    Mutant: leave the watermark to the next row.
    """
    seek(behind, QUIET, "end")
    behind.deliver()
    assert behind.state.offsets("events").watermark == 9  # type: ignore[union-attr] # it has begun
    behind.now += 300
    behind.insert((60, "login", "ok"))
    behind.ship(QUIET)

    assert bars(behind) == {0: 1, -1: 0, -2: 0, -3: 0, -4: 1}


@pytest.mark.parametrize("is_reset", [False, True])
def test_job_that_began_with_an_empty_table(tmp_path: Path, *, is_reset: bool) -> None:
    """A job that knew a table without rows passes the first ones. Mutant: take them for rows of another table."""
    life = Life(tmp_path)
    life.source.rows.clear()
    life.given = 0
    life.ship(QUIET)
    if is_reset:
        empty = Fingerprint(life.source.server, ())
        life.state.reset("events", new_position(0, 0, ()), low=0, since=life.now, known=empty)
    life.insert((60, "login", "ok"))
    seek(life, QUIET, "end")
    life.insert((60, "login", "ok"))
    life.ship(QUIET)

    assert life.state.progress("events").captured == 2  # type: ignore[union-attr] # it has begun
    life.state.close()


def test_ticks(behind: Life) -> None:
    """A job without a time passes rows, and its next whole bucket has the rest; what is passed is no zero.

    Mutants: fill the one at hand; close the buckets that are passed.
    """
    before = behind.sums()
    seek(behind, TICKS, "end")
    behind.insert((0, "login", "ok"))
    behind.now += 10
    behind.ship(TICKS)

    assert behind.sums()["ticks.login.count"] == before["ticks.login.count"] + 1
    assert bars(behind, "ticks.login.count") == {-1: 1}


@pytest.mark.parametrize("to", ["end", 11])
def test_ticks_that_are_moved_twice(behind: Life, to: int | str) -> None:
    """Two seeks within a bucket: the skipped ids lie between those of one bucket and those of the next.

    Mutant: continue with the same bucket; it then has the rows on both sides of the skipped ids.
    """
    seek(behind, TICKS, "end")
    behind.insert((0, "login", "ok"))
    behind.ship(TICKS)
    behind.insert((0, "totp", "ok"))
    seek(behind, TICKS, to)
    behind.insert((0, "login", "ok"))
    behind.ship(TICKS)

    assert bars(behind, "ticks.login.count") == {-1: 1, -2: 1}
    slots = {slot.slot - behind.now: (slot.after, slot.upto) for slot in behind.state.slots("ticks")}
    assert (slots[60], slots[120]) == ((9, 10), (11, 12))


@pytest.mark.parametrize(("to", "expected"), [("end", {0: 3}), (11, {0: 3}), ("-30", {0: 3})])
def test_rows_in_flight_come_later(behind: Life, to: int | str, expected: dict[int, int]) -> None:
    """A row in flight when others are passed is counted when it commits, in a slot that stays whole.

    Mutant: hold all ids up to the end for passed.
    """
    behind.source.begin(10, behind.created(0), "login")
    behind.given = 10
    behind.insert((0, "login", "ok"))
    move(behind, QUIET, to)
    behind.source.commit()
    behind.ship(QUIET)

    assert {minute: rows for minute, rows in bars(behind).items() if rows} == expected


def test_late_row_that_was_passed(behind: Life) -> None:
    """A row that commits late for a slot that was passed is too late: alone it would be the whole value.

    Mutant: add it.
    """
    behind.source.begin(10, behind.created(HOUR), "login")
    behind.given = 10
    behind.insert((0, "login", "ok"))
    move(behind, QUIET, "end")
    behind.source.commit()
    behind.ship(QUIET)

    assert {minute: rows for minute, rows in bars(behind).items() if rows} == {0: 2}
    assert behind.rejected() == {"too_late": 1}


def test_lookback_rows(life: Life) -> None:
    """A job that looks at rows by their time passes them by it, and by no id. Mutant: look since the last cycle."""
    life.ship(LOOKBACK)
    life.now += 2 * HOUR
    life.insert((HOUR, "login", "ok"), (60, "login", "ok"))
    with pytest.raises(ShipperError, match="with `lookback` it cannot skip by id"):
        target(life, LOOKBACK, 6)
    move(life, LOOKBACK, "-120")

    assert {minute: rows for minute, rows in bars(life).items() if rows} == {1: 1}


@pytest.mark.parametrize(
    ("job", "to", "expected"),
    [
        (QUIET, 5, "rows up to id 5 are counted already"),
        (QUIET, 10, "10 is above the largest id of audit_trail, 9"),
        (QUIET, f"-{3 * HOUR}", "rows of that time are counted"),
        (QUIET, "60", "in the future"),
        (TICKS, "-60", "it has no `time` column"),
    ],
)
def test_refused(behind: Life, job: Job, to: int | str, expected: str) -> None:
    """It goes forward only, and not beyond the end."""
    with pytest.raises(ShipperError, match=expected):
        target(behind, job, to)


def test_time_of_a_distant_future(behind: Life) -> None:
    """A row whose time is a mistake does not take the job there. Mutant: go on with its slot."""
    behind.insert((-20 * 365 * DAY, "login", "ok"))

    assert target(behind, QUIET, 10).slot == behind.now // 60 * 60


def test_put_off(behind: Life) -> None:
    """A border slot that is part of an hour by the time it is counted takes no minute away that was.

    Mutant: count the minute only.
    """
    hour = (NOW + 3 * HOUR) // HOUR * HOUR
    behind.now = hour + 600
    behind.insert((540, "login", "ok"), (480, "login", "ok"))
    behind.ship(QUIET)
    behind.now += 300
    behind.insert((0, "login", "ok"))
    seek(behind, QUIET, behind.given)
    behind.now += 8 * DAY
    behind.ship(QUIET)
    behind.now += HOUR
    behind.ship(QUIET)

    assert behind.carbon.zoom(ARCHIVES[1])["events.login.count"][hour] == 3


def test_start_of_a_dense_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all ids are there, windows are ranges of ids: nobody looks for their ends. Mutant: count words as rows."""
    source, asked = FakeSource(), []
    for number in range(1, 1001):
        source.insert(number, None, "login")

    def nth_id(self: FakeSource, query: Query, window: Window, rows: int, *, is_backward: bool = False) -> int | None:
        asked.append(is_backward)
        return original(self, query, window, rows, is_backward=is_backward)

    original = FakeSource.nth_id
    monkeypatch.setattr(FakeSource, "nth_id", nth_id)
    position = position_behind(job(chunk=100), 1000, source=source)

    assert asked == [True]
    assert position.counted.missing({0: 2, 15: 1 << 40, 16: 1}) == {16: 1}
