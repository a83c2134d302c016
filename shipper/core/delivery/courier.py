"""The second sentence: send the totals that changed, commit, and send again until they are proven.

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

from shipper.core.delivery.outbox import Outbox
from shipper.core.delivery.readings import READ_MOST, Look, Reader, Sampler, compared
from shipper.core.delivery.rounds import Cursor, Difference, Proofs, Round, cursors_of, newest_of
from shipper.core.errors import DeliveryFailed, ReadbackFailed
from shipper.core.model import Archive, Datapoint, Pending, Replay
from shipper.core.retention import due, has_left, merged

RELEASE_SECONDS = 30.0  # how often to look whether an archive may receive by now what waits for it


class Sink(Protocol):
    """What the courier needs of Carbon."""

    def deliver(self, datapoints: Sequence[Datapoint]) -> None:
        """Return when Carbon has read all datapoints.

        Raises:
            DeliveryFailed: it is unknown whether Carbon has read them.
        """

    def has_died(self) -> bool:
        """Whether the Carbon that confirmed is found to be gone; once for each death."""


class Delivered(NamedTuple):
    """What one step brought."""

    datapoints: Mapping[str, int]
    """How many were sent, by job."""
    watermarks: Mapping[str, int]
    is_replay: bool
    is_reading: bool = False
    unproven: Sequence[Difference] = ()
    """Values that were sent several times, and cannot be read back."""
    failure: ReadbackFailed | None = None


class Courier:
    """Delivers for all jobs, one batch a step. Not for several threads."""

    def __init__(
        self,
        outbox: Outbox,
        sink: Sink,
        *,
        archives: Sequence[Archive],
        batch: int,
        replay: Sequence[float],
        sent: Sequence[Replay] = (),
        reader: Reader | None = None,
        sampled_by: Reader | None = None,
    ) -> None:
        """Replay is how long after the first confirmation to send again, seconds.

        With a reader what was confirmed is read back instead; sampled_by reads samples of it beside the replays.
        sent is what an earlier courier had delivered up to its end; without it all that is not proven goes again.
        """
        self.restarts = 0
        """How often the Carbon that had confirmed was found to be gone."""
        self.given_up = Counter[str]()
        """Of each job the rows that have grown too old for all archives before they could be delivered."""
        self._outbox = outbox
        self._sink = sink
        self._archives = archives
        self._batch = batch
        self._reader = reader or sampled_by
        self._sampler = Sampler(outbox, sampled_by, archives) if sampled_by is not None else None
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
        if not self._rounds and (done := self._rest(watermarks, now, clock)) is not None:
            return done
        if not self._rounds:
            return None

        # one batch of the newest round
        current = self._rounds[-1]
        if current.reads:
            return self._read(current, now, clock)
        batch, jobs, left = self._load(current, now)
        if batch:
            try:
                self._sink.deliver(batch)
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
        """Return the seconds until something is to be sent again, or read, None when nothing is."""
        delays = (self._proofs.delay(clock), self._sampler.delay(clock) if self._sampler is not None else None)
        return min((delay for delay in delays if delay is not None), default=None)

    @property
    def is_alarmed(self) -> bool:
        """Whether Graphite is known to lack what was sent."""
        return self._proofs.is_alarmed

    def has_delivered(self, revision: int) -> bool:
        """Was everything confirmed that was recorded up to a revision, and may be sent? For any thread."""
        return self._noted >= revision and all(one.replays is not None for one in list(self._rounds))

    def sent(self) -> list[Replay]:
        """Return what was delivered and is to be sent again; nothing while something waits, or Graphite lacks some."""
        return [] if self._rounds or self.is_alarmed else list(self._proofs.sent)

    def waiting(self) -> Counter[str]:
        """Count the totals of each job that Carbon has not confirmed yet. This one is for other threads, too."""
        found = Counter[str]()
        for one in list(self._rounds):
            found.update(dict(one.remaining))
        return found

    def _rest(self, watermarks: Mapping[str, int], now: int, clock: float) -> Delivered | None:
        """Do what is due while nothing waits for the first time: commit, look at a sample, or begin to send again."""
        if watermarks:
            self._commit(watermarks)
            return Delivered({}, watermarks, is_replay=False)
        look = self._look_at_sample(now, clock)
        if look is not None:
            told = look.differing if look.is_told else ()
            return Delivered({}, {}, is_replay=True, is_reading=True, unproven=told, failure=look.failure)
        self._resume(now, clock)
        return None

    def _look_around(self, now: int, clock: float) -> None:
        """See whether Carbon has died, and from time to time what its archives may receive by now."""
        if self._sink.has_died():
            self.restarts += 1
            self._doubt(clock)
        if self._is_trusted and clock >= self._release_at:
            self._outbox.release(due(self._archives, now))
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
            self._rounds.append(
                Round(
                    after,
                    note.upto,
                    cursors_of(note),
                    captured=note.captured,
                    remaining=remaining,
                    in_doubt=in_doubt,
                    slots=newest_of(note, self._archives[0].step),
                )
            )
        self._noted, self._parked = note.upto, note.deferred
        return {job: captured for job, captured in note.captured.items() if not self._is_busy(job)}

    def _set_aside(self, note: Pending, now: int) -> bool:
        """Merge, park or give up what cannot be sent as it is; return whether there was any."""
        places = {Cursor(waiting.slot, waiting.step) for waiting in note.waiting}
        aside = [place for place in places if not self._can_send(place, now)]
        for place in aside:
            self._put_aside(place)
        return bool(aside)

    def _put_aside(self, place: Cursor) -> None:
        slot, step, _ = place
        if self._is_trusted:
            self.given_up.update(self._outbox.merge(slot, step, merged(self._archives, slot, step)))
        else:
            self._outbox.defer(slot, step)

    def _can_send(self, place: Cursor, now: int) -> bool:
        slot, step, _ = place
        finest = self._archives[0]
        if not self._is_trusted and step > finest.step and has_left(self._archives, slot, finest.step, now):
            return False
        return not has_left(self._archives, slot, step, now)

    def _resume(self, now: int, clock: float) -> None:
        """Open a round for what is due to be sent or read again."""
        for replay in self._proofs.due(clock):
            note = self._outbox.note(replay.after, replay.upto)
            if self._set_aside(note, now):
                note = self._outbox.note(replay.after, replay.upto)
            self._proofs.sent.remove(replay)
            # without places all of it has changed since, and belongs to later rounds
            if note.waiting:
                slots = newest_of(note, self._archives[0].step)
                self._rounds.append(Round(replay.after, replay.upto, cursors_of(note), replays=replay, slots=slots))
                return

    def _load(self, current: Round, now: int) -> tuple[list[Datapoint], Counter[str], deque[Cursor]]:
        """Return the next batch, how many each job has in it, and the places left after it."""
        batch: list[Datapoint] = []
        jobs = Counter[str]()
        left = deque(current.places)
        while left and len(batch) < self._batch:
            place = left.popleft()
            if not self._can_send(place, now):  # it has grown too old while it waited
                self._put_aside(place)
                continue
            room = self._batch - len(batch)
            changed = self._outbox.changed(
                place.slot, place.step, after=current.after, upto=current.upto, beyond=place.beyond, limit=room
            )
            batch += (Datapoint(total.path, total.value, place.slot) for total in changed)
            jobs.update(total.job for total in changed)
            if len(changed) == room:
                left.appendleft(place._replace(beyond=changed[-1].series))
        return batch, jobs, left

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
        new_series = self._outbox.count_new(current.after, current.upto)
        if self._proofs.confirmed(current, clock, new_series=new_series):
            self._outbox.prove(after=current.after, upto=current.upto)
        elif self._sampler is not None and not self.is_alarmed:
            self._sampler.take(current, clock, new_series=new_series)
        self._rounds.remove(current)

    def _look_at_sample(self, now: int, clock: float) -> Look | None:
        """Look whether Graphite holds what was confirmed, at a sample of it."""
        if self._sampler is None:
            return None
        if not self._is_trusted:  # which archive answers is not known
            self._sampler.drop()
        look = self._sampler.look(upto=self._noted, now=now, clock=clock)
        self._proofs.is_held = self._sampler.is_suspicious
        if look is not None and look.resends is not None:
            self._proofs.resend(*look.resends, clock)
        if look is not None and look.is_told:
            self._proofs.alarm(clock)
        return look

    def _read(self, current: Round, now: int, clock: float) -> Delivered:
        """Read some totals back, and prove those that are as they were sent."""
        assert self._reader is not None
        place = current.places.popleft()
        step = Delivered({}, {}, is_replay=True, is_reading=True)
        if self._can_send(place, now):
            slot, after, upto = place.slot, current.after, current.upto
            sent = self._outbox.changed(slot, place.step, after=after, upto=upto, beyond=place.beyond, limit=READ_MOST)
            try:
                same, differing = compared(self._reader, slot, sent)
            except ReadbackFailed as error:
                self._rounds.remove(current)
                self._proofs.postpone(current, clock)
                return step._replace(failure=error)
            self._outbox.prove_series(slot, place.step, sorted(same), after=after, upto=upto)
            current.proven += len(same)
            current.differing += differing
            if len(sent) == READ_MOST:
                current.places.appendleft(place._replace(beyond=sent[-1].series))
        if current.places:
            return step
        self._rounds.remove(current)
        is_told = self._proofs.was_read(current, clock)
        return step._replace(unproven=current.differing if is_told else ())

    def _doubt(self, clock: float) -> None:
        """Send again, before anything else counts, what was confirmed and is not proven."""
        self._proofs.invalidate(clock)
        if self._sampler is not None:
            self._sampler.drop()
        for current in self._rounds:
            current.in_doubt = True
