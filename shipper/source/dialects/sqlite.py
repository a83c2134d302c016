"""SQLite, through the standard library."""

import math
import re
import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import quote as quoted

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import IdentifierPreparer, SQLCompiler
from typing_extensions import override

from shipper.core.errors import QueryRefused, RowRefused, SourceUnavailable
from shipper.core.paths import MAX_LABEL
from shipper.source.access import Access, is_endless
from shipper.source.dialects.dialect import (
    CHECK_NAMES,
    CHECK_SQL,
    CHECK_TYPES,
    SLOW,
    Catalog,
    Meaning,
    Plan,
    Rewrites,
    Session,
)
from shipper.source.dialects.expressions import (
    CUT,
    Beginning,
    BitOfId,
    BitsOfIds,
    Label,
    ListOfIds,
    ServerTime,
    Statement,
    Text,
    Unfit,
    WithinMinute,
    argument,
    explain,
)
from shipper.source.limits import Meter, check_size

_SETTINGS: Mapping[str, object] = {"query_only": 1, "read_uncommitted": 0}
MOST_BYTES = 8_000_000
"""Largest value that SQLite may return: it runs in our memory, and holds several copies of a value."""
MOST_MEMORY = 64_000_000
"""Memory that all of SQLite may take in this process: it reads a value whole before it knows its length."""
_STEPS = 100_000
"""Steps of a statement, a few milliseconds, between looks at the clock."""
ERRORS: Mapping[object, Meaning] = {}
WORDS: Mapping[str, Meaning] = {
    "integer overflow": (RowRefused, CHECK_TYPES),
    "malformed JSON": (RowRefused, CHECK_TYPES),
    "too big": (RowRefused, f"Leave out rows with values of more than {MOST_BYTES} bytes, by `where` or `where_sql`."),
    "no such": (QueryRefused, CHECK_NAMES),
    "syntax error": (QueryRefused, CHECK_SQL),
    # a reader of a file in WAL mode shares memory with writers
    "readonly database": (
        SourceUnavailable,
        "Let this user write the file and its folder, because it is in WAL mode; or run PRAGMA journal_mode = DELETE.",
    ),
    "interrupted": (SourceUnavailable, SLOW),
    "is locked": (SourceUnavailable, "Look for a program that keeps a transaction open on the file."),
    "malformed": (QueryRefused, "Restore the file: it is damaged (PRAGMA integrity_check)."),
    "not a database": (QueryRefused, "Check the path in `url`: the file is not an SQLite database."),
    "unable to open": (SourceUnavailable, "Check that the file of `url` exists, and that this user can read it."),
}
DRIVER_ERROR: type[Exception] = sqlite3.Error
BEGIN = BEGIN_SINGLE = "BEGIN"
REWRITES: Rewrites | None = None
CATALOG = Catalog(
    tables="SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT GLOB 'sqlite_*'",
    columns="SELECT name, type FROM pragma_table_xinfo(:table) WHERE hidden <> 1",  # with generated ones
    leading="""SELECT 'PRIMARY KEY', name, NULL FROM pragma_table_info(:table) WHERE pk = 1 UNION ALL
        SELECT listed.name, leading.name, NULL FROM pragma_index_list(:table) AS listed, pragma_index_info(listed.name)
        AS leading WHERE leading.seqno = 0 AND leading.name IS NOT NULL AND NOT listed.partial""",
    kind="SELECT UPPER(type) FROM sqlite_schema WHERE name = :table",
    unique="""SELECT MAX(name) FROM pragma_table_info(:table) WHERE pk > 0 HAVING COUNT(*) = 1 UNION ALL
        SELECT MAX(indexed.name) FROM pragma_index_list(:table) AS listed, pragma_index_info(listed.name) AS indexed
        WHERE listed."unique" AND NOT listed.partial GROUP BY listed.name HAVING COUNT(*) = 1""",
    # sqlite.org/autoinc.html: without AUTOINCREMENT new rows get the ids of deleted last rows
    reused="""SELECT MAX(name) FROM pragma_table_info(:table) WHERE pk > 0 AND NOT EXISTS (
            SELECT 1 FROM sqlite_schema WHERE name = :table AND sql LIKE '%AUTOINCREMENT%')
        HAVING COUNT(*) = 1 AND UPPER(MAX(type)) = 'INTEGER'""",
    has_types=False,
)
SESSION = "SELECT NULL, 0"
TLS: str | None = None
GRANT_SCHEMA: str | None = None
NOT_SUMMED: Collection[object] = ()
NAMES_DATABASE = False
ADD_KEY = ""
MAKE_TRANSACTIONAL = ""
REVIVE_INDEX = ""


class _Connection(sqlite3.Connection):
    """A connection that limits a statement in time, and its answer in size; each statement has a separate cursor."""

    seconds = _deadline = math.inf
    _bytes = 0

    @override
    def cursor(self, *arguments: Any, **named: Any) -> Any:
        self._deadline = time.monotonic() + self.seconds
        self._bytes = 0
        return super().cursor(*arguments, **named)

    def text(self, value: bytes) -> str:
        """Decode a text of an answer, whose size has the same limit as that of a server's."""
        self._bytes += len(value)
        check_size(self._bytes)
        return value.decode(errors="backslashreplace")  # else a row with a text that is not UTF-8 could not be read

    def is_late(self) -> bool:
        """Whether the statement has taken too long."""
        return time.monotonic() > self._deadline


def url(access: Access) -> sa.URL:
    """Return a read-only URI: a plain path with a typing error would create an empty database."""
    return access.url.set(database=f"file:{quoted(access.url.database or '')}", query={"mode": "ro", "uri": "true"})


def arguments(access: Access) -> dict[str, Any]:
    """Return sqlite3's arguments; SQLAlchemy's pool hands a connection to one thread at a time."""
    return {"timeout": access.timeout, "check_same_thread": False, "factory": _Connection}


def connect(access: Access, _arguments: Mapping[str, Any], _meter: Meter) -> DBAPIConnection | None:
    """Leave it to SQLAlchemy: a file is no server."""
    if is_endless(access.url.database or ""):
        hint = "Name an SQLite database in `url`."
        raise SourceUnavailable(f"open {access.url.database}: a pipe or a device", hint=hint)
    return None


def prepare(connection: DBAPIConnection, access: Access) -> Session:
    """Make a connection read-only, limit the time of its statements, and decode every text."""
    connection.seconds = access.timeout
    connection.set_progress_handler(connection.is_late, _STEPS)
    connection.text_factory = connection.text
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
    cursor = connection.cursor()
    (encoding,) = cursor.execute("PRAGMA encoding").fetchone()
    connection.create_function("shipper_label", 2, partial(label_of, encoding), deterministic=True)
    connection.create_function("shipper_bit", 3, bit_of, deterministic=True)
    cursor.execute("PRAGMA case_sensitive_like = OFF")  # cannot be read back
    for name, value in _SETTINGS.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.execute(f"PRAGMA hard_heap_limit = {MOST_MEMORY}")
    cursor.close()
    return Session(_SETTINGS)


def bit_of(identity: float, first: int, bits: bytes) -> int:
    """Return the bit of an id in bytes that begin with that of another one; SQLite has no function for it."""
    if not isinstance(identity, int):  # 5.5 has none
        return 0
    place = identity - first
    return bits[place // 8] >> place % 8 & 1


def read_back(connection: DBAPIConnection, settings: Mapping[str, object]) -> Mapping[str, object]:
    """Read the connection's pragmas."""
    cursor = connection.cursor()
    values = {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in settings}
    cursor.close()
    return values


def codes(_: BaseException | None) -> Iterable[object]:
    """Return nothing: messages tell more than SQLite's codes."""
    return ()


def identity(_: sa.Dialect) -> str | None:
    """Return None: there is no server."""
    return None


def plan(connection: sa.Connection, statement: Statement, values: Mapping[str, Any], name: str) -> Plan:
    """Return the step of the plan that reads a range, else the first step."""
    steps = [step["detail"] for step in explain(connection, "EXPLAIN QUERY PLAN", statement, values)]
    ranges = [step for step in steps if re.search(rf"SEARCH .*\((?:rowid|{re.escape(name)})>", step)]
    step = (ranges or steps)[0]
    return Plan(step, None, bool(ranges), is_scan=not ranges and step.startswith("SCAN"))


def is_short(_: Any) -> bool:
    """Return False: columns have no types."""
    return False


def user(_: Access) -> str | None:
    """Return None: a file has no users."""
    return None


def account(_account: str, _quote: IdentifierPreparer) -> str | None:
    """Return None: the permissions of the file decide."""
    return None


@compiles(Text, "sqlite")
def _text(element: Text | Label, compiler: SQLCompiler, **options: Any) -> str:
    value = argument(element, compiler, options)
    # a text may contain bytes that are no UTF-8, as well: the types differ; CASE has no collation
    return f"CASE TYPEOF({value}) WHEN 'blob' THEN CAST(x'ff' || {value} AS BLOB) ELSE CAST({value} AS TEXT) END"


@compiles(Label, "sqlite")
def _label(element: Label, compiler: SQLCompiler, **options: Any) -> str:
    value = argument(element, compiler, options)
    # the length of a text would end at a NUL in it
    long = f"shipper_label(CAST({value} AS BLOB), TYPEOF({value}) = 'blob')"
    return f"CASE WHEN LENGTH(CAST({value} AS BLOB)) > {MAX_LABEL} THEN {long} ELSE {_text(element, compiler)} END"


def label_of(encoding: str, value: bytes, is_binary: int) -> bytes | str:
    """Return the label of a value of more than MAX_LABEL bytes, given with its encoding."""
    if is_binary:
        return CUT + value[:MAX_LABEL] + b"..." + sha256(value).hexdigest().encode()
    beginning = value[: 4 * (MAX_LABEL + 1)].decode(encoding, "backslashreplace")  # 4 bytes for a character at most
    if len(beginning) <= MAX_LABEL:
        return beginning
    return f"{beginning[:MAX_LABEL]}...{sha256(value).hexdigest()}"


@compiles(Beginning, "sqlite")
def _beginning(element: Beginning, compiler: SQLCompiler, **options: Any) -> str:
    value = argument(element, compiler, options)
    return f"CASE WHEN TYPEOF({value}) IN ('text', 'blob') THEN SUBSTR({value}, 1, {MAX_LABEL}) ELSE {value} END"


@compiles(Unfit, "sqlite")
def _unfit(element: Unfit, compiler: SQLCompiler, **options: Any) -> str:
    # a text is greater than every number; SUM adds the number that a text begins with, and so does CAST
    return f"(CAST({argument(element, compiler, options)} AS REAL) NOT BETWEEN -1e300 AND 1e300)"


@compiles(WithinMinute, "sqlite")
def _within_minute(element: WithinMinute, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST(ROUND(SUBSTR({argument(element, compiler, options)}, 18) * 1000000) AS INTEGER)"


@compiles(ServerTime, "sqlite")
def _server_time(_element: ServerTime, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(STRFTIME('%s', 'now') AS INTEGER)"


@compiles(BitsOfIds, "sqlite")
def _bits(element: BitsOfIds, compiler: SQLCompiler, **options: Any) -> str:
    # there is no BIT_OR; each bit comes once, or the rows are more than the bits
    return f"SUM(1 << ({argument(element, compiler, options)} & 63))"


@compiles(BitOfId, "sqlite")
def _bit(element: BitOfId, compiler: SQLCompiler, **options: Any) -> str:
    return f"shipper_bit({argument(element, compiler, options)})"


@compiles(ListOfIds, "sqlite")
def _ids(element: ListOfIds, compiler: SQLCompiler, **options: Any) -> str:
    return f"GROUP_CONCAT({argument(element, compiler, options)} || ';', '')"
