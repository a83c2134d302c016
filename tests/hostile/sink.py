"""A Carbon that keeps what it reads, for sums of any number of series."""

import socket
import threading

from hostile.rogue import BLOCK, Rogue


class Sink:
    """A Carbon that keeps what it reads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._text = bytearray()
        self._rogue = Rogue(self._read)
        self.port, self.close = self._rogue.port, self._rogue.close

    def _read(self, client: socket.socket) -> None:
        while data := client.recv(BLOCK):
            with self._mutex:
                self._text += data

    def sums(self) -> dict[str, int]:
        """Return the sum of the newest values of each path's slots, without shipper's own series."""
        newest = {
            (path, slot): int(value)
            for path, value, slot in (line.split() for line in self._text.decode().split("\n")[:-1])
            if not path.startswith("audit.shipper.")
        }
        sums: dict[str, int] = {}
        for (path, _), value in newest.items():
            sums[path] = sums.get(path, 0) + value
        return sums
