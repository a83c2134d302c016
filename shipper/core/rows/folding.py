"""Rows folded by group and bucket into cells, from which totals are made.

Strategy: a recount may meet very many groups that have no series. They share cells in memory, as they will share a
path; the totals are the same. Indivisible measures come from one statement on all rows of their buckets.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import NamedTuple

from shipper.core.errors import RowRefused
from shipper.core.ledger import Ledger
from shipper.core.measures import Kind, Value
from shipper.core.model import ALWAYS, Group, Job, RejectedValue, Rejection, RejectReason, Row, Span, Window
from shipper.core.paths import OTHER, beyond_limit
from shipper.core.retention import EDGE_SECONDS, oldest_shown
from shipper.core.rows.table import Source, scan

MAX_SKEW_SECONDS = 300
"""Seconds by which the time of a row may be ahead of its source's clock, beyond its own bucket."""

YEAR_SECONDS = 366 * 86_400
"""Times further ahead are mistakes, and counted in one bucket, since they may have any number of them."""
FAR = ALWAYS.end
"""That bucket: behind all spans."""

MANY_CELLS = 10_000
"""Labels of cells that are folded before groups share some: the longest need 10 MB."""


class Cell(NamedTuple):
    """Rows and values of one group in one bucket."""

    rows: int
    values: tuple[Value | None, ...]


Choose = Callable[[Collection[Group]], Collection[Group]]


@dataclass(slots=True)
class Folded:
    """Rows added up by group and bucket, rejected rows by reason, and values that were left out."""

    cells: dict[tuple[Group, int], Cell] = field(default_factory=dict)
    rejected: Counter[Rejection] = field(default_factory=Counter)
    rejected_values: list[RejectedValue] = field(default_factory=list)
    others: Counter[Group] = field(default_factory=Counter)
    """Rows of groups that share cells already, under the first of the groups."""
    many: int = field(default_factory=lambda: MANY_CELLS)
    """Number of labels of cells from which on groups may share some."""
    sharing: Choose | None = None
    """Returns which of the groups are to share cells; None if none are."""

    @property
    def rows(self) -> int:
        """Number of rows that were folded, rejected ones included."""
        return sum(cell.rows for cell in self.cells.values()) + self.rejected.total()

    @property
    def unreadable(self) -> Counter[Rejection]:
        """Rejected rows that the database cannot read, but whose buckets are known."""
        one, rejected = RejectReason.UNREADABLE, self.rejected.items()
        return Counter({key: rows for key, rows in rejected if key.reason is one and key.bucket is not None})


def shown_span(job: Job, *, now: int, source_time: int) -> Span:
    """Return the span of buckets that Graphite can show; its end lets clocks differ a little.

    A bucket further ahead than the margin around the end of an archive would get the place of an old one in it: Whisper
    keeps the two in one cell, since they are as far apart as the archive is long. Carbon's clock decides that, which is
    close to ours, not to that of the source; but the source's present bucket is always shown.
    """
    oldest = max(job.query.bucket, oldest_shown(job.archives, now))  # Carbon drops a timestamp of 0
    ahead = min(source_time + job.query.bucket + MAX_SKEW_SECONDS, min(source_time, now) + EDGE_SECONDS)
    return Span(oldest, max(source_time, ahead) + 1)


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
    if folded.sharing is not None and folded.cells and _labels(folded) >= folded.many:
        _share(folded, folded.sharing, kinds)
    return folded


def _reason(bucket: int | None, span: Span) -> Rejection:
    if bucket is None:
        return Rejection(RejectReason.NO_TIME)
    if bucket < span.start:
        return Rejection(RejectReason.TOO_OLD)
    return Rejection(RejectReason.FUTURE, bucket if bucket < span.end + YEAR_SECONDS else FAR)


def folded_within_limit(job: Job, ledger: Ledger) -> Folded:
    """Return an empty one in which groups beyond the job's limit share cells, if there are many."""
    return Folded(sharing=lambda groups: beyond_limit(job, groups, *ledger.groups(job.name, groups)))


def _share(folded: Folded, choose: Choose, kinds: tuple[Kind, ...]) -> None:
    """Let the chosen groups share cells."""
    groups = dict.fromkeys(group for group, _ in folded.cells)
    other = (OTHER,) * len(next(iter(groups)))
    chosen = set(choose(groups)) - {other}
    first = next((group for group in groups if group in chosen), other)
    for group, bucket in [key for key in folded.cells if key[0] in chosen]:
        rows, values = folded.cells.pop((group, bucket))
        before = folded.cells.get((other, bucket), Cell(0, (None,) * len(values)))
        combined = tuple(map(Kind.combine, kinds, before.values, values))
        folded.cells[other, bucket] = Cell(before.rows + rows, combined)
        folded.others[first] += rows
    folded.many = _labels(folded) + MANY_CELLS


def _labels(folded: Folded) -> int:
    group, _ = next(iter(folded.cells))
    return len(folded.cells) * max(1, len(group))


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
