"""Meanings of the errors of MySQL, MariaDB and PyMySQL."""

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
from shipper.source.dialects.mysql_driver import CR, ER

CHECK_ACCOUNT = (
    f"{CHECK_LOGIN} If both are right, check that an account exists for the host in the error (for a host name, an "
    "account for its address is enough). If the account requires TLS, check `tls`."
)
USE_TLS = (
    'Set `tls = "verify-identity"` (or "verify-ca", for any host name), and `tls_ca` to the server\'s CA file (PEM): '
    "the server accepts only TLS."
)
CHECK_COLLATION = (
    "In `where` and `where_sql`, compare a column only with texts whose characters are in its character set; "
    "or convert the column in `where_sql`: CONVERT(column USING utf8mb4)."
)
CHECK_EXPIRY = "Set a new password for the account, write it into the source's credentials, then restart the service."
CHECK_INSTALLATION = "Run deploy/install again: it installs packages that this login needs."
UNLOCK = "Unlock the account: ALTER USER ... ACCOUNT UNLOCK."

# numbers that only one of the servers has, or that PyMySQL does not name: the servers' manuals
BY_NUMBER: Mapping[object, Meaning] = {
    ER.ACCESS_DENIED_ERROR: (QueryRefused, CHECK_ACCOUNT),
    1698: (QueryRefused, CHECK_ACCOUNT),  # ER_ACCESS_DENIED_NO_PASSWORD_ERROR
    ER.DBACCESS_DENIED_ERROR: (QueryRefused, CHECK_DATABASE),
    ER.BAD_DB_ERROR: (QueryRefused, CHECK_DATABASE),
    ER.BAD_FIELD_ERROR: (QueryRefused, CHECK_NAMES),
    ER.NO_SUCH_TABLE: (QueryRefused, CHECK_NAMES),
    ER.PARSE_ERROR: (QueryRefused, CHECK_SQL),
    ER.SP_DOES_NOT_EXIST: (QueryRefused, CHECK_SQL),
    ER.TABLEACCESS_DENIED_ERROR: (Denied, CHECK_NAMES),
    ER.COLUMNACCESS_DENIED_ERROR: (Denied, CHECK_NAMES),
    ER.VIEW_NO_EXPLAIN: (Denied, CHECK_NAMES),
    ER.CANT_AGGREGATE_2COLLATIONS: (QueryRefused, CHECK_COLLATION),
    ER.CANT_AGGREGATE_3COLLATIONS: (QueryRefused, CHECK_COLLATION),
    ER.CANT_AGGREGATE_NCOLLATIONS: (QueryRefused, CHECK_COLLATION),
    3854: (QueryRefused, CHECK_COLLATION),  # ER_CANNOT_CONVERT_STRING of MySQL
    ER.WRONG_VALUE_FOR_TYPE: (RowRefused, CHECK_TYPES),
    1690: (RowRefused, CHECK_TYPES),  # ER_DATA_OUT_OF_RANGE
    3141: (RowRefused, CHECK_TYPES),  # ER_INVALID_JSON_TEXT_IN_PARAM
    # logins
    ER.HOST_IS_BLOCKED: (
        SourceUnavailable,
        "Run `mariadb-admin flush-hosts` or `mysqladmin flush-hosts` on the server.",
    ),
    ER.HOST_NOT_PRIVILEGED: (QueryRefused, "Allow this host: no account of the server may connect from it."),
    1820: (QueryRefused, CHECK_EXPIRY),  # ER_MUST_CHANGE_PASSWORD
    1862: (QueryRefused, CHECK_EXPIRY),  # ER_MUST_CHANGE_PASSWORD_LOGIN
    3118: (QueryRefused, UNLOCK),  # ER_ACCOUNT_HAS_BEEN_LOCKED
    4151: (QueryRefused, UNLOCK),  # the same in MariaDB
    3955: (QueryRefused, UNLOCK),  # ER_USER_ACCESS_DENIED_FOR_USER_ACCOUNT_BLOCKED_BY_PASSWORD_LOCK
    3159: (QueryRefused, USE_TLS),  # ER_SECURE_TRANSPORT_REQUIRED
    CR.CR_AUTH_PLUGIN_ERR: (QueryRefused, CHECK_CHALLENGE),
    CR.CR_AUTH_PLUGIN_CANNOT_LOAD: (
        QueryRefused,
        "Give the account another plugin: caching_sha2_password, mysql_native_password, or MariaDB's ed25519.",
    ),
    # limits of the server
    ER.CON_COUNT_ERROR: (SourceUnavailable, CHECK_CONNECTIONS),
    ER.TOO_MANY_USER_CONNECTIONS: (SourceUnavailable, CHECK_CONNECTIONS),
    ER.USER_LIMIT_REACHED: (SourceUnavailable, CHECK_CONNECTIONS),
    ER.SERVER_SHUTDOWN: (SourceUnavailable, CHECK_SERVER_STATE),
    ER.OUTOFMEMORY: (SourceUnavailable, CHECK_SERVER_STATE),
    ER.OUT_OF_SORTMEMORY: (SourceUnavailable, CHECK_SERVER_STATE),
    ER.OUT_OF_RESOURCES: (SourceUnavailable, CHECK_SERVER_STATE),
    ER.DISK_FULL: (SourceUnavailable, CHECK_SERVER_STATE),
    ER.RECORD_FILE_FULL: (SourceUnavailable, CHECK_SERVER_STATE),
    ER.LOCK_WAIT_TIMEOUT: (SourceUnavailable, WAIT),
    ER.LOCK_DEADLOCK: (SourceUnavailable, WAIT),
    ER.TABLE_DEF_CHANGED: (SourceUnavailable, WAIT),
    1969: (SourceUnavailable, SLOW),  # ER_STATEMENT_TIMEOUT of MariaDB
    3024: (SourceUnavailable, SLOW),  # ER_QUERY_TIMEOUT
}
BY_WORDS: Mapping[str, Meaning] = {
    "cryptography": (QueryRefused, CHECK_INSTALLATION),
    "pynacl": (QueryRefused, CHECK_INSTALLATION),
    "server doesn't support it": (SourceUnavailable, NO_TLS),
    "certificate": (SourceUnavailable, CHECK_TLS),
    "SSL": (SourceUnavailable, CHECK_TLS),
    "connection": (SourceUnavailable, CHECK_SERVER),
    "Can't connect": (SourceUnavailable, CHECK_SERVER),
}
