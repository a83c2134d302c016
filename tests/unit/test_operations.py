"""Operations in one process: what comes between their pieces."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import job
from desk import Desk

from shipper.errors import ShipperError, StateBusy
from shipper.model import Condition
from shipper.operations import HALVES
from shipper.operations.doing import Doing
from shipper.state import State
from shipper.worker import Worker

HOUR = 3600


class Office:
    """A job at a desk, with rows of the last five hours that are captured, and somebody who has them counted again."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.desk = Desk(state, job(start="beginning"))
        self.now = int(self.desk.source.now())
        for number in range(1, 11):
            created = self.now // HOUR * HOUR - HOUR * (number // 2)
            self.desk.source.insert(number, _written(created), "login")
        self.desk.tick()
        self.desk.run_planned()
        sections = {"app": SimpleNamespace(settle=0, max_skew=300)}
        config = SimpleNamespace(sources=sections, jobs={"events": self.desk.worker.job}, file="shipper.toml")
        self.pipeline: Any = SimpleNamespace(state=state, clocks=self.desk.clocks, config=config)
        self.between: list[Any] = []
        """What happens before the next pieces."""
        self.told: list[Mapping[str, Any]] = []

    @contextmanager
    def locked(self, _name: str) -> Iterator[Worker]:
        """Let something happen, and give the worker."""
        if self.between:
            self.between.pop(0)()
        with self.desk.worker.paused():
            yield self.desk.worker

    def do(self, half: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do a half of a backfill."""
        doing = Doing(
            self.pipeline, locked=self.locked, tell=self.told.append, pause=lambda _: None, deliver=lambda: True
        )
        return HALVES[half](doing, {"operation": "backfill", "arguments": arguments})

    def plan(self) -> Mapping[str, Any]:
        """Plan to count the last four hours again."""
        start = self.now // HOUR * HOUR - 4 * HOUR
        return self.do("plan", {"job": "events", "spans": [[start, self.now]]})


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """Give an office."""
    with State(str(tmp_path / "shipper.db")) as state:
        yield Office(state)


def _written(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S")


def stop() -> None:
    """End what is under way."""
    raise StateBusy("the service stops")


def test_ends_early_and_goes_on(office: Office) -> None:
    """What is done stays done, and the rest is done the next time. Mutants: note nothing; begin anew."""
    plan = office.plan()
    assert plan["facts"]["resumes_at"] is None
    office.between = [int, int, int, stop]
    with pytest.raises(StateBusy):
        office.do("carry out", plan["arguments"])
    resumed = office.plan()
    done = office.do("carry out", resumed["arguments"])

    assert resumed["facts"]["resumes_at"] == plan["facts"]["spans"][0][0] + 2 * HOUR
    assert done["rows"] == 5
    assert office.plan()["facts"]["resumes_at"] is None


def test_job_changes_meanwhile(office: Office) -> None:
    """A job that counts something else by now has its rows elsewhere. Mutant: go on."""
    plan, other = office.plan(), (Condition("outcome", "in", ("ok",)),)

    def change() -> None:
        worker = office.desk.worker
        worker.job = replace(worker.job, query=replace(worker.job.query, where=other))
        office.desk.tick()
        office.desk.run_planned()

    office.between = [int, int, change]
    with pytest.raises(StateBusy, match="is another by now"):
        office.do("carry out", plan["arguments"])


def test_rows_captured_meanwhile(office: Office) -> None:
    """A row that is captured between two pieces, for a slot of the next, is counted there. Mutant: look once."""
    plan = office.plan()

    def late() -> None:
        office.desk.source.insert(11, _written(office.now // HOUR * HOUR - HOUR), "login")
        office.desk.tick()
        office.desk.run_planned()

    office.between = [int, int, late]
    done = office.do("carry out", plan["arguments"])

    assert done["rows"] == 9 + 1


@pytest.mark.parametrize("span", [[4_000_000_000, 4_000_000_060], [60, 120]], ids=["to come", "too old"])
def test_nothing_to_count(office: Office, span: list[int]) -> None:
    """A time that is to come, or that Graphite keeps no more, is refused."""
    with pytest.raises(ShipperError, match="nothing of that time can be counted again"):
        office.do("plan", {"job": "events", "spans": [span]})
