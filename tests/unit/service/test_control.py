"""The control socket."""

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from shipper.core.errors import ConfigError, NotRunning, ShipperError, StateBusy
from shipper.service.control import Command, Progress, _serve, ask, open_control
from shipper.sockets.unix_socket import short


class Control(NamedTuple):
    """The path of a control socket, and its commands."""

    path: str
    commands: dict[str, Command]


def refused(_arguments: Mapping[str, Any], _report: Progress) -> Mapping[str, Any]:
    """Fail as a reload with a broken file does."""
    raise ConfigError("shipper.toml:3: no such key", hint="Take it out.")


def busy(_arguments: Mapping[str, Any], _report: Progress) -> Mapping[str, Any]:
    """Fail for another reason."""
    raise StateBusy("reload: a job did not end")


def good(arguments: Mapping[str, Any], report: Progress) -> Mapping[str, Any]:
    """Send some progress, and return the arguments."""
    for part in arguments.get("parts", ()):
        report({"part": part})
    return {"jobs": 2, **arguments}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """Listen at a path that is longer than a socket's address."""
    folder = tmp_path / ("deep" * 20) / ("deeper" * 10)
    folder.mkdir(parents=True)
    control = Control(str(folder / "control.sock"), {"good": good, "refused": refused, "busy": busy})
    listener = open_control(*control)
    yield control
    listener.close()


def test_answer(control: Control) -> None:
    """A command's result is returned. Mutant: bind the path itself, which is too long for an address."""
    assert len(control.path) > 108
    assert ask(control.path, "good", timeout=5) == {"jobs": 2}


def test_arguments_and_progress(control: Control) -> None:
    """A command gets its arguments, and its progress comes before its answer, however long both are."""
    progress: list[Mapping[str, Any]] = []
    parts = list(range(10_000))

    answer = ask(control.path, "good", {"parts": parts}, timeout=5, report=progress.append)

    assert answer == {"jobs": 2, "parts": parts}
    assert progress == [{"part": part} for part in parts]


def test_whoever_asked_goes(control: Control) -> None:
    """A command whose client has gone ends when it sends progress, and other clients get their answers."""
    ended = threading.Event()

    def endless(_arguments: Mapping[str, Any], report: Progress) -> Mapping[str, Any]:
        try:
            while True:
                report({"text": "x" * 10_000})
        finally:
            ended.set()

    control.commands["endless"] = endless
    folder = os.open(Path(control.path).parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(f"/proc/self/fd/{folder}/control.sock")
        client.sendall(b'{"command": "endless", "arguments": {}}\n')
        assert client.recv(10)
    os.close(folder)

    assert ended.wait(10)
    assert ask(control.path, "good", timeout=5) == {"jobs": 2}


def test_refusal(control: Control) -> None:
    """An error is raised again with its class and hint, so that the exit code is right."""
    with pytest.raises(ConfigError, match=r"shipper\.toml:3: no such key") as caught:
        ask(control.path, "refused", timeout=5)
    assert caught.value.hint == "Take it out."
    with pytest.raises(ShipperError, match="did not end") as other:
        ask(control.path, "busy", timeout=5)
    assert not isinstance(other.value, ConfigError)


def test_unknown_command(control: Control) -> None:
    """An unknown command is reported."""
    with pytest.raises(ShipperError, match=r"unknown command .*dance"):
        ask(control.path, "dance", timeout=5)


def exchange(control: Control, words: bytes) -> bytes:
    """Send bytes, and return everything that the server answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end, short(control.path) as address:
        end.settimeout(30)
        end.connect(address)
        end.sendall(words)
        end.shutdown(socket.SHUT_WR)
        answer = b""
        while part := end.recv(65536):
            answer += part
        return answer


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xfe\x00\n",
        b"[" * 900_000 + b"\n",
        b'{"command": "good", "arguments": ' + b"[" * 5000 + b"]" * 5000 + b"}\n",
        b'{"command": "good", "arguments": 5}\n',
        b'{"command": ["good"], "arguments": {}}\n',
        b'{"command": "good"}\n',
        b'{"command": "good", "arguments": {"jobs": ' + b"9" * 5000 + b"}}\n",
        b'{"command": "good", "arguments": {"jobs": "' + b"x" * 3_000_000,
        b"null",
    ],
)
def test_rubbish(control: Control, rubbish: bytes) -> None:
    """Whatever a client sends has an error as its answer and one line in the log, and the next client is answered."""
    with capture_logs() as logs:
        answer = json.loads(exchange(control, rubbish))

    assert answer["error"].startswith("unknown command")
    assert [log["event"] for log in logs] == ["control.rejected"]
    assert "exc_info" not in logs[0]
    assert ask(control.path, "good", timeout=30) == {"jobs": 2}


@settings(max_examples=30)
@given(
    st.binary(max_size=100)
    | st.recursive(st.none() | st.text(), st.lists, max_leaves=5).map(json.dumps).map(str.encode)
)
def test_any_bytes(words: bytes) -> None:
    """No bytes are a bug. Mutant: take the fields of the document without asking for its shape."""
    with capture_logs():
        answer = json.loads(_serve({}, words, lambda _: None))

    assert answer["error"].startswith("unknown command")


def test_bug(control: Control) -> None:
    """A bug ends its command alone: the client learns where to look, and the log has the traceback."""
    control.commands["bug"] = lambda _arguments, _report: {"x": 1 // 0}
    with capture_logs() as logs, pytest.raises(ShipperError, match="command failed: ZeroDivisionError"):
        ask(control.path, "bug", timeout=30)

    assert [(log["event"], log["exc_info"]) for log in logs] == [("control.failed", True)]
    assert ask(control.path, "good", timeout=30) == {"jobs": 2}


def test_idle_clients(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is answered at once beside clients that say nothing. Mutant: accept them one by one."""
    monkeypatch.setattr("shipper.sockets.listener.REQUEST_SECONDS", 600.0)
    with ExitStack() as idle, short(control.path) as address:
        for _ in range(200):
            idle.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)).connect(address)

        assert ask(control.path, "good", timeout=30) == {"jobs": 2}


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\n", b"[]\n", b'{"error": 5}\n', b'{"answ', b'{"progress": {}}\n', b"[" * 100_000 + b"\n"]
)
def test_rogue_service(tmp_path: Path, answer: bytes) -> None:
    """A command that asks something else than a service fails in one line. Mutant: trust the answer."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ShipperError, match="ask service at "):
            ask(str(path), "good", timeout=30)
        thread.join()


def test_answer_within_time(tmp_path: Path) -> None:
    """A service that drips its answer does not hold a command up. Mutant: let each part begin a new deadline."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                for _ in range(600):
                    connection.sendall(b" ")
                    threading.Event().wait(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(ShipperError, match="timed out"):
            ask(str(path), "good", timeout=0.5)
        thread.join()


def test_service_of_another_version(control: Control) -> None:
    """An answer without what a command reads is an error with its remedy. Mutant: objects that are dictionaries."""
    control.commands["good"] = lambda _arguments, _report: {"jobs": [{"job": "events"}]}
    answer = ask(control.path, "good", timeout=30)
    for one in (answer, answer["jobs"][0]):
        with pytest.raises(ShipperError, match="has no 'state'") as caught:
            one["state"]
        assert "systemctl restart shipper" in str(caught.value.hint)


def test_only_its_user(control: Control) -> None:
    """No other user may connect. Mutant: leave the umask alone."""
    assert Path(control.path).stat().st_mode & 0o777 == 0o600


def test_nobody_listens(tmp_path: Path, control: Control) -> None:
    """No process listens where nothing is, or where a killed process left its socket; a new one takes the path over."""
    with pytest.raises(NotRunning):
        ask(str(tmp_path / "control.sock"), "good", timeout=5)
    left = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.bind(str(left))
    with pytest.raises(NotRunning) as caught:
        ask(str(left), "good", timeout=5)
    assert "systemctl restart shipper" in str(caught.value.hint)  # a live process holds the lock
    taken = open_control(str(left), {"good": lambda _arguments, _report: {"jobs": 1}})

    assert ask(str(left), "good", timeout=5) == {"jobs": 1}
    taken.close()
    assert not left.exists()


@pytest.mark.parametrize(
    ("path", "hint"), [("file", "Stop the process that listens there"), ("no/s", "Create the dir")]
)
def test_impossible_path(tmp_path: Path, path: str, hint: str) -> None:
    """The hint of a path that is taken does not advise to create a directory. Mutant: one hint for both."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="listen at ") as caught:
        open_control(f"{tmp_path}/{path}", {})

    assert str(caught.value.hint).startswith(hint)


def test_who_says_nothing_holds_nobody_up(control: Control) -> None:
    """A silent client does not keep others from their answers."""
    folder = os.open(Path(control.path).parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(f"/proc/self/fd/{folder}/control.sock")

        assert ask(control.path, "good", timeout=5) == {"jobs": 2}
    os.close(folder)
