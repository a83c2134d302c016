"""The loop that shipper is compared with: count the rows above the largest id, send, remember the largest id."""

import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress

from fault.writers import Connection

POLL_SECONDS = 0.25
NEW = """
    SELECT CONCAT('naive.', action, '.count'), FLOOR(UNIX_TIMESTAMP(created_at)), COUNT(*), MAX(id)
    FROM audit_trail WHERE id > %s GROUP BY 1, 2"""


class Naive:
    """The loop, on a thread; it even sends totals, not increments."""

    def __init__(self, connect: Callable[[], Connection], port: int) -> None:
        """Start with an empty table."""
        self._connect, self._port = connect, port
        self.polls = 0
        self._largest = 0
        self._totals = Counter[tuple[str, int]]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def close(self) -> None:
        """Run the loop once more, and end."""
        self._stop.set()
        self._thread.join()
        self._poll()

    def _work(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._poll()

    def _poll(self) -> None:
        self.polls += 1
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute(NEW, (self._largest,))
            found = cursor.fetchall()
        for path, slot, rows, largest in found:
            self._totals[path, int(slot)] += rows
            self._largest = max(self._largest, largest)
        lines = "".join(f"{path} {self._totals[path, int(slot)]} {slot}\n" for path, slot, _, _ in found)
        # as graphyte does by default: datapoints that cannot be sent are dropped
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1) as carbon:
            carbon.sendall(lines.encode())
