"""Carbon, over graphyte: sends lines, and confirms that Carbon has read them.

Carbon never acknowledges. But when we close our half of the connection, it reads to the end and closes its half, and we
receive the end of the stream; a Carbon that is dead, hung or refusing does not. That is *confirmed*: necessary, not
sufficient, which is why totals are sent again before they count as proven.

Strategy: an idle connection, the *witness*, ends with the process that confirmed. Its end alone proves nothing, because
some receivers close idle connections. Therefore we connect again at once: a process that accepts is alive, and the
connection is the new witness; one that refuses, or accepts and drops the connection, is dead.

A process that does not confirm in time may still read what its kernel has received, hours later. Its witness is then
half-closed, and ends once the process continues or exits.
"""

import select
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import graphyte

from shipper.core.errors import BadMetric, DeliveryFailed
from shipper.core.measures import Value
from shipper.core.model import Datapoint
from shipper.core.paths import brief, check_path
from shipper.graphite.connection import connect

MAX_FLOAT = 17 * 10**307
MAX_INTEGER = 2**63  # larger ones would make long lines; Whisper stores doubles anyway
KEEPALIVE_SECONDS = 60
DROPPED_SECONDS = 0.5
"""Least life of a new witness, in seconds: a dying process, or a proxy without a Carbon, also accepts it."""
PAUSE_FIRST, PAUSE_MOST = 1.0, 60.0  # seconds between witnesses, if a receiver closes each of them at once
_NOT_THERE = "Check that carbon-cache runs, and that [graphite] names host and port of its line receiver."
_TIMED_OUT = "Check that carbon-cache is not overloaded, and that MAX_RECEIVER_CONNECTIONS in carbon.conf is inf."
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: close() resets, and the kernel sends nothing more of ours


def line(path: str, value: Value, slot: int) -> bytes:
    r"""Return one datapoint as `path value timestamp\n`, which Carbon cannot misread.

    Raises:
        BadMetric: Carbon would misread it.
    """
    check_path(path)
    if not -MAX_FLOAT < value < MAX_FLOAT:  # carbon would store infinity, which poisons every sum
        raise BadMetric(f"render {path}: value {brief(value)} is out of range")
    text = f"{value}" if isinstance(value, int) and -MAX_INTEGER < value < MAX_INTEGER else repr(float(value))
    if slot <= 0:  # carbon drops 0 and reads -1 as now
        raise BadMetric(f"render {path}: timestamp {slot} is out of range")
    return f"{path} {text} {slot}\n".encode("ascii")


@dataclass(slots=True)
class _Witness:
    """An idle connection to the process that confirmed."""

    connection: socket.socket
    opened_at: float
    predecessor_seconds: float | None
    """Life of the witness that this one replaces, in seconds; None if a delivery opened this one."""

    def has_ended(self) -> bool:
        """Whether the other side has closed it, or speaks on it: a line receiver never does."""
        try:
            self.connection.recv(1)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


class Carbon(graphyte.Sender):  # type: ignore[misc] # graphyte ships no types
    """Line receiver of one Carbon."""

    def __init__(self, host: str, port: int, *, timeout: float) -> None:
        """Connect nowhere yet; timeout bounds each step of a delivery, in seconds."""
        super().__init__(host, port=port, timeout=timeout, raise_send_errors=True)
        self._witness: _Witness | None = None
        self._ended_seconds = 0.0
        """Life of the last witness that has ended, in seconds."""
        self._renew_at: float | None = None
        """Time to connect again after a witness has ended; None if that is not needed."""
        self._pause = 0.0
        self._peer: tuple[str, int] | None = None
        """Address that the name of the host stood for: a name may stand for several machines, one of which confirms."""
        self._abandoned: _Witness | None = None
        """Witness of a process that did not confirm."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def deliver(self, datapoints: Iterable[Datapoint]) -> None:
        """Send datapoints on one connection and return when Carbon has read them all.

        Raises:
            DeliveryFailed: Carbon did not confirm; some, all or none of them may have arrived.
        """
        lines = b"".join(line(*datapoint) for datapoint in datapoints)
        try:
            # open the witness first: it must belong to the process that confirms, not to one that has just replaced it
            if self._witness is None:
                self._watch(None)
            self.send_socket(lines)
            self._forget_abandoned()  # the process reads in order
        except OSError as error:
            self._abandon()
            is_late = isinstance(error, TimeoutError)
            reason = "timed out" if is_late else error.strerror or str(error)
            raise DeliveryFailed(
                f"deliver to {self}: {reason}",
                hint=_TIMED_OUT if is_late else _NOT_THERE,
            ) from error

    def confirms_alone(self) -> bool:
        """Whether it confirms a connection that has no other beside it; a delivery has."""
        self.close()
        try:
            self.send_message(b"")
        except OSError:
            return False
        return True

    @property
    def watched(self) -> socket.socket | None:
        """Connection whose end is a reason to call `has_died`; None while there is none."""
        return None if self._witness is None else self._witness.connection

    def has_died(self) -> bool:
        """Whether the Carbon that confirmed is gone; once for each death.

        False without evidence. After the end of a witness this connects, for at most the time-out.
        """
        witness, now = self._witness, time.monotonic()
        if witness is not None:
            if not witness.has_ended():
                return False
            self._dismiss_witness()
            if self._was_dropped(witness, now):
                self._peer = None
                return True
        if self._renew_at is None or now < self._renew_at:
            return False
        try:
            self._watch(self._ended_seconds)
        except OSError:
            self._renew_at = self._peer = None
            return True
        return False

    def may_read_more(self) -> bool:
        """Whether a process that did not confirm is neither known to have exited nor to have continued since."""
        if self._abandoned is not None and self._abandoned.has_ended():
            self._forget_abandoned()
        return self._abandoned is not None

    def close(self) -> None:
        """Close the witness."""
        self._dismiss_witness()
        self._forget_abandoned()
        self._renew_at = self._peer = None

    def send_message(self, message: bytes) -> None:
        """Override graphyte's hook: send, close our half, and wait until Carbon closes its half."""
        connection = self._connect()
        try:
            connection.sendall(message)
            _require_silence(connection)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(1)
        except BaseException:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            raise
        finally:
            connection.close()
        if answer:
            raise ConnectionError("not a Carbon line receiver: it sent an answer")

    def _connect(self) -> socket.socket:
        connection = connect(*(self._peer or (self.host, self.port)), timeout=self.timeout)
        # what the kernel has not sent by then it drops, also after this process was killed: old values must not arrive
        # over newer ones when a network works again. It also ends a witness whose host has vanished
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(self.timeout * 1000)))
        if self._peer is None:
            numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
            try:
                host, port = socket.getnameinfo(connection.getpeername(), numeric)
            except OSError:  # it was reset at once
                connection.close()
                raise
            self._peer = host, int(port)
        return connection

    def _watch(self, predecessor_seconds: float | None) -> None:
        """Open a witness."""
        connection = self._connect()
        # keep-alive also ends it when the host vanishes silently
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
        connection.setblocking(False)
        self._witness = _Witness(connection, time.monotonic(), predecessor_seconds)
        self._renew_at = None

    def _was_dropped(self, witness: _Witness, now: float) -> bool:
        """Whether a dead Carbon had accepted the witness that has ended; if not, plan the next witness."""
        before, lasted = witness.predecessor_seconds, now - witness.opened_at
        self._ended_seconds = lasted
        # a receiver that closes idle connections this early would have closed the one before as early
        if before is not None and lasted < DROPPED_SECONDS and before >= 2 * DROPPED_SECONDS:
            return True
        is_short = before is not None and lasted < max(self._pause, PAUSE_FIRST)
        self._pause = self._pause if is_short else 0.0
        self._renew_at = witness.opened_at + self._pause
        if is_short:
            self._pause = min(max(2 * self._pause, PAUSE_FIRST), PAUSE_MOST)
        return False

    def _abandon(self) -> None:
        """Half-close the witness, and keep it until the process continues or exits."""
        witness, self._witness = self._witness, None
        self._renew_at = self._peer = None
        if witness is not None:
            with suppress(OSError):
                witness.connection.shutdown(socket.SHUT_WR)
            self._forget_abandoned()
            self._abandoned = witness

    def _forget_abandoned(self) -> None:
        if self._abandoned is not None:
            self._abandoned.connection.close()
            self._abandoned = None

    def _dismiss_witness(self) -> None:
        if self._witness is not None:
            self._witness.connection.close()
            self._witness = None


def _require_silence(connection: socket.socket) -> None:
    """Raise if the other side has sent anything, or closed its half: an end that does not follow ours is no answer."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if poll.poll(0):
        raise ConnectionError("not a Carbon line receiver: it answered, or closed the connection first")
