"""What it costs to know exactly which ids are counted: database time of ticks against that of their counts alone.

Run `python tests/bench/gaps.py`. Each tick finds 10,000 new ids, and a minute has passed for the source, so that gaps
are asked for again and given up as they are in production. The counts alone are MAX(id) and the same groups, over the
same windows, in turn.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1]))

from builders import NOW, job
from servers import MariaDB, PostgreSQL

from shipper.core.capture import capture
from shipper.core.model import Condition, Job, Observation, Window
from shipper.core.rows.look import TableLook
from shipper.source.access import Access
from shipper.source.database import Source
from shipper.state.store import State

TICKS, IDS, MINUTE, LATE = 60, 10_000, 60, 21_600
WARM = 20
"""Ticks that are not measured: by then gaps of most ages are there to be asked for, as `late` is scaled below."""
SCALE = 12  # a tick is so many minutes: an id is asked for as often as within `late`, in fewer ticks
FAILURES = (Condition("outcome", "in", ("failure",)),)


@dataclass(frozen=True)
class Case:
    """A kind of table: which id the n-th row of a tick has, and how many ids a tick takes."""

    name: str
    every: Callable[[int], str]
    rows: int = IDS
    width: int = IDS


CASES = (
    Case("no id missing", lambda first: f"{first} + seq"),
    Case("1 % missing", lambda first: f"{first} + seq + seq DIV 99", rows=IDS * 99 // 100),
    Case("two thirds missing", lambda first: f"{first} + 3 * seq", rows=IDS // 3),
    Case("snowflakes", lambda first: f"({first} + seq) * 1048576 + seq % 7", width=IDS * 1048576),
)


class Timed:
    """A source whose statements are timed."""

    def __init__(self, url: sa.URL) -> None:
        self.source = Source("app", Access(url, 30))
        self.seconds = self.statements = 0.0
        began: list[float] = []
        sa.event.listen(
            self.source.connections.engine, "before_cursor_execute", lambda *_: began.append(time.perf_counter())
        )
        sa.event.listen(self.source.connections.engine, "after_cursor_execute", lambda *_: self._add(began.pop()))

    def _add(self, began: float) -> None:
        self.seconds += time.perf_counter() - began
        self.statements += 1


def insert(connection: sa.Connection, case: Case, tick: int) -> int:
    """Add a tick's rows; return the largest id."""
    series = "generate_series(0, {}) AS seq" if connection.dialect.name == "postgresql" else "seq_0_to_{}"
    at = NOW + MINUTE * SCALE * tick
    clock = f"to_timestamp({at} + seq % 60) AT TIME ZONE 'UTC'"
    action = "(ARRAY['login','logout','totp','order','pay','view','edit'])[1 + seq % 7]"
    outcome = "(ARRAY['ok','failure','denied'])[1 + seq % 3]"
    identity = case.every(tick * IDS + 1)
    if connection.dialect.name != "postgresql":
        clock = f"FROM_UNIXTIME({at} + seq % 60)"
        action = "ELT(1 + seq % 7, 'login', 'logout', 'totp', 'order', 'pay', 'view', 'edit')"
        outcome = "ELT(1 + seq % 3, 'ok', 'failure', 'denied')"
    else:
        identity = identity.replace("DIV", "/").replace(") * 1048576", ") * CAST(1048576 AS BIGINT)")
    columns, source = "(id, created_at, action, outcome)", series.format(case.rows - 1)
    connection.exec_driver_sql(
        f"INSERT INTO audit_trail {columns} SELECT {identity}, {clock}, {action}, {outcome} FROM {source}".replace(
            "%", "%%"
        )
    )
    return int(connection.exec_driver_sql("SELECT MAX(id) FROM audit_trail").scalar_one())


def jobs_of(count: int) -> list[Job]:
    """Make jobs of which every second one counts a third of the rows."""
    made = []
    for number in range(count):
        one = job(f"job{number}", where=FAILURES if number % 2 else (), start=0, chunk=10**12, late=LATE)
        made.append(replace(one, every=MINUTE * SCALE, archives=one.archives))
    return made


def tick(timed: Timed, state: State, jobs: list[Job], now: int, *, has_gaps: bool) -> bool:
    """Let all jobs capture, as their polling_group does; return whether ids were missing."""
    observed = timed.source.observe(jobs[0].query)
    horizon = Observation(observed.id, now, observed.clock)
    look = TableLook(timed.source, horizon, has_gaps=has_gaps, is_alone=len(jobs) == 1)
    with timed.source.held(), state.gathering():
        for one in jobs:
            for _ in capture(one, horizon, source=timed.source, ledger=state, now=now, look=look):
                pass
    return look.has_gaps


def plain(timed: Timed, jobs: list[Job], after: int) -> None:
    """Count the same, and nothing else."""
    observed = timed.source.observe(jobs[0].query)
    with timed.source.held():
        for one in jobs:
            timed.source.read(one.query, Window(after, observed.id))


def measured(url: sa.URL, writer: sa.Engine, case: Case, count: int, folder: Path) -> tuple[Timed, Timed]:
    """Let both ways tick over the same rows."""
    with ExitStack() as stack:
        ours, theirs = Timed(url), Timed(url)
        for one in (ours, theirs):
            stack.enter_context(closing(one.source))
        state = stack.enter_context(State(tempfile.mktemp(dir=folder, suffix=".db")))
        jobs, after, has_gaps = jobs_of(count), 0, False
        for number in range(TICKS):
            with writer.begin() as connection:
                upto = insert(connection, case, number)
            if number == WARM:
                ours.seconds = theirs.seconds = ours.statements = theirs.statements = 0
            now = NOW + MINUTE * SCALE * number
            steps: list[Callable[[], Any]] = [
                partial(tick, ours, state, jobs, now, has_gaps=has_gaps),
                partial(plain, theirs, jobs, after),
            ]
            answers = [step() for step in (steps if number % 2 else steps[::-1])]
            has_gaps, after = bool(answers[0 if number % 2 else 1]), upto
        return ours, theirs


@contextmanager
def servers(folder: Path) -> Iterator[list[tuple[str, Any]]]:
    """Start a private server of each kind."""
    made: list[tuple[str, Any]] = [("MariaDB", MariaDB(folder / "mariadb")), ("PostgreSQL", PostgreSQL())]
    try:
        yield made
    finally:
        for _, server in made:
            server.stop()


def main() -> None:
    """Print the table."""
    rows: list[tuple[Any, ...]] = []
    with tempfile.TemporaryDirectory() as name, servers(Path(name)) as made:
        for kind, server in made:
            for case in CASES:
                for count in (1, 2, 5):
                    url = sa.make_url(server.make_database(f"app{len(rows)}"))
                    writer = sa.create_engine(url)
                    ours, theirs = measured(url, writer, case, count, Path(name))
                    writer.dispose()
                    each = [1000 * one.seconds / (TICKS - WARM) for one in (theirs, ours)]
                    statements = ours.statements / (TICKS - WARM)
                    rows.append((kind, case.name, count, *each, f"{each[1] / each[0]:.2f}", statements))
                    print(rows[-1], file=sys.stderr)
    headers = ("", "table", "jobs", "counts alone, ms", "shipper, ms", "ratio", "statements")
    print(tabulate(rows, headers, floatfmt=".1f"))


if __name__ == "__main__":
    main()
