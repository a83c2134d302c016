"""Messages to systemd."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from shipper.cli.run import stopped
from shipper.config.encrypted import FOLDER
from shipper.service import systemd


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield end


def test_notify_sends_one_datagram(listener: socket.socket) -> None:
    """Fields are sent together, one per line, whatever their values. Mutant: leave line ends in the values."""
    systemd.notify(READY=1, STATUS="2 jobs;\nWATCHDOG=trigger")

    assert listener.recv(4096) == b"READY=1\nSTATUS=2 jobs; WATCHDOG=trigger"


def test_notify_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that begins with @ is abstract, as in containers."""
    name = f"shipper-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        systemd.notify(STOPPING=1)

        assert end.recv(4096) == b"STOPPING=1"


def test_notify_without_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A systemd that does not listen is no failure."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    systemd.notify(READY=1)


def test_reloading_says_when(listener: socket.socket) -> None:
    """A reload begins at an instant of the monotonic clock, as Type=notify-reload requires."""
    systemd.reloading()

    begun, at = listener.recv(4096).decode().splitlines()
    assert begun == "RELOADING=1"
    assert at.partition("=")[0] == "MONOTONIC_USEC"
    assert int(at.partition("=")[2]) > 0


def test_remedy_keeps_a_file(tmp_path: Path) -> None:
    """Only a credential that does not exist may be an empty file. Mutant: a command that empties a password file."""
    file = tmp_path / "other.cnf"
    missing = systemd.remedy(file)
    file.touch()

    assert f"install -m 600 /dev/null {file}" in missing
    assert systemd.remedy(file) == f"Make {file} a regular file that root can read, of at most 1 MB."
    assert "deploy/install.md" in systemd.remedy(FOLDER / "other.cnf")


def test_unusable_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all files exist, any of them may be the reason. Mutant: blame all, and empty them."""
    for name in ("app.cnf", "other.cnf"):
        (tmp_path / name).touch()
    files = {name: str(tmp_path / name) for name in ("app.cnf", "other.cnf")}
    answers = "\n".join(json.dumps({"data": data}) for data in (list(files.items()), []))
    (tmp_path / "busctl").write_text(f"#!/bin/sh\ncat << END\n{answers}\nEND\n")
    (tmp_path / "busctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("EXIT_STATUS", "243")
    shown = CliRunner().invoke(stopped).stderr

    both = f"{files['app.cnf']}, {files['other.cnf']}"
    assert f"error: load credentials for the service: one of {both} cannot be read or decrypted" in shown
    assert "/dev/null" not in shown
    assert shown.endswith("Then: systemctl start shipper\n")


def test_credentials_of_an_unknown_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If systemd does not answer, the hint shows where the file is named. Mutant: only how to start the service."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EXIT_STATUS", "243")
    shown = CliRunner().invoke(stopped).stderr

    assert "See LoadCredential= in `systemctl cat shipper`, and create that file. Then: systemctl start" in shown


@pytest.mark.parametrize(
    ("microseconds", "process", "seconds"),
    [
        ("60000000", None, 30.0),
        ("60000000", "me", 30.0),
        ("60000000", "another", None),
        (None, None, None),
        ("x", None, None),
    ],
)
def test_watchdog_seconds(
    microseconds: str | None, process: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog is fed at half its time, if it watches this process."""
    processes = {"me": str(os.getpid()), "another": str(os.getpid() + 1)}
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", process and processes[process])):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)

    assert systemd.watchdog_seconds() == seconds
