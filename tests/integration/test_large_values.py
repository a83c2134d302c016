"""Values of any length in columns that jobs group by: exact groups, in the memory that the unit allows."""

import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import query
from contract import FAR
from harness import EVENTS, Shipper
from hostile.rogue import Rogue
from hostile.rogue_graphite import Graphite
from hostile.sink import Sink
from looks import Looks, wanted
from tables import DATABASES, Table, on, on_mariadb, on_sqlite

from shipper.core.errors import QueryRefused, RowRefused
from shipper.core.measures import Kind, Measure
from shipper.core.model import Query, Row, Span, Window
from shipper.core.paths import label
from shipper.core.rows import table as table_reading
from shipper.source import database
from shipper.source.result import rows_of
from shipper.source.statements.counts import counted

MOST_MEGABYTES = 180
"""The unit's MemoryHigh is 192 MB."""
HUGE, LARGE = 60_000_000, 1_000_000
COMMANDS = (
    *("preview events", "once", "history events", "reconcile --from 1h events"),
    *("backfill --from 1h --until now --yes events", "check"),
)
SHIPPER = """
import atexit, runpy
atexit.register(lambda: print(open("/proc/self/status").read()))
runpy.run_module("shipper.cli", run_name="__main__", alter_sys=True)
"""
WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("INSERT INTO audit_trail (id, created_at, action) VALUES (?, ?, ?)",
    (int(sys.argv[2]), sys.argv[3], "x" * int(sys.argv[4]) + sys.argv[2]))
connection.commit()
"""
LONG_TEXT = {"mysql": "MODIFY action LONGTEXT", "postgresql": "ALTER action TYPE TEXT"}
SHORT = {
    "mysql": {"VARCHAR(100)", "CHAR(20)", "ENUM('a', 'b')", "BIGINT", "DECIMAL(40, 5)", "DATETIME(6)", "BINARY(16)"},
    "postgresql": {"VARCHAR(100)", "CHAR(20)", "UUID", "BIGINT", "NUMERIC(40, 5)", "TIMESTAMP", "BOOLEAN"},
    "sqlite": set[str](),
}
LONG = {
    "mysql": {"VARCHAR(101)", "TEXT", "BLOB", "JSON"},
    "postgresql": {"VARCHAR(101)", "TEXT", "BYTEA", "JSONB", "VARCHAR", "NUMERIC"},
    "sqlite": {"VARCHAR(64)", "INTEGER"},
}


def write(table: Table, identity: int, length: int, folder: Path) -> None:
    """Insert a row with a long action; this process does not hold it."""
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    if table.kind == "sqlite":
        values = map(str, (folder / "app.db", identity, now, length))
        subprocess.run([sys.executable, "-c", WRITE, *values], check=True)
    else:
        action = f"CONCAT(REPEAT('x', {length}), {identity})"
        table.execute(f"INSERT INTO audit_trail (id, created_at, action) VALUES (%s, %s, {action})", (identity, now))


@pytest.fixture(params=DATABASES)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    """Give a table with an action of any length, on each kind of database."""
    with closing(on(request.param, request, tmp_path)) as table:
        if change := LONG_TEXT.get(_family(table)):
            table.execute(f"ALTER TABLE audit_trail {change}")
        if table.kind == "mariadb":
            table.execute("SET GLOBAL max_allowed_packet = 134217728")
        yield table
        if table.kind == "mariadb":
            table.execute("SET GLOBAL max_allowed_packet = DEFAULT")


def _family(table: Table) -> str:
    return "mysql" if table.kind == "mariadb" else table.kind


def peak_megabytes(program: Shipper, command: str, *, code: int = 0) -> tuple[int, str]:
    """Run a command with an exit code, and return the most memory that it took, and what it wrote."""
    arguments = [*command.split(), "--config", str(program.config)]
    done = subprocess.run([sys.executable, "-c", SHIPPER, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr[-2000:]
    found = re.search(r"VmHWM:\s*(\d+) kB", done.stdout)
    assert found is not None
    return int(found[1]) // 1000, done.stdout + done.stderr


def test_memory(table: Table, tmp_path: Path) -> None:
    """Values of 60 MB and of 1 MB take no more memory than short ones; each is a group. Mutant: the whole value."""
    write(table, 1, HUGE, tmp_path)
    for identity in range(2, 22):
        write(table, identity, LARGE, tmp_path)
    write(table, 22, 1, tmp_path)
    graphite = Graphite()
    with closing(Rogue(graphite.web)) as web, closing(Rogue(graphite.carbon)) as carbon:
        program = Shipper(tmp_path, url=table.url, port=carbon.port, jobs=EVENTS)
        text = program.config.read_text()
        program.config.write_text(text.replace("[graphite]", f'[graphite]\nrender_url = "http://127.0.0.1:{web.port}"'))
        for command in COMMANDS:
            megabytes, text = peak_megabytes(program, command)
            assert megabytes < MOST_MEGABYTES, command
            assert len(text) < 20_000, command

    with closing(sqlite3.connect(tmp_path / "shipper.db")) as state:
        (series, longest) = state.execute('SELECT COUNT(*), MAX(LENGTH("group")) FROM series').fetchone()
        (rows,) = state.execute("SELECT SUM(value) FROM total").fetchone()
        rejected = dict(state.execute("SELECT reason, rows FROM rejected WHERE rows > 0").fetchall())
    # SQLite is part of this process, and reads values whole
    assert rejected == ({"unreadable": 1} if table.kind == "sqlite" else {})
    assert series == rows == 22 - sum(rejected.values())
    assert longest < 200


def test_value_beyond_the_packet(request: pytest.FixtureRequest) -> None:
    """A value larger than max_allowed_packet has its label. Mutant: CAST AS BINARY of the value, which gives NULL."""
    server = request.getfixturevalue("mariadb")
    with closing(on_mariadb(server)) as table:
        table.execute("ALTER TABLE audit_trail ADD x LONGBLOB, MODIFY action LONGTEXT")
        action = "REPEAT('x', 3000000)"
        table.execute(f"INSERT INTO audit_trail (id, action, x) VALUES (1, {action}, {action})")
        table.execute("SET GLOBAL max_allowed_packet = 1048576")
        try:
            (row,) = table.read(query(by=("action", "x")), FAR)
        finally:
            table.execute("SET GLOBAL max_allowed_packet = DEFAULT")

    assert row.group == (label("x" * 3_000_000),) * 2


@pytest.mark.parametrize("kind", DATABASES)
def test_short_types(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """Types that allow no long values cost nothing more. Mutants: each type is short; none is."""
    with closing(on(kind, request, tmp_path)) as table:
        types = sorted(SHORT[_family(table)]) + sorted(LONG[_family(table)])
        for number, type_ in enumerate(types):
            table.execute(f"ALTER TABLE audit_trail ADD c{number} {type_}")
        by = tuple(f"c{number}" for number in range(len(types)))
        prepared, family = table.prepared(query(by=by, time=None)), _family(table)
        short = replace(prepared, by=tuple(sorted(prepared.short)))
        sql = str(counted(short, is_within=False).compile(dialect=table.connections.engine.dialect))

    assert {types[by.index(name)] for name in prepared.short} == SHORT[family]
    assert "sha" not in sql.lower()


def test_memory_along_a_time(tmp_path: Path) -> None:
    """A minute with more values than memory should hold is refused; the message tells the limit. Mutant: no limit."""
    groups = 30_000
    with closing(on_sqlite(tmp_path / "app.db")) as table, closing(Sink()) as sink:
        table.execute("CREATE INDEX times ON audit_trail (created_at)")
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - 120))
        action = f"printf('%08d', value) || '{'x' * 247}'"
        numbers = f"WITH RECURSIVE number (value) AS (VALUES (1) UNION ALL SELECT value + 1 FROM number LIMIT {groups})"
        table.execute(f"{numbers} INSERT INTO audit_trail (created_at, action) SELECT '{now}', {action} FROM number")
        program = Shipper(
            tmp_path, url=table.url, port=sink.port, jobs=EVENTS.replace('id = "id"', 'id = "created_at"')
        )
        megabytes, text = peak_megabytes(program, "once", code=1)

    assert "more than 10000 groups in the minute" in text
    assert megabytes < MOST_MEGABYTES


def test_memory_of_several_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Very many groups of several long labels, each letter of four bytes, take no more memory than the unit has.

    Mutants: cache the names of long groups; a limit of cells, however many labels they have.
    """
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    groups, columns = 40_000, ("action", "outcome", "user_agent")
    with closing(on_sqlite(tmp_path / "app.db")) as table, closing(Sink()) as sink:
        for name in columns[2:]:
            table.execute(f"ALTER TABLE audit_trail ADD {name} TEXT")
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - 120))
        values = ", ".join([f"value || '{chr(0x1F642) * 120}'"] * len(columns))
        numbers = f"WITH RECURSIVE number (value) AS (VALUES (1) UNION ALL SELECT value + 1 FROM number LIMIT {groups})"
        names = f"created_at, {', '.join(columns)}"
        table.execute(f"{numbers} INSERT INTO audit_trail ({names}) SELECT '{now}', {values} FROM number")
        by = f'lookback = "1h"\nby = {[*columns]}'
        name = "{" + "}.{".join(columns) + "}"
        jobs = EVENTS.replace('by = ["action"]', by).replace("{action}", name)
        program = Shipper(tmp_path, url=table.url, port=sink.port, jobs=jobs)
        megabytes, text = peak_megabytes(program, "once")

    assert f"rows={groups} " in text
    assert megabytes < MOST_MEGABYTES


@pytest.mark.parametrize("along", [False, True])
def test_window_with_many_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, along: bool) -> None:
    """A window with more groups than memory should hold is halved; of one second, each is counted.

    Mutants: no limit; the limit for one second, too, whose rows would be unreadable.
    """
    answers: list[int] = []

    def noted(one: Query, result: Any) -> list[Row]:
        rows = rows_of(one, result)
        answers.append(len(rows))
        return rows

    monkeypatch.setattr(table_reading, "MOST_LABELS", 4)
    monkeypatch.setattr(database, "rows_of", noted)
    with closing(on_sqlite(tmp_path / "app.db")) as table, closing(Looks(table, tmp_path)) as looks:
        for identity in range(1, 21):
            table.insert(identity, looks.created(), f"action{identity}")
        job = wanted(id="created_at" if along else "id")
        looks.look(job)

        assert (looks.total(job), looks.rejected(job)) == (20, {})
    assert max(answers) == (20 if along else 5)


def test_answer_of_sqlite(tmp_path: Path) -> None:
    """An answer of SQLite has the limit of a server's, each answer by itself; a shorter one can be read then.

    Mutants: no limit; one of all answers together.
    """
    users = query(by=("action",), measures=(Measure("users", Kind.DISTINCT, "outcome"),))
    with closing(on_sqlite(tmp_path / "app.db")) as table, closing(Looks(table, tmp_path)) as looks:
        action = f"value || '{chr(0x1F642) * 90}'"
        numbers = "WITH RECURSIVE number (value) AS (VALUES (1) UNION ALL SELECT value + 1 FROM number LIMIT 60000)"
        added = f"SELECT value, '{looks.created()}', {action} FROM number"
        table.execute(f"{numbers} INSERT INTO audit_trail (id, created_at, action) {added}")
        span = Span(looks.now - 60, looks.now + 60)
        with pytest.raises(RowRefused, match="larger than 16 MiB"):
            table.read_undivided(users, Window(0, 60_000), span)
        halves = [table.read_undivided(users, Window(after, after + 30_000), span) for after in (0, 30_000)]

    assert [len(half) for half in halves] == [30_000, 30_000]


def test_answer_that_cannot_be_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers of one second, and of indivisible measures, have a limit, too; the error tells it.

    Mutants: no limit for them; a second that is set aside.
    """
    monkeypatch.setattr(database, "MOST_AT_ONCE", 4)
    monkeypatch.setattr(table_reading, "MOST_LABELS", 4)
    users = query(by=("action",), measures=(Measure("users", Kind.DISTINCT, "outcome"),))
    with closing(on_sqlite(tmp_path / "app.db")) as table, closing(Looks(table, tmp_path)) as looks:
        for identity in range(1, 6):
            table.insert(identity, looks.created(), f"action{identity}")
        with pytest.raises(QueryRefused, match="more than 4 groups"):
            table.read_undivided(users, FAR, Span(looks.now - 60, looks.now + 60))
        with pytest.raises(QueryRefused, match="more than 4 groups"):
            looks.look(wanted(id="created_at"))
