"""Servers of the service that must not stop it: opened again whenever clients cannot reach them."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from shipper.config.load import Config
from shipper.core.errors import ShipperError, StateBusy
from shipper.log.logger import RepeatedFailure
from shipper.service.control import Command, open_control
from shipper.sockets.listener import Listener
from shipper.status.page.server import Reporter, open_page


class Door:
    """A server that is opened, and opened again after a failure. Nothing else waits for it."""

    def __init__(self, open_server: Callable[[], Listener], failure: RepeatedFailure) -> None:
        """Take the function that opens the server; it raises ShipperError."""
        self._open_server = open_server
        self._failure = failure
        self._server: Listener | None = None

    def check(self) -> None:
        """Open the server, unless clients can reach it; log a failure, and its end."""
        if self._server is not None and self._server.is_reachable:
            return
        try:
            self.close()
            self._server = self._open_server()
        except (ShipperError, OSError, RuntimeError) as failure:  # no descriptor or thread is left
            error = failure if isinstance(failure, ShipperError) else StateBusy(f"listen: {failure}")
            self._failure.failed(error, clock=time.monotonic())
        else:
            self._failure.recovered()

    def close(self) -> None:
        """Close the server, if it is open."""
        server, self._server = self._server, None
        if server is not None:
            server.close()


def doors_of(
    config: Config, commands: Mapping[str, Command], report: Reporter, page_failure: RepeatedFailure
) -> tuple[str, list[Door]]:
    """Return the address of the control socket, and the doors of a process: that socket, and the status page."""
    runtime = os.environ.get("RUNTIME_DIRECTORY") or Path(config.state.path).absolute().parent
    address, listen = f"{runtime}/control.sock", config.status.listen or f"unix:{runtime}/status.sock"
    doors = [Door(lambda: open_control(address, commands), RepeatedFailure("control.failed", "control.recovered"))]
    if listen != "off":
        doors.append(Door(lambda: open_page(listen, report), page_failure))
    return address, doors
