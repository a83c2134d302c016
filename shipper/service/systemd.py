"""What systemd hears of us: sd_notify(3), without a library, since it is one datagram."""

import os
import socket
import time

HALF = 2  # sd_watchdog_enabled(3): feed it at half of its time


def notify(**fields: object) -> None:
    """Tell systemd a field or several, such as READY=1; without systemd nobody is told.

    A systemd that does not listen is no reason to stop working.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    text = "\n".join(f"{name}={_line(value)}" for name, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
        try:
            # a leading @ is systemd's way to write the NUL of an abstract address
            end.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            end.sendall(text.encode())
        except OSError:
            return


def reloading() -> None:
    """Tell systemd that a reload begins; READY ends it."""
    notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)


def watchdog_seconds() -> float | None:
    """Return how often the watchdog is to be fed, None where none watches this process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000 / HALF


def _line(value: object) -> str:
    """Keep a value on its line: the next one would be another field."""
    return " ".join(str(value).split())
