"""Jobs along a time, on real databases: tables whose rows have no integer key, and whose times are not unique."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from builders import NOW
from looks import TOTALS, Looks, wanted
from shipping import Crash, Fragile
from tables import KINDS, on_mariadb, on_postgresql, on_sqlite

from shipper.core.capture import capture
from shipper.core.errors import QueryRefused
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Job, Names, Now, Span
from shipper.core.repair.backfill import backfill
from shipper.core.rows import along_minutes
from shipper.core.rows.start import by_time, position_behind
from shipper.core.rows.table import Context, Event
from shipper.state.store import State

LATE = 6 * 3600
EVENTS = wanted(id="created_at", late=LATE)
NEW = replace(EVENTS, start="now")
MEASURES = (COUNT, Measure("ms", Kind.SUM, "duration_ms"))
INSERT = "INSERT INTO audit_trail (created_at, action, duration_ms) VALUES (%s, %s, %s)"


@pytest.fixture(params=KINDS)
def looks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Looks]:
    """Give an empty table with an index on its time, on each kind of database."""
    if request.param == "sqlite":
        table = on_sqlite(tmp_path / "app.db", is_wal=True)
    elif request.param == "mariadb":
        table = on_mariadb(request.getfixturevalue("mariadb"))
    else:
        table = on_postgresql(request.getfixturevalue("postgresql"))
    table.execute("CREATE INDEX times ON audit_trail (created_at)")
    with closing(table), closing(Looks(table, tmp_path)) as made:
        yield made


def put(looks: Looks, *seconds: float, action: str | None = "login") -> None:
    """Insert rows with times a number of seconds ago."""
    for ago in seconds:
        fraction = f".{round(ago % 1 * 1e6):06d}" if ago % 1 else ""
        looks.table.execute(INSERT, (looks.created(int(ago)) + fraction, action, 5))


def settle(looks: Looks, *jobs: Job, seconds: int = 2 * LATE) -> None:
    """Look so often that each minute is looked at for the last time."""
    for _ in range(0, seconds, 120):
        looks.now += 120
        looks.look(*jobs)


def test_rows_that_share_a_time(looks: Looks) -> None:
    """Rows with one time are counted, also those that come after a look at it."""
    put(looks, 30, 30, 30)
    looks.look(EVENTS)
    put(looks, 30, 30, 29, 0)
    looks.look(EVENTS)

    assert looks.slots(EVENTS) == {60: 6, 0: 1}
    assert looks.look(EVENTS) == []
    assert looks.total(EVENTS) == 7


def test_minutes_with_many_groups(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes with many groups are recorded one by one, also for a changed job; one that has too many is refused.

    Mutants: one record for all; no limit for rows that replace others.
    """
    monkeypatch.setattr(along_minutes, "MOST_LABELS", 4)
    for number in range(12):
        put(looks, 210 - 60 * (number // 3), action=f"action{number}")
    looks.look(EVENTS, steps=2)  # the start of the job is the first
    assert looks.total(EVENTS) == 6
    assert looks.look(EVENTS) == []
    assert looks.total(EVENTS) == 12
    changed = replace(EVENTS, query=replace(EVENTS.query, measures=MEASURES))
    assert looks.look(changed) == []
    looks.table.execute("DELETE FROM audit_trail WHERE action = 'action11'")
    put(looks, 31, action="new")
    looks.look(changed)
    assert looks.total(changed) == 13
    put(looks, 32, action="newer")

    with pytest.raises(QueryRefused, match="more than 4 groups in the minute "):
        looks.look(changed)


def test_late_rows_are_found_until_late(looks: Looks) -> None:
    """A row that appears up to `late` after its time is counted once; a later one is not."""
    looks.look(NEW)
    put(looks, 0)
    looks.look(NEW)
    for seconds in (90, 600, 3000, 9000, LATE - 14_000):
        looks.now += seconds
        put(looks, looks.now - NOW, 0)
        settle(looks, NEW, seconds=240)
    looks.look(NEW)
    settle(looks, NEW)
    expected = looks.slots(NEW)
    put(looks, looks.now - NOW)
    settle(looks, NEW)

    assert looks.slots(NEW)[0] == 6
    assert looks.slots(NEW) == expected


def test_beginning_counts_all_rows_once(looks: Looks) -> None:
    """Years of rows are counted, in steps of about `chunk` rows; those that Graphite cannot show are told."""
    put(looks, 700 * 86_400, 90 * 86_400, 90 * 86_400, 3 * 86_400, 3 * 86_400 - 1, LATE + 61, LATE, 60, 1)
    job = replace(EVENTS, chunk=2)
    looks.look(job)

    assert looks.total(job) == 8
    assert looks.rejected(job) == {"too_old": 1}
    settle(looks, job, seconds=1200)
    assert looks.total(job) == 8


def test_start_now_begins_with_the_whole_bucket(looks: Looks) -> None:
    """A new job counts its bucket from the beginning, and nothing before."""
    job = replace(NEW, query=replace(NEW.query, bucket=3600))
    start = looks.now % 3600
    put(looks, start + 1, start, 30, 0)
    looks.look(job)
    put(looks, start + 1, start)
    settle(looks, job, seconds=600)

    assert looks.total(job) == 4


def test_deleted_rows_lower_nothing(looks: Looks) -> None:
    """Deleted rows stay counted; a later row of another group of the minute is added, one of the same group is told."""
    put(looks, 30, 30, 31)
    put(looks, 30, action="other")
    looks.look(EVENTS)
    looks.table.execute("DELETE FROM audit_trail WHERE action = 'login'")
    assert looks.look(EVENTS) == []
    put(looks, 29, action="other")
    noticed = looks.look(EVENTS)
    assert looks.total(EVENTS) == 5
    put(looks, 29)
    noticed = looks.look(EVENTS)

    assert looks.total(EVENTS) == 5
    assert noticed == [Event("recount.limited", {"span": Span(NOW - 60, NOW), "slots": 1}, "warning")]


def test_row_in_place_of_a_deleted_one(looks: Looks) -> None:
    """A row is added though another of its minute is gone. Mutant: compare numbers of rows, and not their times."""
    put(looks, 30, 20)
    looks.look(EVENTS)
    looks.table.execute("DELETE FROM audit_trail WHERE created_at = %s", (looks.created(30),))
    put(looks, 29, action="other")
    looks.look(EVENTS)

    assert looks.slots(EVENTS) == {60: 3}


def test_rows_that_vanish_and_return(looks: Looks) -> None:
    """A table that is emptied and filled again with the same rows is counted once."""
    put(looks, 60, 30, 30, 10)
    looks.look(EVENTS)
    looks.table.execute("CREATE TABLE copy AS SELECT * FROM audit_trail")
    looks.table.execute("DELETE FROM audit_trail")
    looks.now += 10
    assert looks.look(EVENTS) == []
    looks.table.execute("INSERT INTO audit_trail SELECT * FROM copy")
    looks.now += 10
    put(looks, 0)
    assert looks.look(EVENTS) == []

    assert looks.total(EVENTS) == 5


def test_rows_before_1970(looks: Looks) -> None:
    """Rows from before the second minute of 1970 are told, and hide no other. Mutant: tell only those without."""
    for early in ("1900-01-01 00:00:00", "1969-12-31 23:59:59", "1970-01-01 00:00:59"):
        looks.table.execute(INSERT, (early, "login", 5))
    put(looks, 0)
    looks.look(EVENTS)

    assert (looks.total(EVENTS), looks.rejected(EVENTS)) == (1, {"no_time": 3})


NO_TIMES = {
    "mariadb": ("2026-10-00 00:00:00", "2026-10-00 07:00:00", "2026-09-00 00:00:00", "2026-00-00 00:00:00"),
    "postgresql": (),
    "sqlite": ("2026-10-01 00:02:60", "2026-10-01 00:02:5x", "2026-09-25 23:61:00", "2026-01-01 00:00:0"),
}


@pytest.mark.parametrize("is_late", [False, True])
def test_values_that_are_no_times(looks: Looks, is_late: bool) -> None:  # noqa: FBT001 - in the line
    """Values that sort among times, and are none, are rejected once, and hide no others.

    Mutants: leave them out of the minutes; take the first of them for the end of its window; read them without a
    bucket in a long window.
    """
    looks.now = int(datetime(2026, 10, 1, 0, 5, tzinfo=UTC).timestamp())
    put(looks, 30, 301, 4000, 5 * 86400, 30 * 86400, 100 * 86400)
    odd = NO_TIMES[looks.table.kind]
    if is_late:
        looks.look(EVENTS)
        odd = odd[:2]
    with looks.table.session() as execute:
        if looks.table.kind == "mariadb":
            execute("SET sql_mode = ''")
        for text in odd:
            execute(INSERT, (text, "odd", 5))
    for _ in range(3):
        looks.look(EVENTS)
        looks.now += 60

    assert (looks.total(EVENTS), looks.rejected(EVENTS)) == (6, {"unreadable": len(odd)} if odd else {})


@pytest.mark.parametrize("form", ["T", "+02:00", "-05:00"])
def test_texts_of_several_forms(tmp_path: Path, form: str) -> None:
    """Older texts of SQLite, which do not sort by time, are counted in the buckets of their own times.

    Mutant: believe that the first value of a window is the time of its second.
    """
    with closing(on_sqlite(tmp_path / "app.db")) as table, closing(Looks(table, tmp_path)) as looks:
        table.execute("CREATE INDEX times ON audit_trail (created_at)")
        put(looks, 60, 50, 40)
        for ago in (90_000, 40 * 86400):
            text = looks.created(ago).replace(" ", "T") if form == "T" else looks.created(ago) + form
            table.execute(INSERT, (text, "login", 5))
        table.prepared(EVENTS.query)
        looks.look(EVENTS)

        assert looks.total(EVENTS) == 5


def test_rows_without_a_time_and_ahead_of_the_clock(looks: Looks) -> None:
    """Rows without a time, and rows of the future, are told; the latter are counted when their time comes."""
    put(looks, 0, -200, -4000)
    looks.table.execute("INSERT INTO audit_trail (created_at, action) VALUES (NULL, 'login')")
    looks.look(EVENTS)

    assert looks.rejected(EVENTS) == {"no_time": 1, "future": 1}
    assert looks.total(EVENTS) == 2
    looks.table.execute("UPDATE audit_trail SET created_at = %s WHERE created_at IS NULL", (looks.created(30),))
    looks.now += 4060
    looks.look(EVENTS)
    settle(looks, EVENTS)
    assert looks.rejected(EVENTS) == {}
    assert looks.total(EVENTS) == 4


def test_lookback_follows_labels_that_change(looks: Looks) -> None:
    """Within lookback values follow the table, up and down."""
    job = replace(EVENTS, lookback=900)
    put(looks, 30, 30, 600)
    looks.look(job)
    looks.table.execute("UPDATE audit_trail SET action = 'other'")
    looks.now += 60
    looks.look(job)
    rows = looks.state._connection.execute(
        "SELECT path, SUM(value) FROM total JOIN series ON series.id = series GROUP BY 1"
    )

    assert dict(rows.fetchall()) == {"events.login.count": 0, "events.other.count": 3}


def test_lookback_follows_times_that_change(looks: Looks) -> None:
    """Within lookback a row that moves leaves a minute without rows. Mutant: look at minutes that have rows."""
    job = replace(EVENTS, lookback=900)
    put(looks, 610, 30)
    looks.look(job)
    looks.table.execute(
        "UPDATE audit_trail SET created_at = %s WHERE created_at = %s", (looks.created(29), looks.created(610))
    )
    looks.look(job)

    assert looks.slots(job) == {60: 2}


def test_lookback_follows_whole_buckets(looks: Looks) -> None:
    """Rows of a bucket longer than `late` are followed from its start. Mutant: keep minutes only until `late`."""
    job = replace(EVENTS, lookback=600, late=1800, query=replace(EVENTS.query, bucket=3600))
    looks.now = NOW // 3600 * 3600 + 120
    first = looks.created()
    looks.table.execute(INSERT, (first, "login", 5))
    for number in range(25):
        looks.look(job)
        looks.now += 120
        if number in (3, 6):
            looks.table.execute(INSERT, (looks.created(), "login", 5))
    looks.table.execute("UPDATE audit_trail SET created_at = %s WHERE created_at = %s", (looks.created(), first))
    looks.look(job)

    assert looks.total(job) == 3


def test_a_clock_that_is_set_back(looks: Looks) -> None:
    """Rows are counted while the source's clock repeats an hour."""
    put(looks, 0)
    looks.look(EVENTS)
    looks.now -= 3000
    for _ in range(50):
        looks.now += 60
        put(looks, 0)
        looks.look(EVENTS)
    looks.now += 60
    looks.look(EVENTS)

    assert looks.total(EVENTS) == 51


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_local_times(looks: Looks, zone: str) -> None:
    """A column in local time is read along as it is, and its rows count in UTC."""
    hours = {"Europe/Berlin": -2, "America/New_York": 4, "Asia/Kolkata": -5.5}
    job = replace(NEW, query=replace(NEW.query, time_zone=zone))
    there = int(hours[zone] * 3600)
    put(looks, there + 100, there + 30, there)
    looks.look(job)
    put(looks, there + 30, there - 1)
    looks.now += 5
    looks.look(job)

    assert looks.slots(job) == {0: 2}
    looks.now += 60
    put(looks, there)
    looks.look(job)
    assert looks.slots(job) == {0: 2, -60: 1}


class Walk:
    """A random walk: rows that come now, late, twice at one time; deletes; kills between any two statements."""

    def __init__(self, looks: Looks, seed: int) -> None:
        """Begin the job on an empty table."""
        self.looks, self.dice = looks, random.Random(seed)
        self.job = replace(EVENTS, query=replace(EVENTS.query, measures=MEASURES), chunk=self.dice.choice([1, 5, 1000]))
        self.folder = Path(str(looks.state.path)).parent
        self.expected: Counter[tuple[str, int]] = Counter()
        """Rows by action and minute."""
        self.sums: Counter[tuple[str, int]] = Counter()
        self.fresh: set[tuple[str, int]] = set()
        """Those of which a complete look has counted all rows."""
        self.closed: set[tuple[str, int]] = set()
        """Those with deleted rows: later ones might be hidden."""
        self.deleted: set[float] = set()
        """Times of deleted rows: others of exactly these times might be hidden, too."""
        self.written: dict[tuple[str, int], set[float]] = defaultdict(set)
        """Times of rows by action and minute."""
        self.unseen: set[float] = set()
        """Times of rows that no complete look has counted."""
        looks.look(self.job)

    def insert(self, execute: Any, times: list[float]) -> None:
        """Insert a row for each time, in epoch seconds."""
        for time in times:
            action, duration = self.dice.choice("abc"), self.dice.choice([1, 7, 50])
            key = action, int(time) // 60 * 60
            if key in self.closed or time in self.deleted:
                continue
            ago = self.looks.now - time
            fraction = f".{round((time % 1) * 1e6):06d}" if time % 1 else ""
            execute(INSERT, (self.looks.created(int(self.looks.now - int(time))) + fraction, action, duration))
            assert ago >= 0
            self.expected[key] += 1
            self.sums[key] += duration
            self.written[key].add(time)
            self.unseen.add(time)
            self.fresh.discard(key)

    def times(self, oldest: int) -> list[float]:
        """Choose times of rows: several may be equal."""
        newest = self.looks.now
        pool: list[float] = [newest - self.dice.randint(0, oldest) for _ in range(2)]
        pool += [time - 0.25 for time in pool if time - 1 > newest - oldest]
        return [self.dice.choice(pool) for _ in range(self.dice.randint(1, 5))]

    def step(self) -> None:
        """Do one of what may happen."""
        looks, dice = self.looks, self.dice
        what = dice.random()
        if what < 0.3:
            with looks.table.session() as execute:
                self.insert(execute, self.times(10))
        elif what < 0.45:
            with looks.table.session() as execute:
                self.insert(execute, self.times(LATE - 3600))
        elif what < 0.55:
            with looks.table.session() as execute:
                execute("BEGIN")
                self.insert(execute, self.times(30))
                if looks.table.kind != "sqlite":  # there a reader would wait for it
                    self.look()
                execute("COMMIT")
            self.fresh.clear()
        elif what < 0.65 and self.fresh:
            action, minute = dice.choice(sorted(self.fresh))
            if self.written[action, minute] & self.unseen:
                return
            between = looks.created(looks.now - minute), looks.created(looks.now - minute - 60)
            looks.table.execute(
                "DELETE FROM audit_trail WHERE action = %s AND created_at >= %s AND created_at < %s", (action, *between)
            )
            self.closed.add((action, minute))
            self.deleted |= self.written[action, minute]
            self.fresh.discard((action, minute))
        elif what < 0.8:
            looks.now += dice.choice([1, 30, 61, 900])
        else:
            self.look()

    def look(self) -> None:
        """Look, or be killed in the middle of it."""
        looks, fuse = self.looks, [self.dice.randint(1, 120) if self.dice.random() < 0.5 else 0]
        observed = replace(looks.table.observe(self.job.query), time=looks.now)
        ends: list[Any] = [Fragile(end, fuse, is_late=self.dice.random() < 0.5) for end in (looks.table, looks.state)]
        source, ledger = ends
        try:
            for step in capture(self.job, observed, source=source, ledger=ledger, now=looks.now):
                assert not isinstance(step, Event) or step.event == "recount.limited", step
        except Crash:
            looks.state.close()
            looks.state = State(str(self.folder / "shipper.db"))
        else:
            young = looks.now - 50
            self.fresh |= {key for key in self.expected if key[1] > young and key not in self.closed}
            self.unseen = {time for time in self.unseen if int(time) // 60 * 60 <= young}

    def shown(self, measure: str) -> dict[tuple[str, int], int]:
        """Return the totals by action and minute."""
        rows = self.looks.state._connection.execute(TOTALS, (self.job.name,)).fetchall()
        parts = [(path.split("."), slot, value) for path, slot, value in rows]
        return {(names[1], slot): int(value) for names, slot, value in parts if names[2] == measure}


@pytest.mark.parametrize("seed", range(6))
def test_random_walks(looks: Looks, seed: int) -> None:
    """Whatever comes in between, each row is counted once.

    Mutants: ask for no old minutes; record minutes before totals.
    """
    walk = Walk(looks, seed)
    for _ in range(80):
        walk.step()
    settle(looks, walk.job, seconds=LATE + 1200)

    assert walk.shown("count") == dict(walk.expected)
    assert walk.shown("ms") == dict(walk.sums)


def test_names_that_come_later(looks: Looks) -> None:
    """A value whose name is committed after its row is counted once; what comes later has the name.

    Mutant: keep minutes by names.
    """
    looks.table.execute("CREATE TABLE codes (code VARCHAR(9), name VARCHAR(9))")
    looks.table.execute("INSERT INTO codes VALUES ('x', 'other')")
    names = Names("action", sql="SELECT code, name FROM codes")
    job = replace(EVENTS, query=replace(EVENTS.query, names=(names,)))
    put(looks, 30, 30, action="18")
    looks.look(job)
    looks.table.execute("INSERT INTO codes VALUES ('18', 'deleted')")
    looks.table._lookups._lookups.clear()  # as after a minute
    put(looks, 29, action="18")
    looks.look(job)

    assert looks.total(job) == 3
    assert looks.rejected(job) == {}


def test_changed_definition(looks: Looks) -> None:
    """A changed definition counts what comes after it, also in minutes that are counted, and nothing twice.

    Mutants: keep the minutes as they are; count again what is up to captured.
    """
    put(looks, 20, 20, 90)
    looks.look(EVENTS)
    other = replace(EVENTS, query=replace(EVENTS.query, measures=MEASURES))
    put(looks, 10)
    looks.look(other)
    put(looks, 20, 10, 90)
    looks.look(other)

    assert looks.slots(other) == {60: 5, 120: 2}
    assert looks.slots(other, "ms") == {60: 15, 120: 5}


def test_change_that_is_taken_back(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that cannot start, and is taken back, doubles no row. Mutant: leave the job's definition as it is."""
    monkeypatch.setattr(along_minutes, "MOST_LABELS", 4)
    put(looks, 250, 310, 311)
    for number in range(3):
        put(looks, 60, action=f"action{number}")
    looks.look(EVENTS)
    looks.table.execute("UPDATE audit_trail SET outcome = action")
    other = replace(EVENTS, query=replace(EVENTS.query, by=("action", "outcome")))
    with pytest.raises(QueryRefused, match="more than 2 groups in the minute "):
        looks.look(other)
    looks.look(EVENTS)
    put(looks, 313)
    looks.look(EVENTS)

    assert looks.slots(EVENTS) == {360: 3, 300: 1, 60: 3}


def test_change_beside_rows_ahead(looks: Looks) -> None:
    """Rows ahead of the clock that are counted count once, whatever changes. Mutant: change minutes up to captured."""
    looks.now = int(datetime.now(UTC).timestamp())
    put(looks, 60, -200)
    looks.look(EVENTS)
    other = replace(EVENTS, query=replace(EVENTS.query, measures=MEASURES))
    looks.look(other)
    put(looks, -200)
    looks.look(other)

    assert (looks.total(other), looks.total(other, "ms")) == (3, 5)


def test_change_beside_rows_that_are_gone(looks: Looks) -> None:
    """A changed definition also changes minutes without rows. Mutant: change those that have rows."""
    put(looks, 900, 30)
    looks.look(EVENTS)
    looks.table.execute("DELETE FROM audit_trail WHERE created_at < %s", (looks.created(800),))
    other = replace(EVENTS, query=replace(EVENTS.query, measures=MEASURES))
    looks.look(other)
    put(looks, 900)
    settle(looks, other)

    assert (looks.total(other), looks.total(other, "ms")) == (3, 5)


def test_change_beside_rows_that_are_replaced(looks: Looks) -> None:
    """A row that comes before a change, in a minute that lost rows, may be hidden by them, and that is told.

    Mutant: compare only the number of rows with those before.
    """
    put(looks, 39, 39)
    looks.look(EVENTS)
    looks.table.execute("DELETE FROM audit_trail")
    put(looks, 29, action="other")
    other = replace(EVENTS, query=replace(EVENTS.query, measures=MEASURES))

    assert looks.look(other) == [Event("recount.limited", {"span": Span(NOW - 60, NOW), "slots": 1}, "warning")]
    assert looks.total(other) == 2


def test_backfill_beside_captures(looks: Looks) -> None:
    """A backfill counts rows that no look has seen yet; the next look does not add them again.

    Mutant: leave the minutes of a backfill as they are.
    """
    put(looks, 30, 30, 4000, 4000)
    looks.look(EVENTS)
    put(looks, 30, 29, 4000, 0)
    count_again(looks)
    assert looks.total(EVENTS) == 7
    looks.look(EVENTS)
    settle(looks, EVENTS)

    assert looks.total(EVENTS) == 8


def test_backfill_beside_rows_that_return(looks: Looks) -> None:
    """Rows that are gone during a backfill are counted when they return. Mutant: leave the checksum as it is."""
    put(looks, 1300, 1300, 30)
    looks.look(EVENTS)
    settle(looks, EVENTS, seconds=600)
    looks.table.execute("CREATE TABLE copy AS SELECT * FROM audit_trail")
    looks.table.execute("DELETE FROM audit_trail WHERE created_at < %s", (looks.created(1000),))
    count_again(looks)
    assert looks.total(EVENTS) == 1
    looks.table.execute("INSERT INTO audit_trail SELECT * FROM copy WHERE created_at < %s", (looks.created(1000),))
    settle(looks, EVENTS)

    assert looks.total(EVENTS) == 3


def count_again(looks: Looks) -> None:
    """Backfill the last two hours."""
    context = Context(EVENTS, looks.table, looks.state, Now(looks.now))
    progress, horizon = looks.state.progress(EVENTS.name), looks.table.observe(EVENTS.query)
    assert progress is not None
    list(backfill(context, Span(NOW - 7200, NOW), [], replace(horizon, time=looks.now), progress))


def test_backfill_of_many_groups(looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill keeps in memory only minutes that differ from the state, and has a limit for these.

    Mutants: keep all; no limit; a part ends, and the rest is left out.
    """
    monkeypatch.setattr(along_minutes, "MOST_LABELS", 4)
    monkeypatch.setattr(along_minutes, "MOST_CHANGED", 4)
    for number in range(9):
        put(looks, 210 - 60 * (number // 3), action=f"action{number}")
    looks.look(EVENTS)
    assert looks.total(EVENTS) == 9
    put(looks, 210, action="new")
    count_again(looks)
    assert looks.total(EVENTS) == 10

    put(looks, 150, action="newer")
    put(looks, 90, action="newest")
    with pytest.raises(QueryRefused, match="more than 4 groups in the minutes that changed"):
        count_again(looks)
    looks.look(EVENTS)
    assert looks.total(EVENTS) == 12


def test_seek_skips_rows(looks: Looks) -> None:
    """A job that skips rows begins with the whole bucket of a time, and counts no row before it."""
    put(looks, 7200)
    looks.look(EVENTS)
    looks.now += 7200
    put(looks, 3600, 3600, 1800, 1700)
    progress, horizon = looks.state.progress(EVENTS.name), replace(looks.table.observe(EVENTS.query), time=looks.now)
    assert progress is not None
    target = by_time(EVENTS, looks.now - 1750, progress, horizon, source=looks.table, now=looks.now)
    position = position_behind(EVENTS, target.captured, source=looks.table, before=looks.state.position(EVENTS.name))
    looks.state.seek(EVENTS.name, target, position)
    looks.look(EVENTS)
    put(looks, 3600, 1700)
    settle(looks, EVENTS, seconds=LATE)

    assert looks.slots(EVENTS) == {7200: 1, -5400: 1, -5460: 2}
    after = looks.state.progress(EVENTS.name)
    assert after is not None
    assert after.recount_from is None


@pytest.mark.parametrize("late", [600, LATE])
def test_an_hour_that_repeats(looks: Looks, late: int) -> None:
    """Rows of a local time that is given twice are all counted, as of its first occurrence. Mutant: keep no longer."""
    query = replace(EVENTS.query, time_zone="Europe/Berlin", bucket=3600)
    job = replace(NEW, query=query, late=late)
    first = int(datetime(2026, 10, 24, 23, 30, tzinfo=UTC).timestamp())
    for looks.now in range(first, first + 3 * 3600, 300):
        local = datetime.fromtimestamp(looks.now, ZoneInfo("Europe/Berlin"))
        looks.table.execute(INSERT, (f"{local:%Y-%m-%d %H:%M:%S}", "login", 5))
        looks.look(job)
    settle(looks, job, seconds=1200)

    hour = NOW - first // 3600 * 3600
    assert looks.slots(job) == {hour: 6, hour - 3600: 24, hour - 2 * 3600 - 3600: 6}


def test_lookback_in_an_hour_that_repeats(looks: Looks) -> None:
    """Within lookback values follow the table also while a local time is given again. Mutant: fall from its start."""
    job = replace(NEW, query=replace(NEW.query, time_zone="Europe/Berlin"), lookback=900)
    begun = int(datetime(2026, 10, 24, 22, 0, tzinfo=UTC).timestamp())
    for looks.now in (begun, begun + 175 * 60, begun + 190 * 60):  # the last two are 02:55 and 02:10
        looks.look(job)
    local = datetime.fromtimestamp(looks.now, ZoneInfo("Europe/Berlin"))
    looks.table.execute(INSERT, (f"{local:%Y-%m-%d %H:%M:%S}", "login", 5))
    looks.look(job)
    looks.table.execute("UPDATE audit_trail SET action = 'other'")
    looks.now += 60
    looks.look(job)

    rows = looks.state._connection.execute("SELECT path, value FROM total JOIN series ON series.id = series")
    assert dict(rows.fetchall()) == {"events.login.count": 0, "events.other.count": 1}
