"""Logins: without a verified server only answers to challenges leave, and every usual plugin works."""

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from builders import query
from debian import UnavailableError
from servers import MariaDB, MySQL, PostgreSQL, mariadb_plugin

from shipper.core.errors import ConfigError, QueryRefused, ShipperError
from shipper.source.access import Access, Tls
from shipper.source.database import Source
from shipper.source.inspection import Examination

PASSWORD = "secret-Zür1ch"
PLUGIN = "auth_ed25519.so"
SALT = b"12345678", b"abcdefghijkl"
CAPABILITIES = 0x8 | 0x200 | 0x8000 | 0x80000 | 0x200000
MOST_OF_A_PROOF = 64  # bytes; what RSA has encrypted is longer
KEY = (
    b"\x01"
    b"""-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAu1SU1LfVLPHCozMxH2Mo
4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0/IzW7yWR7QkrmBL7jTKEn5u
+qKhbwKfBstIs+bMY2Zkp18gnTxKLxoS2tFczGkPLPgizskuemMghRniWaoLcyeh
kd3qqGElvW/VDL5AaWTg0nLVkjRo9z+40RQzuVaE8AkAFmxZzow3x+VJYKdjykkJ
0iT9wCS0DRTXu269V264Vf/3jvredZiKRkgwlL9xNAwxXFg0x/XFw005UWVRIkdg
cKWTjpBP2dPwVZ4WWC+9aGVd+Gyn1o0CLelf4rEjGoXbAAEgAqeGUxrcIlbjXfbc
mwIDAQAB
-----END PUBLIC KEY-----
"""
)


def switch(plugin: bytes, data: bytes = b"".join(SALT) + b"\0") -> bytes:
    """Return the request to answer by another plugin."""
    return b"\xfe" + plugin + b"\0" + data


ASKING = {
    "clear": (b"mysql_native_password", [switch(b"mysql_clear_password")]),
    "dialog": (b"mysql_native_password", [switch(b"dialog", b"\x05Password: ")]),
    "old": (b"mysql_native_password", [switch(b"mysql_old_password")]),
    "sha256": (b"mysql_native_password", [switch(b"sha256_password"), KEY]),
    "sha256 first": (b"sha256_password", [switch(b"sha256_password"), KEY]),
    "key unasked": (b"sha256_password", [KEY]),
    "caching": (b"caching_sha2_password", [b"\x01\x04", KEY]),
    "caching switched": (b"mysql_native_password", [switch(b"caching_sha2_password"), b"\x01\x04", KEY]),
}
"""Plugin of the greeting, and further messages, of servers that ask for the password."""


@contextmanager
def asking(kind: str) -> Iterator[tuple[int, list[bytes]]]:
    """Run a server that asks for the password; give its port, and the packets that it receives after the login."""
    plugin, messages = ASKING[kind]
    received: list[bytes] = []
    greeting = b"\x0a8.4.0\0" + struct.pack("<I", 7) + SALT[0] + b"\0"
    greeting += struct.pack("<HBHHB", CAPABILITIES & 0xFFFF, 45, 2, CAPABILITIES >> 16, 21) + bytes(10)
    greeting += SALT[1] + b"\0" + plugin + b"\0"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)

        def serve() -> None:
            client, _ = listening.accept()
            number = 0
            with client, client.makefile("rb") as reading:
                client.settimeout(60)
                for message in [greeting, *messages, b"\xff\x15\x04#28000no"]:
                    client.sendall(struct.pack("<I", len(message))[:3] + bytes([number]) + message)
                    header = reading.read(4)
                    if len(header) < 4:
                        return
                    received.append(reading.read(int.from_bytes(header[:3], "little")))
                    number = header[3] + 1

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield listening.getsockname()[1], received
        server.join(20)


def log_in(port: int, *, tls: Tls | None = None) -> ShipperError:
    """Connect to a server that asks for the password; return the failure."""
    url = sa.URL.create("mysql+pymysql", "u", PASSWORD, "127.0.0.1", port, "app")
    with closing(Source("app", Access(url, 5, tls=tls))) as source, pytest.raises(ShipperError) as caught:
        source.observe(query())
    return caught.value


@pytest.mark.parametrize("kind", ASKING)
def test_server_that_asks_for_the_password(kind: str) -> None:
    """A server that nothing verifies gets proofs only; the hint names the ways out.

    Mutant: connect by PyMySQL's own class, and it gets the password, or what its own key has encrypted.
    """
    with asking(kind) as (port, received):
        error = log_in(port)

    if kind != "key unasked":  # which no server does
        assert isinstance(error, QueryRefused)
        assert "server_public_key" in str(error.hint)
    login, *packets = received
    assert PASSWORD.encode() not in login
    assert [packet for packet in packets if len(packet) > MOST_OF_A_PROOF or PASSWORD.encode() in packet] == []


@pytest.mark.parametrize("kind", ["clear", "dialog"])
def test_tls_switched_off(kind: str) -> None:
    """An operator may allow a password in clear. Mutant: refuse in any case."""
    with asking(kind) as (port, received):
        log_in(port, tls="off")

    assert received[1] == PASSWORD.encode() + b"\0"


@pytest.fixture
def account(mysql: MySQL) -> sa.URL:
    """Make an account of MySQL's usual kind, which the server does not remember yet."""
    mysql.make_database("app")
    with mysql.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER usual@'%%' IDENTIFIED WITH caching_sha2_password BY %s", (PASSWORD,))
        cursor.execute("GRANT SELECT ON app.* TO usual@'%'")
        cursor.execute("FLUSH PRIVILEGES")
    return sa.URL.create("mysql+pymysql", "usual", PASSWORD, "127.0.0.1", mysql.port, "app")


def folder_of(mysql: MySQL) -> Path:
    """Return the directory with the keys that MySQL makes for itself."""
    return mysql._root / "data"


@pytest.mark.parametrize("way", ["key", "off", "verify-ca", "socket"])
def test_first_login(mysql: MySQL, account: sa.URL, way: str) -> None:
    """The first login by sha2 needs a verified server, its key, or an operator's word; the second only a proof.

    Mutants: check key identifiers, which MySQL's own certificates lack, on Python 3.13; no cryptography.
    """
    folder = folder_of(mysql)
    plain = Access(account, 5)
    with (
        closing(Source("app", plain)) as source,
        pytest.raises(QueryRefused, match="would send the password") as caught,
    ):
        source.observe(query())
    ways = {
        "key": plain._replace(server_public_key=str(folder / "public_key.pem")),
        "off": plain._replace(tls="off"),
        "verify-ca": plain._replace(tls="verify-ca", tls_ca=str(folder / "ca.pem")),
        "socket": plain._replace(url=account.set(host=None, query={"unix_socket": f"{mysql._root}/mysqld.sock"})),
    }
    for access in (ways[way], plain):
        with closing(Examination("app", access)) as examined:
            assert examined.observe(query()).id == 0

    assert "server_public_key" in str(caught.value.hint)


def test_socket_of_an_option_file(mariadb: MariaDB, tmp_path: Path) -> None:
    """A url's host is the one that is read, as for MySQL's own programs; without a host, it is the file's socket.

    Mutants: leave it to PyMySQL; no socket of the file.
    """
    mariadb.make_database("app")
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER reader@localhost")
        cursor.execute("CREATE USER reader@'127.0.0.1'")
        cursor.execute("GRANT SELECT ON app.* TO reader@localhost, reader@'127.0.0.1'")
    users = {}
    for host, path in ((f"127.0.0.1:{mariadb.port}", "none"), ("", f"{mariadb._root}/mysqld.sock")):
        (tmp_path / "mysql.cnf").write_text(f"[client]\nuser = reader\nsocket = {path}\n")
        access = Access(sa.make_url(f"mysql+pymysql://{host}/app"), 5, option_file=str(tmp_path / "mysql.cnf"))
        with closing(Examination("app", access)) as examined:
            users[path] = examined.session().account

    assert list(users.values()) == ["reader@127.0.0.1", "reader@localhost"]


def test_restarted_without_tls(mysql: MySQL, tmp_path: Path) -> None:
    """Without TLS, too, a first login needs the server's key: a server that restarts forgets who has logged in.

    Mutant: no cryptography, which only the login after a restart needs.
    """
    server = MySQL(tmp_path, ["--tls-version="])
    try:
        server.make_database("app")
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE USER usual IDENTIFIED BY %s", (PASSWORD,))
            cursor.execute("GRANT SELECT ON app.* TO usual")
        plain = Access(sa.URL.create("mysql+pymysql", "usual", PASSWORD, "127.0.0.1", server.port, "app"), 5)
        for access in (
            plain._replace(tls="off"),
            plain._replace(server_public_key=f"{folder_of(server)}/public_key.pem"),
        ):
            with closing(Source("app", plain)) as source, pytest.raises(QueryRefused, match="would send the password"):
                source.observe(query())
            for each in (access, plain):
                with closing(Examination("app", each)) as examined:
                    assert examined.observe(query()).id == 0
                    assert examined.session().tls is None
            server.stop()
            server.start()
    finally:
        server.stop()


def test_wrong_key(mysql: MySQL, account: sa.URL, tmp_path: Path) -> None:
    """Another key is a login that fails, not a password in clear; a file that is no key is a configuration error."""
    (tmp_path / "other.pem").write_bytes(KEY[1:])
    access = Access(account, 5, server_public_key=str(tmp_path / "other.pem"))
    with closing(Source("app", access)) as source, pytest.raises(QueryRefused, match="Access denied"):
        source.observe(query())
    for name in ("none.pem", "mysql"):
        with pytest.raises(ConfigError, match="read server_public_key"):
            Source("app", Access(account, 5, server_public_key=f"{folder_of(mysql)}/{name}"))


@pytest.fixture
def with_ed25519(mariadb_server: MariaDB, tmp_path: Path) -> Iterator[MariaDB]:
    """Give a MariaDB that has the plugin, which Debian's package mariadb-server-core lacks."""
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@plugin_dir")
        ((folder,),) = cursor.fetchall()
    if Path(folder, PLUGIN).exists():
        yield mariadb_server
        return
    try:
        plugin = mariadb_plugin(PLUGIN)
    except UnavailableError as error:
        pytest.skip(f"no plugin for ed25519: {error}")
    server = MariaDB(tmp_path, ["--skip-ssl", f"--plugin-dir={plugin.parent}"])
    yield server
    server.stop()


def test_ed25519(with_ed25519: MariaDB) -> None:
    """MariaDB's ed25519 works. Mutant: no PyNaCl."""
    with_ed25519.make_database("app")
    with with_ed25519.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"INSTALL SONAME '{PLUGIN}'")
        try:
            cursor.execute("CREATE USER curve@'%%' IDENTIFIED VIA ed25519 USING PASSWORD(%s)", (PASSWORD,))
            cursor.execute("GRANT SELECT ON app.* TO curve@'%'")
            url = sa.URL.create("mysql+pymysql", "curve", PASSWORD, "127.0.0.1", with_ed25519.port, "app")
            with closing(Source("app", Access(url, 5))) as source:
                assert source.observe(query()).id == 0
        finally:
            cursor.execute("DROP USER IF EXISTS curve@'%'")
            cursor.execute(f"UNINSTALL SONAME '{PLUGIN}'")


def test_modules_of_logins() -> None:
    """The modules that few logins need are imported by these alone: they take 10 MB."""
    code = "import sys, shipper.source.inspection; print(*sorted({'cryptography', 'nacl'} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout == "\n"


def test_cleartext_of_postgresql(postgresql: PostgreSQL) -> None:
    """A PostgreSQL that asks for the password in clear gets it only if the operator allows that."""
    postgresql.make_database("app")
    rules = postgresql._root / "data/pg_hba.conf"
    before = rules.read_text()
    with postgresql.connect("postgres") as connection:
        connection.execute("DROP ROLE IF EXISTS clear")
        connection.execute(f"CREATE ROLE clear LOGIN PASSWORD '{PASSWORD}'".encode())
        rules.write_text(f"host all clear 127.0.0.1/32 password\n{before}")
        try:
            connection.execute("SELECT pg_reload_conf()")
            url = sa.URL.create("postgresql+psycopg", "clear", PASSWORD, "127.0.0.1", postgresql.port, "app")
            usual, allowed = (closing(Examination("app", Access(url, 5, tls=tls))) for tls in (None, "off"))
            with usual as source, pytest.raises(QueryRefused, match="cleartext") as caught:
                source.session()
            with allowed as source:
                assert source.session().account == "clear@127.0.0.1"
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("DROP ROLE clear")

    assert "tls" in str(caught.value.hint)
