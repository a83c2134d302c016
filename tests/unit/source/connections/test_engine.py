"""Sessions that are set up, and drivers' errors as ours."""

import sqlite3
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import psycopg
import pymysql
import pytest
import sqlalchemy as sa
from psycopg import errors as pg

from shipper.core.errors import QueryRefused, RowRefused, ShipperError, SourceUnavailable
from shipper.source.access import Access, Denied
from shipper.source.connections.engine import DriverFailure, _set_up, translated
from shipper.source.dialects.by_name import dialect_named
from shipper.source.dialects.dialect import Session


def set_up(given: Mapping[str, object], actual: Mapping[str, object]) -> Session:
    """Set up a session of a server that keeps other values than those that it is given."""
    dialect: Any = SimpleNamespace(prepare=lambda *_: Session(given), read_back=lambda *_: actual)
    entry: Any = SimpleNamespace(info={})
    connection: Any = None
    _set_up(dialect, Access(sa.make_url("mysql+pymysql://db1/app"), 5), connection, entry)
    session: Session = entry.info["session"]
    return session


def test_setting_that_is_kept() -> None:
    """A session is remembered with its settings."""
    assert set_up({"sql_mode": ""}, {"sql_mode": ""}) == Session({"sql_mode": ""})


@pytest.mark.parametrize("actual", [{"sql_mode": "ORACLE", "autocommit": 1}, {"autocommit": 1}, {}])
def test_setting_that_is_not_kept(actual: dict[str, object]) -> None:
    """A server or a proxy that does not keep a setting is rejected. Mutant: do not read back."""
    with pytest.raises(QueryRefused, match=r"set up a session: sql_mode is .* instead of ''") as caught:
        set_up({"sql_mode": "", "autocommit": 1}, actual)

    assert "proxy" in str(caught.value.hint)


def mysql(number: int, message: str = "no") -> Exception:
    """Return an error of MySQL."""
    return pymysql.err.OperationalError(number, message)


@pytest.mark.parametrize(
    ("kind", "error", "expected", "hint"),
    [
        ("mysql", mysql(1040, "Too many connections"), SourceUnavailable, "`connections`"),
        ("mysql", mysql(1203), SourceUnavailable, "`connections`"),
        ("mysql", mysql(1226), SourceUnavailable, "`connections`"),
        ("mysql", mysql(1045), QueryRefused, "restart the service. If both are right, check that an account"),
        ("mysql", mysql(1045), QueryRefused, "account for its address is enough"),
        ("mysql", mysql(1142), Denied, "`shipper admin grants` prints all that are needed"),
        ("mysql", mysql(3118), QueryRefused, "ACCOUNT UNLOCK"),
        ("mysql", mysql(4151), QueryRefused, "ACCOUNT UNLOCK"),
        ("mysql", mysql(1820), QueryRefused, "new password"),
        ("mysql", mysql(1862), QueryRefused, "new password"),
        ("mysql", mysql(3159), QueryRefused, "tls"),
        ("mysql", mysql(2061), QueryRefused, "server_public_key"),
        ("mysql", mysql(1129), SourceUnavailable, "flush-hosts"),
        ("mysql", mysql(1213), SourceUnavailable, "next tick"),
        ("mysql", mysql(1205), SourceUnavailable, "next tick"),
        ("mysql", mysql(1021), SourceUnavailable, "disk space"),
        ("mysql", mysql(1037), SourceUnavailable, "memory"),
        ("mysql", mysql(3024), SourceUnavailable, "`shipper check`"),
        ("mysql", RuntimeError("'cryptography' package is required"), QueryRefused, "deploy/install"),
        ("mysql", RuntimeError("'pynacl' package is required"), QueryRefused, "deploy/install"),
        ("mysql", IndexError("index out of range"), SourceUnavailable, "proxy"),
        ("postgresql", psycopg.OperationalError("FATAL:  sorry, too many clients already"), SourceUnavailable, "`conn"),
        ("postgresql", psycopg.OperationalError("failed to resolve host 'x'"), SourceUnavailable, "host and port"),
        ("postgresql", psycopg.OperationalError('permission denied for database "x"'), QueryRefused, "GRANT CONNECT"),
        ("postgresql", pg.TooManyConnections("no"), SourceUnavailable, "`connections`"),
        ("postgresql", pg.CannotConnectNow("no"), SourceUnavailable, "starting or stopping"),
        ("postgresql", psycopg.OperationalError("the database system is starting up"), SourceUnavailable, "starting"),
        ("postgresql", pg.ReadOnlySqlTransaction("no"), QueryRefused, "change data"),
        ("postgresql", pg.SerializationFailure("no"), SourceUnavailable, "next tick"),
        ("postgresql", pg.DeadlockDetected("no"), SourceUnavailable, "next tick"),
        ("postgresql", pg.DiskFull("no"), SourceUnavailable, "disk space"),
        ("postgresql", pg.OutOfMemory("no"), SourceUnavailable, "memory"),
        ("postgresql", pg.QueryCanceled("statement timeout"), SourceUnavailable, "timeout"),
        ("postgresql", pg.InsufficientPrivilege("row-level security policy"), QueryRefused, "BYPASSRLS"),
        ("postgresql", psycopg.OperationalError("server requested a cleartext password"), QueryRefused, "tls"),
        ("postgresql", UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "no"), RowRefused, "type"),
        ("sqlite", sqlite3.OperationalError("attempt to write a readonly database"), SourceUnavailable, "WAL mode"),
        ("sqlite", sqlite3.DatabaseError("database disk image is malformed"), QueryRefused, "integrity_check"),
        ("sqlite", sqlite3.DatabaseError("file is not a database"), QueryRefused, "`url`"),
    ],
)
def test_translated(kind: str, error: Exception, expected: type[ShipperError], hint: str) -> None:
    """Each error has the class that decides about retries, and the remedy for its number."""
    dialect = dialect_named(kind)
    with pytest.raises(expected, match=r"^look: ") as caught, translated(dialect, "look", source="app"):
        if isinstance(error, dialect.DRIVER_ERROR):
            raise sa.exc.DBAPIError("SELECT", None, error)
        raise DriverFailure from error

    assert type(caught.value) is expected
    assert hint in str(caught.value.hint)


def test_all_addresses() -> None:
    """Of the failures of all addresses of a host, the last is shown."""
    error = psycopg.OperationalError(
        "All failures were:\n- host ::1: refused\n- host 127.0.0.1: too many clients already"
    )
    with (
        pytest.raises(SourceUnavailable, match=r"look: - host 127.0.0.1: too many clients"),
        translated(dialect_named("postgresql"), "look", source="app"),
    ):
        raise sa.exc.DBAPIError("SELECT", None, error)


def test_bug_of_ours() -> None:
    """A bug of ours remains one. Mutant: translate all exceptions."""
    with pytest.raises(NameError), translated(dialect_named("sqlite"), "look", source="app"):
        raise NameError
