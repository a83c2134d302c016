"""psycopg, with limits for each answer.

libpq has no time-out for answers, and keeps all that a server sends in memory. But psycopg waits for the socket itself,
and asks a generator after each wait: it can end there. The kernel counts the bytes of a TCP connection.
"""

import socket
import struct
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from typing_extensions import override

from shipper.source.limits import Meter, check_size

_Result = TypeVar("_Result")
_RECEIVED = struct.Struct("=128xQ")
"""tcpi_bytes_received in the tcp_info of linux/tcp.h."""


TURN_SECONDS = 0.1
"""Interval of the checks while nothing arrives; psycopg's own default."""

FEW_WAITS = 8
"""Waits in which hardly anything can arrive: libpq reads into a small buffer, and at most doubles it."""


class MeteredConnection(psycopg.Connection[Any]):
    """A connection with limits for each answer."""

    meter: Meter | None = None

    @classmethod
    def _connect_gen(cls, *arguments: Any, **named: Any) -> Any:
        connecting = super()._connect_gen(*arguments, **named)
        return (yield from _checked(connecting, lambda wanted: check_size(_received(wanted[0]))))

    @override
    def wait(self, gen: PQGen[_Result], interval: float = TURN_SECONDS, timeout: float | None = None) -> _Result:
        if self.meter is None:
            return super().wait(gen, interval, timeout)
        self.meter.begin()
        try:
            return super().wait(_checked(gen, _Check(self.meter, self.pgconn)), interval, timeout)
        finally:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()  # it waits for what we never send, the rows of a COPY


class _Check:
    """The check of one answer."""

    def __init__(self, meter: Meter, connection: PGconn) -> None:
        self._meter, self._connection = meter, connection
        self._waits = self._before = 0

    def __call__(self, _: object) -> None:
        self._waits += 1
        try:
            self._meter.seconds_left()
            # to ask the kernel takes as long as a small answer, which ends before
            if self._waits == FEW_WAITS:
                self._before = _received(self._connection.socket)
            elif self._waits > FEW_WAITS:
                check_size(_received(self._connection.socket) - self._before)
        except Exception:
            self._connection.finish()  # the rest of the answer would be that of the next statement
            raise


def _checked(generator: Generator[Any, Any, _Result], check: Callable[[Any], None]) -> Generator[Any, Any, _Result]:
    """Run a generator of psycopg, with a check after each wait; it gets what the generator waits for."""
    try:
        wanted = next(generator)
        while True:
            ready = yield wanted
            check(wanted)
            wanted = generator.send(ready)
    except StopIteration as end:
        value: _Result = end.value
        return value


def _received(file: int) -> int:
    """Return how many bytes a connection has received; 0 for a unix socket, which does not know it."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=file)
    try:
        with suppress(OSError):
            return int(_RECEIVED.unpack(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size))[0])
        return 0
    finally:
        connection.detach()
