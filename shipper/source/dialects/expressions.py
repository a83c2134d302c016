"""SQLAlchemy: the expressions that each database writes in its own way."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

_EPOCH_SECONDS = 62_167_219_200  # TO_SECONDS('1970-01-01')


class Text(FunctionElement[bytes]):
    """A value's text as UTF-8 bytes, so that grouping knows no collation: 'Login', 'login' and 'login ' differ."""

    inherit_cache = True
    name = "shipper_text"


class Unfit(FunctionElement[bool]):
    """Is a number one that Carbon could not hold: NaN, infinite, or too large? NULL is not."""

    inherit_cache = True
    name = "shipper_unfit"
    type = sa.Boolean()


class Fit(FunctionElement[Any]):
    """A number as it is, exact; NULL where it is unfit."""

    inherit_cache = True
    name = "shipper_fit"


class Epoch(FunctionElement[int]):
    """A time column as whole epoch seconds, rounded down; one without a zone is taken for UTC."""

    inherit_cache = True
    name = "shipper_epoch"
    type = sa.Integer()


class ServerTime(FunctionElement[int]):
    """The server's clock, epoch seconds."""

    inherit_cache = True
    name = "shipper_server_time"


class WordOfId(FunctionElement[int]):
    """The number of the word of 64 ids that an id is in."""

    inherit_cache = True
    name = "shipper_word"
    type = sa.BigInteger()


class BitsOfIds(FunctionElement[int]):
    """The ids of a word, a bit for each; exact, unlike every checksum."""

    inherit_cache = True
    name = "shipper_bits"
    type = sa.BigInteger()


@compiles(Text)
def _text_mysql(element: Text, compiler: SQLCompiler, **options: Any) -> str:
    # bytes stay as they are: as utf8mb4 all that are none would be '?'
    column = compiler.process(element.clauses, **options)
    text = f"CAST(CONVERT({column} USING utf8mb4) AS BINARY)"
    return f"IF(CHARSET({column}) = 'binary', CAST({column} AS BINARY), {text})"


@compiles(Text, "postgresql")
def _text_postgresql(element: Text, compiler: SQLCompiler, **options: Any) -> str:
    return f"convert_to(CAST({compiler.process(element.clauses, **options)} AS text), 'UTF8')"


@compiles(Text, "sqlite")
def _text_sqlite(element: Text, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST(CAST({compiler.process(element.clauses, **options)} AS TEXT) AS BLOB)"


@compiles(Unfit)
def _unfit_mysql(element: Unfit, compiler: SQLCompiler, **options: Any) -> str:
    # compared with a DOUBLE, a time would be beyond every number
    return f"({compiler.process(element.clauses, **options)} + 0e0 NOT BETWEEN -1e300 AND 1e300)"


@compiles(Unfit, "postgresql")
def _unfit_postgresql(element: Unfit, compiler: SQLCompiler, **options: Any) -> str:
    # NaN is greater than every number, and NUMERIC has it, too
    return f"({compiler.process(element.clauses, **options)} NOT BETWEEN -1e300 AND 1e300)"


@compiles(Unfit, "sqlite")
def _unfit_sqlite(element: Unfit, compiler: SQLCompiler, **options: Any) -> str:
    # a text is greater than every number; SUM adds up what it begins with, and so does CAST
    return f"(CAST({compiler.process(element.clauses, **options)} AS REAL) NOT BETWEEN -1e300 AND 1e300)"


@compiles(Fit)
def _fit(element: Fit, compiler: SQLCompiler, **options: Any) -> str:
    unfit, column = compiler.process(Unfit(*element.clauses), **options), compiler.process(element.clauses, **options)
    return f"CASE WHEN {unfit} THEN NULL ELSE {column} END"


@compiles(Epoch)
def _epoch_mysql(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    # UNIX_TIMESTAMP depends on the session's zone, and is NULL before 1970 and after 2038; a difference in
    # microseconds takes twice as long
    return f"(TO_SECONDS({compiler.process(element.clauses, **options)}) - {_EPOCH_SECONDS})"


@compiles(Epoch, "postgresql")
def _epoch_postgresql(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    # 'infinity' has no epoch: such a row has no time
    column = compiler.process(element.clauses, **options)
    return f"CASE WHEN isfinite({column}) THEN CAST(FLOOR(EXTRACT(EPOCH FROM {column})) AS BIGINT) END"


@compiles(Epoch, "sqlite")
def _epoch_sqlite(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    # without SUBSTR 23:59:59.999999 rounds up a second
    return f"CAST(STRFTIME('%s', SUBSTR({compiler.process(element.clauses, **options)}, 1, 19)) AS INTEGER)"


@compiles(ServerTime)
def _time_mysql(_element: ServerTime, _compiler: SQLCompiler, **_options: Any) -> str:
    return "UNIX_TIMESTAMP()"


@compiles(ServerTime, "postgresql")
def _time_postgresql(_element: ServerTime, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp())) AS BIGINT)"


@compiles(ServerTime, "sqlite")
def _time_sqlite(_element: ServerTime, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(STRFTIME('%s', 'now') AS INTEGER)"


@compiles(WordOfId)
def _word_mysql(element: WordOfId, compiler: SQLCompiler, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)} DIV 64)"


@compiles(WordOfId, "postgresql")
@compiles(WordOfId, "sqlite")
def _word(element: WordOfId, compiler: SQLCompiler, **options: Any) -> str:
    return f"(CAST({compiler.process(element.clauses, **options)} AS BIGINT) / 64)"


@compiles(BitsOfIds)
def _bits_mysql(element: BitsOfIds, compiler: SQLCompiler, **options: Any) -> str:
    return f"BIT_OR(1 << ({compiler.process(element.clauses, **options)} & 63))"


@compiles(BitsOfIds, "postgresql")
def _bits_postgresql(element: BitsOfIds, compiler: SQLCompiler, **options: Any) -> str:
    column = f"CAST({compiler.process(element.clauses, **options)} AS BIGINT)"
    return f"BIT_OR(CAST(1 AS BIGINT) << CAST({column} & 63 AS INTEGER))"


@compiles(BitsOfIds, "sqlite")
def _bits_sqlite(element: BitsOfIds, compiler: SQLCompiler, **options: Any) -> str:
    # there is no BIT_OR; each bit comes once, or the rows are more than the bits
    return f"SUM(1 << ({compiler.process(element.clauses, **options)} & 63))"
