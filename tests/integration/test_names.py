"""Named values and expressions as labels, through the program: every way of counting gives what GROUP BY gives."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders import query
from contract import FAR
from graphite_web import GraphiteWeb
from harness import EVENTS, Shipper, wait_for
from looks import Looks, wanted
from tables import DATABASES, Table, on

from shipper.core.errors import QueryRefused
from shipper.core.model import Condition, Names, Query, Row
from shipper.demo.carbon_cache import CarbonCache
from shipper.source.names import FRESH_SECONDS, MOST_NAMES, Lookups

PROGRAM = {
    "mariadb": "SUBSTRING_INDEX(tag, '[', 1)",
    "postgresql": "SPLIT_PART(tag, '[', 1)",
    "sqlite": "SUBSTR(tag, 1, INSTR(tag || '[', '[') - 1)",
}
JOBS = """
[job.given]
table = "audit_trail"
id = "id"
time = "created_at"
where = {{ code = [1, 2, 3, 4, 5] }}
by = ["code"]
names.code = {{ 1 = "added", 2 = "changed", 3 = "added" }}
measure = {{ count = "count", ms = "sum:duration_ms", most = "max:duration_ms" }}
name = "given.{{code}}.{{measure}}"

[job.found]
table = "audit_trail"
id = "id"
time = "created_at"
by = ["code", "source_column"]
by_sql = {{ source_column = "source" }}
names.code = "SELECT code, name FROM codes"
name = "found.{{code}}.{{source_column}}.{{measure}}"

[job.program]
table = "audit_trail"
id = "id"
time = "created_at"
lookback = "2h"
by = ["program"]
by_sql = {{ program = "{program}" }}
where = {{ outcome = "ok" }}
names.program = {{ sshd = "login" }}
name = "program.{{program}}.{{measure}}"
"""
WHERE = "where = { code = [1, 2, 3, 4, 5] }\n"
GIVEN = "CASE code WHEN 1 THEN 'added' WHEN 2 THEN 'changed' WHEN 3 THEN 'added' ELSE CAST(code AS CHAR(1)) END"
FOUND = "(SELECT name FROM codes WHERE codes.code = audit_trail.code AND name IS NOT NULL)"
NAMES = [(1, "login"), (2, "logout"), (3, "login"), (6, None)]
SELECT = "SELECT code, name FROM codes"
DIGITS = " UNION ALL ".join(f"SELECT {n} AS n" for n in range(10))
MANY = f"WITH d AS ({DIGITS}) SELECT a.n + 10 * (b.n + 10 * (c.n + 10 * (e.n + 10 * f.n))), a.n "
MANY += "FROM d a, d b, d c, d e, d f"


class Trail:
    """A table, a table of names, the program, and Graphite."""

    def __init__(self, table: Table, folder: Path, carbon: CarbonCache, web: GraphiteWeb) -> None:
        self.table, self.carbon = table, carbon
        self.program = PROGRAM[table.kind]
        self.prefix = f"names{time.monotonic_ns()}"
        self.app = Shipper(folder, url=table.url, port=carbon.port, jobs=JOBS.format(program=self.program))
        self.app.configure('prefix = "audit"', f'prefix = "{self.prefix}"\nrender_url = "{web.url}"')
        for column in ("code INT", "source VARCHAR(20)", "tag VARCHAR(40)"):
            table.execute(f"ALTER TABLE audit_trail ADD {column}")
        table.execute("CREATE TABLE codes (code INT, name VARCHAR(40))")
        for row in NAMES:
            table.execute("INSERT INTO codes VALUES (%s, %s)", row)
        self.begins = int(time.time()) // 60 * 60 - 3600

    def insert(self, *ids: int, code: int | None = None) -> None:
        """Commit rows, a few each minute of the past hour; with a code, this one and its name."""
        columns = "id, created_at, outcome, duration_ms, code, source, tag"
        with self.table.session() as execute:
            execute("BEGIN")
            if code is not None:
                execute("INSERT INTO codes VALUES (%s, %s)", (code, f"name-{code}"))
            for number in ids:
                created = datetime.fromtimestamp(self.begins + number % 7 * 60, UTC).strftime("%Y-%m-%d %H:%M:%S")
                own = code or number % 5 or None
                tag = ("sshd[12]", f"cron[{number}]", "kernel")[number % 3]
                values = (number, created, ("ok", "no")[number % 4 == 0], number, own, f"web{number % 2}", tag)
                execute(f"INSERT INTO audit_trail ({columns}) VALUES (%s, %s, %s, %s, %s, %s, %s)", values)
            execute("COMMIT")

    def truth(self) -> dict[str, dict[str, float]]:
        """Count the table by GROUP BY: slots and values by job, label and measure."""
        measures = "COUNT(*), SUM(duration_ms), MAX(duration_ms)"
        where = "code IN (1, 2, 3, 4, 5)" if WHERE in self.app.config.read_text() else "1 = 1"
        sums: dict[str, dict[str, float]] = {}

        def group(job: str, where: str, labels: list[str], *numbers: str) -> None:
            selected = ", ".join(f"{label} AS label{n}" for n, label in enumerate(labels))
            by = ", ".join(f"label{n}" for n in range(len(labels)))
            statement = f"SELECT created_at, {selected}, {measures} FROM audit_trail WHERE {where}"
            for created, *values in self.table.execute(f"{statement} GROUP BY created_at, {by}"):
                path = ".".join([self.prefix, job, *("none" if v is None else str(v) for v in values[:-3])])
                for number, value in zip(numbers, values[-3:], strict=False):
                    sums.setdefault(f"{path}.{number}", {})[str(created)[:19]] = float(value)

        group("given", where, [GIVEN], "count", "ms", "most")
        group("found", "1 = 1", [f"COALESCE({FOUND}, CAST(code AS CHAR(1)))", "source"], "count")
        group(
            "program",
            "outcome = 'ok'",
            [f"CASE {self.program} WHEN 'sshd' THEN 'login' ELSE {self.program} END"],
            "count",
        )
        return sums

    def shipped(self) -> dict[str, dict[str, float]]:
        """Return what Whisper has, without zeros."""
        series = {}
        for path, slots in self.carbon.sums().items():
            values = {_moment(slot): value for slot, value in slots.items() if value}
            if path.startswith(self.prefix) and values:
                series[path] = values
        return series

    def ship(self) -> None:
        """Capture and deliver once, and wait until Graphite has what the table has."""
        ended = self.app.call("once")
        assert ended.returncode == 0, ended.stderr
        wait_for(lambda: self.shipped() == self.truth(), f"{self.truth()}\n{self.shipped()}")

    def differences(self) -> int:
        """Compare by `shipper reconcile`; return the number of differences."""
        ended = self.app.call("reconcile", "-o", "json")
        assert ended.returncode in (0, 1), ended.stderr
        return sum(len(job["differences"]) for job in json.loads(ended.stdout)["jobs"])


def _moment(slot: int) -> str:
    return datetime.fromtimestamp(slot, UTC).strftime("%Y-%m-%d %H:%M:%S")


@pytest.fixture(params=DATABASES)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    """Give an empty table on each database."""
    with closing(on(request.param, request, tmp_path)) as table:
        yield table


@pytest.fixture
def trail(table: Table, tmp_path: Path, graphite: tuple[CarbonCache, GraphiteWeb]) -> Iterator[Trail]:
    """Give the table with codes, and the program beside it."""
    trail = Trail(table, tmp_path, *graphite)
    yield trail
    trail.app.stop(signal.SIGKILL)


def test_every_way_of_counting(trail: Trail) -> None:
    """Captures, late rows, recounts, backfills and comparisons agree on names and expressions.

    Mutant: no names in a span of time.
    """
    # captures, late rows, and a code that gets its name with its first row
    trail.insert(*range(1, 20), *range(22, 40))
    trail.ship()
    trail.insert(20, 21, 41, 42, code=5)
    trail.ship()

    # a changed definition, which recounts; a backfill of all
    trail.app.configure(WHERE, "")
    trail.insert(43, 44, code=7)
    trail.ship()
    assert trail.differences() == 0
    ended = trail.app.call("backfill", "found", "--from", "2h", "--until", "now", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert trail.shipped() == trail.truth()
    assert trail.differences() == 0


def test_name_that_changes(trail: Trail) -> None:
    """Rows stay under the name with which they were counted, once each; `reconcile --fix` moves them to the new one.

    Mutant: replace no total of a group that has gone.
    """
    trail.insert(*range(1, 40))
    trail.ship()
    trail.table.execute("UPDATE codes SET name = 'entry' WHERE name = 'login'")
    trail.insert(*range(40, 50))
    assert trail.app.call("once").returncode == 0

    def sums() -> float:
        return sum(sum(slots.values()) for path, slots in trail.shipped().items() if ".found." in path)

    wait_for(lambda: sums() == 49, "49 rows, each once")
    assert any(".found.entry." in path for path in trail.shipped())
    assert any(".found.login." in path for path in trail.shipped())
    assert trail.differences() > 0
    assert trail.app.call("reconcile", "--fix", "--yes").returncode == 0
    wait_for(lambda: trail.shipped() == trail.truth(), "all rows under the new name")
    assert trail.differences() == 0


def named(sql: str = SELECT) -> Query:
    """Return a query with names of codes."""
    return query(by=("code",), names=(Names("code", sql=sql),))


def rows(*codes: str | None) -> list[Row]:
    """Return a row of each code."""
    return [Row(0, (code,), 1, (1,)) for code in codes]


@pytest.fixture
def codes(table: Table) -> Table:
    """Give the table with codes, and the names of some."""
    table.execute("ALTER TABLE audit_trail ADD code INT")
    table.execute("CREATE TABLE codes (code INT, name VARCHAR(40), extra INT)")
    for row in NAMES:
        table.execute("INSERT INTO codes (code, name) VALUES (%s, %s)", row)
    return table


def test_names_are_read_again(codes: Table) -> None:
    """A value that was not seen before reads the names again at once, one without a name after a minute.

    Mutants: read them for each unknown value; never read them again.
    """
    now = [1000.0]
    lookups = Lookups(codes.connections, clock=lambda: now[0])

    def labels(*given: str | None) -> list[str | None]:
        return [row.group[0] for row in lookups.renamed(named(), rows(*given))]

    assert labels("1", "2", "3", "6", "7", None) == ["login", "logout", "login", "6", "7", None]
    codes.execute("INSERT INTO codes (code, name) VALUES (7, 'seven')")
    codes.execute("UPDATE codes SET name = 'entry' WHERE code = 1")
    assert labels("1", "7") == ["login", "7"]
    assert labels("1", "8") == ["entry", "8"]
    codes.execute("INSERT INTO codes (code, name) VALUES (8, 'eight')")
    assert labels("7", "8") == ["seven", "8"]
    now[0] += FRESH_SECONDS
    assert labels("8") == ["eight"]


def test_names_of_custom_sql(codes: Table) -> None:
    """Labels of custom sql have names, as well."""
    codes.execute("INSERT INTO audit_trail (id, code) VALUES (1, 1), (2, 3), (3, 9)")
    sql = "SELECT code, COUNT(*) AS count FROM audit_trail WHERE id > :after AND id <= :upto GROUP BY code"
    custom = codes.prepared(replace(named(), sql=sql, time=None))

    assert {(row.group[0], row.rows) for row in codes.read(custom, FAR)} == {("login", 1), ("9", 1)}
    assert sum(row.rows for row in codes.read(custom, FAR)) == 3


@pytest.mark.parametrize(
    ("sql", "message", "hint"),
    [
        ("SELECT code FROM codes", "its result has 1 columns", "Select two"),
        ("SELECT code, name, extra FROM codes", "its result has 3 columns", "Select two"),
        ("SELECT code, name FROM codes WHERE code > 99", "its result is empty", "Fill"),
        ("SELECT 1 AS a, name FROM codes", "'1' has two names, 'login' and 'logout'", "one name for each"),
        ("SELECT code, nme FROM codes", "nme", "Check the names"),
        (
            MANY,
            f"its result has more than {MOST_NAMES} rows",
            "that occur",
        ),
    ],
)
def test_names_that_cannot_be_read(codes: Table, sql: str, message: str, hint: str) -> None:
    """A SELECT that gives no certain names fails the capture and `check`; nothing is counted under a wrong name."""
    codes.execute("INSERT INTO audit_trail (id, code) VALUES (1, 1)")
    for call in (lambda: codes.read(named(sql), FAR), lambda: codes.prepared(named(sql))):
        with pytest.raises(QueryRefused) as caught:
            call()
        assert str(caught.value).startswith("read names.code: ")
        assert message in str(caught.value)
        assert hint in str(caught.value.hint)


def test_names_that_cannot_be_computed(codes: Table) -> None:
    """An error in the SELECT of names is no error of a counted row: no row is set aside. Mutant: let it through."""
    overflows = "SELECT SUM(n), 'x' FROM (SELECT 9223372036854775807 AS n UNION ALL SELECT 1) AS numbers"
    with pytest.raises(QueryRefused) as caught:
        codes.prepared(named(overflows if codes.kind == "sqlite" else "SELECT 9223372036854775807 + 1, 'x'"))

    assert type(caught.value) is QueryRefused
    assert str(caught.value).startswith("read names.code: ")


def test_names_change_under_a_job(codes: Table, tmp_path: Path) -> None:
    """In one process, too, a row is counted once: under the name of its time, after a recount under the present one.

    Mutant: keep the totals of a group that has gone.
    """
    with closing(Looks(codes, tmp_path)) as looks:
        job = wanted(by=("code",), names=(Names("code", sql=SELECT),), template="events.{code}.{measure}")

        def insert(*pairs: tuple[int, int]) -> None:
            for number, code in pairs:
                values = (number, looks.created(5), code)
                codes.execute("INSERT INTO audit_trail (id, created_at, code) VALUES (%s, %s, %s)", values)

        def totals() -> dict[str, int]:
            statement = "SELECT path, value FROM total JOIN series ON series.id = total.series WHERE value <> 0"
            return {path.split(".")[1]: value for path, value in looks.state._connection.execute(statement)}

        insert((1, 1), (2, 3), (4, 2))
        looks.look(job)
        assert totals() == {"login": 2, "logout": 1}
        codes.execute("UPDATE codes SET name = 'entry' WHERE name = 'login'")
        insert((5, 9))  # a value that was not seen before
        looks.look(job)
        insert((3, 1))  # a late row
        looks.look(job)
        assert totals() == {"login": 2, "entry": 1, "logout": 1, "9": 1}
        where = (Condition("code", "gt", (0,)),)  # a changed definition is a recount
        looks.look(wanted(by=job.query.by, names=job.query.names, template=job.template, where=where))

        assert totals() == {"entry": 3, "logout": 1, "9": 1}


def program(table: Table, folder: Path, *changes: tuple[str, str]) -> Shipper:
    """Return the program, which cannot deliver, with a job that has names of codes."""
    job = EVENTS.replace('["action"]', f'["code"]\nnames.code = "{SELECT}"').replace("{action}", "{code}")
    for before, after in changes:
        assert before in job
        job = job.replace(before, after)
    return Shipper(folder, url=table.url, port=9, jobs=job)


def complaints(app: Shipper) -> dict[str, str]:
    """Return the errors of `shipper check` about the table and its job, with their remedies."""
    findings = json.loads(app.call("check", "-o", "json").stdout)["findings"]
    subjects = ("table", "job")
    bad = [one for one in findings if not one["is_good"] and one["subject"].startswith(subjects)]
    return {f"{one['subject']}: {one['text']}": one["remedy"] for one in bad}


def test_check_reads_names(codes: Table, tmp_path: Path) -> None:
    """`check` and `preview` read the names: both use what a capture would, or fail as it would."""
    codes.execute(
        "INSERT INTO audit_trail (id, created_at, code) VALUES (1, %s, 3)", (_moment(int(time.time()) - 600),)
    )
    app = program(codes, tmp_path, ("[job.events]", '[job.events]\ngroups = ["logout"]'))
    assert complaints(app) == {}
    shown = app.call("preview", "events", "--limit", "0").stdout
    codes.execute("DELETE FROM codes")

    assert "audit.events.login.count 1 " in shown
    assert "audit.events.logout.count 0 " in shown
    assert complaints(app) == {
        "job events: read names.code: its result is empty": "Fill the table of names, or remove this key."
    }
    assert "names.code: its result is empty" in app.call("preview", "events").stderr


def test_check_names_a_table_in_another_case(codes: Table, tmp_path: Path) -> None:
    """A table in the wrong case, or misspelled, has the remedy with the right name. Mutant: compare with the case."""
    wrong = "audit_trial" if codes.kind == "sqlite" else "AUDIT_TRAIL"
    schema = "" if codes.kind == "sqlite" else {"postgresql": "public."}.get(codes.kind, "app.")
    for prefix in {"", schema}:
        app = program(codes, tmp_path, ('table = "audit_trail"', f'table = "{prefix}{wrong}"'))

        assert list(complaints(app).values()) == [f'Did you mean "{prefix}audit_trail"?']
    app = program(codes, tmp_path, ('table = "audit_trail"', 'table = "nothing_like_it"'))
    assert "Did you mean" not in str(complaints(app))
