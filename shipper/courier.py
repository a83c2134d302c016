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
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from shipper.errors import DeliveryFailed, ReadbackFailed
from shipper.model import Archive, Changed, Note, Sent
from shipper.proof import Proofs
from shipper.render import line
from shipper.retention import has_left, merged, ripe
from shipper.rounds import Place, Round, places_of

BACKOFF_FIRST, BACKOFF_MOST = 0.25, 4.0  # seconds; the first delivery follows Carbon's return within 5 s

RELEASE_SECONDS = 30.0  # how often to look whether an archive may receive by now what waits for it
READ_MOST = 900  # targets of one request: Django refuses more than 1,000 fields


class Outbox(Protocol):
    """What the courier needs of the state."""

    def note(self, after: int, upto: int | None = None) -> Note:
        """Note, in one look, what changed with a revision in (after, upto], and which watermarks are behind.

        Without upto, up to the newest revision.
        """

    def changed(self, slot: int, step: int, *, after: int, upto: int, beyond: int, limit: int) -> list[Changed]:
        """Return, by series, the changed totals of one slot with a revision in (after, upto], series > beyond."""

    def commit(self, watermarks: Mapping[str, int], datapoints: Mapping[str, int]) -> None:
        """Store watermarks durably, and how many datapoints led to each; none moves back."""

    def prove(self, *, after: int, upto: int) -> None:
        """Hold what still has a revision in (after, upto] for delivered for good."""

    def prove_series(self, slot: int, step: int, series: Sequence[int], *, after: int, upto: int) -> None:
        """Hold those totals of a slot for delivered for good that still have a revision in (after, upto]."""

    def count_new(self, after: int, upto: int) -> int:
        """Return how many series were never proven, 0 if none of them has a total in (after, upto]."""

    def merge(self, slot: int, step: int, into: tuple[int, int] | None) -> Mapping[str, int]:
        """Merge a slot's changed totals into a slot of a coarser archive, where they are parked.

        Into None they are given up: no archive would hold them. Return how many rows that were, by job.
        """

    def park(self, slot: int, step: int) -> None:
        """Keep the changed totals of a slot back, until they are released."""

    def release(self, ripe: Iterable[tuple[int, int]]) -> None:
        """Let parked totals go out, as changed just now: of each step up to a slot."""


class Carrier(Protocol):
    """What the courier needs of Carbon."""

    def deliver(self, lines: bytes) -> None:
        """Return when Carbon has read all lines.

        Raises:
            DeliveryFailed: it is unknown whether Carbon has read them.
        """

    def has_died(self) -> bool:
        """Whether the Carbon that confirmed is found to be gone; once for each death."""


class Reader(Protocol):
    """What the courier needs of Graphite, to prove by reading."""

    def read(self, paths: Sequence[str], slot: int) -> Mapping[str, float | None]:
        """Return what Graphite holds of each path in a slot.

        Raises:
            ReadbackFailed: it does not answer.
        """


class Delivered(NamedTuple):
    """What one step brought."""

    datapoints: Mapping[str, int]
    """How many were sent, by job."""
    watermarks: Mapping[str, int]
    is_replay: bool
    is_reading: bool = False
    unproven: Sequence[str] = ()
    """Paths whose values were sent several times, and cannot be read back."""
    failure: ReadbackFailed | None = None


class Courier:
    """Delivers for all jobs, one batch a step. Not for several threads."""

    def __init__(
        self,
        outbox: Outbox,
        carrier: Carrier,
        *,
        archives: Sequence[Archive],
        batch: int,
        replay: Sequence[float],
        sent: Sequence[Sent] = (),
        reader: Reader | None = None,
    ) -> None:
        """Replay is how long after the first confirmation to send again, seconds.

        With a reader what was confirmed is read back instead.
        sent is what an earlier courier had delivered up to its end; without it all that is not proven goes again.
        """
        self.restarts = 0
        """How often the Carbon that had confirmed was found to be gone."""
        self.given_up = Counter[str]()
        """Of each job the rows that have grown too old for all archives before they could be delivered."""
        self._outbox = outbox
        self._carrier = carrier
        self._archives = archives
        self._batch = batch
        self._reader = reader
        self._proofs = Proofs(replay, reads_back=reader is not None, sent=sent)
        self._noted = self._proofs.upto  # the newest revision that belongs to a round
        self._rounds: list[Round] = []
        self._sent = Counter[str]()
        """Datapoints of each job since its watermark moved."""
        self._parked: frozenset[str] = frozenset()
        self._release_at = float("-inf")
        self._is_trusted = True

    def step(self, *, now: int, clock: float, is_trusted: bool = True, notes: bool = True) -> Delivered | None:
        """Deliver one batch and commit what it completes; None when nothing is waiting.

        Unless it notes, what has changed since it last did is left for later. While the clocks are not to be trusted,
        nothing is merged, and nothing sent that is for a coarser archive.

        Raises:
            DeliveryFailed: Carbon did not confirm; the next step sends the batch again, with newer values.
        """
        self._is_trusted = is_trusted
        self._look_around(now, clock)
        watermarks = self._note(now) if notes else {}
        if not self._rounds:
            self._resume(now, clock)
        if not self._rounds:
            if not watermarks:
                return None
            self._commit(watermarks)
            return Delivered({}, watermarks, is_replay=False)

        # one batch of the newest round
        current = self._rounds[-1]
        if current.reads:
            return self._read(current, now, clock)
        batch, jobs, left = self._load(current, now)
        if batch:
            try:
                self._carrier.deliver(b"".join(batch))
            except DeliveryFailed:
                self._doubt(clock)
                raise
            current.is_begun = True

        # confirmed: go on behind it, and commit what it completes
        current.places = left
        self._sent.update(jobs)
        watermarks |= self._completed(current, jobs)
        if watermarks:
            self._commit(watermarks)
        if not current.places:
            self._finish(current, clock)
        return Delivered(jobs, watermarks, is_replay=current.replays is not None)

    def delay(self, clock: float) -> float | None:
        """Return the seconds until something is to be sent again, None when nothing is."""
        return self._proofs.delay(clock)

    def has_delivered(self, revision: int) -> bool:
        """Was everything confirmed that was recorded up to a revision, and may be sent? For any thread."""
        return self._noted >= revision and all(one.replays is not None for one in list(self._rounds))

    def sent(self) -> list[Sent]:
        """Return what was delivered and is to be sent again; nothing while something still waits for the first time."""
        return [] if self._rounds else list(self._proofs.sent)

    def waiting(self) -> Counter[str]:
        """Count the totals of each job that Carbon has not confirmed yet. This one is for other threads, too."""
        found = Counter[str]()
        for one in list(self._rounds):
            found.update(dict(one.remaining))
        return found

    def _look_around(self, now: int, clock: float) -> None:
        """See whether Carbon has died, and from time to time what its archives may receive by now."""
        if self._carrier.has_died():
            self.restarts += 1
            self._doubt(clock)
        if self._is_trusted and clock >= self._release_at:
            self._outbox.release(ripe(self._archives, now))
            self._release_at = clock + RELEASE_SECONDS

    def _note(self, now: int) -> dict[str, int]:
        """Open a round for what changed; return the watermarks that need nothing sent."""
        after, in_doubt = self._noted, False
        note = self._outbox.note(after)
        # a round that waits for Carbon grows; only one that is under way gets another on top of it
        top = self._rounds[-1] if self._rounds else None
        grows = top is not None and not top.is_begun and top.replays is None and bool(note.waiting)
        if top is not None and grows:
            after, in_doubt = top.after, top.in_doubt
            note = self._outbox.note(after)
        if self._set_aside(note, now):
            note = self._outbox.note(after)
        if grows:
            self._rounds.pop()
        if note.waiting:
            remaining = Counter[str]()
            for one in note.waiting:
                remaining[one.job] += one.totals
            self._rounds.append(Round(after, note.upto, places_of(note), None, note.captured, remaining, in_doubt))
        self._noted, self._parked = note.upto, note.parked
        return {job: captured for job, captured in note.captured.items() if not self._is_busy(job)}

    def _set_aside(self, note: Note, now: int) -> bool:
        """Merge, park or give up what cannot be sent as it is; return whether there was any."""
        places = {Place(waiting.slot, waiting.step) for waiting in note.waiting}
        aside = [place for place in places if not self._can_send(place, now)]
        for place in aside:
            self._put_aside(place)
        return bool(aside)

    def _put_aside(self, place: Place) -> None:
        slot, step, _ = place
        if self._is_trusted:
            self.given_up.update(self._outbox.merge(slot, step, merged(self._archives, slot, step)))
        else:
            self._outbox.park(slot, step)

    def _can_send(self, place: Place, now: int) -> bool:
        slot, step, _ = place
        finest = self._archives[0]
        if not self._is_trusted and step > finest.step and has_left(self._archives, slot, finest.step, now):
            return False
        return not has_left(self._archives, slot, step, now)

    def _resume(self, now: int, clock: float) -> None:
        """Open a round for what is due to be sent or read again."""
        for due in self._proofs.due(clock):
            note = self._outbox.note(due.after, due.upto)
            if self._set_aside(note, now):
                note = self._outbox.note(due.after, due.upto)
            self._proofs.sent.remove(due)
            # without places all of it has changed since, and belongs to later rounds
            if note.waiting:
                self._rounds.append(Round(due.after, due.upto, places_of(note), replays=due))
                return

    def _load(self, current: Round, now: int) -> tuple[list[bytes], Counter[str], deque[Place]]:
        """Return the lines of the next batch, how many each job has in it, and the places left after it."""
        lines: list[bytes] = []
        jobs = Counter[str]()
        left = deque(current.places)
        while left and len(lines) < self._batch:
            place = left.popleft()
            if not self._can_send(place, now):  # it has grown too old while it waited
                self._put_aside(place)
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

    def _commit(self, watermarks: Mapping[str, int]) -> None:
        self._outbox.commit(watermarks, {job: self._sent.pop(job, 0) for job in watermarks})

    def _is_busy(self, job: str) -> bool:
        return job in self._parked or any(job in waiting.remaining for waiting in self._rounds)

    def _finish(self, current: Round, clock: float) -> None:
        """Take a round off the stack, and plan what proves it."""
        span = (current.after, current.upto)
        if self._proofs.confirmed(current, clock, new_series=self._outbox.count_new(*span)):
            self._outbox.prove(after=current.after, upto=current.upto)
        self._rounds.remove(current)

    def _read(self, current: Round, now: int, clock: float) -> Delivered:
        """Read some totals back, and prove those that are as they were sent."""
        assert self._reader is not None
        place = current.places.popleft()
        step = Delivered({}, {}, is_replay=True, is_reading=True)
        if self._can_send(place, now):
            slot, after, upto = place.slot, current.after, current.upto
            sent = self._outbox.changed(slot, place.step, after=after, upto=upto, beyond=place.beyond, limit=READ_MOST)
            try:
                found = self._reader.read([total.path for total in sent], slot)
            except ReadbackFailed as error:
                self._rounds.remove(current)
                self._proofs.postpone(current, clock)
                return step._replace(failure=error)
            same = [total.series for total in sent if found.get(total.path) == float(total.value)]
            self._outbox.prove_series(slot, place.step, same, after=after, upto=upto)
            current.proven += len(same)
            current.differing += [total.path for total in sent if total.series not in set(same)]
            if len(sent) == READ_MOST:
                current.places.appendleft(place._replace(beyond=sent[-1].series))
        if current.places:
            return step
        self._rounds.remove(current)
        is_told = self._proofs.was_read(current, clock)
        return step._replace(unproven=current.differing if is_told else ())

    def _doubt(self, clock: float) -> None:
        """Send again, before anything else counts, what was confirmed and is not proven."""
        self._proofs.doubt(clock)
        for current in self._rounds:
            current.in_doubt = True


def backoff(failures: int, jitter: float) -> float:
    """Return how many seconds to wait after so many failures in a row; 0 <= jitter < 1 spreads the callers."""
    longest = min(BACKOFF_MOST, BACKOFF_FIRST * float(2 ** min(failures - 1, 10)))
    return longest * (0.5 + jitter / 2)
