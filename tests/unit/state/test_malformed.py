"""Rows that this program never writes: every reader answers with an error of the state, and none with another one."""

import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from life import Life, wanted

from shipper.core.errors import ShipperError, StateCorrupt
from shipper.core.model import ALWAYS, Window
from shipper.state.queries import (
    audits,
    commits,
    job_statuses,
    pauses,
    read_snapshot,
    series_counts,
    stored_slots,
    totals,
)
from shipper.state.store import State

JOB = wanted().name
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
DEEP = "[" * 100_000
BOMB = zlib.compress(bytes(50_000_000), 9)
TEXTS = (
    *("", "x", "-1", "1.5", "01", "9" * 30, "9" * 5000, "NaN", "Infinity", "1e999999999", "\N{SUPERSCRIPT TWO}", "\0"),
    *("null", "{}", "[]", "[1", "[[1]]", "[[1, 2, 3]]", '[["a", 1]]', '["a", 1]', '[{"a": 1}]', "[NaN]", DEEP),
    *('[[60, ["a"], 1, ["x"], {}]]', "[[60, 5, 1, [1], {}]]", '[["x", ["a"], 1, [1], []]]', "2026-13-45T00:00:00Z"),
)
VALUES: dict[str, tuple[str | int | float | bytes, ...]] = {
    "TEXT": TEXTS,
    "INTEGER": (0, -1, 2**31, 2**62, 2**63 - 1, -(2**63)),
    "BLOB": (b"", b"x", BOMB, zlib.compress(b"1234567"), zlib.compress(bytes(24)), zlib.compress(b"\xff" * 32)),
}
VALUES["ANY"] = (*VALUES["TEXT"], *VALUES["INTEGER"], *VALUES["BLOB"][:2], 1.5, float("inf"))


MORE = (
    "INSERT INTO pruned VALUES ('events', 0, 60)",
    "INSERT INTO rejected VALUES ('events', 'future', 1)",
    "INSERT INTO rejected_in VALUES ('events', 'future', 60, '1', 1)",
    "INSERT INTO settled VALUES ('events', '0', '1', 1, 0)",
    "INSERT INTO late (job, slot, words) SELECT job, 60, words FROM counted",
    """INSERT INTO minute VALUES ('events', 60, 1, '5', '[[60, ["a"], 1, [1], {"x": 1}]]')""",
    "INSERT INTO replay VALUES (1, 0, 1, 0, 0, 0, 0, 0)",
    "INSERT INTO audit VALUES ('events', 60, 9, 9, 1, 1, 0, 0, 60, NULL, NULL)",
    "INSERT INTO pause VALUES ('events', 60)",
    "INSERT INTO setting VALUES ('carbon', 'one')",
    "UPDATE total SET changed = 1 WHERE slot = (SELECT MAX(slot) FROM total)",
)
READ: tuple[Callable[[str], object], ...] = (
    job_statuses,
    pauses,
    audits,
    series_counts,
    lambda path: totals(path, since=0, step=60),
    lambda path: read_snapshot(path, JOB, ALWAYS),
    lambda path: commits(path, JOB, at=2**62, until=10, beyond=0),
    lambda path: stored_slots(path, JOB, start=0, end=2**40, longest=60),
)
READ_STATE: tuple[Callable[[State], object], ...] = (
    lambda state: state.offsets(JOB),
    lambda state: state.progress(JOB),
    lambda state: state.position(JOB),
    lambda state: state.fingerprint(JOB),
    lambda state: (state.lowest(JOB, ALWAYS), state.slots(JOB), state.lacking(JOB), state.pruned(JOB)),
    lambda state: (state.settled(JOB), state.late_ids(JOB), state.late_rows(JOB)),
    lambda state: state.minutes(JOB, Window(0, 60)),
    lambda state: [
        state.outbox.changed(one.slot, one.step, after=-(2**62), upto=2**62, beyond=0, limit=10)
        for one in state.outbox.pending(-(2**62)).waiting
    ],
    lambda state: state.outbox.count_new(0, 2**62),
    lambda state: state.outbox.merge(1790000040, 60, (1790000040 // 3600 * 3600, 3600)),
    lambda state: state.outbox.take_replays(),
    lambda state: state.outbox.retarget("another"),
)


def columns(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Return the table, name and type of each column."""
    return connection.execute(
        "SELECT tables.name, columns.name, columns.type FROM sqlite_schema AS tables, "
        "pragma_table_info(tables.name) AS columns WHERE tables.type = 'table' ORDER BY 1, 2"
    ).fetchall()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a state in which every table has a row."""
    folder = tmp_path_factory.mktemp("good")
    life = Life(folder)
    life.insert((120, "login", "ok"), (60, "totp", "ok"))
    life.ship(wanted())
    life.given += 1  # a gap
    life.insert((50, "login", "ok"), (0, "totp", "ok"))
    life.ship(wanted())
    with life.state.writing("complete the tables") as connection:
        for statement in MORE:
            connection.execute(statement)
        tables = {table for table, *_ in columns(connection)}
        assert all(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables)
    life.state.close()
    return folder / "shipper.db"


@settings(max_examples=settings().max_examples // 5)
@given(st.data())
def test_any_value(good: Path, data: st.DataObject) -> None:
    """Whatever a column contains, a reader returns, or raises an error that tells what it read.

    Mutants: decode rows without `decoded`; unpack segments without a limit; compute with numbers of any size.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = f"{folder}/shipper.db"
        shutil.copy(good, path)
        with closing(sqlite3.connect(path)) as connection:
            table, column, kind = data.draw(st.sampled_from(columns(connection)))
            value = VALUES[kind][data.draw(st.integers(0, len(VALUES[kind]) - 1))]
            connection.execute("PRAGMA ignore_check_constraints = ON")
            connection.execute(f'UPDATE OR IGNORE {table} SET "{column}" = ?', (value,))
            connection.commit()
        for read in READ:
            attempt(partial(read, path))
        with suppress(ShipperError), State(path) as state:
            for read_state in READ_STATE:
                attempt(partial(read_state, state))


def attempt(read: Callable[[], object]) -> None:
    """Read; an error must have a short message, and a remedy."""
    error = None
    try:
        read()
    except ShipperError as raised:
        error = raised
    assert error is None or (len(str(error)) < 1000 and error.hint)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE history",
        "ALTER TABLE total RENAME COLUMN value TO amount",
        "CREATE TRIGGER again AFTER INSERT ON history BEGIN DELETE FROM watermark; END",
        "CREATE VIEW endless AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n",
    ],
)
def test_other_tables(good: Path, tmp_path: Path, statement: str) -> None:
    """A file with our mark and other tables is rejected as a whole. Mutant: look at the mark only."""
    path = str(tmp_path / "shipper.db")
    shutil.copy(good, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    for call in (State, job_statuses):
        with pytest.raises(StateCorrupt, match="another program has changed its tables"):
            call(path)


def test_table_of_an_operator(good: Path, tmp_path: Path) -> None:
    """Additional tables and indexes, as of ANALYZE, do no harm. Mutant: accept ours alone."""
    path = str(tmp_path / "shipper.db")
    shutil.copy(good, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ANALYZE")
        connection.execute("CREATE INDEX mine ON history (committed)")

    assert list(job_statuses(path)) == [JOB]
