"""SQL expressions that each database's file compiles."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from typing_extensions import override

Statement = sa.Select[Any] | sa.TextClause


BINARY = b"\xff"
"""First byte of a binary label; no text in UTF-8 has it."""
CUT = b"\xfe"
"""First byte of a long binary label: behind it are MAX_LABEL bytes and the end that `label` adds."""


class Text(FunctionElement[bytes | str]):
    """A value's text, mostly as UTF-8 bytes; BINARY and the bytes of a value that has no text.

    Grouping ignores collations: 'Login', 'login' and 'login ' differ.
    """

    inherit_cache = True
    name = "shipper_text"


class Label(FunctionElement[bytes | str]):
    """The same; of a long value the beginning and the SHA-256 of all of it: no value is too large for our memory.

    Two values have one label only if they are equal, because no short value is as long as the label of a long one.
    """

    inherit_cache = True
    name = "shipper_label"


class Beginning(FunctionElement[Any]):
    """The beginning of a value's text, to show it."""

    inherit_cache = True
    name = "shipper_beginning"


class AsText(sa.types.TypeDecorator[str]):
    """The type of values to compare with `Text`, which SQLite does not return as bytes."""

    impl = sa.LargeBinary
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return sa.Text() if dialect.name == "sqlite" else sa.LargeBinary()

    @override
    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | bytes | None:
        return value if value is None or dialect.name == "sqlite" else value.encode()


class Unfit(FunctionElement[bool]):
    """A condition that a number is NaN, infinite, or too large for Carbon; NULL is fit."""

    inherit_cache = True
    name = "shipper_unfit"
    type = sa.Boolean()


class Fit(FunctionElement[Any]):
    """A number, exact; NULL where it is unfit."""

    inherit_cache = True
    name = "shipper_fit"


class Addend(Fit):
    """The same, of a type whose sum is as exact."""

    inherit_cache = True


class WithinMinute(FunctionElement[int]):
    """The microseconds of a time since its minute began."""

    inherit_cache = True
    name = "shipper_within_minute"
    type = sa.BigInteger()


class Moment(sa.types.TypeDecorator[datetime]):
    """A time that is compared with a time column; SQLite's texts may have fractions, or none."""

    impl = sa.DateTime
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.String() if dialect.name == "sqlite" else sa.DateTime())

    @override
    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        return value.isoformat(sep=" ") if value is not None and dialect.name == "sqlite" else value


class ServerTime(FunctionElement[int]):
    """The server's clock, epoch seconds."""

    inherit_cache = True
    name = "shipper_server_time"


class WordOfId(FunctionElement[int]):
    """The number of the word of 64 ids that contains an id."""

    inherit_cache = True
    name = "shipper_word"
    type = sa.BigInteger()


class BitsOfIds(FunctionElement[int]):
    """The ids of a word, a bit for each; exact, unlike every checksum."""

    inherit_cache = True
    name = "shipper_bits"
    type = sa.BigInteger()


class BitOfId(FunctionElement[int]):
    """The bit of an id in bytes: 1 if it is set. Arguments: the id, the id of the first bit, the bytes."""

    inherit_cache = True
    name = "shipper_bit"
    type = sa.BigInteger()


class ListOfIds(FunctionElement[str]):
    """All ids in one text, each with a semicolon: PyMySQL takes eight times as long for 10,000 rows of one id."""

    inherit_cache = True
    name = "shipper_ids"
    type = sa.Text()


class _Explain(sa.Executable, sa.ClauseElement):
    """A statement behind the words that request its plan."""

    inherit_cache = False

    def __init__(self, words: str, statement: Statement) -> None:
        self.words, self.statement = words, statement


class WithText(sa.Executable, sa.ClauseElement):
    """A statement that reads the result of a text by a name."""

    inherit_cache = False

    def __init__(self, name: str, text: str, statement: sa.ClauseElement) -> None:
        self.name, self.text, self.statement = name, text, statement


def argument(element: FunctionElement[Any], compiler: SQLCompiler, options: Mapping[str, Any]) -> str:
    """Return the SQL of an expression's argument."""
    return compiler.process(element.clauses, **options)


def explain(
    connection: sa.Connection, words: str, statement: Statement, values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the rows of a statement's plan, by the server's names: SQLAlchemy would give those of the statement."""
    with connection.execute(_Explain(words, statement), values) as answer:
        names = [column[0] for column in answer.cursor.description]
        return [dict(zip(names, row, strict=True)) for row in answer.cursor.fetchall()]


def table_named(path: str, names: Iterable[str]) -> sa.TableClause:
    """Return a table, or `schema.table`, with some of its columns."""
    schema, _, name = path.rpartition(".")
    columns: list[sa.ColumnClause[Any]] = [sa.column(sa.quoted_name(column, quote=True)) for column in sorted(names)]
    return sa.table(sa.quoted_name(name, quote=True), *columns, schema=schema or None)


@compiles(Fit)
def _fit(element: Fit, compiler: SQLCompiler, **options: Any) -> str:
    unfit, number = compiler.process(Unfit(*element.clauses), **options), argument(element, compiler, options)
    return f"CASE WHEN {unfit} THEN NULL ELSE {number} END"


@compiles(WordOfId)
def _word(element: WordOfId, compiler: SQLCompiler, **options: Any) -> str:
    return f"(CAST({argument(element, compiler, options)} AS BIGINT) / 64)"


@compiles(_Explain)
def _explain(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:
    return f"{element.words} {compiler.process(element.statement, **options)}"


@compiles(WithText)
def _with_text(element: WithText, compiler: SQLCompiler, **options: Any) -> str:
    text = compiler.process(sa.literal_column(element.text), **options)
    return f"WITH {element.name} AS ({text}) {compiler.process(element.statement, **options)}"
