"""Core. Rows that became visible below captured all the same: looked for, and their slots counted again.

Strategy: a window whose ids had holes may get late rows, so how many ids it had is recorded, once for all jobs on the
table, with checksums from before its rows were read. Later the table is asked again: after a few minutes, and once the
window is older than `recheck`. Where there are more now, each job on the table is to repair the window, which is noted
in the same transaction; the repair is a recount, so that it cannot count a row twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from shipper.ledger import Ledger
from shipper.model import NOTHING, Care, Checksum, Job, RecordedWindow, Window
from shipper.scan import Noticed, Source
from shipper.seen import Seen

EARLY = 12  # the first look is at an age of recheck / 12: five minutes, by default
MOST_ROWS = 1_000_000  # a checksum over so many takes 0.14 s


def recheck(job: Job, now: int, *, seen: Seen, ledger: Ledger, care: Care) -> Iterator[Noticed | None]:
    """Look at the recorded windows of the job's table that are due, by the source's time, once for all its jobs."""
    if care.recheck is None or seen.is_rechecked:
        return
    seen.is_rechecked, source = True, seen.source
    for run in _runs(ledger.due(job, now, early=max(1, care.recheck // EARLY), late=care.recheck)):
        # mostly all is as it was, and one look at all of them says so
        together = Window(run[0].window.after, run[-1].window.upto)
        expected = sum((one.checksum for one in run), NOTHING)
        is_same = len(run) > 1 and source.checksum(job.query, together) == expected
        for one in run:
            yield from _look(job, one, now, one.checksum if is_same else None, source=source, ledger=ledger, care=care)
        yield None


def _look(
    job: Job, one: RecordedWindow, now: int, found: Checksum | None, *, source: Source, ledger: Ledger, care: Care
) -> Iterator[Noticed]:
    """Compare one window with what it was, and store what is to be looked at next time."""
    found = found or source.checksum(job.query, one.window)
    more = found.rows - one.checksum.rows
    late = max(more, 1) if more >= 0 and found != one.checksum else 0  # as many, but others: one went, one came
    then = _then(job, one, now, found, source=source, care=care)
    if not ledger.rechecked(job, one, then, late_rows=late):
        return  # another job was quicker
    if late:
        yield Noticed("rows.late", {"window": str(one.window), "rows": late})
    elif more < 0:
        yield Noticed("rows.deleted", {"window": str(one.window), "rows": -more})


def _then(
    job: Job, one: RecordedWindow, now: int, found: Checksum, *, source: Source, care: Care
) -> RecordedWindow | None:
    """Say what is to be looked at later, None for nothing."""
    assert care.recheck is not None
    if found.rows == one.window.upto - one.window.after:
        return None  # no id is missing any more
    if now - one.recorded < care.recheck:
        return replace(one, checksum=found, looks=one.looks + 1)
    if not one.is_open:
        return None
    # what passed while it was in flight is waited for, and once it has vanished for another `recheck`
    is_open = bool(source.evidence(job.query, one.window).in_flight)
    return RecordedWindow(one.window, found, now, is_open=is_open)


def _runs(windows: Sequence[RecordedWindow]) -> Iterator[list[RecordedWindow]]:
    """Put windows together that adjoin, as long as they do not hold too many rows."""
    run: list[RecordedWindow] = []
    rows = 0
    for one in windows:
        if run and (one.window.after != run[-1].window.upto or rows > MOST_ROWS):
            yield run
            run, rows = [], 0
        run.append(one)
        rows += one.checksum.rows
    if run:
        yield run
