"""The process that leads with a state in a database, and the machines that stand by."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from shipper.state.remote.session import Leadership


class Machine(NamedTuple):
    """A machine that stands by."""

    host: str
    has_same_configuration: bool
    """Whether its configuration is that of the machine that reports."""


class Leader(NamedTuple):
    """The process that works with a state in a database, and the machines that stand by."""

    host: str | None
    """None if its session has ended, and no other process leads yet."""
    since: float
    """When it began, in epoch seconds."""
    term: int
    """Number of the take-over."""
    heard_at: float
    """When it last renewed its lease, in epoch seconds."""
    has_same_configuration: bool
    """Whether its configuration is that of this machine."""
    is_here: bool = False
    """Whether it is the process that reports."""
    standing_by: tuple[Machine, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**self._asdict(), "standing_by": [machine._asdict() for machine in self.standing_by]}


def machines(standing_by: Mapping[str, str], digest: str) -> tuple[Machine, ...]:
    """Return the machines that stand by, compared with a configuration of some digest."""
    return tuple(Machine(host, digest.startswith(one)) for host, one in sorted(standing_by.items()))


def leader_of(leadership: "Leadership | None", standing_by: Mapping[str, str], digest: str) -> Leader | None:
    """Return who leads and who stands by, as a report shows it; None if no process ever led."""
    if leadership is None:
        return None
    others = machines(standing_by, digest)
    is_same, heard_at = leadership.configuration == digest, time.time() - leadership.silence
    return Leader(leadership.leader, leadership.since, leadership.term, heard_at, is_same, standing_by=others)
