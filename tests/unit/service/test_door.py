"""Servers that are opened again."""

import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shipper.core.errors import NotRunning
from shipper.log.logger import RepeatedFailure
from shipper.service.control import ask, open_control
from shipper.service.door import Door
from shipper.sockets.listener import Listener


def reaches(path: Path) -> bool:
    """Whether a service answers there."""
    try:
        return bool(ask(str(path), "good", timeout=30) == {})
    except NotRunning:
        return False


def test_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose directory is missing is opened when it is there, and again when its socket or thread has gone.

    Mutant: open it once; look at the socket alone.
    """
    bugs: list[object] = []
    monkeypatch.setattr(threading, "excepthook", bugs.append)
    folder = tmp_path / "run"
    path = folder / "s"
    servers: list[Listener] = []

    def open_server() -> Listener:
        servers.append(open_control(str(path), {"good": lambda _arguments, _report: {}}))
        return servers[-1]

    door = Door(open_server, RepeatedFailure("control.failed", "control.recovered"))
    with capture_logs() as logs:
        door.check()  # no directory
        folder.mkdir()
        door.check()
        assert reaches(path)
        path.unlink()  # as a cleaner does
        door.check()
        assert reaches(path)
        servers[-1]._selector.close()  # its thread fails
        servers[-1]._ring()
        servers[-1]._thread.join(30)
        assert len(bugs) == 1
        door.check()
        assert reaches(path)
        door.check()
        assert len(servers) == 3
        door.close()

    assert not reaches(path)
    assert [log["event"] for log in logs] == ["control.failed", "control.recovered"]
