"""PyMySQL, with limits for each answer, and logins that give no password away.

Strategy: unless TLS verifies the server, or the operator has switched TLS off, only answers to challenges leave this
machine. A server that asks for the password in clear, or encrypted with a key that it has just sent, may be any
program.

This module must be the first that imports PyMySQL, which would load cryptography at once: 10 MB, which only a first
login by sha2 without TLS needs.
"""

import importlib
import io
import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from typing_extensions import override

from shipper.core.errors import ConfigError
from shipper.source.access import Access, check_file
from shipper.source.limits import AnswerTooLate, Meter, check_rows, check_size

sys.modules.setdefault("cryptography", None)  # type: ignore[arg-type] # an import of None fails
from pymysql import _auth as auth  # noqa: E402
from pymysql.connections import Connection, MySQLResult  # noqa: E402
from pymysql.constants import CR, ER, FIELD_TYPE  # noqa: E402
from pymysql.converters import conversions  # noqa: E402
from pymysql.err import Error, OperationalError  # noqa: E402
from pymysql.optionfile import Parser  # noqa: E402
from pymysql.protocol import FieldDescriptorPacket  # noqa: E402

if sys.modules.get("cryptography") is None:
    del sys.modules["cryptography"]

__all__ = ["CR", "ER", "FIELD_TYPE", "Error", "conversions"]

_CHALLENGES = (b"mysql_native_password", b"caching_sha2_password", b"sha256_password", b"client_ed25519")
"""Plugins that answer a challenge, or encrypt the password with a key."""
_ERROR = b"\xff"
"""First byte of a packet with an error."""
_ERROR_BYTES = 4096
"""Length to which an error is cut; servers' own have 512 bytes at most."""
_BUFFER_BYTES = 65_536
_NULL = 251
"""Length of a value that is NULL; smaller ones are lengths, behind larger ones a length follows."""
_NO_ROW = 254
"""First byte from which on a packet is an error, the end, or a row that begins with a very long value."""


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
    check_file(access.server_public_key, "server_public_key")
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


class MeteredConnection(Connection):
    """A connection with limits for each answer, in place of PyMySQL's time-out for each read."""

    _reader: io.BufferedReader | None = None
    _sock: Any
    _result: Any
    _next_seq_id: int
    _bytes = _packets = _columns = 0

    def __init__(self, meter: Meter, **arguments: Any) -> None:
        """Connect, and log in."""
        self._meter = meter
        self._socket = arguments.get("unix_socket")
        super().__init__(**arguments)

    @property
    def unix_socket(self) -> Any:
        """The socket of the arguments: PyMySQL prefers that of the option file even to a host."""
        return self._socket

    @unix_socket.setter
    def unix_socket(self, _: Any) -> None:
        pass

    @property
    def _rfile(self) -> io.BufferedReader | None:
        return self._reader

    @_rfile.setter
    def _rfile(self, file: Any) -> None:  # PyMySQL sets it for a new socket, and again for TLS
        self._reader = None
        if file is not None:
            self._reader = io.BufferedReader(_Timely(self._sock, file.detach(), self._meter), _BUFFER_BYTES)

    @override
    def character_set_name(self) -> None:
        """Give SQLAlchemy no name: its SET NAMES would undo the session's collation."""

    def _create_ssl_ctx(self, options: Any) -> ssl.SSLContext:
        """Load no authorities for TLS that verifies nothing: they take 20 ms and a megabyte of each connection."""
        if options:
            verifying: ssl.SSLContext = super()._create_ssl_ctx(options)  # type: ignore[misc]
            return verifying
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def _execute_command(self, command: int, sql: str | bytes) -> None:
        self._meter.begin()
        self._bytes = self._packets = self._columns = 0
        self._current_timeout = None  # PyMySQL's memory of the socket's, which _Timely has changed
        super()._execute_command(command, sql)  # type: ignore[misc] # the stubs know only what is public

    def _read_packet(self, *kind: Any) -> Any:
        is_column = bool(kind) and kind[0] is FieldDescriptorPacket
        self._columns += is_column
        self._packets += not is_column
        check_rows(self._packets, self._columns)
        return super()._read_packet(*kind)  # type: ignore[no-untyped-call]

    def _read_bytes(self, size: int) -> bytes:
        self._bytes += size
        check_size(self._bytes)
        data: bytes = super()._read_bytes(size)  # type: ignore[misc]
        return data if data[:1] != _ERROR else data[:_ERROR_BYTES]

    def _read_query_result(self, **_: Any) -> Any:
        result = _Result(self)
        self._result = None
        result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return result.affected_rows

    def take_rows(self, converters: Sequence[tuple[Any, Any]]) -> list[tuple[Any, ...]]:
        """Take the rows that have arrived, up to a packet that is none, or has a long value: PyMySQL reads that."""
        rows: list[tuple[Any, ...]] = []
        data, begin, number = b"", 0, self._next_seq_id
        assert self._reader is not None
        with suppress(OSError, AnswerTooLate):  # PyMySQL reads next, and gets the same
            data = self._reader.peek()
        while len(data) > begin + 4 and data[begin + 3] == number and data[begin + 4] < _NO_ROW:
            end = begin + 4 + int.from_bytes(data[begin : begin + 3], "little")
            row = _row(data, begin + 4, end, converters) if end <= len(data) else None
            if row is None:
                break
            rows.append(row)
            begin, number = end, (number + 1) % 256
        # as if PyMySQL had read them
        self._reader.read(begin)
        self._next_seq_id = number
        self._bytes += begin
        self._packets += len(rows)
        check_size(self._bytes)
        check_rows(self._packets, self._columns)
        return rows


class _Result(MySQLResult):
    """An answer whose rows are read in few steps: PyMySQL needs three times as long."""

    connection: Any
    converters: Any

    def _read_rowdata_packet(self) -> None:
        rows: list[tuple[Any, ...]] = []
        while True:
            rows += self.connection.take_rows(self.converters)
            packet = self.connection._read_packet()  # noqa: SLF001 - as PyMySQL does
            if self._check_packet_is_eof(packet):  # type: ignore[attr-defined] # the stubs know only what is public
                break
            rows.append(self._read_row_from_packet(packet))  # type: ignore[attr-defined] # likewise
        self.connection = None  # a cycle
        self.affected_rows, self.rows = len(rows), tuple(rows)


def _row(data: bytes, at: int, end: int, converters: Sequence[tuple[Any, Any]]) -> tuple[Any, ...] | None:
    """Return the row of a packet; None if it has a long value, or is not what it should be."""
    row: list[Any] = []
    for encoding, converter in converters:
        length = data[at] if at < end else _NO_ROW
        begin, at = at + 1, at + 1 + length
        if length == _NULL:
            row.append(None)
            at = begin
        elif length > _NULL or at > end:
            return None
        else:
            value: Any = data[begin:at]
            if encoding is not None:
                value = value.decode(encoding)
            row.append(value if converter is None else converter(value))
    return tuple(row) if at == end else None


class _Timely(io.RawIOBase):
    """Reader of a socket, up to the time of the meter."""

    def __init__(self, sock: Any, raw: io.RawIOBase, meter: Meter) -> None:
        self._sock, self._raw, self._meter = sock, raw, meter

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._meter.seconds_left())
        try:
            return self._raw.readinto(buffer)
        except TimeoutError:
            self._meter.seconds_left()  # raises
            raise

    @override
    def close(self) -> None:
        self._raw.close()
        super().close()


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
    return OperationalError(CR.CR_AUTH_PLUGIN_ERR, "the login would send the password to a server that is not verified")
