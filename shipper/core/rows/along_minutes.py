"""Minutes of a job along a time: read, compared with what each held when it was last counted, and counted again.

Rows are read in windows of whole minutes, in halves where that fails. Labels are values, without names. A second that
cannot be read is set aside, and the rows beside it are read.
"""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from shipper.core.errors import QueryRefused, RowRefused, TooManyGroups
from shipper.core.ledger import Held, Ledger, Minute
from shipper.core.measures import Kind
from shipper.core.model import ALWAYS, Group, Job, Query, RejectedValue, Row, Span, Window
from shipper.core.retention import after, floor
from shipper.core.rows.folding import Folded, fold, folded_within_limit
from shipper.core.rows.start import BEGINNING, MINUTE, repeated_seconds
from shipper.core.rows.table import SECONDS, Context, Source, most_groups

NO_CHECKSUM = -1
"""Checksum of a minute that differs from all."""

NEVER = Minute(0, 0, {})

LONG_SECONDS = 3600
"""Longest window where minutes are kept: each minute that differs is a statement within one snapshot."""
MOST_LABELS = 10_000
"""Most labels in the groups of a minute, and about as many in one record: the state keeps all of them."""
MOST_CHANGED = 50_000
"""Most labels in the minutes that a recount changes at once: 40 MB until they are stored."""

_FEWER = "Group `by` fewer columns, or by columns with fewer values; or give the table an integer key."


@dataclass(slots=True)
class Found:
    """Difference between a table and what is known of it."""

    upto: int
    """Last second that was compared."""
    rows: list[Row] = field(default_factory=list)
    """New rows."""
    late_rows: int = 0
    """How many of them are not above captured."""
    minutes: dict[int, Minute] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    """Buckets in which deleted rows may hide new ones."""
    _labels: int = 0

    def keep(self, start: int, minute: Minute) -> bool:
        """Add a minute; return whether it must be the last, because there are many labels."""
        self.minutes[start] = minute
        return self.ends_with(start, (group for _, group in minute.groups))

    def ends_with(self, start: int, groups: Iterable[Group]) -> bool:
        """Whether a minute with these groups must be the last; then it is."""
        self._labels += sum(max(1, len(group)) for group in groups)
        if self._labels < MOST_LABELS:
            return False
        self.upto = start + MINUTE - 1
        return True


def windows(job: Job, span: Span, source: Source, *, ledger: Ledger | None = None) -> Iterator[Window]:
    """Yield windows of whole minutes, each of about `chunk` rows at most.

    They contain all rows, and with a ledger also all minutes that it keeps.
    """
    start = span.start
    while start < span.end:
        end = span.end
        if end - start > SECONDS:
            first = source.first_id(job.query, start - 1, end - 1)
            known = ledger.first_minute(job.name, Window(start - 1, end - 1)) if ledger is not None else None
            start = floor(first if known is None else min(first, known), MINUTE)
            end = end if ledger is None else min(end, start + LONG_SECONDS)
            last = source.nth_id(job.query, Window(start - 1, end - 1), job.chunk)
            end = end if last is None else min(end, after(last, MINUTE))
        yield Window(start - 1, end - 1)
        start = end


def _plain(job: Job) -> Query:
    """Return a job's query without names: a name may change, and the minutes that are kept must be comparable."""
    return replace(job.query, names=())


def found_in(
    job: Job, span: Span, source: Source, ledger: Ledger, work: Callable[[Window], Found]
) -> Iterator[tuple[Window, Found]]:
    """Do work on all minutes of a span that have rows or are kept, each time in a snapshot; yield what it has found.

    The work may end before its window does. If a second cannot be read, it is set aside, and the work is done again.
    """
    for window in windows(job, span, source, ledger=ledger):
        begins = window.after
        while begins < window.upto:
            rest = Window(begins, window.upto)
            try:
                found = work(rest)
            except RowRefused:  # the snapshot has ended with it
                deque(read_along(job, rest, source), maxlen=0)
                found = work(rest)
            yield Window(begins, found.upto), found
            begins = found.upto


def read_along(job: Job, window: Window, source: Source, span: Span = ALWAYS) -> Iterator[tuple[Window, list[Row]]]:
    """Read a window, or its halves if it cannot be read; a second that cannot be read is set aside.

    Call it outside of a snapshot, which an error would end. Labels are values, without names.
    """
    query, is_second = _plain(job), window.upto - window.after == 1
    try:
        rows = source.read(query, window, span)
    except RowRefused as error:
        if is_second:
            source.set_aside(query, window.upto, error)
        for part in [window] if is_second else _halves(window):
            yield from read_along(job, part, source, span)
    else:
        yield window, rows


def by_minutes(job: Job, window: Window, source: Source, span: Span = ALWAYS) -> Iterator[tuple[int, list[Row]]]:
    """Read a window of whole minutes, like `read_along`; yield the last second and the rows of whole minutes.

    Raises:
        QueryRefused: a minute has too many groups.
    """
    rows: list[Row] = []
    for part, more in read_along(job, window, source, span):
        rows += more
        if part.upto - part.after < MINUTE:
            check_groups(job, len(rows), part.upto)
        if part.upto % MINUTE == MINUTE - 1:
            yield part.upto, rows
            rows = []


def changed_buckets(job: Job, span: Span, known: Mapping[int, tuple[int, int]], source: Source) -> Iterator[Span]:
    """Yield the buckets of rows in minutes that have changed since the last look at them."""
    for window in windows(job, span, source):
        present = source.minutes(job.query, window)
        for start in [start for start, numbers in present.items() if known.get(start) != numbers]:
            for _, rows in by_minutes(job, Window(start - 1, start + MINUTE - 1), source):
                buckets = {row.bucket for row in rows if row.bucket is not None}
                yield from (Span(bucket, bucket + job.query.bucket) for bucket in buckets)


def read_minute(job: Job, window: Window, source: Source, span: Span = ALWAYS) -> list[Row]:
    """Read a minute within a snapshot, or parts of it.

    Raises:
        QueryRefused: it has too many groups.
    """
    try:
        rows = source.read(_plain(job), window, span)
    except TooManyGroups:
        rows = [row for half in _halves(window) for row in read_minute(job, half, source, span)]
    check_groups(job, len(rows), window.upto)
    return rows


def _halves(window: Window) -> tuple[Window, Window]:
    """Return the halves of a window, in whole minutes if it is longer than one."""
    seconds = window.upto - window.after
    middle = window.after + (seconds // 2 if seconds <= MINUTE else seconds // 2 // MINUTE * MINUTE or MINUTE)
    return Window(window.after, middle), Window(middle, window.upto)


def check_groups(job: Job, groups: int, second: int) -> None:
    """Check how many groups there are in the minute of a second.

    Raises:
        QueryRefused: they have more than MOST_LABELS labels.
    """
    if groups > (most := most_groups(job.query, MOST_LABELS)):
        minute = f"{second // 3600 % 24:02}:{second // 60 % 60:02}"
        zone = job.query.time_zone if job.query.time_unit is None else "UTC"
        raise QueryRefused(
            f"read {job.query.table} by {job.query.id}: more than {most} groups in the minute {minute} ({zone})",
            hint=_FEWER,
        )


def _check_changed(job: Job, minutes: Iterable[Minute]) -> None:
    """Check how many labels there are in the minutes that a recount changes at once.

    Raises:
        QueryRefused: they have more than MOST_CHANGED labels.
    """
    if sum(len(minute.groups) for minute in minutes) > (most := most_groups(job.query, MOST_CHANGED)):
        raise QueryRefused(
            f"recount {job.query.table} by {job.query.id}: more than {most} groups in the minutes that changed",
            hint=_FEWER,
        )


Groups = Mapping[tuple[int, Group], Held]


def difference(job: Job, rows: Iterable[Row], before: Groups, *, may_fall: bool) -> tuple[list[Row], Groups, set[int]]:
    """Return the rows of a minute beyond those before, what it held at most, and the buckets that lack rows.

    If values may fall, the rows are the difference, also a negative one.
    """
    now, kinds, new, most, lacking = held_in(job, rows), job.kinds, list[Row](), dict(before), set[int]()
    nothing = Held(0, (None,) * len(kinds))
    for key in now.keys() | before.keys():
        (there, rejected), had = now.get(key, (nothing, ())), before.get(key, nothing)
        if there == had:
            continue
        if there.rows <= had.rows and not may_fall:
            lacking |= {key[0]} if key[0] >= 0 else set()
            continue
        most[key] = there
        values = tuple(map(Kind.difference, kinds, there.values, had.values))
        more = Counter(there.left_out)
        more.subtract(had.left_out)
        refused = tuple(one._replace(rows=more.pop(one.column)) for one in rejected if more[one.column] > 0)
        new.append(Row(bucket_of(key), key[1], there.rows - had.rows, values, refused, key[0] < 0))
    return new, most, lacking


def held_in(job: Job, rows: Iterable[Row]) -> dict[tuple[int, Group], tuple[Held, tuple[RejectedValue, ...]]]:
    """Return what each group has in each bucket, and the values that were left out.

    Rows that cannot be read are kept beside the others: in place of their bucket is its complement, which is negative.
    """
    held: dict[tuple[int, Group], tuple[Held, tuple[RejectedValue, ...]]] = {}
    for bucket, group, number, values, rejected, is_unreadable in rows:
        if bucket is None:  # what is in the window has a time, but for an infinity
            continue
        key = ~bucket if is_unreadable else bucket, group
        one, others = held.get(key, (Held(0, (None,) * len(values)), ()))
        combined = tuple(map(Kind.combine, job.kinds, one.values, values))
        left_out = Counter(one.left_out)
        for value in rejected:
            left_out[value.column] += value.rows
        held[key] = Held(one.rows + number, combined, left_out), (*others, *rejected)
    return held


def bucket_of(key: tuple[int, Group]) -> int:
    """Return the bucket of rows, whether they can be read or not."""
    return key[0] if key[0] >= 0 else ~key[0]


def known_minute(ledger: Ledger, job: Job, start: int) -> Minute:
    """Return what is known of a minute; those of a window together may be more than memory should hold."""
    return ledger.minutes(job.name, Window(start - 1, start)).get(start, NEVER)


def minutes_of(first: int, upto: int) -> Span:
    """Return the whole minutes that hold the seconds above first up to another one."""
    return Span(floor(first + 1, MINUTE), after(upto, MINUTE))


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
    folded, minutes, whole = folded_within_limit(job, ledger), dict[int, Minute](), window_of(job, span, source)
    if whole is None:
        return folded, minutes
    rows_in, kept = minutes_of(whole.after, whole.upto), floor(ledger.position(job.name).counted.floor + 1, MINUTE)
    for window in windows(job, Span(rows_in.start, min(rows_in.end, kept)), source):
        for _, read in by_minutes(job, window, source, span):
            fold(source.renamed(job.query, read), places, job.kinds, into=folded)
        yield
    whole_kept = Span(max(rows_in.start, kept), rows_in.end)
    for _, found in found_in(job, whole_kept, source, ledger, partial(_recounted, context, span)):
        fold(source.renamed(job.query, found.rows), places, job.kinds, into=folded)
        minutes |= found.minutes
        _check_changed(job, minutes.values())
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
