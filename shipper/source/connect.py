"""SQLAlchemy: how each kind of database is reached, what its sessions are like, what its errors mean.

Sessions are read-only, in UTC and autocommit: no transaction outlives its statement, but for snapshots, which last a
moment and end before anything is sent (an open reader blocks ALTER TABLE, which then blocks every INSERT). Should this
process be stopped within one, the server ends it.
"""

import math
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import sqlalchemy as sa
from pymysql.constants import CR, ER
from pymysql.optionfile import Parser
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from shipper.core.errors import ConfigError, Overflow, QueryRefused, SourceUnavailable

CONNECT_SECONDS = 5
PING_SECONDS = 1.0  # a connection that was used a moment ago is not asked whether it is still there
IDLE_SECONDS = (
    5  # a snapshot in which nothing is asked for so long is ended by the server: a few dozen times its length
)
GRACE_SECONDS = 5  # how much longer than the server the client waits: a read time-out leaves the query running
LOOPBACK = {None, "localhost", "127.0.0.1", "::1"}

_OVERFLOWS = ("integer overflow", "22003")  # SQLite's words, PostgreSQL's numeric_value_out_of_range

Tls = Literal["verify-identity", "verify-ca", "off"]

_NAMES = "Check the names in the job against the table, and the grants of the source's user: `shipper admin grants`."
_DATABASE = "Check the database in `url`, and the grants of the source's user."
_LOGIN = "Check user and password: in the option file that `credentials` names, or in `user` and `password`."
_SERVER = "Is the database up, and does `url` name its host and port?"
_TLS = "Name the server's authority with `tls_ca`; or, on a network that you trust, set tls to verify-ca or off."
_REFUSED: dict[object, str] = {  # what somebody must mend, and how: MySQL's numbers, PostgreSQL's SQLSTATEs
    ER.ACCESS_DENIED_ERROR: _LOGIN,
    ER.DBACCESS_DENIED_ERROR: _DATABASE,
    ER.BAD_DB_ERROR: _DATABASE,
    ER.BAD_FIELD_ERROR: _NAMES,
    ER.NO_SUCH_TABLE: _NAMES,
    ER.PARSE_ERROR: _NAMES,
    "28": _LOGIN,  # classes of SQLSTATE: PostgreSQL's manual, appendix A
    "3D": _DATABASE,
    "42883": "Measure a numeric column; or cast it, with a statement of your own as `sql`.",  # no such operator
    "42": _NAMES,
    "22": "A value does not fit its column: look at `where`, `where_sql` and `sql`.",
}
# where a driver has words only: SQLite, and psycopg while it connects
_REFUSING = {
    "no such": _NAMES,
    "syntax error": _NAMES,
    "authentication failed": _LOGIN,
    'role "': _LOGIN,
    'database "': _DATABASE,
}
_MISSING = {
    "certificate": _TLS,
    "SSL": _TLS,
    "unable to open": "Does the file of `url` exist, readable for this user?",
    "connection": _SERVER,
}
_DENIED = {ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR, ER.VIEW_NO_EXPLAIN, "42501"}
_IDENTITY = {
    "mariadb": "SELECT @@server_uid",
    "mysql": "SELECT @@server_uuid",
    "postgresql": "SELECT system_identifier FROM pg_control_system()",
}
_NO_SERVER = {CR.CR_CONNECTION_ERROR, CR.CR_CONN_HOST_ERROR, CR.CR_UNKNOWN_HOST}


class Denied(QueryRefused):
    """This user may not read a table, or a column of it."""


class Access(NamedTuple):
    """How a database is reached."""

    url: sa.URL
    timeout: int
    """What a statement may take, seconds."""
    option_file: str | None = None
    """A MySQL option file with user and password."""
    tls: Tls | None = None
    """None is verify-identity for a host that is not loopback, else off."""
    tls_ca: str | None = None
    """A file of certificates; None is the system's."""
    lag_query: str | None = None
    """Of a replica: a statement that tells how many seconds it is behind."""

    @property
    def kind(self) -> str:
        """Return mysql, mariadb, postgresql or sqlite."""
        return self.url.get_backend_name()

    @property
    def verifies(self) -> Tls:
        """Return what is verified of the server."""
        is_local = self.url.host in LOOPBACK or "unix_socket" in self.url.query or str(self.url.host).startswith("/")
        return self.tls or ("off" if is_local else "verify-identity")

    def __str__(self) -> str:
        url = self.url
        if self.kind == "sqlite":
            return f"sqlite {url.database}"
        return f"{self.kind} {url.host or 'localhost'}{f':{url.port}' if url.port else ''}/{url.database}"


def engine(access: Access, *, threads: int) -> sa.Engine:
    """Make an engine, connecting nowhere yet."""
    is_sqlite = access.kind == "sqlite"
    arguments = {"sqlite": _sqlite, "postgresql": _postgresql}.get(access.kind, _mysql)
    made = sa.create_engine(
        _read_only(access.url) if is_sqlite else access.url,
        isolation_level="AUTOCOMMIT",
        # as many connections as threads: one beyond the pool would be opened and closed at every use
        pool_size=threads,
        max_overflow=0,
        pool_timeout=access.timeout,
        # a statement is a transaction by itself: there is nothing to roll back
        skip_autocommit_rollback=True,
        connect_args=arguments(access),
        poolclass=sa.pool.QueuePool,
    )
    sa.event.listen(made, "connect", _preparing(access))
    sa.event.listen(made, "checkin", _used)
    sa.event.listen(made, "checkout", partial(_revived, made))
    return made


def _used(_: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
    entry.info["used"] = time.monotonic()


def _revived(made: sa.Engine, connection: DBAPIConnection, entry: ConnectionPoolEntry, *_: object) -> None:
    """See whether a connection that was not used for a while is still there; another takes its place if not."""
    if time.monotonic() - entry.info.get("used", math.inf) < PING_SECONDS:
        return
    try:
        is_there = made.dialect.do_ping(connection)
    except made.dialect.loaded_dbapi.Error as error:
        raise sa.exc.DisconnectionError(str(error)) from error
    if not is_there:
        raise sa.exc.DisconnectionError


def server_of(connection: sa.Connection) -> str | None:
    """Return by which name a server knows itself; None where it does not tell."""
    is_mariadb = getattr(connection.dialect, "is_mariadb", False)
    statement = _IDENTITY.get("mariadb" if is_mariadb else connection.dialect.name)
    if statement is None:
        return None
    try:
        return str(connection.exec_driver_sql(statement).scalar_one())
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:
            raise
        return None  # an older MariaDB has none, or this user may not ask


def option(access: Access, name: str) -> str | None:
    """Return an option of the option file's [client], if it has it."""
    options = Parser()
    if access.option_file:
        options.read(access.option_file, encoding="utf-8")
    found: str | None = options.get("client", name) if options.has_option("client", name) else None
    return found


def translated(error: sa.exc.DBAPIError, step: str) -> SourceUnavailable | QueryRefused:
    """Say in one line what the driver said; never the statement's values."""
    original = error.orig
    arguments = original.args if original else ()
    code = arguments[0] if arguments and isinstance(arguments[0], int) else None
    state = getattr(original, "sqlstate", None) or ""
    message = f"{step}: {str(arguments[-1] if arguments else original).partition(chr(10))[0]}"
    if state in _OVERFLOWS or message.endswith(_OVERFLOWS):
        return Overflow(message, hint="A value does not fit its type: look at `where_sql` and `sql`.")
    if code in _DENIED or state in _DENIED:
        return Denied(message, hint=_NAMES)
    if hint := _REFUSED.get(code) or _REFUSED.get(state) or _REFUSED.get(state[:2]):
        return QueryRefused(message, hint=hint)
    for words, hint in _REFUSING.items():
        if words in message:
            return QueryRefused(message, hint=hint)
    found = next((hint for words, hint in _MISSING.items() if words in message), None)
    return SourceUnavailable(message, hint=found or (_SERVER if code in _NO_SERVER else None))


def _mysql(access: Access) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": access.timeout + GRACE_SECONDS,
        "write_timeout": access.timeout + GRACE_SECONDS,
        "charset": "utf8mb4",
    }
    if access.option_file:
        arguments["read_default_file"] = access.option_file
    if password := access.url.password or option(access, "password"):
        arguments["password"] = password.encode()  # as servers have it; PyMySQL would take Latin-1
    if "unix_socket" not in access.url.query and access.url.host is None:
        arguments["host"] = "127.0.0.1"
    if access.verifies != "off":
        # a context of our own: PyMySQL's verifies nothing without a file of authorities
        context = _context(access)
        context.check_hostname = access.verifies == "verify-identity"
        arguments["ssl"] = context
    return arguments


def _context(access: Access) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=access.tls_ca)
    except OSError as error:  # an SSLError is one
        reason = error.strerror or error
        hint = "Name a file of certificates (PEM) there, readable for this user."
        raise ConfigError(f"read tls_ca {access.tls_ca}: {reason}", hint=hint) from error


def _postgresql(access: Access) -> dict[str, Any]:
    modes = {"verify-identity": "verify-full", "verify-ca": "verify-ca", "off": "disable"}
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "sslmode": modes[access.verifies],
        # psycopg has no time-out for an answer: the server's limit, and the kernel's patience with a silent peer
        "tcp_user_timeout": (access.timeout + GRACE_SECONDS) * 1000,
        "keepalives_idle": access.timeout,
        "application_name": "shipper",
        "options": f"-c statement_timeout={access.timeout * 1000} -c default_transaction_read_only=on -c TimeZone=UTC "
        f"-c idle_in_transaction_session_timeout={IDLE_SECONDS * 1000} "
        # else a statement that waits for an ALTER TABLE may see the table as it was before: without rows
        "-c default_transaction_isolation=read\\ committed",
    }
    if access.verifies != "off":
        arguments["sslrootcert"] = access.tls_ca or ssl.get_default_verify_paths().cafile or "system"
    return arguments


def _sqlite(access: Access) -> dict[str, Any]:
    return {"timeout": access.timeout, "check_same_thread": False}


def _read_only(url: sa.URL) -> sa.URL:
    """Open SQLite by URI, because a plain path that is mistyped would make an empty database."""
    return url.set(database=f"file:{quote(url.database or '')}", query={"mode": "ro", "uri": "true"})


def _preparing(access: Access) -> Callable[[DBAPIConnection, ConnectionPoolEntry], None]:
    """Return what makes a new session read-only, in UTC, with the limits of statement and snapshot on the server."""

    def prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        if access.kind == "postgresql":
            return  # all said in the options of the connection
        cursor = connection.cursor()
        if access.kind == "sqlite":
            # else a text that is not UTF-8 could not be read at all, nor anything beside it
            connection.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
            cursor.execute("PRAGMA query_only = ON")
        else:
            _prepare_mysql(cursor, access)
        cursor.close()

    return prepare


def _prepare_mysql(cursor: Any, access: Access) -> None:
    cursor.execute("SET time_zone = '+00:00'")
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    cursor.execute("SET SESSION TRANSACTION READ ONLY")
    cursor.execute("SELECT VERSION()")
    if "MariaDB" in str(cursor.fetchone()):
        cursor.execute(f"SET SESSION max_statement_time = {access.timeout}")
        cursor.execute(f"SET SESSION idle_transaction_timeout = {IDLE_SECONDS}")
    else:  # MySQL counts in milliseconds
        cursor.execute(f"SET SESSION max_execution_time = {access.timeout * 1000}")
