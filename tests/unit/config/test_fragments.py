"""Fragments of SQL in a configuration: those that could leave their place are rejected, by each database's quoting."""

import sqlite3
import time
from contextlib import closing

import pytest
from random_fragments import random_fragments

from shipper.config.fragments import flaw_of, statement_flaw

ALL = ("mysql", "mariadb", "postgresql", "sqlite")
SAFE = [
    (ALL, "duration_ms > 1000 OR outcome IS NULL"),
    (ALL, "note = 'it''s (' AND (a = ')')"),
    (ALL, "\"odd ) name\" = '--' AND b = ';/*#'"),
    (ALL, "a - -1 / b * 2 AND number = variable"),
    (ALL, "a IN (SELECT b FROM c WHERE (d))"),
    (("mysql", "sqlite"), "`odd ) name` = 1"),
    (("mysql",), r"""a = 'it\'s ) fine' AND b = "\")" """),
    (("mysql",), r"a = '\\' AND (b = ')')"),
    (("postgresql", "sqlite"), r"a = '\' AND (b = ')')"),
    (("postgresql", "sqlite"), "a # 1"),
    (("postgresql",), "detail #>> '{a,b}' = 'x' AND detail::jsonb ? 'y'"),
    (("postgresql",), r"a = E'it\'s ) fine' AND b = e'\\'"),
    (("postgresql",), "a = E'x'\n  '\\' )' AND b = 1"),
    (("postgresql",), "a = $$ it's ) $$ AND b = $x$ $$ ) $x$"),
    (("postgresql",), "a = $x$e'$x$ AND b = $$e'$$"),
    (("postgresql",), "ARRAY[')', 'x'] @> tags AND a[1] = 'b'"),
    (("sqlite",), "[odd ) ' name] = 1"),
    (("mysql", "mariadb"), "@@version = '1' OR @x = 2"),
    (("postgresql",), "a = 1 AND b = E'x' AND d2 = 'e' AND date'2026-01-01' < c"),
]
PARENTHESES, COMMENT, QUOTE = "parentheses", "contains a comment: ", "quote that is not closed"
UNSAFE = [
    (ALL, "a = 1) OR (b", PARENTHESES),
    (ALL, "(a = 1", PARENTHESES),
    (ALL, "a = ')' )", PARENTHESES),
    (ALL, "a = 1 -- b", COMMENT + "--"),
    (ALL, "a = 1 - --1", COMMENT + "--"),
    (ALL, "a /* b */ = 1", COMMENT + "/*"),
    (("mysql", "mariadb"), "a = 1 # b", COMMENT + "#"),
    (ALL, "a = 1;", "contains a semicolon"),
    (ALL, "a = '\0'", "contains a NUL"),
    (ALL, "  \n", "is empty"),
    (ALL, "a = 'b", QUOTE),
    (ALL, 'a = "b', QUOTE),
    (("mysql", "sqlite"), "a = `b", QUOTE),
    (("mysql",), r"a = '\' AND (b = 1)", QUOTE),
    (("postgresql",), r"a = E'\' AND (b = 1)", QUOTE),
    (("postgresql", "sqlite"), r"a = 'it\'s )'", PARENTHESES),
    (("postgresql",), "a = $$ b", QUOTE),
    (("postgresql",), "a = $x$ b $$", QUOTE),
    (("postgresql",), "a$x$ ) OR (a$x$ = 1", PARENTHESES),
    (("postgresql",), "\N{SNOWMAN}$x$ ) OR (\N{SNOWMAN}$x$ = 1", PARENTHESES),
    (("postgresql",), "fE'\\' ) OR (1 = 1) OR (a = ''", PARENTHESES),
    (("postgresql",), "a = $1 ) OR (b = $1", PARENTHESES),
    (("sqlite",), "[odd]] ) OR (1", PARENTHESES),
    (("sqlite",), "@x(') OR (1 = 1) OR (@y(')", "contains a variable"),
    (("sqlite",), "$x(') OR (1 = 1) OR ($x(')", "contains a variable"),
    (("sqlite",), ":x(') OR (1 = 1) OR (#x(')", "contains a variable"),
    (("sqlite",), "?1 > 0", "contains a variable"),
    (("postgresql",), r"1e5e'\' ' ) OR (1 = 1) OR ('' = '", "has a number directly before a text"),
    (("postgresql",), r"$1E'\' ' ) OR (1 = 1) OR ('' = '", "has a number directly before a text"),
    (("postgresql",), "a = E'x'\n\N{NO-BREAK SPACE}'\\' ) OR (1 = 1) OR (a = ''", PARENTHESES),
]


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize(
    "unit", ["1", "1.", "$1", "1a", "1.a.", "1.a$b.", "$a$", "$$", "E'a' ", "E'a'\n", "''", "[a]", "--\n"]
)
def test_time_of_long_texts(dialect: str, unit: str) -> None:
    """The time for a long text grows with its length. Mutant: look ahead from each digit to the end of all digits."""
    began, text = time.process_time(), unit * (65_536 // len(unit))

    flaw_of(text, dialect)
    statement_flaw(text, dialect)

    assert time.process_time() - began < 1


SEVERAL, EXECUTED = "several statements", "comment that the database executes"
STATEMENTS = [
    (ALL, "SELECT COUNT(*) AS count FROM t WHERE id > :after AND id <= :upto;  \n", None),
    (ALL, "SELECT ';' AS a, \";\" AS b -- c; it's\nFROM t /* ; ' */ WHERE c = ';'", None),
    (ALL, "SELECT 1 AS count -- the last", None),
    (("mysql", "mariadb"), "SELECT 1 # c; it's\n, 2--2, `;`", None),
    (("postgresql",), "SELECT $$;$$, E'\\';', 1 /* a /* ; */ ; */", None),
    (("sqlite",), "SELECT [;], :after", None),
    (ALL, "SELECT 1; COMMIT", SEVERAL),
    (ALL, "SELECT 1;;", SEVERAL),
    (ALL, "SELECT 1 -- a\n; DELETE FROM t", SEVERAL),
    (ALL, "SELECT 1 -- a\r; DELETE FROM t", SEVERAL),
    (ALL, "SELECT 1 /* a */; DELETE FROM t", SEVERAL),
    (ALL, "SELECT ''';'; DELETE FROM t --'", SEVERAL),
    (("mysql", "mariadb", "sqlite"), "SELECT 1 /* a /* */; DELETE FROM t /* */", SEVERAL),
    (("mysql", "mariadb", "sqlite"), "SELECT 1 /* /*/; DELETE FROM t /* */", SEVERAL),
    (("mysql", "mariadb", "sqlite"), "SELECT 1 /* /*/", None),
    (("mysql", "mariadb"), "SELECT 1--1; DELETE FROM t", SEVERAL),
    (("mysql", "mariadb"), "SELECT 1 /*! ; DELETE FROM t */", EXECUTED),
    (("mariadb",), "SELECT 1 /*M! ; DELETE FROM t */", EXECUTED),
    (("postgresql", "sqlite"), r"SELECT '\'; DELETE FROM t --'", SEVERAL),
    (("postgresql",), r"SELECT 1e5e'\' ; DELETE FROM t --'", "directly before a text"),
    (("postgresql",), "SELECT E'a' -- b\n'\\'' ; DELETE FROM t --'", SEVERAL),
    (("postgresql",), "SELECT E'a'\n-- b\n '\\'' ; DELETE FROM t --'", SEVERAL),
    (("postgresql",), "SELECT E'a' -- '\n AS b, '\\' -- ;", None),
    (("postgresql",), "SELECT 1 /* a /* */; DELETE FROM t", "comment that is not closed"),
    (ALL, "SELECT 1 /* a", "comment that is not closed"),
    (ALL, "SELECT 'a", QUOTE),
]


@pytest.mark.parametrize(("dialects", "statement", "reason"), STATEMENTS)
def test_statements(dialects: tuple[str, ...], statement: str, reason: str | None) -> None:
    """A setting that is a complete statement is only one, by the quotes and comments of its database.

    Mutants: no comments; those of PostgreSQL do not nest; two minus signs are always a comment on MySQL.
    """
    flaws = [statement_flaw(statement, dialect) for dialect in dialects]

    assert all((flaw is None) if reason is None else (flaw and reason in flaw.reason) for flaw in flaws), flaws


def test_no_second_statement_runs() -> None:
    """What is a second statement for SQLite is one for us. Mutant: take what follows a quote for quoted."""
    seen = 0
    for fragment in random_fragments(30_000):
        first = f"SELECT 1 WHERE {fragment};"
        if sqlite3.complete_statement(first):  # else the semicolon is inside of a quote or a comment
            seen += 1
            assert statement_flaw(f"{first} SELECT 2", "sqlite"), first

    assert seen > 1000


@pytest.mark.parametrize(("dialects", "fragment"), SAFE)
def test_safe_fragments(dialects: tuple[str, ...], fragment: str) -> None:
    """A fragment that stays in its place is accepted, whatever its quotes contain."""
    assert [flaw_of(fragment, dialect) for dialect in dialects] == [None] * len(dialects)


@pytest.mark.parametrize(("dialects", "fragment", "reason"), UNSAFE)
def test_unsafe_fragments(dialects: tuple[str, ...], fragment: str, reason: str) -> None:
    """A fragment that could leave its place is rejected, with the reason."""
    flaws = [flaw_of(fragment, dialect) for dialect in dialects]

    assert all(flaw and reason in flaw.reason and flaw.remedy for flaw in flaws), flaws


def test_no_fragment_leaves_its_place() -> None:
    """An accepted fragment never makes SQLite return a row that the condition beside it excludes.

    Mutant: do not count parentheses.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        left = 0
        connection.execute("CREATE TABLE t AS SELECT 1 AS id")
        for fragment in random_fragments(30_000):
            try:
                rows = connection.execute(f"SELECT 1 FROM t WHERE 1 = 0 AND ({fragment})").fetchall()
            except (sqlite3.Error, sqlite3.Warning):
                continue
            left += bool(rows)
            assert not rows or flaw_of(fragment, "sqlite"), fragment

    assert left > 0  # some do leave it
