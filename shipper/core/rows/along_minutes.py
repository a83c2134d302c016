"""Minutes of a job along a time: what each held when it was last counted, and how the table differs from that now."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shipper.core.ledger import Held, Ledger, Minute
from shipper.core.measures import Kind
from shipper.core.model import Group, Job, RejectedValue, Row, Span, Window
from shipper.core.retention import after, floor
from shipper.core.rows import along_reading
from shipper.core.rows.start import MINUTE

NO_CHECKSUM = -1
"""Checksum of a minute that differs from all."""

NEVER = Minute(0, 0, {})


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
        if self._labels < along_reading.MOST_LABELS:
            return False
        self.upto = start + MINUTE - 1
        return True


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
