"""The running service, as commands find it."""

import os
from pathlib import Path

import click
from click.core import ParameterSource

RUNTIME_DIRECTORY = "/run/shipper"  # of the unit


def address_of(file: str) -> str | None:
    """Return the control socket of the service that runs with a configuration file; None if none does.

    Without the option --config the file is not needed, so it may be broken or missing. With it, a running service is
    found if the file names its state, whatever else is wrong with it.

    Raises:
        ConfigError: the file is invalid, or this user may not ask the service.
    """
    from shipper.service.control import is_listening
    from shipper.state.lock import holder

    runtime = os.environ.get("RUNTIME_DIRECTORY")  # of a command in the unit, such as ExecReload
    if not runtime and click.get_current_context().get_parameter_source("file") is ParameterSource.DEFAULT:
        runtime = RUNTIME_DIRECTORY  # of a service that was started as usual
    if runtime and is_listening(address := f"{runtime}/control.sock"):
        return address
    # a service that runs has checked its file: with many jobs that takes most of the time of a command
    named = _named_state(file)
    if named is not None and (service := holder(named)) is not None:
        return service.address
    return _checked(file)


def _checked(file: str) -> str | None:
    """Return the control socket of the service, None if none runs; a file that is invalid is then reported."""
    from shipper.config.load import load, state_of
    from shipper.core.errors import ConfigError
    from shipper.state.lock import holder

    failure: ConfigError | None = None
    try:
        # as root it decrypts credentials, which the owner of the state cannot: `holder` becomes that
        path: str | None = str(load(file, with_credentials=False).state.path)
    except ConfigError as error:
        path, failure = state_of(file), error
    service = holder(path) if path is not None else None
    if service is None and failure is not None:
        raise failure
    return service.address if service else None


def _named_state(file: str) -> str | None:
    """Return the path of the state that a file names; None if it names none as a text, or must be checked first."""
    import tomllib

    from shipper.config.files import UnreadableError, read_text

    try:
        if not Path(file).is_file():
            return None  # a pipe can be read only once
        path = tomllib.loads(read_text(file))["state"]["path"]
        owner = Path(path).parent.stat().st_uid
    except (UnreadableError, ValueError, LookupError, TypeError, RecursionError, OSError):
        return None
    # root would become the owner of the directory, who cannot decrypt the credentials of a command that needs some
    return path if isinstance(path, str) and (owner == 0 or os.geteuid() != 0) else None
