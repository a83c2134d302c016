"""The running service, as commands find it."""

import os
from collections.abc import Iterator

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
    from shipper.config.load import load, state_of
    from shipper.core.errors import ConfigError
    from shipper.service.control import is_listening
    from shipper.state.lock import holder

    for address in _usual():
        if is_listening(address):
            return address
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


def _usual() -> Iterator[str]:
    """Yield where a service listens that was started as usual, unless the operator names a file."""
    if runtime := os.environ.get("RUNTIME_DIRECTORY"):  # a command in the unit, such as ExecReload
        yield f"{runtime}/control.sock"
        return
    context = click.get_current_context()
    if context.get_parameter_source("file") is ParameterSource.DEFAULT:
        yield f"{RUNTIME_DIRECTORY}/control.sock"
