"""MySQL and MariaDB, through PyMySQL."""

import ssl
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import IdentifierPreparer, SQLCompiler

from shipper.core.errors import ConfigError
from shipper.core.model import MAX_ID
from shipper.core.paths import MAX_LABEL
from shipper.source.access import CONNECT_SECONDS, GRACE_SECONDS, IDLE_SECONDS, Access, check_file
from shipper.source.dialects import mysql_driver
from shipper.source.dialects.dialect import Catalog, Meaning, Plan, Rewrites, Session
from shipper.source.dialects.expressions import (
    Beginning,
    BitOfId,
    BitsOfIds,
    Fit,
    Label,
    ListOfIds,
    ServerTime,
    Statement,
    Text,
    Unfit,
    WithinMinute,
    WordOfId,
    argument,
    explain,
)
from shipper.source.dialects.mysql_driver import FIELD_TYPE, Error, conversions, option
from shipper.source.dialects.mysql_errors import BY_NUMBER, BY_WORDS

_NAMES = ("mysql", "mariadb")
_NUMERIC = "COERCIBILITY(0)"  # of numbers and times; servers differ: 5, in MariaDB 11.8 7
_SCHEMA = "WHERE table_schema = COALESCE(:schema, DATABASE())"
_TABLE = f"{_SCHEMA} AND table_name = :table"
_MINE = "privilege_type = 'SELECT' AND grantee = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')"

ERRORS: Mapping[object, Meaning] = BY_NUMBER
WORDS: Mapping[str, Meaning] = BY_WORDS
DRIVER_ERROR: type[Exception] = Error
connect = mysql_driver.connect
_UNLIMITED = 2**64 - 1
_DEFAULT = "DEFAULT"
_SETTINGS: Mapping[str, str | int] = {
    "autocommit": 1,
    "time_zone": "+00:00",
    "tx_isolation": "REPEATABLE-READ",
    "tx_read_only": 1,
    "transaction_isolation": "REPEATABLE-READ",
    "transaction_read_only": 1,
    # CHAIN would keep statements after a snapshot in an old one
    "completion_type": "NO_CHAIN",
    # quotes, operators and functions as in the manual: no ANSI_QUOTES, ORACLE, EMPTY_STRING_IS_NULL, PAD_CHAR...
    "sql_mode": "",
    "sql_select_limit": _UNLIMITED,
    "max_join_size": _UNLIMITED,
    "sql_big_selects": 1,
    "sql_auto_is_null": 0,
    "group_concat_max_len": 2**30,
    "character_set_client": "utf8mb4",
    "character_set_connection": "utf8mb4",
    "character_set_results": "utf8mb4",
    "div_precision_increment": 4,
    "default_week_format": 0,
    "lc_time_names": "en_US",
    "max_sort_length": 1024,
    # MariaDB's
    "old_mode": "",
    "character_set_collations": "",  # by which CONVERT compares: as before 11.5
    "system_versioning_asof": _DEFAULT,  # else tables may be shown as of a time
    "max_recursive_iterations": 2**32 - 1,
    # MySQL's: else the key that it makes has no index
    "show_gipk_in_create_table_and_information_schema": 1,
}
"""The session's variables that change what a statement means, as servers have them by default; no server has all."""
BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
BEGIN_SINGLE = "START TRANSACTION READ ONLY"
REWRITES: Rewrites | None = None
# SQLAlchemy's own inspection needs SHOW CREATE TABLE, which grants on columns do not allow
CATALOG = Catalog(
    tables=f"SELECT table_name FROM information_schema.tables {_SCHEMA}",
    columns=f"""SELECT column_name, CASE WHEN data_type = 'decimal' AND numeric_scale = 0 THEN 'decimal integer'
        ELSE data_type END FROM information_schema.columns {_TABLE}""",
    # each server runs the comments with its version; an index on an expression has no column
    leading=f"""SELECT index_name, column_name, CASE WHEN FALSE THEN ''
            /*!80000 WHEN is_visible = 'NO' THEN 'VISIBLE' */ /*M!100600 WHEN ignored = 'YES' THEN 'NOT IGNORED' */ END
        FROM information_schema.statistics {_TABLE} AND seq_in_index = 1 AND column_name IS NOT NULL""",
    kind=f"SELECT table_type FROM information_schema.tables {_TABLE}",
    unique=f"""SELECT MAX(column_name) FROM information_schema.statistics {_TABLE} AND non_unique = 0
        GROUP BY index_name HAVING COUNT(*) = 1 AND COUNT(column_name) = 1""",
    engine=f"""SELECT engine FROM information_schema.tables {_TABLE} AND engine IN (
        SELECT engine FROM information_schema.engines WHERE transactions <> 'YES')""",
    # servers write all names with their schema; VIEW_TABLE_USAGE is MySQL's alone
    behind=f"""SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables
        JOIN (SELECT CAST(view_definition AS BINARY) AS text FROM information_schema.views {_TABLE}) AS seen
        ON LOCATE(CONCAT('`', table_schema, '`.`', table_name, '`'), text)""",
    moving=f"SELECT column_name FROM information_schema.columns {_TABLE} AND extra LIKE '%on update%'",
    # a GRANT on a database names a pattern
    granted=f"""SELECT table_schema, table_name FROM information_schema.table_privileges {_TABLE} AND {_MINE}
        UNION ALL SELECT table_schema, '*' FROM information_schema.schema_privileges
            WHERE COALESCE(:schema, DATABASE()) LIKE table_schema AND {_MINE}
        UNION ALL SELECT '*', '*' FROM information_schema.user_privileges WHERE {_MINE}""",
    moment="timestamp",
    largest_id=MAX_ID,
)
SESSION = "SELECT CURRENT_USER(), @@read_only"
TLS: str | None = "SHOW SESSION STATUS LIKE 'Ssl_version'"
GRANT_SCHEMA: str | None = None
# their digits: the sum of 00:01:00 is 100
NOT_SUMMED: Collection[object] = frozenset(
    {FIELD_TYPE.TIME, FIELD_TYPE.DATE, FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP}
)
NAMES_DATABASE = True
ADD_KEY = "ALTER TABLE {table} ADD n BIGINT UNSIGNED NOT NULL AUTO_INCREMENT UNIQUE;"
MAKE_TRANSACTIONAL = "ENGINE = InnoDB"
REVIVE_INDEX = "ALTER TABLE {table} ALTER INDEX {index} {required};"


def url(access: Access) -> sa.URL:
    """Return the URL as it is configured."""
    return access.url


def arguments(access: Access) -> dict[str, Any]:
    """Return PyMySQL's arguments."""
    given: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": access.timeout + GRACE_SECONDS,
        "write_timeout": access.timeout + GRACE_SECONDS,
        "charset": "utf8mb4",
        "conv": conversions | {FIELD_TYPE.BIT: partial(int.from_bytes, byteorder="big")},
    }
    if access.option_file:
        given["read_default_file"] = access.option_file
    if password := access.url.password or option(access, "password"):
        given["password"] = password.encode()  # servers store UTF-8; PyMySQL would encode it as Latin-1
    if "unix_socket" not in access.url.query and access.url.host is None:
        given |= {"host": "127.0.0.1", "unix_socket": option(access, "socket")}
    if key := mysql_driver.public_key(access):
        given["server_public_key"] = key
        given["ssl_disabled"] = access.verifies == "off"  # by TLS, servers want the password itself
    if access.verifies != "off":
        # PyMySQL's own context verifies nothing without a file of authorities
        context = _tls_context(access)
        context.check_hostname = access.verifies == "verify-identity"
        given["ssl"] = context
    return given


def prepare(connection: DBAPIConnection, access: Access) -> Session:
    """Set those of the settings that this server has."""
    cursor = connection.cursor()
    # else even the list of settings may be cut, and '' may be NULL
    limits = f"SESSION sql_select_limit = {_UNLIMITED}, SESSION max_join_size = {_UNLIMITED}"
    cursor.execute(f"SET {limits}, SESSION sql_mode = 0")
    version = connection.get_server_info()
    is_old = version.startswith("5.")  # MySQL 5.7 has no newer collation
    settings = {
        **_SETTINGS,
        "collation_connection": "utf8mb4_general_ci" if "MariaDB" in version or is_old else "utf8mb4_0900_ai_ci",
        "max_statement_time": access.timeout,
        "idle_transaction_timeout": IDLE_SECONDS,  # MySQL has no such limit
        "max_execution_time": access.timeout * 1000,
    }
    cursor.execute("SHOW SESSION VARIABLES WHERE variable_name IN %s", (tuple(settings),))
    known = {name for name, _ in cursor.fetchall()}
    settings = {name: value for name, value in settings.items() if name in known}
    assignments = (
        f"SESSION {name} = {value if value == _DEFAULT else repr(value)}" for name, value in settings.items()
    )
    cursor.execute(f"SET {', '.join(assignments)}")
    cursor.close()
    # a proxy's greeting has another number than the server's session; the greeting has 32 bits of it
    number: Any = read_back(connection, {"pseudo_thread_id": None})["pseudo_thread_id"]
    return Session(settings, is_shared=number % 2**32 != connection.thread_id())


def read_back(connection: DBAPIConnection, settings: Mapping[str, object]) -> Mapping[str, object]:
    """Read the session's variables."""
    cursor = connection.cursor()
    cursor.execute(f"SELECT {', '.join(f'@@SESSION.{name}' for name in settings)}")
    values = cursor.fetchone() or ()
    cursor.close()
    return dict(zip(settings, values, strict=False))


def codes(error: BaseException | None) -> Iterable[object]:
    """Return the server's error number."""
    return error.args[:1] if error else ()


def identity(dialect: sa.Dialect) -> str | None:
    """Return the statement for the server's UUID; an older MariaDB has none, and rejects it."""
    return "SELECT @@server_uid" if getattr(dialect, "is_mariadb", False) else "SELECT @@server_uuid"


def plan(connection: sa.Connection, statement: Statement, values: Mapping[str, Any], _: str) -> Plan:
    """Return the step of the plan that reads a range, else the first step."""
    # MySQL 9.5 and newer show a tree by default
    steps = explain(connection, "EXPLAIN FORMAT=TRADITIONAL", statement, values)
    ranges = [step for step in steps if step["type"] == "range"]
    step = (ranges or steps)[0]
    text = f"{step['type']} on {step['key']}" if step["key"] else str(step["type"] or step["Extra"])
    rows = None if step["rows"] is None else int(step["rows"])  # a text, for views
    return Plan(text, rows, bool(ranges), is_scan=not ranges and step["type"] in {"ALL", "index"})


def is_short(column: Any) -> bool:
    """Return whether it has at most MAX_LABEL characters of at most four bytes."""
    return 0 < (column[3] or 0) <= 4 * MAX_LABEL


def user(access: Access) -> str | None:
    """Return the user of the URL or of the option file."""
    return access.url.username or option(access, "user")


def account(account: str, _quote: IdentifierPreparer) -> str | None:
    """Quote user and host."""
    name, _, host = account.rpartition("@")
    return "@".join("'{}'".format(part.replace("'", "''")) for part in (name, host))


def _tls_context(access: Access) -> ssl.SSLContext:
    check_file(access.tls_ca, "tls_ca")
    try:
        context = ssl.create_default_context(cafile=access.tls_ca)
    except OSError as error:  # the base class of SSLError, too
        reason = error.strerror or error
        hint = "Set `tls_ca` to a CA file (PEM) that this user can read."
        raise ConfigError(f"read tls_ca {access.tls_ca}: {reason}", hint=hint) from error
    if access.tls_ca is not None:
        # Python 3.13 demands key identifiers, which the certificates that MySQL makes for itself do not have
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


@compiles(Text, *_NAMES)
def _text(element: Text, compiler: SQLCompiler, **options: Any) -> str:
    value = argument(element, compiler, options)
    return _by_kind(
        value, text=f"CAST(CONVERT({value} USING utf8mb4) AS BINARY)", binary=f"CONCAT(x'ff', CAST({value} AS BINARY))"
    )


def _by_kind(value: str, *, text: str, binary: str) -> str:
    """Return the SQL for texts, for numbers and times, and for bytes."""
    # one function makes text of JSON, and a number of BIT: their other properties are those of bytes
    plain = f"COALESCE({value})"
    return f"""CASE WHEN CHARSET({plain}) <> 'binary' THEN {text}
    WHEN COERCIBILITY({value}) = {_NUMERIC} THEN CAST({value} AS BINARY)
    WHEN COERCIBILITY({plain}) = {_NUMERIC} THEN CAST({plain} AS BINARY)
    ELSE {binary} END"""


@compiles(Label, *_NAMES)
def _label(element: Label, compiler: SQLCompiler, **options: Any) -> str:
    value = argument(element, compiler, options)
    # LEFT, because its result has a maximum length: a longer type takes a temporary table on disk; and the result of
    # CAST is NULL beyond max_allowed_packet
    beginning = f"LEFT({value}, {MAX_LABEL})"
    text, binary = f"CAST(CONVERT({beginning} USING utf8mb4) AS BINARY)", f"CAST({beginning} AS BINARY)"
    end = f"'...', SHA2(CONVERT({value} USING utf8mb4), 256)"
    return _by_kind(
        value,
        text=f"CASE WHEN CHAR_LENGTH({value}) > {MAX_LABEL} THEN CONCAT({text}, {end}) ELSE {text} END",
        binary=f"""CASE WHEN LENGTH({value}) > {MAX_LABEL} THEN CONCAT(x'fe', {binary}, {end})
        ELSE CONCAT(x'ff', {binary}) END""",
    )


@compiles(Beginning, *_NAMES)
def _beginning(element: Beginning, compiler: SQLCompiler, **options: Any) -> str:
    return f"LEFT({argument(element, compiler, options)}, {MAX_LABEL})"


@compiles(Unfit, *_NAMES)
def _unfit(element: Unfit, compiler: SQLCompiler, **options: Any) -> str:
    # compared with a DOUBLE without + 0e0, a time would be beyond every number
    return f"({argument(element, compiler, options)} + 0e0 NOT BETWEEN -1e300 AND 1e300)"


@compiles(Fit, *_NAMES)
def _fit(element: Fit, compiler: SQLCompiler, **options: Any) -> str:
    # with a NULL without a type, the largest FLOAT has six digits: always on MySQL, in a UNION on MariaDB
    unfit, number = compiler.process(Unfit(*element.clauses), **options), argument(element, compiler, options)
    return f"CASE WHEN {unfit} THEN CAST(NULL AS DECIMAL(1)) ELSE {number} END"


@compiles(WithinMinute, *_NAMES)
def _within_minute(element: WithinMinute, compiler: SQLCompiler, **options: Any) -> str:
    column = argument(element, compiler, options)
    return f"(SECOND({column}) * 1000000 + MICROSECOND({column}))"


@compiles(ServerTime, *_NAMES)
def _server_time(_element: ServerTime, _compiler: SQLCompiler, **_options: Any) -> str:
    return "UNIX_TIMESTAMP()"


@compiles(WordOfId, *_NAMES)
def _word(element: WordOfId, compiler: SQLCompiler, **options: Any) -> str:
    return f"({argument(element, compiler, options)} DIV 64)"


@compiles(BitsOfIds, *_NAMES)
def _bits(element: BitsOfIds, compiler: SQLCompiler, **options: Any) -> str:
    # MySQL takes a DECIMAL beyond 2^63 for 2^63 - 1
    return f"BIT_OR(1 << (CAST({argument(element, compiler, options)} AS UNSIGNED) & 63))"


@compiles(BitOfId, *_NAMES)
def _bit(element: BitOfId, compiler: SQLCompiler, **options: Any) -> str:
    identity, first, bits = (compiler.process(one, **options) for one in element.clauses)
    place = f"(CAST({identity} AS UNSIGNED) - {first})"
    return f"(ORD(SUBSTRING({bits}, {place} DIV 8 + 1, 1)) >> ({place} & 7) & 1)"


@compiles(ListOfIds, *_NAMES)
def _ids(element: ListOfIds, compiler: SQLCompiler, **options: Any) -> str:
    # cut at max_allowed_packet: then the last id has no semicolon, or ids are missing
    return f"GROUP_CONCAT({argument(element, compiler, options)}, ';' SEPARATOR '')"
