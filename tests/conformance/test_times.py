"""Times as programs store them: in each kind of column, rows count in the buckets of their times, on every database."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database, memory_folder, opened
from table import Case, epoch
from tables import DATABASES
from test_conformance import Run, assert_case, configured

from shipper.core.errors import QueryRefused, SourceUnavailable
from shipper.core.model import Window

AT = epoch("14:00:30")
ONCE = {"14:00": 1}
BIGINT = {"mysql": "BIGINT", "postgresql": "BIGINT", "sqlite": "INTEGER"}
DOUBLE = {"mysql": "DOUBLE", "postgresql": "FLOAT8", "sqlite": "REAL"}
DECIMAL = {"mysql": "DECIMAL(30,6)", "postgresql": "NUMERIC(30,6)", "sqlite": "NUMERIC"}
TEXT = {"mysql": "VARCHAR(60)", "postgresql": "TEXT", "sqlite": "TEXT"}
LABEL = {"mysql": "CHAR(40)", "postgresql": "CHAR(40)", "sqlite": "TEXT"}
BINARY = {"mysql": "VARBINARY(40)", "sqlite": "BLOB"}
TIME = {"mysql": "TIME", "postgresql": "TIME"}


@dataclass(frozen=True)
class Kind:
    """Values of a column, as literals of SQL, and where they count."""

    name: str
    types: Mapping[str, str]
    """Types of the column, by SQLAlchemy's name of the database; it is left out where there is none."""
    values: Sequence[object]
    expected: Mapping[str, float]
    job: str = ""
    no_time: int = 0
    rejected: dict[str, int] = field(default_factory=dict)


def _numbers(unit: str, units: int) -> list[Kind]:
    """Return the kinds of epochs in a unit."""
    lines = f'time_unit = "{unit}"'
    whole = [(AT + second) * units for second in (0, 29, 30)]
    odd = [0, None, -1, -units * 60, 2**62, 20260921140030 * 10**5]
    ends = [*whole, (AT + 30) * units - 1]
    rejected = {"no_time": 4, "too_old": 2}
    integers = Kind(f"integers, {unit}", BIGINT, [*ends, *odd], {"14:00": 3, "14:01": 1}, lines, rejected=rejected)
    fractions = [(AT + 29) * units + units - 0.25, (AT + 30) * units + 0.25]
    expected = {"14:00": 3, "14:01": 2}
    return [
        integers,
        Kind(f"decimals, {unit}", DECIMAL, [*whole, *fractions], expected, lines),
        Kind(f"floats, {unit}", DOUBLE, [*whole, *fractions], expected, lines),
        Kind(
            f"numbers in texts, {unit}",
            TEXT,
            [*map(str, [*ends, *fractions]), "0", "", "x", "9" * 31, "9" * 55],
            {"14:00": 4, "14:01": 2},
            lines,
            no_time=5,
        ),
    ]


def _iso(*suffixes: str) -> list[str]:
    return [f"2026-09-21{suffix}" for suffix in suffixes]


KINDS = [
    *_numbers("s", 1),
    *_numbers("ms", 1000),
    *_numbers("us", 1_000_000),
    Kind(
        "unsigned",
        {"mysql": "BIGINT UNSIGNED"},
        [AT, 2**64 - 1],
        ONCE,
        'time_unit = "s"',
        no_time=1,
    ),
    Kind("small integers", {"mysql": "INT UNSIGNED", "postgresql": "INT"}, [AT, 0], ONCE, 'time_unit = "s"', no_time=1),
    Kind(
        "no finite number",
        {"postgresql": "FLOAT8"},
        [AT, "NaN", "Infinity", "-Infinity", 1e300],
        ONCE,
        'time_unit = "s"',
        no_time=4,
    ),
    Kind(
        "iso with offsets",
        TEXT,
        _iso(
            *("T14:00:30Z", "T09:00:30-05:00", "T15:00:30.999999999+0100", " 15:00:30 +01", "T19:30:30.5+05:30"),
            *(" 14:00:30 UTC", " 14:00:30.25 +0000 UTC", "T14:00Z", "T14:00:30z", "T13:30:59,9-00:30"),
            *("t14:00:30z", "t15:00:30.5+01:00"),
        ),
        {"14:00": 12},
    ),
    Kind(
        "iso without offsets",
        TEXT,
        [*_iso(" 14:00:30", "T14:00:59.9999999", " 14:00", "T14:01:00 ", "t14:01:00"), " 2026/09/21 14:01:59"],
        {"14:00": 3, "14:01": 3},
    ),
    Kind(
        "offsets beside a time zone",
        TEXT,
        _iso("T14:00:30Z", "T09:00:30-05:00", " 16:00:30", "T15:00:30+01:00", " 16:00"),
        {"14:00": 5},
        'time_zone = "Europe/Berlin"',
    ),
    Kind("epochs beside a time zone", BIGINT, [AT], ONCE, 'time_zone = "Europe/Berlin"\ntime_unit = "s"'),
    Kind(
        "digits in texts",
        TEXT,
        ["20260921140030", "20260921T140030Z", "20260921t150030+0100", "20260921140130.5"],
        {"14:00": 3, "14:01": 1},
    ),
    Kind("digits in bytes", BINARY, ["20260921140030", "20260921140130"], {"14:00": 1, "14:01": 1}),
    Kind("digits in padded texts", LABEL, ["20260921140030", "2026-09-21T15:00:30+01:00"], {"14:00": 2}),
    Kind(
        "digits in numbers",
        BIGINT,
        [20260921140030, 20260921140130, 1012101010, 0],
        {"14:00": 1, "14:01": 1},
        no_time=2,
    ),
    Kind("digits beside a time zone", BIGINT, [20260921160030], ONCE, 'time_zone = "Europe/Berlin"'),
    Kind("days in numbers", BIGINT, [20260921, 20260920], {"00:00": 1, "2026-09-20 00:00:00": 1}),
    Kind("days", {"mysql": "DATE", "postgresql": "DATE", "sqlite": "TEXT"}, ["2026-09-21"], {"00:00": 1}),
    Kind("days in texts", TEXT, ["2026-09-21", "20260921"], {"00:00": 2}),
    Kind(
        "garbage beside times",
        TEXT,
        [
            *_iso(" 14:00:30", " 25:00:00", " 14:60:00", " 14:00:30 EST", "T14:00:30+99:00"),
            *("21/09/2026 14:00:30", "", "now", "2026-13-21 14:00", "0000-00-00 00:00:00", "14:00:30", "1"),
        ],
        ONCE,
        no_time=11,
    ),
    Kind(
        "days that are none",
        {"postgresql": "TEXT"},
        [*_iso(" 14:00"), "2026-02-30", "2026-02-29", "2026-04-31"],
        ONCE,
        no_time=3,
    ),
    Kind("moments", {"mysql": "TIMESTAMP NULL", "postgresql": "TIMESTAMPTZ"}, _iso(" 14:00:30"), ONCE),
    *(
        Kind(
            f"{name} along, to infinity",
            {"postgresql": type_},
            ["infinity", *_iso(" 14:00:30"), "-infinity", "20000-01-01"],
            {time: 1},
            'id = "at"',
            rejected={"no_time": 1, "future": 2},
        )
        for name, type_, time in (("moments", "TIMESTAMPTZ", "14:00"), ("days", "DATE", "00:00"))
    ),
    Kind("domains over times", {"postgresql": "stamp"}, _iso(" 14:00:30"), ONCE),
    Kind("domains over numbers", {"postgresql": "epoch"}, [AT], ONCE, 'time_unit = "s"'),
    Kind("zero dates", {"mysql": "DATETIME"}, [*_iso(" 14:00:30"), "0000-00-00 00:00:00", None], ONCE, no_time=2),
    Kind("days of Julius", {"sqlite": "REAL"}, [2461305.0836806], ONCE),
    Kind(
        "any value",
        {"sqlite": ""},
        [AT * 1000, float(AT * 1000), str(AT * 1000), *_iso(" 14:00:30", "T15:00:30+01:00")],
        {"14:00": 5},
        'time_unit = "ms"',
    ),
]


@pytest.fixture(autouse=True)
def _no_table(database: Database) -> None:
    database.execute("DROP TABLE IF EXISTS kinds")
    database.execute("DELETE FROM audit_trail")


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Provide the table on each kind of database."""
    with opened(request.param, request, tmp_path_factory) as database:
        yield database


@pytest.fixture
def folder() -> Iterator[Path]:
    """Provide a folder in memory."""
    with memory_folder() as folder:
        yield folder


def possible(columns: Sequence["Kind | Refused"]) -> list[Any]:
    """Return each column with each database that has its type."""
    return [
        pytest.param(column, name, id=f"{column.name} {column.job}-{name}")
        for column in columns
        for name in DATABASES
        if name.replace("mariadb", "mysql") in column.types
    ]


def dialect_of(database: Database) -> str:
    """Return mysql, postgresql or sqlite."""
    return database.source.connections.engine.dialect.name


def create(database: Database, type_: str, more: str = "") -> None:
    """Make the table of a kind."""
    for statement in (
        "SET SESSION sql_mode = ''",  # MySQL's zero dates
        *("CREATE DOMAIN stamp AS TIMESTAMP", "CREATE DOMAIN epoch AS BIGINT"),
    ):
        with suppress(Exception):
            database.execute(statement)
    database.execute(f"CREATE TABLE kinds (id INTEGER PRIMARY KEY, at {type_} NULL, action VARCHAR(9){more})")


def insert(database: Database, values: Sequence[object]) -> None:
    """Insert rows with these times, with ids that continue."""
    with database.source.connections.engine.connect() as connection:
        last = connection.execute(sa.text("SELECT MAX(id) FROM kinds")).scalar() or 0
    for number, value in enumerate(values, last + 1):
        literal = "NULL" if value is None else repr(value)
        database.execute(f"INSERT INTO kinds (id, at, action) VALUES ({number}, {literal}, 'login')")


def case(job: str, expected: Mapping[str, float], rejected: dict[str, int]) -> Case:
    """Return the case of a job on the table."""
    lines = "table = 'kinds'\n" + ("" if "time_sql" in job else "time = 'at'\n") + job
    return Case("kind", [], {"login count": dict(expected)} if expected else {}, lines, rejected)


@pytest.mark.parametrize(("kind", "database"), possible(KINDS), indirect=["database"], scope="module")
def test_kind(kind: Kind, database: Database, folder: Path) -> None:
    """Rows count in the buckets of their times, in Whisper and by `reconcile`; others are rejected by reason."""
    create(database, kind.types[dialect_of(database)])
    insert(database, kind.values[:1])
    rejected = kind.rejected or ({"no_time": kind.no_time} if kind.no_time else {})

    def way(run: Run) -> None:
        run.capture()
        insert(database, kind.values[1:])
        run.capture(chunk=2)

    with closing(Run(case(kind.job, kind.expected, rejected), database, folder)) as run:
        assert_case(run, way)


@dataclass(frozen=True)
class Refused:
    """Values of a column that are no times for a job, with the error and its remedy, by database or for all."""

    name: str
    types: Mapping[str, str]
    values: Sequence[object]
    message: str
    hint: dict[str, str] | str
    job: str = ""


def _of_unit(unit: str) -> str:
    return f'Set `time_unit = "{unit}"`: that value is then 2026-09-21 14:00:30 UTC.'


_NO_UNIT = "Set `time` to another column, or write `time_sql`"
_COMBINED = {"mysql": "TIMESTAMP(DAY, at)", "postgresql": "DAY + at", "sqlite": "DAY || ' ' || at"}
_PARSED = {"mysql": "STR_TO_DATE(at, ", "postgresql": "TO_TIMESTAMP(at, ", "sqlite": "SUBSTR(at,7,4) || '-'"}
REFUSED = [
    *(
        Refused(f"{name} of {unit}", types, [AT * units], f"is {AT * units}", _of_unit(unit), job)
        for unit, units in {"s": 1, "ms": 1000, "us": 1_000_000}.items()
        for name, types in {"integers": BIGINT, "floats": DOUBLE, "texts": TEXT}.items()
        for job in ["", f'time_unit = "{"ms" if unit == "s" else "s"}"']
    ),
    Refused(
        "nanoseconds", BIGINT, [AT * 10**9], 'not a current time with time_unit = "us"', "time_sql", 'time_unit = "us"'
    ),
    Refused("digits", BIGINT, [20260921140030], "is a date in digits", "Remove `time_unit`", 'time_unit = "s"'),
    Refused("digits of days", BIGINT, [20260921], "is a date in digits", "Remove `time_unit`", 'time_unit = "s"'),
    Refused("ids", BIGINT, [1, 2, 3], "is 3, which is not a time", _NO_UNIT),
    Refused("times of a day", TIME, ["08:00:00"], "at has type time", _COMBINED),
    Refused("times of a day, in an empty table", TIME, [], "at has type time", _COMBINED),
    Refused("times of a day in texts", TEXT, ["08:00:00"], "is '08:00:00', which is not a time", _COMBINED),
    Refused("days first", TEXT, ["21/09/2026 14:00:30", None, ""], "is '21/09/2026 14:00:30', which is", _PARSED),
    Refused("words", TEXT, ["yesterday"], "is 'yesterday', which is not a time", _PARSED),
    Refused("intervals", {"postgresql": "INTERVAL"}, ["1 day"], "at has type interval", _NO_UNIT),
    Refused("truth", {"postgresql": "BOOLEAN"}, [True], "at has type boolean", _NO_UNIT),
    Refused("json", {"mysql": "JSON", "postgresql": "JSONB"}, ['{"a": 1}'], "", {}),
    Refused("bits", {"mysql": "BIT(1)"}, [1], "at has type bit", _NO_UNIT),
    Refused("texts as id", TEXT, ["2026-09-21T14:00:30Z"], "do not sort by time", "indexed time", 'id = "at"'),
    Refused(
        "numbers in texts as id",
        TEXT,
        [str(AT * 1000)],
        "do not sort by time",
        "indexed",
        'id = "at"\ntime_unit = "ms"',
    ),
    Refused("digits as id", {"sqlite": "INTEGER"}, [20260921140030], "do not sort by time", "indexed", 'id = "at"'),
    Refused(
        "days of Julius as id", {"sqlite": "REAL"}, [2461305.0836806], "do not sort by time", "indexed", 'id = "at"'
    ),
    *(
        Refused(
            f"texts with {zone} as id",
            {"sqlite": "TEXT"},
            [f"2026-09-21 16:00:30{zone}"],
            "do not sort by time",
            "index",
            job,
        )
        for zone, job in {"+02:00": 'id = "at"', "Z": 'id = "at"\ntime_zone = "Europe/Berlin"'}.items()
    ),
    Refused("years", {"mysql": "YEAR"}, [2026], "at has type year", _NO_UNIT),
    Refused("enums", {"mysql": "ENUM('a')"}, ["a"], "is 'a', which is not a time", _PARSED),
    Refused("uuids", {"postgresql": "UUID"}, ["8a1f4a2e-0000-4000-8000-000000000000"], "at has type uuid", _NO_UNIT),
    Refused(
        "times with a unit",
        {"mysql": "DATETIME", "postgresql": "TIMESTAMP"},
        ["2026-09-21 14:00:30"],
        "at contains times, not numbers",
        "Remove `time_unit`",
        'time_unit = "s"',
    ),
    *(
        Refused(name, TEXT, [], "time_sql", "Correct `time_sql`", f'time_sql = "{text}"')
        for name, text in {
            "no column": "nowhere",
            "no expression": "at +",
            "no function": "no_such_function(at)",
            "an aggregate": "MAX(at)",
            "two columns": "id, at",
            "another table": "SELECT b FROM a",
        }.items()
    ),
    Refused(
        "no times of time_sql", TEXT, ["x"], "is 'x', which is not a time", "Correct `time_sql`", "time_sql = 'at'"
    ),
]


@pytest.mark.parametrize(("refused", "database"), possible(REFUSED), indirect=["database"], scope="module")
def test_refused(refused: Refused, database: Database, folder: Path) -> None:
    """A column without times is refused before a row is counted, with the remedy."""
    dialect = dialect_of(database)
    create(database, refused.types[dialect])
    insert(database, refused.values)
    query = configured(case(refused.job, {}, {}), folder).jobs["x"].query

    with pytest.raises(QueryRefused) as caught:
        database.source.prepared(query)

    assert refused.message in str(caught.value)
    assert (refused.hint if isinstance(refused.hint, str) else refused.hint.get(dialect, "")) in (
        caught.value.hint or ""
    )


@pytest.mark.parametrize("database", DATABASES, indirect=True, scope="module")
@pytest.mark.parametrize("type_", [BIGINT, DECIMAL, TEXT], ids=["integers", "decimals", "texts"])
@pytest.mark.parametrize(
    "value",
    [AT * 10**9 + 999_999_999, (AT + 62_135_596_800) * 10**7 + 9_999_999, (AT + 11_644_473_600) * 10**7],
    ids=["nanoseconds", ".NET", "Windows"],
)
def test_ticks(value: int, type_: Mapping[str, str], database: Database, folder: Path) -> None:
    """Numbers in a unit that no key names are refused; the remedy is enough, and shows the time that it gives.

    Mutants: nanoseconds before the others; no remedy.
    """
    create(database, type_[dialect_of(database)])
    insert(database, [value])
    with pytest.raises(QueryRefused, match="which is not a time") as caught:
        database.source.prepared(configured(case("", {}, {}), folder).jobs["x"].query)
    hint = caught.value.hint or ""
    found = re.search('`time_unit = "s"`.* (time_sql = ".*"): that value is then 2026-09-21 14:00:30 UTC', hint)
    assert found is not None, hint

    def way(run: Run) -> None:
        insert(database, [value + 60 * 10**9 if value > 10**18 else value + 60 * 10**7])
        run.capture(chunk=1)

    job = f'{found[1]}\ntime_unit = "s"'
    with closing(Run(case(job, {"14:00": 1, "14:01": 1}, {}), database, folder)) as run:
        assert_case(run, way)


@pytest.mark.parametrize("database", DATABASES, indirect=True, scope="module")
@pytest.mark.parametrize("type_", [BIGINT, TEXT], ids=["integers", "texts"])
@pytest.mark.parametrize("digits", ["202609211400", "20260921140030123"])
def test_other_digits(digits: str, type_: Mapping[str, str], database: Database, folder: Path) -> None:
    """Digits without seconds, or with thousandths, are no epochs of 1976; the remedy is enough.

    Mutant: look for units first.
    """
    create(database, type_[dialect_of(database)])
    insert(database, [digits])
    with suppress(QueryRefused):  # SQLite reads thousandths
        database.source.prepared(configured(case("", {}, {}), folder).jobs["x"].query)
        assert dialect_of(database) == "sqlite"
        return
    with pytest.raises(QueryRefused, match=r"which is a time with(out seconds| thousandths of a second)$") as caught:
        database.source.prepared(configured(case("", {}, {}), folder).jobs["x"].query)
    found = re.search('(time_sql = ".*"), without `time_unit`', caught.value.hint or "")
    assert found is not None

    with closing(Run(case(found[1], {"14:00": 2}, {}), database, folder)) as run:
        insert(database, [digits])
        assert_case(run, lambda run: run.capture(chunk=1))


@pytest.mark.parametrize("database", DATABASES, indirect=True, scope="module")
def test_first_rows_that_are_no_times(database: Database, folder: Path) -> None:
    """A job that began on an empty table does not pass rows of which no time can be read; it counts them once it can.

    Mutant: look at values only when the job is prepared.
    """
    create(database, TEXT[dialect_of(database)])

    def way(run: Run) -> None:
        run.capture()
        insert(database, ["21/09/2026 14:00:30"] * 3)
        with pytest.raises(QueryRefused, match="which is not a time"):
            run.capture()
        assert run.rejected() == {}
        database.execute("UPDATE kinds SET at = '2026-09-21T14:00:30Z' WHERE id > 1")
        run.capture()

    with closing(Run(case("", {"14:00": 2}, {"no_time": 1}), database, folder)) as run:
        assert_case(run, way)


@pytest.mark.parametrize("database", ["mariadb", "mysql", "postgresql"], indirect=True, scope="module")
def test_type_that_changes(database: Database, folder: Path) -> None:
    """Rows do not pass whose column has another type than when the job was prepared; prepared again, it has a remedy.

    Mutant: trust the first preparation.
    """
    is_postgresql = dialect_of(database) == "postgresql"
    create(database, "TIMESTAMP" if is_postgresql else "DATETIME")
    insert(database, ["2026-09-21 14:00:30"])
    query = configured(case("", {}, {}), folder).jobs["x"].query
    source, window = database.source, Window(0, 9)
    before = source.prepared(query)
    database.execute("ALTER TABLE kinds DROP at")
    database.execute("ALTER TABLE kinds ADD at BIGINT")
    database.execute(f"UPDATE kinds SET at = {AT}")

    with pytest.raises((QueryRefused, SourceUnavailable)):
        source.read(before, window)
    with pytest.raises(QueryRefused, match=f"is {AT}, which is not a time"):
        source.prepared(query)
    again = source.prepared(replace(query, time_unit="s"))
    assert [row.bucket for row in source.read(again, window)] == [epoch("14:00:00")]


DAYS_FIRST = {
    "mysql": "STR_TO_DATE(at, '%d/%m/%Y %H:%i:%s')",
    "postgresql": "TO_TIMESTAMP(at, 'DD/MM/YYYY HH24:MI:SS')",
    "sqlite": "SUBSTR(at, 7, 4) || '-' || SUBSTR(at, 4, 2) || '-' || SUBSTR(at, 1, 2) || SUBSTR(at, 11)",
}
TWO_COLUMNS = {"mysql": "TIMESTAMP(day, clock)", "postgresql": "day + clock", "sqlite": "day || ' ' || clock"}


@pytest.mark.parametrize("database", DATABASES, indirect=True, scope="module")
@pytest.mark.parametrize("lookback", ["", 'lookback = "30m"'])
def test_time_sql_of_texts(lookback: str, database: Database, folder: Path) -> None:
    """Days that come first are read by an expression; a row with which it fails stops no others.

    Mutants: an expression in the fingerprint; ask for the times of rows that were set aside.
    """
    dialect = dialect_of(database)
    create(database, TEXT[dialect])
    insert(database, ["21/09/2026 14:00:30"])
    reason = "unreadable" if dialect == "postgresql" else "no_time"
    rejected = {} if lookback and reason == "no_time" else {reason: 1}  # a row that is waited for

    def way(run: Run) -> None:
        run.capture()
        for value in ("21/09/2026 14:01:30", "yesterday", "21/09/2026 14:01:59"):
            insert(database, [value])
            run.capture()
        assert run.rejected_values.keys() == ({"id"} if reason == "unreadable" else set())
        run.rejected_values.clear()

    job = f'time_sql = "{DAYS_FIRST[dialect]}"\n{lookback}'
    with closing(Run(case(job, {"14:00": 1, "14:01": 2}, rejected), database, folder)) as run:
        assert_case(run, way)


@pytest.mark.parametrize("database", DATABASES, indirect=True, scope="module")
def test_time_sql_of_two_columns(database: Database, folder: Path) -> None:
    """A day and a time of day in two columns are one time."""
    dialect = dialect_of(database)
    create(database, TEXT[dialect], ", day DATE, clock TIME")
    for number, clock in enumerate(("'14:00:30'", "'14:00:59'", "'14:01:00'", "NULL"), 1):
        database.execute(
            f"INSERT INTO kinds (id, action, day, clock) VALUES ({number}, 'login', '2026-09-21', {clock})"
        )

    job = f'time_sql = "{TWO_COLUMNS[dialect]}"\ntime_zone = "Africa/Abidjan"'
    expected = case(job, {"14:00": 2, "14:01": 1}, {"no_time": 1})
    with closing(Run(expected, database, folder)) as run:
        assert_case(run, lambda run: run.capture(chunk=1))
