"""Standard streams that are closed, full or read by no process: they stop no command from its work."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO, cast

from shipper.core.errors import ShipperError


class _Stream:
    """A standard stream, with another behaviour when it cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        if text != "":  # click's test of a stream
            self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write the rest."""
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, call: Callable[[], object]) -> None:
        """Drop what cannot be written: remarks must not end a command."""
        with suppress(OSError):
            call()


class _Results(_Stream):
    def _attempt(self, call: Callable[[], object]) -> None:
        """Report an error, once; click exits quietly if the reader wants no more."""
        try:
            call()
        except BrokenPipeError:
            raise
        except OSError as error:
            # at its end the interpreter would try again, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            hint = "Make room where the output goes, then run the command again."
            raise ShipperError(f"write results: {error.strerror}", hint=hint) from error


def prepare() -> None:
    """Open closed streams to nothing; drop remarks that cannot be written, and report results that cannot."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else a database could get this number, and the messages of libraries
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    if not isinstance(sys.stderr, _Stream):
        sys.stdout = cast("TextIO", _Results(sys.stdout or _nothing()))
        sys.stderr = cast("TextIO", _Stream(sys.stderr or _nothing()))


def _nothing() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - until the end of the process
