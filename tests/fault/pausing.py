"""Shipper that stops itself at a place: the one named in the file `pause` beside its configuration, once.

It stops as SIGSTOP stops it, with all threads; SIGCONT lets it continue.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shipper.cli.commands import main
from shipper.graphite.carbon import Carbon
from shipper.graphite.receivers import Fence
from shipper.state.remote import database as remote
from shipper.state.remote.database import StateDatabase

PLACES = ("look", "connect", "half", "confirmation", "again", "take", "load", "pushed")
"""Before the look at the lease; between look and connect; in the middle of sendall; before the confirmation; before
`again` is written; between the lock and the first write; inside the loading of the state; after a push."""

_delivering = threading.local()


def _reach(place: str) -> None:
    """Stop if this is the place."""
    with suppress(FileNotFoundError):
        if _wanted.read_text() == place:
            _wanted.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)


class _Connection:
    """A connection to Carbon."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def sendall(self, message: bytes) -> None:
        """Send one half, then the other."""
        half = len(message) // 2
        self._connection.sendall(message[:half])
        _reach("half")
        self._connection.sendall(message[half:])

    def recv(self, size: int) -> Any:
        """Wait for the end of the stream."""
        _reach("confirmation")
        return self._connection.recv(size)


class _Session:
    """A session of the state's database."""

    def __init__(self, session: Any) -> None:
        self.__dict__["_session"] = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._session, name, value)

    def execute(self, statement: Any, *values: Any) -> Any:
        """Run a statement."""
        if statement is remote._TABLES:
            _reach("take")
        result = self._session.execute(statement, *values)
        for place, written in (("load", remote._PAGE), ("pushed", remote._PUSH)):
            if statement is written:
                _reach(place)
        return result


def _prepare() -> None:
    """Put the places into the program."""
    sending, send_message, connect = Fence.sending, Carbon.send_message, Carbon._connect
    ask_again, prepare = StateDatabase.ask_again, StateDatabase.__init__

    @contextmanager
    def watched(self: Fence, to: object) -> Iterator[float]:
        _reach("look")
        with sending(self, to) as left:
            _delivering.is_so = True
            try:
                yield left
            finally:
                _delivering.is_so = False

    def sent(self: Carbon, message: bytes) -> None:
        if getattr(_delivering, "is_so", False):
            _reach("connect")
        send_message(self, message)

    def connected(self: Carbon) -> Any:
        return _Connection(connect(self)) if getattr(_delivering, "is_so", False) else connect(self)

    def asked(self: StateDatabase, slots: Any) -> None:
        _reach("again")
        ask_again(self, slots)

    def prepared(self: StateDatabase, connecting: Any, **options: Any) -> None:
        prepare(self, lambda application: _Session(connecting(application)), **options)  # type: ignore[arg-type, return-value]

    changes: dict[type, dict[str, Any]] = {
        Fence: {"sending": watched},
        Carbon: {"send_message": sent, "_connect": connected},
        StateDatabase: {"ask_again": asked, "__init__": prepared},
    }
    for changed, methods in changes.items():
        for name, method in methods.items():
            setattr(changed, name, method)


if __name__ == "__main__":
    _wanted = Path(sys.argv[sys.argv.index("--config") + 1]).with_name("pause")
    _prepare()
    main(prog_name="shipper")
