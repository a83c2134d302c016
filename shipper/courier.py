"""Core. The second sentence: send the totals that changed, commit, and send again until they are proven.

Strategy: every record gives its totals a new *revision*. A round is about the changed totals with a revision in
(after, upto]; one that changes meanwhile has moved to a later revision and so to a later round. So all that has
to be remembered of what was sent is a few ranges of revisions, in memory only: after a restart every total that
is not proven is simply sent again.

Rounds form a stack, the newest on top, and each sends its newest slots first: a catch-up never delays another
job's current minute. A job's watermark moves once all its totals of a round are confirmed and no older round
still holds one.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from shipper.errors import DeliveryFailed
from shipper.fold import oldest_fine
from shipper.model import Archive, Changed, Note
from shipper.render import line

BACKOFF_FIRST, BACKOFF_MOST = 0.25, 4.0  # seconds; the first delivery follows Carbon's return within 5 s
UNSETTLED = -1  # the stage of what a failure has put in doubt: sent again at once, before its replays are counted

NEIGHBOUR_SECONDS = 5.0  # rounds that follow each other so closely are replayed as one: memory stays small


class Outbox(Protocol):
    """What the courier needs of the state."""

    def note(self, after: int, upto: int | None = None) -> Note:
        """Note, in one look, what changed with a revision in (after, upto], and which watermarks are behind.

        Without upto, up to the newest revision.
        """

    def changed(self, slot: int, step: int, *, after: int, upto: int, beyond: int, limit: int) -> list[Changed]:
        """Return, by series, the changed totals of one slot with a revision in (after, upto], series > beyond."""

    def commit(self, watermarks: Mapping[str, int]) -> None:
        """Store watermarks durably; none moves back."""

    def prove(self, *, after: int, upto: int, step: int, oldest: int) -> None:
        """Hold what still has a revision in (after, upto] for delivered for good, from a slot on."""


class Carrier(Protocol):
    """What the courier needs of Carbon."""

    def deliver(self, lines: bytes) -> None:
        """Return when Carbon has read all lines.

        Raises:
            DeliveryFailed: it is unknown whether Carbon has read them.
        """

    def is_alive(self) -> bool:
        """Is the Carbon that confirmed the last batch still the same process?"""


class Place(NamedTuple):
    """One slot, and how far into its series we have come."""

    slot: int
    step: int
    beyond: int = 0


@dataclass(slots=True)
class Sent:
    """Revisions (after, upto] that were confirmed, and when they are sent again; monotonic seconds."""

    after: int
    upto: int
    stage: int
    """How many replays lie behind it."""
    confirmed: float
    due: float


@dataclass(slots=True)
class Round:
    """Changed totals on their way: revisions (after, upto], place by place."""

    after: int
    upto: int
    places: deque[Place]
    replays: Sent | None = None
    """What it sends again; None when it goes out for the first time."""
    captured: Mapping[str, int] = field(default_factory=dict)
    """Of each job whose watermark is behind: captured as it stood when the round began."""
    remaining: Counter[str] = field(default_factory=Counter)
    """How many totals of each job are not yet confirmed, as noted."""
    in_doubt: bool = False


class Delivered(NamedTuple):
    """What one step brought."""

    datapoints: int
    watermarks: Mapping[str, int]
    is_replay: bool


class Courier:
    """Delivers for all jobs, one batch a step. Not for several threads."""

    def __init__(
        self, outbox: Outbox, carrier: Carrier, *, archive: Archive, batch: int, replay: Sequence[float]
    ) -> None:
        """Replay is how long after the first confirmation to send again, seconds; () believes a confirmation."""
        self._outbox = outbox
        self._carrier = carrier
        self._archive = archive
        self._batch = batch
        self._replay = replay
        self._noted = 0  # the newest revision that belongs to a round
        self._rounds: list[Round] = []
        self._sent: list[Sent] = []
        self._held: set[str] = set()  # jobs with a total that has grown too old for the finest archive

    def step(self, *, now: int, clock: float) -> Delivered | None:
        """Deliver one batch and commit what it completes; None when nothing is waiting.

        Raises:
            DeliveryFailed: Carbon did not confirm; the next step sends the batch again, with newer values.
        """
        if self._sent and not self._carrier.is_alive():
            self._doubt(clock)
        watermarks = self._note(now)
        if not self._rounds:
            self._resume(now, clock)
        if not self._rounds:
            if not watermarks:
                return None
            self._outbox.commit(watermarks)
            return Delivered(0, watermarks, is_replay=False)

        # one batch of the newest round
        current = self._rounds[-1]
        batch, jobs, left = self._load(current)
        if batch:
            try:
                self._carrier.deliver(b"".join(batch))
            except DeliveryFailed:
                self._doubt(clock)
                raise

        # confirmed: go on behind it, and commit what it completes
        current.places = left
        watermarks |= self._completed(current, jobs)
        if watermarks:
            self._outbox.commit(watermarks)
        if not current.places:
            self._finish(current, now, clock)
        return Delivered(len(batch), watermarks, is_replay=current.replays is not None)

    def delay(self, clock: float) -> float | None:
        """Return the seconds until something is to be sent again, None when nothing is."""
        return max(0.0, min(sent.due for sent in self._sent) - clock) if self._sent else None

    def _note(self, now: int) -> dict[str, int]:
        """Open a round for what changed; return the watermarks that need nothing sent."""
        note = self._outbox.note(self._noted)
        oldest = oldest_fine(self._archive, now)
        self._held.update(waiting.job for waiting in note.waiting if waiting.slot < oldest)
        if note.waiting:
            remaining = Counter[str]()
            for waiting in note.waiting:
                remaining[waiting.job] += waiting.totals
            places = self._places(note, now)
            self._rounds.append(Round(self._noted, note.upto, places, None, note.captured, remaining))
        self._noted = note.upto
        return {job: captured for job, captured in note.captured.items() if not self._is_busy(job)}

    def _resume(self, now: int, clock: float) -> None:
        """Open a round for what is due to be sent again."""
        due = min(self._sent, key=lambda sent: sent.due, default=None)
        if due is None or due.due > clock:
            return
        self._sent.remove(due)
        note = self._outbox.note(due.after, due.upto)
        self._rounds.append(Round(due.after, due.upto, self._places(note, now), due))

    def _places(self, note: Note, now: int) -> deque[Place]:
        oldest = oldest_fine(self._archive, now)
        places = dict.fromkeys(Place(waiting.slot, waiting.step) for waiting in note.waiting)
        return deque(place for place in places if place.slot >= oldest)

    def _load(self, current: Round) -> tuple[list[bytes], Counter[str], deque[Place]]:
        """Return the lines of the next batch, how many each job has in it, and the places left after it."""
        lines: list[bytes] = []
        jobs = Counter[str]()
        left = deque(current.places)
        while left and len(lines) < self._batch:
            slot, step, beyond = left.popleft()
            room = self._batch - len(lines)
            changed = self._outbox.changed(
                slot, step, after=current.after, upto=current.upto, beyond=beyond, limit=room
            )
            lines += (line(total.path, total.value, slot) for total in changed)
            jobs.update(total.job for total in changed)
            if len(changed) == room:
                left.appendleft(Place(slot, step, changed[-1].series))
        return lines, jobs, left

    def _completed(self, current: Round, jobs: Counter[str]) -> dict[str, int]:
        """Return the watermarks of jobs whose last waiting total has just been confirmed."""
        current.remaining -= jobs  # keeps what is above 0
        return {job: current.captured[job] for job in jobs if job in current.captured and not self._is_busy(job)}

    def _is_busy(self, job: str) -> bool:
        return job in self._held or any(job in waiting.remaining for waiting in self._rounds)

    def _finish(self, current: Round, now: int, clock: float) -> None:
        """Take a round off the stack, and plan its next replay or call it proven."""
        self._rounds.remove(current)
        before = current.replays
        if current.in_doubt:
            self._send_again(Sent(current.after, current.upto, UNSETTLED, clock, clock))
            return
        stage = 0 if before is None else before.stage + 1
        if stage == len(self._replay):
            oldest = oldest_fine(self._archive, now)
            self._outbox.prove(after=current.after, upto=current.upto, step=self._archive.step, oldest=oldest)
            return
        confirmed = clock if before is None or before.stage == UNSETTLED else before.confirmed
        self._send_again(Sent(current.after, current.upto, stage, confirmed, confirmed + self._replay[stage]))

    def _send_again(self, sent: Sent) -> None:
        """Remember what is to be sent again, as one with its neighbour where both are due at about the same time."""
        for other in self._sent:
            if other.upto == sent.after and other.stage == sent.stage and sent.due - other.due <= NEIGHBOUR_SECONDS:
                other.upto, other.confirmed, other.due = sent.upto, sent.confirmed, sent.due
                return
        self._sent.append(sent)

    def _doubt(self, clock: float) -> None:
        """Send again, before anything else counts, what was confirmed within the last replay step."""
        for sent in self._sent:
            sent.stage, sent.due = UNSETTLED, clock
        for current in self._rounds:
            current.in_doubt = True


def backoff(failures: int, jitter: float) -> float:
    """Return how many seconds to wait after so many failures in a row; 0 <= jitter < 1 spreads the callers."""
    longest = min(BACKOFF_MOST, BACKOFF_FIRST * float(2 ** min(failures - 1, 10)))
    return longest * (0.5 + jitter / 2)
