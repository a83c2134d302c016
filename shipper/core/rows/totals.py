"""Totals: a capture adds folded rows to them, a recount replaces them.

Strategy: Carbon keeps only the last write of a slot, so the state keeps the running total of each slot, and always
sends all of it. Each change of totals is one transaction that requires the job's position to be where the look began: a
process that is killed at any instruction has either counted a window or not. Nothing else changes a total.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

from shipper.core.ledger import Recording, RecordResult, RecordUpdate, Total
from shipper.core.measures import Kind, Value, combined
from shipper.core.model import Group, Key, RejectedValue, Rejection, RejectReason, Span, Window
from shipper.core.paths import brief, claim_paths, other_of
from shipper.core.position import Position
from shipper.core.retention import is_due, place_of
from shipper.core.rows.folding import Folded
from shipper.core.rows.table import Context
from shipper.core.rows.zero_fill import zero_fill_buckets

MOST = 10**300
"""Largest value and total: Whisper can add those of a coarser slot without reaching infinity."""


def add(
    context: Context,
    window: Window | None,
    folded: Folded,
    done: RecordUpdate,
    *,
    zero_fill: Span | None = None,
    bucket: int | None = None,
) -> RecordResult:
    """Add the rows of a window, or late rows, to the totals, in one transaction.

    Without a time column all of them are in one bucket.
    """
    with _changing(context, window, folded) as change:
        change.tally.rejected.update(folded.rejected)
        if bucket is not None and (place := change.place(bucket)):
            change.recording.mark(*place)
        change.put(change.added(folded))
        change.write(done, zero_fill)
    return change.tally


def replace(
    context: Context,
    span: Span,
    folded: Folded,
    done: RecordUpdate,
    *,
    window: Window | None = None,
    ids: Mapping[int, Window] = {},
    beside: Folded | None = None,
    zero_fill: Span | None = None,
    is_asked: bool = False,
    cleared: Collection[Key] = (),
) -> RecordResult:
    """Replace the totals of all slots of a span, in one transaction; a total without rows becomes 0.

    If an operator asked for it (`is_asked`), pruned slots are replaced, too, and all totals are sent again, because
    Graphite may lack them. `ids` are windows that contain the rows of a bucket; `beside` is added to slots outside of
    the span; `cleared` are places for which Graphite is known to hold a value.
    """
    with _changing(context, window, folded) as change:
        recording, tally = change.recording, change.tally
        # slots that count from here on
        if is_asked:
            recording.unprune(span)
        else:
            recording.begin_at(span.start)
        # new totals instead of those in the state; 0 for those without rows
        tally.rejected.update(done.rejected)
        totals = change.replaced(folded, span, cleared)
        tally.totals = len(totals)
        if not done.is_lookback:  # other rejected rows were counted when they were captured
            refused = {one: rows for one, rows in tally.rejected.items() if one.reason is RejectReason.REFUSED}
            tally.rejected = Counter(done.rejected) + Counter(refused)
        # rows of other slots are added
        if beside is not None:
            totals |= change.added(beside)
        change.put(totals, resends=is_asked)
        if not context.job.query.is_divisible:
            recording.recounted(span, context.moment.now)
        change.limit_ids(ids)
        change.write(done, zero_fill, moves_on=not is_asked)
    return tally


def complete(
    context: Context, span: Span, folded: Folded, *, position: Position, zero_fill: Span | None = None
) -> RecordResult:
    """Replace the totals of indivisible measures in all slots of a span; those of other measures stay."""
    with _changing(context) as change:
        change.put(change.replaced(folded))
        change.tally.rejected.clear()  # rows were counted when they were captured
        change.recording.recounted(span, context.moment.now)
        change.write(RecordUpdate(position), zero_fill, moves_on=False)
    return change.tally


def give_up(context: Context, span: Span, rejected: int, *, position: Position) -> RecordResult:
    """Leave the indivisible measures of all slots of a span as they are, and reject rows that no measure contains."""
    with _changing(context) as change:
        change.tally.rejected[Rejection(RejectReason.NOT_RECOUNTED)] = rejected
        change.recording.recounted(span, context.moment.now)
        change.write(RecordUpdate(position))
    return change.tally


def put_off(context: Context, span: Span, *, position: Position) -> None:
    """Note that an attempt to recount the indivisible measures of all slots of a span has failed."""
    with _changing(context) as change:
        change.recording.recounted(span, context.moment.now, has_failed=True)
        change.write(RecordUpdate(position))


@contextmanager
def _changing(context: Context, window: Window | None = None, folded: Folded | None = None) -> Iterator["_Change"]:
    """Open the transaction that records a window; the result lists the values that were left out of folded rows."""
    with context.ledger.recording(context.job.name, window) as recording:
        change = _Change(context, recording)
        change.tally.rejected_values += folded.rejected_values if folded else ()
        yield change


Parts = dict[Key, tuple[Kind, list[Value]]]
"""Values to combine for each total."""


class _Change:
    """An open change of a job's totals."""

    def __init__(self, context: Context, recording: Recording) -> None:
        self.recording = recording
        self.tally = RecordResult()
        self._job, self._moment = context.job, context.moment

    def place(self, bucket: int) -> tuple[int, int] | None:
        """Return the slot and step of a bucket; a slot that moved to a coarser archive stays there."""
        place = place_of(self._job.archives, bucket, self._moment.now)
        finer = self._job.archives[0].step if place is None else place[1]
        return self.recording.coarsest(bucket, longer_than=finer) or place

    def added(self, folded: Folded) -> dict[Key, Value]:
        """Return the totals of cells, added to those in the state; note which indivisible measures lack new rows."""
        parts = self._parts(folded)
        before = self.recording.take(parts.keys())
        for (_, bucket), cell in folded.cells.items() if not self._job.query.is_divisible else ():
            if not isinstance(place := self._open_place(bucket), RejectReason):
                self.recording.lack(*place, cell.rows)
        return self._totals(parts, before)

    def replaced(self, folded: Folded, span: Span | None = None, cleared: Collection[Key] = ()) -> dict[Key, Value]:
        """Return the totals of cells, instead of those in the state, and 0 for other totals of a span."""
        parts = self._parts(folded)
        self.recording.take(parts.keys())
        totals = self._totals(parts, {})
        names = [measure.name for measure in self._job.query.measures]
        gone: list[Iterable[Key]] = [] if span is None else [self.recording.stored_keys(span, names)]
        # places that belong to the job and can still be written
        own = self.recording.own({key.path for key in cleared}) if cleared else set()
        gone.append(key for key in cleared if key.path in own and self._open_place(key.slot) == key[1:])
        totals.update((key, 0) for key in chain.from_iterable(gone) if key not in parts)
        return totals

    def put(self, totals: Mapping[Key, Value], *, resends: bool = False) -> None:
        """Store totals."""
        # while the clock may be wrong, no slot has left an archive for certain
        now, bucket = self._moment.now if self._moment.is_trusted else 0, self._job.query.bucket
        places = {(slot, step) for _, slot, step in totals}
        # where the finer archive has values of shorter buckets, they can no longer become 0: it must be left first
        finest = self._job.archives[0].step
        buckets = {place: finest if self.recording.has_finer(*place) else bucket for place in places}
        due = {place: is_due(self._job.archives, *place, bucket=buckets[place], now=now) for place in places}
        self.recording.put((Total(key, value, due[key[1:]]) for key, value in totals.items()), resends=resends)

    def limit_ids(self, ids: Mapping[int, Window]) -> None:
        """Store windows that contain the rows of a bucket."""
        for bucket, window in ids.items():
            if (place := self.place(bucket)) is not None:
                self.recording.limit_ids(*place, window)

    def write(self, done: RecordUpdate, zero_fill: Span | None = None, *, moves_on: bool = True) -> None:
        """Fill a span with zeros, and count rows that no window holds. The last call.

        Unless `moves_on` is False, the next zero-fill begins at the end of this one.
        """
        zero_fill_buckets(self._job, self.recording, zero_fill, self.place)
        for reason, rows in done.outside.items():  # the difference to the last count, up or down
            if more := rows - self.recording.rejected(reason):
                self.tally.rejected[Rejection(reason)] = more
        until = zero_fill.end if zero_fill and moves_on else None
        self.recording.write(done._replace(rejected=self.tally.rejected, zero_filled_until=until))

    def _parts(self, folded: Folded) -> Parts:
        """Return the values of cells by total; count the rows of cells that belong to none as rejected."""
        # the slot of each bucket, and cells without one
        places = {bucket: self._open_place(bucket) for bucket in {bucket for _, bucket in folded.cells}}
        groups: dict[Group, int] = {}
        for (group, bucket), cell in folded.cells.items():
            if isinstance(place := places[bucket], RejectReason):
                rejection = Rejection(place, bucket if place is RejectReason.TOO_LATE else None)
                self.tally.rejected[rejection] += cell.rows
            else:
                groups[group] = groups.get(group, 0) + cell.rows

        for group, rows in folded.others.items():
            self.tally.other, self.tally.other_rows = self.tally.other or group, self.tally.other_rows + rows

        # paths of groups, and the values of each
        paths, parts = claim_paths(self._job, groups, self.recording, self.tally), Parts()
        shared = self.tally.others | {other_of(self._job)}
        seen: dict[int, list[str]] = {}
        for (group, bucket), cell in folded.cells.items():
            place = places[bucket]
            if isinstance(place, RejectReason):
                continue
            if (own := paths[group]) is None:
                self.tally.rejected[Rejection(RejectReason.REFUSED, bucket)] += cell.rows
                continue
            for path, measure, value in zip(own, self._job.query.measures, cell.values, strict=True):
                # groups that share a path are parts of its bucket
                if value is not None and (measure.kind.is_divisible or group not in shared):
                    parts.setdefault(Key(path, *place), (measure.kind, []))[1].append(value)
            seen.setdefault(bucket, []).extend(own)
        for bucket, seen_paths in seen.items():
            self.recording.see(bucket, seen_paths)
        self.tally.others.clear()  # tallies wait for the log, and there may be very many groups
        return parts

    def _open_place(self, bucket: int) -> tuple[int, int] | RejectReason:
        """Return the slot and step of a bucket, or the reason why there is none."""
        place = self.place(bucket)
        if place is None:
            return RejectReason.TOO_OLD
        return RejectReason.TOO_LATE if self.recording.is_pruned(bucket, place[1]) else place

    def _totals(self, parts: Parts, before: Mapping[Key, list[Value]]) -> dict[Key, Value]:
        """Combine values with the totals before; leave out and report values whose total Carbon could not store."""
        totals = {}
        for key, (kind, values) in parts.items():
            there = before.get(key, [])
            value = combined(kind, [*there, *values])
            if -MOST <= value <= MOST:
                totals[key] = value
                continue
            self.tally.rejected_values.append(RejectedValue(key.path, len(values), brief(value)))
            if there:
                totals[key] = combined(kind, there)
        return totals
