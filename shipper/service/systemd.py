"""Messages to systemd, and what its unit says: sd_notify(3), without a library, since a message is one datagram."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from shipper.config.encrypted import FOLDER
from shipper.core.errors import visible

SEND_SECONDS = 1.0
BUS_SECONDS = 10.0
LOAD_SECONDS = 3600.0  # of the largest state; PostgreSQL ends sooner what hangs
HALF = 2  # sd_watchdog_enabled(3): feed the watchdog at half of its time


def notify(**fields: object) -> None:
    """Send fields such as READY=1 to systemd; do nothing without systemd, or if it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # a value has one line, because the next line would be another field
    text = "\n".join(f"{name}={visible(' '.join(str(value).split()))}" for name, value in fields.items())
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


def loading() -> None:
    """Let systemd wait while a state is loaded, which may take longer than a start or the watchdog's time."""
    microseconds = round(LOAD_SECONDS * 1_000_000)
    has_watchdog = watchdog_seconds() is not None
    notify(EXTEND_TIMEOUT_USEC=microseconds, **({"WATCHDOG_USEC": microseconds} if has_watchdog else {}))


def loaded() -> None:
    """Let the watchdog wait as the unit says again."""
    if watchdog_seconds() is not None:
        notify(WATCHDOG_USEC=os.environ["WATCHDOG_USEC"])


def watchdog_seconds() -> float | None:
    """Return the interval of feeding the watchdog; None if none watches this process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000 / HALF


def credentials() -> dict[str, Path]:
    """Return the file of each credential of the unit; nothing where systemd does not know the unit."""
    manager, service = "org.freedesktop.systemd1", "org.freedesktop.systemd1.Service"
    unit = "/org/freedesktop/systemd1/unit/shipper_2eservice"
    # systemctl 252 calls these properties unprintable
    command = ["busctl", "--json=short", "get-property", manager, unit, service]
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            [*command, "LoadCredential", "LoadCredentialEncrypted"],
            capture_output=True,
            check=True,
            timeout=BUS_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        plain, encrypted = (json.loads(line)["data"] for line in done.stdout.splitlines())
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return {}
    # a path that is a name is below systemd's directories: systemd.exec(5)
    return {name: FOLDER / file for name, file in encrypted} | {name: Path(file) for name, file in plain}


def missing(files: Mapping[str, Path]) -> list[Path]:
    """Return the files of credentials that do not exist, as far as this user can know."""
    return [file for file in files.values() if not _may_exist(file)]


def _may_exist(file: Path) -> bool:
    try:
        return file.exists()
    except PermissionError:
        return True


def remedy(file: Path) -> str:
    """Return how to provide a credential that does not exist, or that systemd cannot read."""
    if file.parent == FOLDER:
        return f"Encrypt {file} on this machine, as in deploy/install.md, Encrypted credentials."
    if _may_exist(file):  # and may have a password
        return f"Make {file} a regular file that root can read, of at most 1 MB."
    return f"Write {file}; if no source needs it, an empty one is enough: `install -m 600 /dev/null {file}`."
