"""PyMySQL, with limits for each answer.

This module must be the first that imports PyMySQL, which would load cryptography at once: 10 MB, which only a first
login by sha2 without TLS needs.
"""

import io
import ssl
import sys
from typing import Any

from typing_extensions import override

from shipper.source.limits import Meter, check_rows, check_size

sys.modules.setdefault("cryptography", None)  # type: ignore[arg-type] # an import of None fails
from pymysql import _auth as auth  # noqa: E402
from pymysql.connections import Connection  # noqa: E402
from pymysql.constants import CR, ER, FIELD_TYPE  # noqa: E402
from pymysql.converters import conversions  # noqa: E402
from pymysql.err import Error, OperationalError  # noqa: E402
from pymysql.optionfile import Parser  # noqa: E402
from pymysql.protocol import FieldDescriptorPacket  # noqa: E402

if sys.modules.get("cryptography") is None:
    del sys.modules["cryptography"]

__all__ = [
    "CR",
    "ER",
    "FIELD_TYPE",
    "Error",
    "MeteredConnection",
    "OperationalError",
    "Parser",
    "auth",
    "conversions",
]

_ERROR = b"\xff"
"""First byte of a packet with an error."""
_ERROR_BYTES = 4096
"""Length to which an error is cut; servers' own have 512 bytes at most."""
_BUFFER_BYTES = 65_536


class MeteredConnection(Connection):
    """A connection with limits for each answer, in place of PyMySQL's time-out for each read."""

    _reader: io.BufferedReader | None = None
    _sock: Any
    _bytes = _packets = _columns = 0

    def __init__(self, meter: Meter, **arguments: Any) -> None:
        """Connect, and log in."""
        self._meter = meter
        super().__init__(**arguments)

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
