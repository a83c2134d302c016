"""Servers whose defaults change between two looks: the same numbers or an error, and recovery without a restart."""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from builders import query
from contract import FAR
from hostile_settings import READER, SERVERS, Administrator, Setting, administrating, settings_of
from tables import Table, on_mariadb, on_postgresql

from shipper.core.errors import ShipperError, SourceUnavailable
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Condition

COLUMNS = {
    "mariadb": ("code CHAR(10)", "amount DECIMAL(10, 4)", "ratio DOUBLE", "note VARCHAR(400)", "stamp TIMESTAMP(6)"),
    "postgresql": ("code CHAR(10)", "amount NUMERIC(10, 4)", "ratio FLOAT8", "note VARCHAR(400)", "stamp TIMESTAMPTZ"),
}
ROWS, FIRST = 12, datetime(2026, 10, 25, 0, 30, 30)  # noqa: DTZ001 - a column without a zone
ACTIONS = ("login", "a\\b'c", "a_b", "axb", "caf\u00e9 \u4e16", "")
INSERT = (
    "INSERT INTO audit_trail (id, created_at, action, outcome, duration_ms, code, amount, ratio, note, stamp)"
    f" VALUES ({', '.join(['%s'] * 10)})"
)
SQL = "SELECT action, created_at, COUNT(*) AS n FROM audit_trail WHERE id > :after AND id <= :upto GROUP BY 1, 2"
QUERIES = {
    "codes": (query(by=("code",)), 12),
    "actions": (query(), 12),
    "notes": (query(by=("note",), time=None), 12),
    "empty": (query(where=(Condition("outcome", "in", ("",)),)), 4),
    "quoted": (query(where=(Condition("action", "in", (ACTIONS[1],)),)), 2),
    "like": (query(where=(Condition("action", "like", ("a_b",)),)), 4),
    "text": (query(where_sql="action = CONCAT('log', 'in') OR NOT duration_ms BETWEEN 2 AND 11"), 3),
    "sums": (query(by=(), measures=(COUNT, *(Measure(name, Kind.SUM, name) for name in ("amount", "ratio")))), 12),
    "zone": (query(time_zone="Europe/Berlin", bucket=3600), 12),
    "stamp": (query(time="stamp"), 12),
    "sql": (query(sql=SQL, measures=(Measure("n", Kind.SUM, "n"),)), 6),
}
"""Queries whose results have depended on some setting, with the number of rows that they count."""
REJECTED = {
    *("mariadb-require_secure_transport=1", "mysql-offline_mode=1"),
    *("postgresql-role=nobody", "postgresql-search_path=pg_catalog", "postgresql-session_preload_libraries=missing"),
}
"""Settings with which nothing can be read."""
MOSTLY_REJECTED = {"mariadb-max_statement_time=1e-06"}
"""Settings with which only a quick server can be read."""


def row(number: int) -> tuple[object, ...]:
    """Return the values of a row: each code occurs once, and notes differ at their ends only."""
    created = FIRST + timedelta(minutes=15 * (number % 3))
    action, outcome = ACTIONS[number % len(ACTIONS)], ("", "ok", None)[number % 3]
    amounts = (number / 8, number / 10)
    return (
        number + 1,
        created,
        action,
        outcome,
        number + 1,
        f"c{number}",
        *amounts,
        "x" * 100 + str(number % 2),
        created,
    )


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Table, Administrator]]:
    """Provide a table as its reader sees it, who keeps connections from test to test as a service does."""
    server = request.getfixturevalue(request.param)
    with closing(on_postgresql(server) if request.param == "postgresql" else on_mariadb(server)) as owned:
        owned.execute("ALTER TABLE audit_trail " + ", ".join(f"ADD {column}" for column in COLUMNS[owned.kind]))
        for number in range(ROWS):
            owned.execute(INSERT, row(number))
        url = sa.make_url(owned.url).set(username=READER).render_as_string()
        with administrating(server, "app") as administrator, closing(Table(owned.kind, url, owned._connect)) as table:
            yield table, administrator


def numbers(table: Table) -> dict[str, Any]:
    """Look at everything."""
    with table.held(), table.snapshot(query()):
        observed = table.observe(query()).id, table.newest(query(), 99), table.uncountable(query())
        words = table.words_by(query(), FAR)
        rows = {name: sorted(table.read(one, FAR), key=repr) for name, (one, _) in QUERIES.items()}
    return {"observed": observed, "words": words, "unique": table.is_unique(query()), **rows}


def numbers_or_error(table: Table) -> dict[str, Any] | ShipperError:
    """Look at everything in new sessions: the first attempts may still find those that were ended."""
    for attempt in range(3):
        try:
            return numbers(table)
        except ShipperError as error:
            if attempt == 2 or not isinstance(error, SourceUnavailable):
                return error
    raise AssertionError


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try each setting on its server."""
    if "setting" in metafunc.fixturenames:
        both = [(server, setting) for server in SERVERS for setting in settings_of(server)]
        ids = [str(setting) for _, setting in both]
        metafunc.parametrize(("served", "setting"), both, ids=ids, indirect=["served"], scope="module")
    elif "served" in metafunc.fixturenames:
        metafunc.parametrize("served", SERVERS, indirect=True, scope="module")


def test_numbers(served: tuple[Table, Administrator]) -> None:
    """The numbers are those of the table."""
    table, _ = served
    found = numbers(table)

    assert {name: sum(row.rows for row in found[name]) for name in QUERIES} == {
        name: rows for name, (_, rows) in QUERIES.items()
    }
    assert found["observed"][0] == ROWS


def test_default_changed(served: tuple[Table, Administrator], setting: Setting) -> None:
    """A changed default of the server changes no number: it has no effect, or is an error; and it leaves no trace."""
    table, administrator = served
    before = numbers_or_error(table)
    with administrator.changed(setting):
        changed = numbers_or_error(table)
    after = numbers_or_error(table)

    assert isinstance(before, dict)
    if str(setting) in REJECTED:
        assert isinstance(changed, ShipperError)
    elif str(setting) not in MOSTLY_REJECTED or isinstance(changed, dict):
        assert changed == before
    assert after == before
