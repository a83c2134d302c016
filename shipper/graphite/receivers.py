"""Equal receivers of the same series: one is in use, and the next when it fails.

Strategy: values that a receiver has confirmed may be lost with it, since a relay queues them in memory. A switch is
therefore reported as a death: what is not proven is sent again, by the receiver that took over.

A receiver that hangs may later write old values over those that the next one has delivered meanwhile. Nothing is proven
until it continues or exits; then, too, everything unproven is sent again.
"""

import socket
from collections import deque
from collections.abc import Iterable, Sequence

from shipper.core.errors import DeliveryFailed
from shipper.core.model import Datapoint
from shipper.graphite.carbon import Carbon


class Receivers:
    """Sink of the courier: the receiver in use, and others that can replace it."""

    def __init__(self, receivers: Sequence[Carbon]) -> None:
        """Connect nowhere yet; use the first."""
        self.addresses = ", ".join(map(str, receivers))
        """Addresses of all receivers, in the order of the configuration."""
        self.failure: DeliveryFailed | None = None
        """Failure that led to the last switch; None if the receiver before was found to have exited."""
        self._receivers = deque(receivers)  # the one in use is the first
        self._hanging: list[Carbon] = []
        """Receivers that failed, and may still read what was sent to them."""
        self._has_switched = False

    def __str__(self) -> str:
        return str(self._receivers[0])

    def __len__(self) -> int:
        return len(self._receivers)

    def deliver(self, datapoints: Iterable[Datapoint]) -> None:
        """Send datapoints and return when a receiver has read them all; each is tried once.

        Raises:
            DeliveryFailed: none confirmed; some, all or none of the datapoints may have arrived.
        """
        datapoints = list(datapoints)
        failures: list[DeliveryFailed] = []
        for _ in range(len(self._receivers)):
            current = self._receivers[0]
            try:
                self._deliver_by(current, datapoints)
            except DeliveryFailed as error:
                failures.append(error)
                self._receivers.rotate(-1)
                self._has_switched = True
                if len(self) > 1 and current.may_read_more() and current not in self._hanging:
                    self._hanging.append(current)
                continue
            # the one that confirms has read what it was sent before
            self._hanging = [one for one in self._hanging if one is not current]
            if failures:
                self.failure = failures[0]
            return
        self._has_switched = False
        raise DeliveryFailed("; ".join(map(str, failures)), hint=failures[0].hint) from failures[0]

    def _deliver_by(self, receiver: Carbon, datapoints: list[Datapoint]) -> None:
        receiver.deliver(datapoints)

    @property
    def watched(self) -> socket.socket | None:
        """Connection whose end is a reason to call `has_died`; None while there is none."""
        return self._receivers[0].watched

    @property
    def may_write_old_values(self) -> bool:
        """Whether a receiver that hangs may yet write values over newer ones."""
        return bool(self._hanging)

    def has_died(self) -> bool:
        """Whether the receiver that confirmed is gone, was replaced, or may have been overwritten by one that hung.

        True once for each of these. See Carbon.has_died.
        """
        # the receiver in use has exited: the next one is tried first
        has_died = self._receivers[0].has_died()
        if has_died:
            self._receivers.rotate(-1)
            self.failure = None

        # those that hung: what they have read meanwhile may be old
        hanging = [one for one in self._hanging if one.may_read_more()]
        has_continued = len(hanging) < len(self._hanging)
        self._hanging = hanging

        has_switched, self._has_switched = self._has_switched, False
        return has_died or has_continued or has_switched

    def close(self) -> None:
        """Close the witnesses."""
        for one in self._receivers:
            one.close()
        self._hanging = []
