"""A process that stands by: it waits until it may lead, and says meanwhile who does."""

import os
import random
import signal
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack, closing
from typing import Any

from shipper.config.load import Config
from shipper.core.errors import StateBusy
from shipper.core.retry import TAKE_OVER_MOST, backoff
from shipper.log.logger import RepeatedFailure, logger
from shipper.service import systemd
from shipper.service.control import Command, Progress
from shipper.service.door import doors_of
from shipper.service.vitals import failure_of
from shipper.state.lock import announce, lock
from shipper.state.remote.database import StateDatabase
from shipper.state.remote.working_copy import check_free, discard, unproven_slots
from shipper.status.leader import Leader, leader_of
from shipper.status.report import EndpointReport, Report

TRY_SECONDS = 0.25
LOOK_SECONDS = 1.0  # between two questions who leads


class StandBy:
    """The wait for the lease of a state in a database."""

    def __init__(self, config: Config, database: StateDatabase) -> None:
        self._config, self._database = config, database
        self._failure = RepeatedFailure("lease.failed", "lease.recovered")
        self._leader: Leader | None = None
        self._reached_at: float | None = None
        self._looked = float("-inf")
        self._late: list[int] = []
        """Slots whose totals this machine may have sent last, or be about to send, when it led."""
        self._started_at = time.time()

    def wait(self, stops: Collection[int]) -> bool:
        """Wait for the lease; return whether this process leads, False if a signal ends the wait.

        Raises:
            ConfigError: the file of the working copy cannot be used.
            StateCorrupt: it is a separate state; or a newer program wrote the state.
        """
        path = str(self._config.state.path)
        check_free(path)
        with ExitStack() as opened:
            held = opened.enter_context(closing(lock(path)))
            self._late = unproven_slots(path)
            page_failure = RepeatedFailure("page.failed", "page.recovered")
            address, doors = doors_of(self._config, self._commands(), lambda **_: self.report(), page_failure)
            for door in doors:
                opened.callback(door.close)
            announce(held, address)
            is_told = False
            while not self._try():
                if not is_told:
                    is_told = True
                    logger().info("service.standing_by", leader=self._leader.host if self._leader else None)
                    systemd.notify(READY=1)
                for door in doors:
                    door.check()
                systemd.notify(WATCHDOG=1, STATUS=self.report().verdict())
                caught = signal.sigtimedwait({*stops, signal.SIGHUP}, self._pause)
                if caught is not None and caught.si_signo in stops:
                    return False
        systemd.loading()
        return True

    def report(self) -> Report:
        """Return who leads, and whether the database answers."""
        config = self._config
        return Report(
            jobs=(),
            endpoints=(
                EndpointReport("state database", str(self._database), self._reached_at, failure_of(self._failure)),
            ),
            state_path=str(config.state.path),
            config_file=config.file,
            pid=os.getpid(),
            started_at=self._started_at,
            leader=self._leader,
            is_standing_by=True,
        )

    @property
    def _pause(self) -> float:
        """Return the time until the next try, in seconds: longer and longer while the database does not answer."""
        failures = self._failure.failures
        if not failures:
            return TRY_SECONDS
        return backoff(failures, random.random(), TAKE_OVER_MOST)  # noqa: S311 - jitter

    def _commands(self) -> dict[str, Command]:
        return {
            "status": lambda _arguments, _report: self.report().document(),
            **dict.fromkeys(("operate", "audit"), self._reject),
            "reload": self._reject_reload,
        }

    def _reject(self, _arguments: Mapping[str, Any], _report: Progress) -> Mapping[str, Any]:
        leader = self._leader.host if self._leader else None
        if leader is None:
            hint = "Repeat the command when a machine leads: see `shipper status`."
            raise StateBusy("ask service: this machine stands by, and knows no leader", hint=hint)
        text = f"ask service: this machine stands by; {leader} works with the state"
        raise StateBusy(text, hint=f"Run the command on {leader}.")

    def _reject_reload(self, _arguments: Mapping[str, Any], _report: Progress) -> Mapping[str, Any]:
        raise StateBusy(
            "reload: this machine stands by, and reads its configuration when it starts",
            hint="Start it again, with the new configuration: systemctl restart shipper",
        )

    def _try(self) -> bool:
        """Try to take the lease; return whether this process leads."""
        try:
            # this machine may have led before: what it sent last goes out once more, by the leader
            if self._late:
                self._database.ask_again(self._late)
                self._late = []
            discard(str(self._config.state.path))
            if self._database.try_to_lead():
                return True
            self._look()
        except StateBusy as error:
            self._failure.failed(error, clock=time.monotonic())
        else:
            self._failure.recovered()
        return False

    def _look(self) -> None:
        """Ask now and then who leads."""
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return
        leadership = self._database.leadership()
        self._looked, self._reached_at = time.monotonic(), time.time()
        self._leader = leader_of(leadership, self._database.standing_by(), self._config.digest)
