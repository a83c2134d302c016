"""The control socket."""

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from shipper.core.errors import ConfigError, NotRunning, ShipperError, StateBusy
from shipper.service.control import Control, Progress, ask


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
    yield control
    control.close()


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
    with pytest.raises(NotRunning):
        ask(str(left), "good", timeout=5)
    taken = Control(str(left), {"good": lambda _arguments, _report: {"jobs": 1}})

    assert ask(str(left), "good", timeout=5) == {"jobs": 1}
    taken.close()
    assert not left.exists()


def test_who_says_nothing_holds_nobody_up(control: Control) -> None:
    """A silent client does not keep others from their answers."""
    folder = os.open(Path(control.path).parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(f"/proc/self/fd/{folder}/control.sock")

        assert ask(control.path, "good", timeout=5) == {"jobs": 2}
    os.close(folder)
