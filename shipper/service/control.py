"""The control socket: it takes one JSON line and returns another; the mode of its file decides who may use it.

Commands need it because a signal could not return a result. The line names a command and its arguments; a command
that takes long first returns lines with its progress.
"""

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shipper.core.errors import ConfigError, NotRunning, ShipperError

COMMAND_BYTES = 1_000_000  # enough for the spans of a year in a backfill
SHOWN_BYTES = 100
READ_SECONDS = 5.0  # a client has its line ready when it connects

Progress = Callable[[Mapping[str, Any]], None]
"""Function that sends progress to the client. It raises OSError if the client has gone."""
Command = Callable[[Mapping[str, Any], Progress], Mapping[str, Any]]
"""Function that runs a command with its arguments."""


_OTHER_VERSION = "Restart the service: its version may differ from this command's (systemctl restart shipper)."


class Control:
    """Server of the control socket."""

    def __init__(self, path: str, commands: Mapping[str, Command]) -> None:
        """Listen at a path; only this user may connect.

        Raises:
            ConfigError: the socket cannot be created there.
        """
        self.path = path
        try:
            with _short(path) as address:
                Path(address).unlink(missing_ok=True)  # of a killed process: the state's lock allows no other
                mask = os.umask(0o177)
                try:
                    self._server = _Server(address, _Handler)
                finally:
                    os.umask(mask)
        except OSError as error:
            raise ConfigError(
                f"listen at {path}: {error.strerror or error}",
                hint="Create the directory of that path, and let the user that shipper runs as write there.",
            ) from error
        self.commands = self._server.commands = dict(commands)
        self._thread = threading.Thread(target=self._server.serve_forever, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        with suppress(OSError):
            Path(self.path).unlink()


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
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _short(path) as address:
            connection.settimeout(timeout)
            connection.connect(address)
            connection.sendall(json.dumps({"command": command, "arguments": arguments or {}}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer = json.loads(stream.readline() or "{}")
                while "progress" in answer:
                    report(answer["progress"])
                    answer = json.loads(stream.readline() or "{}")
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunning(f"ask service at {path}: no process listens", hint="systemctl start shipper") from error
    except PermissionError as error:
        raise ConfigError(
            f"ask service at {path}: {error.strerror}", hint="Run this as the service's user, or as root."
        ) from error
    except OSError as error:
        raise ShipperError(f"ask service at {path}: {error}", hint="Read its log: journalctl -u shipper") from error
    if "error" in answer:
        kind = ConfigError if answer["is_config"] else ShipperError
        raise kind(answer["error"], hint=answer["hint"])
    if "answer" not in answer:
        raise ShipperError(
            f"ask service at {path}: connection closed without an answer", hint="Read its log: journalctl -u shipper"
        )
    return answer["answer"]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    commands: Mapping[str, Command]


class _Handler(socketserver.StreamRequestHandler):
    timeout = READ_SECONDS
    server: _Server

    def handle(self) -> None:
        """Answer one command."""
        with suppress(OSError):  # the client has gone
            self._write(self._answer(self.rfile.readline(COMMAND_BYTES)))

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            command = self.server.commands[request["command"]]
            arguments = request["arguments"]
        except (ValueError, KeyError, TypeError):
            return {"error": f"unknown command {line[:SHOWN_BYTES]!r}", "hint": _OTHER_VERSION, "is_config": False}
        try:
            return {"answer": command(arguments, lambda progress: self._write({"progress": progress}))}
        except ShipperError as error:
            return {"error": str(error), "hint": error.hint, "is_config": isinstance(error, ConfigError)}

    def _write(self, document: Mapping[str, Any]) -> None:
        self.wfile.write(json.dumps(document).encode() + b"\n")


@contextmanager
def _short(path: str) -> Iterator[str]:
    """Yield a name for path that fits into a socket's address (108 bytes), however long the path is."""
    file = Path(path)
    folder = os.open(file.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{file.name}"
    finally:
        os.close(folder)
