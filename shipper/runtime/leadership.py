"""The lease of a state in a database: renewed while this process works, which ends when it is lost.

Strategy: a process that may no longer lead ends at once, and a new one reads everything again: there is no other way
back. Its working copy stays. The next start reads there what this process may have sent last, and asks the leader to
send it once more.
"""

import os
import threading

from shipper.config.load import Config
from shipper.core.errors import LeaseLost, StateBusy
from shipper.core.lease import BEATS
from shipper.graphite.receivers import Fence
from shipper.log.logger import drain as drain_log
from shipper.log.logger import logger
from shipper.runtime.clocks import Flag
from shipper.runtime.endpoints import open_database
from shipper.state.remote.database import LOST, StateDatabase, clock
from shipper.state.store import State

EX_TEMPFAIL = 75  # sysexits.h
LOOK_SECONDS = 0.1
LATE = (
    "Do nothing: this process may have sent old values after the end of its lease, and the leader sends the right ones "
    "again."
)


def lead(config: Config) -> StateDatabase:
    """Take the lease of the database that the configuration names.

    Raises:
        StateBusy: another shipper leads, or the database does not answer.
    """
    database = open_database(config)
    assert database is not None
    if database.try_to_lead():
        return database
    leadership = database.leadership()
    database.end_session()
    leader = leadership.leader if leadership and leadership.leader else "another machine"
    where = "Stop" if leader == database.host else f"Run the command on {leader}, or stop"
    raise StateBusy(
        f'use the state "{database.name}" in the database: the shipper on {leader} works with it',
        hint=f"{where} the service on all machines first. Do not use a second state: two shippers with different "
        "states must never write the same series.",
    )


def log_loss(term: int, reason: LeaseLost | None) -> None:
    """Log that this process may no longer lead, since that take-over."""
    error = str(reason) if reason else "the state's database does not answer"
    logger().error("lease.lost", term=term, error=error, hint=(reason and reason.hint) or LOST)


class Leading:
    """Threads that renew the lease during a block, and end the process when it is lost."""

    def __init__(self, database: StateDatabase, state: State, wake: Flag) -> None:
        self._database, self._state, self._wake = database, state, wake
        self._fence = Fence(database.lease, clock)
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._renew, name="lease"),
            threading.Thread(target=self._watch, name="lease-watch"),  # the other may hang in an answer
        ]

    def __enter__(self) -> Fence:
        """Start the threads; return what deliveries need."""
        for thread in self._threads:
            thread.start()
        return self._fence

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _renew(self) -> None:
        """Renew the lease, and mark the slots that others ask for."""
        pause = self._database.lease.seconds / BEATS
        try:
            is_stopping = False
            while not is_stopping:
                slots, numbers = self._database.beat()
                self._database.standing_by()
                if slots:
                    self._database.slots_again += len(slots)
                    self._state.outbox.send_again(slots)
                    self._wake.set()
                    self._database.forget_again(numbers)
                    logger().info("delivery.again", slots=len(slots))
                is_stopping = self._stopping.wait(pause)
        except (LeaseLost, StateBusy):  # the other thread ends the process
            self._database.lose()

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            # a lease that was renewed after a delivery had outlasted it is no longer of use: deliveries are rejected
            if self._database.is_lost or self._fence.was_late:
                self._end()

    def _end(self) -> None:
        """End the process, once the delivery at hand has ended."""
        log_loss(self._database.term, self._database.loss)
        self._fence.close()
        if self._fence.was_late:
            logger().warning("delivery.late", hint=LATE)
        drain_log()
        os._exit(EX_TEMPFAIL)
