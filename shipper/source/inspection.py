"""A close look at a database before jobs run on it; captures use none of this."""

import time
from collections.abc import Iterable
from typing import NamedTuple

import sqlalchemy as sa

from shipper.core.errors import QueryRefused
from shipper.core.model import MAX_ID, Query, Span, Window
from shipper.source.access import Access, Denied
from shipper.source.candidates import Candidates, candidates
from shipper.source.catalog import Table, described, planned, tables_beside, written
from shipper.source.database import Source
from shipper.source.dialects.dialect import Plan
from shipper.source.dialects.expressions import ServerTime, table_named
from shipper.source.limits import whole
from shipper.source.statement import twice


class Session(NamedTuple):
    """Facts about a new connection."""

    server: str
    """Kind and version of the server."""
    account: str | None
    """USER@HOST, as the server knows this user; the host is that of a MySQL account, elsewhere of this machine."""
    tls: str | None
    """The version of TLS, None without."""
    is_read_only: bool
    """Whether the server takes no writes, as most replicas."""
    is_pooled: bool
    """Whether transactions may run in different sessions of the server."""
    ahead: int
    """How far the server's clock is ahead of ours, in seconds."""
    seconds: float
    """Time to connect and to receive an answer, in seconds."""


class Examination(Source):
    """One database, for closer looks."""

    @property
    def access(self) -> Access:
        """Return how the database is reached."""
        return self._access

    def session(self) -> Session:
        """Connect, and return the facts about the session."""
        began = time.monotonic()
        ours = self.connections.dialect
        with self.connections.connected("connect") as connection:
            dialect = connection.dialect
            account, is_read_only = connection.exec_driver_sql(ours.SESSION).one()
            seconds = time.monotonic() - began
            tls = connection.exec_driver_sql(ours.TLS).one_or_none() if ours.TLS else None
            is_pooled = connection.info["session"].is_shared
            ahead = connection.execute(sa.select(ServerTime())).scalar_one() - int(time.time())
        name = "MariaDB" if getattr(dialect, "is_mariadb", False) else dialect.name
        version = ".".join(str(part) for part in (dialect.server_version_info or ())[:3] if isinstance(part, int))
        protocol = tls[1] if tls is not None else None
        return Session(f"{name} {version}", account, protocol or None, bool(is_read_only), is_pooled, ahead, seconds)

    def table(self, path: str) -> Table:
        """Return the catalog's facts about a table."""
        with self.connections.connected(f"look up {path}") as connection:
            return described(connection, path)

    def candidates(self, path: str) -> Candidates:
        """Return the columns of a table that suit a job."""
        return candidates(self.connections, path)

    def tables_beside(self, path: str) -> list[str]:
        """Return the names of all tables and views in a table's schema, as far as this user sees them."""
        with self.connections.connected(f"look up tables beside {path}") as connection:
            return tables_beside(connection, path)

    def unreadable(self, path: str, columns: Iterable[str]) -> dict[str, QueryRefused]:
        """Return the columns that this user cannot read, with the errors; no row is read."""
        names = sorted(columns)
        try:
            self._probe(path, *names)
        except QueryRefused as error:
            if len(names) == 1:
                return {names[0]: error}
            # probe each column by itself
            return {name: why for one in names for name, why in self.unreadable(path, [one]).items()}
        return {}

    def plan(self, query: Query, window: Window) -> Plan:
        """Return the plan of the query's statement; MySQL shows plans of views to few users only."""
        try:
            with self.connections.connected(f"explain {query.table}, {window}") as connection:
                return planned(connection, query, window)
        except Denied:
            return Plan("not visible to this user (SHOW VIEW)", None, is_range=False, is_scan=False)

    def twice(self, query: Query, rows: int) -> int | None:
        """Return an id that two of the newest `rows` rows share, None where there is none."""
        with self.connections.connected(f"look for ids of {query.table} that two rows have") as connection:
            identity = connection.execute(twice(query, rows)).scalar()
            return None if identity is None else whole(identity, 0, MAX_ID)

    def sql(self, query: Query, window: Window, span: Span) -> str:
        """Return the statement that counts a window, ready to run."""
        return written(self.connections.engine.dialect, query, window, span)

    def _probe(self, path: str, *names: str) -> None:
        statement = sa.select(*table_named(path, names).columns).limit(0)
        with self.connections.connected(f"read {path}") as connection:
            connection.execute(statement).all()
