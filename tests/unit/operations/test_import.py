"""The file of an older program: whatever it is, it gives rows, or an error with a remedy."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shipper.config import files
from shipper.core.errors import ConfigError
from shipper.core.model import MAX_ID
from shipper.operations.import_legacy import Persisted, read

TABLE = "CREATE TABLE persist (scriptname, index_table, index_column, index_value)"


def make(file: Path, *statements: str) -> str:
    """Write a file of the older program, and return its path."""
    with closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return str(file)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("'5'", 5),
        ("5", 5),
        (f"'{MAX_ID}'", MAX_ID),
        (f"'{MAX_ID + 1}'", None),
        (f"'{'9' * 5000}'", None),
        ("'\N{SUPERSCRIPT TWO}'", None),
        ("'-1'", None),
        ("NULL", None),
        ("1.5", None),
        ("x'ff'", None),
    ],
)
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_value(tmp_path: Path, value: str, expected: int | None, mode: str) -> None:
    """A value that is no id is none, however long; no file is made beside it. Mutant: read numbers of any length."""
    insert = f"INSERT INTO persist VALUES ('cron.py', 'audit_trail', 'id', {value})"
    file = make(tmp_path / "persist.db", f"PRAGMA journal_mode = {mode}", TABLE, insert)

    assert read(file) == [Persisted("cron.py", "audit_trail", "id", expected)]
    assert [found.name for found in tmp_path.iterdir()] == ["persist.db"]


def _view(file: Path) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i, i, i, i FROM n"
    make(file, f"CREATE VIEW persist (scriptname, index_table, index_column, index_value) AS {endless}")


def _large(file: Path) -> None:
    make(file, TABLE, "INSERT INTO persist VALUES (zeroblob(200000), 1, 1, 1)")


def _link_beside(file: Path) -> None:
    make(file, "PRAGMA journal_mode = WAL", TABLE)
    Path(f"{file}-wal").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: None, "No such file or directory"),
        (Path.touch, "not a database"),
        (lambda file: file.write_bytes(b"x" * 5000), "not a database"),
        (lambda file: make(file, "CREATE TABLE other (a)"), "no table persist"),
        (lambda file: make(file, "CREATE TABLE persist (a)"), "no such column"),
        (lambda file: make(file, TABLE, "INSERT INTO persist VALUES (CAST(x'ff' AS TEXT), 1, 1, 1)"), "UTF-8"),
        (_view, "no table persist"),
        (_large, "too big"),
        (_link_beside, "a program uses it"),
        (os.mkfifo, "a pipe that did not end"),
        (Path.mkdir, "a directory"),
        (lambda file: file.symlink_to("/dev/zero"), "a device"),
    ],
    ids=range(12),
)
def test_no_such_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object], message: str
) -> None:
    """Each is an error at once. Mutants: ask a view for its rows; open the path with SQLite."""
    monkeypatch.setattr(files, "READ_SECONDS", 0.1)
    file = tmp_path / "persist.db"
    spoil(file)
    with pytest.raises(ConfigError, match=f"import {file}: .*{message}") as caught:
        read(str(file))

    assert caught.value.hint


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a good file."""
    file = tmp_path_factory.mktemp("old") / "persist.db"
    return Path(make(file, TABLE, "INSERT INTO persist VALUES ('a', 't', 'id', '5')"))


@settings(max_examples=settings().max_examples // 3)
@given(st.integers(0, 8192), st.binary(min_size=1, max_size=8), st.integers(0, 8192))
@example(16, b"\xff\xff", 8192)
def test_any_bytes(good: Path, place: int, added: bytes, end: int) -> None:
    """Damaged files, too, give rows or that error, and never another exception."""
    content, file = good.read_bytes(), good.with_name("damaged.db")
    file.write_bytes((content[:place] + added + content[place + len(added) :])[:end])
    with suppress(ConfigError):
        read(str(file))
