"""Rounds, and the schedule of their proofs: when a confirmed round is sent again or read back, and when it is proven.

Strategy: only ranges of revisions are remembered of what was sent, each with its next replay or reading. A replay to a
Carbon that has stayed alive proves a total; so does the value itself, where it can be read back. If Graphite lacks
values that it should hold, that is an *alarm*: all unproven totals must be read back, until none is lacking. Whether
rounds are replayed or read back, runtime/pipeline.py says.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shipper.core.delivery.outbox import INVALIDATED, Pending, Replay
from shipper.core.retry import MINUTE, READ_SECONDS, TRIES, minutes_to_create, reread_delay

NEIGHBOUR_SECONDS = 5.0
"""Span of time within which rounds that are confirmed share one replay, so that the schedule stays short."""


class Difference(NamedTuple):
    """A value that Graphite does not hold as it was sent."""

    path: str
    slot: int
    expected: float
    found: float | None
    """None where Graphite holds nothing."""


class Cursor(NamedTuple):
    """A slot of one archive, and how far its series are sent: those up to beyond."""

    slot: int
    step: int
    beyond: int = 0


@dataclass(slots=True)
class Round:
    """Changed totals on their way to Graphite: those with a revision in (after, upto]."""

    after: int
    upto: int
    cursors: deque[Cursor]
    """Slots that are not sent completely yet, newest first."""
    replay: Replay | None = None
    """The replay that this round carries out; None when its totals are sent for the first time."""
    captured: Mapping[str, int] = field(default_factory=dict)
    """Captured id, by job whose watermark is behind, when the round was opened."""
    remaining: Counter[str] = field(default_factory=Counter)
    """Number of unconfirmed totals, by job, as counted when the round was opened."""
    is_invalidated: bool = False
    """Whether Carbon has died or failed since the round was opened, so that its confirmations count for nothing."""
    is_begun: bool = False
    """Whether a batch of it has been confirmed."""
    proven: int = 0
    """Number of its totals that were read back as they were sent."""
    differing: list[Difference] = field(default_factory=list)
    """Totals that were read back and differ."""
    slots: Sequence[int] = ()
    """The newest slot of each job, newest first: candidates for a sample."""

    @property
    def reads(self) -> bool:
        """Whether it is read back, instead of sent."""
        return self.replay is not None and self.replay.reads


def newest_of(pending: Pending, step: int) -> list[int]:
    """Return the newest slot of each job that has one with that step, newest first."""
    slots: dict[str, int] = {}
    for waiting in pending.waiting:
        if waiting.step == step:
            slots.setdefault(waiting.job, waiting.slot)
    return sorted(set(slots.values()), reverse=True)


def cursors_of(pending: Pending) -> deque[Cursor]:
    """Return a cursor for each slot with waiting totals, newest first."""
    return deque(dict.fromkeys(Cursor(waiting.slot, waiting.step) for waiting in pending.waiting))


class Proofs:
    """Schedule of replays and readings. Times are of the monotonic clock, in seconds."""

    def __init__(self, replay: Sequence[float], *, reads_back: bool, schedule: Sequence[Replay], replayed: int) -> None:
        """Set up a schedule; replay is the delays from the first confirmation to each replay.

        Totals up to the revision `replayed` are always sent again: another process may yet send older ones over them.
        """
        self.schedule = list(schedule)
        self.is_alarmed = False
        """Whether Graphite is known to lack values that were sent."""
        self.is_held = False
        """Whether replays are held, and prove nothing: a value differs, and is about to be read again."""
        self._replay = replay
        self._reads_back = reads_back
        self._replayed = replayed

    @property
    def upto(self) -> int:
        """Return the newest revision in the schedule, 0 if it is empty."""
        return max((one.upto for one in self.schedule), default=0)

    def delay(self, clock: float) -> float | None:
        """Return the delay until the next replay is due, in seconds; None when none is scheduled."""
        return min((max(0.0, one.due - clock) for one in self.schedule if self._may_start(one)), default=None)

    def due(self, clock: float) -> list[Replay]:
        """Return the replays that are due, the oldest first."""
        replays = (one for one in self.schedule if one.due <= clock and self._may_start(one))
        return sorted(replays, key=lambda replay: replay.due)

    def confirm(self, current: Round, clock: float, *, new_series: int) -> bool:
        """Schedule what follows the confirmation of a complete round; return True if that proves it.

        Carbon may not have created new_series series yet, some of them of this round.
        """
        before = current.replay
        is_first = before is None or before.stage == INVALIDATED
        stage = 0 if before is None or is_first else before.stage

        # Carbon has died since the round was opened: its confirmations are void, and all of it goes again at once
        if current.is_invalidated:
            self._add(Replay(current.after, current.upto, INVALIDATED, clock, clock))
        # the values themselves are proof, as soon as Carbon has created the files of new series
        elif (self._reads_back and current.after >= self._replayed) or self.is_alarmed:
            self._add(Replay(current.after, current.upto, stage, clock, clock + READ_SECONDS, reads=True))
        # Carbon silently drops datapoints of new series beyond a number a minute: replays count once it can have
        # created all of them, until then the round is repeated each minute
        else:
            repeats = before.repeats - 1 if before else 0
            if is_first:
                repeats = minutes_to_create(new_series) - 1
            return self._add_replay(current, stage, clock, is_first=is_first, repeats=repeats)
        return False

    def finish_reading(self, current: Round, clock: float) -> bool:
        """Schedule what follows the reading of a round; return whether its differences are to be reported."""
        replay = current.replay
        assert replay is not None
        if current.is_invalidated:
            self._add(Replay(current.after, current.upto, INVALIDATED, clock, clock))
        elif current.differing:
            # Values differ: they are sent and read again. A try counts only if it proved nothing: Carbon may be
            # creating the series, some more each minute. The stage is never 0 again, so that the alarm lasts as long
            # as a value is known to be lacking.
            stage = max(1, replay.stage if current.proven else replay.stage + 1)
            self._add(Replay(current.after, current.upto, stage, clock, clock + reread_delay(stage)))
            is_reported = stage == TRIES and not current.proven
            self.is_alarmed |= is_reported
            return is_reported
        elif self.is_alarmed and all(one.stage == 0 for one in self.schedule):
            self._end_alarm()
        return False

    def alarm(self, clock: float) -> None:
        """Schedule to read all unproven totals back now: Graphite lacks values, and nothing says which others."""
        self.is_alarmed = True
        for one in self.schedule:  # none stays at stage 0: the alarm lasts until each was read
            one.stage, one.due, one.repeats, one.reads = 1, clock, 0, True

    def postpone(self, current: Round, clock: float) -> None:
        """Schedule to read a round later, from its beginning: Graphite does not answer."""
        replay = current.replay
        assert replay is not None
        self.schedule.append(replay)
        for one in self.schedule:  # other readings would not be answered either, and each would wait for the timeout
            if one.reads:
                one.due = max(one.due, clock + MINUTE)

    def invalidate(self, clock: float) -> None:
        """Schedule to send all unproven totals again at once; their confirmations count for nothing."""
        self.resend(0, self.upto, clock)

    def resend(self, after: int, upto: int, clock: float) -> None:
        """Schedule to send the totals with a revision in (after, upto] again at once."""
        for one in self.schedule:
            if one.after < upto and after < one.upto:
                one.stage, one.due, one.repeats, one.reads = INVALIDATED, clock, 0, False

    def _may_start(self, replay: Replay) -> bool:
        # those that send what Carbon may have lost, or not have created, prove nothing: they are never held
        return not self.is_held or replay.stage == INVALIDATED or replay.repeats > 0

    def _end_alarm(self) -> None:
        """Return to replays, unless all is read back by configuration."""
        self.is_alarmed = False
        for one in self.schedule:
            if not self._reads_back:
                one.due, one.reads = one.confirmed + self._replay[0], False

    def _add_replay(self, current: Round, stage: int, clock: float, *, is_first: bool, repeats: int) -> bool:
        """Schedule the next replay of a confirmed round; return True if that was the last."""
        before = current.replay
        if repeats > 0:  # each minute, as often as Carbon needs to create the new series
            self._add(Replay(current.after, current.upto, stage, clock, clock + MINUTE, repeats))
            return False

        # the delays of [graphite] replay run from the first confirmation that counts
        was_repeated = before is not None and before.repeats > 0
        confirmed = clock if is_first or was_repeated or before is None else before.confirmed
        stage = stage if is_first or was_repeated else stage + 1
        if stage == len(self._replay):
            return True
        self._add(Replay(current.after, current.upto, stage, confirmed, confirmed + self._replay[stage]))
        return False

    def _add(self, replay: Replay) -> None:
        """Schedule a replay, as one with its neighbour where both are due at about the same time."""
        # Cells of time, not distances: in steady traffic each round has a neighbour, and one replay that took in all of
        # them would never become due.
        cell = replay.confirmed // NEIGHBOUR_SECONDS
        key = (replay.after, replay.stage, replay.reads, replay.repeats > 0, cell)
        for other in self.schedule:
            if key == (other.upto, other.stage, other.reads, other.repeats > 0, other.confirmed // NEIGHBOUR_SECONDS):
                other.upto, other.confirmed, other.due = replay.upto, replay.confirmed, replay.due
                other.repeats = max(other.repeats, replay.repeats)
                return
        self.schedule.append(replay)
