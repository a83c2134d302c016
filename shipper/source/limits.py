"""Limits of answers: a database may be a hostile program, or hang in the middle of a row.

Drivers limit the time of one read, which a byte a second never reaches, and limit no size. Therefore each connection
has a meter, which limits the time of an answer as a whole; its size, its columns and its numbers are checked, too.
"""

import time
from typing import Any

from shipper.core.paths import brief

MOST_BYTES = 16 * 2**20
"""Maximum size of an answer."""
MOST_ROWS = 2**17
"""Maximum number of rows in an answer."""
MOST_VALUES = 2**19
"""Maximum number of rows times columns: Python needs 100 bytes for a value that arrives as three."""
MOST_COUNT = 10**12
"""Maximum number of rows of one group in a window."""
MOST_COLUMNS = 4096
"""Maximum number of columns, as in MySQL; PostgreSQL has fewer."""


class AnswerTooLate(Exception):
    """An answer is not complete in time."""


class AnswerTooLarge(Exception):
    """An answer is too large for our memory."""


class AnswerUnusable(Exception):
    """An answer that the statement cannot have."""


class Meter:
    """The time that the answers on one connection may take."""

    def __init__(self, seconds: float) -> None:
        """Begin to measure a login; seconds: the longest time for it, and later for each answer."""
        self._seconds = seconds
        self._is_open = False
        self._deadline = time.monotonic() + seconds

    def open(self) -> None:
        """Give each answer its own time from now on: the session is set up."""
        self._is_open = True

    def begin(self) -> None:
        """Measure a new answer."""
        if self._is_open:
            self._deadline = time.monotonic() + self._seconds

    def seconds_left(self) -> float:
        """Return how many seconds are left for the answer.

        Raises:
            AnswerTooLate: none.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise AnswerTooLate(f"no complete answer within {self._seconds:g} s")
        return left


def check_size(received: int, most: int = MOST_BYTES) -> None:
    """Check the size of an answer up to now, in bytes.

    Raises:
        AnswerTooLarge: it is beyond the limit.
    """
    if received > most:
        raise AnswerTooLarge(f"the answer is larger than {most >> 20} MiB")


def check_rows(rows: int, columns: int) -> None:
    """Check the number of an answer's rows up to now, and of their values.

    Raises:
        AnswerTooLarge: it is beyond the limit.
    """
    if rows > MOST_ROWS or rows * columns > MOST_VALUES or columns > MOST_COLUMNS:
        raise AnswerTooLarge(f"the answer has more than {rows - 1} rows of {columns} columns")


def whole(value: Any, least: int, most: int) -> int:
    """Return a whole number of an answer.

    Raises:
        AnswerUnusable: it is none, or not between least and most.
    """
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise AnswerUnusable(f"{brief(value)} is not a whole number") from error
    if not least <= number <= most:
        raise AnswerUnusable(f"{brief(number)} is not between {least} and {most}")
    return number
