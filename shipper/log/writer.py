"""The log's way to stderr: a full disk, a reader that hangs or one that has gone never delays what logs.

Strategy: a separate thread writes. Lines that cannot be written wait in a buffer and are tried again, also the rest of
a line that was written in part. While the buffer is full, lines are dropped and counted, and their number is reported
once lines can be written again. A journal that was stopped never reads from its old connection again: the thread opens
a new one.
"""

import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

MOST_BYTES = 1_000_000  # an hour of errors at all endpoints
RETRY_SECONDS = 1.0
LAST_SECONDS = 2.0  # for the last lines of a process


class LogWriter:
    """A text stream to a file descriptor whose methods never wait and never raise."""

    def __init__(
        self, descriptor: int, *, dropped: Callable[[int], None], reopen: Callable[[], None] | None = None
    ) -> None:
        """Call dropped with the number of lines that were dropped, once lines can be written again.

        Call reopen when the reader has gone: it may put another file behind the descriptor, or raise OSError.
        """
        self._descriptor = descriptor
        self._report_dropped, self._reopen = dropped, reopen
        self._lines: deque[bytes] = deque()
        self._size = self._dropped = 0
        self._changed = threading.Condition()
        self._is_failing = False
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        """Take a text, complete lines, to be written soon."""
        line = text.encode(errors="backslashreplace")
        with self._changed:
            if self._size + len(line) > MOST_BYTES:
                self._dropped += 1
            else:
                self._lines.append(line)
                self._size += len(line)
            self._changed.notify_all()
            if self._thread is None or not self._thread.is_alive():
                self._start()
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes each line at once."""

    def drain(self) -> None:
        """Wait until all lines are written, but not for what cannot be written now."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines or self._is_failing, LAST_SECONDS)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="log", daemon=True)
        # the main thread alone gets signals; a thread inherits what is blocked
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        try:
            thread.start()
        except RuntimeError:  # the limit of threads is reached: the next line tries again
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines[0]
            rest = self._put(line)
            with self._changed:
                self._is_failing = bool(rest)
                self._size -= len(line) - len(rest)
                if rest:
                    self._lines[0] = rest
                else:
                    self._lines.popleft()
                self._changed.notify_all()
                dropped = 0 if rest or self._size > MOST_BYTES // 2 else self._dropped
                self._dropped -= dropped
            if dropped:
                self._report_dropped(dropped)
            if rest:
                time.sleep(RETRY_SECONDS)

    def _put(self, line: bytes) -> bytes:
        """Write a line, and return the rest of it that could not be written."""
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:  # another process has made the pipe non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                if not poll.poll(1000 * RETRY_SECONDS):
                    break
            except OSError as error:
                if isinstance(error, BrokenPipeError) and self._reopen is not None:
                    with suppress(OSError):
                        self._reopen()
                break
        return line
