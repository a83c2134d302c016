"""Equal receivers of the same series: one is in use, and the next when it fails.

Strategy: values that a receiver has confirmed may be lost with it, since a relay queues them in memory. A switch is
therefore reported as a death: what is not proven is sent again, by the receiver that took over.

A receiver that hangs may later write old values over those that the next one has delivered meanwhile. Nothing is proven
until it continues or exits; then, too, everything unproven is sent again.

A process that may lose its right to send has a fence: nothing is sent without a lease. Carbon takes what it gets last,
so a process that was paused must not send what it had in hand. No look at the lease is so close to a send that no pause
fits between them. Therefore the process looks again afterwards, and ends if it was too late; its next start lets
another process send these slots once more.
"""

import math
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from shipper.core.errors import DeliveryFailed, LeaseLost
from shipper.core.lease import Lease
from shipper.core.model import Datapoint
from shipper.graphite.carbon import Carbon

LEAST_SHARE = 0.5  # of the lease that must be left when a delivery begins


class Fence:
    """The right to send, as long as a lease lasts. For several threads."""

    def __init__(self, lease: Lease, clock: Callable[[], float]) -> None:
        """Take the lease, and its clock."""
        self.was_late = False
        """Whether something may have been sent after the lease."""
        self._lease, self._clock = lease, clock
        self._sending = threading.Lock()

    @contextmanager
    def sending(self, to: object) -> Iterator[float]:
        """Send in a block, which must end within the seconds that it gets.

        Raises:
            LeaseLost: the lease ended before, and the block does not run; or during the block.
        """
        with self._sending:
            left = self._lease.left(self._clock())
            if self.was_late or left < LEAST_SHARE * self._lease.seconds:
                raise LeaseLost(f"deliver to {to}: the lease of the state was not renewed in time")
            try:
                yield left
            finally:
                self.was_late |= not self._lease.left(self._clock())
            if self.was_late:
                raise LeaseLost(f"deliver to {to}: the lease of the state has ended meanwhile")

    def close(self) -> None:
        """Let nothing be sent from now on; return once the block that runs has ended."""
        self._lease.end()
        self._sending.acquire()


class Receivers:
    """Sink of the courier: the receiver in use, and others that can replace it."""

    def __init__(self, receivers: Sequence[Carbon], fence: Fence | None = None) -> None:
        """Connect nowhere yet; use the first, behind the fence if there is one."""
        self.addresses = ", ".join(map(str, receivers))
        """Addresses of all receivers, in the order of the configuration."""
        self.failure: DeliveryFailed | None = None
        """Failure that led to the last switch; None if the receiver before was found to have exited."""
        self._receivers = deque(receivers)  # the one in use is the first
        self._hanging: list[Carbon] = []
        """Receivers that failed, and may still read what was sent to them."""
        self._has_switched = False
        self._fence = fence
        self._timeouts = {carbon: carbon.timeout for carbon in receivers}

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
                with nullcontext(math.inf) if self._fence is None else self._fence.sending(current) as left:
                    current.timeout = min(self._timeouts[current], left)
                    current.deliver(datapoints)
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
