"""What outlives a change: of the configuration, of a job's name, of Carbon, of time.

Graphite equals the source before and after.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from builders import NOW, captured, horizon, job
from fakes import WhisperCarbon
from life import ARCHIVES, UNIT, Life, redefined, wanted

from shipper.core.capture import capture
from shipper.core.delivery.courier import Courier
from shipper.core.errors import SourceUnavailable
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Archive, Condition, Ids, Job, Query, RejectReason, Span, Window
from shipper.core.retention import EDGE_SECONDS, due, floor
from shipper.core.rows.start import by_end, position_behind
from shipper.core.rows.table import Event
from shipper.state.store import State


@contextmanager
def failing(life: Life) -> Iterator[None]:
    """Let no row be read in a block, which fails."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SourceUnavailable):
        patch.setattr(life.source, "read", Mock(side_effect=SourceUnavailable("the source is gone")))
        yield


FAILURES = (Condition("outcome", "in", ("failure",)),)


def test_where_changes(life: Life) -> None:
    """Where the names stay, the slots in state are counted again, and what is no longer asked for is 0.

    Mutants: go on without a recount; leave series alone that have no rows any more.
    """
    life.ship(wanted())
    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}
    life.insert((0, "login", "failure"))
    life.ship(wanted(where=FAILURES))

    assert life.sums() == {"events.login.count": 2}
    assert life.minutes("events.totp.count") == {60: 0, 0: 0}


def test_measure_goes(life: Life) -> None:
    """A measure that is no longer asked for keeps what it has: it was no 0. Mutant: set all of the job's slots to 0."""
    ms = Measure("ids", Kind.SUM, "id")
    life.ship(wanted(measures=(COUNT, ms)))
    life.ship(wanted())

    assert life.sums() == {
        "events.login.count": 3,
        "events.totp.count": 2,
        "events.login.ids": 7,
        "events.totp.ids": 8,
    }


def test_measure_goes_without_zeros(life: Life) -> None:
    """A measure that is no longer asked for gets no 0, also where its slots were pruned and are recounted.

    Mutant: zero-fill all series of the job.
    """
    ms = Measure("ids", Kind.SUM, "id")
    life.ship(wanted(zeros=86400, measures=(COUNT, ms)))
    life.state._connection.execute("UPDATE slot SET changed = 0")
    life.now += 2 * UNIT
    life.state.housekeeping.prune("events", unit=UNIT, before=life.now - 60)
    life.ship(wanted(zeros=86400))
    life.backfill(wanted(zeros=86400), Span(NOW - 60, NOW + 60))
    life.deliver()

    assert life.minutes("events.login.ids") == {120: 3, 60: 4}
    assert life.minutes("events.login.count")[-60] == 0


@pytest.mark.parametrize("by", [("action",), ()])
def test_measure_gets_another_name(life: Life, by: tuple[str, ...]) -> None:
    """A path without the name of the measure continues when the measure is renamed.

    Mutant: leave the path with the former name; groups then get new paths, and a job without groups counts nothing.
    """
    template = ".".join(("events", *(f"{{{column}}}" for column in by)))
    life.ship(wanted(template=template, by=by))
    before = life.sums()
    life.insert((0, "login", "ok"))
    life.ship(wanted(template=template, by=by, measures=(COUNT._replace(name="n"),)))

    assert life.sums() == before | ({"events.login": 4} if by else {"events": 6})
    assert life.rejected() == {}


def test_measure_changes_soon_after_the_start(life: Life) -> None:
    """A job without a time column begins in the next bucket: a changed definition counts in the one after it.

    Mutant: in the bucket after the clock, which has rows of the former definition.
    """
    life.now += 10
    life.ship(wanted(time=None))
    life.insert((0, "login", "ok"))
    life.ship(wanted(time=None, measures=(Measure("count", Kind.SUM, "id"),)))

    assert sorted(life.minutes("events.login.count").values()) == [3, 6]


def test_where_changes_while_carbon_is_away(life: Life) -> None:
    """What was not delivered before the change is delivered as it is after it."""
    life.carbon.kill()
    with pytest.raises(Exception, match="refused"):
        life.ship(wanted())
    life.carbon.start()
    life.ship(wanted(where=FAILURES))

    assert life.sums() == {"events.login.count": 1}


def test_recount_survives_a_crash(life: Life) -> None:
    """A recount that a crash cut off is done by the next capture. Mutant: note the new shape only."""
    life.ship(wanted())
    changed = wanted(where=FAILURES)
    steps = capture(changed, horizon(5, time=life.now), source=life.source, ledger=life.state, now=life.now)
    assert next(steps) == Event("job.changed", {"captured": 5}, "info")
    assert next(steps) is None
    steps.close()
    life.ship(changed)

    assert life.sums() == {"events.login.count": 1}


def test_name_changes(life: Life) -> None:
    """Under a new name the job goes on behind the last window: both names together equal the source.

    What was undelivered goes out under the old one.
    """
    life.carbon.kill()
    with pytest.raises(Exception, match="refused"):
        life.ship(wanted())
    life.carbon.start()
    life.insert((0, "login", "ok"), (60, "login", "ok"))
    life.ship(wanted(template="renamed.{action}.{measure}"))

    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2, "renamed.login.count": 2}


@pytest.mark.parametrize(("before", "after"), [(60, 300), (300, 60), (60, 3600), (3600, 60)])
def test_bucket_changes(life: Life, before: int, after: int) -> None:
    """With other buckets the slots in state are counted again: no row is in two. Mutant: leave the old slots."""
    life.ship(wanted(bucket=before))
    life.insert((0, "login", "ok"))
    life.ship(wanted(bucket=after))

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}


@pytest.mark.parametrize("measures", [(COUNT,), (COUNT, Measure("ids", Kind.DISTINCT, "id"))])
@pytest.mark.parametrize(("before", "after"), [(900, 120), (900, 600), (300, 120), (120, 300), (120, 180)])
@pytest.mark.parametrize("is_deleted", [False, True])
def test_bucket_is_no_multiple(
    tmp_path: Path, before: int, after: int, measures: tuple[Measure, ...], *, is_deleted: bool
) -> None:
    """A recount begins where no former bucket is cut, also behind one of which rows are gone: no row is in two.

    Mutants: begin with the next bucket; behind the slot of the gone row; with buckets that are as long as the longest.
    """
    for minute in range(0, 16, 5):
        (tmp_path / str(minute)).mkdir()
        life = Life(tmp_path / str(minute))
        life.now = floor(NOW, 3600) + 60 * minute
        for _ in range(30):
            life.insert((30, "login", "ok"))
            life.now += 60
        life.ship(wanted(bucket=before, measures=measures))
        if is_deleted:
            del life.source.rows[5]
        life.ship(wanted(bucket=after, measures=measures))
        life.now += 3600
        life.ship(wanted(bucket=after, measures=measures))
        assert life.sums()["events.login.count"] == 30, minute
        life.state.close()


def test_bucket_gets_longer_where_an_archive_ends(life: Life) -> None:
    """An hour whose minutes can no longer become 0 is sent once it has left their archive.

    Mutant: send it at once, as if the archive held no minutes.
    """
    hour = floor(NOW, 3600)
    life.insert((NOW - hour, "login", "ok"), (NOW - hour - 1800, "login", "ok"))
    life.now = hour + 3600
    life.ship(wanted())
    life.now = hour + ARCHIVES[0].duration - 60
    life.ship(wanted(bucket=3600))
    life.now = hour + 3600 + ARCHIVES[0].duration + EDGE_SECONDS
    life.state.outbox.release(dict(due(ARCHIVES, life.now)))
    life.deliver()

    assert life.sums() == {"events.login.count": 5, "events.totp.count": 2}


def test_bucket_changes_over_what_is_pruned(life: Life) -> None:
    """A bucket that begins in pruned slots is not counted again: its rows are in Graphite.

    Mutant: from its start on.
    """
    life.insert((3600, "login", "ok"))
    life.ship(wanted())
    life.state._connection.execute("UPDATE slot SET changed = ? WHERE slot = ?", (NOW - 3 * 86400, NOW - 3600))
    assert life.state.housekeeping.prune("events", unit=3600, before=NOW - 600) == 1
    life.ship(wanted(bucket=3 * 3600))

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}


def test_recount_over_what_is_pruned(life: Life) -> None:
    """Pruned slots between those that are counted again stay as they are, and count as nothing else."""
    life.insert((7200, "login", "ok"), (3600, "login", "ok"))
    life.ship(wanted())
    life.state._connection.execute("UPDATE slot SET changed = ? WHERE slot = ?", (NOW - 3 * 86400, NOW - 3600))
    assert life.state.housekeeping.prune("events", unit=3600, before=NOW - 600) == 1
    life.ship(wanted(where=(Condition("outcome", "not", ("failure",)),)))

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}
    assert life.rejected() == {}


@pytest.mark.parametrize(
    ("before", "after"), [("UTC", "Asia/Kolkata"), ("Asia/Kolkata", "UTC"), (None, "UTC"), ("UTC", None)]
)
def test_time_changes(life: Life, before: str | None, after: str | None) -> None:
    """Where rows would move to other times, those counted stay where they are. Mutant: count the slots again."""
    first, second = (wanted(time=None) if zone is None else wanted(time_zone=zone) for zone in (before, after))
    life.ship(first)
    life.insert((0, "login", "ok"), (86400, "login", "ok"))
    life.now += 30
    life.ship(second)
    life.now += 90

    assert life.sums() == {"events.login.count": 5, "events.totp.count": 2}


@pytest.mark.parametrize(
    "changed", [{"time_zone": "Asia/Kolkata"}, {"bucket": 3600}, {"bucket": 300}, {"time": None}, {"where": ()}, {}]
)
def test_late_row_after_a_change(tmp_path: Path, changed: dict[str, Any]) -> None:
    """A row that was counted by another definition is not counted by this one; a late one is, once.

    Exactness 3: of a hundred rows 199 were counted. Mutants: count the window of the late row again; begin with an
    empty set.
    """
    life = Life(tmp_path)
    life.insert(*[(5, "login", "ok")] * 60)
    life.source.begin(61, life.created(5), "login")
    life.given = 61
    life.insert(*[(5, "login", "ok")] * 39)
    life.ship(wanted(where=(Condition("action", "not", ("nothing",)),)))
    life.now += 60
    life.ship(wanted(**changed))
    life.source.commit()
    for _ in range(16):
        life.now += 60
        life.ship(wanted(**changed))

    assert life.sums() == {"events.login.count": 100}
    assert life.rejected() == {}
    life.state.close()


def test_row_that_comes_with_the_recount(life: Life) -> None:
    """A late row that the recount finds in its slots joins the set, and is counted once; another stays new.

    Mutants: leave the set as it is; add all that the snapshot shows.
    """
    life.ship(wanted(where=FAILURES))
    life.source.begin(6, life.created(60), "login", "failure")
    life.source.begin(7, life.created(7200), "login", "failure")
    life.given = 7
    life.insert((0, "login", "failure"))
    life.ship(wanted(where=FAILURES))
    life.now += 60
    life.source.commit()
    life.ship(wanted())
    life.ship(wanted())

    assert life.sums() == {"events.login.count": 6, "events.totp.count": 2}
    assert life.minutes("events.login.count")[7200] == 1
    assert not life.state.position("events").has_gaps


def test_row_that_comes_amid_a_recount(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids and rows of a recount are of one snapshot: what is committed between is in both or in neither.

    Mutant: ask for them one after the other.
    """
    life.source.begin(6, life.created(60), "login", "failure")
    life.given = 6
    life.insert((0, "login", "failure"))
    life.ship(wanted(where=FAILURES))
    real = life.source.words

    def words(query: Query, rows: Window | Ids, span: Span | None = None) -> dict[int, int]:
        found = real(query, rows, span)
        if span is not None:
            life.source.commit()
        return found

    monkeypatch.setattr(life.source, "words", words)
    life.ship(wanted())
    life.ship(wanted())

    assert life.sums() == {"events.login.count": 5, "events.totp.count": 2}


@pytest.mark.parametrize("times", [1, 2])
def test_shorter_buckets_after_a_purge(tmp_path: Path, times: int) -> None:
    """A longer bucket that lacks rows stays as it is, to its end: no shorter one within it is counted beside it.

    Mutants: it ends with the slot that its total stands in; forget how long it was when the job changes once more.
    """
    life, rows = Life(tmp_path), Condition("outcome", "in", ("ok",))
    life.now = NOW // 300 * 300 + 290
    life.insert((280, "login", "ok"), (10, "login", "ok"))
    life.ship(wanted(bucket=300))
    del life.source.rows[0]
    changed = wanted(bucket=60)
    if times == 2:  # the first change is not recounted
        steps = capture(changed, horizon(2, time=life.now), source=life.source, ledger=life.state, now=life.now)
        assert next(steps) == Event("job.changed", {"captured": 2}, "info")
        steps.close()
        changed = wanted(bucket=60, where=(rows,))
    life.now += 60
    life.insert((0, "login", "ok"))
    for _ in range(2):
        life.ship(changed)

    assert life.sums() == {"events.login.count": 3}
    life.state.close()


@pytest.mark.parametrize("back", [420, 3600])
def test_recount_while_clocks_are_back(life: Life, back: int) -> None:
    """Slots that are ahead of clocks that were set back stay as they are, and that is told.

    Mutants: count their rows as such of the future, and set them to 0; say nothing.
    """
    life.insert((420, "login", "ok"))
    life.ship(wanted())
    life.now -= back
    life.ship(wanted(measures=(COUNT, Measure("ids", Kind.SUM, "id"))))
    life.now += back
    life.ship(wanted(measures=(COUNT, Measure("ids", Kind.SUM, "id"))))

    span, slots = {420: (Span(NOW, NOW + 60), 1), 3600: (Span(NOW - 420, NOW + 60), 4)}[back]
    assert Event("recount.limited", {"span": span, "slots": slots}, "warning") in life.noticed
    assert life.minutes("events.login.count") == {420: 1, 120: 2, 60: 1}
    assert life.minutes("events.totp.count") == {60: 1, 0: 1}
    assert life.rejected() == {}


@pytest.mark.parametrize(("before", "after"), [(60, 180), (120, 180)])
def test_longer_buckets_while_clocks_are_back(life: Life, before: int, after: int) -> None:
    """The longer bucket of a slot that is ahead of clocks that were set back is not counted either.

    Mutant: end the recount in its midst.
    """
    life.ship(wanted(bucket=before))
    life.now -= 600
    life.ship(wanted(bucket=after))

    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}


def test_other_times_while_clocks_are_back(life: Life) -> None:
    """Slots of the former times stay as they are, also those that are ahead of clocks that were set back.

    Mutant: let the new definition begin at the clock. The next change would recount such slots, without their rows.
    """
    berlin, ids = "Europe/Berlin", Measure("ids", Kind.SUM, "id")
    life.ship(wanted())
    life.now -= 600
    life.ship(wanted(time_zone=berlin))
    life.now += 600
    life.ship(wanted(time_zone=berlin, measures=(COUNT, ids)))

    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}


@pytest.mark.parametrize("other", [{"time_zone": "Europe/Berlin"}, {"template": "other.{action}.{measure}"}])
def test_other_times_or_names_while_a_recount_is_due(life: Life, other: dict[str, Any]) -> None:
    """A recount that failed is not done by the next definition, which has other slots or series; that is told.

    Mutant: let it be due.
    """
    measures, expected = (COUNT, Measure("ids", Kind.SUM, "id")), {"events.login.count": 3, "events.totp.count": 2}
    life.ship(wanted())
    with failing(life):
        life.ship(wanted(measures=measures))
    life.ship(wanted(measures=measures, **other))

    assert life.sums() == expected
    assert "recount.limited" in life.events()


def test_change_before_the_first_slot_is_recounted(tmp_path: Path) -> None:
    """A new job counts its first slot by whichever definition comes next. Mutant: drop a recount that is due."""
    life = Life(tmp_path)
    life.insert((0, "login", "ok"), (0, "login", "ok"))
    new = wanted(start="now")
    with failing(life):
        life.ship(new)
    life.ship(wanted(start="now", template="other.{action}.{measure}"))

    assert life.sums() == {"other.login.count": 2}
    life.state.close()


@pytest.mark.parametrize("other", [{"where": (Condition("outcome", "in", ("ok",)),)}, {"time_zone": "Etc/UTC"}])
def test_changes_while_the_first_slot_is_due(tmp_path: Path, other: dict[str, Any]) -> None:
    """All slots of a new job are complete, from its first one on, and a later change counts them again.

    Mutant: let slots be complete from the look after a first change on.
    """
    life = Life(tmp_path)
    life.insert((0, "login", "ok"), (0, "login", "ok"))
    with failing(life):
        life.ship(wanted(start="now"))
    life.now += 600
    life.insert((300, "login", "ok"))
    life.ship(wanted(start="now", **other))
    life.ship(wanted(start="now", measures=(COUNT, Measure("ids", Kind.SUM, "id")), **other))

    assert life.sums() == {"events.login.count": 3, "events.login.ids": 6}
    life.state.close()


def test_slot_ahead_while_the_first_one_is_due(tmp_path: Path) -> None:
    """A change keeps the recount of the slot that a job was moved to, though it has only one that is ahead.

    Mutant: recount from the oldest slot in the state.
    """
    life = Life(tmp_path)
    failures = {"where": (Condition("outcome", "in", ("failure",)),)}
    life.insert((0, "login", "ok"), (-240, "login", "failure"))
    life.ship(wanted(**failures))
    life.insert((0, "login", "failure"))
    _seek_end(life, wanted(**failures))
    life.ship(wanted(measures=(COUNT, Measure("ids", Kind.SUM, "id")), **failures))

    assert life.sums() == {"events.login.count": 2, "events.login.ids": 5}
    life.state.close()


def _seek_end(life: Life, wanted: Job) -> None:
    """Let a job skip all rows but those of the present slot."""
    progress, seen = life.state.progress(wanted.name), horizon(life.given, time=life.now)
    assert progress is not None
    target, before = by_end(wanted, progress, seen, now=life.now), life.state.position(wanted.name)
    life.state.seek(wanted.name, target, position_behind(wanted, target.captured, source=life.source, before=before))


def test_zeros_of_longer_buckets(life: Life) -> None:
    """After a change to longer buckets only their starts get zeros. Mutant: continue where the shorter ones ended."""
    life.now += 120
    life.ship(wanted(zeros=86400))
    life.now += 3600
    life.ship(wanted(zeros=86400, bucket=300))

    zeros = [NOW - ago for ago, rows in life.minutes("events.totp.count").items() if NOW - ago > NOW + 120 and not rows]
    assert {slot % 300 for slot in zeros} == {0}


def test_bucket_longer_than_what_is_pruned_together(tmp_path: Path) -> None:
    """A day of which hours were pruned keeps its hours: Graphite still has these (6 rows were 9).

    Its first hour is still in the state, because a row for it came later than the others.

    Mutant: count the day again from the oldest slot on.
    """
    life, day = Life(tmp_path), NOW // 86400 * 86400
    life.insert(*((NOW - day - hour * UNIT - 60, "login", "ok") for hour in (0, 0, 0, 3, 3, 8)))
    life.ship(wanted(bucket=UNIT))
    life.state._connection.execute("UPDATE slot SET changed = 0 WHERE slot > ?", (day,))
    life.now = day + 3 * 86400
    life.state.housekeeping.prune("events", unit=UNIT, before=life.now)
    life.ship(wanted(bucket=86400))

    assert life.sums() == {"events.login.count": 6}
    assert life.limited() == [{"span": Span(day, day + 86400), "slots": 1}]
    life.state.close()


def test_late_row_while_a_recount_is_limited(tmp_path: Path) -> None:
    """A row that comes too late for a pruned hour, with a changed definition, is counted as such (8 rows were 7).

    Mutant: count the day again from the oldest slot on, and the row as one of those that it has read.
    """
    life, day = Life(tmp_path), NOW // 86400 * 86400
    life.source.begin(1, life.created(NOW - day - 3 * UNIT), "login")
    life.given = 1
    life.insert(*((NOW - day - hour * UNIT - 60, "login", "ok") for hour in (0, 0, 0, 3, 3, 8)))
    life.ship(wanted())
    life.state._connection.execute("UPDATE slot SET changed = 0 WHERE slot > ?", (day + UNIT,))
    life.state.housekeeping.prune("events", unit=UNIT, before=NOW)
    life.source.commit()
    life.ship(wanted(bucket=300))

    assert life.sums() == {"events.login.count": 6}
    assert life.rejected() == {"too_late": 1}
    life.state.close()


def test_row_of_the_future_by_another_zone(life: Life) -> None:
    """A row that was ahead by the times of a former zone stays rejected: its bucket is another one now.

    Mutant: take its former bucket for that of the new zone, and count it as shown when that is recounted.
    """
    life.now -= 3000
    life.ship(wanted())
    assert life.rejected() == {"future": 5}
    life.ship(wanted(time_zone="America/Bogota"))
    life.now += 3000
    life.ship(wanted(time_zone="America/Bogota", measures=(COUNT, Measure("ids", Kind.SUM, "id"))))

    assert (life.sums(), life.rejected()) == ({}, {"future": 5})


def test_rejected_rows_of_former_names(tmp_path: Path) -> None:
    """Rejected rows keep their buckets when names change: a backfill shows them, or counts them as rejected once.

    Mutant: forget the buckets with each change of paths (of 9 rows, 8 were shown and 4 rejected).
    """
    life, after = Life(tmp_path), wanted(template="other.{action}.{measure}")
    life.insert(*[(UNIT, "login", "ok")] * 7)
    life.source.unreadable.add(7)
    life.ship(wanted())
    life.state.housekeeping.prune("events", unit=UNIT, before=10**10)
    life.insert((UNIT, "login", "ok"), (-UNIT, "login", "ok"))
    life.ship(wanted())
    assert life.rejected() == {"unreadable": 1, "too_late": 1, "future": 1}
    life.ship(after)
    life.now += 2 * UNIT
    life.ship(after)
    life.backfill(after, Span(NOW - 2 * UNIT, NOW + UNIT + 60))
    life.deliver()

    assert life.sums()["other.login.count"] == 8
    assert life.rejected() == {"unreadable": 1}
    life.state.close()


LONG = "events." + "y" * 160 + "{action}.{measure}"
"""Paths in which an action of 100 bytes has no room."""


def test_refused_row_that_a_recount_sees_first(life: Life) -> None:
    """A row whose path is too long is rejected, and once, also where a recount or a backfill is the first to see it.

    Mutants: leave it out of the recount's counters (0 and 1 rejected); count those of the capture again (3 rejected).
    """
    first, then = wanted(template=LONG), redefined(wanted(template=LONG))
    life.given += 2  # two rows that are committed later
    life.insert((0, "login", "ok"), (0, "x" * 100, "ok"))
    life.ship(first)
    assert life.rejected() == {"refused": 1}
    life.source.insert(life.given - 3, life.created(0), "x" * 100)
    life.ship(then)
    assert life.rejected() == {"refused": 2}
    life.source.insert(life.given - 2, life.created(0), "x" * 100)
    life.backfill(then, Span(NOW - UNIT, NOW + 60))
    life.ship(then)

    assert life.rejected() == {"refused": 3}
    assert sum(life.sums().values()) == 5  # all but the failure


def test_measure_gets_a_longer_name(life: Life) -> None:
    """Rows whose path becomes too long are rejected from then on, and shown again when it has room.

    Mutants: count rows that a recount refuses nowhere; let rows that a recount shows stay rejected.
    """
    template = "events." + "y" * 160 + "{action}{measure}"
    short, long = wanted(template=template), wanted(template=template, measures=(COUNT._replace(name="n" * 90),))
    life.ship(short)
    life.insert((0, "login", "ok"))
    life.ship(long)
    assert life.rejected() == {"refused": 6}
    life.ship(short)

    assert life.rejected() == {}
    assert sum(life.sums().values()) == 6


def test_rows_of_the_future_of_a_former_definition(tmp_path: Path) -> None:
    """Rows that were rejected before the lookback's span stay in the counter. Mutant: set it to those of the span."""
    life, one = Life(tmp_path), wanted(start="now")
    life.ship(one)
    life.insert((UNIT, "login", "ok"))
    life.ahead = -3 * UNIT
    life.ship(one)
    life.ahead = 0
    assert life.rejected() == {"future": 1}
    for _ in range(2):
        life.ship(wanted(start="now", lookback=UNIT, max_age=UNIT))

    assert (life.sums(), life.rejected()) == ({}, {"future": 1})
    life.state.close()


def test_rows_of_the_future_in_many_looks(tmp_path: Path) -> None:
    """A row that many looks reject, and a recount shows, leaves the counter once.

    Mutant: note its bucket at each look (the counter fell below 0, which hid the next row).
    """
    life, one = Life(tmp_path), wanted(lookback=UNIT, max_age=UNIT)
    life.insert((-UNIT, "login", "ok"))
    for _ in range(3):
        life.ship(one)
        assert life.rejected() == {"future": 1}
    life.now += 2 * UNIT
    life.ship(wanted())
    assert (life.sums(), life.rejected()) == ({"events.login.count": 1}, {})
    life.insert((-UNIT, "login", "ok"))
    life.ship(wanted())

    assert life.rejected() == {"future": 1}
    life.state.close()


def test_row_of_the_future_in_another_zone(tmp_path: Path) -> None:
    """A look counts the rows of the future anew, also those whose buckets are not known any more.

    Mutant: only take back what buckets have (the row was rejected, and rejected or shown once more).
    """
    life = Life(tmp_path)
    life.insert((-UNIT, "login", "ok"))
    for zone, rejected in (("UTC", {"future": 1}), ("Etc/GMT+1", {"future": 1}), ("Etc/GMT-2", {})):
        for _ in range(2):
            life.ship(wanted(lookback=UNIT, max_age=24 * UNIT, time_zone=zone))
        assert life.rejected() == rejected
    life.state.close()


def test_counted_row_that_another_zone_puts_ahead(tmp_path: Path) -> None:
    """A counted row whose time is ahead by a wrong zone is not counted again when that time comes, with a lookback.

    Mutant: begin with the next bucket (1 row was 2).
    """
    life = Life(tmp_path)
    life.insert((60, "login", "ok"))
    for zone in ("UTC", *["Etc/GMT+1"] * 4):
        life.ship(wanted(lookback=UNIT, max_age=24 * UNIT, time_zone=zone))
        life.now += 1800
    life.insert((UNIT, "login", "ok"))
    life.ship(wanted(lookback=UNIT, max_age=24 * UNIT, time_zone="Etc/GMT+1"))

    assert (life.sums(), life.rejected()) == ({"events.login.count": 2}, {})
    life.state.close()


def test_shorter_buckets_with_a_lookback(life: Life) -> None:
    """Under other names, shorter buckets are counted and recounted as soon as they are there.

    Mutant: take a slot for as long as a bucket of the former definition (the newest minutes were ahead for ever).
    """
    life.ship(wanted(bucket=1200, lookback=600, zeros=86400))
    before = life.sums()
    for _ in range(45):
        life.now += 60
        life.insert((5, "login", "ok"))
        life.ship(wanted(lookback=600, zeros=86400, template="by.{action}.{measure}"))
    life.source.rows[-5]["action"] = "totp"
    life.ship(wanted(lookback=600, zeros=86400, template="by.{action}.{measure}"))

    progress = life.state.progress("events")
    assert life.sums() == before | {"by.login.count": 44, "by.totp.count": 1}
    assert progress is not None
    assert progress.low > 5


@pytest.mark.parametrize("minutes", [15, 25])
def test_shorter_buckets_within_a_longer_one(tmp_path: Path, minutes: int) -> None:
    """A bucket that is not over stays as it is once buckets are shorter, and a lookback does not count its rows again.

    Mutant: recount from the lookback on (the rows of its last minutes were counted twice).
    """
    life = Life(tmp_path)
    life.now = NOW // UNIT * UNIT
    for minute in range(60):
        life.now += 60
        life.insert((5, "login", "ok"))
        life.ship(wanted(bucket=UNIT if minute < minutes else 60, lookback=600))
    life.source.rows[-5]["action"] = "totp"
    for _ in range(8):
        life.now += 60
        life.insert((5, "login", "ok"))
        life.ship(wanted(lookback=600))
    life.source.rows[-5]["action"] = "totp"
    life.ship(wanted(lookback=600))

    assert life.sums() == {"events.login.count": 67, "events.totp.count": 1}
    life.state.close()


@pytest.mark.parametrize(("measures", "whole"), [((COUNT,), UNIT), ((COUNT, Measure("ids", Kind.DISTINCT, "id")), 0)])
def test_whole_slots_after_a_longer_bucket(tmp_path: Path, measures: tuple[Measure, ...], whole: int) -> None:
    """Slots are whole from the end of a longer bucket that stays as it is, so that a backfill takes all of that.

    Distinct values are counted at once, which needs whole slots. Mutant: from the beginning of that bucket on (a
    backfill of some of its minutes counted their rows twice).
    """
    life = Life(tmp_path)
    life.now = NOW // UNIT * UNIT + 1500
    life.insert((300, "login", "ok"))
    life.ship(wanted(bucket=UNIT, measures=measures))
    life.ship(wanted(measures=measures))

    progress = life.state.progress("events")
    assert progress is not None
    assert (progress.since, progress.multiple) == (NOW // UNIT * UNIT + whole, UNIT)
    assert life.sums()["events.login.count"] == 1
    life.state.close()


def test_row_ahead_in_a_longer_bucket(tmp_path: Path) -> None:
    """A row that a long bucket counted ahead of its time is not counted again when that time comes, under other names.

    Mutant: begin behind the slots of the former definition, which may be shorter than its buckets (1 row was 2).
    """
    life = Life(tmp_path)
    life.now = NOW // UNIT * UNIT + 60
    life.insert((-900, "login", "ok"))
    life.ship(wanted(bucket=UNIT, lookback=600))
    for _ in range(2):
        life.ship(wanted(lookback=600, template="by.{action}.{measure}"))
        life.now += 900

    assert life.sums() == {"events.login.count": 1}
    life.state.close()


def test_row_of_the_future_before_a_span_that_is_ahead(tmp_path: Path) -> None:
    """A row that is ahead, in a bucket before the first whole one, waits for its time, and leaves the counter then.

    Mutants: reject it as too late; leave it among those of the future.
    """
    life, hourly = Life(tmp_path), wanted(bucket=UNIT, lookback=600, template="by.{action}.{measure}")
    life.now = NOW // UNIT * UNIT + 60
    life.insert((60, "login", "ok"), (-900, "login", "ok"))
    life.ship(wanted(lookback=600))
    assert life.rejected() == {"future": 1}
    life.ship(hourly)
    assert (life.sums(), life.rejected()) == ({"events.login.count": 1, "by.login.count": 1}, {})

    life.insert((-1000, "totp", "ok"))
    life.ship(wanted(lookback=600, template="minutes.{action}.{measure}"))
    assert life.rejected() == {}
    life.now += 1000
    life.ship(wanted(lookback=600, template="minutes.{action}.{measure}"))
    assert life.sums() == {"events.login.count": 1, "by.login.count": 1, "minutes.totp.count": 1}
    assert life.rejected() == {}
    life.state.close()


@pytest.mark.parametrize("bucket", [300, UNIT])
def test_row_of_the_future_before_there_was_a_lookback(tmp_path: Path, bucket: int) -> None:
    """A row that is rejected for good stays in the counter when a lookback begins behind it, under other names.

    Mutant: let all rows that were ahead leave it (1 row was in no counter and no series).
    """
    life = Life(tmp_path)
    life.now = NOW // UNIT * UNIT + 60
    life.insert((-900, "login", "ok"))
    life.ship(wanted())
    assert life.rejected() == {"future": 1}
    for _ in range(3):
        life.ship(wanted(bucket=bucket, lookback=600, template="by.{action}.{measure}"))
        life.now += 900

    assert sum(life.sums().values()) + sum(life.rejected().values()) == 1
    life.state.close()


@pytest.mark.parametrize("by", ["recount", "backfill"])
def test_row_of_the_future_in_a_longer_bucket(tmp_path: Path, by: str) -> None:
    """A row of the future that is in a bucket of the present, since buckets got longer, leaves the counter.

    Mutant: only rows whose former bucket has begun (1 row was counted twice).
    """
    life = Life(tmp_path)
    life.now = NOW // UNIT * UNIT + 60
    life.insert((60, "login", "ok"), (-900, "login", "ok"))
    life.ship(wanted())
    assert life.rejected() == {"future": 1}
    if by == "recount":
        life.ship(wanted(bucket=UNIT))
    else:
        other = wanted(bucket=UNIT, template="by.{action}.{measure}")
        life.ship(other)
        life.backfill(other, Span(life.now - 60, life.now + UNIT))

    assert life.rejected() == {}
    life.state.close()


@pytest.mark.parametrize("lookback", [None, UNIT])
def test_bucket_longer_within_the_first(tmp_path: Path, lookback: int | None) -> None:
    """The first bucket of a job, once it is longer, is as whole as any: rows in it may change, and are counted once.

    Mutants: remember the former first slot as the first that is whole; leave rows before it among those too late.
    """
    life, longer = Life(tmp_path), wanted(start="now", bucket=1200, lookback=lookback)
    life.now += 60
    life.ship(wanted(start="now", lookback=lookback))
    life.insert((60, "login", "ok"), (0, "login", "ok"))
    life.ship(wanted(start="now", lookback=lookback))
    assert (life.sums(), life.rejected()) == ({"events.login.count": 1}, {"too_late": 1})
    life.ship(longer)
    assert (life.sums(), life.rejected()) == ({"events.login.count": 2}, {})
    life.source.rows[-1]["action"] = "totp"
    life.ship(longer)

    changed = {"events.login.count": 1, "events.totp.count": 1}
    assert life.sums() == ({"events.login.count": 2} if lookback is None else changed)
    life.state.close()


def test_row_before_the_span_of_a_wrong_clock(tmp_path: Path) -> None:
    """A row that was too late by a wrong clock leaves that counter once a look counts it. Mutant: leave it there."""
    life, one = Life(tmp_path), wanted(lookback=UNIT, max_age=UNIT)
    life.ahead = 24 * UNIT
    life.ship(one)
    life.insert((0, "login", "ok"))
    for life.ahead in (-2 * UNIT, 0):
        life.ship(one)

    assert (life.sums(), life.rejected()) == ({"events.login.count": 1}, {})
    life.state.close()


def test_lookback_of_a_definition_without_slots(tmp_path: Path) -> None:
    """A changed definition follows rows of the lookback, also where the former one has counted nothing there.

    Mutant: recount slots of the state only (the rows were never counted, and later ones kept their first group).
    """
    life, one = Life(tmp_path), wanted(lookback=UNIT, max_age=UNIT)
    life.insert((600, "login", "ok"), (0, "login", "ok"))
    life.ship(replace(one, query=replace(one.query, where=FAILURES)))
    life.ship(one)
    assert life.sums() == {"events.login.count": 2}
    for row in life.source.rows:
        row["action"] = "logout"
    life.ship(one)

    assert life.sums() == {"events.logout.count": 2}
    life.state.close()


def test_refused_rows_of_pruned_hours(life: Life) -> None:
    """A group that is always refused does not let the state grow by a row a bucket, and its counter stays exact.

    Mutants: keep a row for each bucket; gather rows of hours that are not pruned, of which a part may be recounted.
    """
    one = wanted(template=LONG)
    hour = NOW - NOW % UNIT
    life.insert(*((NOW - hour + 300 * n, "x" * 100, "ok") for n in range(-1, 15)), (NOW - hour + 300, "login", "ok"))
    life.ship(one)
    life.state._connection.execute("UPDATE slot SET changed = 0")
    life.state.housekeeping.prune(one.name, unit=UNIT, before=hour)
    rows = life.state._connection.execute("SELECT bucket, rows FROM rejected_in ORDER BY bucket").fetchall()
    life.backfill(one, Span(hour - 300, hour - 240), Span(hour, hour + 60))

    assert rows == [(hour - 4200, 1), (hour - 3900, 1), (hour - UNIT, 12), (hour, 1), (hour + 300, 1)]
    assert life.rejected() == {"refused": 16}


def test_refused_row_older_than_the_lookback(life: Life) -> None:
    """A row whose path is too long stays rejected once the lookback has passed it.

    Mutant: set the counter to the rows of the present span.
    """
    one = wanted(template=LONG, lookback=UNIT, max_age=UNIT)
    life.insert((0, "x" * 100, "ok"))
    for _ in range(4):
        life.ship(one)
        assert life.rejected() == {"refused": 1}
        life.now += UNIT


def test_total_that_no_archive_takes_with_a_lookback(life: Life) -> None:
    """Rows that are too old, and those of totals that became it before their delivery, stay rejected.

    Mutant: set the counter to the rows of the present span.
    """
    one = wanted(lookback=UNIT, max_age=UNIT)
    life.insert((ARCHIVES[1].duration, "login", "ok"))
    life.ship(one)
    life.state.outbox.send_again([NOW - 120])
    life.state.outbox.merge(NOW - 120, 60, None)
    for _ in range(3):
        assert life.rejected() == {"too_old": 1 + 2}
        life.now += 2 * UNIT
        life.ship(one)


@pytest.mark.parametrize(
    ("measures", "rows"),
    [
        ([COUNT], 3),
        ([COUNT, Measure("again", Kind.COUNT)], 3),
        ([Measure("count", Kind.SUM, "duration_ms"), COUNT._replace(name="rows")], 3),
        ([Measure("count", Kind.SUM, "duration_ms")], 3),  # as of custom sql
        ([Measure("ms", Kind.SUM, "duration_ms")], 2),
    ],
)
def test_rows_of_totals_that_no_archive_takes(life: Life, measures: list[Measure], rows: int) -> None:
    """Rows of totals that become too old before their delivery are counted once, whatever is measured.

    Without a count, each group is at least one row. Mutants: add up all counts (two of them were 6 rows); count
    nothing else (a job with a sum alone, or custom sql, lost rows that no counter had).
    """
    for action in ("login", "login", "logout"):
        life.given += 1
        life.source.insert(life.given, life.created(180), action, duration_ms=1)
    life.ship(wanted(measures=tuple(measures)))
    life.state.outbox.send_again([NOW - 180])
    life.state.outbox.merge(NOW - 180, 60, None)

    assert life.rejected() == {"too_old": rows}


def test_bucket_ahead_and_one_of_the_same_cell(tmp_path: Path) -> None:
    """A bucket far ahead of the clock is rejected: Whisper would store it over one near the end of the archive.

    Mutant: show it if the row is ahead by less than a bucket and 5 minutes (one of the two rows was lost).
    """
    life, hourly = Life(tmp_path), wanted(bucket=UNIT)
    life.now = NOW // UNIT * UNIT + 60
    life.insert((ARCHIVES[0].duration - UNIT, "login", "ok"), (-UNIT, "login", "ok"))
    life.ship(hourly)

    assert (life.sums(), life.rejected()) == ({"events.login.count": 1}, {"future": 1})
    life.state.close()


def test_row_of_the_future_whose_time_comes_with_a_recount(tmp_path: Path) -> None:
    """A row that could not be shown is shown by a recount, though its slot has no other, and its id is far below.

    Mutant: forget that it is counted as one of the future, and read no ids.
    """
    life, ids = Life(tmp_path), Measure("ids", Kind.SUM, "id")
    one, two = replace(wanted(), chunk=3), replace(wanted(measures=(COUNT, ids)), chunk=3)
    for job_ in (one, two):  # slots are whole from the next minute on
        life.ship(job_)
    life.insert((-3600, "future", "ok"), *[(0, "login", "ok")] * 4)
    life.ship(two)
    assert life.rejected() == {"future": 1}
    life.now += 3600
    life.ship(one)

    assert life.sums()["events.future.count"] == 1
    assert life.rejected() == {}
    life.state.close()


def purged(tmp_path: Path, settled: int = 0) -> Life:
    """Give 600 rows of ten minutes that were shipped; so long later all but the newest 300 are purged."""
    life = Life(tmp_path)
    for minute in range(10, 0, -1):
        life.insert(*[(60 * minute, "login", "ok")] * 60)
    life.ship(wanted())
    for _ in range(settled // 120):
        life.now += 120
        life.ship(wanted())
    del life.source.rows[:300]
    return life


@pytest.mark.parametrize("settled", [0, wanted().late + 120])
def test_measure_after_a_purge(tmp_path: Path, settled: int) -> None:
    """A recount lowers nothing because rows are gone; what it leaves is told (600 rows were 300).

    So it is whether single ids are still known, or only how many of them there were.

    Mutants: no gate; one for what is younger than late; one for what is older; count the slot that is cut again.
    """
    life, ids = purged(tmp_path, settled), Measure("ids", Kind.SUM, "id")
    life.noticed.clear()
    life.ship(wanted(measures=(COUNT, ids)))

    assert life.minutes("events.login.count") == {60 * minute: 60 for minute in range(1, 11)}
    if settled:  # nobody knows which they are: none of these slots is counted again
        assert "events.login.ids" not in life.sums()
        limited, slots = Span(NOW - 600, NOW), 10
    else:
        assert life.sums()["events.login.ids"] == sum(range(301, 601))
        limited, slots = Span(NOW - 600, NOW - 300), 5
    assert Event("recount.limited", {"span": limited, "slots": slots}, "warning") in life.noticed
    progress = life.state.progress("events")
    assert progress is not None
    assert progress.since == limited.end
    life.state.close()


def test_single_rows_purged(tmp_path: Path) -> None:
    """A purge of some rows here and there is found out by their ids. Mutants: look at the smallest id; at numbers.

    As many rows come late as went, and are of other slots.
    """
    life = purged(tmp_path)
    gone = [row for row in life.source.rows if row["id"] == 400]
    life.source.rows.remove(gone[0])
    life.ship(wanted(where=(Condition("outcome", "in", ("ok",)),)))

    assert life.minutes("events.login.count") == {60 * minute: 60 for minute in range(1, 11)}
    assert Event("recount.limited", {"span": Span(NOW - 600, NOW - 180), "slots": 7}, "warning") in life.noticed
    life.state.close()


def test_gate_opens_for_slots_that_are_whole(tmp_path: Path) -> None:
    """Slots behind the last that lacks rows are counted again, and follow the new definition. Mutant: none."""
    life = purged(tmp_path)
    life.insert((0, "login", "failure"))
    life.ship(wanted())
    life.ship(wanted(where=FAILURES))

    assert life.minutes("events.login.count") == {60 * minute: 60 if minute > 5 else 0 for minute in range(1, 11)} | {
        0: 1
    }
    life.state.close()


def test_late_row_after_a_purge(tmp_path: Path) -> None:
    """A late row among rows that were purged is added to what they came to (59 rows were 3).

    Mutant: count its slot again.
    """
    life = Life(tmp_path)
    life.insert(*[(0, "login", "ok")] * 30)
    life.source.begin(31, life.created(0), "login")
    life.given = 31
    life.insert(*[(0, "login", "ok")] * 28)
    life.ship(wanted())
    del life.source.rows[:56]
    life.source.commit()
    life.now += 60
    life.ship(wanted())

    assert life.sums() == {"events.login.count": 59}
    life.state.close()


def test_deleted_rows_that_no_slot_needs(tmp_path: Path) -> None:
    """Rows that are gone below all slots that are counted again keep none of them. Mutant: any row that is gone."""
    life = purged(tmp_path)
    life.state._connection.execute("UPDATE slot SET changed = 0")
    life.state._connection.execute("INSERT INTO pruned VALUES ('events', ?, ?)", (NOW - 3600, NOW - 300))
    life.state._connection.execute("DELETE FROM slot WHERE slot < ?", (NOW - 300,))
    life.noticed.clear()
    life.ship(wanted(where=FAILURES))

    assert life.events() == []
    assert life.minutes("events.login.count") == {60 * minute: 60 if minute > 5 else 0 for minute in range(1, 11)}
    life.state.close()


def test_tick_time_changes(life: Life) -> None:
    """A job without a time column goes on with the next bucket: what its running one holds stays."""
    life.ship(wanted(time=None))
    life.insert((0, "login", "failure"))
    life.now += 30
    life.ship(wanted(time=None, where=FAILURES))
    life.now += 60

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}
    assert life.minutes("events.login.count") == {0: 3, -60: 1}


def test_job_is_renamed(life: Life) -> None:
    """A new job that counts and names what one did that is gone goes on where that was. Mutant: begin anew."""
    life.ship(wanted())
    life.insert((0, "login", "ok"))
    renamed = replace(wanted(), name="logins", start="now")
    assert life.state.housekeeping.rename(renamed, ["logins"]) == "events"
    life.ship(renamed)

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}
    assert (captured(life.state, "logins"), captured(life.state)) == (6, None)


@pytest.mark.parametrize(
    "other",
    [
        wanted(),  # it has begun already
        replace(wanted(where=FAILURES), name="logins"),
        replace(wanted(table="orders"), name="logins"),
        replace(wanted(), name="logins", source="other"),
    ],
)
def test_job_is_not_renamed(life: Life, other: Job) -> None:
    """Only a job that is the same but for its name is taken for a renamed one."""
    life.ship(wanted())

    assert life.state.housekeeping.rename(other, [other.name]) is None
    assert captured(life.state) == 5


def test_configured_twin_is_not_renamed(life: Life) -> None:
    """A job that is still configured keeps what it has."""
    life.ship(wanted())

    assert life.state.housekeeping.rename(replace(wanted(), name="logins"), ["logins", "events"]) is None


def test_job_is_removed(life: Life) -> None:
    """What a job that left the configuration had not delivered is delivered to the end."""
    life.carbon.kill()
    with pytest.raises(Exception, match="refused"):
        life.ship(wanted())
    life.carbon.start()
    life.ship()

    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}
    position = life.state.offsets("events")
    assert position is not None
    assert position.watermark == 5


def test_carbon_is_another(life: Life) -> None:
    """Another Carbon is given every total in the state. Mutant: only what changes from now on."""
    assert not life.state.outbox.retarget("one:2003")
    life.ship(wanted())
    life.carbon = life.new_carbon("two")
    assert not life.state.outbox.retarget("one:2003")
    life.ship(wanted())
    assert life.sums() == {}
    assert life.state.outbox.retarget("two:2003")
    life.ship(wanted())

    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}


def _touched(life: Life, ago: int) -> None:
    life.state._connection.execute("UPDATE slot SET changed = ?", (life.now - ago,))


def test_prune_forgets_what_is_proven(life: Life) -> None:
    """Slots long unchanged are forgotten, and a row for them is too late: it would overwrite their sum.

    Mutants: take the row for the first of its slot; forget what is not proven.
    """
    life.ship(wanted())
    _touched(life, 3 * 86400)
    life.now += 3 * 86400
    assert life.state.housekeeping.prune("events", unit=3600, before=life.now - 2 * 86400) > 0
    life.insert((3 * 86400, "login", "ok"), (0, "login", "ok"))
    life.ship(wanted())

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2}
    assert life.rejected() == {RejectReason.TOO_LATE: 1}


def test_prune_leaves_what_is_not_proven(life: Life) -> None:
    """What Carbon may not have yet is kept however old it is."""
    life.carbon.kill()
    with pytest.raises(Exception, match="refused"):
        life.ship(wanted())
    _touched(life, 3 * 86400)
    life.now += 3 * 86400
    life.carbon.start()

    assert life.state.housekeeping.prune("events", unit=3600, before=life.now - 2 * 86400) == 0
    life.ship(wanted())
    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}


def test_prune_whole_units(life: Life) -> None:
    """An hour of which one minute has just changed is kept whole. Mutant: forget slot by slot."""
    life.ship(wanted())
    life.state._connection.execute("UPDATE slot SET changed = ? WHERE slot = ?", (life.now - 3 * 86400, NOW))
    life.now += 3 * 86400

    assert life.state.housekeeping.prune("events", unit=3600, before=life.now - 2 * 86400) == 0


def test_pruned_ranges_are_one(life: Life) -> None:
    """What is pruned hour by hour is remembered as one range."""
    for hour in range(5):
        life.insert((hour * 3600, "login", "ok"))
    life.ship(wanted())
    _touched(life, 3 * 86400)
    life.now += 3 * 86400
    life.state.housekeeping.prune("events", unit=3600, before=life.now - 2 * 86400)

    assert life.state._connection.execute("SELECT COUNT(*), MAX(end) - MIN(start) FROM pruned").fetchone() == (1, 18000)


def test_limit_of_groups(life: Life) -> None:
    """Groups beyond the limit are counted together, nothing is lost, and those that had series keep them."""
    limited = replace(wanted(), max_groups=2)
    life.ship(limited)
    life.insert((0, "a", "ok"), (0, "b", "ok"), (60, "a", "ok"), (0, "login", "ok"))
    life.ship(limited)

    assert life.sums() == {"events.login.count": 4, "events.totp.count": 2, "events._other.count": 3}


def test_untrusted_clock(life: Life) -> None:
    """While clocks are not trusted a job without a time column waits, and no zeros are written."""
    zeros, ticks = wanted(zeros=86400), replace(wanted(time=None, template="ticks.{action}.{measure}"), name="ticks")
    for one in (zeros, ticks):
        upto = horizon(5, time=life.now + 600)
        for _ in capture(one, upto, source=life.source, ledger=life.state, now=life.now, is_trusted=False):
            pass
    life.ship()

    assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}
    assert life.minutes("events.login.count") == {120: 2, 60: 1}
    life.now += 600
    life.ship(zeros, ticks)
    assert life.sums() == {
        "events.login.count": 3,
        "events.totp.count": 2,
        "ticks.login.count": 3,
        "ticks.totp.count": 2,
    }
    assert life.minutes("events.login.count") == {120: 2, 60: 1} | {-60 * minute: 0 for minute in range(10)}


def test_source_that_is_ahead_for_long(life: Life) -> None:
    """What a source counts ahead of our clock is sent once its time has come by ours, though they still differ.

    Mutant: release it only once the clocks agree (nothing was sent).
    """
    courier = Courier(life.state.outbox, life.carbon, archives=ARCHIVES, batch=100, replay=(0,))
    for minute in range(25):
        life.now += 60
        life.insert((-1200, "late", "ok"))
        upto = horizon(life.given, time=life.now + 1200)
        for _ in capture(wanted(), upto, source=life.source, ledger=life.state, now=life.now, is_trusted=False):
            pass
        while courier.step(now=life.now, clock=60.0 * minute, is_trusted=False):
            pass

    assert life.sums()["events.late.count"] == 25 - 1200 // 60


@pytest.mark.parametrize("is_sent_before", [False, True])
def test_clock_that_is_behind_for_long(life: Life, is_sent_before: bool) -> None:  # noqa: FBT001 - a column
    """While our clock is behind by longer than the finest archive, no minute is sent that has left it by the source's.

    Carbon would store it as the sum of its hour. Mutants: release what is due by our clock alone, or send what waits
    (the hour had 1 of its rows).
    """
    archives = (Archive(60, 6 * 3600), Archive(3600, 365 * 86400))
    life.carbon = WhisperCarbon(life.folder / "one", archives, lambda: life.now)
    courier, count = Courier(life.state.outbox, life.carbon, archives=archives, batch=100, replay=(60,)), 0

    def ship(behind: int) -> None:
        upto = horizon(life.given, time=life.now)
        ours, is_trusted = life.now - behind, not behind
        for _ in capture(job(archives=archives), upto, source=life.source, ledger=life.state, now=upto.time):
            pass
        while courier.step(now=ours, clock=float(life.now), is_trusted=is_trusted, latest=upto.time):
            pass
        life.carbon.flush()

    for _ in range(6 if is_sent_before else 120):
        life.now += 300
        count += 1
        life.insert((0, "again", "ok"))
        ship(0 if is_sent_before else 7 * 3600)
    life.now += 7 * 3600 if is_sent_before else 0  # the machine was suspended, and its clock as well
    for _ in range(10):
        life.now += 60
        ship(7 * 3600)
    for _ in range(3):
        life.now += 3600
        ship(0)

    assert sum(life.carbon.zoom(archives[1])["events.again.count"].values()) == count


def test_slow_clock_after_an_outage(tmp_path: Path) -> None:
    """Minutes that our slow clock sends after they have left their archive are corrected once the clocks agree.

    Mutant: take their replays by that clock for proof (2 rows were 1: the last minute replaced the sum of its hour).
    """
    life = Life(tmp_path)
    life.now = NOW // UNIT * UNIT + 120
    life.insert((0, "login", "ok"), (60, "login", "ok"))
    for _ in capture(wanted(), horizon(2, time=life.now), source=life.source, ledger=life.state, now=life.now):
        pass
    life.now += 7 * 86400 + 3 * UNIT
    courier = Courier(life.state.outbox, life.carbon, archives=ARCHIVES, batch=100, replay=(0,))
    for clock, slow in ((0.0, 4 * UNIT), (60.0, 4 * UNIT), (120.0, 0), (180.0, 0)):
        while courier.step(now=life.now - slow, clock=clock, is_trusted=not slow):
            pass
        life.carbon.flush()

    assert life.sums() == {"events.login.count": 2}
    life.state.close()


@pytest.mark.parametrize("is_ours", [True, False])
def test_clock_far_ahead(life: Life, is_ours: bool) -> None:  # noqa: FBT001 - a column
    """While a clock is wrong by weeks no minute is taken for one that has left its archive; or it waits until it has.

    Mutants: look at our clock only; send what a wrong clock calls due; let later rows into a slot that has gone.
    """
    life.ship(wanted())
    life.insert((0, "login", "ok"))
    ahead = life.now + 40 * 86400
    upto, now = (horizon(6, time=life.now), ahead) if is_ours else (horizon(6, time=ahead), life.now)
    for _ in capture(wanted(), upto, source=life.source, ledger=life.state, now=now, is_trusted=False):
        pass
    life.ship()
    life.insert((0, "login", "ok"), (60, "totp", "ok"))
    life.ship(wanted())
    if is_ours:
        assert life.minutes("events.login.count") == {120: 2, 60: 1, 0: 2}
    else:
        assert life.sums() == {"events.login.count": 3, "events.totp.count": 2}
    life.now += 9 * 86400
    life.ship()

    assert life.sums() == {"events.login.count": 5, "events.totp.count": 3}


def test_zeros_across_restarts(life: Life) -> None:
    """A bucket is closed once, whoever runs then; declared groups are 0 without having been seen."""
    zeros = wanted(zeros=86400, groups=(("rare",),))
    life.ship(zeros)
    for _ in range(3):
        life.now += 60
        life.state.close()
        life.state = State(str(life.folder / "shipper.db"))
        life.ship(zeros)

    assert life.minutes("events.login.count") == {120: 2, 60: 1, 0: 0, -60: 0, -120: 0}
    assert {-60: 0, -120: 0}.items() <= life.minutes("events.rare.count").items()


def test_no_zero_for_unread_time(life: Life) -> None:
    """Zeros end where the observation was made, however late it is captured. Mutant: close up to now."""
    upto = horizon(5, time=life.now)
    for _ in capture(wanted(zeros=86400), upto, source=life.source, ledger=life.state, now=life.now + 250):
        pass
    life.ship()

    assert min(life.minutes("events.login.count")) == 60


@pytest.mark.parametrize("behind", [-240, 240])
@pytest.mark.parametrize("queue", [60, 300])
def test_outage_longer_than_an_archive(tmp_path: Path, behind: int, queue: int) -> None:
    """Minutes that leave their archive while Carbon is away go out once, as sums of hours, and stay what they are.

    Carbon's clock is four minutes off, and it writes up to five minutes after it has confirmed.
    Mutant: no room at the edge of an archive.
    """
    archives = (Archive(60, 4 * 3600), Archive(3600, 365 * 86400))
    events, life = job(archives=archives), Life(tmp_path)
    (tmp_path / "far").mkdir()
    life.carbon = WhisperCarbon(tmp_path / "far", archives, lambda: life.now - behind)
    courier = Courier(life.state.outbox, life.carbon, archives=archives, batch=1000, replay=(60,))
    back = (NOW // 3600 + 10) * 3600 - 120  # an hour begins just within the finest archive, by our clock
    for minute in range(14 * 60):
        life.insert((0, "login", "ok"))
        upto = horizon(life.given, time=life.now)
        for _ in capture(events, upto, source=life.source, ledger=life.state, now=life.now):
            pass
        is_away = NOW + 3 * 3600 < life.now < back
        while not is_away and courier.step(now=life.now, clock=float(60 * minute)):
            pass
        life.now += 60
        if life.now % queue == 0:
            life.carbon.flush()
    life.carbon.flush()

    life.state.close()

    rows = [NOW + 60 * minute for minute in range(14 * 60)]
    assert life.carbon.zoom(archives[1])["events.login.count"] == Counter(row // 3600 * 3600 for row in rows)
    recent = range(life.now - 3600, life.now, 60)
    fine = life.carbon.sums()["events.login.count"]
    assert {minute: fine.get(minute) for minute in recent} == dict.fromkeys(recent, 1)


def test_bucket_ahead_of_a_source_that_is_ahead(tmp_path: Path) -> None:
    """The margin around the end of an archive holds by the clock of Carbon, wherever that of the source is.

    Mutant: let the source's clock alone decide which buckets are ahead (one of the two rows was lost).
    """
    life, skew = Life(tmp_path), 300
    life.now, life.ahead = NOW // UNIT * UNIT + UNIT - 600 - skew, skew
    life.insert((ARCHIVES[0].duration - 600 - skew, "login", "ok"), (-600 - skew, "login", "ok"))
    life.ship(wanted(bucket=300))

    assert (life.sums(), life.rejected()) == ({"events.login.count": 1}, {"future": 1})
    life.state.close()
