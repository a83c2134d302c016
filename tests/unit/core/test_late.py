"""Rows that commit late, ids that come back, tables that go back: Graphite has each row once all the same.

Numbers in brackets are what an earlier design counted; that one knew windows and how many rows they have, and no ids.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, horizon
from life import Life, wanted

from shipper.core.capture import capture
from shipper.core.errors import QueryRefused, SourceReset
from shipper.core.id_set import ids_of, words_of
from shipper.core.model import Condition, Job
from shipper.core.repair.reset import After, restarted
from shipper.core.rows.table import Event

TICKS = replace(wanted(time=None, zeros=86400, template="ticks.{action}.{measure}"), name="ticks")
HOUR, DAY = 3600, 86400
LATE = wanted().late
FAILURES = (Condition("outcome", "in", ("failure",)),)


def other(name: str, **changed: Any) -> Job:
    """Build another job on the table."""
    return replace(wanted(template=name + ".{action}.{measure}"), name=name, **changed)


def begin(life: Life, *ids: int) -> None:
    """Insert rows that are not committed yet, a minute old."""
    for number in ids:
        life.source.begin(number, life.created(60), "late")
    life.given = max(life.given, *ids)


def look(life: Life, seconds: int, *jobs: Job, every: int = 60) -> None:
    """Look each minute for so long."""
    for _ in range(seconds // every):
        life.now += every
        life.ship(*jobs or (wanted(),))


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Life]:
    """Give a table without rows."""
    life = Life(tmp_path)
    yield life
    life.state.close()


@pytest.mark.parametrize("job", [wanted(), TICKS, wanted(where=FAILURES), replace(wanted(), chunk=2)])
def test_row_in_flight_holds_nothing(life: Life, job: Job) -> None:
    """Others are counted at once; it is, too, with the first look after its commit. Mutants: wait for it; pass it."""
    life.source.begin(6, life.created(60), "late", "failure")
    life.given = 6
    life.insert((0, "login", "failure"))
    life.ship(job)
    first = life.sums()
    life.source.commit()
    life.ship(job)

    login, late = f"{job.name}.login.count", f"{job.name}.late.count"
    assert first[login] == (2 if job.query.where else 4)
    assert life.sums() == first | {late: 1}
    assert life.events() == []


@pytest.mark.parametrize("is_unique", [True, False])
@pytest.mark.parametrize("job", [wanted(), TICKS, wanted(where=FAILURES), replace(wanted(), chunk=2)])
def test_late_rows_are_added(life: Life, job: Job, *, is_unique: bool) -> None:
    """Rows that appear below captured are added to what is there, each once, whatever slot they are of.

    Mutants: leave them out of the set; count their windows again; look for them in the newest window only.
    """
    life.source.is_unique_id = is_unique
    life.given = 7  # ids 6 and 7 are of transactions that are under way
    life.insert((0, "login", "failure"), (0, "login", "ok"))
    life.ship(job)
    before = life.sums()
    life.source.insert(6, life.created(60), "login", "failure")
    life.source.insert(7, life.created(60), "new", "failure")
    look(life, 600, job)

    login, new = f"{job.name}.login.count", f"{job.name}.new.count"
    assert life.sums() == before | {login: before[login] + 1, new: 1}
    assert life.state.late_rows(job.name) == 2


@pytest.mark.parametrize(("commits", "counted"), [(1, 60), (60, 60), (61, 240), (240, 240), (241, 960), (961, 3840)])
def test_when_a_late_row_is_counted(life: Life, commits: int, counted: int) -> None:
    """A row that is committed late is counted with the next look that asks for it, the last one at `late`.

    Mutants: ask at each look; ask no more after a minute; give up without asking.
    """
    begin(life, 6)
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    found = None
    for passed in range(1, counted // 60 + 2):
        life.now += 60
        if passed * 60 >= commits:
            life.source.commit()
        life.ship(wanted())
        if found is None and "events.late.count" in life.sums():
            found = passed * 60

    assert found == counted
    assert life.sums()["events.late.count"] == 1


def test_row_later_than_late(life: Life) -> None:
    """A row that is committed after `late` is missed: that is the limit. Others that come with it are not.

    Mutant: read up to captured again, and count whatever is not in the set.
    """
    begin(life, 6)
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    look(life, 2 * HOUR, every=120)
    begin(life, 8)
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    look(life, LATE - HOUR, every=120)
    life.source.commit()
    look(life, HOUR, every=120)

    assert life.sums() == {"events.login.count": 5, "events.totp.count": 2, "events.late.count": 1}
    assert life.state.position("events").counted.floor == 7


@pytest.mark.parametrize("job", [wanted(), TICKS, wanted(where=FAILURES)])
@pytest.mark.parametrize("far", [60, 10**9])
def test_ids_of_an_old_block(life: Life, job: Job, far: int) -> None:
    """Rows of a block of ids that was given out long ago are counted, as long as less than `late` lies between two.

    Mutants: make nothing young again; only the ids above the row's block; only after the floor has risen.
    """
    job = replace(job, late=HOUR)
    life.source.insert(far, life.created(60), "login", "failure")
    life.ship(job)
    for number in range(6, 12):
        look(life, HOUR // 2, job, every=120)
        life.source.insert(number, life.created(0), "late", "failure")
    look(life, HOUR, job, every=120)

    assert life.sums()[f"{job.name}.late.count"] == 6


def test_downtime_makes_no_row_late(life: Life) -> None:
    """What is committed while nobody looks, for however long, is counted. Mutant: age by the clock."""
    begin(life, 6)
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.now += 4 * LATE
    life.source.commit()
    look(life, HOUR)

    assert life.sums()["events.late.count"] == 1


def test_begins_beside_an_open_transaction(empty: Life) -> None:
    """A row in flight where a job begins "now" is a gap, and counted when it is committed (23 rows were 22).

    Mutants: begin with all ids up to captured as counted; with none.
    """
    empty.insert(*[(90, "login", "ok")] * 40, *[(0, "login", "ok")] * 10)
    empty.source.begin(51, empty.created(0), "login")
    empty.given = 51
    empty.insert(*[(0, "login", "ok")] * 12)
    late = wanted(start="now")
    empty.ship(late)
    assert empty.sums() == {"events.login.count": 22}
    empty.source.commit()
    empty.ship(late)
    look(empty, HOUR, late)

    assert empty.sums() == {"events.login.count": 23}
    assert empty.minutes("events.login.count") == {0: 23}
    assert empty.rejected() == {}


def test_start_is_a_floor(empty: Life) -> None:
    """Nothing at or below the id that a job begins behind is its own, even what appears there later. Mutant: a gap."""
    empty.given = 10
    empty.insert(*[(0, "login", "ok")] * 3)
    late = wanted(start=12)
    empty.ship(late)
    empty.source.insert(5, empty.created(0), "late")
    empty.source.insert(14, empty.created(0), "login")
    look(empty, 240, late)

    assert empty.sums() == {"events.login.count": 4}


@pytest.mark.parametrize("order", ["together", "one behind", "one behind others"])
def test_two_jobs_pass_a_row_at_different_times(empty: Life, order: str) -> None:
    """Each job has a set of its own: who looks before a commit counts the row late, who looks after it does not.

    Three rows were two: what two jobs had seen was one and the same. Mutant: share what is counted.
    """
    one, two = wanted(), other("other")
    empty.insert((0, "login", "ok"))
    begin(empty, 2)
    empty.insert((0, "login", "ok"))
    empty.ship(one, two) if order == "together" else empty.ship(one)
    empty.now += 20
    if order == "one behind others":
        empty.insert((0, "login", "ok"))
        empty.ship(one)
    empty.source.commit()
    empty.ship(two)
    look(empty, 240, one, two)

    logins = 3 if order == "one behind others" else 2
    expected = {"login": logins, "late": 1}
    assert empty.sums() == {f"{job.name}.{name}.count": rows for job in (one, two) for name, rows in expected.items()}


def test_late_row_while_another_job_reads(empty: Life) -> None:
    """A job in the midst of a long capture misses no row that another has found late (1000 were 999).

    Mutant: take a row that one job has found for counted by all.
    """
    reader = other("reader", chunk=100)
    empty.insert(*[(0, "login", "ok")] * 1000)
    late = empty.source.rows.pop(249)
    empty.ship(wanted())
    seen = horizon(1000, time=empty.now)
    steps = capture(reader, seen, source=empty.source, ledger=empty.state, now=empty.now)
    for _ in range(6):
        next(steps)
    empty.source.rows.append(late)
    empty.ship(wanted())
    for _ in steps:
        pass
    empty.ship(wanted(), reader)

    assert empty.sums() == {"events.login.count": 1000, "reader.login.count": 1000}


def test_deleted_rows_beside_a_late_one(empty: Life) -> None:
    """Ids decide, not how many there are: two rows go, and one comes late (18 were 17).

    Mutant: compare numbers of rows.
    """
    empty.insert(*[(0, "login", "ok")] * 9)
    begin(empty, 10)
    empty.insert(*[(0, "login", "ok")] * 8)
    empty.ship(wanted())
    del empty.source.rows[2:4]
    empty.source.commit()
    look(empty, 240)

    assert sum(empty.sums().values()) == 18
    assert empty.events() == []


def test_row_replaced_by_a_late_one(empty: Life) -> None:
    """As many ids as before, but others: one of them came late."""
    empty.given = 7
    empty.insert(*[(0, "login", "ok")] * 3)
    empty.ship(wanted())
    del empty.source.rows[0]
    empty.source.insert(6, empty.created(60), "late")
    empty.ship(wanted())

    assert empty.sums() == {"events.login.count": 3, "events.late.count": 1}


@pytest.mark.parametrize("back", [120, 60, 30])
def test_clock_back_without_a_time(empty: Life, back: int) -> None:
    """When the source's clock goes back, a job without a time goes on in its newest bucket; late rows are added there.

    Forty rows were sixty: ranges of ids of two buckets overlapped. Mutants: go back with it; count a range again.
    """
    empty.insert(*[(0, "login", "ok")] * 10)
    empty.ship(TICKS)
    empty.now += 60
    empty.insert(*[(0, "login", "ok")] * 10)
    empty.ship(TICKS)
    empty.now -= back
    begin(empty, 21)
    empty.insert(*[(0, "login", "ok")] * 19)
    empty.ship(TICKS)
    empty.source.commit()
    look(empty, 300, TICKS)

    assert sum(empty.sums().values()) == 40
    assert sum(empty.minutes("ticks.login.count").values()) == 39
    assert empty.minutes("ticks.login.count")[-60] == 29
    slots = empty.state.slots("ticks")
    assert all(one.upto <= two.after for one, two in pairwise([slot for slot in slots if slot.after < slot.upto]))


def test_clock_far_back_without_a_time(empty: Life) -> None:
    """Rows of a job without a time are not of the future, however far its clock was set back. Mutant: reject them."""
    empty.insert((0, "login", "ok"))
    empty.ship(TICKS)
    empty.now -= 3600
    empty.insert((0, "login", "ok"))
    empty.ship(TICKS)
    empty.now += 7200
    empty.ship(TICKS)

    assert (empty.sums(), empty.rejected()) == ({"ticks.login.count": 2}, {})


def test_late_rows_without_a_time(empty: Life) -> None:
    """A late row belongs to the bucket of the look that finds it, and which they are is known until that is pruned.

    Mutants: to the bucket in which its id was passed; forget which it was.
    """
    empty.insert((0, "login", "ok"))
    begin(empty, 2, 3)
    empty.insert((0, "login", "ok"))
    empty.ship(TICKS)
    empty.now += 240
    empty.source.commit()
    empty.ship(TICKS)

    assert empty.minutes("ticks.late.count") == {-240: 2}
    assert [(one.slot, ids_of(one.words)) for one in empty.state.late_ids("ticks")] == [(NOW + 240, [2, 3])]
    empty.state._connection.execute("UPDATE slot SET changed = 0")
    assert empty.state.housekeeping.prune("ticks", unit=HOUR, before=empty.now + DAY) > 0
    assert empty.state.late_ids("ticks") == []


def test_back_filled_row(life: Life) -> None:
    """A row with an old id and a time of its own is found where its id is, and counted where its time is."""
    life.given = 50
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.source.insert(20, life.created(0), "login")
    life.source.insert(21, life.created(DAY), "yesterday")
    life.ship(wanted())

    assert life.minutes("events.login.count")[0] == 2
    assert life.minutes("events.yesterday.count") == {DAY: 1}


def test_late_rows_that_cannot_be_shown(life: Life) -> None:
    """Late rows without a time, or too old, are counted as such, once. Mutants: leave them out; count them each time.

    What is decided is in the set, be it in a total or not.
    """
    life.given = 8
    life.source.insert(6, None, "none")
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    assert life.rejected() == {"no_time": 1}
    life.source.insert(7, None, "late")
    life.source.insert(8, life.created(2 * 365 * DAY), "late")
    look(life, 3 * HOUR)

    assert life.rejected() == {"no_time": 2, "too_old": 1}
    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}
    assert not life.state.position("events").has_gaps


def test_late_row_for_a_pruned_slot(life: Life) -> None:
    """A late row whose slot is forgotten is too late, and said to be. Mutant: take it for the first of its slot."""
    life.ship(wanted())
    life.state._connection.execute("UPDATE slot SET changed = 0")
    assert life.state.housekeeping.prune("events", unit=HOUR, before=NOW + 2 * DAY)
    life.now += 3 * DAY
    life.given = 6
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.source.insert(6, life.created(3 * DAY), "late")
    look(life, 600)

    assert life.rejected() == {"too_late": 1}
    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}


def test_cut_off_anywhere(life: Life) -> None:
    """A look that is cut off anywhere is finished by the next one; a process that ends forgets what it noted.

    Mutant: take late ids for counted when they are read.
    """
    life.given = 6
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.source.insert(6, life.created(60), "login")
    upto = horizon(7, time=life.now)
    for cut in range(4):
        steps = capture(wanted(), upto, source=life.source, ledger=life.state, now=life.now)
        for _ in range(cut):
            next(steps, None)
        steps.close()
        life.state.forget_cached()
    life.ship(wanted())

    assert life.sums() == {"events.login.count": 5, "events.totp.count": 2}


def test_late_row_in_a_merged_slot(life: Life) -> None:
    """A late row whose minute has become part of an hour is added to the hour. Mutant: put the minute beside it."""
    life.given = 7
    life.insert((0, "login", "ok"))
    life.source.insert(6, life.created(60), "login")
    for job in (wanted(), TICKS):
        life.ship(job)
    life.now += 8 * DAY
    life.insert((0, "login", "ok"))
    life.source.insert(7, life.created(8 * DAY), "login")
    life.ship(wanted(), TICKS)
    life.now += 3 * HOUR
    life.ship(wanted(), TICKS)

    assert life.sums() == {
        "events.login.count": 7,
        "events.totp.count": 2,
        "ticks.login.count": 7,
        "ticks.totp.count": 2,
    }


def test_rows_of_one_id(life: Life) -> None:
    """Where two rows have one id a job stops, and says so. Mutant: count both."""
    life.source.is_unique_id = False
    life.insert((0, "login", "ok"))
    life.source.rows[-1]["id"] = 5

    with pytest.raises(QueryRefused, match="the same id"):
        life.ship(wanted())
    assert life.sums() == {}


@pytest.mark.parametrize("rows", [2, 7])
def test_reset_holds(life: Life, rows: int) -> None:
    """A table that began anew stops the job, also when its ids have passed captured again.

    Mutants: compare with the largest id only; go on behind captured.
    """
    life.ship(wanted())
    life.source.rows.clear()
    life.given, life.now = 0, life.now + 600
    life.insert(*[(0, "new", "ok")] * rows)

    with pytest.raises(SourceReset, match="largest id fell to 2" if rows == 2 else "rows up to id 5"):
        life.ship(wanted())
    assert life.state.offsets("events").captured == 5  # type: ignore[union-attr] # it has begun
    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}


def reset(life: Life, what: After, *jobs: Job) -> None:
    """Say what has happened to the table."""
    for job in jobs:
        progress = life.state.progress(job.name)
        assert progress is not None
        upto = horizon(life.source.observe(job.query).id, time=life.now)
        position = life.state.position(job.name)
        restart = restarted(job, what, progress, position, upto, source=life.source)
        life.state.reset(job.name, **restart._asdict())


def test_emptied(empty: Life) -> None:
    """What was delivered of a table stays when that is emptied, and what comes is added (9818 rows were 0).

    Mutants: count the slots in state again; let a late row of the new table count them again.
    """
    rows = [(ago * 60, "login", "ok") for ago in range(2 * 1440, 0, -1)] + [(0, "login", "ok")] * (9818 - 2 * 1440)
    empty.insert(*rows)
    zeros = wanted(zeros=DAY)
    empty.ship(zeros, TICKS)
    empty.source.rows.clear()
    empty.given, empty.now = 0, empty.now + 20
    with pytest.raises(SourceReset):
        empty.ship(zeros)
    empty.insert((0, "new", "ok"))
    reset(empty, After.EMPTIED, zeros, TICKS)
    begin(empty, 2)
    empty.insert((0, "new", "ok"))
    empty.ship(zeros, TICKS)
    empty.source.commit()
    look(empty, 600, zeros, TICKS)

    counts = {"login": 9818, "new": 2, "late": 1}
    assert empty.sums() == {f"{job}.{name}.count": rows for job in ("events", "ticks") for name, rows in counts.items()}


def test_changed_after_it_was_emptied(empty: Life) -> None:
    """Another definition counts the new table's whole slots again, and none of before. Mutants: all; none."""
    empty.insert(*[(120, "login", "failure")] * 9, *[(0, "login", "failure")] * 9)
    empty.ship(wanted())
    empty.source.rows.clear()
    empty.given, empty.now = 0, empty.now + 30
    reset(empty, After.EMPTIED, wanted())
    empty.insert((0, "login", "failure"))
    empty.now += 60
    empty.insert((0, "login", "ok"), (0, "login", "failure"))
    empty.ship(wanted())
    empty.ship(wanted(where=FAILURES))

    assert empty.minutes("events.login.count") == {120: 9, 0: 10, -60: 1}


def test_rotated(empty: Life) -> None:
    """A table that is renamed away, whose ids another goes on with, is told: of the ids between nobody knows (20, 15).

    Mutants: say nothing; say it where rows were purged, and ids go on.
    """
    empty.insert(*[(0, "login", "ok")] * 15)
    empty.ship(wanted())
    empty.given = 20
    empty.source.rows.clear()
    empty.insert((0, "new", "ok"))
    empty.ship(wanted())

    assert empty.noticed[-1] == Event("source.rotated", {"captured": 15, "first": 21}, "warning")
    assert empty.sums() == {"events.login.count": 15, "events.new.count": 1}
    empty.events()
    empty.source.rows.clear()
    empty.insert((0, "new", "ok"))
    empty.ship(wanted())
    assert empty.events() == []


def test_reset_stays_told(life: Life) -> None:
    """A table that was found to have gone back stays it, whatever its ids come to. Mutant: look at each tick anew."""
    life.ship(TICKS)
    life.source.rows.clear()
    life.given = 0
    for _ in range(7):
        life.insert((0, "new", "ok"))
        with pytest.raises(SourceReset):
            life.ship(TICKS)

    reset(life, After.EMPTIED, TICKS)
    life.ship(TICKS)
    assert life.sums()["ticks.new.count"] == 7


def test_emptied_while_it_is_looked_at(life: Life) -> None:
    """A table that is emptied between an observation and its capture is found out by what comes next.

    Mutant: nothing below captured is nothing to go by.
    """
    life.ship(wanted())
    life.insert((0, "login", "ok"))
    upto = horizon(6, time=life.now)
    life.source.rows.clear()
    list(capture(wanted(), upto, source=life.source, ledger=life.state, now=life.now))
    life.given = 0
    life.insert(*[(0, "new", "ok")] * 9)

    with pytest.raises(SourceReset):
        life.ship(wanted())
    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}


def test_late_row_of_a_table_that_went_back(life: Life) -> None:
    """Before a row is added below captured the table is compared, though its largest id is what it was.

    Mutant: compare it only where there is something above captured.
    """
    life.given = 6
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.source.rows.clear()
    life.given, life.now = 0, life.now + 60
    life.insert(*[(0, "new", "ok")] * 7)

    with pytest.raises(SourceReset):
        life.ship(wanted())
    assert "events.new.count" not in life.sums()


def test_newest_row_deleted(life: Life) -> None:
    """A deleted newest row stops the job until others follow, and is no reset. Mutant: hold it for ever."""
    life.ship(wanted())
    del life.source.rows[-1]
    with pytest.raises(SourceReset):
        life.ship(wanted())
    life.insert((0, "login", "ok"))
    life.ship(wanted())

    assert [event.level for event in life.noticed if event.event == "source.changed"] == ["warning"]
    assert life.events() == ["source.changed"]
    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}


@pytest.mark.parametrize("job", [wanted(), TICKS], ids=["time", "no time"])
@pytest.mark.parametrize(("deleted", "is_held"), [(15, False), (16, True)])  # deploy/repair.md has this number
def test_newest_rows_deleted(empty: Life, job: Job, deleted: int, *, is_held: bool) -> None:
    """The next row shows that it is the same table if one of the known rows is left.

    Mutants: know the table by fewer rows; trust a table without any of them.
    """
    empty.insert(*[(60, "login", "ok")] * 40)
    empty.ship(job)
    del empty.source.rows[-deleted:]
    with pytest.raises(SourceReset, match="largest id fell to"):
        empty.ship(job)
    empty.insert((0, "login", "ok"))
    with pytest.raises(SourceReset) if is_held else nullcontext():
        empty.ship(job)

    assert list(empty.sums().values()) == [40 if is_held else 41]


def test_ids_given_again(life: Life) -> None:
    """Rows that were taken back, and whose ids were given again, are found out though the newest id is free.

    Mutant: know the table by one row.
    """
    life.ship(wanted())
    del life.source.rows[-2:]
    life.now += 60
    life.source.insert(4, life.created(0), "new")
    life.given = 9
    life.insert((0, "new", "ok"))

    with pytest.raises(SourceReset):
        life.ship(wanted())


def test_corrected_time_is_no_reset(life: Life) -> None:
    """A row's time may be corrected; that changes nothing. Mutant: compare all rows that are known."""
    life.ship(wanted())
    life.source.rows[2]["created_at"] = life.created(180)
    life.insert((0, "login", "ok"))
    life.ship(wanted())

    assert life.events() == []
    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}


def test_restored(life: Life) -> None:
    """A table that was taken back goes on behind its largest id: what it holds is counted, what comes is added.

    Mutants: go on behind the old captured; count the slots in state again.
    """
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.source.rows = life.source.rows[:2]  # yesterday's backup
    life.given = 2
    reset(life, After.RESTORED, wanted())
    life.insert((0, "since", "ok"))
    life.ship(wanted())

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2, "events.since.count": 1}
    offsets = life.state.offsets("events")
    assert offsets is not None
    assert offsets.watermark == offsets.captured == 3


def test_purge_is_no_reset(life: Life) -> None:
    """Old rows may go, all of them, too; a row that is gone is told, and no more than that.

    Mutant: take ids that are missing behind captured for those of a table that was rotated.
    """
    life.ship(wanted())
    del life.source.rows[:4]
    life.given = 9
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    assert life.events() == []
    del life.source.rows[-1]
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    assert life.events() == ["source.changed"]
    life.source.rows.clear()
    life.insert((0, "login", "ok"))
    life.ship(wanted())

    assert life.events() == []
    assert life.sums() == {"events.login.count": 6, "events.totp.count": 2}


def test_failover(life: Life) -> None:
    """Another server is told, and no more; one that lacks the row that was captured is a reset."""
    life.ship(wanted())
    life.source.server = "two"
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    assert life.events() == ["source.changed"]
    life.source.server = "three"
    life.source.rows = [row for row in life.source.rows if row["id"] != 6]
    life.insert((0, "login", "ok"))

    with pytest.raises(SourceReset):
        life.ship(wanted())


def test_other_time_column_is_no_reset(life: Life) -> None:
    """A row whose time is another because another column or zone is asked for is the same row."""
    life.ship(wanted())
    life.insert((0, "login", "ok"))
    life.ship(wanted(time_zone="Asia/Kolkata", template="moved.{action}.{measure}"))

    assert life.events() == []


def test_set_after_all(life: Life) -> None:
    """Where all gaps have been filled a position is a number again, whoever filled them."""
    begin(life, 6, 7)
    life.insert((0, "login", "ok"))
    life.ship(wanted(), TICKS)
    life.source.commit()
    life.ship(wanted(), TICKS)

    for name in ("events", "ticks"):
        counted = life.state.position(name).counted
        assert (counted.solid, counted.segments) == (8, ())
        assert not counted.missing(words_of(range(1, 9)))
