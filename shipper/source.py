"""Edge. SQLAlchemy: what a table's largest id is, and what a window of ids holds.

The only module that knows SQL dialects. Sessions are read-only, in UTC, READ COMMITTED and autocommit: no
transaction outlives its statement, so a reused connection sees new rows and a send never happens inside one
(an open reader blocks ALTER TABLE, which then blocks every INSERT).
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from pymysql.constants import CR, ER
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from shipper.dialect import Epoch, ServerTime, Text
from shipper.errors import QueryRefused, SourceUnavailable
from shipper.model import MAX_ID, Group, Observation, Query, Row, Scalar, Window

CONNECT_SECONDS = 5
GRACE_SECONDS = 5  # how much longer than the server the client waits: a read time-out leaves the query running

_NAMES = "Check the names in the job against the table, and the grants of the source's user."
_DATABASE = "Check the database in `url`, and the grants of the source's user."
_REFUSED = {  # what somebody must mend, and how
    ER.ACCESS_DENIED_ERROR: "Check user and password in the option file that `credentials` names.",
    ER.DBACCESS_DENIED_ERROR: _DATABASE,
    ER.BAD_DB_ERROR: _DATABASE,
    ER.TABLEACCESS_DENIED_ERROR: _NAMES,
    ER.COLUMNACCESS_DENIED_ERROR: _NAMES,
    ER.BAD_FIELD_ERROR: _NAMES,
    ER.NO_SUCH_TABLE: _NAMES,
    ER.PARSE_ERROR: _NAMES,
}
_NO_SERVER = {CR.CR_CONNECTION_ERROR, CR.CR_CONN_HOST_ERROR, CR.CR_UNKNOWN_HOST}


class Source:
    """One database, for any number of threads."""

    def __init__(self, name: str, url: str, *, timeout: int, option_file: str | None = None, threads: int = 1) -> None:
        """Connect nowhere yet. timeout bounds a statement, seconds; option_file is a MySQL one, for credentials."""
        self.name = name
        self._url = parsed = sa.make_url(url)
        self._is_sqlite = parsed.get_backend_name() == "sqlite"
        self._timeout = timeout
        # as many connections as threads: one beyond the pool would be opened and closed at every use
        self._engine = sa.create_engine(
            _read_only(parsed) if self._is_sqlite else parsed,
            isolation_level="AUTOCOMMIT",
            pool_size=threads,
            max_overflow=0,
            pool_timeout=timeout,
            pool_pre_ping=not self._is_sqlite,
            connect_args=self._connect_arguments(parsed, option_file),
            poolclass=sa.pool.QueuePool,
        )
        sa.event.listen(self._engine, "connect", self._prepare)

    def __str__(self) -> str:
        url = self._url
        if self._is_sqlite:
            return f"sqlite {url.database}"
        return f"{url.get_backend_name()} {url.host or 'localhost'}{f':{url.port}' if url.port else ''}/{url.database}"

    def observe(self, query: Query) -> Observation:
        """Read the table's largest id and the source's time.

        Raises:
            SourceUnavailable: no answer, or not in time.
            QueryRefused: the database will not run it.
        """
        table = _table(query)
        statement = sa.select(sa.func.max(table.c[query.id]), ServerTime()).select_from(table)
        with self._connected(f"observe {query.table}") as connection:
            largest, source_time = connection.execute(statement).one()
        clock = time.monotonic()
        if largest is not None and not (isinstance(largest, int) and 0 <= largest <= MAX_ID):
            raise QueryRefused(
                f"observe {query.table}: {query.id} holds {largest!r}, which is not an id",
                hint="`id` names a column of integers that only grow, from 1 to 2^64 - 1.",
            )
        return Observation(id=largest or 0, time=int(source_time), clock=clock)

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """Find where the table goes on: see shipper.capture.Source."""
        table = _table(query)
        identity = table.c[query.id]
        statement = sa.select(sa.func.min(identity)).where(identity > after, identity <= upto)
        with self._connected(f"look for ids of {query.table} above {after}") as connection:
            return connection.execute(statement).scalar_one() or upto

    def read(self, query: Query, window: Window) -> list[Row]:
        """Count the window's rows by bucket and group: see shipper.capture.Source."""
        with self._connected(f"read {query.table} {window}") as connection:
            rows = connection.execute(_count(query, window)).all()
        return [Row(bucket=row[0], group=_group(row[1:-1]), rows=row[-1]) for row in rows]

    def version(self) -> str:
        """Return the server's version, having connected."""
        with self._connected("connect") as connection:
            info = connection.dialect.server_version_info or ()
            kind = "MariaDB" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name
        return f"{kind} {'.'.join(str(part) for part in info if isinstance(part, int))}"

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    def _connect_arguments(self, url: sa.URL, option_file: str | None) -> dict[str, Any]:
        if self._is_sqlite:
            return {"timeout": self._timeout, "check_same_thread": False}
        arguments: dict[str, Any] = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": self._timeout + GRACE_SECONDS,
            "write_timeout": self._timeout + GRACE_SECONDS,
            "charset": "utf8mb4",
        }
        if option_file:
            arguments["read_default_file"] = option_file
        if "unix_socket" not in url.query and url.host is None:
            arguments["host"] = "127.0.0.1"
        return arguments

    def _prepare(self, connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        """Make a new session read-only, in UTC, READ COMMITTED, with the statement limit on the server."""
        cursor = connection.cursor()
        if self._is_sqlite:
            cursor.execute("PRAGMA query_only = ON")
        else:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("SET SESSION TRANSACTION READ ONLY")
            cursor.execute("SELECT VERSION()")
            if "MariaDB" in str(cursor.fetchone()):
                cursor.execute(f"SET SESSION max_statement_time = {self._timeout}")
            else:  # MySQL counts in milliseconds
                cursor.execute(f"SET SESSION max_execution_time = {self._timeout * 1000}")
        cursor.close()

    @contextmanager
    def _connected(self, step: str) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.TimeoutError as error:
            raise SourceUnavailable(f"{step}: all connections to {self.name} are busy") from error
        except sa.exc.DBAPIError as error:
            raise self._translated(error, step) from error
        except (sa.exc.StatementError, OverflowError) as error:
            message = str(error).partition("\n")[0]
            raise QueryRefused(f"{step}: {message}", hint="Check the values of `where`.") from error
        except RuntimeError as error:  # PyMySQL without cryptography, at MySQL 8's usual authentication
            if "cryptography" not in str(error):
                raise
            raise QueryRefused(f"{step}: {error}", hint="`pip install pymysql[rsa]`, or connect by TLS.") from error

    def _translated(self, error: sa.exc.DBAPIError, step: str) -> SourceUnavailable | QueryRefused:
        """Say in one line what the driver said; never the statement's values."""
        arguments = error.orig.args if error.orig else ()
        code = arguments[0] if arguments and isinstance(arguments[0], int) else None
        message = f"{step}: {arguments[-1] if arguments else error.orig}"
        if code in _REFUSED:
            return QueryRefused(message, hint=_REFUSED[code])
        if code in _NO_SERVER:
            return SourceUnavailable(message, hint="Is the database up, and does `url` name its host and port?")
        if self._is_sqlite and "no such" in message:
            return QueryRefused(message, hint=_NAMES)
        if self._is_sqlite and "unable to open" in message:
            return SourceUnavailable(message, hint="Does the file of `url` exist, readable for this user?")
        return SourceUnavailable(message)


def _read_only(url: sa.URL) -> sa.URL:
    """Open SQLite by URI, because a plain path that is mistyped would make an empty database."""
    return url.set(database=f"file:{quote(url.database or '')}", query={"mode": "ro", "uri": "true"})


def _table(query: Query) -> sa.TableClause:
    """Name the table and its columns. A bare name that is no column would be a string to SQLite, table.name is not."""
    schema, _, name = query.table.rpartition(".")
    names = {query.id, *query.by, *(condition.column for condition in query.where), query.time or query.id}
    columns: list[sa.ColumnClause[Any]] = [sa.column(sa.quoted_name(column, quote=True)) for column in sorted(names)]
    return sa.table(sa.quoted_name(name, quote=True), *columns, schema=schema or None)


def _count(query: Query, window: Window) -> sa.Select[Any]:
    """Select the bucket, the group columns and the count, of one window."""
    table = _table(query)
    identity = table.c[query.id]
    bucket: sa.ColumnElement[Any] = _bucket(table.c[query.time], query.bucket) if query.time else sa.null()
    columns: list[sa.ColumnElement[Any]] = [bucket, *(Text(table.c[name]) for name in query.by)]
    # labels that no table has: GROUP BY would take the table's column for the label
    labelled = [column.label(f"shipper_{n}") for n, column in enumerate(columns)]
    conditions = [_holds(table.c[column], values) for column, values in query.where]
    statement: sa.Select[Any] = (
        sa.select(*labelled, sa.func.count())
        .select_from(table)
        .where(identity > window.after, identity <= window.upto, *conditions)
    )
    keys = labelled if query.time else labelled[1:]
    if not keys:  # one row also when nothing matches: leave it out
        return statement.having(sa.func.count() > 0)
    return statement.group_by(*(sa.text(key.name) for key in keys))


def _holds(column: sa.ColumnElement[Any], values: tuple[Scalar, ...]) -> sa.ColumnElement[bool]:
    return column == sa.literal(values[0]) if len(values) == 1 else column.in_(values)


def _bucket(time_column: sa.ColumnElement[Any], length: int) -> sa.ColumnElement[int]:
    """Floor the event time to its bucket; also right before 1970, where % is negative."""
    seconds = Epoch(time_column)
    size: sa.ColumnElement[int] = sa.literal_column(str(length))
    return seconds - ((seconds % size) + size) % size


def _group(values: Iterable[bytes | None]) -> Group:
    return tuple(None if value is None else bytes(value).decode("utf-8", "backslashreplace") for value in values)
