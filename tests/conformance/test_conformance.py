"""The promise, case by case: the rows of a table, counted by a job, are the values in Whisper.

Each case runs on every kind of database in one pass, and on one of them with captures at any time: with a window for
each id, with a crash after each step and between any two statements, between the inserts of the writer, and between
transactions that do not commit in the order in which they began. The state and the Whisper files are real; the clock
does not move.
"""

import json
import random
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from cases import CASES, DISTINCT, LOOKBACK
from databases import Database, insert, memory_folder, opened
from fakes import FakeWeb, WhisperCarbon
from shipping import Crash, Fragile
from table import JOB, NOW, Case, epoch
from tables import KINDS

from shipper.config.load import Config, load
from shipper.core.capture import capture
from shipper.core.delivery.courier import Courier
from shipper.core.model import Observation, Span
from shipper.core.repair.indivisible import SHARE
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
        self.clock, self.now = 0.0, NOW
        self.rejected_values = Counter[str]()
        (folder / "whisper").mkdir()
        self.carbon = WhisperCarbon(folder / "whisper", config.graphite.retentions, lambda: NOW + self.clock)
        self.carbon.kinds = {measure.name: measure.kind.aggregation for measure in query.measures}
        self.open()

    def open(self) -> None:
        """Open the state, with a new courier, as after a crash."""
        self.state = State(str(self.folder / "shipper.db"))
        archives = self.config.graphite.retentions
        self.courier = Courier(self.state.outbox, self.carbon, archives=archives, batch=2, replay=REPLAY)

    def close(self) -> None:
        """Close the state."""
        self.state.close()

    def crash(self) -> None:
        """Restart without an orderly end."""
        self.close()
        self.open()

    def capture(self, *, chunk: int | None = None, crashes: bool = False, seconds: int = 0) -> None:
        """Capture all rows, in windows of chunk ids; with crashes, crash after each step."""
        now = self.now + seconds
        horizon = Observation(self.database.source.observe(self.job.query).id, now, 0.0)
        wanted = replace(self.job, chunk=chunk or self.job.chunk)
        is_done = False
        while not is_done:
            steps = capture(wanted, horizon, source=self.database.source, ledger=self.state, now=now)
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
        """Capture all rows, with a crash at the first statement, then at the second of the rest, and so on."""
        horizon = Observation(self.database.source.observe(self.job.query).id, self.now, 0.0)
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
        """Count the rejected values by column; each report has the first value, with its id or its group."""
        for rejected in step.tally.rejected_values if step else []:
            assert rejected.value, rejected
            assert (rejected.id is None) == (rejected.group is not None), rejected
            self.rejected_values[rejected.column] += rejected.rows

    def deliver(self) -> None:
        """Deliver all totals until they are proven, deferred ones too."""
        for seconds in (0, 0, *REPLAY, 2 * 86400, 60, *REPLAY):
            self.carbon.flush()
            self.clock += seconds
            while self.courier.step(now=int(NOW + self.clock), clock=self.clock):
                self.carbon.flush()
        self.carbon.flush()

    def rejected(self) -> dict[str, int]:
        """Return the number of rejected rows, by reason."""
        rows = self.state._connection.execute("SELECT reason, rows FROM rejected WHERE rows > 0").fetchall()
        return dict(rows)

    def shown(self, step: int) -> dict[str, dict[int, float]]:
        """Return the values of one archive in Whisper, by group and measure."""
        (archive,) = [one for one in self.config.graphite.retentions if one.step == step]
        names = {
            path: f"{'|'.join('NULL' if part is None else part for part in json.loads(group))} {measure}"
            for path, group, measure in self.state._connection.execute('SELECT path, "group", measure FROM series')
        }
        return {names[path]: slots for path, slots in self.carbon.zoom(archive).items() if slots}


Way = Callable[[Run], None]
"""What a writer and captures do, in turn."""


def one_pass(run: Run) -> None:
    """Start the job, insert all rows, capture."""
    _written(run, run.capture)


def many_windows(run: Run) -> None:
    """Do the same with a window for each id."""
    _written(run, lambda: run.capture(chunk=1))


def crashes(run: Run) -> None:
    """Do the same with a crash after each window and each batch."""
    _written(run, lambda: run.capture(chunk=1, crashes=True))


def crashes_before_statements(run: Run) -> None:
    """Do the same with a crash before each statement, on the source or on the state."""
    _written(run, lambda: run.capture_fragile(is_late=False))


def crashes_after_statements(run: Run) -> None:
    """Do the same with a crash after each statement."""
    _written(run, lambda: run.capture_fragile(is_late=True))


def with_late_commits(run: Run) -> None:
    """Commit rows in any order, and capture at random: while rows are in flight, and after their commit."""
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
    """Capture and deliver at random between the inserts."""
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
    """Load the job of a case from a configuration file."""
    own = tomllib.loads(case.job)
    left_out = {*own, *({"time"} if own.keys() & {"sql", "time_sql"} else set())}
    lines = [line for line in JOB.splitlines() if line.partition(" ")[0] not in left_out]
    file = folder / "shipper.toml"
    file.write_text(CONFIG.format(retentions=case.retentions, job="\n".join([*lines, case.job])))
    return load(str(file))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each case in some ways; before a release, that is with `--require-mysql`, in all of them."""
    if "way" in metafunc.fixturenames:
        is_full, is_along = metafunc.config.getoption("--require-mysql"), metafunc.function is test_case_along
        cases = ALONG if is_along else CASES
        runs = [(case, *run) for case in cases for run in _runs(case, is_along=is_along, is_full=is_full)]
        ids = [f"{way.__name__}-{kind}-{case.name}" for case, kind, way in runs]
        metafunc.parametrize(("case", "database", "way"), runs, ids=ids, indirect=["database"])


def _runs(case: Case, *, is_along: bool, is_full: bool) -> list[tuple[str, Way]]:
    """Return the databases and ways of a case: one pass on each database, and each other way on one.

    The full list has each way on each database; on MySQL, which speaks MariaDB's SQL, some.
    """
    first, *others = WAYS_ALONG if is_along else WAYS
    on_mysql = WAYS_ALONG_ON_MYSQL if is_along else WAYS_ON_MYSQL
    kinds = [kind for kind in KINDS if kind != case.without]
    dice = random.Random(case.name)
    runs: list[tuple[str, Way]] = [(kind, first) for kind in kinds]
    runs += [(kind, way) for way in others for kind in (kinds if is_full else [dice.choice(kinds)])]
    return runs + [("mysql", way) for way in (on_mysql if is_full else [dice.choice(on_mysql)])]


@pytest.fixture(scope="module")
def databases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Database]]:
    """Provide the table on each kind of database that a test asks for."""
    with ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(opened(kind, request, tmp_path_factory)))


@pytest.fixture
def database(request: pytest.FixtureRequest, databases: Callable[[str], Database]) -> Database:
    """Provide the table on a kind of database."""
    return databases(request.param)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Provide a folder in memory."""
    with memory_folder() as folder:
        yield folder


# a job along a time does not look at rows from before its start, nor from before 1970
NOT_ALONG = {"far past", "before the epoch", "near future", "from now, for a slot of before"}
ALONG = [
    case
    for case in CASES
    if case.name not in NOT_ALONG and case not in (*LOOKBACK, *DISTINCT) and not re.search("time =|sql =", case.job)
]
WAYS = [
    *(one_pass, many_windows, crashes, crashes_before_statements, crashes_after_statements),
    *(with_writers, with_late_commits),
]
WAYS_ALONG = [one_pass, crashes_before_statements, with_writers, with_late_commits]
WAYS_ON_MYSQL = [one_pass, crashes, with_late_commits]
WAYS_ALONG_ON_MYSQL = [one_pass]


def test_case(case: Case, way: Way, database: Database, folder: Path) -> None:
    """Whisper has the expected values and the counters the other rows, on every database, with captures at any time."""
    database.execute("DELETE FROM audit_trail")
    with closing(Run(case, database, folder)) as run:
        assert_case(run, way)


def test_case_along(case: Case, way: Way, database: Database, folder: Path) -> None:
    """Jobs that read along the time, instead of ids, have the same values."""
    database.execute("DELETE FROM audit_trail")
    with closing(Run(case, database, folder)) as run:
        run.job = replace(run.job, query=replace(run.job.query, id=str(run.job.query.time)), late=2 * NOW)
        assert_case(run, way)


def assert_case(run: Run, way: Way) -> None:
    """Check what Whisper shows after rows were written and captured in a way."""
    case = run.case
    way(run)
    if not run.job.query.is_divisible:  # slots that were recounted within this sixtieth of their bucket
        run.capture(seconds=max(run.job.query.bucket, run.job.archives[-1].step) // SHARE)

    if run.job.query.is_along and case.rejected:  # rows that no look reads are counted once a minute
        run.now += 60
        run.capture()
    rejected = run.rejected()
    run.deliver()

    expected = {name: {epoch(time): value for time, value in slots.items()} for name, slots in case.expected.items()}
    shown = run.shown(case.zoom)
    if not case.has_order and way in {with_writers, with_late_commits}:
        expected, shown = _without_zeros(expected), _without_zeros(shown)
    assert expected == shown
    assert case.rejected == rejected
    if way not in {crashes_before_statements, crashes_after_statements}:  # a value is reported before a crash, too
        assert case.rejected_values == run.rejected_values
    _assert_zooms_agree(run)
    _assert_reconciled(run)
    assert run.state._connection.execute("SELECT COUNT(*) FROM total WHERE changed > 0").fetchone() == (0,)


def _without_zeros(series: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    return {name: {slot: value for slot, value in slots.items() if value} for name, slots in series.items()}


def _assert_reconciled(run: Run) -> None:
    """Check that `reconcile` finds no difference."""
    now = int(NOW + run.clock)
    known = read_snapshot(run.state.path, run.job.name, Span(0, now))
    assert known is not None
    graphite, start = FakeWeb(run.carbon), known.progress.since
    comparison = compare_job(run.job, known, start, None, source=run.database.source, graphite=graphite, now=now)
    assert comparison.differences == []


def _assert_zooms_agree(run: Run) -> None:
    """Check that values that add up have the same sum in every archive, as far as each reaches."""
    additive = {measure.name for measure in run.job.query.measures if measure.kind.aggregation == "sum"}
    archives = run.config.graphite.retentions
    for finer, coarser in pairwise(archives):
        fine, coarse = run.shown(finer.step), run.shown(coarser.step)
        for name in fine:
            if name.rpartition(" ")[2] in additive:
                sums: dict[int, float] = defaultdict(float)
                for slot, value in fine[name].items():
                    sums[slot - slot % coarser.step] += value
                # an hour that is partly beyond the finer archive is complete only in the coarser one
                edge = NOW + run.clock - finer.duration
                assert {slot: value for slot, value in sums.items() if slot > edge} == {
                    slot: coarse[name].get(slot) for slot in sums if slot > edge
                }
