"""The form that each database's file fills: its SQL, its sessions, its errors."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.sql.compiler import IdentifierPreparer

from shipper.core.errors import QueryRefused, SourceUnavailable
from shipper.source.access import Access
from shipper.source.dialects.expressions import Statement
from shipper.source.limits import Meter

# hints that several databases give
CHECK_NAMES = (
    "Check the names in the job against the table, and the grants of the source's user: "
    "`shipper admin grants` prints all that are needed."
)
CHECK_SQL = "Check the SQL in `where_sql` or `sql` of the job, or in `lag_query` of the source."
CHECK_DATABASE = "Check the database in `url`, and the grants of the source's user."
CHECK_LOGIN = (
    "Check user and password: in the option file that `credentials` names, or in `user` and `password`. "
    "After a change, restart the service."
)
CHECK_SERVER = "Check that the database is up, and that `url` names its host and port."
CHECK_SERVER_STATE = "The server is starting or stopping, or lacks memory or disk space: see its log."
CHECK_CONNECTIONS = (
    "Lower `connections` of the source, or raise the limit in the server; `shipper check` needs one more."
)
CHECK_CHALLENGE = (
    "Verify the server by TLS (`tls`, `tls_ca`); or, for MySQL only, set `server_public_key` to its public key; or, on "
    'a trusted network, set `tls = "off"`.'
)
WAIT = "The next tick tries again; if you ran a command, repeat it."
SLOW = "Run `shipper check`: it shows the query's plan; or raise `timeout` of the source."
CHECK_TLS = "Set `tls_ca` to the server's CA file (PEM); or, on a trusted network, set tls to verify-ca or off."
NO_TLS = 'Switch on TLS in the server, then verify it (`tls_ca`); or, on a trusted network, set `tls = "off"`.'
SMALLER = "Lower `chunk` of the job, or group `by` fewer columns, or by columns with shorter values."
CHECK_TYPES = "A value does not fit its type: check `where` and the expressions of the job."

Meaning = tuple[type[SourceUnavailable | QueryRefused], str]
"""Class for a driver's error, and the hint for the operator."""


class Plan(NamedTuple):
    """How a database would run a statement."""

    text: str
    rows: int | None
    """About how many rows it would read, where the database estimates that."""
    is_range: bool
    """Whether it reads a range of ids."""
    is_scan: bool
    """Whether it reads an entire table or index."""

    def __str__(self) -> str:
        return self.text if self.rows is None else f"{self.text}, about {self.rows} rows"


class Catalog(NamedTuple):
    """Statements that read a database's catalog, by :schema and :table, or by :path, which is quoted."""

    tables: str
    """Names of the tables and views beside the table."""
    columns: str
    """Name and type of each column."""
    leading: str
    """Name and first column of each index, and the state that it needs to be used, else NULL."""
    kind: str
    """VIEW for a view."""
    unique: str
    """Columns whose values are unique, because an index has no other column."""
    engine: str | None = None
    """Name of the table's engine, if that has no transactions."""
    behind: str | None = None
    """Schema and table of each table or view that a view reads, as far as this user sees them."""
    reused: str | None = None
    """The id column, if the database gives ids of deleted rows to new rows."""
    moving: str | None = None
    """Columns that each UPDATE of a row sets to its time."""
    cycling: str | None = None
    """Columns whose sequence begins again after its last number, with the statement that ends this."""
    granted: str | None = None
    """Schema and table of each GRANT by which this user may read the table, as REVOKE must name them; * for all."""
    moment: str | None = None
    """The type of points in time, which need no `time_zone`."""
    has_types: bool = True
    """Whether a column holds only values of its type."""
    largest_id: int = 2**63 - 1
    """The largest id that its statements can compute with."""


class Session(NamedTuple):
    """The settings of a session that was set up."""

    settings: Mapping[str, object]
    """Values by name, as the session must return them."""
    is_shared: bool = False
    """Whether the server numbers it otherwise than its greeting: a pooler may run each transaction in another one."""
    local: str | None = None
    """Statements that set them for one transaction, where a session is shared, and the database can do that."""


class Rewrites(NamedTuple):
    """Protection where a table that is rewritten (TRUNCATE, ALTER TABLE) looks empty to an older snapshot."""

    lock: Callable[[sa.Connection, str], bool]
    """Keeps others from rewriting a table during the snapshot; False where that failed and ended the snapshot."""
    rewritten: str
    """Statement for the number of tables that the snapshot has read, and that were rewritten after it began."""


class Dialect(Protocol):
    """All that differs between databases; each database is a module in this folder."""

    ERRORS: Mapping[object, Meaning]
    """Meanings by the driver's code."""
    WORDS: Mapping[str, Meaning]
    """Meanings by words of the message, where the code has none; the first match counts."""
    DRIVER_ERROR: type[Exception]
    """Base class of the driver's documented errors."""
    BEGIN: str
    """Statement that opens a read-only snapshot."""
    BEGIN_SINGLE: str
    """Statement that opens a transaction for one statement, behind a pooler."""
    REWRITES: Rewrites | None
    CATALOG: Catalog
    SESSION: str
    """Statement for the account, and whether the server is read-only."""
    TLS: str | None
    """Statement whose second column is the TLS version of the session."""
    GRANT_SCHEMA: str | None
    """Statement that lets an account use a schema."""
    NOT_SUMMED: Collection[object]
    """Types, by the driver's codes, whose sum the database gives, although it has no meaning."""
    NAMES_DATABASE: bool
    """Whether statements for an administrator name the source's database: they may be connected to another one."""
    ADD_KEY: str
    """Statement that adds an integer key `n` to a table; empty where only a new table can have one."""
    MAKE_TRANSACTIONAL: str
    """End of the ALTER TABLE that gives a table transactions."""
    REVIVE_INDEX: str
    """Statement that brings an {index} of a {table} into the {required} state; {path} is the index with its schema."""

    def url(self, access: Access) -> sa.URL:
        """Return the URL that SQLAlchemy opens."""

    def arguments(self, access: Access) -> dict[str, Any]:
        """Return the arguments of the driver's connect."""

    def connect(self, access: Access, arguments: Mapping[str, Any], meter: Meter) -> DBAPIConnection | None:
        """Open a connection whose answers are measured, or return None: then SQLAlchemy opens one."""

    def prepare(self, connection: DBAPIConnection, access: Access) -> Session:
        """Set all that changes the meaning of statements; read-only, in UTC, with the server's time limits."""

    def read_back(self, connection: DBAPIConnection, settings: Mapping[str, object]) -> Mapping[str, object]:
        """Return the values that settings have now."""

    def codes(self, error: BaseException | None) -> Iterable[object]:
        """Return the codes of a driver's error, the most specific first."""

    def identity(self, dialect: sa.Dialect) -> str | None:
        """Return the statement for the server's unique name, None where servers have none."""

    def plan(self, connection: sa.Connection, statement: Statement, values: Mapping[str, Any], name: str) -> Plan:
        """Return the plan of a statement that reads a range of the id column `name`."""

    def is_short(self, column: Any) -> bool:
        """Return whether a column of a result, as the driver describes it, has only values that make short labels."""

    def user(self, access: Access) -> str | None:
        """Return the user of a source, None where the configuration names none."""

    def account(self, account: str, quote: IdentifierPreparer) -> str | None:
        """Return an account USER@HOST as GRANT names it, None where the database has no accounts."""
