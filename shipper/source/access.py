"""How a database is reached, and how long it may take to answer."""

import stat
from pathlib import Path
from typing import Literal, NamedTuple

import sqlalchemy as sa

from shipper.core.errors import ConfigError, QueryRefused

CONNECT_SECONDS = 5
IDLE_SECONDS = 5
"""The server ends an idle snapshot after this time, a few dozen times the length of a snapshot."""
GRACE_SECONDS = 5
"""How much longer than the server the client waits: a read time-out of the client leaves the query running."""
LOOPBACK = {None, "localhost", "127.0.0.1", "::1"}

Tls = Literal["verify-identity", "verify-ca", "off"]


class Denied(QueryRefused):
    """This user may not read a table, or a column of it."""


class LoginRefused(QueryRefused):
    """The server rejects this user's login; another attempt could lock the account."""


def is_endless(file: str) -> bool:
    """Whether a pipe or a device is where a library opens a file: no time-out would end that."""
    try:
        mode = Path(file).stat().st_mode
    except (OSError, ValueError):  # the library reports it
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def check_file(file: str | None, key: str) -> None:
    """Check that the file of a key is none without an end.

    Raises:
        ConfigError: it is one.
    """
    if file is not None and is_endless(file):
        raise ConfigError(f"read {key} {file}: a pipe or a device", hint="Name a file that this user can read.")


class Access(NamedTuple):
    """How a database is reached."""

    url: sa.URL
    timeout: int
    """Longest run of a statement, in seconds."""
    option_file: str | None = None
    """A MySQL option file with user and password."""
    tls: Tls | None = None
    """None is verify-identity for a host that is not loopback, else off."""
    tls_ca: str | None = None
    """A file of certificates; None takes those of the system."""
    lag_query: str | None = None
    """Statement that returns how far a replica is behind, in seconds."""
    server_public_key: str | None = None
    """A file with the public key of a MySQL server, for passwords without TLS."""

    @property
    def kind(self) -> str:
        """Return mysql, mariadb, postgresql or sqlite."""
        return self.url.get_backend_name()

    @property
    def host(self) -> str | None:
        """Return the host of the URL, for PostgreSQL also a socket's directory; None without."""
        host = self.url.host or self.url.query.get("host")
        return host if host is None or isinstance(host, str) else host[0]

    @property
    def is_socket(self) -> bool:
        """Whether it is reached by a unix socket; libpq takes one if no host is named."""
        is_default = self.host is None and self.kind == "postgresql"
        return is_default or "unix_socket" in self.url.query or str(self.host).startswith("/")

    @property
    def verifies(self) -> Tls:
        """Return which facts about the server TLS verifies."""
        is_local = self.host is None or LOOPBACK.issuperset(self.host.split(","))  # PostgreSQL takes several
        return self.tls or ("off" if is_local or self.is_socket else "verify-identity")

    @property
    def answers_only(self) -> bool:
        """Whether passwords must not leave this machine: nothing verifies the server, and no operator allows it."""
        return self.tls is None and self.verifies == "off" and not self.is_socket

    def __str__(self) -> str:
        url = self.url
        if self.kind == "sqlite":
            return f"sqlite {url.database}"
        return f"{self.kind} {url.host or 'localhost'}{f':{url.port}' if url.port else ''}/{url.database}"
