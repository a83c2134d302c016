"""The state in transition: pruned, renamed, forgotten, pointed at another Carbon, while work waits in it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, begin, done, job

from shipper.core.ledger import Name, Total
from shipper.core.measures import COUNT
from shipper.core.model import Key, Replay, Span, Window
from shipper.state.store import State

HOUR = 3600
START = NOW // HOUR * HOUR
PATH = "events.a.count"
OTHER = "others.a.count"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """Give a state with two jobs that have begun."""
    with State(str(tmp_path / "shipper.db")) as state:
        for name in ("events", "others"):
            begin(state, job(name))
        yield state


def put(state: State, *slots: int, path: str = PATH, step: int = 60, is_due: bool = True) -> None:
    """Record a total in each of these slots, as if its record had been long ago."""
    name = path.partition(".")[0]
    found = state.progress(name)
    assert found is not None
    window = Window(found.captured, found.captured + 1)
    with state.recording(name, window) as recording:
        recording.claim([Name(path, ("a",), COUNT)])
        recording.put([Total(Key(path, slot, step), 1, is_due=is_due) for slot in slots])
        recording.write(done(state, window, name))
    state._connection.execute("UPDATE slot SET changed = 0")


def prove(state: State) -> None:
    """Take what is changed for proven."""
    state.outbox.prove(after=0, upto=state.revision)


def totals(state: State, path: str = PATH) -> dict[int, int]:
    """Return by slot whether a total is proven (0), changed (1) or deferred (2)."""
    query = "SELECT slot, changed FROM total JOIN series ON series.id = series WHERE path = ?"
    return dict(state._connection.execute(query, (path,)).fetchall())


@pytest.mark.parametrize(
    ("changed", "end", "pruned"),
    [
        (-1, 0, 1),
        (0, 0, 0),  # it was changed just at that time
        (1, 0, 0),
        (-1, -1, 1),
        (-1, 1, 0),  # its hour ends a second after that time
        (-HOUR, 1, 0),
        (-HOUR, HOUR, 0),
    ],
)
def test_prune_by_the_second(state: State, changed: int, end: int, pruned: int) -> None:
    """An hour is forgotten that has ended by a time, and was changed last before it.

    Mutants: an hour that ends later; one that was changed at that time.
    """
    before = START + HOUR - end
    put(state, START, START + 1800)
    prove(state)
    state._connection.execute("UPDATE slot SET changed = ? WHERE slot = ?", (before + changed, START))

    assert state.housekeeping.prune("events", unit=HOUR, before=before) == pruned
    assert len(totals(state)) == (0 if pruned else 2)
    assert state.pruned("events") == ([Span(START, START + HOUR)] if pruned else [])


@pytest.mark.parametrize(
    ("slot", "is_due", "path", "pruned"),
    [
        (START, True, PATH, 0),
        (START + HOUR - 60, True, PATH, 0),
        (START, False, PATH, 0),  # deferred: it has never left
        (START + HOUR - 60, False, PATH, 0),
        (START - 60, True, PATH, 1),
        (START + HOUR, True, PATH, 1),
        (START + HOUR, False, PATH, 1),
        (START, True, OTHER, 1),
    ],
)
def test_prune_what_waits(state: State, slot: int, is_due: bool, path: str, pruned: int) -> None:  # noqa: FBT001 - a table
    """An hour in which a total of the job waits is kept, whatever it waits for.

    Mutants: changed totals only; those of any job; those of the next hour.
    """
    put(state, START + 120)
    prove(state)
    put(state, slot, path=path, is_due=is_due)
    state._connection.execute("UPDATE slot SET changed = ? WHERE slot = ?", (START + 9 * HOUR, slot))
    state._connection.execute("UPDATE slot SET changed = 0 WHERE slot BETWEEN ? AND ?", (START, START + HOUR - 1))

    assert state.housekeeping.prune("events", unit=HOUR, before=START + 9 * HOUR) == pruned
    assert (START + 120 in totals(state)) is (pruned == 0)
    assert totals(state, path)[slot] == (1 if is_due else 2)


def test_prune_one_job(state: State) -> None:
    """Totals and slots of another job stay. Mutant: forget all of that time."""
    put(state, START, START + HOUR)
    put(state, START, START + HOUR, path=OTHER)
    prove(state)

    assert state.housekeeping.prune("events", unit=HOUR, before=START + HOUR) == 1
    assert (list(totals(state)), list(totals(state, OTHER))) == ([START + HOUR], [START, START + HOUR])
    assert [slot.slot for slot in state.slots("events")] == [START + HOUR]
    assert [slot.slot for slot in state.slots("others")] == [START, START + HOUR]
    assert state.pruned("others") == []


PENDING = {
    "counted": "(job, start, words) VALUES ('events', '1', x'00')",
    "history": "(job, value, committed, datapoints) VALUES ('events', '1', '', 0)",
    "identity": "(job, server, rows, went_back) VALUES ('events', 'one', '[]', 1)",
    "late": "(job, slot, words) VALUES ('events', 0, x'00')",
    "pruned": "(job, start, end) VALUES ('events', 0, 60)",
    "settled": "(job, after, upto, rows, at) VALUES ('events', '0', '1', 1, 0)",
    "rejected": "(job, reason, rows) VALUES ('events', 'no_time', 3)",
    "rejected_in": "(job, reason, bucket, after, rows) VALUES ('events', 'no_time', -1, '0', 3)",
}
"""What a job may leave behind, beside totals and where it stands."""


def work(state: State) -> None:
    """Let the job have something in every table: totals that are proven, changed, and deferred."""
    put(state, START)
    prove(state)
    put(state, START + 60)
    put(state, START, step=HOUR, is_due=False)
    for table, row in PENDING.items():
        state._connection.execute(f"INSERT INTO {table} {row}")


def rows_of(connection: sqlite3.Connection, name: str) -> dict[str, list[Any]]:
    """Return what each table that knows jobs has of one, without its name."""
    tables = [table for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    found = {}
    for table in sorted(tables):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if "job" in columns:
            others = ", ".join(f'"{column}"' for column in columns if column != "job")
            found[table] = connection.execute(f"SELECT {others} FROM {table} WHERE job = ?", (name,)).fetchall()
    return found


@pytest.mark.parametrize("is_twin", [True, False])
def test_rename_with_work_that_waits(state: State, is_twin: bool) -> None:  # noqa: FBT001 - a table
    """All that a job has goes with it, whatever waits in it. Mutants: leave any one of the tables out."""
    work(state)
    before = rows_of(state._connection, "events")
    assert all(before.values()), "each table that knows jobs has something of it"
    if is_twin:
        named = job("logins", template=job().template)
        assert state.housekeeping.rename(named, ["logins", "others"]) == "events"
    else:
        state.housekeeping.move("events", "logins")

    assert rows_of(state._connection, "logins") == before
    assert not any(rows_of(state._connection, "events").values())
    assert state._connection.execute("SELECT changed FROM total ORDER BY changed").fetchall() == [(0,), (1,), (2,)]
    assert {waiting.job for waiting in state.outbox.note(0).waiting} == {"logins"}
    assert state.outbox.note(0).deferred == {"logins"}


def test_move_takes_the_place(state: State) -> None:
    """What the other name had is gone, and the job's notes of operations with it. Mutant: both."""
    put(state, START, path=OTHER)
    work(state)
    before = rows_of(state._connection, "events")
    for name in ("backfill events", "backfill others", "backfill eventsource"):
        state.remember(name, "far")
    state.housekeeping.move("events", "others")

    assert rows_of(state._connection, "others") == before
    assert totals(state, OTHER) == {}
    assert [state.recall(f"backfill {name}") for name in ("events", "others", "eventsource")] == [None, None, "far"]


def test_forget_with_work_that_waits(state: State) -> None:
    """Nothing of a job is left, and all of the others. Mutants: leave any one of the tables out; its totals."""
    work(state)
    put(state, START, path=OTHER)
    others = rows_of(state._connection, "others")
    state.housekeeping.forget("events")

    assert not any(rows_of(state._connection, "events").values())
    assert state._connection.execute("SELECT COUNT(*) FROM total").fetchone() == (1,)
    assert rows_of(state._connection, "others") == others
    assert (state.outbox.note(0).deferred, [waiting.job for waiting in state.outbox.note(0).waiting]) == (
        frozenset(),
        ["others"],
    )


@pytest.mark.parametrize(
    ("carbons", "changed", "new", "sent"),
    [
        (("one",), {START: 0, START + 60: 1, START + 120: 2}, 0, 1),
        (("one", "one"), {START: 0, START + 60: 1, START + 120: 2}, 0, 1),
        (("one", "two"), {START: 1, START + 60: 1, START + 120: 2}, 1, 0),
        (("one", "two", "one"), {START: 1, START + 60: 1, START + 120: 2}, 1, 0),
    ],
)
def test_another_carbon(state: State, carbons: tuple[str, ...], changed: dict[int, int], new: int, sent: int) -> None:
    """Another Carbon has none of the totals and none of the series; what is deferred waits on.

    Mutants: let deferred totals out; take series for made; keep what was sent; ask for all again by the same Carbon.
    """
    put(state, START)
    prove(state)
    put(state, START + 60)
    put(state, START + 120, is_due=False)
    state.outbox.keep_replays([Replay(0, 9, 0, 1000, 1060)])
    first, *others = carbons
    assert not state.outbox.retarget(first)
    found = [state.outbox.retarget(carbon) for carbon in others]

    assert found == [carbon != before for before, carbon in zip(carbons, others, strict=False)]
    assert totals(state) == changed
    assert state.outbox.count_new(0, state.revision) == new
    assert len(state.outbox.take_replays()) == sent


def test_parked_totals_of_another_carbon(state: State) -> None:
    """What was deferred goes out when its archive may receive it, to the new Carbon, once."""
    put(state, START, is_due=False)
    state.outbox.retarget("one")
    state.outbox.retarget("two")
    assert state.outbox.note(0).waiting == []
    state.outbox.release([(60, START)])

    assert [(one.slot, one.totals) for one in state.outbox.note(0).waiting] == [(START, 1)]
    assert state.outbox.note(0).deferred == frozenset()
