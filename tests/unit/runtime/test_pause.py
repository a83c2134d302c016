"""Jobs that an operator paused: no look at the table meanwhile, and no row lost."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog
from builders import captured, job
from desk import CREATED, Desk

from shipper.core.errors import ConfigError, SourceUnavailable
from shipper.operations.context import OperationContext
from shipper.operations.pause import pause, resume
from shipper.runtime.pipeline import Pipeline
from shipper.state.store import State

if TYPE_CHECKING:
    from shipper.config.load import Config

HOUR = 3600


class _Config:
    """The jobs of a desk, as a configuration has them."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def named(self, name: str) -> list[Any]:
        """Return the job of a name."""
        if name not in self._names:
            raise ConfigError(f"choose jobs: no job {name!r}")
        return [job(name)]


def operate(desk: Desk, state: State, operation: Callable[..., Mapping[str, Any]], *jobs: str) -> Mapping[str, Any]:
    """Run an operation on the jobs of a desk."""
    workers = {worker.job.name: worker for worker in desk.workers}
    groups = {desk.polling_group.key: desk.polling_group}
    config = cast("Config", _Config(*workers))
    unused: Any = None
    pipeline = Pipeline(config, state, desk.clocks, {}, workers, groups, {}, unused, unused, unused)
    context = OperationContext(pipeline, locked=unused, report=unused, pause=time.sleep, deliver=unused)
    return operation(context, {"jobs": jobs or tuple(workers)})


def run(desk: Desk) -> None:
    """Let the job tick, and capture."""
    desk.tick()
    desk.run_planned()


def totals(state: State) -> int:
    """Return the number of rows that are counted."""
    with state.reading("read totals") as connection:
        (rows,) = connection.execute("SELECT COALESCE(SUM(value), 0) FROM total").fetchone()
    return int(rows)


def test_pause_and_resume(state: State) -> None:
    """A paused job leaves its table alone, and then counts the rows of the pause, once.

    Mutants: observe while paused; let a job of an older look run after the pause.
    """
    desk = Desk(state)
    desk.source.insert(1, CREATED, "login")
    run(desk)
    desk.tick()  # planned, not run
    with structlog.testing.capture_logs() as logs:
        paused = operate(desk, state, pause)
        desk.source.insert(2, CREATED, "login")
        asked = dict(desk.source.asked)
        for _ in range(3):
            run(desk)
        assert dict(desk.source.asked) == asked
        assert captured(state) == 1
        resumed = operate(desk, state, resume)
    run(desk)
    run(desk)

    assert paused == {"jobs": ["events"], "changed": ["events"], "running": []}
    assert resumed == {"jobs": ["events"], "changed": ["events"]}
    assert [log["event"] for log in logs] == ["pause.started", "pause.ended"]
    assert captured(state) == 2
    assert totals(state) == 2
    assert desk.source.preparations == 2  # the table may have been altered


def test_pause_repeated(state: State) -> None:
    """A second pause keeps the time of the first; unknown jobs are errors, and change nothing."""
    desk = Desk(state)
    state.pause(["events"], since=7)

    assert operate(desk, state, pause)["changed"] == []
    assert state.pauses == {"events": 7}
    operate(desk, state, resume)
    assert operate(desk, state, resume)["changed"] == []
    with pytest.raises(ConfigError, match="no job 'evnts'"):
        operate(desk, state, pause, "events", "evnts")
    assert state.pauses == {}


def test_pause_survives_a_restart(state: State, tmp_path: Path) -> None:
    """A pause is in the state. Mutant: keep it in memory."""
    state.pause(["events"], since=7)
    state.close()
    with State(str(tmp_path / "shipper.db")) as again:
        desk = Desk(again)
        run(desk)

        assert again.pauses == {"events": 7}
        assert not desk.source.asked


def test_pause_of_one_of_two_jobs(state: State) -> None:
    """The other jobs of a table continue."""
    desk = Desk(state, job(), job("others"))
    operate(desk, state, pause, "events")
    desk.source.insert(1, CREATED, "login")
    run(desk)

    assert state.progress("events") is None
    assert captured(state, "others") == 1


def test_pause_ends_a_capture(state: State) -> None:
    """A capture ends after its present window. Mutant: ask only before the capture."""
    desk = Desk(state, job(chunk=1))
    for number in range(1, 5):
        desk.source.insert(number, CREATED, "login")
    desk.source.before_read = lambda: state.pause(["events"], since=7)
    run(desk)

    assert captured(state) == 1
    operate(desk, state, resume)
    desk.source.before_read = lambda: None
    run(desk)
    assert captured(state) == 4
    assert totals(state) == 4


def test_pause_makes_no_gap_old(state: State) -> None:
    """A transaction that is open during a pause much longer than `late` is counted. Mutant: no limit TICKS."""
    desk, now = Desk(state), [time.time()]
    desk.source.now = lambda: now[0]
    desk.source.begin(2, CREATED, "login")
    for number in (1, 3):
        desk.source.insert(number, CREATED, "login")
    run(desk)
    operate(desk, state, pause)
    now[0] += 60 * HOUR
    operate(desk, state, resume)
    run(desk)
    desk.source.commit()
    for _ in range(3):  # its gap is due again when it is four minutes old
        now[0] += 60
        run(desk)

    assert totals(state) == 3


def test_pause_hides_a_failure(state: State) -> None:
    """A job that is paused fails at nothing, for example because its table is away; afterwards it does again."""
    desk = Desk(state)
    desk.source.fault = SourceUnavailable("observe: gone")
    run(desk)
    fails = [desk.worker.failure is not None]
    for operation in (pause, resume):
        operate(desk, state, operation)
        fails.append(desk.worker.failure is not None)

    assert fails == [True, False, True]
