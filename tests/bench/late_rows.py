"""What guard and recheck cost: database time of ticks with them, as a ratio to ticks without, in one run.

Run `python tests/bench/late_rows.py`. Each tick finds 10,000 new rows, and a minute has passed for the source, so that
windows are recorded, looked at again and dropped as they are in production. Both ways read the same rows, in turn.
"""

import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1]))

from builders import NOW, job
from servers import MariaDB

from shipper.capture import capture
from shipper.model import Care, Condition, Job, Observation
from shipper.source import Source
from shipper.source.connect import Access
from shipper.state import State

TICKS, ROWS, MINUTE = 40, 10_000, 60
RECHECK = 15 * MINUTE  # as many looks at a window as with an hour, in fewer ticks
CASES = {
    "all rows, no id missing": ((), 0),
    "all rows, 1 % missing": ((), 1),
    "a third of the rows, no id missing": ((Condition("outcome", "in", ("failure",)),), 0),
    "a third of the rows, 1 % missing": ((Condition("outcome", "in", ("failure",)),), 1),
}


@dataclass
class Way:
    """A job with a source and a state of its own, and the time that its statements took."""

    name: str
    source: Source
    state: State
    care: Care
    seconds: float = 0.0

    def __post_init__(self) -> None:
        began: dict[int, float] = {}
        engine = self.source._engine

        def before(_: Any, cursor: Any, *__: Any) -> None:
            began[id(cursor)] = time.perf_counter()

        def after(_: Any, cursor: Any, *__: Any) -> None:
            self.seconds += time.perf_counter() - began.pop(id(cursor))

        sa.event.listen(engine, "before_cursor_execute", before)
        sa.event.listen(engine, "after_cursor_execute", after)

    def tick(self, wanted: Job, now: int) -> None:
        """Observe, and capture what is there."""
        seen = self.source.observe(wanted.query)
        horizon = Observation(seen.id, now, seen.clock)
        for _ in capture(wanted, horizon, source=self.source, ledger=self.state, now=now, care=self.care):
            pass


def insert(cursor: Any, n: int, missing: int) -> None:
    """Add a tick's rows; of so many in a hundred the id is missing, as after a rollback."""
    width = ROWS * 100 // (100 - missing)
    cursor.execute(
        f"""
        INSERT INTO audit_trail (id, created_at, action, outcome)
        SELECT {n * width} + seq, FROM_UNIXTIME({NOW + MINUTE * n} + seq % {MINUTE}),
            ELT(1 + seq % 7, 'login', 'logout', 'totp', 'order', 'pay', 'view', 'edit'),
            ELT(1 + seq % 3, 'ok', 'failure', 'denied')
        FROM seq_1_to_{width} WHERE seq % 100 >= {missing}"""
    )


def compare(server: MariaDB, folder: Path, where: tuple[Condition, ...], missing: int) -> list[Way]:
    """Let both ways tick over the same rows."""
    url = sa.make_url(server.make_database("app"))
    wanted = job(where=where, start=0, chunk=100_000)
    with ExitStack() as stack:
        ways = []
        for name, guard, care in (("without", False, Care(recheck=None)), ("with", True, Care(recheck=RECHECK))):
            source = stack.enter_context(closing(Source("app", Access(url, 30, guard=guard))))
            state = stack.enter_context(State(tempfile.mktemp(dir=folder, suffix=".db")))
            ways.append(Way(name, source, state, care))
        cursor = stack.enter_context(stack.enter_context(server.connect("app")).cursor())
        for n in range(TICKS):
            insert(cursor, n, missing)
            for way in ways if n % 2 else reversed(ways):
                way.tick(wanted, NOW + MINUTE * n)
    return ways


def main() -> None:
    """Print the table."""
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        server = MariaDB(Path(folder) / "mariadb")
        try:
            for name, (where, missing) in CASES.items():
                without, together = compare(server, Path(folder), where, missing)
                found[name] = [1000 * without.seconds / TICKS, 1000 * together.seconds / TICKS]
        finally:
            server.stop()
    rows = [(name, without, both, f"{both / without - 1:+.0%}") for name, (without, both) in found.items()]
    headers = (f"database time of a tick, {ROWS:,} new rows", "without, ms", "guard + recheck, ms", "cost")
    print(tabulate(rows, headers, floatfmt=".1f"))


if __name__ == "__main__":
    main()
