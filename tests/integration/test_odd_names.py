"""Tables and columns whose names need quotes: with blanks, signs that SQL and drivers use, and other scripts."""

from pathlib import Path

import pytest
from builders import query
from looks import Looks, wanted
from tables import DATABASES, on

from shipper.config.load import load
from shipper.core.model import Window
from shipper.source.tables.catalog import planned
from shipper.source.tables.grants import grants

NAMES = ["Größe", "Log Datei", "log-1", "50%", "%(x)s", "a:b", "it's", "2026", "[id]", "日志", "Group"]
CONFIG = """
[graphite]
retentions = "1m:30d"
[source.app]
url = "{url}"
[job.x]
source = "app"
table = "{name}"
id = "id {name}"
time = "at {name}"
by = ["by {name}"]
where = {{ "by {name}" = {{ not = "x" }} }}
measure = {{ count = "count", n = "sum:n {name}" }}
name = "x.{{by {name}}}.{{measure}}"
"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("database", DATABASES)
def test_names_that_need_quotes(request: pytest.FixtureRequest, tmp_path: Path, database: str, name: str) -> None:
    """A job counts such a table; its plan is read, and its grants are names as the database has them.

    Mutants: fill the template by str.format; let the driver's dialect double each % of grants; put the name into
    the pattern of a plan unescaped.
    """
    table = on(database, request, tmp_path)
    quote = '"' if database in ("postgresql", "sqlite") else "`"
    path, identity, at, by, number = (f"{quote}{one}{name}{quote}" for one in ("", "id ", "at ", "by ", "n "))
    time = "TIMESTAMP" if database == "postgresql" else "DATETIME"
    table.execute(f"DROP TABLE IF EXISTS {path}")
    table.execute(f"CREATE TABLE {path} ({identity} INTEGER PRIMARY KEY, {at} {time}, {by} VARCHAR(9), {number} INT)")
    looks = Looks(table, tmp_path)
    for row in range(1, 4):
        table.execute(f"INSERT INTO {path} VALUES ({row}, '{looks.created()}', 'a', 5)")
    file = tmp_path / "shipper.toml"
    file.write_text(CONFIG.format(url="sqlite:////nowhere.db", name=name))
    given = load(str(file)).jobs["x"]
    text = f"SELECT COUNT(*) AS count FROM {path} WHERE {identity} > :after AND {identity} <= :upto"
    custom = query(table=name, id=f"id {name}", by=(), time=None, sql=text.replace("a:b", "a\\:b"))

    job = wanted(query=table.prepared(given.query), template=given.template)
    looks.look(job)
    with table.connections.connected("explain") as connection:
        plans = [planned(connection, one, Window(0, 1)) for one in (job.query, custom)]
    (grant,) = [one for one in grants(table.access, [job.query], host="%") if "USAGE" not in one]

    assert looks.total(job) == 3
    assert looks.total(job, "n") == 15
    assert [plan.is_range for plan in plans] == [True, True]
    assert f"{quote}by {name}{quote}" in grant or database == "sqlite"
    assert table.prepared(custom).measures[0].name == "count"
    looks.close()
    table.close()


OWN = ["shipper_0", "shipper_1", "shipper_bucket", "shipper_word", "shipper_minute", "bucket", "count"]


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("changes", [{}, {"time": None}, {"id": "created_at"}], ids=["time", "no time", "along"])
def test_columns_named_like_results(
    request: pytest.FixtureRequest, tmp_path: Path, database: str, changes: dict[str, str | None]
) -> None:
    """Columns of the table, which the job does not name, are not taken for those of our own statements.

    Mutant: GROUP BY the names of selected columns, in any of the statements.
    """
    table = on(database, request, tmp_path)
    for name in OWN:
        table.execute(f"ALTER TABLE audit_trail ADD {name} INT DEFAULT 7")
    table.execute("CREATE INDEX times ON audit_trail (created_at)")
    looks = Looks(table, tmp_path)
    job = wanted(query=table.prepared(query(**changes)), template="x.{action}.{measure}")
    for number, ago in enumerate((200, 100, 90, 10), 1):
        looks.insert([1000 * number], ago=ago)
        looks.look(job)

    assert looks.total(job) == 4
    assert len(looks.slots(job)) == (1 if job.query.time is None else 3)
    looks.close()
    table.close()
