"""Groups that share cells while rows are counted again: the totals are those without it."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from builders import NOW
from fakes import FakeWeb
from life import Life, recount, wanted

from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Job, Span
from shipper.core.rows import folding
from shipper.core.verify.reconcile import compare_job
from shipper.state.queries import read_snapshot

HOUR, MANY = 3600, 10**9
USERS, LONGEST = Measure("users", Kind.DISTINCT, "outcome"), Measure("longest", Kind.MAX, "duration_ms")
JOBS = {
    "ids": wanted(max_groups=3, chunk=10, measures=(COUNT, LONGEST)),
    "distinct": wanted(max_groups=3, chunk=10, measures=(COUNT, USERS), template="events.{action}.{measure}"),
    "lookback": wanted(max_groups=3, chunk=10, lookback=2 * HOUR),
    "slots": wanted(max_groups=3, chunk=10, time=None),
    "room": wanted(max_groups=11, chunk=10),
    "no group": wanted(max_groups=3, chunk=10, by=(), template="events.{measure}"),
}


def rows(seed: int) -> list[tuple[int, str, str]]:
    """Return rows of the last hours, some of groups whose paths show other values."""
    dice = random.Random(seed)
    actions = [*"abcdefgh", "a b", "a/b"]
    return [(dice.randrange(2 * HOUR), dice.choice(actions), dice.choice("xyz")) for _ in range(60)]


def counted(folder: Path, job: Job, many: int, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """Count rows, and count them again; return all totals, and what the log tells of the limit."""
    monkeypatch.setattr(folding, "MANY_CELLS", many)
    folder.mkdir()
    life = Life(folder)
    for seed in (1, 2):
        life.insert(*rows(seed))
        life.ship(job)
    # rows that no look has seen with these values
    for row, (_, action, _) in zip(life.source.rows[::3], rows(3), strict=False):
        row["action"] = f"{action}x"
    raised = replace(job, max_groups=job.max_groups + 2)
    steps = recount(raised, Span(NOW - 3 * HOUR, NOW + 60), source=life.source, ledger=life.state, now=life.now)
    logged = [(step.rows, step.tally.other_rows, step.tally.other, step.tally.sanitized) for step in steps if step]
    life.deliver()
    known = read_snapshot(life.state.path, job.name, Span(0, life.now))
    assert known is not None
    web = FakeWeb(life.carbon)
    compared = compare_job(raised, known, NOW - 2 * HOUR, None, source=life.source, graphite=web, now=life.now)
    stored = life.state._connection.execute(
        "SELECT path, slot, step, value FROM total JOIN series ON id = series ORDER BY 1, 2, 3"
    ).fetchall()
    series = life.state._connection.execute('SELECT path, "group" FROM series ORDER BY 1').fetchall()
    life.state.close()
    return stored, series, logged, compared.differences, compared.equal


@pytest.mark.parametrize("name", JOBS)
def test_same_totals(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether groups share cells or not, the same series have the same totals.

    Mutants: let OTHER take the room of a group; choose the first groups; leave the rows out of the log.
    """
    expected = counted(tmp_path / "all", JOBS[name], MANY, monkeypatch)

    assert counted(tmp_path / "shared", JOBS[name], 0, monkeypatch) == expected
