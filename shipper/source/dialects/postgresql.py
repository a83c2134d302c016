"""PostgreSQL, through psycopg.

A TRUNCATE or ALTER TABLE between a snapshot and its first look at a table makes that table look empty. Therefore a
snapshot begins with a lock on the table. LOCK TABLE needs SELECT on the entire table, and an operator's SQL may read
other tables; there, the rows count only if all tables that were read still have the files that the snapshot knows.
"""

import re
import ssl
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import IdentifierPreparer, SQLCompiler

from shipper.core.paths import MAX_LABEL
from shipper.source.access import CONNECT_SECONDS, GRACE_SECONDS, IDLE_SECONDS, Access, check_file
from shipper.source.dialects.dialect import Catalog, Meaning, Plan, Rewrites, Session
from shipper.source.dialects.expressions import (
    Addend,
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
    argument,
    explain,
    table_named,
)
from shipper.source.dialects.postgresql_driver import MeteredConnection
from shipper.source.dialects.postgresql_errors import BY_SQLSTATE, BY_WORDS
from shipper.source.limits import Meter

_LOCK_REJECTED = ("42501", "42809")  # insufficient_privilege, wrong_object_type: the manual, appendix A
# A transaction holds a lock on every table that it has read: also on partitions, and on tables behind views and
# functions. pg_class is read as of the snapshot, the function returns the present; 0 is a view, or a catalog's
_REWRITTEN = """
    SELECT COUNT(*) FROM pg_locks LEFT JOIN pg_class ON pg_class.oid = relation
    WHERE locktype = 'relation' AND pid = pg_backend_pid()
        AND (relfilenode IS NULL OR (relfilenode <> 0 AND relfilenode <> pg_relation_filenode(relation)))"""


def _lock(connection: sa.Connection, path: str) -> bool:
    table = connection.dialect.identifier_preparer.format_table(table_named(path, ()))
    try:
        connection.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in _LOCK_REJECTED:
            raise
        return False
    return True


_SETTINGS: Mapping[str, str] = {
    "TimeZone": "UTC",
    "timezone_abbreviations": "Default",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "lc_numeric": "C",
    "lc_monetary": "C",
    "lc_time": "C",
    "transform_null_equals": "off",
    # a limit would return some of the rows
    "gin_fuzzy_search_limit": "0",
    # an error instead of rows that a policy hides
    "row_security": "off",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
}
"""The session's settings that change what a statement means; search_path stays as the role has it."""


class _AnyText(Loader):
    """Reader of texts of unknown encoding: bytes that are not UTF-8 are escaped."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", "backslashreplace")


def _duration(seconds: int) -> str:
    """Return a duration as PostgreSQL writes it."""
    units = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    unit = next(unit for unit, length in units.items() if seconds % length == 0)
    return f"{seconds // units[unit]}{unit}"


_OF_MEASURE = re.compile(r"< numeric$|function (sum|max|min)\(", re.MULTILINE)
"""Messages for columns that `Unfit` and the aggregates behind it cannot read; values of `where` are of other types."""
ERRORS: Mapping[object, Meaning] = BY_SQLSTATE
WORDS: Mapping[str, Meaning] = BY_WORDS
DRIVER_ERROR: type[Exception] = psycopg.Error
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
# else a statement that waits for an ALTER TABLE may see the table as it was before: without rows
BEGIN_SINGLE = "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY"
REWRITES: Rewrites | None = Rewrites(_lock, _REWRITTEN)
CATALOG = Catalog(
    tables="""SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname = COALESCE(CAST(:schema AS text), current_schema())""",
    # a domain has the type that it is based on, also through others; the low bits of a modifier are the scale
    columns="""WITH RECURSIVE own AS (
            SELECT attname, attnum, atttypid AS type, atttypmod AS modifier FROM pg_attribute
            WHERE attrelid = to_regclass(:path) AND attnum > 0 AND NOT attisdropped
            UNION ALL SELECT attname, attnum, typbasetype, typtypmod FROM own JOIN pg_type ON oid = type
            WHERE typtype = 'd')
        SELECT attname, CASE WHEN type = CAST('numeric' AS regtype) AND (modifier - 4) & 2047 = 0
            THEN 'numeric integer' ELSE format_type(type, NULL) END
        FROM own JOIN pg_type ON oid = type WHERE typtype <> 'd' ORDER BY attnum""",
    # no other kind of index finds the largest value; nothing makes that of a partitioned table valid
    leading="""SELECT index.relname, attname, CASE WHEN NOT indisvalid THEN 'VALID' END FROM pg_index
        JOIN pg_class AS index ON index.oid = indexrelid JOIN pg_am ON pg_am.oid = index.relam
        JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
        WHERE indrelid = to_regclass(:path) AND indpred IS NULL AND amname = 'btree'
            AND (indisvalid OR index.relkind = 'i')""",
    # a foreign table has no indices here
    kind="SELECT CASE WHEN relkind IN ('v', 'f') THEN 'VIEW' END FROM pg_class WHERE oid = to_regclass(:path)",
    unique="""SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
        WHERE indrelid = to_regclass(:path) AND indisunique AND indisvalid AND indnkeyatts = 1
            AND indpred IS NULL AND indexprs IS NULL AND NOT EXISTS (SELECT 1 FROM pg_inherits
                JOIN pg_class ON pg_class.oid = inhparent WHERE inhparent = indrelid AND relkind = 'r')""",
    # an identity depends on its column, and a default on its sequence
    cycling="""SELECT attname, format('ALTER SEQUENCE %I.%I NO CYCLE;', nspname, relname)
        FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
        JOIN pg_attribute ON attrelid = to_regclass(:path)
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE seqcycle AND EXISTS (SELECT 1 FROM pg_depend WHERE (objid = pg_attrdef.oid AND refobjid = seqrelid)
            OR (objid = seqrelid AND refobjid = attrelid AND refobjsubid = attnum))""",
    moment="timestamp with time zone",
)
SESSION = """SELECT current_user || '@' || COALESCE(host(inet_client_addr()), 'localhost'), pg_is_in_recovery()"""
TLS: str | None = "SELECT pid, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
GRANT_SCHEMA: str | None = "GRANT USAGE ON SCHEMA {schema} TO {account};"
NOT_SUMMED: Collection[object] = ()
NAMES_DATABASE = False  # search_path finds the table
ADD_KEY = "ALTER TABLE {table} ADD n BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE;"
MAKE_TRANSACTIONAL = ""
REVIVE_INDEX = "REINDEX INDEX {path};"


def url(access: Access) -> sa.URL:
    """Return the URL as it is configured."""
    return access.url


def arguments(access: Access) -> dict[str, Any]:
    """Return psycopg's arguments."""
    modes = {"verify-identity": "verify-full", "verify-ca": "verify-ca", "off": "disable"}
    connect: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "sslmode": modes[access.verifies],
        "tcp_user_timeout": (access.timeout + GRACE_SECONDS) * 1000,
        "keepalives_idle": access.timeout,
        "application_name": "shipper",
        "client_encoding": "UTF8",
        # behind a pooler, a prepared statement may be that of another table
        "prepare_threshold": None,
    }
    if access.answers_only:
        connect["require_auth"] = "!password"
    if access.verifies != "off":
        check_file(access.tls_ca, "tls_ca")
        connect["sslrootcert"] = access.tls_ca or ssl.get_default_verify_paths().cafile or "system"
    return connect


def connect(_access: Access, arguments: Mapping[str, Any], meter: Meter) -> Any:
    """Open a connection."""
    connection = MeteredConnection.connect(**arguments)
    connection.meter = meter
    return connection


def prepare(connection: DBAPIConnection, access: Access) -> Session:
    """Set what the session needs; behind a pooler, which may share sessions, leave that to each transaction."""
    connection.autocommit = True
    settings = {
        **_SETTINGS,
        "statement_timeout": _duration(access.timeout),
        "idle_in_transaction_session_timeout": _duration(IDLE_SECONDS),
    }
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        # its texts may be of any encoding: neither the server nor psycopg may reject one
        settings["client_encoding"] = "SQL_ASCII"
        for name in ("text", "varchar", "bpchar", "name"):
            connection.adapters.register_loader(name, _AnyText)
    assignments = [f"{name} = '{value}'" for name, value in settings.items()]
    # a pooler gives its clients other numbers
    if connection.execute("SELECT pg_backend_pid()").fetchone() != (connection.info.backend_pid,):
        local = ["search_path = DEFAULT", *assignments]
        return Session({}, True, "; ".join(f"SET LOCAL {assignment}" for assignment in local))
    connection.execute("; ".join(f"SET {assignment}" for assignment in assignments))
    return Session(settings)


def read_back(connection: DBAPIConnection, settings: Mapping[str, object]) -> Mapping[str, object]:
    """Read the session's settings."""
    columns = ", ".join(f"current_setting('{name}')" for name in settings)
    values = connection.execute(f"SELECT {columns}").fetchone() or ()
    return dict(zip(settings, values, strict=False))


def codes(error: BaseException | None) -> Iterable[object]:
    """Return the SQLSTATE and its class."""
    state = getattr(error, "sqlstate", None) or ""
    if "row-level security" in str(error):  # with the number of a missing grant
        return (f"{state} by rows",)
    if state == "42883" and _OF_MEASURE.search(str(error)):
        return (f"{state} of a measure",)
    return state, state[:2]


def identity(_: sa.Dialect) -> str | None:
    """Return the statement for the cluster's identifier; some users may not run it."""
    return "SELECT system_identifier FROM pg_control_system()"


def plan(connection: sa.Connection, statement: Statement, values: Mapping[str, Any], name: str) -> Plan:
    """Return the innermost step of the plan, without sequential scans as far as possible."""
    # the planner scans a small table even where an index would serve
    connection.execute(sa.text("SET enable_seqscan = off"))
    try:
        (row,) = explain(connection, "EXPLAIN (FORMAT JSON)", statement, values)
    finally:
        with suppress(sa.exc.DBAPIError):  # a transaction that has failed resets it by its end
            connection.execute(sa.text("RESET enable_seqscan"))
    (plan,) = row["QUERY PLAN"]
    node = plan["Plan"]
    while "Plans" in node:
        node = node["Plans"][0]
    text = f"{node['Node Type']} on {node.get('Index Name') or node.get('Relation Name')}"
    is_range = any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)\W* >=? ", one) for one in _conditions(plan))
    return Plan(text, node["Plan Rows"], is_range, is_scan=not is_range and node["Node Type"] == "Seq Scan")


def _conditions(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield the conditions of all indices in a plan or a step of it."""
    if "Index Cond" in plan:
        yield plan["Index Cond"]
    for step in [plan["Plan"]] if "Plan" in plan else plan.get("Plans", ()):
        yield from _conditions(step)


def is_short(column: Any) -> bool:
    """Return whether its type has a fixed size, or a maximum length."""
    size = column.internal_size or column.display_size or column.precision
    return size is not None and size <= MAX_LABEL


def user(access: Access) -> str | None:
    """Return the user of the URL."""
    return access.url.username


def account(account: str, quote: IdentifierPreparer) -> str | None:
    """Quote the role; roles have no host."""
    return quote.quote_identifier(account.rpartition("@")[0])


@compiles(Text, "postgresql")
def _text(element: Text, compiler: SQLCompiler, **options: Any) -> str:
    value = argument(element, compiler, options)
    text = f"CAST({value} AS text)"
    return _by_kind(value, text=_encoded(text), binary=_marked(text))


def _marked(text: str) -> str:
    return f"CAST('\\xff' AS bytea) || CAST({text} AS bytea)"


def _encoded(text: str) -> str:
    # in a database of SQL_ASCII, whose bytes may be of any encoding, UTF8 would be an error
    return f"convert_to({text}, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)"


def _by_kind(value: str, *, text: str, binary: str) -> str:
    """Return the SQL for bytes, and for everything else."""
    # beside NULL, a value of a domain has the domain's type
    return f"""CASE pg_typeof(COALESCE({value}, NULL)) WHEN CAST('bytea' AS regtype)
    THEN {binary} ELSE {text} END"""


@compiles(Label, "postgresql")
def _label(element: Label, compiler: SQLCompiler, **options: Any) -> str:
    value = argument(element, compiler, options)
    text = f"CAST({value} AS text)"
    # the length in bytes first: it is known without reading the value
    is_long = f"octet_length({text}) > {MAX_LABEL} AND length({text}) > {MAX_LABEL}"
    cut = f"left({text}, {MAX_LABEL}) || '...' || encode(sha256({_encoded(text)}), 'hex')"
    # the text of bytes is \x and two digits for each
    digits, digest = 2 + 2 * MAX_LABEL, f"encode(sha256(CAST({text} AS bytea)), 'hex')"
    long = f"CAST('\\xfe' AS bytea) || CAST(left({text}, {digits}) AS bytea) || CAST('...' || {digest} AS bytea)"
    return _by_kind(
        value,
        text=f"CASE WHEN {is_long} THEN {_encoded(cut)} ELSE {_encoded(text)} END",
        binary=f"CASE WHEN length({text}) > {digits} THEN {long} ELSE {_marked(text)} END",
    )


@compiles(Beginning, "postgresql")
def _beginning(element: Beginning, compiler: SQLCompiler, **options: Any) -> str:
    return f"left(CAST({argument(element, compiler, options)} AS text), {MAX_LABEL})"


@compiles(Unfit, "postgresql")
def _unfit(element: Unfit, compiler: SQLCompiler, **options: Any) -> str:
    # NaN, which NUMERIC has too, is greater than every number
    return f"({argument(element, compiler, options)} NOT BETWEEN -1e300 AND 1e300)"


@compiles(Addend, "postgresql")
def _addend(element: Addend, compiler: SQLCompiler, **options: Any) -> str:
    # the sum of a REAL is a REAL, of seven digits; a SMALLINT makes it a DOUBLE PRECISION, and leaves other types
    return f"({compiler.process(Fit(*element.clauses), **options)}) + CAST(0 AS SMALLINT)"


@compiles(WithinMinute, "postgresql")
def _within_minute(element: WithinMinute, compiler: SQLCompiler, **options: Any) -> str:
    time = f"CAST({argument(element, compiler, options)} AS TIMESTAMP)"
    return f"CAST(EXTRACT(MICROSECONDS FROM {time}) AS BIGINT)"


@compiles(ServerTime, "postgresql")
def _server_time(_element: ServerTime, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp())) AS BIGINT)"


@compiles(BitsOfIds, "postgresql")
def _bits(element: BitsOfIds, compiler: SQLCompiler, **options: Any) -> str:
    identity = f"CAST({argument(element, compiler, options)} AS BIGINT)"
    return f"BIT_OR(CAST(1 AS BIGINT) << CAST({identity} & 63 AS INTEGER))"


@compiles(BitOfId, "postgresql")
def _bit(element: BitOfId, compiler: SQLCompiler, **options: Any) -> str:
    identity, first, bits = (compiler.process(one, **options) for one in element.clauses)
    return f"get_bit({bits}, CAST({identity} - {first} AS INTEGER))"


@compiles(ListOfIds, "postgresql")
def _ids(element: ListOfIds, compiler: SQLCompiler, **options: Any) -> str:
    return f"STRING_AGG(CAST({argument(element, compiler, options)} AS TEXT) || ';', '')"
