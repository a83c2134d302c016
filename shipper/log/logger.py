"""Logging with structlog: one line per event on stderr, for the journal, a terminal or a log shipper.

Each module logs its own events; the core yields them to results.py. deploy/log-events.md lists all of them.
"""

import atexit
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shipper.core.errors import ShipperError, TransientError, visible
from shipper.core.retry import LOG_SECONDS
from shipper.log.writer import LogWriter

_JOURNAL = "/run/systemd/journal/stdout"
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def start(*, as_json: bool = False, is_quiet: bool = False) -> None:
    """Log events, and the warnings of libraries, to stderr as logfmt or JSON; with priorities under systemd.

    If is_quiet, log only warnings and errors: for commands that print their results.
    """
    known: list[Processor] = [structlog.processors.add_log_level, _without_empty_hint]
    if not is_journal():  # the journal has its own clock
        known.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
    key_order = ["timestamp", "level", "event", "job"]
    logfmt = structlog.processors.LogfmtRenderer(key_order=key_order, drop_missing=True)
    render = structlog.processors.JSONRenderer() if as_json else logfmt
    line: list[Processor] = [structlog.processors.format_exc_info, _line(render, has_priority=is_journal())]
    stream = _stream()
    structlog.configure(
        processors=[*known, *line],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", stream)),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if is_quiet else logging.INFO),
    )
    _start_libraries(stream, known, line)


def _without_empty_hint(_logger: object, _level: str, fields: EventDict) -> EventDict:
    if not fields.get("hint", True):
        del fields["hint"]
    return fields


def _start_libraries(stream: LogWriter | TextIO, known: Sequence[Processor], line: Sequence[Processor]) -> None:
    """Log the messages of libraries, which use the standard library, in the same way."""
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *line]
    handler: logging.Handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=known, processors=processors))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # it warns of ticks that come while one runs
    logging.captureWarnings(capture=True)


def _stream() -> LogWriter | TextIO:
    """Return the stream of the log: stderr, behind a writer if it is a file of this process."""
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return sys.stderr
    writer = LogWriter(
        descriptor,
        dropped=lambda lines: logger().warning("log.dropped", lines=lines),
        reopen=(lambda: _reopen_journal(descriptor)) if is_journal() else None,
    )
    atexit.register(writer.drain)
    _writers.append(writer)
    return writer


_writers: list[LogWriter] = []


def drain() -> None:
    """Wait until all lines are written, as far as that is possible now. For what writes to stderr itself, or exits."""
    for writer in _writers:
        writer.drain()


def logger() -> structlog.typing.FilteringBoundLogger:
    """Return the program's logger; an event is a constant `noun.verbed` with key-values."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger("shipper")
    return log


def format_utc(time: int) -> str:
    """Return a time, epoch seconds, as the log shows it and commands accept it."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class RepeatedFailure:
    """A failure that may repeat: logged at once, then every LOG_SECONDS, then its end."""

    failed_event: str
    recovered_event: str
    fields: dict[str, str] = field(default_factory=dict)
    failures: int = 0
    error: ShipperError | None = None
    """The last error, None if the failure is over."""
    since: float = 0.0
    """Time of the first failure, in epoch seconds."""
    _logged_at: float = 0.0

    def failed(self, error: ShipperError, *, clock: float, **fields: str | float | None) -> None:
        """Count a failure, and log it with additional fields, unless one was logged within LOG_SECONDS."""
        if self.error is None:
            self.since = time.time()
        self.error = error.with_traceback(None)
        error.__cause__ = error.__context__ = None  # what the driver raised may hold megabytes of an answer
        self.failures += 1
        if self.failures > 1 and clock - self._logged_at < LOG_SECONDS:
            return
        self._logged_at = clock
        log = logger().warning if isinstance(error, TransientError) else logger().error
        log(self.failed_event, **self.fields, **fields, error=str(error), failures=self.failures, hint=error.hint)

    def recovered(self) -> None:
        """Log the end of the failure, if there was one."""
        if self.failures:
            logger().info(self.recovered_event, **self.fields, failures=self.failures)
        self.forget()

    def forget(self) -> None:
        """Drop the failure without a log line."""
        self.failures, self.error = 0, None


def is_journal() -> bool:
    """Whether stderr goes to the journal. systemd.exec(5): JOURNAL_STREAM is its device and inode."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _reopen_journal(descriptor: int) -> None:
    """Connect to the journal again, as systemd has done before it started this process.

    Raises:
        OSError: it does not run.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(_JOURNAL)
        stream.shutdown(socket.SHUT_RD)
        # sd_journal_stream_fd(3): identifier, unit (the journal knows it), priority, whether lines begin with theirs,
        # and whether to forward them to syslog, kmsg and the console
        stream.sendall(b"shipper\n\n6\n1\n0\n0\n0\n")
        os.dup2(stream.fileno(), descriptor)
        status = os.fstat(descriptor)
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"


def _line(
    render: Callable[[WrappedLogger, str, EventDict], str | bytes], *, has_priority: bool
) -> Callable[[WrappedLogger, str, EventDict], str]:
    """Let a line change nothing on a terminal; put the priority of sd-daemon(3) before each line for the journal."""

    def line(log: WrappedLogger, name: str, event: EventDict) -> str:
        if not has_priority:
            return visible(str(render(log, name, event)))
        priority = _PRIORITIES.get(event.pop("level"), 6)
        return "\n".join(f"<{priority}>{part}" for part in visible(str(render(log, name, event))).splitlines())

    return line
