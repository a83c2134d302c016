"""Messages to systemd."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

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
