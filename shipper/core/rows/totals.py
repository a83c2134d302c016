"""Totals: rows are folded by group and bucket; a capture adds them to totals, a recount replaces totals.

Strategy: Carbon keeps only the last write of a slot, so the state keeps the running total of each slot, and always
sends all of it. Each change of totals is one transaction that requires the job's position to be where the look began: a
process that is killed at any instruction has either counted a window or not. Nothing else changes a total.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from shipper.core.ledger import Recording, RecordResult, RecordUpdate, Total
from shipper.core.measures import Kind, Value, combined
from shipper.core.model import Group, Job, Key, Now, RejectedValue, Rejection, RejectReason, Row, Span, Window
from shipper.core.paths import brief, claim_paths, other_of
from shipper.core.position import Position
from shipper.core.retention import floor, is_due, oldest_shown, place_of
from shipper.core.rows.table import Context
from shipper.core.rows.zero_fill import zero_fill_buckets

MAX_SKEW_SECONDS = 300
"""Seconds by which the time of a row may be ahead of its source's clock, beyond its own bucket."""

MOST = 10**300
"""Largest value and total: Whisper can add those of a coarser slot without reaching infinity."""

YEAR_SECONDS = 366 * 86_400
"""Times further ahead are mistakes, and counted without their bucket, of which there may be any number."""


class Cell(NamedTuple):
    """Rows and values of one group in one bucket."""

    rows: int
    values: tuple[Value | None, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """Rows added up by group and bucket, rejected rows by reason, and values that were left out."""

    cells: dict[tuple[Group, int], Cell] = field(default_factory=dict)
    rejected: Counter[Rejection] = field(default_factory=Counter)
    rejected_values: list[RejectedValue] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Number of rows that were folded, rejected ones included."""
        return sum(cell.rows for cell in self.cells.values()) + self.rejected.total()

    @property
    def unreadable(self) -> Counter[Rejection]:
        """Rejected rows that the database cannot read, but whose buckets are known."""
        rejected = self.rejected.items()
        return Counter(
            {key: rows for key, rows in rejected if key[0] is RejectReason.UNREADABLE and key[1] is not None}
        )


def shown_span(job: Job, *, now: int, source_time: int) -> Span:
    """Return the span of buckets that Graphite can show; its end lets clocks differ a little."""
    oldest = max(job.query.bucket, oldest_shown(job.archives, now))  # Carbon drops a timestamp of 0
    return Span(oldest, source_time + job.query.bucket + MAX_SKEW_SECONDS + 1)


def fold(rows: Iterable[Row], span: Span, kinds: tuple[Kind, ...], into: Folded | None = None) -> Folded:
    """Add rows up by group and bucket."""
    folded = into or Folded()
    for bucket, group, rows_in, values, refused, is_unreadable in rows:
        folded.rejected_values.extend(refused)
        if is_unreadable:
            folded.rejected[Rejection(RejectReason.UNREADABLE, bucket)] += rows_in
            continue
        if bucket is None or bucket not in span:
            folded.rejected[_reason(bucket, span)] += rows_in
            continue
        before = folded.cells.get((group, bucket))
        if before is not None:
            rows_in += before.rows  # noqa: PLW2901 - the cell's, from here on
            values = tuple(map(Kind.combine, kinds, before.values, values))  # noqa: PLW2901 - likewise
        folded.cells[group, bucket] = Cell(rows_in, values)
    return folded


def _reason(bucket: int | None, span: Span) -> Rejection:
    if bucket is None:
        return Rejection(RejectReason.NO_TIME)
    if bucket < span.start:
        return Rejection(RejectReason.TOO_OLD)
    return Rejection(RejectReason.FUTURE, bucket if bucket < span.end + YEAR_SECONDS else None)


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
    job, _, ledger, moment = context
    with ledger.recording(job.name, window) as recording:
        tally = RecordResult(folded.rejected.copy(), rejected_values=folded.rejected_values.copy())
        if bucket is not None and (place := _place(job, bucket, recording, moment.now)):
            recording.mark(*place)
        parts = _keyed(job, folded, recording, tally, moment.now)
        before = recording.take(parts.keys())
        _put(job, recording, _totals(parts, before, tally), moment)
        _note_lacking(job, folded, recording, moment.now)
        zero_fill_buckets(job, recording, zero_fill, partial(_place, job, recording=recording, now=moment.now))
        _count_outside(done, recording, tally)
        zero_filled_until = zero_fill.end if zero_fill else None
        recording.write(done._replace(rejected=tally.rejected, zero_filled_until=zero_filled_until))
    return tally


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
    job, _, ledger, moment = context
    with ledger.recording(job.name, window) as recording:
        # slots that count from here on
        if is_asked:
            recording.unprune(span)
        else:
            recording.begin_at(span.start)
        # new totals instead of those in the state; 0 for those without rows
        tally = RecordResult(Counter(done.rejected), rejected_values=folded.rejected_values.copy())
        parts = _keyed(job, folded, recording, tally, moment.now)
        recording.take(parts.keys())
        totals = _totals(parts, {}, tally)
        gone = set(recording.stored_keys(span, [measure.name for measure in job.query.measures])) - parts.keys()
        gone |= _cleared(job, cleared, recording, moment.now) - parts.keys()
        totals |= dict.fromkeys(gone, 0)
        tally.totals = len(totals)
        if not done.replaces:  # rejected rows were counted when they were captured
            tally.rejected = Counter(done.rejected)
        # rows of other slots are added
        if beside is not None:
            added = _keyed(job, beside, recording, tally, moment.now)
            totals |= _totals(added, recording.take(added.keys()), tally)
            _note_lacking(job, beside, recording, moment.now)
        _put(job, recording, totals, moment, resends=is_asked)
        if not job.query.is_divisible:
            recording.recounted(span, moment.now)
        for bucket, one in ids.items():
            if (place := _place(job, bucket, recording, moment.now)) is not None:
                recording.limit_ids(*place, one)
        zero_fill_buckets(job, recording, zero_fill, partial(_place, job, recording=recording, now=moment.now))
        _count_outside(done, recording, tally)
        zero_filled_until = zero_fill.end if zero_fill and not is_asked else None
        recording.write(done._replace(rejected=tally.rejected, zero_filled_until=zero_filled_until))
    return tally


def complete(
    context: Context, span: Span, folded: Folded, *, position: Position, zero_fill: Span | None = None
) -> RecordResult:
    """Replace the totals of indivisible measures in all slots of a span; those of other measures stay."""
    job, _, ledger, moment = context
    with ledger.recording(job.name, None) as recording:
        tally = RecordResult()
        parts = _keyed(job, folded, recording, tally, moment.now)
        tally.rejected.clear()  # rows were counted when they were captured
        recording.take(parts.keys())
        _put(job, recording, _totals(parts, {}, tally), moment)
        recording.recounted(span, moment.now)
        zero_fill_buckets(job, recording, zero_fill, partial(_place, job, recording=recording, now=moment.now))
        recording.write(RecordUpdate(position))
    return tally


def give_up(context: Context, span: Span, rejected: int, *, position: Position) -> RecordResult:
    """Leave the indivisible measures of all slots of a span as they are, and reject rows that no measure contains."""
    job, _, ledger, moment = context
    tally = RecordResult(Counter({Rejection(RejectReason.NOT_RECOUNTED): rejected}))
    with ledger.recording(job.name, None) as recording:
        recording.recounted(span, moment.now)
        recording.write(RecordUpdate(position, tally.rejected))
    return tally


def put_off(context: Context, span: Span, *, position: Position) -> None:
    """Note that an attempt to recount the indivisible measures of all slots of a span has failed."""
    job, _, ledger, moment = context
    with ledger.recording(job.name, None) as recording:
        recording.recounted(span, moment.now, has_failed=True)
        recording.write(RecordUpdate(position))


def _note_lacking(job: Job, folded: Folded, recording: Recording, now: int) -> None:
    """Note the slots whose indivisible measures lack new rows."""
    if job.query.is_divisible:
        return
    for (_, bucket), cell in folded.cells.items():
        if not isinstance(place := _open_place(job, bucket, recording, now), RejectReason):
            recording.lack(*place, cell.rows)


def _cleared(job: Job, cleared: Collection[Key], recording: Recording, now: int) -> set[Key]:
    """Return the places that belong to the job and can still be written."""
    own = recording.own({key.path for key in cleared}) if cleared else set()
    return {key for key in cleared if key.path in own and _open_place(job, key.slot, recording, now) == key[1:]}


def _count_outside(done: RecordUpdate, recording: Recording, tally: RecordResult) -> None:
    """Count rows that no window holds: the difference to the last count, up or down."""
    for reason, rows in done.outside.items():
        if more := rows - recording.rejected(reason):
            tally.rejected[Rejection(reason)] = more


Parts = dict[Key, tuple[Kind, list[Value]]]
"""Values to combine for each total."""


def _keyed(job: Job, folded: Folded, recording: Recording, tally: RecordResult, now: int) -> Parts:
    """Return the values of cells by total; count the rows of cells that belong to none as rejected."""
    # the slot of each bucket, and cells without one
    places = {bucket: _open_place(job, bucket, recording, now) for bucket in {bucket for _, bucket in folded.cells}}
    groups: dict[Group, int] = {}
    for (group, bucket), cell in folded.cells.items():
        if isinstance(place := places[bucket], RejectReason):
            tally.rejected[Rejection(place, bucket if place is RejectReason.TOO_LATE else None)] += cell.rows
        else:
            groups[group] = groups.get(group, 0) + cell.rows

    # paths of groups, and the values of each
    paths, parts = claim_paths(job, groups, recording, tally), Parts()
    shared = tally.others | {other_of(job)}
    seen: dict[int, list[str]] = {}
    for (group, bucket), cell in folded.cells.items():
        place = places[bucket]
        if isinstance(place, RejectReason):
            continue
        if (own := paths[group]) is None:
            tally.rejected[Rejection(RejectReason.REFUSED)] += cell.rows
            continue
        for path, measure, value in zip(own, job.query.measures, cell.values, strict=True):
            # groups that share a path are parts of its bucket
            if value is not None and (measure.kind.is_divisible or group not in shared):
                parts.setdefault(Key(path, *place), (measure.kind, []))[1].append(value)
        seen.setdefault(bucket, []).extend(own)
    for bucket, seen_paths in seen.items():
        recording.see(bucket, seen_paths)
    return parts


def _open_place(job: Job, bucket: int, recording: Recording, now: int) -> tuple[int, int] | RejectReason:
    """Return the slot and step of a bucket, or the reason why there is none."""
    place = _place(job, bucket, recording, now)
    if place is None:
        return RejectReason.TOO_OLD
    return RejectReason.TOO_LATE if recording.is_pruned(bucket) else place


def _place(job: Job, bucket: int, recording: Recording, now: int) -> tuple[int, int] | None:
    """Return the slot and step of a bucket; a slot that moved to a coarser archive stays there."""
    for archive in reversed(job.archives[1:]):
        slot = floor(bucket, archive.step)
        if recording.has_slot(slot, archive.step):
            return slot, archive.step
    return place_of(job.archives, bucket, now)


def _totals(parts: Parts, before: Mapping[Key, list[Value]], tally: RecordResult) -> dict[Key, Value]:
    """Combine values with the totals before; values whose total Carbon could not store are left out and reported."""
    totals = {}
    for key, (kind, values) in parts.items():
        there = before.get(key, [])
        value = combined(kind, [*there, *values])
        if -MOST <= value <= MOST:
            totals[key] = value
            continue
        tally.rejected_values.append(RejectedValue(key.path, len(values), brief(value)))
        if there:
            totals[key] = combined(kind, there)
    return totals


def _put(job: Job, recording: Recording, totals: Mapping[Key, Value], moment: Now, *, resends: bool = False) -> None:
    # while the clock may be wrong, no slot has left an archive for certain
    now, bucket = moment.now if moment.is_trusted else 0, job.query.bucket
    places = {(slot, step) for _, slot, step in totals}
    due = {place: is_due(job.archives, *place, bucket=bucket, now=now) for place in places}
    recording.put((Total(key, value, due[key.slot, key.step]) for key, value in totals.items()), resends=resends)
