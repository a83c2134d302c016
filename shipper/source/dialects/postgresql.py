"""PostgreSQL, through psycopg.

A TRUNCATE or ALTER TABLE between a snapshot and its first look at a table makes that table look empty. Therefore a
snapshot begins with a lock on the table. LOCK TABLE needs SELECT on the entire table, and an operator's SQL may read
other tables; there, the rows count only if all tables that were read still have the files that the snapshot knows.
"""

import json
import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import IdentifierPreparer, SQLCompiler

from shipper.core.errors import QueryRefused, RowRefused, SourceUnavailable
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
    argument,
    explain,
    table_named,
)

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


def _is_rewritten(connection: sa.Connection) -> bool:
    return bool(connection.exec_driver_sql(_REWRITTEN).scalar_one())


# SQLSTATEs and their classes: the manual, appendix A
ERRORS: Mapping[object, Meaning] = {
    "42501": (Denied, CHECK_NAMES),  # insufficient_privilege
    # undefined_function: of an operator, too
    "42883": (QueryRefused, "Write `where` with values of the column's type (true for BOOLEAN); measure numbers only."),
    "28": (QueryRefused, CHECK_LOGIN),
    "3D": (QueryRefused, CHECK_DATABASE),
    "42": (QueryRefused, CHECK_NAMES),
    "22": (RowRefused, CHECK_TYPES),
}
# psycopg gives no SQLSTATE while it connects
WORDS: Mapping[str, Meaning] = {
    "authentication failed": (QueryRefused, CHECK_LOGIN),
    'role "': (QueryRefused, CHECK_LOGIN),
    'database "': (QueryRefused, CHECK_DATABASE),
    "certificate": (SourceUnavailable, CHECK_TLS),
    "SSL": (SourceUnavailable, CHECK_TLS),
    "connection": (SourceUnavailable, CHECK_SERVER),
}
MISSING_MODULES: Mapping[str, str] = {}
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
REWRITES: Rewrites | None = Rewrites(_lock, _is_rewritten)
CATALOG = Catalog(
    columns="""SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
        WHERE attrelid = to_regclass(:path) AND attnum > 0 AND NOT attisdropped""",
    leading="""SELECT relname, attname, CASE WHEN NOT indisvalid THEN 'VALID' END FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
        WHERE indrelid = to_regclass(:path) AND indpred IS NULL""",
    kind="SELECT CASE relkind WHEN 'v' THEN 'VIEW' END FROM pg_class WHERE oid = to_regclass(:path)",
    unique="""SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
        WHERE indrelid = to_regclass(:path) AND indisunique AND indisvalid AND indnkeyatts = 1
            AND indpred IS NULL AND indexprs IS NULL AND NOT EXISTS (SELECT 1 FROM pg_inherits
                JOIN pg_class ON pg_class.oid = inhparent WHERE inhparent = indrelid AND relkind = 'r')""",
    moment="timestamp with time zone",
)
SESSION = """SELECT current_user || '@' || COALESCE(host(inet_client_addr()), 'localhost'), pg_is_in_recovery(),
    EXTRACT(timezone FROM now())"""
TLS: str | None = "SELECT pid, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
GRANT_SCHEMA: str | None = "GRANT USAGE ON SCHEMA {schema} TO {account};"
MAKE_TRANSACTIONAL = ""
REVIVE_INDEX = "REINDEX INDEX {path};"


def url(access: Access) -> sa.URL:
    """Return the URL as it is configured."""
    return access.url


def arguments(access: Access) -> dict[str, Any]:
    """Return psycopg's arguments, with all settings of the session."""
    modes = {"verify-identity": "verify-full", "verify-ca": "verify-ca", "off": "disable"}
    connect: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "sslmode": modes[access.verifies],
        # psycopg has no time-out for answers: the server's limit, and the kernel's for a silent peer, take its place
        "tcp_user_timeout": (access.timeout + GRACE_SECONDS) * 1000,
        "keepalives_idle": access.timeout,
        "application_name": "shipper",
        "options": f"-c statement_timeout={access.timeout * 1000} -c default_transaction_read_only=on -c TimeZone=UTC "
        f"-c idle_in_transaction_session_timeout={access.idle * 1000} "
        # else a statement that waits for an ALTER TABLE may see the table as it was before: without rows
        "-c default_transaction_isolation=read\\ committed",
    }
    if access.verifies != "off":
        connect["sslrootcert"] = access.tls_ca or ssl.get_default_verify_paths().cafile or "system"
    return connect


def prepare(_connection: DBAPIConnection, _access: Access) -> None:
    """Do nothing: `arguments` holds the settings."""


def codes(error: BaseException | None) -> Iterable[object]:
    """Return the SQLSTATE and its class."""
    state = getattr(error, "sqlstate", None) or ""
    return state, state[:2]


def identity(_: sa.Dialect) -> str | None:
    """Return the statement for the cluster's identifier; some users may not run it."""
    return "SELECT system_identifier FROM pg_control_system()"


def plan(connection: sa.Connection, statement: Statement, values: Mapping[str, Any], name: str) -> Plan:
    """Return the innermost step of the plan, without sequential scans as far as possible."""
    # the planner scans a small table even where an index would serve
    connection.execute(sa.text("SET enable_seqscan = off"))
    try:
        (plan,) = explain(connection, "EXPLAIN (FORMAT JSON)", statement, values).scalar_one()
    finally:
        connection.execute(sa.text("RESET enable_seqscan"))
    node = plan["Plan"]
    while "Plans" in node:
        node = node["Plans"][0]
    text = f"{node['Node Type']} on {node.get('Index Name') or node.get('Relation Name')}"
    is_range = bool(re.search(rf'"Index Cond": "[^"]*\b{name}\b\W* > ', json.dumps(plan)))
    return Plan(text, node["Plan Rows"], is_range, is_scan=not is_range and node["Node Type"] == "Seq Scan")


def user(access: Access) -> str | None:
    """Return the user of the URL."""
    return access.url.username


def account(account: str, quote: IdentifierPreparer) -> str | None:
    """Quote the role; roles have no host."""
    return quote.quote_identifier(account.rpartition("@")[0])


def default_schema(_: Access) -> str | None:
    """Return None: search_path finds the table."""
    return None


@compiles(Text, "postgresql")
def _text(element: Text, compiler: SQLCompiler, **options: Any) -> str:
    value = argument(element, compiler, options)
    text = f"CAST({value} AS text)"
    # beside NULL, a value of a domain has the domain's type
    return f"""CASE pg_typeof(COALESCE({value}, NULL)) WHEN CAST('bytea' AS regtype)
    THEN CAST('\\xff' AS bytea) || CAST({text} AS bytea) ELSE convert_to({text}, 'UTF8') END"""


@compiles(Unfit, "postgresql")
def _unfit(element: Unfit, compiler: SQLCompiler, **options: Any) -> str:
    # NaN, which NUMERIC has too, is greater than every number
    return f"({argument(element, compiler, options)} NOT BETWEEN -1e300 AND 1e300)"


@compiles(Epoch, "postgresql")
def _epoch(element: Epoch, compiler: SQLCompiler, **options: Any) -> str:
    # 'infinity' has no epoch: such a row has no time
    column = argument(element, compiler, options)
    return f"CASE WHEN isfinite({column}) THEN CAST(FLOOR(EXTRACT(EPOCH FROM {column})) AS BIGINT) END"


@compiles(ServerTime, "postgresql")
def _server_time(_element: ServerTime, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp())) AS BIGINT)"


@compiles(BitsOfIds, "postgresql")
def _bits(element: BitsOfIds, compiler: SQLCompiler, **options: Any) -> str:
    identity = f"CAST({argument(element, compiler, options)} AS BIGINT)"
    return f"BIT_OR(CAST(1 AS BIGINT) << CAST({identity} & 63 AS INTEGER))"


@compiles(ListOfIds, "postgresql")
def _ids(element: ListOfIds, compiler: SQLCompiler, **options: Any) -> str:
    return f"STRING_AGG(CAST({argument(element, compiler, options)} AS TEXT) || ';', '')"
