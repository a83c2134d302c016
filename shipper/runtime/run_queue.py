"""Whose turn it is to capture: one thread takes the jobs of a polling_group one after the other, with one commit.

Strategy: one thread is enough; where it falls behind, two are, of which one works while the other waits for the
database. More would wait for each other, since Python runs one at a time. Should a job hang, another thread goes on
with the rest after a moment.
"""

import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

from shipper.core.errors import ShipperError
from shipper.core.model import Observation
from shipper.core.rows.look import TableLook
from shipper.log import RepeatedFailure
from shipper.runtime.worker import CHAPTER_SECONDS, Ended, Worker
from shipper.source.database import Source
from shipper.state.store import State

HELP_SECONDS = 1.0  # a turn that takes longer is not waited for
MANY = 20  # so many that still wait when the next round begins are a second thread worth

Later = Callable[[float, Callable[[], None]], None]
"""Call something once, in so many seconds, on another thread."""


class QueueEntry(NamedTuple):
    """Whose turn it is to capture, up to where, with what was seen of the table."""

    worker: Worker
    horizon: Observation
    look: TableLook


class RunQueue:
    """Workers that are to capture, each up to its horizon. For several threads."""

    def __init__(self, source: Source, state: State, committing: RepeatedFailure) -> None:
        """Committing tells when what was captured cannot be made durable."""
        self._source = source
        self._state = state
        self._committing = committing
        self._mutex = threading.Lock()
        self._waiting: dict[Worker, QueueEntry] = {}
        self._threads, self._turned = 0, 0.0  # that capture now; when the last turn began
        self._is_helped = self._is_behind = False

    def give(self, workers: Collection[Worker], horizon: Observation, look: TableLook) -> None:
        """Let workers have a turn; who waits for one already goes further with it."""
        with self._mutex:
            self._is_behind = len(self._waiting) > MANY
            self._waiting |= {worker: QueueEntry(worker, horizon, look) for worker in workers if not worker.is_broken}

    def keep(self, workers: Collection[Worker]) -> None:
        """Forget all others."""
        with self._mutex:
            self._waiting = {worker: turn for worker, turn in self._waiting.items() if worker in workers}

    @property
    def are_waiting(self) -> bool:
        """Could somebody capture now?"""
        with self._mutex:
            return self._first() is not None

    def late(self, seconds: float) -> int:
        """Return how many wait for their turn to capture what was seen so long ago."""
        with self._mutex:
            clocks = [turn.horizon.clock for turn in self._waiting.values() if turn.worker.is_willing]
        return sum(time.monotonic() - clock > seconds for clock in clocks)

    def take(self, later: Later | None = None) -> bool:
        """Capture for one after the other, unless another thread does; return whether none failed.

        With later a long round gives its thread up after a while, and there is help when it hangs.
        """
        with self._mutex:
            enough = 2 if self._is_behind else 1
            is_taken = self._threads >= enough and time.monotonic() - self._turned < HELP_SECONDS
            self._threads += not is_taken
            # who waits behind this thread's first turn, or behind the others, must not wait for ever
            needs_help = not self._is_helped and len(self._waiting) > (0 if is_taken else 1)
            self._is_helped |= needs_help and later is not None
        if later is not None and needs_help:
            later(HELP_SECONDS, partial(self._help, later))
        if is_taken:
            return True
        commits = self._state.commits
        try:
            with self._source.held(), self._state.gathering():
                is_good = self._captures(later)
        except ShipperError as error:
            self._committing.failed(error, clock=time.monotonic())
            return False
        if self._state.commits != commits:  # else there was nothing to make durable
            self._committing.recovered()
        return is_good

    def _help(self, later: Later) -> None:
        """Go on with what waits, if the thread that does has hung."""
        with self._mutex:
            self._is_helped = False
        self.take(later)

    def _captures(self, later: Later | None) -> bool:
        began, is_good = time.monotonic(), True
        while (turn := self._next()) is not None:
            ended = turn.worker.capture(turn.horizon, turn.look)
            is_good &= ended is not Ended.FAILED
            with self._mutex:
                if ended is Ended.LEFT:
                    self._waiting.setdefault(turn.worker, turn)
                if later is None or time.monotonic() - began < CHAPTER_SECONDS:
                    continue
                self._threads -= 1
            later(0.0, partial(self._resume, later))
            break
        return is_good

    def _resume(self, later: Later) -> None:
        self.take(later)

    def _next(self) -> QueueEntry | None:
        """Return whose turn it is; None when it is nobody's, and this thread is done."""
        with self._mutex:
            turn = self._first()
            if turn is None:
                self._threads -= 1
                return None
            self._turned = time.monotonic()
            return self._waiting.pop(turn.worker)

    def _first(self) -> QueueEntry | None:
        return next((turn for worker, turn in self._waiting.items() if worker.is_willing), None)
