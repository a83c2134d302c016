"""Output of commands: results on stdout, errors and remarks on stderr.

A stream that is closed, full or read by no process stops no command from its work.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import click

from shipper.core.errors import ShipperError, visible, visible_line


class Styled(str):
    """A text that is safe to print: the only control characters in it are ours."""

    __slots__ = ()


def styled(text: str, color: str) -> Styled:
    """Return a text in a color, on terminals."""
    return Styled(click.style(visible(text), fg=color))


def joined(parts: Iterable[str], separator: str = "") -> Styled:
    """Return one text; control characters become escapes, except in styled parts."""
    return Styled(separator.join(part if isinstance(part, Styled) else visible(part) for part in parts))


def say(*parts: str, err: bool = False, nl: bool = True) -> None:
    """Print one text of some parts, as `joined` does: names, values and errors come from anywhere."""
    click.echo(joined(parts), err=err, nl=nl)


def complain(error: ShipperError) -> None:
    """Print an error on one line, and its hint on another."""
    from shipper.log.logger import drain, is_journal

    drain()
    # systemd's journal reads the priority of a line from its beginning: sd-daemon(3)
    priority = "<3>" if is_journal() else ""
    for line in visible(f"error: {error}").splitlines():
        say(styled(f"{priority}{line}", "red"), err=True)
    if error.hint:
        say(f"{priority}  hint: {error.hint}", err=True)


def in_json(document: object) -> str:
    """Return a result as JSON."""
    return json.dumps(document, indent=2)


def show_json(document: object) -> None:
    """Print a result as JSON."""
    say(in_json(document))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Styled:
    """Return a result as a table; each cell is one line."""
    lines = [[one if isinstance(one, Styled) else visible_line(one) for one in row] for row in rows]
    lines = [list(headers), *lines] if headers else lines
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return Styled(
        "\n".join(
            "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
    )


def _width(cell: str) -> int:
    """Return how many characters of a cell a terminal shows."""
    return len(click.unstyle(cell)) if isinstance(cell, Styled) else len(cell)


def mark(*, is_good: bool) -> Styled:
    """Return the mark of a check: a green tick or a red cross."""
    return styled("✓", "green") if is_good else styled("✗", "red")


def format_place(value: int, *, is_along: bool) -> str:
    """Format an id; of a job along a time, the second of its column."""
    return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S}" if is_along else str(value)


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


def prepare_streams() -> None:
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
