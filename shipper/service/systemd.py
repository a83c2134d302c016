"""Messages to systemd: sd_notify(3), without a library, since a message is one datagram."""

import os
import socket
import time
from contextlib import suppress

from shipper.core.errors import visible

SEND_SECONDS = 1.0
HALF = 2  # sd_watchdog_enabled(3): feed the watchdog at half of its time


def notify(**fields: object) -> None:
    """Send fields such as READY=1 to systemd; do nothing without systemd, or if it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    text = "\n".join(f"{name}={_line(value)}" for name, value in fields.items())
    with (
        suppress(OSError),  # a systemd that hangs, or that has gone
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection,
    ):
        connection.settimeout(SEND_SECONDS)
        # a leading @ is systemd's way to write the NUL of an abstract address
        connection.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        connection.sendall(text.encode())


def reloading() -> None:
    """Notify systemd that a reload begins; READY ends it."""
    notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)


def watchdog_seconds() -> float | None:
    """Return the interval of feeding the watchdog; None if none watches this process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000 / HALF


def _line(value: object) -> str:
    """Put a value on one line, because the next line would be another field."""
    return visible(" ".join(str(value).split()))
