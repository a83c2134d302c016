"""Rows whose id is none: no window holds them, so they are counted by reason, once a minute."""

from pathlib import Path
from typing import Any

import pytest
from builders import NOW, job
from fakes import FakeSource

from shipper.core.capture import capture
from shipper.core.ledger import RecordResult
from shipper.core.model import Job, Observation, Query, Rejection, RejectReason
from shipper.core.rows.look import TableLook
from shipper.core.rows.table import CaptureStep
from shipper.state.queries import job_statuses
from shipper.state.store import State

NO_ID = Rejection(RejectReason.NO_ID)
AT = "2026-09-21 13:34:00"


class Asked(FakeSource):
    """A table that counts how often it is asked for such rows."""

    asks = 0

    def uncountable(self, query: Query) -> int:
        """Answer."""
        self.asks += 1
        return super().uncountable(query)


def look(source: Asked, state: State, *jobs: Job, later: int = 0) -> list[RecordResult]:
    """Let jobs look at once; return what each of their records found out."""
    observed = Observation(source.observe(jobs[0].query).id, NOW + later, 0.0)
    table_look = TableLook(source, observed)
    found: list[RecordResult] = []
    for one in jobs:
        steps = capture(one, observed, source=source, ledger=state, now=observed.time, look=table_look)
        found += [step.tally for step in steps if isinstance(step, CaptureStep)]
    return found


def counted(folder: Path) -> int:
    """Return what an operator is shown of it."""
    return job_statuses(str(folder / "shipper.db"))["events"].rejected.get("no_id", 0)


@pytest.mark.parametrize("changed", [{}, {"lookback": 600}, {"time": None}])
def test_rows_without_id_are_counted(state: State, tmp_path: Path, changed: dict[str, Any]) -> None:
    """Rows with an id below 1 are counted as such, beside those that are captured; the log has what is new of them.

    Mutants: say nothing; say it with each look.
    """
    source, events = Asked(), job(**changed)
    for identity in (-1, 0, 1):
        source.insert(identity, AT, "login")
    first = look(source, state, events)
    source.insert(-2, AT, "login")
    second = look(source, state, events, later=60)
    third = look(source, state, events, later=120)

    told = [sum(tally.rejected[NO_ID] for tally in tallies) for tallies in (first, second, third)]
    assert told == [2, 1, 0]
    assert counted(tmp_path) == 3


def test_gone_again(state: State, tmp_path: Path) -> None:
    """It says how many there are, not how many there were. Mutant: count what is more only."""
    source = Asked()
    source.insert(0, AT, "login")
    look(source, state, job())
    source.rows.clear()
    tallies = look(source, state, job(), later=60)

    assert counted(tmp_path) == 0
    assert [tally.rejected[NO_ID] for tally in tallies] == [-1]


def test_once_a_minute_for_all(state: State) -> None:
    """Jobs on a table ask once, and once a minute. Mutants: ask for each job; ask with each look."""
    source, jobs = Asked(), [job(), job("others")]
    asked = []
    for number, later in enumerate((0, 10, 19, 20, 50, 80), 1):  # NOW is a whole minute
        source.insert(number, AT, "login")
        look(source, state, *jobs, later=later)
        asked.append(source.asks)

    assert asked == [1, 1, 1, 1, 1, 2]


def test_whatever_is_captured_later(state: State) -> None:
    """With windows still to come it is not counted yet. Mutant: count with each window."""
    source = Asked()
    for number in range(300):
        source.insert(number, AT, "login")
    tallies = look(source, state, job())

    assert [tally.rejected[NO_ID] for tally in tallies] == [0, 0, 1]
