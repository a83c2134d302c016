"""Distinct values on real databases: beside late rows, open transactions, purges and restarts.

The judge is the database's own COUNT(DISTINCT ...) on each slot. The number of rows is compared at every step.
"""

import random
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from builders import NOW
from looks import TOTALS, Looks, wanted
from shipping import Crash, Fragile
from tables import DATABASES, on

from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Job, Names
from shipper.state.store import State

USERS = Measure("users", Kind.DISTINCT, "outcome")
EVENTS = wanted(measures=(COUNT, USERS), bucket=60)
HOURS = replace(EVENTS, name="hours", query=replace(EVENTS.query, bucket=3600), template="hours.{action}.{measure}")
ACTIONS = ("login", "Login", "logout")
NAMES = ("ann", "Ann", "bob", "cy", "", None)
BYTES = {"mariadb": "CAST({} AS BINARY)", "mysql": "CAST({} AS BINARY)", "postgresql": "{}", "sqlite": "{}"}
EPOCH = {
    "mariadb": "TO_SECONDS(created_at) - 62167219200",
    "mysql": "TO_SECONDS(created_at) - 62167219200",
    "postgresql": "CAST(FLOOR(EXTRACT(EPOCH FROM created_at)) AS BIGINT)",
    "sqlite": "unixepoch(created_at)",
}
CANNOT = {
    "mariadb": "IF(action = 'bad', 18446744073709551615 + id, 0) = 0",
    "mysql": "IF(action = 'bad', 18446744073709551615 + id, 0) = 0",
    "postgresql": "CASE WHEN action = 'bad' THEN CAST(action AS integer) ELSE 0 END = 0",
    "sqlite": "CASE WHEN action = 'bad' THEN json_extract(action, '$.a') ELSE 0 END = 0",
}
"""A condition that fails with a row."""
INSERT = "INSERT INTO audit_trail (id, created_at, action, outcome) VALUES (%s, %s, %s, %s)"


@pytest.fixture(params=DATABASES)
def looks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Looks]:
    """Give an empty table on each kind of database, at which nobody has looked yet."""
    with closing(on(request.param, request, tmp_path)) as table, closing(Looks(table, tmp_path)) as made:
        yield made


def judged(looks: Looks, job: Job) -> dict[str, int]:
    """Return rows and distinct values of each group and slot, as the database counts them."""
    kind, length = looks.table.kind, job.query.bucket
    epoch, column, user = EPOCH[kind], *(BYTES[kind].format(name) for name in ("action", "outcome"))
    statement = f"""
        SELECT MIN(action), ({epoch}) - ({epoch}) % {length}, COUNT(*), COUNT(DISTINCT {user})
        FROM audit_trail GROUP BY {column}, ({epoch}) - ({epoch}) % {length}"""
    counts: dict[str, int] = {}
    for action, slot, rows, users in looks.table.execute(statement):
        counts |= {f"{job.name}.{action}.count {slot}": rows}
        counts |= {f"{job.name}.{action}.users {slot}": users} if users else {}
    return counts


def shown(looks: Looks, job: Job) -> dict[str, int]:
    """Return a job's totals other than 0."""
    rows = looks.state._connection.execute(TOTALS, (job.name,))
    return {f"{path} {slot}": int(value) for path, slot, value in rows}


def restart(looks: Looks) -> None:
    """Start again, as after a kill."""
    path = looks.state.path
    looks.state.close()
    looks.state = State(path)


def rows_of(counts: dict[str, int]) -> dict[str, int]:
    """Return the numbers of rows alone."""
    return {key: value for key, value in counts.items() if ".count " in key}


@pytest.mark.parametrize("seed", range(3))
def test_any_order(looks: Looks, seed: int) -> None:
    """Rows in any order of ids, times and commits, with crashes at any statement: all slots are as the database counts.

    Mutants: add up the values of windows; fold by the collation; note in memory what a slot lacks.
    """
    dice, jobs = random.Random(seed), (replace(EVENTS, chunk=7), HOURS)
    pending = list(range(1, 121))
    looks.look(*jobs)
    while pending:
        ahead = pending[:12]
        # a late row comes within a minute, while its id is asked for at each look
        ids = list({ahead[0], *dice.sample(ahead, min(len(ahead), dice.randint(1, 5)))})
        pending = [one for one in pending if one not in ids]
        with looks.table.in_flight() as execute:
            for one in ids:
                created = looks.created(dice.choice([0, 5, 61, 300, 4000]))
                execute(INSERT, (one, created, dice.choice(ACTIONS), dice.choice(NAMES)))
            if dice.random() < 0.4 and looks.table.kind != "sqlite":
                looks.look(*jobs)  # beside the open transaction
            execute("COMMIT")
        if dice.random() < 0.3:
            left = [dice.randint(1, 30)]
            state, looks.state = looks.state, Fragile(looks.state, left, is_late=dice.random() < 0.5)  # type: ignore[assignment]
            with suppress(Crash):
                looks.look(*jobs)
            looks.state = state
            restart(looks)
        else:
            looks.look(*jobs)
            for job in jobs:
                assert rows_of(shown(looks, job)) == rows_of(judged(looks, job))
        looks.now += dice.choice([1, 2, 4])
    for _ in range(3):
        looks.now += 60
        looks.look(*jobs)

    for job in jobs:
        assert shown(looks, job) == judged(looks, job)
        assert looks.state.lacking(job.name) == []


def test_overlapping_transactions(looks: Looks) -> None:
    """A user of a transaction that commits late is added to its slot once, and not if the slot has him already.

    Mutant: add the late row's values.
    """
    with looks.table.session() as execute:
        if looks.table.kind != "sqlite":  # there it would keep all others from writing
            execute("BEGIN")
            for identity, name in ((1, "ann"), (2, "bob")):
                execute(INSERT, (identity, looks.created(), "login", name))
        for identity, name in ((3, "ann"), (4, "cy")):
            looks.table.execute(INSERT, (identity, looks.created(), "login", name))
        looks.look(EVENTS)
        assert looks.slots(EVENTS, "users") == {0: 2}
        if looks.table.kind == "sqlite":
            for identity, name in ((1, "ann"), (2, "bob")):
                execute(INSERT, (identity, looks.created(), "login", name))
        else:
            execute("COMMIT")
    looks.now += 5
    looks.look(EVENTS)

    assert looks.slots(EVENTS, "users") == {0: 3}
    assert looks.slots(EVENTS) == {0: 4}


def test_purge(looks: Looks) -> None:
    """A slot of which rows were purged keeps its value, and its rows go on being counted: 5 users are not 1.

    Mutant: no gate.
    """
    for identity, name in enumerate("abcde", 1):
        looks.table.execute(INSERT, (identity, looks.created(), "login", name))
    looks.look(EVENTS)
    looks.table.execute("DELETE FROM audit_trail WHERE id < 5")
    looks.table.execute(INSERT, (6, looks.created(), "login", "f"))
    looks.now += 10
    noticed = looks.look(EVENTS)

    assert [one.event for one in noticed] == ["recount.limited"]
    assert looks.slots(EVENTS, "users") == {0: 5}
    assert looks.slots(EVENTS) == {0: 6}
    looks.now += 60
    looks.table.execute(INSERT, (7, looks.created(), "login", "f"))
    assert looks.look(EVENTS) == []
    assert looks.slots(EVENTS, "users") == {0: 5, -60: 1}


def test_time_zone(looks: Looks) -> None:
    """With a zone of half hours a bucket is that of UTC, and each of its users counts once.

    Mutant: add up the parts of a bucket by which other measures are grouped.
    """
    job = replace(HOURS, query=replace(HOURS.query, time_zone="Asia/Kolkata"))
    looks.now -= looks.now % 3600
    for identity, minutes in enumerate((5, 20, 35, 50), 1):
        created = looks.created(3600 - minutes * 60 - 19800)  # by the clock there
        looks.table.execute(INSERT, (identity, created, "login", "ann"))
    looks.look(job)

    (slot,) = looks.slots(job)
    assert looks.slots(job) == {slot: 4}
    assert looks.slots(job, "users") == {slot: 1}


def test_groups_of_one_name(looks: Looks) -> None:
    """Values with the same name are one group, in which each user counts once. Mutants: add them up; take the most."""
    names = (Names("action", (("Login", "in"), ("login", "in"), ("logout", "out"))),)
    job = replace(EVENTS, query=replace(EVENTS.query, names=names))
    rows = [("login", "ann"), ("Login", "ann"), ("Login", "bob"), ("login", "cy"), ("logout", "ann"), (None, "ann")]
    for identity, (action, name) in enumerate(rows, 1):
        looks.table.execute(INSERT, (identity, looks.created(), action, name))
    looks.look(job)

    expected = {"in.count": 4, "in.users": 3, "out.count": 1, "out.users": 1, "none.count": 1, "none.users": 1}
    assert shown(looks, job) == {f"events.{path} {NOW}": value for path, value in expected.items()}


def test_row_that_cannot_be_read(looks: Looks) -> None:
    """A row with which the query fails is left out of distinct values, too, also after a restart that forgot it.

    Mutants: let the statement fail; leave out the window of the row.
    """
    job = replace(EVENTS, query=replace(EVENTS.query, where_sql=CANNOT[looks.table.kind]))
    for identity, action, name in ((1, "login", "ann"), (2, "bad", "bob"), (3, "login", "cy"), (4, "login", "ann")):
        looks.table.execute(INSERT, (identity, looks.created(), action, name))
    looks.look(job)
    assert (looks.slots(job), looks.slots(job, "users")) == ({0: 3}, {0: 2})
    looks.table._aside.clear()
    looks.table.execute(INSERT, (5, looks.created(), "login", "dan"))
    looks.now += 5
    looks.look(job)

    assert (looks.slots(job), looks.slots(job, "users")) == ({0: 4}, {0: 3})
    assert looks.rejected(job) == {"unreadable": 1}


def test_table_that_was_rewritten(looks: Looks) -> None:
    """A table that is emptied while distinct values are read lowers nothing. Mutant: look for rows before reading."""
    for identity, name in enumerate("abc", 1):
        looks.table.execute(INSERT, (identity, looks.created(), "login", name))
    looks.look(EVENTS)
    looks.table.execute(INSERT, (4, looks.created(), "login", "d"))
    looks.now += 5
    read = looks.table.read_undivided

    def emptied(*arguments: object) -> object:
        looks.table.execute("DELETE FROM audit_trail")
        return read(*arguments)  # type: ignore[arg-type]

    looks.table.read_undivided = emptied  # type: ignore[method-assign, assignment]
    looks.look(EVENTS)

    assert looks.slots(EVENTS, "users") == {0: 3}
    assert looks.slots(EVENTS) == {0: 4}
    assert looks.state.lacking("events") == []
