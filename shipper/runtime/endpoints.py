"""The endpoints of a configuration: sources, Carbon and Graphite; they connect at their first use."""

import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shipper.config.load import Config
from shipper.core.errors import ConfigError
from shipper.graphite.carbon import Carbon
from shipper.graphite.receivers import Fence, Receivers
from shipper.source.database import Source

if TYPE_CHECKING:
    from shipper.graphite.render_api import Readback
    from shipper.state.remote.database import StateDatabase
    from shipper.state.remote.reader import StateReader


def open_source(config: Config, name: str) -> Source:
    """Return a configured source."""
    section = config.sources[name]
    return Source(name, config.access(name), threads=section.connections, background=section.background)


def receivers(config: Config) -> list[Carbon]:
    """Return the configured Carbon, or all equal relays."""
    return [Carbon(host, port, timeout=config.graphite.timeout) for host, port in config.graphite.addresses]


def open_carbon(config: Config, fence: Fence | None = None) -> Receivers:
    """Return the configured Carbon, or the first of equal relays that works; behind the fence if there is one."""
    return Receivers(receivers(config), fence)


def open_database(config: Config) -> "StateDatabase | None":
    """Return the database that keeps the state; None if the state is a file."""
    access = config.state_access()
    if access is None:
        return None
    # imported late: most services have a file
    from shipper.runtime.postgresql import connector  # noqa: PLC0415
    from shipper.state.remote.database import StateDatabase  # noqa: PLC0415

    return StateDatabase(
        connector(access),
        label=str(access),
        name=config.state.name,
        lease=config.state.lease,
        host=socket.gethostname(),
        configuration=config.digest,
    )


def open_reader(config: Config) -> "StateReader | None":
    """Return the database that keeps the state, to read beside the leader; None if the state is a file."""
    access = config.state_access()
    if access is None:
        return None
    # imported late: most services have a file
    from shipper.runtime.postgresql import connector  # noqa: PLC0415
    from shipper.state.remote.reader import StateReader  # noqa: PLC0415

    return StateReader(connector(access), label=str(access), name=config.state.name)


@contextmanager
def readable_state(config: Config) -> Iterator[str]:
    """Yield the path of the state, to read; of a state in a database, that of the working copy or of another copy.

    The working copy is that of a process that leads on this machine. Another copy is deleted at the end.

    Raises:
        StateBusy: the database does not answer, or cannot be used.
        StateCorrupt: a newer program wrote the state.
        ConfigError: this user may not read it; or it was moved to a file.
    """
    path, database = str(config.state.path), open_reader(config)
    if database is None:
        yield path
        return
    from shipper.state.copies import is_in_use, private_file  # noqa: PLC0415 - most commands have a file

    if is_in_use(path):
        yield path
        return
    with private_file(path) as copy:
        database.copy(copy)
        yield copy


def open_readback(config: Config, *, seconds: float = math.inf) -> "Readback | None":
    """Return the reader of the configured Graphite, None without a render_url.

    Each step of a request takes at most `seconds`, and never longer than [graphite] timeout.
    """
    graphite = config.graphite
    if graphite.render_url is None:
        return None
    from shipper.graphite.render_api import Readback  # noqa: PLC0415 - an HTTP client is slow to import and rarely used

    return Readback(graphite.render_url, timeout=min(graphite.timeout, seconds))


def required_readback(config: Config, step: str) -> "Readback":
    """Return the reader of the configured Graphite, for a step that needs it.

    Raises:
        ConfigError: no render_url is configured.
    """
    readback = open_readback(config)
    if readback is None:
        raise ConfigError(
            f"{step}: render_url is not set in {config.file}",
            hint='Set render_url in [graphite], as in render_url = "http://graphite.internal".',
        )
    return readback


def evidence_of(config: Config) -> str:
    """Return in one line which values are proven to be in Graphite, and which are only assumed."""
    graphite = config.graphite
    if graphite.proof == "readback":
        return "every value is proven, by reading it back from Graphite"
    sends = len(graphite.replay) + 1
    if graphite.render_url is not None:
        return f"some values (samples) are read back from Graphite; all others count as stored after {sends} sends"
    return f"no proof without render_url: a value counts as stored after {sends} sends"
