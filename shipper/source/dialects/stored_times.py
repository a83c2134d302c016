"""The SQL that reads times as programs store them, for each database.

Texts are ISO 8601, or its digits only, as in 20261128161731; they may have an offset from UTC. All that is something
else is NULL, and never an error: one bad value must not stop the rows beside it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from shipper.core.model import TimeForm
from shipper.source.dialects.mysql_driver import FIELD_TYPE

EPOCH_SECONDS = 10**12
"""Epochs below are numbers that any database can compute with; the year 9999 is a quarter of it."""
_LONGEST = 100
"""Characters of a text that are read as a time: some databases fail at patterns of a long text."""
_MYSQL = ("mysql", "mariadb")
_TO_SECONDS_OF_1970 = 62_167_219_200
_FRACTIONS = "([.,][0-9]*)?"
# Go writes the name of a zone behind its offset
_ZONE = "[ ]?(Z|UTC|GMT|[-+](0[0-9]|1[0-5])(:?[0-5][0-9])?( [A-Z]+)?)?"
_NUMBER = "^[0-9]{1,30}([.][0-9]*)?$"


class Times(NamedTuple):
    """Types of a database that contain times, and examples of expressions that make times."""

    forms: Mapping[object, TimeForm]
    """How values of a type are stored, by the driver's code of the type; all other types contain no times."""
    parse: str
    """Expression that reads a text of another form."""
    combine: str
    """Expression that adds the time of a day to its day."""
    divide: str
    """Expression that divides a number by a size, without fractions."""


class Epoch(FunctionElement[int]):
    """A time as integer epoch seconds, rounded down; a time without a zone counts as UTC, and what is no time is NULL.

    The arguments are the time; the number of its units in a second, if a number is an epoch, else 0; and a number that
    is added to times that are exact in any zone: epochs, and texts with an offset from UTC.
    """

    inherit_cache = True
    name = "shipper_epoch"
    type = sa.BigInteger()


class EpochOfNumber(Epoch):
    """The same of a number: an epoch, or the digits of a time, as in 20261128161731."""

    inherit_cache = True


class EpochOfText(Epoch):
    """The same of a text: ISO 8601 or its digits only, with or without an offset from UTC; or an epoch."""

    inherit_cache = True


def _arguments(element: Epoch, compiler: SQLCompiler, options: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return the SQL of a time, and the two numbers behind it."""
    time, units, mark = (compiler.process(clause, **options) for clause in element.clauses)
    return time, int(units), int(mark)


def _is_epoch(number: str, units: int) -> str:
    """Return the condition that a number is an epoch: 0 means no time, as 0000-00-00 does; others are garbage."""
    return f"{number} > -{EPOCH_SECONDS * units} AND {number} < {EPOCH_SECONDS * units} AND {number} <> 0"


def _plus(mark: int) -> str:
    return f" + {mark}" if mark else ""


# MySQL and MariaDB

_MYSQL_TYPES = {
    TimeForm.TIME: (FIELD_TYPE.DATE, FIELD_TYPE.NEWDATE, FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP),
    TimeForm.NUMBER: (
        *(FIELD_TYPE.TINY, FIELD_TYPE.SHORT, FIELD_TYPE.INT24, FIELD_TYPE.LONG, FIELD_TYPE.LONGLONG),
        *(FIELD_TYPE.FLOAT, FIELD_TYPE.DOUBLE, FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL),
    ),
    TimeForm.TEXT: (
        *(FIELD_TYPE.VARCHAR, FIELD_TYPE.VAR_STRING, FIELD_TYPE.STRING),
        *(FIELD_TYPE.TINY_BLOB, FIELD_TYPE.BLOB, FIELD_TYPE.MEDIUM_BLOB, FIELD_TYPE.LONG_BLOB),
    ),
}
_CLOCK = f"[0-9]{{1,2}}:[0-9]{{2}}(:[0-9]{{2}}{_FRACTIONS})?"
_TEXT = (
    f"^([0-9]{{4}}[-/][0-9]{{1,2}}[-/][0-9]{{1,2}}([T ]{_CLOCK}{_ZONE})?|[0-9]{{8}}(T?[0-9]{{6}}{_FRACTIONS}{_ZONE})?)$"
)
_DIGITS = "^[0-9]{4}[-/]?[0-9]{1,2}[-/]?[0-9]{1,2}([T ]?[0-9:]+)?"
"""The beginning of such a text, without fractions and zone."""


@compiles(Epoch, *_MYSQL)
def _mysql(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    return _mysql_seconds(_arguments(element, compiler, options)[0])


def _mysql_seconds(time: str) -> str:
    # UNIX_TIMESTAMP depends on the session's zone, and is NULL before 1970 and after 2038; a difference in
    # microseconds takes twice as long
    return f"(TO_SECONDS({time}) - {_TO_SECONDS_OF_1970})"


@compiles(EpochOfNumber, *_MYSQL)
def _mysql_number(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    number, units, mark = _arguments(element, compiler, options)
    if units:
        return _mysql_epoch(number, units, mark)
    # TO_SECONDS also takes shorter numbers, for years of two digits
    has_digits = f"{number} BETWEEN 10000101 AND 99991231 OR {number} BETWEEN 10000101000000 AND 99991231235959"
    return f"CASE WHEN {has_digits} THEN {_mysql_seconds(f'FLOOR({number})')} END"


def _mysql_epoch(number: str, units: int, mark: int) -> str:
    whole = f"FLOOR({number})"  # the remainder first: a division rounds, DIV to 0
    seconds = whole if units == 1 else f"({whole} - MOD(MOD({whole}, {units}) + {units}, {units})) DIV {units}"
    return f"CASE WHEN {_is_epoch(number, units)} THEN CAST({seconds} AS SIGNED){_plus(mark)} END"


@compiles(EpochOfText, *_MYSQL)
def _mysql_text(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    column, units, mark = _arguments(element, compiler, options)
    text = f"TRIM(CONVERT(LEFT({column}, {_LONGEST}) USING utf8mb4))"
    # the offset, as +0130: behind the date, which has signs, too
    rest = f"SUBSTR({text}, 12)"
    offset = f"CONCAT(REPLACE(REGEXP_SUBSTR({rest}, '[-+][0-9:]+'), ':', ''), '00')"
    minutes = f"CONCAT(LEFT({offset}, 1), SUBSTR({offset}, 2, 2) * 60 + SUBSTR({offset}, 4, 2))"
    # the pattern matches t, too, where TO_SECONDS would end
    digits = f"REPLACE(REGEXP_SUBSTR({text}, '{_DIGITS}'), 't', 'T')"
    seconds = f"{_mysql_seconds(digits)} - COALESCE(CAST({minutes} AS SIGNED), 0) * 60"
    marked = f"{seconds} + IF({rest} REGEXP '[-+A-Z]', {mark}, 0)" if mark else seconds
    whole = f"CAST(SUBSTRING_INDEX({text}, '.', 1) AS DECIMAL(30))"
    number = f"WHEN {text} REGEXP '{_NUMBER}' THEN {_mysql_epoch(whole, units, mark)} " if units else ""
    return f"CASE {number}WHEN {text} REGEXP '{_TEXT}' THEN {marked} END"


# PostgreSQL: its casts respect offsets, but one bad text is an error. The patterns accept only what they accept


def _days(sign: str, zero: str) -> str:
    """Return the pattern of all days since the year 1000."""
    years, leap = "[1-9][0-9]{3}", "([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)"
    short = f"({zero}[1-9]|1[0-2]){sign}({zero}[1-9]|1[0-9]|2[0-8])"
    long = f"({zero}[13-9]|1[0-2]){sign}(29|30)|({zero}[13578]|1[02]){sign}31"
    return f"({years}{sign}({short}|{long})|{leap}{sign}{zero}2{sign}29)"


_SIXTY = "[0-5][0-9]"
_SEPARATED = f"^{_days('[-/]', '0?')}([T ]([01]?[0-9]|2[0-3]):{_SIXTY}(:{_SIXTY}{_FRACTIONS})?{_ZONE})?$"
_COMPACT = f"^{_days('', '0')}(T?([01][0-9]|2[0-3]){_SIXTY}{_SIXTY}{_FRACTIONS}{_ZONE})?$"


@compiles(Epoch, "postgresql")
def _postgresql(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    # 'infinity' has no epoch: such a row has no time
    time, *_ = _arguments(element, compiler, options)
    return f"CASE WHEN isfinite({time}) THEN {_postgresql_seconds(time)} END"


def _postgresql_seconds(time: str) -> str:
    return f"CAST(FLOOR(EXTRACT(EPOCH FROM {time})) AS BIGINT)"


@compiles(EpochOfNumber, "postgresql")
def _postgresql_number(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    number, units, mark = _arguments(element, compiler, options)
    whole = f"SPLIT_PART(CAST({number} AS TEXT), '.', 1)"
    return _postgresql_epoch(number, units, mark) if units else _postgresql_time(whole, 0)


def _postgresql_epoch(number: str, units: int, mark: int) -> str:
    # FLOOR makes a BIGINT a float, and a NUMERIC of a float has 15 digits: only the text is exact
    seconds = f"FLOOR(CAST(CAST({number} AS TEXT) AS NUMERIC) * {1 / units:f})"
    return f"CASE WHEN {_is_epoch(number, units)} THEN CAST({seconds} AS BIGINT){_plus(mark)} END"


@compiles(EpochOfText, "postgresql")
def _postgresql_text(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    column, units, mark = _arguments(element, compiler, options)
    text = f"TRIM(LEFT({column}, {_LONGEST}))"
    time, whole = _postgresql_time(text, mark), f"CAST(SPLIT_PART({text}, '.', 1) AS NUMERIC)"
    is_number = f"{text} ~ '{_NUMBER}'"
    return f"CASE WHEN {is_number} THEN {_postgresql_epoch(whole, units, mark)} ELSE {time} END" if units else time


def _postgresql_time(text: str, mark: int) -> str:
    # without a zone the cast takes that of the session, UTC
    plain = f"REGEXP_REPLACE({text}, '[.,][0-9]*| ?[A-Z]+$', '', 'gi')"
    compact = f"SUBSTR({plain}, 1, 8) || ' ' || LTRIM(SUBSTR({plain}, 9), 'Tt')"
    marked = f" + CASE WHEN SUBSTR({text}, 12) ~* '[-+A-Z]' THEN {mark} ELSE 0 END" if mark else ""
    return (
        f"CASE WHEN {text} ~* '{_SEPARATED}' THEN {_postgresql_seconds(f'CAST({plain} AS TIMESTAMPTZ)')}{marked} "
        f"WHEN {text} ~* '{_COMPACT}' THEN {_postgresql_seconds(f'CAST({compact} AS TIMESTAMPTZ)')}{marked} END"
    )


# SQLite, where each value has its own type

_DAY, _DAYTIME = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]", "[0-9][0-9]:[0-9][0-9]:[0-9][0-9]"
# fractions are cut, and an offset becomes one that STRFTIME knows
_OF_TEXT = f"""SELECT CAST(STRFTIME('%s', SUBSTR(iso, 1, MIN(19, LENGTH(iso) - LENGTH(zone))) || CASE
        WHEN zone IN ('Z', 'UTC', 'GMT') THEN '' WHEN zone GLOB '[-+][0-9][0-9]' THEN zone || ':00'
        WHEN zone GLOB '[-+][0-9][0-9][0-9][0-9]*' THEN SUBSTR(zone, 1, 3) || ':' || SUBSTR(zone, 4, 2)
        ELSE SUBSTR(zone, 1, 6) END) AS INTEGER){{marked}}
    FROM (SELECT iso, LTRIM(SUBSTR(iso, 12), '0123456789:., ') AS zone FROM (SELECT CASE
        WHEN text GLOB '{_DAY}*' THEN text WHEN digits GLOB '[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]*' THEN
        SUBSTR(digits, 1, 4) || '-' || SUBSTR(digits, 5, 2) || '-' || SUBSTR(digits, 7, 2) || CASE LENGTH(digits)
            WHEN 8 THEN '' ELSE ' ' || SUBSTR(digits, 9, 2) || ':' || SUBSTR(digits, 11, 2) || ':' || SUBSTR(digits, 13)
        END END AS iso
    FROM (SELECT text, REPLACE(text, 'T', '') AS digits
    FROM (SELECT REPLACE(UPPER(TRIM(SUBSTR({{value}}, 1, {_LONGEST}))), '/', '-') AS text))))"""


@compiles(Epoch, "sqlite")
def _sqlite(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    value, units, mark = _arguments(element, compiler, options)
    # the usual text first, because it is quickest; without SUBSTR 23:59:59.999999 rounds up a second
    is_usual = f"{value} GLOB '{_DAY}[ T]{_DAYTIME}*' AND SUBSTR({value}, 20) NOT GLOB '*[^.0-9]*'"
    usual = f"WHEN {is_usual} THEN {_sqlite_seconds(f'SUBSTR({value}, 1, 19)')}"
    # numbers, which may be in a text, too
    is_number = f"TYPEOF({value}) IN ('integer', 'real')"
    is_digits = f"{value} GLOB '[0-9]*' AND {value} NOT GLOB '*[^0-9.]*'"
    # sqlite.org/datatype3.html: a real number is a Julian day
    number = f"WHEN TYPEOF({value}) = 'real' AND {value} BETWEEN 1721426 AND 5373484 THEN {_sqlite_seconds(value)}"
    if units:
        number = f"WHEN {is_number} OR {is_digits} THEN {_sqlite_epoch(f'CAST({value} AS NUMERIC)', units, mark)}"
    marked = f" + CASE WHEN zone = '' THEN 0 ELSE {mark} END" if mark else ""
    return f"CASE {usual} {number} ELSE ({_OF_TEXT.format(value=value, marked=marked)}) END"


def _sqlite_seconds(time: str) -> str:
    return f"CAST(STRFTIME('%s', {time}) AS INTEGER)"


def _sqlite_epoch(number: str, units: int, mark: int) -> str:
    # the remainder first: CAST and / round to 0
    whole = f"(CAST({number} AS INTEGER) - ({number} < CAST({number} AS INTEGER)))"
    seconds = whole if units == 1 else f"({whole} - (({whole} % {units}) + {units}) % {units}) / {units}"
    return f"CASE WHEN {_is_epoch(number, units)} THEN {seconds}{_plus(mark)} END"


# OIDs of pg_type.dat: psycopg knows them, too, but is slow to import
_POSTGRESQL_TYPES = {
    TimeForm.TIME: (1082, 1114, 1184),  # date, timestamp, timestamptz
    TimeForm.NUMBER: (21, 23, 20, 1700, 700, 701),  # int2, int4, int8, numeric, float4, float8
    TimeForm.TEXT: (25, 1043, 1042, 19),  # text, varchar, bpchar, name
}
_ON_MYSQL = Times(
    {code: form for form, codes in _MYSQL_TYPES.items() for code in codes},
    parse="STR_TO_DATE({time}, '%d/%m/%Y %H:%i:%s')",
    combine="TIMESTAMP(DAY, {time})",
    divide="CAST({time} DIV {size} AS SIGNED)",
)
TIMES: Mapping[str, Times] = {
    "mysql": _ON_MYSQL,
    "mariadb": _ON_MYSQL,
    "postgresql": Times(
        {oid: form for form, oids in _POSTGRESQL_TYPES.items() for oid in oids},
        parse="TO_TIMESTAMP({time}, 'DD/MM/YYYY HH24:MI:SS')",
        combine="DAY + {time}",
        divide="CAST({time} AS BIGINT) / {size}",
    ),
    "sqlite": Times(
        {None: TimeForm.TIME},
        parse="SUBSTR({time},7,4) || '-' || SUBSTR({time},4,2) || '-' || SUBSTR({time},1,2) || SUBSTR({time},11)",
        combine="DAY || ' ' || {time}",
        divide="CAST({time} AS INTEGER) / {size}",
    ),
}
"""By SQLAlchemy's names."""
