"""Checks of the running service: whether it can log in, and has the credentials that `check` reads now."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from shipper.config.encrypted import FOLDER, origin
from shipper.config.load import Config
from shipper.core.errors import ShipperError
from shipper.diagnostics.finding import Finding
from shipper.service.control import ask
from shipper.service.vitals import REJECTS
from shipper.source.access import Access, LoginRefused
from shipper.source.dialects.by_name import dialect_named
from shipper.state.lock import holder

ASK_SECONDS = 10.0
RESTART = "Restart it, so that it reads credentials again: systemctl restart shipper."
_ENCRYPT = (
    "Encrypt {} again: repeat the commands of deploy/install.md, Encrypted credentials; they also restart the service, "
    "and remove the plain file."
)


class Service(NamedTuple):
    """The service that works with the state of a configuration."""

    process: int
    changed: list[Path]
    """Files with credentials that were changed after its start."""
    endpoints: Mapping[str, Mapping[str, Any]]
    """Its endpoints by name, as in its report."""
    ignored: list[Path]
    """Plain files that it does not read, because it has encrypted ones instead."""

    def __str__(self) -> str:
        return f"service (process {self.process})"


def ignored_files(config: Config, unit: Mapping[str, Path]) -> dict[Path, Path]:
    """Return the plain files that this command reads, but the service does not, with its encrypted ones.

    The unit has the file of each credential of the service.
    """
    plain = [file for file in map(origin, config.credential_files()) if file.parent == Path(config.file).parent]
    return {file: unit[file.name] for file in sorted(plain) if file.name in unit and unit[file.name].parent == FOLDER}


def check_ignored(config: Config, unit: Mapping[str, Path]) -> Iterator[Finding]:
    """Warn of plain files that an operator has changed or left, although the service reads encrypted ones."""
    for plain, encrypted in ignored_files(config, unit).items():
        text = f"the service ignores it, and uses the encrypted {encrypted}"
        yield Finding(True, f"credential {plain}", text, _ENCRYPT.format(plain))


def running(config: Config, unit: Mapping[str, Path]) -> Service | None:
    """Return the service that works with the state; None if none does, or if it does not answer."""
    # first, because `holder` may change this process to the owner of the state, who sees fewer files
    times, ignored = {}, ignored_files(config, unit)
    for file in (ignored.get(file, file) for file in map(origin, config.credential_files())):
        with suppress(OSError):
            times[file] = file.stat().st_mtime
    try:
        found = holder(str(config.state.path))
        if found is None or found.address is None:
            return None
        report = ask(found.address, "status", timeout=ASK_SECONDS)
        changed = sorted(file for file, time in times.items() if time > report["started_at"])
        return Service(report["pid"], changed, {one["name"]: one for one in report["endpoints"]}, [*ignored])
    except ShipperError:  # `check` reports what keeps this user from the state
        return None


def check_changes(service: Service | None) -> Iterator[Finding]:
    """Warn of credentials that were changed after the service had read them."""
    for file in service.changed if service else ():
        text = f"{file} was changed after the service started; the service still uses the old one"
        yield Finding(True, str(service), text, RESTART)


def check_login(name: str, service: Service | None) -> Iterator[Finding]:
    """Report a login of the service that a source rejects, though it accepts that of this command."""
    endpoint = service.endpoints.get(f"source {name}") if service else None
    if service and endpoint and endpoint["failure"] and endpoint["complaint"] == REJECTS:
        error = endpoint["failure"]["error"]
        text = f"source {name} rejects the login of the service, but accepts that of this command: {error}"
        yield Finding(False, str(service), text, "\n".join(map(_ENCRYPT.format, service.ignored)) or RESTART)


def explained(error: LoginRefused, name: str, access: Access, service: Service | None) -> LoginRefused:
    """Return the error of a rejected login with the credentials that were tried, and those of the service."""
    place = origin(access.option_file) if access.option_file else f"[source.{name}]"
    hints = [f"Tried: user {dialect_named(access.kind).user(access)}, with the password in {place}.", error.hint or ""]
    endpoint = service.endpoints.get(f"source {name}") if service else None
    if endpoint is not None and not endpoint["failure"]:
        hints.append(f"The {service} is still logged in, with the password that it has read at its start.")
    return LoginRefused(str(error), hint="\n".join(hints))
