"""Global settings of servers that change what statements of new sessions mean, or whether they succeed."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple

from pymysql.err import OperationalError
from servers import MariaDB, PostgreSQL
from tables import Execute, executing

READER = "reader"
"""The user whose sessions inherit the settings; administrators bypass some of them."""


class Setting(NamedTuple):
    """A setting of a server, and its hostile value."""

    server: str
    name: str
    value: str | float

    def __str__(self) -> str:
        return f"{self.server}-{self.name}={self.value}"


_BOTH: dict[str, tuple[str | float, ...]] = {
    "sql_mode": (
        *("ANSI", "ANSI_QUOTES", "HIGH_NOT_PRECEDENCE", "NO_BACKSLASH_ESCAPES", "NO_UNSIGNED_SUBTRACTION"),
        *("ONLY_FULL_GROUP_BY", "PAD_CHAR_TO_FULL_LENGTH", "PIPES_AS_CONCAT", "REAL_AS_FLOAT", "TRADITIONAL"),
    ),
    "autocommit": (0,),
    "character_set_client": ("latin1",),
    "character_set_results": ("latin1",),
    "collation_connection": ("utf8mb4_bin",),
    "completion_type": ("CHAIN", "RELEASE"),
    "div_precision_increment": (0,),
    "group_concat_max_len": (4,),
    "init_connect": ("SET sql_select_limit = 4", "SET autocommit = 0", "SET NAMES latin1"),
    "max_allowed_packet": (1024,),
    "max_join_size": (1,),
    "max_sort_length": (64,),
    "require_secure_transport": (1,),
    "sql_auto_is_null": (1,),
    "sql_big_selects": (0,),
    "sql_safe_updates": (1,),
    "sql_select_limit": (4,),
    "time_zone": ("+05:30",),
    "wait_timeout": (1,),
}
_OWN: dict[str, dict[str, tuple[str | float, ...]]] = {
    "mariadb": {
        "sql_mode": ("ORACLE", "EMPTY_STRING_IS_NULL", "TIME_ROUND_FRACTIONAL", "MSSQL"),
        "idle_transaction_timeout": (1,),
        "max_statement_time": (0.000001,),
        "old_mode": ("ZERO_DATE_TIME_CAST",),
        "tx_isolation": ("READ-UNCOMMITTED", "SERIALIZABLE"),
    },
    "mysql": {
        "sql_mode": ("TIME_TRUNCATE_FRACTIONAL",),
        "default_collation_for_utf8mb4": ("utf8mb4_general_ci",),
        "explain_format": ("JSON", "TRADITIONAL"),
        "max_execution_time": (1,),
        "offline_mode": (1,),
        "show_gipk_in_create_table_and_information_schema": (0,),
        "transaction_isolation": ("READ-UNCOMMITTED", "SERIALIZABLE"),
        "transaction_read_only": (0,),
    },
    "postgresql": {
        "backslash_quote": ("off",),
        "bytea_output": ("escape",),
        "client_encoding": ("LATIN1", "SQL_ASCII", "EUC_JP"),
        "datestyle": ("SQL, DMY", "German"),
        "default_transaction_deferrable": ("on",),
        "default_transaction_isolation": ("read committed", "serializable"),
        "default_transaction_read_only": ("off",),
        "enable_indexscan": ("off",),
        "extra_float_digits": (-15,),
        "idle_in_transaction_session_timeout": (100,),
        "idle_session_timeout": (100,),
        "intervalstyle": ("sql_standard",),
        "lock_timeout": (1,),
        "plan_cache_mode": ("force_generic_plan",),
        "quote_all_identifiers": ("on",),
        "role": ("nobody",),
        "search_path": ("pg_catalog",),
        "session_preload_libraries": ("missing",),
        "standard_conforming_strings": ("off",),
        "statement_timeout": (1,),
        "timezone": ("Asia/Kolkata",),
        "timezone_abbreviations": ("India",),
        "transform_null_equals": ("on",),
    },
}
SERVERS = tuple(_OWN)


def settings_of(server: str) -> list[Setting]:
    """Return the hostile settings of a server."""
    both = {} if server == "postgresql" else _BOTH
    names = {**both, **_OWN[server]}
    values = {name: (*both.get(name, ()), *_OWN[server].get(name, ())) for name in names}
    return [Setting(server, name, value) for name, several in values.items() for value in several]


class Administrator:
    """Sessions of an administrator that were opened before any setting changed."""

    def __init__(self, kind: str, execute: Execute) -> None:
        self._is_postgresql = kind == "postgresql"
        self.execute = execute

    @contextmanager
    def changed(self, setting: Setting) -> Iterator[None]:
        """Give the sessions of the reader a setting, and new sessions; and at the end as before."""
        if self._is_postgresql:
            undo: tuple[Any, ...] = (f"ALTER ROLE {READER} RESET {setting.name}",)
            self.execute(f"ALTER ROLE {READER} SET {setting.name} = '{setting.value}'")
        else:
            ((before,),) = self.execute(f"SELECT @@GLOBAL.{setting.name}")
            change = f"SET GLOBAL {setting.name} = %s"
            undo = change, (before,)
            self.execute(change, (setting.value,))
        self.kill()
        try:
            yield
        finally:
            self.execute(*undo)
            self.kill()

    def kill(self) -> None:
        """End all sessions of the reader."""
        if self._is_postgresql:
            self.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{READER}'")
            return
        theirs = f"SELECT id FROM information_schema.processlist WHERE user = '{READER}'"
        for (session,) in self.execute(theirs):
            with suppress(OperationalError):  # the session has just ended by itself
                self.execute(f"KILL {session}")


@contextmanager
def administrating(server: MariaDB | PostgreSQL, database: str) -> Iterator[Administrator]:
    """Provide an administrator of a database, with a reader who may read its audit_trail."""
    kind = "postgresql" if isinstance(server, PostgreSQL) else "mariadb"
    connection: Any = server.connect(database)
    with closing(connection), executing(kind, connection) as execute:
        for statement in _reader(kind, database):
            execute(statement)
        yield Administrator(kind, execute)


def _reader(kind: str, database: str) -> list[str]:
    if kind == "postgresql":
        return [
            f"DO $$BEGIN IF to_regrole('{READER}') IS NOT NULL THEN DROP OWNED BY {READER}; END IF; END$$",
            *(f"DROP ROLE IF EXISTS {role}" for role in (READER, "nobody")),
            *(f"CREATE ROLE {READER} LOGIN", "CREATE ROLE nobody", f"GRANT nobody TO {READER}"),
            f"GRANT SELECT ON audit_trail TO {READER}",
        ]
    return [f"CREATE USER {READER}", f"GRANT SELECT ON {database}.* TO {READER}"]
