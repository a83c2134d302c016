"""The promise, case by case: what a table holds and a job says is what Whisper holds in the end.

Each case runs on every kind of database, and however the captures fall: in one pass, a window an id, with a crash
after each step and between any two statements, between the writer's inserts, and between transactions that commit in
another order than they were begun in. The state and the Whisper files are real; the clock stands still.
"""

import json
import random
import tempfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from cases import CASES
from databases import Database, OnMariaDB, OnPostgreSQL, OnSQLite, insert
from fakes import FakeWeb, WhisperCarbon
from servers import SCHEMAS
from shipping import Crash, Fragile
from table import JOB, NOW, Case, epoch

from shipper.config.load import Config, load
from shipper.core.capture import capture
from shipper.core.delivery.courier import Courier
from shipper.core.measures import Kind
from shipper.core.model import Observation, Span
from shipper.core.rows.table import CaptureStep, Event
from shipper.core.verify.reconcile import compare_job
from shipper.state.queries import read_snapshot
from shipper.state.store import State

CONFIG = """\
[graphite]
retentions = "{retentions}"
[source.app]
url = "sqlite:////nowhere.db"
[job.x]
{job}
"""
REPLAY = (60, 600, 3600)


class Run:
    """One case on one database."""

    def __init__(self, case: Case, database: Database, folder: Path) -> None:
        self.case, self.database, self.folder = case, database, folder
        config = configured(case, folder)
        query = database.source.prepared(config.jobs["x"].query)
        self.job = replace(config.jobs["x"], query=query)
        self.config = config
        self.clock = 0.0
        self.rejected_values = Counter[str]()
        (folder / "whisper").mkdir()
        self.carbon = WhisperCarbon(folder / "whisper", config.graphite.retentions, lambda: NOW + self.clock)
        self.carbon.kinds = {
            measure.name: measure.kind for measure in query.measures if measure.kind in {Kind.MAX, Kind.MIN}
        }
        self.open()

    def open(self) -> None:
        """Start as after a crash."""
        self.state = State(str(self.folder / "shipper.db"))
        archives = self.config.graphite.retentions
        self.courier = Courier(self.state.outbox, self.carbon, archives=archives, batch=2, replay=REPLAY)

    def close(self) -> None:
        """End in order."""
        self.state.close()

    def crash(self) -> None:
        """End without a word."""
        self.close()
        self.open()

    def capture(self, *, chunk: int | None = None, crashes: bool = False) -> None:
        """Capture all there is, in windows of so many ids, perhaps with a crash after each step."""
        horizon = Observation(self.database.source.observe(self.job.query).id, NOW, 0.0)
        wanted = replace(self.job, chunk=chunk or self.job.chunk)
        is_done = False
        while not is_done:
            steps = capture(wanted, horizon, source=self.database.source, ledger=self.state, now=NOW)
            for step in steps:
                if not isinstance(step, Event):
                    self._note(step)
                if crashes and isinstance(step, CaptureStep) and step.window is not None and step.rows:
                    steps.close()
                    self.crash()
                    self.courier.step(now=NOW, clock=self.clock)
                    self.crash()
                    break
            else:
                is_done = True

    def capture_fragile(self, *, is_late: bool) -> None:
        """Capture all there is, with a crash at the first statement, then at the second of what is left, and so on."""
        horizon = Observation(self.database.source.observe(self.job.query).id, NOW, 0.0)
        wanted = replace(self.job, chunk=2)
        for number in count(1):
            fuse = [number]
            ends: list[Any] = [Fragile(end, fuse, is_late=is_late) for end in (self.database.source, self.state)]
            source, ledger = ends
            steps = capture(wanted, horizon, source=source, ledger=ledger, now=NOW)
            try:
                for _ in steps:
                    pass
            except Crash:
                self.crash()
            else:
                return

    def _note(self, step: CaptureStep | None) -> None:
        """Add up what an operator is told of values that were left out: for each column which was the first."""
        for refusal in step.tally.rejected_values if step else []:
            assert refusal.value, refusal
            assert (refusal.id is None) == (refusal.group is not None), refusal
            self.rejected_values[refusal.column] += refusal.rows

    def deliver(self) -> None:
        """Send all there is until it is proven, and what waits for its archive, too."""
        for seconds in (0, 0, *REPLAY, 2 * 86400, 60, *REPLAY):
            self.carbon.flush()
            self.clock += seconds
            while self.courier.step(now=int(NOW + self.clock), clock=self.clock):
                self.carbon.flush()
        self.carbon.flush()

    def rejected(self) -> dict[str, int]:
        """Read the counters."""
        rows = self.state._connection.execute("SELECT reason, rows FROM rejected WHERE rows > 0").fetchall()
        return dict(rows)

    def shown(self, step: int) -> dict[str, dict[int, float]]:
        """Read what Whisper holds in one archive, by group and measure."""
        (archive,) = [one for one in self.config.graphite.retentions if one.step == step]
        names = {
            path: f"{'|'.join('NULL' if part is None else part for part in json.loads(group))} {measure}"
            for path, group, measure in self.state._connection.execute('SELECT path, "group", measure FROM series')
        }
        return {names[path]: slots for path, slots in self.carbon.zoom(archive).items() if slots}


def one_pass(run: Run) -> None:
    """The job begins, the writer writes, the job captures."""
    _written(run, run.capture)


def many_windows(run: Run) -> None:
    """The same, with a window for each id."""
    _written(run, lambda: run.capture(chunk=1))


def crashes(run: Run) -> None:
    """The same, and a crash after each window and each batch."""
    _written(run, lambda: run.capture(chunk=1, crashes=True))


def crashes_before_statements(run: Run) -> None:
    """The same, and a crash before each statement, on the source or on the state."""
    _written(run, lambda: run.capture_fragile(is_late=False))


def crashes_after_statements(run: Run) -> None:
    """The same, and a crash after each."""
    _written(run, lambda: run.capture_fragile(is_late=True))


def with_late_commits(run: Run) -> None:
    """Rows commit in any order, captures come anywhere between: while they are in flight, and when they are there."""
    dice = random.Random(run.case.name)
    insert(run.database, run.case.rows[: run.case.there_before])
    run.capture()
    rows = run.case.rows[run.case.there_before :]
    dice.shuffle(rows)
    while rows:
        taken, rows = rows[: (size := dice.randint(1, 3))], rows[size:]
        with run.database.in_flight(taken):
            if dice.random() < 0.7:
                run.capture(chunk=dice.choice([1, 3, 100]), crashes=dice.random() < 0.2)
        if dice.random() < 0.5:
            run.capture(chunk=dice.choice([1, 3, 100]))
    run.capture()
    for statement in run.case.updates:
        run.database.execute(statement)
        run.capture()


def with_writers(run: Run) -> None:
    """Captures and deliveries come anywhere between the inserts."""
    dice = random.Random(run.case.name)
    insert(run.database, run.case.rows[: run.case.there_before])
    run.capture()
    for row in run.case.rows[run.case.there_before :]:
        insert(run.database, [row])
        if dice.random() < 0.5:
            run.capture(chunk=dice.choice([1, 3, 100]), crashes=dice.random() < 0.2)
        if dice.random() < 0.5:
            run.courier.step(now=NOW, clock=run.clock)
    run.capture()
    for statement in run.case.updates:
        run.database.execute(statement)
        run.capture()


def _written(run: Run, capture: Callable[[], None]) -> None:
    case = run.case
    if case.there_before:
        insert(run.database, case.rows[: case.there_before])
        capture()
    insert(run.database, case.rows[case.there_before :])
    capture()
    for statement in case.updates:
        run.database.execute(statement)
        capture()


def configured(case: Case, folder: Path) -> Config:
    """Load the job of a case as an operator would have written it."""
    own = tomllib.loads(case.job)
    left_out = {*own, *({"time"} if "sql" in own else set())}
    lines = [line for line in JOB.splitlines() if line.partition(" ")[0] not in left_out]
    file = folder / "shipper.toml"
    file.write_text(CONFIG.format(retentions=case.retentions, job="\n".join([*lines, case.job])))
    return load(str(file))


@pytest.fixture(scope="module", params=["mariadb", "postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Give the table on each kind of database."""
    made: Database
    if request.param == "sqlite":
        made = OnSQLite(tmp_path_factory.mktemp("sqlite"), SCHEMAS["sqlite"])
    elif request.param == "mariadb":
        made = OnMariaDB(request.getfixturevalue("mariadb"))
    else:
        made = OnPostgreSQL(request.getfixturevalue("postgresql"))
    yield made
    made.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder where fsync costs nothing."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


WAYS = [
    *(one_pass, many_windows, crashes, crashes_before_statements, crashes_after_statements),
    *(with_writers, with_late_commits),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, way: Callable[[Run], None], database: Database, folder: Path) -> None:
    """Whisper holds what the case says, and the counters the rest, on every database and however captures fall."""
    if case.without == database.source.connections.engine.dialect.name:
        pytest.skip(f"{case.without} cannot hold such rows")
    database.execute("DELETE FROM audit_trail")
    with closing(Run(case, database, folder)) as run:
        _assert_case(run, way)


def _assert_case(run: Run, way: Callable[[Run], None]) -> None:
    case = run.case
    way(run)
    rejected = run.rejected()
    run.deliver()

    expected = {name: {epoch(time): value for time, value in slots.items()} for name, slots in case.expected.items()}
    found = run.shown(case.zoom)
    if not case.has_order and way in {with_writers, with_late_commits}:
        expected, found = _without_zeros(expected), _without_zeros(found)
    assert expected == found
    assert case.rejected == rejected
    if way not in {crashes_before_statements, crashes_after_statements}:  # there it is told before a crash, too
        assert case.rejected_values == run.rejected_values
    _assert_zooms_agree(run)
    _assert_reconciled(run)
    assert run.state._connection.execute("SELECT COUNT(*) FROM total WHERE changed > 0").fetchone() == (0,)


def _without_zeros(series: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    return {name: {slot: value for slot, value in slots.items() if value} for name, slots in series.items()}


def _assert_reconciled(run: Run) -> None:
    """An operator who asks is told the same: nothing differs."""
    now = int(NOW + run.clock)
    known = read_snapshot(run.state.path, run.job.name, Span(0, now))
    assert known is not None
    graphite, start = FakeWeb(run.carbon), known.progress.since
    found = compare_job(run.job, known, start, None, source=run.database.source, graphite=graphite, now=now)
    assert found.differences == []


def _assert_zooms_agree(run: Run) -> None:
    """What is added up comes to the same in every archive, as far as each reaches."""
    added_up = {measure.name for measure in run.job.query.measures if measure.kind not in {Kind.MAX, Kind.MIN}}
    archives = run.config.graphite.retentions
    for finer, coarser in pairwise(archives):
        fine, coarse = run.shown(finer.step), run.shown(coarser.step)
        for name in fine:
            if name.rpartition(" ")[2] in added_up:
                sums: dict[int, float] = defaultdict(float)
                for slot, value in fine[name].items():
                    sums[slot - slot % coarser.step] += value
                # an hour that is partly beyond the finer archive is only whole in the coarser one
                edge = NOW + run.clock - finer.duration
                assert {slot: value for slot, value in sums.items() if slot > edge} == {
                    slot: coarse[name].get(slot) for slot in sums if slot > edge
                }
