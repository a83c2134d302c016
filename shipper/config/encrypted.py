"""Credentials that systemd keeps encrypted: root decrypts them for a command outside the service.

Strategy: only the service gets them from systemd, and only root has the key. A command of root therefore decrypts them
while it loads the configuration, because it then becomes the owner of the state's directory. The result is in memory,
in no file system.
"""

import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from shipper.core.errors import ConfigError

FOLDER = Path("/etc/credstore.encrypted")
"""Where systemd looks for them: systemd.exec(5), LoadCredentialEncrypted=."""
_SECONDS = 30.0  # a TPM is slow

_decrypted: dict[str, Path | ConfigError] = {}


def prepare(names: Iterable[str]) -> None:
    """Decrypt what this user can, for later calls of `decrypted`; they report what fails."""
    for name in names:
        with suppress(ConfigError):
            decrypted(name)


def decrypted(name: str) -> Path | None:
    """Return a path with the content of an encrypted credential, for this process alone.

    Return None if there is none, or this user is not root.

    Raises:
        ConfigError: it cannot be decrypted.
    """
    if name not in _decrypted:
        file = FOLDER / name
        if os.geteuid() != 0 or "/" in name or not file.is_file():
            return None
        try:
            content, descriptor = _decrypt(name, file), os.memfd_create(name)
            os.write(descriptor, content)
            _decrypted[name] = Path(f"/proc/self/fd/{descriptor}")
        except ConfigError as error:  # later this process may be another user
            _decrypted[name] = error
    known = _decrypted[name]
    if isinstance(known, ConfigError):
        raise known
    return known


def origin(file: str) -> Path:
    """Return where a file with a credential comes from: the encrypted one, or itself."""
    return next((FOLDER / name for name, path in _decrypted.items() if str(path) == file), Path(file))


def _decrypt(name: str, file: Path) -> bytes:
    command = ["systemd-creds", "decrypt", f"--name={name}", str(file), "-"]
    try:
        done = subprocess.run(  # noqa: S603 - the name is a file's
            command, capture_output=True, check=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        lines = getattr(error, "stderr", None) or str(error).encode()
        reason = lines.decode(errors="replace").strip().rpartition("\n")[2]
        raise ConfigError(
            f"decrypt {file}: {reason}",
            hint="Encrypt the file on this machine: only the machine that encrypts it can read it (deploy/install.md, "
            "Encrypted credentials).",
        ) from error
    return done.stdout
