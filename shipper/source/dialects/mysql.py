"""MySQL and MariaDB, through PyMySQL."""

import ssl
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa
from pymysql.constants import ER, FIELD_TYPE
from pymysql.converters import conversions
from pymysql.optionfile import Parser
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import IdentifierPreparer, SQLCompiler

from shipper.core.errors import ConfigError, QueryRefused, RowRefused, SourceUnavailable
from shipper.source.access import CONNECT_SECONDS, GRACE_SECONDS, Access, Denied
from shipper.source.dialects.dialect import (
    CHECK_DATABASE,
    CHECK_LOGIN,
    CHECK_NAMES,
    CHECK_SERVER,
    CHECK_TLS,
    CHECK_TYPES,
    Catalog,
    Meaning,
    Plan,
    Rewrites,
)
from shipper.source.dialects.expressions import (
    BitsOfIds,
    Epoch,
    ListOfIds,
    ServerTime,
    Statement,
    Text,
    Unfit,
    WordOfId,
    argument,
    explain,
)

_NAMES = ("mysql", "mariadb")
_EPOCH_SECONDS = 62_167_219_200  # TO_SECONDS('1970-01-01')
# numbers that PyMySQL does not name: ER_DATA_OUT_OF_RANGE, and ER_INVALID_JSON_TEXT_IN_PARAM of MySQL
_OUT_OF_RANGE, _INVALID_JSON = 1690, 3141
_NUMERIC = 5  # COERCIBILITY of numbers and times
_TABLE = "WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name = :table"

ERRORS: Mapping[object, Meaning] = {
    ER.ACCESS_DENIED_ERROR: (QueryRefused, CHECK_LOGIN),
    ER.DBACCESS_DENIED_ERROR: (QueryRefused, CHECK_DATABASE),
    ER.BAD_DB_ERROR: (QueryRefused, CHECK_DATABASE),
    ER.BAD_FIELD_ERROR: (QueryRefused, CHECK_NAMES),
    ER.NO_SUCH_TABLE: (QueryRefused, CHECK_NAMES),
    ER.PARSE_ERROR: (QueryRefused, CHECK_NAMES),
    ER.TABLEACCESS_DENIED_ERROR: (Denied, CHECK_NAMES),
    ER.COLUMNACCESS_DENIED_ERROR: (Denied, CHECK_NAMES),
    ER.VIEW_NO_EXPLAIN: (Denied, CHECK_NAMES),
    _OUT_OF_RANGE: (RowRefused, CHECK_TYPES),
    ER.WRONG_VALUE_FOR_TYPE: (RowRefused, CHECK_TYPES),
    _INVALID_JSON: (RowRefused, CHECK_TYPES),
}
WORDS: Mapping[str, Meaning] = {
    "certificate": (SourceUnavailable, CHECK_TLS),
    "SSL": (SourceUnavailable, CHECK_TLS),
    "connection": (SourceUnavailable, CHECK_SERVER),
    "Can't connect": (SourceUnavailable, CHECK_SERVER),
}
MISSING_MODULES: Mapping[str, str] = {"cryptography": "`pip install pymysql[rsa]`, or connect by TLS."}
"""PyMySQL needs that package for MySQL 8's usual authentication."""
BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
REWRITES: Rewrites | None = None
# SQLAlchemy's own inspection needs SHOW CREATE TABLE, which grants on columns do not allow
CATALOG = Catalog(
    columns=f"SELECT column_name, data_type FROM information_schema.columns {_TABLE}",
    # each server runs the comments with its version; an index on an expression has no column
    leading=f"""SELECT index_name, column_name, CASE WHEN FALSE THEN ''
            /*!80000 WHEN is_visible = 'NO' THEN 'VISIBLE' */ /*M!100600 WHEN ignored = 'YES' THEN 'NOT IGNORED' */ END
        FROM information_schema.statistics {_TABLE} AND seq_in_index = 1 AND column_name IS NOT NULL""",
    kind=f"SELECT table_type FROM information_schema.tables {_TABLE}",
    unique=f"""SELECT MAX(column_name) FROM information_schema.statistics {_TABLE} AND non_unique = 0
        GROUP BY index_name HAVING COUNT(*) = 1 AND COUNT(column_name) = 1""",
    engine=f"""SELECT engine FROM information_schema.tables {_TABLE} AND engine IN (
        SELECT engine FROM information_schema.engines WHERE transactions <> 'YES')""",
    moment="timestamp",
)
SESSION = "SELECT CURRENT_USER(), @@read_only, TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW())"
TLS: str | None = "SHOW SESSION STATUS LIKE 'Ssl_version'"
GRANT_SCHEMA: str | None = None
MAKE_TRANSACTIONAL = "ENGINE = InnoDB"
REVIVE_INDEX = "ALTER TABLE {table} ALTER INDEX {index} {required};"


def url(access: Access) -> sa.URL:
    """Return the URL as it is configured."""
    return access.url


def arguments(access: Access) -> dict[str, Any]:
    """Return PyMySQL's arguments."""
    connect: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": access.timeout + GRACE_SECONDS,
        "write_timeout": access.timeout + GRACE_SECONDS,
        "charset": "utf8mb4",
        "conv": conversions | {FIELD_TYPE.BIT: partial(int.from_bytes, byteorder="big")},
    }
    if access.option_file:
        connect["read_default_file"] = access.option_file
    if password := access.url.password or _option(access, "password"):
        connect["password"] = password.encode()  # servers store UTF-8; PyMySQL would encode it as Latin-1
    if "unix_socket" not in access.url.query and access.url.host is None:
        connect["host"] = "127.0.0.1"
    if access.verifies != "off":
        # PyMySQL's own context verifies nothing without a file of authorities
        context = _tls_context(access)
        context.check_hostname = access.verifies == "verify-identity"
        connect["ssl"] = context
    return connect


def prepare(connection: DBAPIConnection, access: Access) -> None:
    """Set zone, isolation, access mode and limits of a new session."""
    cursor = connection.cursor()
    cursor.execute("SET time_zone = '+00:00'")
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    cursor.execute("SET SESSION TRANSACTION READ ONLY")
    cursor.execute("SET SESSION group_concat_max_len = 4294967295")
    cursor.execute("SELECT VERSION()")
    if "MariaDB" in str(cursor.fetchone()):
        cursor.execute(f"SET SESSION max_statement_time = {access.timeout}")
        cursor.execute(f"SET SESSION idle_transaction_timeout = {access.idle}")
    else:  # MySQL counts in milliseconds, and has no limit for idle transactions
        cursor.execute(f"SET SESSION max_execution_time = {access.timeout * 1000}")
    cursor.close()


def codes(error: BaseException | None) -> Iterable[object]:
    """Return the server's error number."""
    return error.args[:1] if error else ()


def identity(dialect: sa.Dialect) -> str | None:
    """Return the statement for the server's UUID; an older MariaDB has none, and rejects it."""
    return "SELECT @@server_uid" if getattr(dialect, "is_mariadb", False) else "SELECT @@server_uuid"


def plan(connection: sa.Connection, statement: Statement, values: Mapping[str, Any], _: str) -> Plan:
    """Return the step of the plan that reads a range, else the first step."""
    # MySQL 9.5 and newer show a tree by default
    steps = explain(connection, "EXPLAIN FORMAT=TRADITIONAL", statement, values).mappings().all()
    ranges = [step for step in steps if step["type"] == "range"]
    step = (ranges or steps)[0]
    text = f"{step['type']} on {step['key']}" if step["key"] else str(step["type"] or step["Extra"])
    rows = None if step["rows"] is None else int(step["rows"])  # a text, for views
    return Plan(text, rows, bool(ranges), is_scan=not ranges and step["type"] in {"ALL", "index"})


def user(access: Access) -> str | None:
    """Return the user of the URL or of the option file."""
    return access.url.username or _option(access, "user")


def account(account: str, _quote: IdentifierPreparer) -> str | None:
    """Quote user and host."""
    name, _, host = account.rpartition("@")
    return "@".join("'{}'".format(part.replace("'", "''")) for part in (name, host))


def default_schema(access: Access) -> str | None:
    """Return the database, because an administrator may be connected to another one."""
    return access.url.database


def _option(access: Access, name: str) -> str | None:
    """Return an option of [client] in the option file, None where it is not set."""
    options = Parser()
    if access.option_file:
        options.read(access.option_file, encoding="utf-8")
    value: str | None = options.get("client", name) if options.has_option("client", name) else None
    return value


def _tls_context(access: Access) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=access.tls_ca)
    except OSError as error:  # the base class of SSLError, too
        reason = error.strerror or error
        hint = "Set `tls_ca` to a CA file (PEM) that this user can read."
        raise ConfigError(f"read tls_ca {access.tls_ca}: {reason}", hint=hint) from error


@compiles(Text, *_NAMES)
def _text(element: Text, compiler: SQLCompiler, **options: Any) -> str:
    value = argument(element, compiler, options)
    # one function makes text of JSON, and a number of BIT: their other properties are those of bytes
    plain = f"COALESCE({value})"
    return f"""CASE WHEN CHARSET({plain}) <> 'binary' THEN CAST(CONVERT({value} USING utf8mb4) AS BINARY)
    WHEN COERCIBILITY({value}) = {_NUMERIC} THEN CAST({value} AS BINARY)
    WHEN COERCIBILITY({plain}) = {_NUMERIC} THEN CAST({plain} AS BINARY)
    ELSE CONCAT(x'ff', CAST({value} AS BINARY)) END"""


@compiles(Unfit, *_NAMES)
def _unfit(element: Unfit, compiler: SQLCompiler, **options: Any) -> str:
    # compared with a DOUBLE without + 0e0, a time would be beyond every number
    return f"({argument(element, compiler, options)} + 0e0 NOT BETWEEN -1e300 AND 1e300)"


@compiles(Epoch, *_NAMES)
def _epoch(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    # UNIX_TIMESTAMP depends on the session's zone, and is NULL before 1970 and after 2038; a difference in
    # microseconds takes twice as long
    return f"(TO_SECONDS({argument(element, compiler, options)}) - {_EPOCH_SECONDS})"


@compiles(ServerTime, *_NAMES)
def _server_time(_element: ServerTime, _compiler: SQLCompiler, **_options: Any) -> str:
    return "UNIX_TIMESTAMP()"


@compiles(WordOfId, *_NAMES)
def _word(element: WordOfId, compiler: SQLCompiler, **options: Any) -> str:
    return f"({argument(element, compiler, options)} DIV 64)"


@compiles(BitsOfIds, *_NAMES)
def _bits(element: BitsOfIds, compiler: SQLCompiler, **options: Any) -> str:
    return f"BIT_OR(1 << ({argument(element, compiler, options)} & 63))"


@compiles(ListOfIds, *_NAMES)
def _ids(element: ListOfIds, compiler: SQLCompiler, **options: Any) -> str:
    # cut at max_allowed_packet: then the last id has no semicolon, or ids are missing
    return f"GROUP_CONCAT({argument(element, compiler, options)}, ';' SEPARATOR '')"
