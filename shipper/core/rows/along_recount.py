"""Recounts of a job along a time: the rows of a span, and the minutes that are kept there."""

from collections.abc import Generator
from functools import partial

from shipper.core.ledger import Minute
from shipper.core.model import Job, Span, Window
from shipper.core.retention import floor
from shipper.core.rows.along_minutes import NEVER, NO_CHECKSUM, Found, bucket_of, held_in, known_minute, minutes_of
from shipper.core.rows.along_reading import by_minutes, check_changed, read_minute, readable, windows
from shipper.core.rows.others import share_cells
from shipper.core.rows.start import BEGINNING, MINUTE, repeated_seconds
from shipper.core.rows.table import Context, Source
from shipper.core.rows.totals import Folded, fold


def window_of(job: Job, span: Span, source: Source) -> Window | None:
    """Return a window that contains all rows of a span of time; None if there is none."""
    margin = repeated_seconds(job)
    first, end = (source.local(job.query, max(0, edge)) for edge in (span.start, span.end))
    first = max(BEGINNING, first - margin - 1)
    return Window(first, end + margin - 1) if first < end + margin - 1 else None


def recount_along(
    context: Context, span: Span, places: Span
) -> Generator[None, None, tuple[Folded, dict[int, Minute]]]:
    """Count the rows of a span again, and the minutes that are kept and have changed; yield while reading.

    Raises:
        QueryRefused: more minutes have changed than memory should hold.
    """
    job, source, ledger, _ = context
    folded, minutes, whole = Folded(), dict[int, Minute](), window_of(job, span, source)
    if whole is None:
        return folded, minutes
    rows_in, kept = minutes_of(whole.after, whole.upto), floor(ledger.position(job.name).counted.floor + 1, MINUTE)
    for window in windows(job, Span(rows_in.start, min(rows_in.end, kept)), source):
        for _, read in by_minutes(job, window, source, span):
            fold(source.renamed(job.query, read), places, job.kinds, into=folded)
            share_cells(job, ledger, folded)
        yield
    for window in windows(job, Span(max(rows_in.start, kept), rows_in.end), source, ledger=ledger):
        after = window.after
        while after < window.upto:
            rest = Window(after, window.upto)
            found = readable(job, rest, source, partial(_recounted, context, span, rest))
            after = found.upto
            fold(source.renamed(job.query, found.rows), places, job.kinds, into=folded)
            share_cells(job, ledger, folded)
            minutes |= found.minutes
            check_changed(job, minutes.values())
            yield
    return folded, minutes


def _recounted(context: Context, span: Span, window: Window) -> Found:
    """Count the minutes of a window that are kept, in one snapshot: rows with a time in a span, and changes."""
    job, source, ledger, _ = context
    found = Found(window.upto)
    with source.snapshot(job.query):
        present = source.minutes(job.query, window)
        for start in range(window.after + 1, window.upto + 1, MINUTE):
            before = known_minute(ledger, job, start)
            if start not in present and before is NEVER:
                continue
            rows = read_minute(job, Window(start - 1, start + MINUTE - 1), source, span)
            found.rows += (row for row in rows if row.bucket is not None)
            groups = {key: held for key, held in before.groups.items() if bucket_of(key) not in span}
            groups |= {key: held for key, (held, _) in held_in(job, rows).items()}
            # most minutes are as they were, and memory need not hold them
            if groups != before.groups:
                # the next look counts it again: other rows of a minute may be in other slots
                found.minutes[start] = Minute(present.get(start, (0, 0))[0], NO_CHECKSUM, groups)
            if found.ends_with(start, (row.group for row in rows)):
                break
    return found
