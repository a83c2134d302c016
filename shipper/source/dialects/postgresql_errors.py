"""Meanings of the errors of PostgreSQL, psycopg and PgBouncer."""

from collections.abc import Mapping

from shipper.core.errors import QueryRefused, RowRefused, SourceUnavailable
from shipper.source.access import Denied
from shipper.source.dialects.dialect import (
    CHECK_CHALLENGE,
    CHECK_CONNECTIONS,
    CHECK_DATABASE,
    CHECK_LOGIN,
    CHECK_NAMES,
    CHECK_SERVER,
    CHECK_SERVER_STATE,
    CHECK_SQL,
    CHECK_TLS,
    CHECK_TYPES,
    NO_TLS,
    SLOW,
    WAIT,
    Meaning,
)

# SQLSTATEs and their classes: the manual, appendix A
BY_SQLSTATE: Mapping[object, Meaning] = {
    "42501": (Denied, CHECK_NAMES),  # insufficient_privilege
    "42601": (QueryRefused, CHECK_SQL),  # syntax_error
    # undefined_function: of an operator, too
    "42883": (
        QueryRefused,
        (
            "Write `where` and `where_sql` with values of the column's type: true for BOOLEAN. "
            "`like` needs a text: CAST(... AS TEXT) LIKE '...' in `where_sql`."
        ),
    ),
    "42883 of a measure": (QueryRefused, "Measure a numeric column; or cast it in custom `sql`."),
    "42501 by rows": (
        QueryRefused,
        "A policy hides rows from this user: ALTER ROLE ... BYPASSRLS, or name a view that shows the rows to count.",
    ),
    "28": (QueryRefused, CHECK_LOGIN),
    "3D": (QueryRefused, CHECK_DATABASE),
    "42": (QueryRefused, CHECK_NAMES),
    "22": (RowRefused, CHECK_TYPES),
    "25006": (QueryRefused, "Write `where_sql` and `sql` without functions that change data, and without FOR UPDATE."),
    "40": (SourceUnavailable, WAIT),  # serialization failure, deadlock, conflict with recovery
    "53": (SourceUnavailable, CHECK_SERVER_STATE),  # disk full, out of memory
    "53300": (SourceUnavailable, CHECK_CONNECTIONS),
    "54": (RowRefused, CHECK_TYPES),  # a value is larger than a function's result may be
    "55": (SourceUnavailable, WAIT),  # lock not available
    "57": (SourceUnavailable, CHECK_SERVER_STATE),
    "57014": (SourceUnavailable, SLOW),  # query_canceled, by statement_timeout
}
# psycopg gives no SQLSTATE while it connects; that of an internal error has no meaning
BY_WORDS: Mapping[str, Meaning] = {
    "invalid memory alloc": (RowRefused, CHECK_TYPES),  # of a value, which may be up to a gigabyte long
    "cleartext password": (QueryRefused, CHECK_CHALLENGE),
    "too many": (SourceUnavailable, CHECK_CONNECTIONS),
    "connection slots": (SourceUnavailable, CHECK_CONNECTIONS),
    "no more connections allowed": (SourceUnavailable, CHECK_CONNECTIONS),  # PgBouncer's
    "the database system is": (SourceUnavailable, CHECK_SERVER_STATE),  # starting up, shutting down
    "statement pooling mode": (QueryRefused, "Set pool_mode of the pooler to transaction or session."),
    "unsupported startup parameter": (QueryRefused, "Add it to ignore_startup_parameters in pgbouncer.ini."),
    "pg_hba.conf": (
        QueryRefused,
        "Allow this host, user and database in pg_hba.conf: a hostssl line needs TLS, a hostnossl line none.",
    ),
    "authentication failed": (QueryRefused, CHECK_LOGIN),
    "permission denied for database": (QueryRefused, "Let the user connect: GRANT CONNECT ON DATABASE ... TO ...;"),
    'role "': (QueryRefused, CHECK_LOGIN),
    'database "': (QueryRefused, CHECK_DATABASE),
    "server does not support SSL": (SourceUnavailable, NO_TLS),
    "certificate": (SourceUnavailable, CHECK_TLS),
    "SSL": (SourceUnavailable, CHECK_TLS),
    "connection": (SourceUnavailable, CHECK_SERVER),
    "resolve host": (SourceUnavailable, CHECK_SERVER),  # psycopg's, before libpq
}
