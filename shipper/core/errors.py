"""Errors, by who can fix them.

```
ShipperError            lower-case message, the step first; .hint is one sentence with the remedy
├─ ConfigError          the operator must act; the process exits with status 78 (EX_CONFIG)
├─ TransientError       the watermark stays; the next tick tries again
│  ├─ SourceUnavailable     the database does not answer, or not in time
│  ├─ DeliveryFailed        Carbon did not confirm a batch: its outcome is unknown
│  ├─ ReadbackFailed        Graphite's render API does not answer
│  └─ StateBusy             the state cannot be used now: another process has it, the disk is full or read-only
│     └─ LeaseLost             another process may have the state now; this one ends with status 75 (EX_TEMPFAIL)
├─ NotRunning           no service runs that could be asked
└─ PermanentError       a retry cannot help until an operator acts
   ├─ QueryRefused          the database understood the query and rejected it
   │  └─ RowRefused            a value of a row, or a sum of values, makes the query fail
   │     └─ TooManyGroups         a window has more groups than memory should hold
   ├─ BadMetric             a path or a value that Carbon would misread
   ├─ Unproven              Graphite does not hold values that Carbon has confirmed
   ├─ StateCorrupt          the state file is damaged, foreign, newer, or was changed by another program
   └─ SourceReset           the largest id of the table went back below captured
```

Edges translate the errors of their drivers once, `raise ... from error`; the capture thread and the delivery thread
report them. Any other exception is a bug.
"""

from collections.abc import Iterator
from contextlib import contextmanager

MOST_TEXT = 300
"""Maximum length of a foreign text in a message."""
MOST_LINE = 2000
"""Maximum length of a line of a message."""

# controls of terminals, and of the direction of text
_DIRECTIONS = {0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)}
_CONTROLS = {*range(32), *range(127, 160), *_DIRECTIONS}
_ESCAPES = {number: ascii(chr(number))[1:-1] for number in _CONTROLS}
_VISIBLE = {number: escape for number, escape in _ESCAPES.items() if chr(number) not in "\n\t"}


class ShipperError(Exception):
    """An expected failure, with a hint where there is a remedy."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(_safe(message))
        self.hint = None if hint is None else _safe(hint)


class ConfigError(ShipperError):
    """The configuration or the command line is invalid."""


class TransientError(ShipperError):
    """A later retry may help; the next tick does one."""


class SourceUnavailable(TransientError):
    """The source does not answer, or not in time."""


class DeliveryFailed(TransientError):
    """Carbon did not confirm a batch; it is unknown whether it arrived."""


class ReadbackFailed(TransientError):
    """Graphite's render API does not answer, or its answer cannot be understood."""


class StateBusy(TransientError):
    """The state cannot be used now: another process has it, or the disk is full or read-only."""


class LeaseLost(StateBusy):
    """Another process may have the state now, and this one must end."""


class NotRunning(ShipperError):
    """No service runs that could be asked."""


class PermanentError(ShipperError):
    """A retry cannot help until an operator acts."""


class QueryRefused(PermanentError):
    """The source understood the query and rejected it."""


class RowRefused(QueryRefused):
    """A value of a row, or a sum of values, makes the query fail; without it the query works."""


class TooManyGroups(RowRefused):
    """A window has more groups than memory should hold; a shorter one may have fewer."""

    def __init__(self, message: str, *, hint: str, rows: int) -> None:
        super().__init__(message, hint=hint)
        self.rows = rows
        """Rows of those groups that it may have."""


class BadMetric(PermanentError):
    """A path or a value that Carbon would misread."""


class Unproven(PermanentError):
    """Graphite does not hold values that Carbon has confirmed several times."""


class StateCorrupt(PermanentError):
    """The state file is damaged, foreign, newer than this program, or was changed by another program."""


class SourceReset(PermanentError):
    """The largest id of the table went back below captured."""


@contextmanager
def os_errors(step: str, hint: str, *, denied: str | None = None) -> Iterator[None]:
    """Translate the errors of the operating system in a block: the operator must act.

    denied is the hint if this user lacks a right; without it, the hint is the same.
    """
    try:
        yield
    except PermissionError as error:
        raise ConfigError(f"{step}: {error.strerror}", hint=denied or hint) from error
    except OSError as error:
        raise ConfigError(f"{step}: {error.strerror}", hint=hint) from error


def printable(text: str, most: int = MOST_TEXT) -> str:
    """Return a text of a server, cut, on one line, and without characters that a terminal or a log obeys."""
    if text.isprintable() and len(text) <= most:
        return text
    shown = text[: most + 1]
    line = "".join(one if one.isprintable() else " " if one.isspace() else "\N{REPLACEMENT CHARACTER}" for one in shown)
    return f"{line[:most]}..." if len(line) > most else line


def visible(text: str) -> str:
    """Return a text that changes nothing but letters on a terminal: its control characters become escapes."""
    is_plain = text.replace("\n", "").replace("\t", "").isprintable()  # quicker than to look at each character
    return text if is_plain else _whole(text).translate(_VISIBLE)


def visible_line(text: str) -> str:
    """Do the same, and leave the text on one line."""
    return text if text.isprintable() else _whole(text).translate(_ESCAPES)


def _whole(text: str) -> str:
    """Return a text whose halves of characters, which no stream takes, are escapes."""
    return text.encode(errors="backslashreplace").decode()


def _safe(text: str) -> str:
    """Return a message with foreign names and values in it, as safe as they are by themselves."""
    return "\n".join(printable(line, MOST_LINE) for line in text.split("\n"))
