"""Capture: read new rows, add them to the totals, record both.

Strategy: a row is new if it is visible and its id is not counted yet (position.py), so a capture waits for nothing.
Totals and the set of counted ids change in one transaction (rows/totals.py): whatever ends a capture, the next one
continues behind the last recorded window.
"""

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace

from shipper.core.errors import RowRefused
from shipper.core.id_set import Words, ids_of, size_of, union_of, words_of
from shipper.core.ledger import LateIds, Ledger, RecordResult, RecordUpdate
from shipper.core.model import (
    ALWAYS,
    Job,
    Now,
    Observation,
    Progress,
    Row,
    Span,
    Window,
    definition_digest,
    path_digest,
    time_digest,
)
from shipper.core.position import Position
from shipper.core.repair.indivisible import recount_lacking
from shipper.core.repair.lookback import lookback
from shipper.core.repair.recount import lookback_from, recount
from shipper.core.repair.reset import check
from shipper.core.retention import after, ceil, floor, uncut_from
from shipper.core.rows.along import AlongLook
from shipper.core.rows.folding import YEAR_SECONDS, Folded, fold, shown_span
from shipper.core.rows.look import EVERY_SECONDS, Content, TableLook
from shipper.core.rows.slots import rows_to_read
from shipper.core.rows.start import begin_job, next_bucket
from shipper.core.rows.table import CaptureStep, Context, Event, Size, Source, each_window, walk_back
from shipper.core.rows.totals import add
from shipper.core.rows.zero_fill import zero_fill_due


def capture(
    job: Job,
    horizon: Observation,
    *,
    source: Source,
    ledger: Ledger,
    now: int,
    is_trusted: bool = True,
    look: TableLook | None = None,
) -> Generator[CaptureStep | Event | None, None, None]:
    """Capture the rows of a table up to the horizon; yield after each transaction, and None after other reading.

    The caller may stop after any step. `now` is our wall clock, in epoch seconds. While clocks are not trusted, nothing
    is zero-filled, and a job without a time column leaves its rows for later. Jobs of one table with the same horizon
    share a look.

    Raises:
        SourceReset: the table is not the one that was captured, or went back.
    """
    look = look or TableLook(source, horizon, is_alone=True)
    # while the clocks differ, the source's clock decides where rows belong
    moment = Now(now if is_trusted else horizon.time, is_trusted)
    context = Context(job, source, ledger, moment)
    progress = ledger.progress(job.name)
    if progress is None:
        progress, position, known = begin_job(job, horizon, source, moment.now)
        ledger.begin(job, progress, position, known)
        yield Event("job.started", {"start": job.start, "captured": progress.captured}, "info")
    # rows that are read ahead are of the checked table, because the check comes afterwards
    position = ledger.position(job.name)
    if progress.recount_from is None and progress.definition_digest == definition_digest(job):
        look.read_ahead(job, progress.captured, position)
    yield from check(job, progress, position, look=look, ledger=ledger)
    if not is_trusted and job.query.time is None:
        return
    if progress.definition_digest != definition_digest(job):
        if job.query.is_along:
            yield from AlongLook(context, look, progress, zero_fill=None).rebase()
        progress = yield from _redefined(context, horizon, progress)
    zero_fill = zero_fill_due(job, progress, horizon.time, moment.now) if is_trusted else None
    if job.query.is_along:
        yield from AlongLook(context, look, progress, zero_fill=zero_fill).steps()
        return

    # recount older rows in the slots that new rows fall in
    if progress.recount_from is not None:
        yield from recount(context, horizon, progress)
        progress = ledger.progress(job.name) or progress  # slots may have been left
    if job.lookback is not None:
        yield from lookback(context, progress, look=look, zero_fill=zero_fill)
    else:
        yield from _Look(context, progress, look, zero_fill=zero_fill).steps()
    yield from recount_lacking(context, ledger.progress(job.name) or progress)


class _Look:
    """One look at a table for one job: late rows below captured, then rows above it."""

    def __init__(self, context: Context, progress: Progress, look: TableLook, *, zero_fill: Span | None) -> None:
        self._context, self._progress, self._look, self._zero_fill = context, progress, look, zero_fill
        self._job, self._ledger, self._horizon = context.job, context.ledger, look.horizon
        job, moment = context.job, context.moment
        self._shown = shown_span(job, now=moment.now, source_time=self._horizon.time)
        self._bucket: int | None = None
        """Bucket for all rows of a job without a time column: that of the look, but never an earlier one."""
        if job.query.time is None:
            self._bucket = max(progress.not_before, floor(self._horizon.time, job.query.bucket))
            # where a clock was set back, it is ahead
            self._shown = replace(self._shown, end=max(self._shown.end, after(self._bucket, job.query.bucket)))

    def steps(self) -> Iterator[CaptureStep | Event]:
        """Count new rows, one transaction a window; record once a minute that there are none."""
        job, before = self._job, self._ledger.position(self._job.name)
        position = before.at_look(self._horizon, every=job.every, late=job.late)

        # late rows: below captured, and not there at the look before; each is added once
        words, rows = (
            ({}, []) if self._look.has_none_late(before) else read_late_rows(job, position, before, self._look)
        )
        position = (position.renewed(words) if words else position).give_up_old_gaps(job.late)
        if words:
            yield from check(job, self._progress, before, look=self._look, ledger=self._ledger, adds=True)
            yield self._late(position, words, rows)
            position = self._ledger.position(job.name)
        elif position != before:
            self._ledger.note_look(job.name, position)
        if (bounded := position.bounded()) is not position:
            yield Event("late.shortened", {"late": bounded.age_of(bounded.counted.floor + 1)}, "warning")
            self._ledger.note_look(job.name, bounded)

        # rows above captured
        captured, upto = self._progress.captured, self._horizon.id
        for window, content in each_window(job, captured, upto, self._read, source=self._look.source):
            yield self._window(window, content)

        # no new rows: record that when buckets are to be zero-filled, and once a minute
        is_due = self._horizon.time >= self._progress.complete_until + EVERY_SECONDS
        if upto == captured and (self._zero_fill or is_due):
            done = self._completed(RecordUpdate(self._ledger.position(job.name)))
            yield CaptureStep(None, 0, self._added(None, Folded(), done, self._zero_fill))

    def _read(self, window: Window) -> tuple[Content, Size]:
        content = self._look.read(self._job.query, window)
        rows = window.upto - window.after if content.words is None else size_of(content.words)
        return content, Size(rows, len(content.rows))

    def _window(self, window: Window, content: Content) -> CaptureStep:
        """Record a window above captured."""
        folded = fold(self._timed(content.rows), self._shown, self._job.kinds)
        position = self._ledger.position(self._job.name).with_window(window, content.words)
        done = RecordUpdate(position, not_before=self._bucket)
        zero_fill = None
        if window.upto == self._horizon.id:
            fingerprint = self._look.fingerprint(self._job, window.upto)
            done, zero_fill = self._completed(done)._replace(fingerprint=fingerprint), self._zero_fill
        return CaptureStep(window, folded.rows, self._added(window, folded, done, zero_fill))

    def _late(self, position: Position, words: Words, rows: list[Row]) -> CaptureStep:
        """Record late rows."""
        folded = fold(self._timed(rows), self._shown, self._job.kinds)
        done = RecordUpdate(position.with_ids(words), not_before=self._bucket, late_rows=size_of(words))
        if self._bucket is not None:
            done = done._replace(late=LateIds(self._bucket, words))
        else:
            ids = ids_of(words)
            done = done._replace(ids_within=Window(ids[0] - 1, ids[-1]))
        return CaptureStep(None, folded.rows, self._added(None, folded, done, None), late_rows=done.late_rows)

    def _completed(self, done: RecordUpdate) -> RecordUpdate:
        """Add that all rows up to the horizon are captured, and how many rows have no id."""
        outside = self._look.outside(self._job.query, self._progress)
        return done._replace(complete_until=self._horizon.time, outside=outside)

    def _added(self, window: Window | None, folded: Folded, done: RecordUpdate, zero_fill: Span | None) -> RecordResult:
        return add(self._context, window, folded, done, zero_fill=zero_fill, bucket=self._bucket)

    def _timed(self, rows: list[Row]) -> list[Row]:
        return rows if self._bucket is None else [row._replace(bucket=self._bucket) for row in rows]


def read_late_rows(
    job: Job, position: Position, before: Position, look: TableLook, *, is_split: bool = False
) -> tuple[Words, list[Row]]:
    """Ask for the gaps that are due: return the ids that have rows now, and these rows."""
    gaps, source, query = position.gaps_due(before, job.late), look.source, job.query
    question = position.counted, gaps
    if (not gaps.ranges and not gaps.ids) or look.none_late == question:
        return {}, []
    rows: list[Row] = []
    last = 0
    try:
        with source.snapshot(query, since=look.horizon.clock):
            words = source.appeared(query, *question)
            if not words:
                look.none_late = question
            if query.sql is not None:  # a run of ids may contain more late rows, which are not due yet
                for run in rows_to_read(job, words, position):
                    words = union_of(words, position.counted.missing(source.words(query, run)))
            # all in one statement, or each alone: one of them may be unreadable, or their sum too large
            portions = [words_of([one]) for one in ids_of(words)] if is_split else [words]
            for part in [part for some in portions for part in rows_to_read(job, some, position)]:
                last = part.upto if isinstance(part, Window) else part[-1]
                rows += source.read(query, part)
    except RowRefused as error:
        if is_split:
            source.set_aside(query, last, error)
        return read_late_rows(job, position, before, look, is_split=True)
    return words, rows


def _redefined(context: Context, horizon: Observation, progress: Progress) -> Generator[Event, None, Progress]:
    """Continue a job with a changed definition.

    If series names and times are unchanged, the slots still in the state are recounted. Otherwise the new definition
    starts behind captured, because a row could move into a slot that is not recounted, or out of it.
    """
    job, source, ledger, _ = context
    length, since, due = job.query.bucket, None, progress.recount_from
    yield Event("job.changed", {"captured": progress.captured}, "info")
    following = whole = next_bucket(job, progress, horizon.time)
    if job.query.time is None or progress.path_digest != path_digest(job) or job.query.is_along:
        due = yield from _kept(job, due, ledger)
        # slots of the former definition may be ahead; a lookback would count rows of its longer buckets once more
        bucket = 0 if job.lookback is None else progress.bucket
        ends = (one.slot + max(one.step, bucket) for one in ledger.slots(job.name))
        whole = max([whole, *(ceil(end, length) for end in ends)])
    else:
        due = since = _oldest_due(job, progress, ledger, horizon.time)
    whole = whole if due is None else due  # the recount that is due completes slots before the next one
    low = progress.low
    if job.lookback is not None and not job.query.is_along:  # rows of slots older than its lookback
        first = walk_back(job, progress.captured, Span(since or horizon.time, ALWAYS.end), source=source)
        low = min(low, first)
        if progress.time_digest != time_digest(job):
            whole = max(whole, _counted_until(context, first, progress.captured, horizon.time))
    # no bucket of the former length gets a 0, nor one of which a measure lacked rows
    lacking = [one.slot + one.step for one in ledger.lacking(job.name)]
    changed = progress._replace(
        zero_filled_until=ceil(max(progress.zero_filled_until, *lacking, 0), length),
        not_before=following,
        recount_from=due,
        # the first bucket of a job begins earlier once it is longer
        since=whole if since is not None and since < progress.begins else max(progress.since, whole),
        low=low,
        definition_digest=definition_digest(job),
        path_digest=path_digest(job),
        time_digest=time_digest(job),
        bucket=max(progress.bucket, length),
        multiple=math.lcm(progress.multiple, length),
    )
    ledger.redefine(job.name, changed)
    return changed


def _oldest_due(job: Job, progress: Progress, ledger: Ledger, time: int) -> int | None:
    """Return from when on a changed definition recounts slots; None if there are none."""
    length, oldest = job.query.bucket, ledger.lowest(job.name, ALWAYS)
    recounted = None if job.lookback is None else lookback_from(job, progress)  # by each look, with totals or without
    slots = [slot for slot in (progress.recount_from, oldest and oldest[0], recounted) if slot is not None]
    first = min([*slots, time])  # not a bucket of rejected rows that are ahead
    # the first bucket of a job is whole, as at its start
    if progress.since <= progress.begins and floor(first, length) <= progress.begins:
        return floor(progress.begins, length)
    # older slots were incomplete: skipped, or counted by an earlier definition
    return uncut_from(max(first, progress.since), length, progress.bucket) if slots else None


def _counted_until(context: Context, after: int, captured: int, time: int) -> int:
    """Return the end of the newest bucket with rows that another definition of time has counted earlier, else 0.

    A lookback would count them once more when that time comes. Times that are a year ahead are mistakes.
    """
    job, source, ledger, _ = context
    counted, until = ledger.position(job.name).counted, 0

    def read(window: Window) -> tuple[Mapping[int | None, Words], Size]:
        by = source.words_by(job.query, window)
        return by, Size(sum(map(size_of, by.values())), len(by))

    for _, by in each_window(job, after, captured, read, source=source):
        known = [one for one, words in by.items() if one and size_of(counted.missing(words)) < size_of(words)]
        until = max([until, *(one + job.query.bucket for one in known if one < time + YEAR_SECONDS)])
    return until


def _kept(job: Job, due: int | None, ledger: Ledger) -> Generator[Event, None, int | None]:
    """Let slots stay as they are that only the former definition could recount; return which recount is still due."""
    recounted = [one for one in ledger.slots(job.name) if due is not None and one.slot + one.step > due]
    slots = {slot: slot + step for slot, step, *_ in (*ledger.lacking(job.name), *recounted)}
    if not slots:
        return due
    span = Span(min(slots), max(slots.values()))
    yield Event("recount.limited", {"span": span, "slots": len(slots)}, "warning")
    return None
