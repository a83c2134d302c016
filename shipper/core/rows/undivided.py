"""Indivisible measures of buckets, each read by one statement on all its rows."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, MutableMapping

from shipper.core.errors import RowRefused
from shipper.core.model import Job, Row, Span, Window
from shipper.core.rows.table import Source, scan
from shipper.core.rows.totals import Folded, fold


def widen(ids: MutableMapping[int, Window], buckets: Iterable[int], window: Window) -> None:
    """Note that rows of these buckets are in a window, beside those where they were found before."""
    for bucket in buckets:
        known = ids.get(bucket, window)
        ids[bucket] = Window(min(known.after, window.after), max(known.upto, window.upto))


def read_undivided(
    job: Job, ids: Mapping[int, Window], places: Span, *, source: Source, into: Folded
) -> Iterator[None]:
    """Add the indivisible measures of buckets, given with the ids of their rows, to folded rows; yield while reading.

    A statement reads all rows of adjoining buckets, as far as their ids are at most a chunk.
    """
    if job.query.is_divisible:
        return
    length = job.query.bucket
    pieces: list[tuple[Span, Window]] = []
    for bucket in sorted(ids):
        span, window = Span(bucket, bucket + length), ids[bucket]
        if pieces and pieces[-1][0].end == bucket:
            before = pieces[-1][1]
            both = Window(min(before.after, window.after), max(before.upto, window.upto))
            if both.upto - both.after <= job.chunk:
                span, window = Span(pieces.pop()[0].start, span.end), both
        pieces.append((span, window))
    for span, window in pieces:
        fold(read_span(job, window, span, source=source), places, job.kinds, into=into)
        yield


def read_span(job: Job, window: Window, span: Span, *, source: Source) -> list[Row]:
    """Read the indivisible measures of the buckets in a span; a window contains all of their rows."""
    try:
        return source.read_undivided(job.query, window, span)
    except RowRefused:
        # the statement for the other measures finds the unreadable rows
        deque(scan(job, window.after, window.upto, source=source), maxlen=0)
        return source.read_undivided(job.query, window, span)
