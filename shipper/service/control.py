"""The control socket: a JSON line in, a JSON line back; whoever may open its file may say it.

Commands ask here, because a signal could not bring back how it went. The line names a command and its arguments; of
one that takes long there are lines of its progress first.
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

COMMAND_BYTES = 1_000_000  # as many as the spans of a year that are to be counted again
SHOWN_BYTES = 100
READ_SECONDS = 5.0  # who connects has its line ready

Tell = Callable[[Mapping[str, Any]], None]
"""Tell whoever asks how far it is. An OSError says that nobody listens any more."""
Command = Callable[[Mapping[str, Any], Tell], Mapping[str, Any]]
"""What is done with the arguments."""


_OTHER_VERSION = "Is the service of another version than this command? Restart it: systemctl restart shipper."


class Control:
    """Answers commands, until it is closed."""

    def __init__(self, path: str, commands: Mapping[str, Command]) -> None:
        """Listen at path, readable for this user alone.

        Raises:
            ConfigError: it cannot be made there.
        """
        self.path = path
        try:
            with _short(path) as address:
                Path(address).unlink(missing_ok=True)  # a killed process left it; the state's lock says we are alone
                mask = os.umask(0o177)
                try:
                    self._server = _Server(address, _Handler)
                finally:
                    os.umask(mask)
        except OSError as error:
            raise ConfigError(
                f"listen at {path}: {error.strerror or error}",
                hint="The directory must exist and be writable: $RUNTIME_DIRECTORY, else that of [state] path.",
            ) from error
        self.commands = self._server.commands = dict(commands)
        self._thread = threading.Thread(target=self._server.serve_forever, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
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
    tell: Tell = lambda _: None,
) -> Any:
    """Say a command to the shipper that listens at path, and return its answer; timeout bounds each silence, seconds.

    Raises:
        NotRunning: nobody listens.
        ConfigError: the configuration is why it was not done.
        ShipperError: it was not done.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end, _short(path) as address:
            end.settimeout(timeout)
            end.connect(address)
            end.sendall(json.dumps({"command": command, "arguments": arguments or {}}).encode() + b"\n")
            with end.makefile("rb") as stream:
                answer = json.loads(stream.readline() or "{}")
                while "progress" in answer:
                    tell(answer["progress"])
                    answer = json.loads(stream.readline() or "{}")
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunning(f"ask shipper at {path}: nobody listens", hint="Is it running?") from error
    except PermissionError as error:
        raise ConfigError(f"ask shipper at {path}: {error.strerror}", hint="Ask as its user, or as root.") from error
    except OSError as error:
        raise ShipperError(f"ask shipper at {path}: {error}", hint="Its log says what it does.") from error
    if "error" in answer:
        kind = ConfigError if answer["is_config"] else ShipperError
        raise kind(answer["error"], hint=answer["hint"])
    if "answer" not in answer:
        raise ShipperError(f"ask shipper at {path}: it ended without an answer", hint="Its log says why.")
    return answer["answer"]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    commands: Mapping[str, Command]


class _Handler(socketserver.StreamRequestHandler):
    timeout = READ_SECONDS
    server: _Server

    def handle(self) -> None:
        """Answer one command."""
        with suppress(OSError):  # whoever asked has gone
            self._write(self._answer(self.rfile.readline(COMMAND_BYTES)))

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            command = self.server.commands[asked["command"]]
            arguments = asked["arguments"]
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
    """Give a name for path that fits into a socket's address (108 bytes), however deep it lies."""
    file = Path(path)
    folder = os.open(file.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{file.name}"
    finally:
        os.close(folder)
