"""Bugs: exceptions that no code expects. No part that counts or delivers stays away while the process lives."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from shipper.core.errors import PermanentError, ShipperError
from shipper.log.logger import RepeatedFailure, logger


def end_process() -> None:
    """Log the current exception, and let the main thread end the service as a stop does."""
    try:
        logger().critical("service.failed", exc_info=True)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def contained(failure: RepeatedFailure) -> Iterator[None]:
    """Log a bug in a block that only reports about the service: the service continues.

    Raises:
        ShipperError: any that the block raises.
    """
    try:
        yield
    except ShipperError:
        raise
    except Exception as error:  # noqa: BLE001 - of any kind
        hint = "Report the traceback of status.failed in the log: journalctl -u shipper"
        problem = PermanentError(f"send the status: {type(error).__name__}: {error}", hint=hint)
        failure.failed(problem, clock=time.monotonic(), exc_info=True)
    else:
        failure.recovered()


def log_thread(bug: threading.ExceptHookArgs) -> None:
    """Log the bug that ended a thread."""
    if bug.exc_value is not None:
        name = bug.thread.name if bug.thread else None
        logger().critical("thread.failed", thread=name, exc_info=bug.exc_value)
