"""The courier: sends changed totals, commits watermarks, and sends again until Graphite is proven to hold the totals.

Strategy: every record gives its totals a new *revision*. A round sends the changed totals with a revision in
(after, upto]; a total that changes meanwhile gets a later revision, so a later round sends it. A few ranges of
revisions, in memory only, are therefore all that the courier remembers of what it sent. After a crash it sends every
total again that is not proven.

Rounds form a stack, the newest on top, and each round sends its newest slots first, so a catch-up never delays the
current minute of another job. A job's watermark moves once all its totals of a round are confirmed and no older round
has any of them left.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from shipper.core.delivery.outbox import INVALIDATED, Outbox, Pending, Replay
from shipper.core.delivery.proofs import Cursor, Difference, Proofs, Round, cursors_of, newest_of
from shipper.core.delivery.readings import READ_MOST, Reader, Reading, Sampler, compare
from shipper.core.errors import DeliveryFailed, ReadbackFailed
from shipper.core.model import Archive, Datapoint, Span
from shipper.core.retention import due, has_left, is_ahead, merge_target, oldest_in_finest

RELEASE_SECONDS = 30.0
"""Interval of releasing deferred totals whose archive may receive them now."""


class Sink(Protocol):
    """The courier's view of Carbon."""

    def deliver(self, datapoints: Sequence[Datapoint]) -> None:
        """Return when Carbon has read all datapoints.

        Raises:
            DeliveryFailed: it is unknown whether Carbon has read them.
        """

    def has_died(self) -> bool:
        """Whether the Carbon that confirmed datapoints has exited; True once for each death."""

    @property
    def may_write_old_values(self) -> bool:
        """Whether a Carbon that hangs may yet write values over newer ones: nothing is proven meanwhile."""


class Delivered(NamedTuple):
    """Result of one step."""

    datapoints: Mapping[str, int]
    """Number of datapoints sent, by job."""
    watermarks: Mapping[str, int]
    """Watermarks committed, by job."""
    is_replay: bool
    is_reading: bool = False
    unproven: Sequence[Difference] = ()
    """Values that were sent several times and still cannot be read back."""
    failure: ReadbackFailed | None = None


class Courier:
    """Delivers the totals of all jobs, one batch a step. Not thread-safe, except where a method says so."""

    def __init__(
        self,
        outbox: Outbox,
        sink: Sink,
        *,
        archives: Sequence[Archive],
        batch: int,
        replay: Sequence[float],
        schedule: Sequence[Replay] = (),
        reader: Reader | None = None,
        sampled_by: Reader | None = None,
        replayed: int = 0,
    ) -> None:
        """Set up a courier; replay is the delays from the first confirmation to each replay, in seconds.

        With a reader the courier reads totals back instead of replaying them; with sampled_by it replays them and reads
        samples. schedule is that of the courier before, at its end; without it all unproven totals are sent again.
        Totals up to the revision `replayed` are replayed in any case.
        """
        self.restarts = 0
        """Number of times that the Carbon which had confirmed datapoints was found to have exited."""
        self.given_up = Counter[str]()
        """Number of rows, by job, that grew too old for all archives before they could be delivered."""
        self._outbox = outbox
        self._sink = sink
        self._archives = archives
        self._batch = batch
        self._reader = reader or sampled_by
        self._sampler = Sampler(outbox, sampled_by, archives) if sampled_by is not None else None
        self._proofs = Proofs(replay, reads_back=reader is not None, schedule=schedule, replayed=replayed)
        self._upto = self._proofs.upto  # the newest revision that belongs to a round
        self._rounds: list[Round] = []
        self._sent = Counter[str]()
        """Number of datapoints sent for the first time, by job, since the job's watermark moved."""
        self._deferred: frozenset[str] = frozenset()
        """Jobs with deferred totals."""
        self._release_at = float("-inf")
        self._is_trusted = True
        self._latest = 0
        """The latest time that Carbon's clock may show."""

    def step(
        self, *, now: int, clock: float, is_trusted: bool = True, latest: int = 0, opens_round: bool = True
    ) -> Delivered | None:
        """Deliver one batch and commit the watermarks that it completes; None when nothing is waiting.

        Without opens_round, totals that changed since the last round was opened wait for a later step. While the clocks
        are not trusted, the courier merges nothing and sends nothing that belongs to a coarser archive, or to an
        archive that it has left by the latest of the sources' clocks.

        Raises:
            DeliveryFailed: Carbon did not confirm; the next step sends the batch again, with newer values.
        """
        # learn about Carbon and time: what was confirmed may be lost, deferred totals may be due
        if is_trusted and not self._is_trusted:  # totals may have waited for that
            self._release_at = float("-inf")
        self._is_trusted = is_trusted
        self._latest = now if is_trusted else max(now, latest)
        self._check_carbon(clock)
        self._release(now, clock)

        # changed totals form a round; without any, proofs have their turn
        watermarks = self._open_round(now) if opens_round else {}
        if not self._rounds and (result := self._rest(watermarks, now, clock)) is not None:
            return result
        if not self._rounds:
            return None

        # send, or read back, one batch of the newest round
        current = self._rounds[-1]
        return self._read_back(current, now, clock) if current.reads else self._send(current, watermarks, now, clock)

    def _send(self, current: Round, watermarks: Mapping[str, int], now: int, clock: float) -> Delivered:
        """Send one batch of a round; commit the watermarks that are due anyway, and those that it completes."""
        batch, jobs, left = self._load(current, now)
        if batch:
            try:
                self._sink.deliver(batch)
            except DeliveryFailed:
                # Carbon confirms only once it has read all; this failure may be its death, which loses its cache
                self._invalidate(clock)
                raise
            self._check_carbon(clock)  # another relay may have confirmed than did before
            current.is_begun = True

        # the batch is confirmed: the cursors move past it, and a watermark is committed here and nowhere earlier
        current.cursors = left
        if current.replay is None:
            self._sent.update(jobs)
        watermarks = {**watermarks, **self._completed_by(current, jobs)}
        if watermarks:
            self._commit(watermarks)
        if not current.cursors:
            self._finish(current, clock)
        return Delivered(jobs, watermarks, is_replay=current.replay is not None)

    def delay(self, clock: float) -> float | None:
        """Return the delay until the next replay or reading, in seconds; None when none is scheduled."""
        delays = (self._proofs.delay(clock), self._sampler.delay(clock) if self._sampler is not None else None)
        return min((delay for delay in delays if delay is not None), default=None)

    @property
    def is_alarmed(self) -> bool:
        """Whether Graphite is known to lack values that were sent."""
        return self._proofs.is_alarmed

    def has_delivered(self, revision: int) -> bool:
        """Whether all totals up to a revision are confirmed, but for deferred ones. Thread-safe."""
        return self._upto >= revision and all(one.replay is not None for one in list(self._rounds))

    def schedule(self) -> list[Replay]:
        """Return the replays that are scheduled; none while a round is open or Graphite lacks values."""
        return [] if self._rounds or self.is_alarmed else list(self._proofs.schedule)

    def waiting(self) -> Counter[str]:
        """Count the totals, by job, that Carbon has not confirmed yet. Thread-safe."""
        waiting = Counter[str]()
        for one in list(self._rounds):
            waiting.update(dict(one.remaining))
        return waiting

    def may_lack(self, job: str) -> bool:
        """Whether Carbon has not confirmed totals of a job, or has exited since, and may have lost some. Thread-safe.

        After an exit all unproven totals are sent again, of whichever job.
        """
        rounds = list(self._rounds)
        replays = [*self._proofs.schedule, *(one.replay for one in rounds if one.replay is not None)]
        has_exited = any(one.is_invalidated for one in rounds) or any(one.stage == INVALIDATED for one in replays)
        return has_exited or self.waiting()[job] > 0

    def _check_carbon(self, clock: float) -> None:
        """Invalidate all confirmations if the Carbon that gave them has exited."""
        if self._sink.has_died():
            self.restarts += 1
            self._invalidate(clock)

    def _release(self, now: int, clock: float) -> None:
        """Release deferred totals that are due, now and then; only a trusted clock can say which have left an archive.

        Those that were ahead are due in any case once their time has come: a source's clock may be ahead for long. But
        ours may be behind instead, and Carbon's be right.
        """
        if clock >= self._release_at:
            spans = dict(due(self._archives, now))
            if not self._is_trusted:
                finest, oldest = self._archives[0].step, oldest_in_finest(self._archives, self._latest)
                spans = dict.fromkeys(spans, Span(0, 0)) | {finest: Span(oldest, max(oldest, now + 1))}
            self._outbox.release(spans)
            self._release_at = clock + RELEASE_SECONDS

    def _open_round(self, now: int) -> dict[str, int]:
        """Open a round for the totals that changed; return the watermarks that need nothing sent."""
        after, is_invalidated = self._upto, False
        pending = self._outbox.pending(after)

        # A round that waits for Carbon grows instead of getting another on top of it: in an outage one round waits,
        # however long it takes, and sends each total once. A round that has begun does not grow: its cursors have
        # passed the newest slots, which the new round sends first.
        top = self._rounds[-1] if self._rounds else None
        grows = top is not None and not top.is_begun and top.replay is None and bool(pending.waiting)
        if top is not None and grows:
            after, is_invalidated = top.after, top.is_invalidated
            pending = self._outbox.pending(after)

        # totals whose slot has left its archive are merged or deferred: the rest is what the round is about
        if self._set_aside(pending, now):
            pending = self._outbox.pending(after)

        # nothing above changed the stack: where the state failed, the round that waits is still on it
        if grows:
            self._rounds.pop()
        if pending.waiting:
            self._push(after, pending, is_invalidated=is_invalidated)

        # jobs whose totals are all confirmed need no batch: their watermark moves now
        self._upto, self._deferred = pending.upto, pending.deferred
        return {job: captured for job, captured in pending.captured.items() if not self._is_busy(job)}

    def _push(self, after: int, pending: Pending, *, is_invalidated: bool) -> None:
        """Put a round for pending totals on the stack."""
        remaining = Counter[str]()
        for one in pending.waiting:
            remaining[one.job] += one.totals
        self._rounds.append(
            Round(
                after,
                pending.upto,
                cursors_of(pending),
                captured=pending.captured,
                remaining=remaining,
                is_invalidated=is_invalidated,
                slots=newest_of(pending, self._archives[0].step),
            )
        )

    def _rest(self, watermarks: Mapping[str, int], now: int, clock: float) -> Delivered | None:
        """Do what is due while no round is open: commit watermarks, read a sample, or open a round for a replay."""
        if watermarks:
            self._commit(watermarks)
            return Delivered({}, watermarks, is_replay=False)
        reading = self._read_sample(now, clock)
        if reading is not None:
            unproven, failure = reading.unproven, reading.failure
            return Delivered({}, {}, is_replay=True, is_reading=True, unproven=unproven, failure=failure)
        self._open_replay(now, clock)
        return None

    def _open_replay(self, now: int, clock: float) -> None:
        """Open a round for the first replay or reading that is due."""
        for replay in self._proofs.due(clock):
            pending = self._outbox.pending(replay.after, replay.upto)
            if self._set_aside(pending, now):
                pending = self._outbox.pending(replay.after, replay.upto)
            # Graphite shows a slot of the future once its time has come
            ahead = pending.waiting[0].slot - now if pending.waiting else 0
            if replay.reads and ahead > 0:
                replay.due = clock + ahead
                continue
            # removed only now: where the state failed above, the replay is still due
            self._proofs.schedule.remove(replay)
            # without waiting totals all of them have changed since, and belong to later rounds
            if pending.waiting:
                slots = newest_of(pending, self._archives[0].step)
                self._rounds.append(Round(replay.after, replay.upto, cursors_of(pending), replay=replay, slots=slots))
                return

    def _set_aside(self, pending: Pending, now: int) -> bool:
        """Merge, defer or give up totals that cannot be sent as they are; return whether there were any."""
        cursors = {Cursor(waiting.slot, waiting.step) for waiting in pending.waiting}
        unsendable = [cursor for cursor in cursors if not self._can_send(cursor, now)]
        for cursor in unsendable:
            self._merge_or_defer(cursor, now)
        return bool(unsendable)

    def _merge_or_defer(self, cursor: Cursor, now: int) -> None:
        """Merge the totals of a slot into the next archive; without trusted clocks, or ahead of ours, defer them."""
        slot, step, _ = cursor
        if self._is_trusted and not is_ahead(slot, now):
            self.given_up.update(self._outbox.merge(slot, step, merge_target(self._archives, slot, step)))
        else:
            self._outbox.defer(slot, step)

    def _can_send(self, cursor: Cursor, now: int) -> bool:
        """Whether Carbon stores the totals of a slot in the archive that they belong to."""
        slot, step, _ = cursor
        finest = self._archives[0]
        # The slot has left the finest archive by our clock, but perhaps not by Carbon's, which would store the sum of
        # an hour as the count of its first minute.
        if not self._is_trusted and step > finest.step and has_left(self._archives, slot, finest.step, now):
            return False
        return not is_ahead(slot, now) and not has_left(self._archives, slot, step, self._latest)

    def _load(self, current: Round, now: int) -> tuple[list[Datapoint], Counter[str], deque[Cursor]]:
        """Return the next batch, the number of its datapoints by job, and the cursors left after it.

        The round keeps its cursors until Carbon confirms: a batch that failed is loaded again, with newer values.
        """
        batch: list[Datapoint] = []
        jobs = Counter[str]()
        left = deque(current.cursors)
        while left and len(batch) < self._batch:
            # age is checked again: the slot may have left its archive while it waited for Carbon
            cursor = left.popleft()
            if not self._can_send(cursor, now):
                self._merge_or_defer(cursor, now)
                continue

            # values are read here, not when the round was opened: a total that changed since is in a later round
            room = self._batch - len(batch)
            changed = self._outbox.changed(
                cursor.slot, cursor.step, after=current.after, upto=current.upto, beyond=cursor.beyond, limit=room
            )
            batch += (Datapoint(total.path, total.value, cursor.slot) for total in changed)
            jobs.update(total.job for total in changed)

            # a full batch may have cut the slot: the next one continues behind the last series
            if len(changed) == room:
                left.appendleft(cursor._replace(beyond=changed[-1].series))
        return batch, jobs, left

    def _completed_by(self, current: Round, jobs: Counter[str]) -> dict[str, int]:
        """Return the watermarks of jobs whose last waiting total is in the batch just confirmed.

        A watermark is the job's captured id when the round was opened: rows captured since then are in later rounds.
        """
        current.remaining -= jobs  # keeps what is above 0
        return {job: current.captured[job] for job in jobs if job in current.captured and not self._is_busy(job)}

    def _is_busy(self, job: str) -> bool:
        """Whether the job has totals that Carbon has not confirmed: in a round, or deferred."""
        return job in self._deferred or any(job in waiting.remaining for waiting in self._rounds)

    def _commit(self, watermarks: Mapping[str, int]) -> None:
        begun = (one.after for one in self._rounds if one.cursors and one.remaining)
        sent = {job: self._sent.pop(job, 0) for job in watermarks}
        self._outbox.commit(watermarks, sent, confirmed=min(begun, default=self._upto))

    def _finish(self, current: Round, clock: float) -> None:
        """Take a confirmed round off the stack, and schedule what proves it."""
        new_series = self._outbox.count_new(current.after, current.upto)
        if self._proofs.confirm(current, clock, new_series=new_series):
            self._outbox.prove(after=current.after, upto=current.upto)
        elif self._sampler is not None and not self.is_alarmed:
            self._sampler.take(current, clock, new_series=new_series)
        self._rounds.remove(current)

    def _read_sample(self, now: int, clock: float) -> Reading | None:
        """Read a sample of the confirmed values, if one is due; None when nothing was read."""
        # by a slow clock a slot is sent to an archive that it has left: once clocks agree, its replay is merged instead
        self._proofs.is_held = self._sink.may_write_old_values or not self._is_trusted
        if self._sampler is None:
            return None
        if not self._is_trusted:  # which archive answers is not known
            self._sampler.drop()
        reading = self._sampler.read(upto=self._upto, now=now, clock=clock)

        # while a sample differs, replays prove nothing: they prove that Carbon reads, not that it stores
        self._proofs.is_held |= self._sampler.is_suspicious
        if reading is not None and reading.resends is not None:
            self._proofs.resend(*reading.resends, clock)
        if reading is not None and reading.unproven:
            self._proofs.alarm(clock)
        return reading

    def _read_back(self, current: Round, now: int, clock: float) -> Delivered:
        """Read some totals of a round back, and prove those that Graphite holds as they were sent."""
        assert self._reader is not None
        cursor, rest = current.cursors[0], list[Cursor]()
        step = Delivered({}, {}, is_replay=True, is_reading=True)
        if self._can_send(cursor, now):
            # compare one page of a slot with Graphite
            slot, after, upto = cursor.slot, current.after, current.upto
            totals = self._outbox.changed(
                slot, cursor.step, after=after, upto=upto, beyond=cursor.beyond, limit=READ_MOST
            )
            try:
                equal, differing = compare(self._reader, slot, totals)
            except ReadbackFailed as error:
                self._rounds.remove(current)
                self._proofs.postpone(current, clock)
                return step._replace(failure=error)

            # the state proves only totals whose revision is still in the range: a newer value was not read
            self._outbox.prove_series(slot, cursor.step, sorted(equal), after=after, upto=upto)
            current.proven += len(equal)
            current.differing += differing
            rest = [cursor._replace(beyond=totals[-1].series)] if len(totals) == READ_MOST else []
        else:  # the slot has left its archive since the round was opened
            self._merge_or_defer(cursor, now)

        # the cursor moves only now: where the state failed above, its totals are read once more
        current.cursors.popleft()
        current.cursors.extendleft(rest)
        if current.cursors:
            return step

        # the round is read: schedule its rest, and report it after the last try
        self._rounds.remove(current)
        is_reported = self._proofs.finish_reading(current, clock)
        return step._replace(unproven=current.differing if is_reported else ())

    def _invalidate(self, clock: float) -> None:
        """Send again, before anything else counts as proof, what was confirmed and is not proven.

        That includes batches of rounds that are still open: these are sent again once their round is finished.
        """
        self._proofs.invalidate(clock)
        if self._sampler is not None:
            self._sampler.drop()
        for current in self._rounds:
            current.is_invalidated = True
