"""The control socket: it takes one JSON line and returns another; the mode of its file decides who may use it.

Commands need it because a signal could not return a result. The line names a command and its arguments; a command
that takes long first returns lines with its progress.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from shipper.core.errors import ConfigError, NotRunning, ShipperError
from shipper.log.logger import logger
from shipper.sockets.listener import PART_BYTES, Listener, Send
from shipper.sockets.unix_socket import UnixSocket, short

COMMAND_BYTES = 1_000_000  # enough for the spans of a year in a backfill
ANSWER_BYTES = 64_000_000  # a status of 10,000 jobs has 20 MB
MOST_COMMANDS = 16  # at once; operations may take hours
SHOWN_BYTES, SHOWN_CHARACTERS = 100, 300

Progress = Callable[[Mapping[str, Any]], None]
"""Function that sends progress to the client. It raises OSError if the client has gone."""
Command = Callable[[Mapping[str, Any], Progress], Mapping[str, Any]]
"""Function that runs a command with its arguments."""

CONNECT_SECONDS = 5.0
NOT_ALLOWED = "Run this as the service's user, or as root."
_OTHER_VERSION = "Restart the service: its version may differ from this command's (systemctl restart shipper)."
_BUG = "Report the traceback of control.failed in the log: journalctl -u shipper"


def open_control(path: str, commands: Mapping[str, Command]) -> Listener:
    """Take commands at a path, where only this user may connect.

    Raises:
        ConfigError: the socket cannot be created there.
    """
    try:
        listening = UnixSocket(path, mode=0o600)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"listen at {path}: {getattr(error, 'strerror', None) or error}",
            hint="Stop the process that listens there, or remove the file."
            if isinstance(error, FileExistsError)
            else "Create the directory of that path, and let the service's user write there.",
        ) from error
    return Listener(
        listening,
        partial(_serve, commands),
        name="control",
        is_complete=lambda request: b"\n" in request,
        most_bytes=COMMAND_BYTES,
        most_threads=MOST_COMMANDS,
    )


def _serve(commands: Mapping[str, Command], request: bytes, send: Send) -> bytes:
    """Run one of the commands; return its answer, or its error."""
    try:
        command, arguments = _parse(request, commands)
        answer = command(arguments, lambda progress: send(_line({"progress": progress})))
    except ShipperError as error:
        return _line({"error": str(error), "hint": error.hint, "is_config": isinstance(error, ConfigError)})
    except (ConnectionError, TimeoutError):  # the client has gone
        raise
    except Exception as error:  # noqa: BLE001 - a bug ends this command alone, and its client must not wait
        logger().error("control.failed", error=f"{type(error).__name__}: {error}"[:SHOWN_CHARACTERS], exc_info=True)
        return _line({"error": f"command failed: {type(error).__name__}", "hint": _BUG, "is_config": False})
    return _line({"answer": answer})


def _parse(request: bytes, commands: Mapping[str, Command]) -> tuple[Command, Mapping[str, Any]]:
    """Return the command of a request, and its arguments.

    Raises:
        ShipperError: there is no such command.
    """
    try:
        document = json.loads(request)
    except (ValueError, RecursionError):
        document = None
    match document:
        case {"command": str(name), "arguments": dict(arguments)} if name in commands:
            return commands[name], arguments
    shown = repr(request[:SHOWN_BYTES])
    logger().warning("control.rejected", request=shown, bytes=len(request))
    raise ShipperError(f"unknown command {shown}", hint=_OTHER_VERSION)


def ask(
    path: str,
    command: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    timeout: float,
    report: Progress = lambda _: None,
) -> Any:
    """Send a command to the service that listens at path, and return its answer.

    The timeout, in seconds, is that of each line.

    Raises:
        NotRunning: no process listens.
        ConfigError: the command failed because of the configuration.
        ShipperError: the command failed.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, short(path) as address:
            connection.settimeout(timeout)
            connection.connect(address)
            connection.sendall(_line({"command": command, "arguments": arguments or {}}))
            lines = _lines(connection, timeout)
            answer = next(lines, {})
            while "progress" in answer:
                report(answer["progress"])
                answer = next(lines, {})
    except (FileNotFoundError, ConnectionRefusedError) as error:
        hint = "Repeat the command; if it fails again: systemctl restart shipper."
        raise NotRunning(f"ask service at {path}: no process listens", hint=hint) from error
    except PermissionError as error:
        raise ConfigError(f"ask service at {path}: {error.strerror}", hint=NOT_ALLOWED) from error
    except OSError as error:
        raise ShipperError(f"ask service at {path}: {error}", hint="Read its log: journalctl -u shipper") from error
    match answer:
        case {"error": str(message), "hint": hint, "is_config": is_config}:
            raise (ConfigError if is_config else ShipperError)(message, hint=hint)
        case {"answer": result}:
            return result
    raise ShipperError(
        f"ask service at {path}: connection closed without an answer", hint="Read its log: journalctl -u shipper"
    )


def is_listening(path: str) -> bool:
    """Return whether a service listens at a path.

    Raises:
        ConfigError: this user may not ask it.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, short(path) as address:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(address)
    except PermissionError as error:
        raise ConfigError(f"ask service at {path}: {error.strerror}", hint=NOT_ALLOWED) from error
    except OSError:
        return False
    return True


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"


def _lines(connection: socket.socket, timeout: float) -> Iterator[dict[str, Any]]:
    """Yield the lines that a service sends, each within a number of seconds, however it sends them.

    Raises:
        OSError: a line does not come in time, is too long, or is no JSON object.
    """
    received, deadline = bytearray(), time.monotonic() + timeout
    while True:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(PART_BYTES)
        received += part
        if len(received) > ANSWER_BYTES:
            raise OSError(f"an answer of more than {ANSWER_BYTES} bytes")
        if b"\n" in part:
            *lines, rest = received.split(b"\n")
            for line in lines:
                yield _object(line)
            received, deadline = rest, time.monotonic() + timeout
        if not part:
            return


class _Answer(dict[str, Any]):
    """An object of an answer; in that of a service of another version, fields may be missing."""

    def __missing__(self, key: str) -> Any:
        raise ShipperError(
            f"read the service's answer: it has no {key!r}; the service runs a different version",
            hint="Restart the service: systemctl restart shipper.",
        )


def _object(line: bytearray) -> dict[str, Any]:
    try:
        document = json.loads(line, object_pairs_hook=_Answer)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise OSError(f"an answer that is no JSON object: {bytes(line[:SHOWN_BYTES])!r}")
    return document
