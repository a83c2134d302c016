"""What was confirmed is not proven yet: when it is sent again, or read back, and when that is enough.

Strategy: of what was sent only ranges of revisions are remembered, each with what is to come next. A replay that Carbon
has survived proves; so does the value itself, where it can be read back. When Graphite is found to lack something, that
is an *alarm*: whatever is not proven must be read back, until nothing is lacking any more.

What the courier has on its way: a round, and the places that it still has to visit.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shipper.core.model import INVALIDATED, Pending, Replay
from shipper.core.retry import MINUTE, READ_SECONDS, TRIES, minutes_to_create, reread_delay


class Difference(NamedTuple):
    """A value that Graphite does not hold as it was sent."""

    path: str
    slot: int
    expected: float
    found: float | None
    """None where it holds nothing."""


class Cursor(NamedTuple):
    """One slot of one archive, and how far into its series we have come."""

    slot: int
    step: int
    beyond: int = 0


@dataclass(slots=True)
class Round:
    """Changed totals on their way: revisions (after, upto], place by place."""

    after: int
    upto: int
    places: deque[Cursor]
    replays: Replay | None = None
    """What it sends again; None when it goes out for the first time."""
    captured: Mapping[str, int] = field(default_factory=dict)
    """Of each job whose watermark is behind: captured as it stood when the round began."""
    remaining: Counter[str] = field(default_factory=Counter)
    """How many totals of each job are not yet confirmed, as noted."""
    in_doubt: bool = False
    is_begun: bool = False
    """Has a batch of it been confirmed?"""
    proven: int = 0
    """How many of its totals were read back as they were sent."""
    differing: list[Difference] = field(default_factory=list)
    """The others, until they are reported."""
    slots: Sequence[int] = ()
    """The newest slot of each job, newest first: what a sample of it is taken from."""

    @property
    def reads(self) -> bool:
        """Is it read back, instead of sent?"""
        return self.replays is not None and self.replays.reads


def newest_of(note: Pending, step: int) -> list[int]:
    """Return the newest slot of each job that has one of so many seconds, newest first."""
    slots: dict[str, int] = {}
    for waiting in note.waiting:
        if waiting.step == step:
            slots.setdefault(waiting.job, waiting.slot)
    return sorted(set(slots.values()), reverse=True)


def cursors_of(note: Pending) -> deque[Cursor]:
    """Return the places of what waits, in the note's order: newest first."""
    return deque(dict.fromkeys(Cursor(waiting.slot, waiting.step) for waiting in note.waiting))


NEIGHBOUR_SECONDS = 5.0  # rounds confirmed within the same such span are replayed as one: memory stays small


class Proofs:
    """What is to be sent or read again. Times are of the monotonic clock, seconds."""

    def __init__(self, replay: Sequence[float], *, reads_back: bool, sent: Sequence[Replay] = ()) -> None:
        """Replay is how long after the first confirmation to send again."""
        self.sent = list(sent)
        self.is_alarmed = False
        """Whether Graphite is known to lack what was sent."""
        self.is_held = False
        """Whether no replay may prove for now: something differs, and is looked at again."""
        self._replay = replay
        self._reads_back = reads_back

    @property
    def upto(self) -> int:
        """Return the newest revision among them, 0 if there is none."""
        return max((one.upto for one in self.sent), default=0)

    def delay(self, clock: float) -> float | None:
        """Return the seconds until something is due, None when nothing ever is."""
        return min((max(0.0, one.due - clock) for one in self.sent if self._may_go(one)), default=None)

    def due(self, clock: float) -> list[Replay]:
        """Return what is due, the oldest first."""
        found = (one for one in self.sent if one.due <= clock and self._may_go(one))
        return sorted(found, key=lambda sent: sent.due)

    def confirmed(self, current: Round, clock: float, *, new_series: int) -> bool:
        """Plan what follows the confirmation of a whole round; return True if that was proof enough.

        So many series may not be made yet, some of them its own: Carbon makes a few a minute only.
        """
        before = current.replays
        is_first = before is None or before.stage == INVALIDATED
        stage = 0 if before is None or is_first else before.stage
        if current.in_doubt:
            self._plan(Replay(current.after, current.upto, INVALIDATED, clock, clock))
        elif self._reads_back or self.is_alarmed:
            self._plan(Replay(current.after, current.upto, stage, clock, clock + READ_SECONDS, reads=True))
        else:
            repeats = before.repeats - 1 if before else 0
            if is_first:
                repeats = minutes_to_create(new_series) - 1
            return self._replayed(current, stage, clock, is_first=is_first, repeats=repeats)
        return False

    def was_read(self, current: Round, clock: float) -> bool:
        """Plan what follows when a round was read back; return whether its rest is to be reported."""
        sent = current.replays
        assert sent is not None
        if current.in_doubt:
            self._plan(Replay(current.after, current.upto, INVALIDATED, clock, clock))
        elif current.differing:
            # never 0 again: as long as something was found to be lacking, the alarm goes on
            stage = max(1, sent.stage if current.proven else sent.stage + 1)
            self._plan(Replay(current.after, current.upto, stage, clock, clock + reread_delay(stage)))
            is_told = stage == TRIES and not current.proven
            self.is_alarmed |= is_told
            return is_told
        elif self.is_alarmed and all(one.stage == 0 for one in self.sent):
            self._calm()
        return False

    def alarm(self, clock: float) -> None:
        """Have all read back that is not proven: Graphite lacks something, and nobody knows what else."""
        self.is_alarmed = True
        for one in self.sent:  # none of them at stage 0: until each was read the alarm goes on
            one.stage, one.due, one.repeats, one.reads = 1, clock, 0, True

    def postpone(self, current: Round, clock: float) -> None:
        """Plan to read a round back later, from its beginning: nobody answers now."""
        sent = current.replays
        assert sent is not None
        self.sent.append(sent)
        for one in self.sent:  # who does not answer now would not answer for the others either
            if one.reads:
                one.due = max(one.due, clock + MINUTE)

    def invalidate(self, clock: float) -> None:
        """Plan to send again, before anything else counts, what was confirmed and is not proven."""
        self.resend(0, self.upto, clock)

    def resend(self, after: int, upto: int, clock: float) -> None:
        """Do so with what has a revision in (after, upto]."""
        for one in self.sent:
            if one.after < upto and after < one.upto:
                one.stage, one.due, one.repeats, one.reads = INVALIDATED, clock, 0, False

    def _may_go(self, sent: Replay) -> bool:
        return not self.is_held or sent.stage == INVALIDATED

    def _calm(self) -> None:
        """Go on with replays."""
        self.is_alarmed = False
        for one in self.sent:
            if not self._reads_back:
                one.due, one.reads = one.confirmed + self._replay[0], False

    def _replayed(self, current: Round, stage: int, clock: float, *, is_first: bool, repeats: int) -> bool:
        before = current.replays
        if repeats > 0:  # each minute, as often as Carbon needs to make the new series
            self._plan(Replay(current.after, current.upto, stage, clock, clock + MINUTE, repeats))
            return False
        was_repeated = before is not None and before.repeats > 0
        confirmed = clock if is_first or was_repeated or before is None else before.confirmed
        stage = stage if is_first or was_repeated else stage + 1
        if stage == len(self._replay):
            return True
        self._plan(Replay(current.after, current.upto, stage, confirmed, confirmed + self._replay[stage]))
        return False

    def _plan(self, sent: Replay) -> None:
        """Remember it, as one with its neighbour where both are due at about the same time."""
        cell = sent.confirmed // NEIGHBOUR_SECONDS
        key = (sent.after, sent.stage, sent.reads, sent.repeats > 0, cell)
        for other in self.sent:
            if key == (other.upto, other.stage, other.reads, other.repeats > 0, other.confirmed // NEIGHBOUR_SECONDS):
                other.upto, other.confirmed, other.due = sent.upto, sent.confirmed, sent.due
                other.repeats = max(other.repeats, sent.repeats)
                return
        self.sent.append(sent)
