"""Receivers of a process that may lose its right to send: nothing is sent without a lease.

Carbon takes what it gets last, so a process that was paused must not send what it had in hand. No look at the lease is
so close to a send that no pause fits between them. Therefore the process looks again afterwards, and ends if it was too
late; its next start lets another process send these slots once more.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from typing_extensions import override

from shipper.core.errors import LeaseLost
from shipper.core.lease import Lease
from shipper.core.model import Datapoint
from shipper.graphite.carbon import Carbon
from shipper.graphite.receivers import Receivers

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


class FencedReceivers(Receivers):
    """Receivers of the same series, used behind a fence."""

    def __init__(self, receivers: Sequence[Carbon], fence: Fence) -> None:
        super().__init__(receivers)
        self._timeouts = {carbon: carbon.timeout for carbon in receivers}
        self._fence = fence

    @override
    def _deliver_by(self, receiver: Carbon, datapoints: list[Datapoint]) -> None:
        with self._fence.sending(receiver) as left:
            receiver.timeout = min(self._timeouts[receiver], left)
            super()._deliver_by(receiver, datapoints)
