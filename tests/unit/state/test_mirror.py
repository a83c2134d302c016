"""Rows of the state on their way to a database: each table, each kind of change, each type of value."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import chain

import pytest

from shipper.state.remote.mirror import Mirror, all_rows, load
from shipper.state.schema import VERSIONS

TABLES = {
    "watermark": ("job", "value"),
    "job": ("job", "since"),
    "series": ("id", "path"),
    "total": ("slot", "value"),
    "slot": ("slot", "upto"),
    "pruned": ("start", "end"),
    "rejected": ("reason", "rows"),
    "rejected_in": ("bucket", "rows"),
    "position": ("job", "age"),
    "counted": ("start", "words"),
    "settled": ("after", "rows"),
    "late": ("number", "words"),
    "minute": ("start", "held"),
    "identity": ("job", "rows"),
    "replay": ("number", "stage"),
    "history": ("id", "value"),
    "pause": ("job", "since"),
    "audit": ("job", "error"),
    "setting": ("name", "value"),
}
"""Each table, with a column of its key and another one."""
TEXTS = ("it's", '"', "a\nb", "\\", "ä\U0001f600", "", "'; DROP TABLE total; --", "NULL", "x" * 100_000)
VALUES = (0, -1, 2**63 - 1, -(2**63), 1.5, 1e300, 0.1, "18446744073709551616", *TEXTS)
BLOBS = (b"", b"\x00", bytes(range(256)), b"'")


class Pair:
    """A state, and a copy that only gets what the mirror takes."""

    def __init__(self) -> None:
        self.connection = _state()
        self.mirror = Mirror(self.connection)
        self.copy: dict[tuple[str, str], str] = {}

    def run(self, *statements: str, values: tuple[object, ...] = ()) -> int:
        """Run a transaction, mirror it, and return how many rows travelled."""
        self.connection.execute("BEGIN")
        for statement in statements:
            self.connection.execute(statement, values)
        rows = self.mirror.take()
        self.connection.execute("COMMIT")
        for row in rows:
            if row.values is None:
                self.copy.pop((row.table, row.key), None)
            else:
                self.copy[row.table, row.key] = row.values
        assert self.copy == {(row.table, row.key): row.values for row in all_rows(self.connection)}
        return len(rows)

    def loaded(self) -> list[tuple[str, list[tuple[object, ...]]]]:
        """Return all tables of a state that is made of the copy."""
        with closing(_state()) as made:
            load(made, sorted((table, values) for (table, _), values in self.copy.items()))
            return _content(made)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give an empty state."""
    pair = Pair()
    yield pair
    pair.connection.close()


def _state() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in chain.from_iterable(VERSIONS):
        connection.execute(statement)
    return connection


def _content(connection: sqlite3.Connection) -> list[tuple[str, list[tuple[object, ...]]]]:
    return [(table, connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()) for table in TABLES]


def _insert(connection: sqlite3.Connection, table: str, number: int, verb: str = "INSERT") -> str:
    """Return a statement that inserts a row whose key is the only one with this number."""
    columns = connection.execute(f"SELECT name, type, pk FROM pragma_table_info('{table}')").fetchall()
    texts = {"TEXT": f"'{number}'", "INTEGER": str(number), "BLOB": f"x'{number:02}'", "ANY": str(number)}
    flags = {"changed": "1", "is_made": "1", "went_back": "1"} if table != "slot" else {}
    return f"{verb} INTO {table} VALUES ({', '.join(flags.get(name, texts[kind]) for name, kind, _ in columns)})"


def test_every_table_is_here() -> None:
    """The cases below are all tables of the state."""
    with closing(_state()) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}

    assert names == {*TABLES}


@pytest.mark.parametrize("table", TABLES)
def test_changes(table: str, pair: Pair) -> None:
    """Each kind of change of each table arrives, and a row once however often it changes.

    Mutants: leave out a trigger; take keys without DISTINCT; leave recursive triggers off.
    """
    key, other = TABLES[table]
    first, second, again = (_insert(pair.connection, table, number) for number in (1, 2, 1))
    assert pair.run(first, second) == 2
    assert pair.run(f"UPDATE {table} SET {other} = {other}", f"UPDATE {table} SET {other} = {other}") == 2
    assert pair.run(again.replace("INSERT", "INSERT OR REPLACE", 1)) == 1
    assert pair.run(again.replace("INSERT", "INSERT OR IGNORE", 1)) == 0
    assert pair.run(f"UPDATE {table} SET \"{key}\" = '7' WHERE \"{key}\" = '2'") == 2
    assert pair.loaded() == _content(pair.connection)
    assert pair.run(f"DELETE FROM {table} WHERE \"{key}\" = '7'", f"DELETE FROM {table}") == 2
    assert pair.copy == {}


def test_replaced_by_another_key(pair: Pair) -> None:
    """A row that a REPLACE deletes, because another column is unique, is deleted there, too.

    Mutant: leave recursive triggers off.
    """
    insert = _insert(pair.connection, "series", 1)
    pair.run(insert)
    columns = "VALUES (2, (SELECT path FROM series), 'job', 'group', 'n', 'count', 1, 1, 0)"
    assert pair.run(f"INSERT OR REPLACE INTO series {columns}") == 2

    assert list(pair.copy) == [("series", "2")]


def test_rollbacks(pair: Pair) -> None:
    """What is rolled back, all or to a savepoint, does not arrive, and nothing is forgotten for the next commit.

    Mutant: note keys in a table that the transaction does not cover.
    """
    one, two, three = (_insert(pair.connection, "pause", number) for number in (1, 2, 3))
    assert pair.run(one, "SAVEPOINT written", two, "ROLLBACK TO written", "RELEASE written", three) == 2
    pair.connection.execute("BEGIN")
    pair.connection.execute(two)
    pair.mirror.take()  # the database did not take it
    pair.connection.execute("ROLLBACK")

    assert pair.run("DELETE FROM pause WHERE job = '1'") == 1
    assert [key for _, key in pair.copy] == ["'3'"]


@pytest.mark.parametrize("value", VALUES)
def test_values(value: object, pair: Pair) -> None:
    """Each value comes back as it was, with its type. Mutant: travel as text."""
    pair.run("INSERT INTO total VALUES (60, 60, 1, ?, 1, 1)", values=(value,))

    assert pair.loaded() == _content(pair.connection)


@pytest.mark.parametrize("text", TEXTS)
def test_keys(text: str, pair: Pair) -> None:
    """A key of any letters is found again. Mutant: quote it by hand."""
    pair.run("INSERT INTO setting VALUES (?1, ?1)", values=(text,))
    pair.run("UPDATE setting SET value = 'new'")
    assert pair.loaded() == _content(pair.connection)
    pair.run("DELETE FROM setting")

    assert pair.copy == {}


@pytest.mark.parametrize("words", BLOBS)
def test_blobs(words: bytes, pair: Pair) -> None:
    """Bytes come back as they were."""
    pair.run("INSERT INTO counted VALUES ('job', '0', ?)", values=(words,))

    assert pair.loaded() == _content(pair.connection)


def test_foreign_rows() -> None:
    """Rows of an unknown table, of another width, or with other SQL are an error. Mutants: trust name, or values."""
    rows = [("other", "1"), ("pause", "1"), ("pause", "'a', 1); DROP TABLE pause; --")]
    rows += [("pause", f"'a', {value}") for value in ("(SELECT 1)", "length(x'00')", "1 + 1", "'1' || '2'")]
    for row in rows:
        with closing(_state()) as connection, pytest.raises((sqlite3.Error, sqlite3.Warning)):
            load(connection, [row])
