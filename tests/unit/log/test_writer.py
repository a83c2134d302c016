"""The log behind a pipe that is full, or a file that cannot be written."""

import fcntl
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest
from harness import wait_for

from shipper.log import writer
from shipper.log.writer import LogWriter

PIPE_BYTES = 4096
LINE = "x" * 999 + "\n"


class Pipe:
    """A writer to a small pipe that is read when a test says so."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.dropped: list[int] = []
        self.writer = LogWriter(self.write_end, dropped=self.dropped.append)

    def read(self, size: int) -> str:
        """Read a number of bytes."""
        text = b""
        while len(text) < size:
            text += os.read(self.read_end, size - len(text))
        return text.decode()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    """Give a pipe that is not read yet, with a small buffer before it."""
    monkeypatch.setattr(writer, "MOST_BYTES", 20_000)
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(writer, "LAST_SECONDS", 0.2)
    pipe = Pipe()
    yield pipe
    os.close(pipe.read_end)


@pytest.mark.parametrize("is_blocking", [True, False])
def test_full_pipe(pipe: Pipe, is_blocking: bool) -> None:  # noqa: FBT001 - a table's column
    """Writing never waits; all lines that fit come in order and whole, and the number of the others is reported.

    Mutant: write at once; forget a line of which a part was written.
    """
    os.set_blocking(pipe.write_end, is_blocking)
    for number in range(100):
        pipe.writer.write(f"{number:03}{LINE}")
    pipe.writer.drain()
    assert pipe.dropped == []

    kept = 100 - pipe.writer._dropped
    assert 19 <= kept <= 25
    lines = pipe.read(kept * 1003).splitlines(keepends=True)
    assert lines == sorted(set(lines))
    assert {line[3:] for line in lines} == {LINE}
    wait_for(lambda: pipe.dropped == [100 - kept], "the number of dropped lines")
    pipe.writer.write("new\n")
    assert pipe.read(4) == "new\n"


def test_full_disk(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a process does not wait for a full disk; lines are written when there is room again.

    Mutant: drop a line that cannot be written.
    """
    is_full = threading.Event()
    is_full.set()
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if is_full.is_set():
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:3])

    monkeypatch.setattr("shipper.log.writer.os.write", write)
    pipe.writer.write("first\n")
    pipe.writer.write("second\udcff\n")
    wait_for(lambda: pipe.writer._is_failing, "the failure")
    monkeypatch.setattr(writer, "LAST_SECONDS", 600.0)
    pipe.writer.drain()

    is_full.clear()
    assert pipe.read(19) == "first\nsecond\\udcff\n"


def test_reader_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines wait for another reader, are written to it in order, and it may go, too.

    Mutants: never call reopen; drop the line that found no reader.
    """
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.01)
    first, end = socket.socketpair()
    readers: list[socket.socket] = []

    def reopen() -> None:
        if not readers:
            raise ConnectionRefusedError
        other, new_end = socket.socketpair()
        readers.append(other)
        with new_end:
            os.dup2(new_end.fileno(), end.fileno())

    log = LogWriter(end.fileno(), dropped=lambda _: None, reopen=reopen)
    with end:
        for line in ("first\n", "second\n"):
            first.close()
            log.write(line)
            wait_for(lambda: log._is_failing, "the failure")
            log.write("more\n")
            readers.append(first)  # now one can be opened
            wait_for(lambda: not log._lines, "all lines")
            first = readers[-1]
            assert first.recv(100) == f"{line}more\n".encode()
            readers.clear()
        first.close()


def test_thread(pipe: Pipe) -> None:
    """A thread that has died is replaced by the next line; signals are the main thread's. Mutant: start it once."""
    dead = threading.Thread()
    pipe.writer._thread = dead
    pipe.writer.write("first\n")
    assert pipe.read(6) == "first\n"

    assert pipe.writer._thread is not dead
    with open(f"/proc/self/task/{pipe.writer._thread.native_id}/status", encoding="ascii") as status:  # noqa: PTH123
        blocked = next(int(line.split()[1], 16) for line in status if line.startswith("SigBlk"))
    assert blocked & 1 << (signal.SIGTERM - 1)
