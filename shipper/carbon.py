"""Edge. graphyte: lines to Carbon, and the only sign that Carbon has read them.

Carbon never acknowledges. But when we close our half of the connection it reads to the end, closes its own half
and we receive the end of the stream; a Carbon that is dead, hung or refusing does not. That is *confirmed*:
necessary, not sufficient, which is why totals are sent again before they count as proven.
"""

import socket
import struct

import graphyte

from shipper.errors import DeliveryFailed

KEEPALIVE_SECONDS = 60
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: close() resets, so that nothing of ours is still read


class Carbon(graphyte.Sender):  # type: ignore[misc] # graphyte ships no types
    """One Carbon's line port."""

    def __init__(self, host: str, port: int, *, timeout: float) -> None:
        """Connect nowhere yet. timeout bounds each step of a delivery, seconds."""
        super().__init__(host, port=port, timeout=timeout, raise_send_errors=True)
        self._witness: socket.socket | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def deliver(self, lines: bytes) -> None:
        """Send lines on one connection and return when Carbon has read them all.

        Raises:
            DeliveryFailed: Carbon did not confirm; some, all or none of the lines may have arrived.
        """
        try:
            # before the lines: it must be the process that confirms them, not one that has just replaced it
            if self._witness is None:
                self._witness = self._connect()
                # a host that vanished without a word ends it, too
                self._witness.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                self._witness.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
            self.send_socket(lines)
        except OSError as error:
            self._dismiss_witness()
            reason = "timed out" if isinstance(error, TimeoutError) else error.strerror or str(error)
            raise DeliveryFailed(
                f"deliver to {self}: {reason}",
                hint="Is carbon-cache up, and do [graphite] host and port name its line receiver?",
            ) from error

    def is_alive(self) -> bool:
        """Is the Carbon that confirmed the last batch still the same process?

        An idle connection is the witness: it ends when the process does.
        """
        if self._witness is None:
            return False
        try:
            self._witness.setblocking(False)
            ended = self._witness.recv(1) == b""
        except BlockingIOError:
            return True
        except OSError:
            ended = True
        if ended:
            self._dismiss_witness()
        return not ended

    def close(self) -> None:
        """Let the witness go."""
        self._dismiss_witness()

    def send_message(self, message: bytes) -> None:
        """Override graphyte's hook: send, close our half, and wait for Carbon to close its own."""
        connection = self._connect()
        try:
            connection.sendall(message)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(1)
        except BaseException:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            raise
        finally:
            connection.close()
        if answer:
            raise ConnectionError("it answered, so it is not a Carbon line receiver")

    def _connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), self.timeout)

    def _dismiss_witness(self) -> None:
        if self._witness is not None:
            self._witness.close()
            self._witness = None
