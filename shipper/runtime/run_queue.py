"""The queue of the captures of one polling group: one thread runs them one after the other, with one commit.

Strategy: one thread is enough. A queue that falls behind gets a second one, which works while the first waits for the
database; more would wait for each other, since Python runs one thread at a time. If a job hangs, another thread
continues with the rest after HELP_SECONDS.
"""

import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

from shipper.core.errors import ShipperError
from shipper.core.model import Observation
from shipper.core.rows.look import TableLook
from shipper.log.logger import RepeatedFailure
from shipper.runtime.worker import CHAPTER_SECONDS, Ended, Worker
from shipper.source.database import Source
from shipper.state.store import State

HELP_SECONDS = 1.0  # a capture that runs longer no longer keeps other threads from the queue
MANY = 20  # entries left when the next round begins that are worth a second thread

Later = Callable[[float, Callable[[], object]], None]
"""Function that schedules a call on another thread, after a delay in seconds."""


class QueueEntry(NamedTuple):
    """A worker that is to capture up to a horizon, and the look at its table."""

    worker: Worker
    horizon: Observation
    look: TableLook


class RunQueue:
    """Workers that are to capture, each up to its horizon. For several threads."""

    def __init__(
        self, source: Source, state: State, committing: RepeatedFailure, break_down: Callable[[], None]
    ) -> None:
        """Start empty; committing logs that captures could not be committed, and break_down stops jobs after a bug."""
        self._source = source
        self._state = state
        self._committing = committing
        self._break_down = break_down
        self._mutex = threading.Lock()
        self._waiting: dict[Worker, QueueEntry] = {}
        self._threads = 0
        """Threads that capture now."""
        self._started = 0.0
        """When the newest capture started."""
        self._is_helped = self._is_behind = False

    def add(self, workers: Collection[Worker], horizon: Observation, look: TableLook) -> None:
        """Add workers; one that waits already gets the new horizon."""
        with self._mutex:
            self._is_behind = len(self._waiting) > MANY
            self._waiting |= {worker: QueueEntry(worker, horizon, look) for worker in workers if not worker.is_broken}

    def keep(self, workers: Collection[Worker]) -> None:
        """Remove all other workers."""
        with self._mutex:
            self._waiting = {worker: entry for worker, entry in self._waiting.items() if worker in workers}

    @property
    def are_waiting(self) -> bool:
        """Whether a worker could capture now."""
        with self._mutex:
            return self._first() is not None

    def late(self, seconds: float) -> int:
        """Return how many workers wait to capture up to a horizon older than a number of seconds."""
        with self._mutex:
            clocks = [entry.horizon.clock for entry in self._waiting.values() if entry.worker.is_ready]
        return sum(time.monotonic() - clock > seconds for clock in clocks)

    def run(self, later: Later | None = None) -> bool:
        """Run the captures, unless enough threads do; return whether none failed.

        With later, a long round gives its thread up after a chapter, and another thread continues if this one hangs.
        """
        # join the threads that capture, unless there are enough and none of them hangs
        with self._mutex:
            enough = 2 if self._is_behind else 1
            is_taken = self._threads >= enough and time.monotonic() - self._started < HELP_SECONDS
            self._threads += not is_taken
            # entries behind this thread's first capture, or behind the other threads, must not wait for ever
            needs_help = not self._is_helped and len(self._waiting) > (0 if is_taken else 1)
            self._is_helped |= needs_help and later is not None
        if later is not None and needs_help:
            later(HELP_SECONDS, partial(self._help, later))
        if is_taken:
            return True

        # capture on one connection, with a common commit
        commits = self._state.commits
        try:
            with self._source.held(), self._state.gathering():
                has_succeeded = self._run_captures(later)
        except ShipperError as error:
            self._committing.failed(error, clock=time.monotonic())
            return False
        except Exception:  # noqa: BLE001 - as in Worker.capture
            self._break_down()
            return False
        if self._state.commits != commits:  # else there was nothing to commit
            self._committing.recovered()
        return has_succeeded

    def _help(self, later: Later) -> None:
        """Continue with the queue if the thread that runs it hangs."""
        with self._mutex:
            self._is_helped = False
        self.run(later)

    def _run_captures(self, later: Later | None) -> bool:
        """Run captures until the queue is empty or a chapter is over; return whether none failed."""
        began, has_succeeded = time.monotonic(), True
        while (entry := self._next()) is not None:
            ended = entry.worker.capture(entry.horizon, entry.look)
            has_succeeded &= ended is not Ended.FAILED
            with self._mutex:
                if ended is Ended.LEFT:  # unless a newer horizon has come meanwhile
                    self._waiting.setdefault(entry.worker, entry)
                if later is None or time.monotonic() - began < CHAPTER_SECONDS:
                    continue
                self._threads -= 1
            later(0.0, partial(self.run, later))
            break
        return has_succeeded

    def _next(self) -> QueueEntry | None:
        """Take the next entry; None when no worker is ready, and this thread has left."""
        with self._mutex:
            entry = self._first()
            if entry is None:
                self._threads -= 1
                return None
            self._started = time.monotonic()
            return self._waiting.pop(entry.worker)

    def _first(self) -> QueueEntry | None:
        return next((entry for worker, entry in self._waiting.items() if worker.is_ready), None)
