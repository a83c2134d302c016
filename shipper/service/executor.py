"""Operations while the service runs: beside captures and deliveries, never beside a reload."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from shipper.core.errors import StateBusy
from shipper.runtime.delivery import Delivery
from shipper.runtime.pipeline import Pipeline
from shipper.runtime.worker import Worker
from shipper.service.control import Progress

DELIVER_SECONDS = 60.0
RESTART_SECONDS = 5.0  # a Carbon that was restarted is found again within this time
LOOK_SECONDS = 0.1


class Executor:
    """Runner of the operations requested at the control socket. For several threads."""

    def __init__(self, pipeline: Pipeline, delivery: Delivery, reloading: threading.Lock) -> None:
        """Take the lock that is held during a reload."""
        self._pipeline, self._delivery, self._reloading = pipeline, delivery, reloading
        self._stopping = threading.Event()

    def do(self, arguments: Mapping[str, Any], report: Progress) -> Mapping[str, Any]:
        """Plan or run an operation: see shipper.operations.registry."""
        # imported late: most services never run an operation
        from shipper.operations.context import OperationContext  # noqa: PLC0415
        from shipper.operations.registry import operate  # noqa: PLC0415

        context = OperationContext(
            self._pipeline, locked=self._locked, report=report, pause=self._pause, deliver=self._deliver
        )
        return operate(context, **arguments)

    def stop(self) -> None:
        """Make running operations end soon."""
        self._stopping.set()

    @contextmanager
    def _locked(self, name: str) -> Iterator[Worker]:
        with self._reloading:
            self._pause(0.0)
            with self._pipeline.locked(name) as worker:
                yield worker

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise StateBusy("run operation: the service is shutting down", hint="Repeat the command afterwards.")

    def _deliver(self) -> bool:
        """Wait until the courier has delivered everything, or deliveries fail; return whether it has.

        The first failures may be over soon: Carbon may have been restarted.
        """
        revision, began = self._pipeline.state.revision, time.monotonic()
        while not (is_done := self._pipeline.courier.has_delivered(revision)):
            patience = DELIVER_SECONDS if self._delivery.failure.error is None else RESTART_SECONDS
            if time.monotonic() - began > patience:
                break
            self._pause(LOOK_SECONDS)
        return is_done
