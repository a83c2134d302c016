"""Logins to MySQL and MariaDB.

Strategy: unless TLS verifies the server, or the operator has switched TLS off, only answers to challenges leave this
machine. A server that asks for the password in clear, or encrypted with a key that it has just sent, may be any
program.
"""

import importlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from shipper.core.errors import ConfigError
from shipper.source.access import Access
from shipper.source.dialects.mysql_driver import CR, MeteredConnection, OperationalError, Parser, auth
from shipper.source.limits import Meter

_CHALLENGES = (b"mysql_native_password", b"caching_sha2_password", b"sha256_password", b"client_ed25519")
"""Plugins that answer a challenge, or encrypt the password with a key."""


def connect(access: Access, arguments: Mapping[str, Any], meter: Meter) -> Any:
    """Open a connection; a login that needs the package cryptography loads it."""
    kind = _Challenged if access.answers_only else MeteredConnection
    try:
        return kind(meter, **arguments)
    except RuntimeError as error:
        if "cryptography" not in str(error) or "cryptography" in sys.modules:
            raise
        importlib.import_module("cryptography")
        importlib.reload(auth)
        return kind(meter, **arguments)


def public_key(access: Access) -> bytes | None:
    """Return the server's public key, None without `server_public_key`.

    Raises:
        ConfigError: the file cannot be read, or is none.
    """
    if access.server_public_key is None:
        return None
    try:
        key = Path(access.server_public_key).read_bytes()
    except OSError as error:
        reason = error.strerror
    else:
        if b"-----BEGIN PUBLIC KEY-----" in key:
            return key
        reason = "not a public key"
    hint = "Copy the server's public_key.pem there; this user must be able to read it."
    raise ConfigError(f"read server_public_key {access.server_public_key}: {reason}", hint=hint)


def option(access: Access, name: str) -> str | None:
    """Return an option of [client] in the option file, None where it is not set, or has no value."""
    options = Parser()
    if access.option_file:
        options.read(access.option_file, encoding="utf-8")
    value: str | None = None
    if options.has_option("client", name):
        with suppress(TypeError):  # PyMySQL's parser takes any value for a text
            value = options.get("client", name)
    return value


class _Challenged(MeteredConnection):
    """A connection that answers challenges only."""

    def __init__(self, meter: Meter, **arguments: Any) -> None:
        arguments["server_public_key"] = arguments.get("server_public_key") or _Withheld()
        super().__init__(meter, **arguments)

    @property
    def _secure(self) -> bool:
        """Whether a password in clear may be sent: not by TLS that verifies nothing."""
        return bool(self.unix_socket)

    @_secure.setter
    def _secure(self, _: bool) -> None:  # PyMySQL sets it for every TLS
        pass

    def _get_server_information(self) -> None:
        super()._get_server_information()  # type: ignore[misc] # the stubs know only what is public
        # the first answer goes to the plugin that the server prefers: sha256_password would send the password
        plugin: str = self._auth_plugin_name  # type: ignore[has-type]
        self._auth_plugin_name = plugin if plugin == "caching_sha2_password" else "mysql_native_password"

    def _process_auth(self, plugin_name: bytes, *rest: Any) -> Any:
        if plugin_name not in _CHALLENGES and not self._secure:
            raise _refusal()
        return super()._process_auth(plugin_name, *rest)  # type: ignore[misc]


class _Withheld:
    """A public key that is not known: PyMySQL asks whether it is set before it asks the server for one."""

    def __bool__(self) -> bool:
        raise _refusal()


def _refusal() -> OperationalError:
    return OperationalError(CR.CR_AUTH_PLUGIN_ERR, "the server asks for the password itself, and is not verified")
