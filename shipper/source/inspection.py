"""A close look at a database before jobs run on it: its session, tables, plans, and columns that suit a job.

Captures use none of this. For columns the catalog names the keys; the newest rows show whether a column contains
times, and how many values it has.
"""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.sql.visitors import replacement_traverse

from shipper.core.errors import QueryRefused
from shipper.core.model import ALWAYS, MAX_ID, Query, Span, Window
from shipper.source.access import Denied
from shipper.source.database import Source
from shipper.source.dialects.dialect import Plan
from shipper.source.dialects.expressions import ServerTime, table_named
from shipper.source.limits import whole
from shipper.source.statements.clauses import bounds
from shipper.source.statements.counts import counted, labels
from shipper.source.statements.ids import twice
from shipper.source.tables.catalog import Table, described, facts, is_unique, planned
from shipper.source.tables.times import units_of

NEWEST_ROWS = 1000
MOST_VALUES = 50
"""A column with more values among the newest rows would make too many series."""
_TIME = re.compile(r"date|timestamp")
_LONG = re.compile(r"json|xml|blob|bytea|binary|(medium|long)text|time|date|uuid|point|geometry", re.IGNORECASE)
_NAMED_TIME = re.compile(r"time|date|stamp|stmp|creat|clock|when|(^|_)(at|on|ts)$", re.IGNORECASE)
_TYPES: dict[type, sa.types.TypeEngine[Any]] = {
    str: sa.String(),
    bool: sa.Boolean(),
    int: sa.BigInteger(),
    float: sa.Float(),
}


class TimeColumn(NamedTuple):
    """A column that contains times."""

    name: str
    unit: str | None
    """Unit of numbers since 1970."""
    is_indexed: bool


class Candidates(NamedTuple):
    """Columns that suit a job, the best ones first."""

    ids: list[str]
    """Unique integer keys."""
    others: list[str]
    """Other indexed integers, unique among the newest rows, as the key of a partitioned table is."""
    times: list[TimeColumn]
    labels: list[str]


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
        """Return the columns of a table that suit a job; of a table that does not exist there are none.

        Raises:
            ShipperError: the database does not answer, or denies a column.
        """
        with self.connections.connected(f"look at {path}") as connection:
            table = described(connection, path)
            leading = list(dict.fromkeys(index.column for index in table.indices if index.required is None))
            keys = [name for name in leading if name in table.columns and table.columns[name].is_integer]
            ids = [name for name in keys if is_unique(connection, path, name)]
            if not table.columns:
                return Candidates([], [], [], [])
            order = (ids or leading or list(table.columns))[0]
            times = list(_times(connection, path, table, order, leading))
            known = {*ids, *(time.name for time in times)}
            free = [name for name in table.columns if name not in known]
            others = [name for name in keys if name in free and _is_like_a_key(connection, path, name)]
            short = [name for name in free if not _LONG.search(table.columns[name].type)]
            return Candidates(ids, others, times, _labels(connection, path, short, order))

    def tables_beside(self, path: str) -> list[str]:
        """Return the names of all tables and views in a table's schema, as far as this user sees them."""
        with self.connections.connected(f"look up tables beside {path}") as connection:
            return [str(row[0]) for row in facts(connection, self.connections.dialect.CATALOG.tables, path)]

    def granted(self, path: str) -> list[tuple[str, str]]:
        """Return schema and table of each GRANT by which this user may read a table, as REVOKE must name them."""
        statement = self.connections.dialect.CATALOG.granted
        if statement is None:
            schema, _, table = path.rpartition(".")
            return [(schema, table)]
        with self.connections.connected(f"look up grants of {path}") as connection:
            return [(row[0], row[1]) for row in facts(connection, statement, path)]

    def unreadable(self, path: str, columns: Iterable[str]) -> dict[str, QueryRefused]:
        """Return the columns that this user cannot read, with the errors; no row is read."""
        names = sorted(columns)
        try:
            with self.connections.connected(f"read {path}") as connection:
                connection.execute(sa.select(*table_named(path, names).columns).limit(0)).all()
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
        """Return the statement that counts a window, ready to run: with its values in it."""
        values = bounds(query, window, span)
        if not self.connections.has_types:  # other programs have no function for long labels
            query = replace(query, short=frozenset(labels(query)[0]))

        def typed(element: Any, **_: Any) -> Any:
            if not isinstance(element, sa.BindParameter):
                return None
            value = values.get(element.key, element.value)
            value = str(value) if isinstance(value, datetime) else value
            return sa.bindparam(None, value, type_=_TYPES[type(value)])

        statement: Any = replacement_traverse(counted(query, is_within=span != ALWAYS), {}, typed)
        # the driver's own style of parameters would double each %
        dialect: Any = type(self.connections.engine.dialect)
        text = statement.compile(dialect=dialect(paramstyle="named"), compile_kwargs={"literal_binds": True})
        return str(text).replace(" \n", "\n")


def _is_like_a_key(connection: sa.Connection, path: str, name: str) -> bool:
    return connection.execute(twice(Query(path, name, None, 1), NEWEST_ROWS)).first() is None


def _times(
    connection: sa.Connection, path: str, table: Table, order: str, leading: Sequence[str]
) -> Iterator[TimeColumn]:
    """Yield columns that contain times: those of a type for times first."""
    typed = [name for name, column in table.columns.items() if _TIME.match(column.type.lower())]
    for name in typed:
        yield TimeColumn(name, None, name in leading)
    named = [name for name in table.columns if name not in typed and _NAMED_TIME.search(name)]
    newest = connection.execute(_newest(path, named, order).limit(1)).one_or_none() if named else None
    for name, value in zip(named, newest or (), strict=False):
        with suppress(ValueError):
            if isinstance(value, str):
                datetime.fromisoformat(value)
                yield TimeColumn(name, None, name in leading)
            elif units := units_of(float(str(value))):
                yield TimeColumn(name, units[0], name in leading)


def _labels(connection: sa.Connection, path: str, names: Sequence[str], order: str) -> list[str]:
    """Return the columns with few values among the newest rows, those with the fewest first."""
    if not names:
        return []
    rows = _newest(path, names, order).limit(NEWEST_ROWS).subquery()
    counts = connection.execute(sa.select(*(sa.func.count(column.distinct()) for column in rows.columns))).one()
    found = sorted((count, name) for name, count in zip(names, counts, strict=True) if 0 < count <= MOST_VALUES)
    return [name for count, name in found if count > 1] + [name for count, name in found if count == 1]


def _newest(path: str, names: Sequence[str], order: str) -> sa.Select[Any]:
    """Select columns of the newest rows."""
    columns = table_named(path, {*names, order}).columns
    return sa.select(*(columns[name] for name in names)).order_by(columns[order].desc())
