"""psycopg, with limits for each answer.

libpq has no time-out for answers, keeps all that a server sends in memory, and reads on as long as the sender is quick.
Therefore it reads from a pipe: while psycopg waits, a pump moves to the server what libpq has written, and to libpq one
block of the answer at a time. The pump is outside of TLS.
"""

import logging
import os
import re
import select
import socket
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen, PQGenConn
from psycopg.pq import DiagnosticField, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.waiting import READY_NONE, READY_R, READY_W, WAIT_R, WAIT_RW, WAIT_W, Wait
from typing_extensions import override

from shipper.source.limits import MOST_BYTES, AnswerTooLarge, Meter, check_rows, check_size

_Result = TypeVar("_Result")

logging.getLogger("psycopg").addHandler(logging.NullHandler())  # else a server's words go to the terminal as they are

TURN_SECONDS = 0.1
"""Interval of the checks while nothing arrives; psycopg's own default."""
CANCEL_SECONDS = 5
MOST_ERROR_BYTES = 4096
"""Length to which the texts of a longer error are cut."""
BLOCK_BYTES = 2**16
LARGE_BYTES = 2**20
MOST_MESSAGES = 1000
"""Maximum number of messages in an answer that are no rows; usual ones have five."""
MOST_TEXT_BYTES = 2**20
"""Maximum size of an error or notice: libpq and psycopg keep several copies."""
HEADER_BYTES = 7
"""Length of a message's beginning: its kind, its length, and the number of columns in a description of rows."""
ROWS, ROW_DESCRIPTION, TEXTS = b"Dd", ord("T"), b"EN"
"""Kinds of messages; rows are those of a query, or of COPY."""
MOST_LOGIN_BYTES = 2**20
"""Maximum size of all that a server sends up to the end of a login."""
MOST_ITERATIONS = 1_000_000
"""Maximum number of iterations of SCRAM: a second in libpq, which nothing interrupts; PostgreSQL's default is 4,096."""
_CHALLENGE = re.compile(rb"\0\0\0\x0br=[^,]*,s=[^,]*,i=\s*\+?([0-9]+)")
"""AuthenticationSASLContinue with the server's first message, as libpq reads it: fe-auth-scram.c."""
_CHALLENGE_BYTES = 2000
"""Maximum size of a message about the login: fe-connect.c."""


class MeteredConnection(psycopg.Connection[Any]):
    """A connection with limits for each answer."""

    meter: Meter
    may_copy = False
    """Whether statements may be COPY, which leaves a connection active between its rows."""
    most_bytes = MOST_BYTES
    _pump: "_Pump"

    @classmethod
    def _connect_gen(cls, *arguments: Any, **named: Any) -> Any:
        connection, pump = yield from _connected(super()._connect_gen(*arguments, **named))
        connection._pump = pump  # noqa: SLF001 - of this class
        pump.is_clear = not connection.pgconn.ssl_in_use
        connection.cursor_factory = _Cursor
        return connection

    @override
    def wait(self, gen: PQGen[_Result], interval: float = TURN_SECONDS, timeout: float | None = None) -> _Result:
        self._pump.begin(self.meter, self.most_bytes)
        is_complete = False
        try:
            result = waiting.wait(_pumped(gen, self._pump), self._pump.server.fileno(), interval, timeout)
            is_complete = self.may_copy
        except KeyboardInterrupt:
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_SECONDS)
            raise
        finally:
            # the rest of the answer would be that of the next statement; COPY waits for rows, which we never send
            if not is_complete and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
        return result

    @override
    def add_notice_handler(self, callback: Any) -> None:
        """Drop handlers of notices: SQLAlchemy would copy their texts, with four bytes a character, for its log."""

    @override
    def close(self) -> None:
        super().close()
        self._pump.close()


class _Cursor(psycopg.Cursor[Any]):
    """A cursor whose errors have no long texts: psycopg and SQLAlchemy copy them, with four bytes a character."""

    @override
    def _raise_for_result(self, result: Any) -> NoReturn:
        super()._raise_for_result(_Cut(result))  # type: ignore[arg-type] # all that it reads


class _Cut:
    """The beginnings of an error's texts; a server may quote a value of any length."""

    def __init__(self, result: PGresult) -> None:
        self.status = result.status
        self._result = result

    def error_field(self, field: int) -> bytes | None:
        """Return a field."""
        value = self._result.error_field(field)
        return value and value[:MOST_ERROR_BYTES]

    def get_error_message(self, encoding: str) -> str:
        """Return the message; a long one without its context."""
        if len(self._result.error_message) <= MOST_ERROR_BYTES:
            return self._result.get_error_message(encoding)
        return (self.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode(encoding, "replace")


class _Pump:
    """The way of the bytes between a server and libpq.

    libpq knows a socket by its number. Once that has connected, the number becomes that of one end of a pair of
    sockets, whose other end is ours.
    """

    def __init__(self, number: int) -> None:
        self.server = socket.socket(fileno=os.dup(number))
        self.server.setblocking(False)
        self._number, self._inode = number, os.fstat(number).st_ino
        self._end: socket.socket | None = None
        self._libpq = select.poll()
        self._libpq.register(self.server, select.POLLOUT)
        self._unsent = self._undelivered = b""
        self._meter: Meter | None = None
        self._received, self._most = 0, MOST_LOGIN_BYTES
        self._messages = _Messages()
        self._login = b""
        """The newest bytes of a login."""
        self.is_clear = True
        """Whether messages can be seen."""

    def begin(self, meter: Meter, most: int) -> None:
        """Measure a new answer, of that size at most."""
        meter.begin()
        self._meter = meter
        self._received, self._most = 0, most
        self._messages.begin()

    def serves(self, number: int) -> bool:
        """Return whether libpq has no other socket: it may open a second one for a login without encryption."""
        return number == self._number and os.fstat(number).st_ino == self._inode

    def ready(self, wanted: int) -> int:
        """Send what libpq has written; return whether it can read or write now, as it wants."""
        if self._end is None and wanted == WAIT_W:  # it is connecting
            return READY_W if self._libpq.poll(0) else READY_NONE
        end = self._end = self._end or self._insert()
        self._send(end)
        if wanted & WAIT_W and not self._unsent:
            return READY_W
        if self._undelivered:
            self._undelivered = _write(end, self._undelivered)
        return READY_R if self._libpq.poll(0) else READY_NONE

    @property
    def awaited(self) -> Wait:
        """Return what to wait for at the server's socket."""
        if self._end is None:
            return WAIT_W
        return WAIT_RW if self._unsent else WAIT_R

    def receive(self, ready: int) -> int:
        """Move a block of the answer to libpq, which has read all before; return whether it can read.

        Raises:
            AnswerTooLate: there was no complete answer in time.
            AnswerTooLarge: it has too many bytes, or messages.
            OperationalError: it ends within a large answer, of which psycopg's own error would repeat the texts; or the
                login would take long.
        """
        if self._meter is not None:
            self._meter.seconds_left()
        block = _read(self.server) if self._end is not None and ready & READY_R else None
        if self._end is None or block is None:
            return READY_NONE
        self._received += len(block)
        check_size(self._received, self._most)
        if self._meter is None:
            self._check_login(block)
        if self.is_clear:
            self._messages.count(block)
        if block:
            self._undelivered = _write(self._end, block)
        elif self._received > LARGE_BYTES:
            raise psycopg.OperationalError("the server closed the connection within an answer")
        else:
            self._end.shutdown(socket.SHUT_WR)
        return READY_R

    def _check_login(self, block: bytes) -> None:
        """Reject a login that keeps this process busy; within TLS there is none to see, but the server is known."""
        self._login = self._login[-_CHALLENGE_BYTES:] + block
        if any(int(number[:_CHALLENGE_BYTES]) > MOST_ITERATIONS for number in _CHALLENGE.findall(self._login)):
            raise psycopg.OperationalError(f"the login needs more than {MOST_ITERATIONS} iterations of SCRAM")

    def close(self) -> None:
        """Send what libpq has written last, and close the server's socket."""
        if self._end is not None:
            self._send(self._end)
            self._end.close()
        self.server.close()

    def _insert(self) -> socket.socket:
        """Give libpq one end of a pair of sockets; return the other."""
        ours, other = socket.socketpair()
        ours.setblocking(False)
        with other:
            other.setblocking(False)
            os.dup2(other.fileno(), self._number, inheritable=False)
        self._inode = os.fstat(self._number).st_ino
        self._libpq.unregister(self.server)
        self._libpq.register(self._number, select.POLLIN)
        return ours

    def _send(self, end: socket.socket) -> None:
        if self._unsent:
            self._unsent = _write(self.server, self._unsent)
        while not self._unsent and (data := _read(end)):
            self._unsent = _write(self.server, data)
            if len(data) < BLOCK_BYTES:  # there was no more
                return


class _Messages:
    """The number of messages of an answer: libpq keeps 40 bytes a row and 16 a value more than it receives.

    Other messages take up to 2 kB each.
    Within TLS there are none to see, but there the server is known, unless the operator has chosen otherwise.
    """

    def __init__(self) -> None:
        self._rows = self._others = 0
        self._columns = 1
        self._header = b""
        self._ahead = 0
        """Number of bytes before the next header."""

    def begin(self) -> None:
        """Count those of a new answer."""
        self._rows = self._others = 0

    def count(self, block: bytes) -> None:
        """Count the messages that begin in a block; a short one at its end is counted with the next.

        Raises:
            AnswerTooLarge: there are too many, or one is too large.
        """
        data, here = self._header + block, self._ahead
        while here + HEADER_BYTES <= len(data):
            kind, length = data[here], int.from_bytes(data[here + 1 : here + 5], "big")
            if kind in ROWS:
                self._rows += 1
            else:
                self._others += 1
            if kind == ROW_DESCRIPTION:
                self._columns = int.from_bytes(data[here + 5 : here + HEADER_BYTES], "big")
            elif kind in TEXTS:
                check_size(length, MOST_TEXT_BYTES)
            here += 1 + max(4, length)
        self._header, self._ahead = data[here:], max(0, here - len(data))
        check_rows(self._rows, self._columns)
        if self._others > MOST_MESSAGES:
            raise AnswerTooLarge(f"the answer has more than {MOST_MESSAGES} messages beside its rows")


def _read(source: socket.socket) -> bytes | None:
    """Return a block; None if nothing has arrived, and no bytes at the end."""
    try:
        return source.recv(BLOCK_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _write(target: socket.socket, data: bytes) -> bytes:
    """Return what the target does not take now; it may be closed, and what it said before tells why."""
    try:
        return data[target.send(data) :]
    except BlockingIOError:
        return data
    except OSError:
        return b""


def _pumped(generator: PQGen[_Result], pump: _Pump) -> PQGen[_Result]:
    """Run a generator of psycopg; yield what to wait for at the server's socket."""
    try:
        wanted = next(generator)
        while True:
            ready = pump.ready(wanted)
            while not ready:
                ready = pump.receive((yield pump.awaited)) or pump.ready(wanted)
            wanted = generator.send(ready)
    except StopIteration as end:
        result: _Result = end.value
        return result


def _connected(generator: PQGenConn[_Result]) -> PQGenConn[tuple[_Result, _Pump]]:
    """Run a generator of psycopg that connects; return its connection and the pump."""
    pump: _Pump | None = None
    try:
        number, wanted = next(generator)
        while True:
            if pump is None or not pump.serves(number):
                before, pump = pump, _Pump(number)
                if before is not None:
                    before.close()  # not earlier: psycopg's selector takes an equal number for the same socket
            ready = pump.ready(wanted)
            while not ready:
                ready = pump.receive((yield pump.server.fileno(), pump.awaited)) or pump.ready(wanted)
            number, wanted = generator.send(ready)
    except StopIteration as end:
        assert pump is not None
        return end.value, pump
    except BaseException:
        if pump is not None:
            pump.close()
        raise
