"""Housekeeping with totals that are not proven yet: prune, rename, forget, another Carbon."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import NOW, begin, done, job

from shipper.core.delivery.outbox import Replay
from shipper.core.ledger import Name, Total
from shipper.core.measures import COUNT
from shipper.core.model import Key, Span, Window
from shipper.state.store import State

HOUR = 3600
START = NOW // HOUR * HOUR
PATH = "events.a.count"
OTHER = "others.a.count"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """Yield a state with two jobs that have begun."""
    with State(str(tmp_path / "shipper.db")) as state:
        for name in ("events", "others"):
            begin(state, job(name))
        yield state


def put(state: State, *slots: int, path: str = PATH, step: int = 60, is_due: bool = True) -> None:
    """Record a total in each of these slots, as if long ago."""
    name = path.partition(".")[0]
    progress = state.progress(name)
    assert progress is not None
    window = Window(progress.captured, progress.captured + 1)
    with state.recording(name, window) as recording:
        recording.claim([Name(path, ("a",), COUNT)])
        recording.put([Total(Key(path, slot, step), 1, is_due=is_due) for slot in slots])
        recording.write(done(state, window, name))
    state._connection.execute("UPDATE slot SET changed = 0")


def prove(state: State) -> None:
    """Mark all changed totals as proven."""
    state.outbox.prove(after=0, upto=state.revision)


def totals(state: State, path: str = PATH) -> dict[int, int]:
    """Return by slot whether a total is proven (0), pending (1) or deferred (2)."""
    query = "SELECT slot, changed FROM total JOIN series ON series.id = series WHERE path = ?"
    return dict(state._connection.execute(query, (path,)).fetchall())


@pytest.mark.parametrize(
    ("changed", "end", "pruned"),
    [
        (-1, 0, 1),
        (0, 0, 0),  # changed exactly at that time
        (1, 0, 0),
        (-1, -1, 1),
        (-1, 1, 0),  # its hour ends a second after that time
        (-HOUR, 1, 0),
        (-HOUR, HOUR, 0),
    ],
)
def test_prune_by_the_second(state: State, changed: int, end: int, pruned: int) -> None:
    """An hour is pruned if it ends at or before a time, and its last change was before that time.

    Mutants: prune an hour that ends later; one that was changed at that time.
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
        (START, False, PATH, 0),  # deferred: it was never sent
        (START + HOUR - 60, False, PATH, 0),
        (START - 60, True, PATH, 1),
        (START + HOUR, True, PATH, 1),
        (START + HOUR, False, PATH, 1),
        (START, True, OTHER, 1),
    ],
)
def test_prune_keeps_unproven(state: State, slot: int, is_due: bool, path: str, pruned: int) -> None:  # noqa: FBT001 - a table
    """An hour with a pending or deferred total of the job is not pruned.

    Mutants: look at pending totals only; at those of any job; at those of the next hour.
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
    """Totals and slots of another job stay. Mutant: prune all jobs."""
    put(state, START, START + HOUR)
    put(state, START, START + HOUR, path=OTHER)
    prove(state)

    assert state.housekeeping.prune("events", unit=HOUR, before=START + HOUR) == 1
    assert (list(totals(state)), list(totals(state, OTHER))) == ([START + HOUR], [START, START + HOUR])
    assert [slot.slot for slot in state.slots("events")] == [START + HOUR]
    assert [slot.slot for slot in state.slots("others")] == [START, START + HOUR]
    assert state.pruned("others") == []


PENDING = {
    "audit": "(job, at, requested, compared, different, missing, surplus) VALUES ('events', 7, 9, 9, 0, 0, 0)",
    "counted": "(job, start, words) VALUES ('events', '1', x'00')",
    "history": "(job, value, committed, datapoints) VALUES ('events', '1', '', 0)",
    "identity": "(job, server, rows, went_back) VALUES ('events', 'one', '[]', 1)",
    "late": "(job, slot, words) VALUES ('events', 0, x'00')",
    "minute": "(job, start, rows, checksum, held) VALUES ('events', 0, 1, '1', '[]')",
    "pruned": "(job, start, end) VALUES ('events', 0, 60)",
    "settled": "(job, after, upto, rows, at) VALUES ('events', '0', '1', 1, 0)",
    "rejected": "(job, reason, rows) VALUES ('events', 'no_time', 3)",
    "pause": "(job, since) VALUES ('events', 7)",
    "rejected_in": "(job, reason, bucket, after, rows) VALUES ('events', 'no_time', -1, '0', 3)",
}
"""A row for each table that may have rows of a job, besides its totals and offsets."""


def work(state: State) -> None:
    """Give the job rows in every table, and totals that are proven, pending and deferred."""
    put(state, START)
    prove(state)
    put(state, START + 60)
    put(state, START, step=HOUR, is_due=False)
    for table, row in PENDING.items():
        state._connection.execute(f"INSERT INTO {table} {row}")


def rows_of(connection: sqlite3.Connection, name: str) -> dict[str, list[Any]]:
    """Return the rows of a job, without its name, of each table with a column `job`."""
    tables = [table for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    rows = {}
    for table in sorted(tables):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if "job" in columns:
            others = ", ".join(f'"{column}"' for column in columns if column != "job")
            rows[table] = connection.execute(f"SELECT {others} FROM {table} WHERE job = ?", (name,)).fetchall()
    return rows


@pytest.mark.parametrize("is_twin", [True, False])
def test_rename_with_unproven_totals(state: State, is_twin: bool) -> None:  # noqa: FBT001 - a table
    """A rename takes along all rows of a job, and unproven totals. Mutants: leave any one of the tables out."""
    work(state)
    before = rows_of(state._connection, "events")
    assert all(before.values()), "each table with a column `job` has a row of it"
    if is_twin:
        named = job("logins", template=job().template)
        assert state.housekeeping.rename(named, ["logins", "others"]) == "events"
    else:
        state.housekeeping.move("events", "logins")

    assert rows_of(state._connection, "logins") == before
    assert not any(rows_of(state._connection, "events").values())
    assert state._connection.execute("SELECT changed FROM total ORDER BY changed").fetchall() == [(0,), (1,), (2,)]
    assert {waiting.job for waiting in state.outbox.pending(0).waiting} == {"logins"}
    assert state.outbox.pending(0).deferred == {"logins"}


def test_move_replaces_the_other_job(state: State) -> None:
    """A move deletes the rows of the other name, and the backfill settings of both. Mutants: keep either."""
    put(state, START, path=OTHER)
    work(state)
    before = rows_of(state._connection, "events")
    for name in ("backfill events", "backfill others", "backfill eventsource"):
        state.remember(name, "far")
    state.housekeeping.move("events", "others")

    assert rows_of(state._connection, "others") == before
    assert totals(state, OTHER) == {}
    assert [state.recall(f"backfill {name}") for name in ("events", "others", "eventsource")] == [None, None, "far"]


@pytest.mark.parametrize("is_twin", [True, False])
@pytest.mark.parametrize("paused", [("events",), ("logins",), ("events", "logins")])
def test_rename_of_a_paused_job(state: State, paused: tuple[str, ...], is_twin: bool) -> None:  # noqa: FBT001 - a table
    """A job stays paused if either name was, in the file and in memory. Mutants: forget either; no load_pauses."""
    state.pause(paused, since=7)
    if is_twin:
        state.housekeeping.rename(job("logins", template=job().template), ["logins", "others"])
    else:
        state.housekeeping.move("events", "logins")

    assert state.pauses == {"logins": 7}
    state.housekeeping.forget("logins")
    assert state.pauses == {}


def test_forget_with_unproven_totals(state: State) -> None:
    """A forgotten job leaves no rows; other jobs keep theirs. Mutants: leave any one of the tables out; its totals."""
    work(state)
    put(state, START, path=OTHER)
    others = rows_of(state._connection, "others")
    state.housekeeping.forget("events")

    assert not any(rows_of(state._connection, "events").values())
    assert state._connection.execute("SELECT COUNT(*) FROM total").fetchone() == (1,)
    assert rows_of(state._connection, "others") == others
    assert (state.outbox.pending(0).deferred, [waiting.job for waiting in state.outbox.pending(0).waiting]) == (
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
    """Another Carbon gets all totals again, as new series; deferred totals stay deferred.

    Mutants: release deferred totals; take series for made; keep replays; send all again to the same Carbon.
    """
    put(state, START)
    prove(state)
    put(state, START + 60)
    put(state, START + 120, is_due=False)
    state.outbox.keep_replays([Replay(0, 9, 0, 1000, 1060)])
    first, *others = carbons
    assert not state.outbox.retarget(first)
    changes = [state.outbox.retarget(carbon) for carbon in others]

    assert changes == [carbon != before for before, carbon in zip(carbons, others, strict=False)]
    assert totals(state) == changed
    assert state.outbox.count_new(0, state.revision) == new
    assert len(state.outbox.take_replays()) == sent


def test_deferred_totals_of_another_carbon(state: State) -> None:
    """Deferred totals are released to the new Carbon once their archive may receive them."""
    put(state, START, is_due=False)
    state.outbox.retarget("one")
    state.outbox.retarget("two")
    assert state.outbox.pending(0).waiting == []
    state.outbox.release({60: Span(0, START + 1)})

    assert [(one.slot, one.totals) for one in state.outbox.pending(0).waiting] == [(START, 1)]
    assert state.outbox.pending(0).deferred == frozenset()


def test_slots_that_were_merged_go_again(state: State) -> None:
    """A slot that another process may have sent late goes again, or the coarser one into which it was merged.

    Mutant: look for totals of its own step alone.
    """
    with state.writing("insert") as connection:
        connection.execute(
            "INSERT INTO series (id, path, job, \"group\", measure, kind) VALUES (1, 'a', 'events', '[]', 'n', 'count')"
        )
        connection.execute(
            "INSERT INTO total VALUES (0, 3600, 1, 5, 3, 0), (3600, 3600, 1, 5, 3, 2), (7200, 3600, 1, 5, 3, 0), "
            "(7260, 60, 1, 5, 3, 0), (7320, 60, 1, 5, 3, 0), (10800, 3600, 1, 5, 3, 0)"
        )
    state.outbox.send_again([60, 3660, 7260])

    with state.reading("read") as connection:
        rows = connection.execute("SELECT slot, step, changed FROM total ORDER BY slot, step").fetchall()
    assert [row[:2] for row in rows if row[2] == 1] == [(0, 3600), (7200, 3600), (7260, 60)]
    assert [row[:2] for row in rows if row[2] == 2] == [(3600, 3600)]
