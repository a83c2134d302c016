"""Rows that commit late, ids that come back, tables that go back: Graphite equals the source all the same."""

from dataclasses import replace

import pytest
from builders import NOW, horizon
from life import Life, wanted

from shipper.capture import capture
from shipper.errors import SourceReset
from shipper.model import Care, Condition, Job, RecordedWindow, Window

TICKS = replace(wanted(time=None, zeros=86400, template="ticks.{action}.{measure}"), name="ticks")
HOUR = 3600
FAILURES = (Condition("outcome", "in", ("failure",)),)


def begin(life: Life, *ids: int) -> None:
    """Insert rows that are not committed yet, a minute old."""
    for number in ids:
        life.source.begin(number, life.created(60), "late")
    life.given = max(life.given, *ids)


def windows(life: Life) -> list[RecordedWindow]:
    """Return the windows that a recheck would look at, whenever that is."""
    return life.state.due(wanted(), life.now + 10**9, early=1, late=1)


def test_window_ends_below_a_row_in_flight(life: Life) -> None:
    """A row in flight holds back all ids from its own on, and once it is committed they are counted.

    Mutants: read up to the horizon; end the window at the row in flight.
    """
    begin(life, 6)
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}
    assert life.events() == ["capture.held"]
    life.source.commit()
    life.ship(wanted())

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2, "events.late.count": 1}
    assert life.events() == []


def test_hold_ends(life: Life) -> None:
    """After hold_max a job goes on without the row in flight, and counts it once it appears, however late that is.

    Mutants: forget the start of the hold at each tick; drop the window though the row is still in flight.
    """
    begin(life, 6)
    life.insert((0, "login", "ok"))
    for seconds in (0, 299):
        life.now += seconds
        life.ship(wanted())
        assert life.sums()["events.login.count"] == 3
    life.now += 1
    life.ship(wanted())
    assert life.sums()["events.login.count"] == 4
    assert life.events() == ["capture.held", "capture.passed"]
    for _ in range(5):
        life.now += HOUR
        life.ship(wanted())
    life.source.commit()
    life.now += 2 * HOUR
    life.ship(wanted())

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2, "events.late.count": 1}
    assert life.events() == ["rows.late"]
    life.now += 2 * HOUR
    life.ship(wanted())
    assert windows(life) == []


def test_hold_begins_anew(life: Life) -> None:
    """Each row in flight has its own hold_max. Mutant: keep the start of the first hold."""
    begin(life, 6)
    life.ship(wanted())
    life.now += 200
    life.source.commit()
    begin(life, 7)
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.now += 200
    life.ship(wanted())

    assert life.sums()["events.login.count"] == 3
    assert life.events() == ["capture.held"]


@pytest.mark.parametrize("is_guarded", [True, False])
@pytest.mark.parametrize("job", [wanted(), TICKS, wanted(where=FAILURES), replace(wanted(), chunk=2)])
def test_late_row_is_counted(life: Life, job: Job, *, is_guarded: bool) -> None:
    """A row that appears below captured is found by the recheck, and its slot counted again.

    Mutants: add its window again; recount the newest slot only; recount before the late row's id.
    """
    life.source.is_guarded = is_guarded
    life.given = 7  # ids 6 and 7 are of transactions that are under way
    life.insert((0, "login", "failure"), (0, "login", "ok"))
    life.ship(job)
    before = life.sums()
    life.source.insert(6, life.created(60), "login", "failure")
    life.source.insert(7, life.created(60), "new", "failure")
    life.now += 599
    life.ship(job)
    assert life.sums() == before
    life.now += 1
    life.ship(job)

    login, new = f"{job.name}.login.count", f"{job.name}.new.count"
    assert life.sums() == before | {login: before[login] + 1, new: 1}
    assert set(life.events()) == {"rows.late"}
    assert life.state.repairs(job.name) == []


def test_late_rows_are_shared(life: Life) -> None:
    """Each job on the table counts a late row, however many windows saw it; and it is told once.

    A job that was first records what the others need not. Mutants: repair for the job only that found it; record the
    whole window again.
    """
    other = replace(wanted(template="other.{action}.{measure}"), name="other", chunk=3)
    life.given = 6
    life.insert((0, "login", "ok"))
    life.ship(wanted(), TICKS)
    life.insert((0, "login", "ok"))
    life.ship(other)
    assert [one.window for one in windows(life)] == [Window(0, 7)]
    life.source.insert(6, life.created(60), "late")
    life.now += 600
    life.ship(wanted(), TICKS, other)
    life.ship(wanted(), TICKS, other)

    sums = life.sums()
    assert [sums[f"{name}.late.count"] for name in ("events", "ticks", "other")] == [1, 1, 1]
    assert life.events() == ["rows.late"]
    assert life.state._connection.execute("SELECT rows FROM late").fetchone() == (1,)


def test_job_behind_others(life: Life) -> None:
    """What came after a job had counted, and before another recorded the window, is found for the first, too.

    Mutant: let the newer checksum stand.
    """
    other = replace(wanted(template="other.{action}.{measure}"), name="other")
    life.given = 6
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.source.insert(6, life.created(60), "late")
    life.ship(other)
    life.now += 600
    life.ship(wanted(), other)

    assert life.sums()["events.late.count"] == life.sums()["other.late.count"] == 1


def test_deleted_rows_change_nothing(life: Life) -> None:
    """Deleted rows stay counted; a late row beside them is still found. Mutants: recount; keep the old checksum."""
    life.given = 6
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    del life.source.rows[0]
    life.now += 600
    life.ship(wanted())
    assert life.sums()["events.login.count"] == 4
    assert life.events() == ["rows.deleted"]
    life.source.insert(6, life.created(660), "late")
    life.now += 4000
    life.ship(wanted())

    assert life.sums()["events.late.count"] == 1


def test_row_replaced_by_a_late_one(life: Life) -> None:
    """As many ids as before, but others: one of them came late. Mutant: compare the numbers of rows only."""
    life.given = 7
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    del life.source.rows[0]
    life.source.insert(6, life.created(60), "late")
    life.now += 600
    life.ship(wanted())

    assert life.sums()["events.late.count"] == 1


def test_back_filled_row(life: Life) -> None:
    """A row with an old id and a time of its own is found where its id is, and counted where its time is.

    Mutant: recount from the smallest id that the slot had.
    """
    life.given = 50
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.source.insert(20, life.created(0), "login")
    life.source.insert(21, life.created(86400), "yesterday")
    life.now += 600
    life.ship(wanted())

    assert life.minutes("events.login.count")[0] == 2
    assert life.minutes("events.yesterday.count") == {86400: 1}


def test_late_rows_that_cannot_be_shown(life: Life) -> None:
    """Late rows without a time, or too old, are counted as such, once; others of their window stay counted.

    Mutants: leave the counters alone; count the window's again.
    """
    life.given = 8
    life.source.insert(6, None, "none")
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    assert life.unshown() == {"no_time": 1}
    life.source.insert(7, None, "late")
    life.source.insert(8, life.created(2 * 365 * 86400), "late")
    for _ in range(3):
        life.now += 4000
        life.ship(wanted())

    assert life.unshown() == {"no_time": 2, "too_old": 1}
    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}


def test_late_row_for_a_pruned_slot(life: Life) -> None:
    """A late row whose slot is forgotten is too late, and said to be. Mutant: leave the counters alone."""
    life.ship(wanted())
    life.state._connection.execute("UPDATE slot SET changed = 0")
    assert life.state.prune("events", unit=HOUR, before=NOW + 2 * 86400)
    life.now += 3 * 86400
    life.given = 6
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.source.insert(6, life.created(3 * 86400), "late")
    life.now += 600
    life.ship(wanted())

    assert life.unshown() == {"too_late": 1}
    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}


def test_repair_survives_a_crash(life: Life) -> None:
    """A repair that was cut off anywhere is done by the next capture. Mutant: forget it when it begins."""
    life.given = 6
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.source.insert(6, life.created(60), "login")
    life.now += 600
    upto = horizon(7, time=life.now)
    for cut in range(1, 5):
        steps = capture(wanted(), upto, source=life.source, ledger=life.state, now=life.now)
        for _ in range(cut):
            next(steps, None)
        steps.close()
    life.ship(wanted())

    assert life.sums() == {"events.login.count": 5, "events.totp.count": 2}


def test_late_row_in_a_merged_slot(life: Life) -> None:
    """A late row whose minute has become part of an hour is counted there, with the rest of the hour.

    Mutants: recount the minute alone; put the minute beside the hour.
    """
    life.given = 7
    life.insert((0, "login", "ok"))
    life.source.insert(6, life.created(60), "login")
    for job in (wanted(), TICKS):
        life.ship(job)
    life.now += 8 * 86400
    life.insert((0, "login", "ok"))
    life.source.insert(7, life.created(8 * 86400), "login")
    life.ship(wanted(), TICKS)
    life.now += 3 * HOUR
    life.ship(wanted(), TICKS)

    assert life.sums() == {
        "events.login.count": 7,
        "events.totp.count": 2,
        "ticks.login.count": 7,
        "ticks.totp.count": 2,
    }


def test_recheck_off(life: Life) -> None:
    """Without recheck nothing is recorded, and late rows stay lost: that is what it means."""
    life.care = Care(recheck=None)
    life.given = 6
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.source.insert(6, life.created(60), "late")
    life.now += 10 * HOUR
    life.ship(wanted())

    assert windows(life) == []
    assert "events.late.count" not in life.sums()


def test_late_row_of_a_window_beside_zeros(life: Life) -> None:
    """Zeros that were written with a window have none of its rows. Mutant: give their slots its ids."""
    life.ship(TICKS)
    life.now += 180
    life.given = 6
    life.insert((0, "login", "ok"))
    life.ship(TICKS)
    life.source.insert(6, life.created(60), "late")
    life.now += 600
    life.ship(TICKS)

    assert life.sums() == {"ticks.login.count": 4, "ticks.totp.count": 2, "ticks.late.count": 1}


@pytest.mark.parametrize("rows", [2, 7])
def test_reset_holds(life: Life, rows: int) -> None:
    """A table that began anew stops the job, also when its ids have passed captured again.

    Mutants: compare with the largest id only; go on behind captured.
    """
    life.ship(wanted())
    life.source.rows.clear()
    life.given, life.now = 0, life.now + 600
    life.insert(*[(0, "new", "ok")] * rows)

    with pytest.raises(SourceReset, match="largest id is 2" if rows == 2 else "rows up to id 5"):
        life.ship(wanted())
    assert life.state.offsets("events").captured == 5  # type: ignore[union-attr]


def test_reset_zero_without_time(life: Life) -> None:
    """Without a time column what was counted stays, and all rows of the new table are added."""
    life.ship(TICKS)
    life.source.rows.clear()
    life.given, life.now = 0, life.now + 600
    life.insert((0, "new", "ok"), (0, "new", "ok"))
    life.care = Care(reset="zero")
    life.ship(TICKS)

    assert life.events() == ["source.reset"]
    assert life.sums() == {"ticks.login.count": 3, "ticks.totp.count": 2, "ticks.new.count": 2}


def test_late_rows_after_a_reset_without_time(life: Life) -> None:
    """What the bucket of the reset had is not lost when late rows of the new table are counted again.

    Mutant: let the rows of both tables share a bucket.
    """
    life.ship(TICKS)
    life.source.rows.clear()
    life.source.is_guarded = False
    life.source.begin(1, None, "new")
    life.given = 1
    life.insert((0, "new", "ok"))
    life.care = Care(reset="zero")
    life.ship(TICKS)
    life.source.commit()
    for _ in range(14):
        life.now += 300
        life.ship(TICKS)

    assert "rows.late" in life.events()
    assert life.sums() == {"ticks.login.count": 3, "ticks.totp.count": 2, "ticks.new.count": 2}


def test_reset_stays_told(life: Life) -> None:
    """A table that was found to have gone back stays it, whatever its ids come to. Mutant: look at each tick anew."""
    life.ship(TICKS)
    life.source.rows.clear()
    life.given = 0
    for _ in range(7):
        life.insert((0, "new", "ok"))
        with pytest.raises(SourceReset):
            life.ship(TICKS)

    life.care = Care(reset="zero")
    life.ship(TICKS)
    assert life.sums()["ticks.new.count"] == 7


def test_emptied_while_it_settles(life: Life) -> None:
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


def test_newest_row_deleted(life: Life) -> None:
    """A deleted newest row stops the job until others follow, and is no reset. Mutant: hold it for ever."""
    life.ship(wanted())
    del life.source.rows[-1]
    with pytest.raises(SourceReset):
        life.ship(wanted())
    life.insert((0, "login", "ok"))
    life.ship(wanted())

    assert life.events() == ["source.changed"]
    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}


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


@pytest.mark.parametrize("rows", [2, 7])
def test_reset_zero(life: Life, rows: int) -> None:
    """With zero all rows of the new table are counted; with a time column the slots in state are as it has them now.

    Mutants: leave the recorded windows; leave the ids of slots; recount nothing.
    """
    life.ship(wanted())
    life.source.rows.clear()
    life.given, life.now = 0, life.now + 600
    life.insert(*[(0, "new", "ok")] * rows)
    life.care = Care(reset="zero")
    life.ship(wanted())

    assert life.events() == ["source.reset"]
    assert life.sums() == {"events.new.count": rows}
    life.given += 1
    life.insert((0, "new", "ok"))
    life.ship(wanted())
    life.source.insert(rows + 1, life.created(0), "new")
    life.now += 600
    life.ship(wanted())
    assert life.sums() == {"events.new.count": rows + 2}


def test_reset_max(life: Life) -> None:
    """With max a restored table goes on behind its largest id; the slots in state are counted again.

    Mutants: go on behind the old captured; leave the totals.
    """
    life.insert((0, "login", "ok"))
    life.ship(wanted())
    life.source.rows = life.source.rows[:2]  # yesterday's backup, and what was written since
    life.given = 2
    life.insert((0, "since", "ok"))
    life.care = Care(reset="max")
    life.ship(wanted())
    life.insert((0, "since", "ok"))
    life.ship(wanted())

    assert life.events() == ["source.reset"]
    assert life.sums() == {"events.login.count": 2, "events.since.count": 2}
    position = life.state.offsets("events")
    assert position is not None
    assert position.watermark == position.captured == 4


def test_purge_is_no_reset(life: Life) -> None:
    """Old rows may go, all of them, too; a row that is gone is told, and no more than that."""
    life.ship(wanted())
    del life.source.rows[:4]
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
    life.ship(wanted(zone="Asia/Kolkata", template="moved.{action}.{measure}"))

    assert life.events() == []
