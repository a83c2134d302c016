"""Jobs along a time: a table without an integer key is read along an indexed time column.

Strategy: the seconds of that column, as it has them, take the place of ids: in windows, in captured, in the watermark.
Many rows may share a second, so the position has no set of counted ids. Instead the state keeps, for each minute back
to `late`, what the table held when the minute was last counted: the number of rows, a checksum of their times, and the
values of each group. A look asks the minutes that are due (as it would ask for gaps) for number and checksum, and
counts those that differ again. Rows of a group beyond the most that it ever had are new: they are added to the totals,
in the transaction that stores the minute. Therefore deleted rows lower nothing, rows that vanish and return are counted
once, and a long bucket costs no more than a short one.

Limit: a deleted row hides a row of the same group and minute that appears later, and one of exactly the same time that
appears before the next look. Where a look can see that, the event recount.limited reports it.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from shipper.core.id_set import IdSet
from shipper.core.ledger import Minute, RecordUpdate
from shipper.core.model import Progress, RejectReason, Span, Window
from shipper.core.position import EAGER_SECONDS, Position
from shipper.core.retention import after, ceil, coalesce, floor
from shipper.core.rows.along_minutes import (
    NEVER,
    NO_CHECKSUM,
    Found,
    by_minutes,
    check_groups,
    difference,
    found_in,
    held_in,
    known_minute,
    minutes_of,
    read_minute,
    windows,
)
from shipper.core.rows.folding import MAX_SKEW_SECONDS, Folded, fold, shown_span
from shipper.core.rows.look import EVERY_SECONDS, TableLook
from shipper.core.rows.start import MINUTE, kept_seconds, position_at
from shipper.core.rows.table import CaptureStep, Context, Event
from shipper.core.rows.totals import add

FAR_SECONDS = 86_400
"""If captured is further behind than this and `late`, minutes are not kept: at the beginning, or after an import."""


class AlongLook:
    """One look along a time, for one job."""

    def __init__(self, context: Context, look: TableLook, progress: Progress, *, zero_fill: Span | None) -> None:
        self._context, self._look, self._progress, self._zero_fill = context, look, progress, zero_fill
        self._job, self._source, self._ledger, moment = context
        job, horizon, query = self._job, look.horizon, self._job.query
        self._shown = shown_span(job, now=moment.now, source_time=horizon.time)
        last = min(after(self._shown.end - 1, query.bucket), ceil(horizon.time + MINUTE + MAX_SKEW_SECONDS + 1, MINUTE))
        self._end = floor(self._source.local(query, last), MINUTE)
        """Rows from this second on are ahead of the source's clock."""
        self._late = kept_seconds(job)
        self._falls_from = self._end
        """First second of the minutes whose values may fall."""
        if job.lookback is not None:
            since = max(progress.since, floor(progress.complete_until - job.lookback, query.bucket), 0)
            # counted from now, too: where a clock was set back, now is before the beginning
            now = self._source.local(query, horizon.time)
            self._falls_from = min(self._source.local(query, since), now - (horizon.time - since))

    def steps(self) -> Iterator[CaptureStep | Event | None]:
        """Look at all minutes that are due, oldest first, one transaction a step; yield None where nothing is new."""
        horizon, position = self._look.horizon, self._ledger.position(self._job.name)
        if self._job.lookback is not None:
            self._source.retry(self._job.query)
        if horizon.id > position.captured + self._late + FAR_SECONDS:
            yield from self._catch_up(position, floor(horizon.id - self._late, MINUTE))
        for span in self._due():
            yield from self._look_at(span, last=self._end - 1)

    def rebase(self) -> Iterator[CaptureStep | Event | None]:
        """Let a changed definition start: rows up to captured count as counted, by it as well."""
        job, source, position = self._job, self._source, self._ledger.position(self._job.name)
        # from here on minutes may differ in their definition: whichever comes next, also the former one, starts over
        self._ledger.redefine(job.name, self._progress._replace(definition_digest=""))
        upto = max(position.captured, self._end) + self._late  # also minutes that were ahead of a clock
        kept, rebased = minutes_of(position.counted.floor, upto), partial(self._rebased, position.captured)
        for _, found in found_in(job, kept, source, self._ledger, rebased):
            done = RecordUpdate(self._ledger.position(job.name), minutes=found.minutes)
            # a change that is interrupted starts over
            yield CaptureStep(None, 0, add(self._context, None, Folded(), done), is_rest=False)
            yield from self._limited(found)

    def _rebased(self, captured: int, window: Window) -> Found:
        """Count what the minutes of a window held by the present definition, in one snapshot.

        A look counts rows up to captured, and some above: as many as a minute had.
        """
        job, source, found = self._job, self._source, Found(window.upto)
        with source.snapshot(job.query, since=self._look.horizon.clock):
            for start in range(window.after + 1, window.upto + 1, MINUTE):
                if (before := known_minute(self._ledger, job, start)) is NEVER:
                    continue
                whole = Window(start - 1, start + MINUTE - 1)
                last = source.nth_id(job.query, whole, before.rows) if before.rows else whole.after
                upto = whole.upto if last is None else max(last, min(captured, whole.upto))
                if upto == whole.after:  # its rows were deleted, and new ones are above captured
                    found.keep(start, NEVER)
                    continue
                seen = Window(whole.after, upto)
                present = source.minutes(job.query, seen).get(start, (0, 0))
                # where some of its rows are gone, a new one above captured may be taken for one of them
                may_hide = present[0] >= before.rows or (present[0] and seen.upto > captured)
                is_known = present == before[:2] or (present[0], NO_CHECKSUM) == before[:2]
                if may_hide and not is_known:
                    found.hidden.add(start)
                held = held_in(job, read_minute(job, seen, source))
                if found.keep(start, before._replace(groups={key: one for key, (one, _) in held.items()})):
                    break
        return found

    def _due(self) -> list[Span]:
        """Return the spans to look at, in whole minutes: older ones more and more rarely, and the newest always."""
        job, horizon, before = self._job, self._look.horizon, self._ledger.position(self._job.name)
        position, lowest = before.at_look(horizon, every=job.every, late=self._late), before.counted.floor
        # where a clock was set back, times are given again
        newest = min(before.captured, self._source.local(job.query, horizon.time) - EAGER_SECONDS)
        ranges = [*position.ranges_due(before, self._late), (max(lowest, newest), self._end - 1)]
        if self._falls_from < self._end:
            ranges.append((max(lowest, self._falls_from - 1), self._end - 1))
        spans = (minutes_of(first, min(upto, self._end - 1)) for first, upto in ranges)
        return coalesce(span for span in spans if span.start < span.end)

    def _catch_up(self, before: Position, until: int) -> Iterator[CaptureStep | Event | None]:
        """Count what is far behind without keeping minutes, after a last look at those that are kept."""
        kept = minutes_of(before.counted.floor, before.captured)
        yield from self._look_at(kept)
        for window in windows(self._job, Span(max(kept.end, before.captured + 1), until), self._source):
            for upto, rows in by_minutes(self._job, window, self._source):
                folded = fold(self._source.renamed(self._job.query, rows), self._shown, self._job.kinds)
                position = self._ledger.position(self._job.name)
                moved = Window(position.captured, upto)
                done = RecordUpdate(position_at(upto, position), ids_within=moved)
                yield CaptureStep(moved, folded.rows, add(self._context, moved, folded, done))

    def _look_at(self, span: Span, *, last: int | None = None) -> Iterator[CaptureStep | Event | None]:
        """Look at the minutes of a span, and record what is new, in several parts; `last` is the look's last second."""
        before = self._ledger.position(self._job.name)
        for part, found in found_in(self._job, span, self._source, self._ledger, self._compare):
            yield from self._record(part, before, found, is_last=part.upto == last)
            before = self._ledger.position(self._job.name)

    def _record(
        self, window: Window, before: Position, found: Found, *, is_last: bool
    ) -> Iterator[CaptureStep | Event | None]:
        """Record what is new in the minutes of a window."""
        job, horizon = self._job, self._look.horizon
        captured = max(before.captured, min(window.upto, horizon.id))
        moved = Window(before.captured, captured) if captured > before.captured else None
        position = self._moved(before, captured, is_last=is_last)
        done = RecordUpdate(position, minutes=found.minutes, ids_within=window, late_rows=found.late_rows)
        is_due = is_last and horizon.time >= self._progress.complete_until + EVERY_SECONDS
        zero_fill = self._zero_fill if is_last else None
        if found.minutes or moved or is_due or zero_fill:
            if is_last:
                outside = self._outside() if is_due else {}
                done = done._replace(complete_until=horizon.time, outside=outside, is_recounted=True)
            folded = fold(found.rows, self._shown, job.kinds)
            tally = add(self._context, moved, folded, done, zero_fill=zero_fill)
            # rows within a lookback are counted again by each look, from its beginning
            is_rest = job.lookback is None
            yield CaptureStep(moved, folded.rows, tally, is_rest=is_rest, late_rows=found.late_rows)
        else:
            if is_last:
                self._ledger.note_look(job.name, position)
            yield None
        yield from self._limited(found)

    def _compare(self, window: Window) -> Found:
        """Count the minutes of a window that differ from what is known of them, in one snapshot."""
        job, source, found = self._job, self._source, Found(window.upto)
        captured = self._ledger.position(job.name).captured
        with source.snapshot(job.query, since=self._look.horizon.clock):
            present = source.minutes(job.query, window)
            for start in range(window.after + 1, window.upto + 1, MINUTE):
                numbers, before = present.get(start, (0, 0)), known_minute(self._ledger, job, start)
                may_fall = start >= self._falls_from
                if numbers == before[:2] and not may_fall:
                    continue
                rows = read_minute(job, Window(start - 1, start + MINUTE - 1), source) if numbers[0] else []
                new, groups, hidden = difference(job, rows, before.groups, may_fall=may_fall)
                check_groups(job, len(groups), start)
                found.rows += source.renamed(job.query, new)
                found.late_rows += sum(row.rows for row in new) if start + MINUTE <= captured else 0
                # where rows were only deleted, nothing is hidden
                if numbers[0] >= before.rows:
                    found.hidden |= hidden
                if (minute := Minute(*numbers, groups)) != before and found.keep(start, minute):
                    break
        return found

    def _moved(self, before: Position, captured: int, *, is_last: bool) -> Position:
        """Return the position behind a step; only the last one of a look makes minutes older."""
        position, lowest = before, before.counted.floor
        if is_last:
            position = before.at_look(self._look.horizon, every=self._job.every, late=self._late)
            lowest = max(lowest, min(position.id_at(self._late), captured))
        return replace(position, captured=captured, counted=IdSet(lowest, captured))

    def _outside(self) -> dict[RejectReason, int]:
        """Return the number of rows that no look reads now, by reason."""
        query = self._job.query
        without_time = self._look.count_without_id(query)
        return {RejectReason.NO_TIME: without_time, RejectReason.FUTURE: self._source.beyond(query, self._end - 1)}

    def _limited(self, found: Found) -> Iterator[Event]:
        if found.hidden:
            span = Span(min(found.hidden), max(found.hidden) + self._job.query.bucket)
            yield Event("recount.limited", {"span": span, "slots": len(found.hidden)}, "warning")
