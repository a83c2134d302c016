"""Labels on real databases: the same value has the same label, whatever its type, and counts equal GROUP BY."""

from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from builders import query
from contract import FAR
from random_fragments import random_fragments
from tables import DATABASES, on

from shipper.config.fragments import flaw_of
from shipper.core.errors import ShipperError
from shipper.core.model import Condition

BYTES: dict[object, str] = {b"\x00": "00", b"\x01": "01", b"A": "A", b"\xff\x00": "ff00", "\u4e16".encode(): "\u4e16"}
BYTES |= {b"a\tb": "610962", b"Main Page": "Main Page", b"": ""}
MYSQL: dict[str, dict[object, str]] = {
    "BIT(1)": {0: "0", 1: "1"},
    "BIT(8)": {0: "0", 65: "65", 255: "255"},
    "BIT(64)": {2**64 - 1: str(2**64 - 1), 49: "49"},
    "BOOLEAN": {0: "0", 1: "1"},
    "BINARY(1)": {b"\x00": "00", b"\x01": "01", b"A": "A", b"1": "1"},
    "BINARY(16)": {bytes(range(16)): bytes(range(16)).hex(), b"20261128161731zz": "20261128161731zz"},
    "VARBINARY(20)": BYTES,
    "BLOB": BYTES,
    "VARCHAR(20) CHARACTER SET latin1": {"gr\u00f6\u00dfe": "gr\u00f6\u00dfe", "a\tb": "a\tb"},
    "INT(5) ZEROFILL": {42: "00042"},
    "FLOAT": {1.1: "1.1"},
    "YEAR": {2026: "2026"},
    "JSON": {'{"a": "\u0085"}': '{"a": "\u0085"}'},
    "DATETIME(3)": {"2026-01-01 00:00:00.5": "2026-01-01 00:00:00.500"},
    "ENUM('a', 'b')": {"b": "b"},
}
TYPES: dict[str, dict[str, dict[object, str]]] = {
    "mysql": MYSQL,
    "mariadb": MYSQL | {"INET6": {"::1": "::1"}},
    "postgresql": {
        "BOOLEAN": {False: "false", True: "true"},
        "BIT(3)": {"101": "101"},
        "BYTEA": BYTES,
        "secret": BYTES,  # a domain over BYTEA
        "TEXT": {"a\tb": "a\tb", r"\x41": r"\x41", "": ""},
        "CHAR(5)": {"ab": "ab"},
        "JSONB": {'{"a": 1}': '{"a": 1}'},
        "INTEGER[]": {"{1,2}": "{1,2}"},
        "INET": {"10.0.0.1": "10.0.0.1/32"},
    },
    "sqlite": {"": {**BYTES, "a\tb": "a\tb", "text": "text", 1: "1", 1.5: "1.5"}, "BOOLEAN": {0: "0", 1: "1"}},
}
CASES = [(kind, column) for kind in DATABASES for column in TYPES[kind]]


@pytest.mark.parametrize(("kind", "column"), CASES)
def test_label_of_each_type(request: pytest.FixtureRequest, tmp_path: Path, kind: str, column: str) -> None:
    """A label is the value's text; that of bytes which are no printable text is hexadecimal; BIT is a number.

    Mutants: without COALESCE on MySQL; pg_typeof of the plain value; without BINARY before bytes.
    """
    with closing(on(kind, request, tmp_path)) as table:
        if column == "secret":
            table.execute("CREATE DOMAIN secret AS bytea")
        table.execute(f"ALTER TABLE audit_trail ADD x {column} NULL")
        values = TYPES[kind][column]
        for number, value in enumerate([*values, *values, None], 1):
            table.execute("INSERT INTO audit_trail (id, x) VALUES (%s, %s)", (number, value))
        counts = Counter[str | None]()
        for row in table.read(query(by=("x",)), FAR):
            counts[row.group[0]] += row.rows

    expected = Counter[str | None]({None: 1})
    for label in values.values():
        expected[label] += 2
    assert counts == expected


@pytest.mark.parametrize(
    "sql", ["SELECT x, COUNT(*) AS count FROM audit_trail WHERE id > :after AND id <= :upto GROUP BY x"]
)
@pytest.mark.parametrize(
    ("kind", "column"), [case for case in CASES if case[1] in {"BIT(8)", "BOOLEAN", "BYTEA", "BLOB"}]
)
def test_label_of_custom_sql(request: pytest.FixtureRequest, tmp_path: Path, kind: str, column: str, sql: str) -> None:
    """Custom sql gives a value the same label. Mutant: PyMySQL's own converter of BIT."""
    with closing(on(kind, request, tmp_path)) as table:
        table.execute(f"ALTER TABLE audit_trail ADD x {column} NULL")
        values = TYPES[kind][column]
        for number, value in enumerate(values, 1):
            table.execute("INSERT INTO audit_trail (id, x) VALUES (%s, %s)", (number, value))
        custom = table.prepared(query(by=("x",), time=None, sql=sql))
        groups = {row.group[0] for row in table.read(custom, FAR)}

    assert groups == set(values.values())


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        *(
            (kind, column, value)
            for kind in DATABASES
            if kind != "postgresql"
            for column in ("BIT(1)", "BOOLEAN")
            for value in (True, 1)
        ),
        ("postgresql", "INT", 1),
        ("postgresql", "BOOLEAN", True),
        ("postgresql", "BOOLEAN", "true"),
        ("postgresql", "BIT(1)", "1"),
    ],
)
def test_where_on_a_flag(request: pytest.FixtureRequest, tmp_path: Path, kind: str, column: str, value: object) -> None:
    """A condition on BIT and BOOLEAN columns compares raw values; 1 is not true for PostgreSQL.

    Mutant: plain equality of conditions, which lets both share the first one's statement.
    """
    with closing(on(kind, request, tmp_path)) as table:
        table.execute(f"ALTER TABLE audit_trail ADD x {column} NULL")
        for number, flag in enumerate([1, 0, 1, None], 1):
            stored = None if flag is None else str(flag) if kind == "postgresql" else flag
            table.execute("INSERT INTO audit_trail (id, x) VALUES (%s, %s)", (number, stored))
        rows = table.read(query(by=(), where=(Condition("x", "in", (value,)),)), FAR)  # type: ignore[arg-type] # a scalar

    assert [row.rows for row in rows] == [2]


@pytest.mark.parametrize("kind", DATABASES)
def test_no_fragment_leaves_its_place(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    """In our sessions no accepted fragment of SQL gets a row past the condition beside it.

    Mutant: count closing parentheses only.
    """
    with closing(on(kind, request, tmp_path)) as table:
        table.insert(1, None, None)
        left = 0
        for fragment in random_fragments(4000):
            statement = f"SELECT 1 FROM audit_trail WHERE 1 = 0 AND ({fragment})"
            try:
                with table.connections.connected("try") as connection:
                    rows = connection.exec_driver_sql(statement.replace("%", "%%")).fetchall()
            except ShipperError:
                continue
            left += bool(rows)
            assert not rows or flaw_of(fragment, kind), fragment

    assert left > 0  # some do leave it
