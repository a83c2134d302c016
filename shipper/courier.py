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
from typing import NamedTuple, Protocol

from shipper.errors import DeliveryFailed
from shipper.fold import oldest_fine
from shipper.model import DOUBTED, Archive, Changed, Note, Sent
from shipper.render import line
from shipper.rounds import Place, Round, places_of

BACKOFF_FIRST, BACKOFF_MOST = 0.25, 4.0  # seconds; the first delivery follows Carbon's return within 5 s

LOOK_AGAIN_SECONDS = 3600.0  # until stranded totals are looked at again: a wrong clock may have made them so
NEIGHBOUR_SECONDS = 5.0  # rounds confirmed within the same such span are replayed as one: memory stays small


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


class Delivered(NamedTuple):
    """What one step brought."""

    datapoints: int
    watermarks: Mapping[str, int]
    is_replay: bool


class Courier:
    """Delivers for all jobs, one batch a step. Not for several threads."""

    def __init__(
        self,
        outbox: Outbox,
        carrier: Carrier,
        *,
        archive: Archive,
        batch: int,
        replay: Sequence[float],
        sent: Sequence[Sent] = (),
    ) -> None:
        """Replay is how long after the first confirmation to send again, seconds; () believes a confirmation.

        sent is what an earlier courier had delivered up to its end; without it all that is not proven goes again.
        """
        self.restarts = 0
        """How often Carbon was found to be another process than the one that had confirmed."""
        self.stranded: set[str] = set()
        """Jobs with an undelivered total that has grown too old for the finest archive."""
        self._outbox = outbox
        self._carrier = carrier
        self._archive = archive
        self._batch = batch
        self._replay = replay
        self._noted = max((one.upto for one in sent), default=0)  # the newest revision that belongs to a round
        self._rounds: list[Round] = []
        self._sent = list(sent)
        self._has_witness = False
        self._look_again = 0.0

    def step(self, *, now: int, clock: float) -> Delivered | None:
        """Deliver one batch and commit what it completes; None when nothing is waiting.

        Raises:
            DeliveryFailed: Carbon did not confirm; the next step sends the batch again, with newer values.
        """
        oldest = oldest_fine(self._archive, now)
        self._look_around(clock)
        watermarks = self._note(oldest)
        if not self._rounds:
            self._resume(oldest, clock)
        if not self._rounds:
            if not watermarks:
                return None
            self._outbox.commit(watermarks)
            return Delivered(0, watermarks, is_replay=False)

        # one batch of the newest round
        current = self._rounds[-1]
        batch, jobs, left = self._load(current, oldest)
        if batch:
            try:
                self._carrier.deliver(b"".join(batch))
            except DeliveryFailed:
                self._doubt(clock)
                raise
            self._has_witness = current.is_begun = True

        # confirmed: go on behind it, and commit what it completes
        current.places = left
        watermarks |= self._completed(current, jobs)
        if watermarks:
            self._outbox.commit(watermarks)
        if not current.places:
            self._finish(current, clock)
        return Delivered(len(batch), watermarks, is_replay=current.replays is not None)

    def delay(self, clock: float) -> float | None:
        """Return the seconds until something is to be sent again, None when nothing is."""
        return max(0.0, min(sent.due for sent in self._sent) - clock) if self._sent else None

    def sent(self) -> list[Sent]:
        """Return what was delivered and is to be sent again; nothing while something still waits for the first time."""
        return [] if self._rounds or self.stranded else list(self._sent)

    def _look_around(self, clock: float) -> None:
        """See whether Carbon has died, and from time to time whether what is stranded still is."""
        if self._has_witness and not self._carrier.is_alive():
            self.restarts += 1
            self._doubt(clock)
        if not self.stranded:
            self._look_again = clock + LOOK_AGAIN_SECONDS
        elif clock >= self._look_again and not self._rounds:
            self.stranded, self._sent, self._noted = set(), [], 0

    def _note(self, oldest: int) -> dict[str, int]:
        """Open a round for what changed; return the watermarks that need nothing sent."""
        note = self._outbox.note(self._noted)
        if note.waiting:
            after, in_doubt = self._noted, False
            # a round that waits for Carbon grows; only one that is under way gets another on top of it
            if self._rounds and not self._rounds[-1].is_begun and self._rounds[-1].replays is None:
                after, in_doubt = self._rounds[-1].after, self._rounds[-1].in_doubt
                note = self._outbox.note(after)
                self._rounds.pop()
            self.stranded.update(
                waiting.job for waiting in note.waiting if waiting.slot < oldest and waiting.job in note.captured
            )
            remaining = Counter[str]()
            for waiting in note.waiting:
                remaining[waiting.job] += waiting.totals
            if places := places_of(note, oldest):
                self._rounds.append(Round(after, note.upto, places, oldest, None, note.captured, remaining, in_doubt))
        self._noted = note.upto
        return {job: captured for job, captured in note.captured.items() if not self._is_busy(job)}

    def _resume(self, oldest: int, clock: float) -> None:
        """Open a round for what is due to be sent again."""
        for due in sorted(self._sent, key=lambda sent: sent.due):
            if due.due > clock:
                return
            places = places_of(self._outbox.note(due.after, due.upto), oldest)
            self._sent.remove(due)
            # without places all of it has changed since, and belongs to later rounds, or is too old to be sent
            if places:
                self._rounds.append(Round(due.after, due.upto, places, due.oldest, replays=due))
                return

    def _load(self, current: Round, oldest: int) -> tuple[list[bytes], Counter[str], deque[Place]]:
        """Return the lines of the next batch, how many each job has in it, and the places left after it."""
        lines: list[bytes] = []
        jobs = Counter[str]()
        left = deque(current.places)
        while left and len(lines) < self._batch:
            place = left.popleft()
            if place.slot < oldest:  # it has grown too old while it waited
                self.stranded |= place.jobs & current.captured.keys()
                if current.replays is None:
                    current.oldest = oldest
                continue
            room = self._batch - len(lines)
            changed = self._outbox.changed(
                place.slot, place.step, after=current.after, upto=current.upto, beyond=place.beyond, limit=room
            )
            lines += (line(total.path, total.value, place.slot) for total in changed)
            jobs.update(total.job for total in changed)
            if len(changed) == room:
                left.appendleft(place._replace(beyond=changed[-1].series))
        return lines, jobs, left

    def _completed(self, current: Round, jobs: Counter[str]) -> dict[str, int]:
        """Return the watermarks of jobs whose last waiting total has just been confirmed."""
        current.remaining -= jobs  # keeps what is above 0
        return {job: current.captured[job] for job in jobs if job in current.captured and not self._is_busy(job)}

    def _is_busy(self, job: str) -> bool:
        return job in self.stranded or any(job in waiting.remaining for waiting in self._rounds)

    def _finish(self, current: Round, clock: float) -> None:
        """Take a round off the stack, and plan its next replay or call it proven."""
        before, span = current.replays, (current.after, current.upto)
        stage = 0 if before is None else before.stage + 1
        confirmed = clock if before is None or before.stage == DOUBTED else before.confirmed
        if current.in_doubt:
            self._send_again(Sent(*span, DOUBTED, clock, clock, current.oldest))
        elif stage < len(self._replay):
            self._send_again(Sent(*span, stage, confirmed, confirmed + self._replay[stage], current.oldest))
        else:
            self._outbox.prove(after=current.after, upto=current.upto, step=self._archive.step, oldest=current.oldest)
        self._rounds.remove(current)

    def _send_again(self, sent: Sent) -> None:
        """Remember what is to be sent again, as one with its neighbour where both are due at about the same time."""
        cell = sent.confirmed // NEIGHBOUR_SECONDS
        for other in self._sent:
            if (other.upto, other.stage, other.confirmed // NEIGHBOUR_SECONDS) == (sent.after, sent.stage, cell):
                other.upto, other.confirmed, other.due = sent.upto, sent.confirmed, sent.due
                other.oldest = max(other.oldest, sent.oldest)
                return
        self._sent.append(sent)

    def _doubt(self, clock: float) -> None:
        """Send again, before anything else counts, what was confirmed and is not proven."""
        self._has_witness = False
        for sent in self._sent:
            sent.stage, sent.due = DOUBTED, clock
        for current in self._rounds:
            current.in_doubt = True


def backoff(failures: int, jitter: float) -> float:
    """Return how many seconds to wait after so many failures in a row; 0 <= jitter < 1 spreads the callers."""
    longest = min(BACKOFF_MOST, BACKOFF_FIRST * float(2 ** min(failures - 1, 10)))
    return longest * (0.5 + jitter / 2)
