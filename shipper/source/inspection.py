"""SQLAlchemy: what people ask of a database before jobs run on it; captures need none of this."""

import time
from collections.abc import Iterable
from typing import NamedTuple

import sqlalchemy as sa

from shipper.core.errors import QueryRefused
from shipper.core.model import Query, Span, Window
from shipper.source.catalog import Table, described
from shipper.source.connect import Denied
from shipper.source.database import Source
from shipper.source.dialects.expressions import ServerTime
from shipper.source.plan import Plan, planned, written
from shipper.source.statement import table_named, twice

_SESSIONS = {
    "mysql": "SELECT CURRENT_USER(), @@read_only, TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW())",
    "postgresql": """SELECT current_user || '@' || COALESCE(host(inet_client_addr()), 'localhost'), pg_is_in_recovery(),
        EXTRACT(timezone FROM now())""",
    "sqlite": "SELECT NULL, 0, 0",
}
_TLS = {
    "mysql": "SHOW SESSION STATUS LIKE 'Ssl_version'",
    "postgresql": "SELECT pid, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
}


class Session(NamedTuple):
    """What a new connection is like."""

    server: str
    """Its kind and version."""
    account: str | None
    """USER@HOST, as the server knows this user; of MySQL the host is that of the account, else our own."""
    tls: str | None
    """The version of the protocol, None in clear."""
    is_read_only: bool
    """Does the server take no writes, as a replica mostly does?"""
    zone: int
    """How far its zone is from UTC, seconds; what is between may have undone what we set."""
    ahead: int
    """How far its clock is before ours, seconds."""
    seconds: float
    """How long it took to connect and to have an answer."""


class Examination(Source):
    """One database, looked at closely."""

    @property
    def verifies(self) -> str:
        """Return what is verified of the server."""
        return self._access.verifies

    def session(self) -> Session:
        """Connect, and ask who we are there."""
        began = time.monotonic()
        with self._connected("connect") as connection:
            dialect = connection.dialect
            kind = dialect.name if dialect.name in _SESSIONS else "mysql"
            account, is_read_only, zone = connection.exec_driver_sql(_SESSIONS[kind]).one()
            seconds = time.monotonic() - began
            tls = connection.exec_driver_sql(_TLS[kind]).one_or_none() if kind in _TLS else None
            ahead = connection.execute(sa.select(ServerTime())).scalar_one() - int(time.time())
        name = "MariaDB" if getattr(dialect, "is_mariadb", False) else dialect.name
        version = ".".join(str(part) for part in dialect.server_version_info or () if isinstance(part, int))
        found = tls[1] if tls is not None else None
        return Session(f"{name} {version}", account, found or None, bool(is_read_only), int(zone), ahead, seconds)

    def table(self, path: str) -> Table:
        """Look a table up."""
        with self._connected(f"look up {path}") as connection:
            return described(connection, path)

    def unreadable(self, path: str, columns: Iterable[str]) -> dict[str, QueryRefused]:
        """Return which of a table's columns cannot be read, and why; no row is read for that."""
        names = sorted(columns)
        try:
            self._probe(path, *names)
        except QueryRefused as error:
            if len(names) == 1:
                return {names[0]: error}
            return {name: why for one in names for name, why in self.unreadable(path, [one]).items()}
        return {}

    def plan(self, query: Query, window: Window) -> Plan:
        """Have the query's statement explained; of a view MySQL does that for few."""
        try:
            with self._connected(f"explain {query.table} {window}") as connection:
                return planned(connection, query, window)
        except Denied:
            return Plan("a plan that this user may not see (SHOW VIEW)", None, is_range=False, is_scan=False)

    def twice(self, query: Query, rows: int) -> int | None:
        """Return an id that two of so many newest rows have; None where there is none."""
        with self._connected(f"look for ids of {query.table} that two rows have") as connection:
            found: int | None = connection.execute(twice(query, rows)).scalar()
        return found

    def sql(self, query: Query, window: Window, span: Span) -> str:
        """Return the statement that counts a window, as somebody could run it."""
        return written(self._engine.dialect, query, window, span)

    def _probe(self, path: str, *names: str) -> None:
        statement = sa.select(*table_named(path, names).columns).limit(0)
        with self._connected(f"read {path}") as connection:
            connection.execute(statement).all()
