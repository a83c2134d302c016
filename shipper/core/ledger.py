"""Ledger: what captures and recounts store in the state and read from it."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from shipper.core.id_set import Words
from shipper.core.measures import Measure, Value
from shipper.core.model import (
    ALWAYS,
    Fingerprint,
    Group,
    Job,
    Key,
    Offsets,
    Progress,
    RejectedValue,
    Rejection,
    RejectReason,
    Span,
    Window,
)
from shipper.core.position import Position


class Recording(Protocol):
    """Open transaction on a job: at its end all of it becomes durable, after an error nothing."""

    def is_pruned(self, time: int, step: int) -> bool:
        """Return whether a part of the slot of that length around a time was pruned, or the time is before the job."""

    def coarsest(self, time: int, longer_than: int) -> tuple[int, int] | None:
        """Return slot and step of the longest slot around a time, also of earlier archives, that has totals.

        None if none of these slots is longer than some seconds.
        """

    def has_finer(self, slot: int, step: int) -> bool:
        """Return whether there are slots of finer archives within a slot."""

    def adopt(self, names: Collection["Name"]) -> list["Name"]:
        """Return the names that do not own their path; the paths of all others count as claimed."""

    def groups(self, groups: Collection[Group]) -> tuple[int, set[Group]]:
        """Return how many groups have series, and which of these groups do."""

    def claim(self, names: Sequence["Name"]) -> list["Name"]:
        """Claim unowned paths, of two names for one path for the first, and return all names that own their path now.

        Raises:
            ConfigError: a path belongs to another job.
        """

    def take(self, keys: Collection[Key]) -> dict[Key, list[Value]]:
        """Return the totals of keys with claimed paths, and remove those of finer slots within them."""

    def unprune(self, span: Span) -> None:
        """Unmark the pruned slots of a span."""

    def begin_at(self, slot: int) -> None:
        """Mark slots from this one on as complete, and as part of the job."""

    def own(self, paths: Collection[str]) -> set[str]:
        """Return which of the paths have a 0 where there are no rows, and belong to the job; claim them."""

    def stored_keys(self, span: Span, measures: Iterable[str]) -> Iterable[Key]:
        """Yield the keys of stored totals of these measures in a span, but extremes, and claim their paths."""

    def put(self, totals: Iterable["Total"], *, resends: bool = False) -> None:
        """Store totals with claimed paths; an equal total changes nothing, unless resends is set."""

    def mark(self, slot: int, step: int) -> None:
        """Mark a slot as one that holds rows of this window, even without a total."""

    def lack(self, slot: int, step: int, rows: int) -> None:
        """Note that the indivisible measures of a slot lack rows until it is recounted."""

    def recounted(self, span: Span, at: int, *, has_failed: bool = False) -> None:
        """Note that no measure of the slots of a span lacks rows, as of a time; or that a recount failed then."""

    def see(self, bucket: int, paths: Iterable[str]) -> None:
        """Store that series had rows in a bucket."""

    def rejected(self, reason: RejectReason) -> int:
        """Return how many rows were rejected for a reason."""

    def limit_ids(self, slot: int, step: int, window: Window) -> None:
        """Store that the rows of a slot are among these ids; closer than `ids_within`."""

    def first_seen(self) -> int | None:
        """Return the oldest bucket in which a series of the job had rows."""

    def zero_fill(
        self, slot: int, step: int, *, seen_since: int, measures: Iterable[str], declared: Iterable[str]
    ) -> None:
        """Store 0 for series without a total in a slot, but extremes, and indivisible measures that lack rows.

        These are series of the measures with rows before the slot that were seen since then, and the declared paths.
        """

    def write(self, update: "RecordUpdate") -> None:
        """Store the progress of the job. The last call."""


class Ledger(Protocol):
    """State of jobs, as captures use it."""

    def groups(self, job: str, groups: Collection[Group]) -> tuple[int, set[Group]]:
        """Return how many groups of a job have series, and which of these groups do."""

    def progress(self, job: str) -> Progress | None:
        """Return from where a job continues; None if it is new."""

    def position(self, job: str) -> Position:
        """Return which ids a job that has begun has counted."""

    def note_look(self, job: str, position: Position) -> None:
        """Remember the position after a look without new rows, in memory only: the next look starts from it."""

    def begin(self, job: Job, progress: Progress, position: Position, known: Fingerprint | None) -> None:
        """Store a new job, with all ids up to captured delivered, and what identifies its table."""

    def redefine(self, job: str, progress: Progress) -> None:
        """Store a changed definition and its consequences."""

    def lowest(self, job: str, span: Span) -> tuple[int, int] | None:
        """Return the oldest slot of a span with totals, and the id above which all rows of the span are.

        Rejected rows that a recount may show are part of it; without a slot their oldest bucket is returned.
        """

    def slots(self, job: str, *, span: Span = ALWAYS, longer_than: int = 0) -> list["Slot"]:
        """Return the job's slots that overlap a span, in order, and are longer than some seconds."""

    def pruned(self, job: str) -> list[Span]:
        """Return the times whose slots were pruned, in order."""

    def lacking(self, job: str) -> list["Lacking"]:
        """Return the slots whose indivisible measures lack rows, newest first."""

    def settled(self, job: str) -> list["Settled"]:
        """Return how many ids at or below the floor of the position were counted, by ranges, in order."""

    def late_ids(self, job: str) -> list["LateIds"]:
        """Return the late ids of a job without a time column, by the slot in which they were counted."""

    def minutes(self, job: str, window: Window) -> dict[int, "Minute"]:
        """Return what is known of the minutes that begin in a window, of a job along a time, by their start."""

    def first_minute(self, job: str, window: Window) -> int | None:
        """Return the start of the first known minute that begins in a window; None if there is none."""

    def recording(self, job: str, window: Window | None) -> AbstractContextManager[Recording]:
        """Open the transaction that records a window (None: no new ids); it commits at the end of the block.

        Raises:
            StateCorrupt: captured or the position has changed meanwhile.
            StateBusy: the state cannot be written now.
        """

    def fingerprint(self, job: str) -> Fingerprint | None:
        """Return the fingerprint of the table when the job last captured."""

    def distrust(self, job: str) -> None:
        """Remember that the table went back, until the job captures again or is reset."""


class Name(NamedTuple):
    """Path, and the measure of a group that owns it or is to own it."""

    path: str
    group: Group
    measure: Measure


class Total(NamedTuple):
    """Value of a key; it is deferred if it is not due yet."""

    key: Key
    value: Value
    is_due: bool = True


class Slot(NamedTuple):
    """Slot of a job; the ids of its rows are in (after, upto]."""

    slot: int
    step: int
    after: int
    upto: int


class Lacking(NamedTuple):
    """Slot whose indivisible measures lack rows."""

    slot: int
    step: int
    rows: int
    """Number of rows since the last recount."""
    recounted: int
    """Time of the last recount, or attempt, in epoch seconds; 0 if there was none."""


class Settled(NamedTuple):
    """Number of counted ids in (after, upto], a range below the floor: single ids are no longer known there."""

    after: int
    upto: int
    rows: int


class LateIds(NamedTuple):
    """Late ids that were counted in a slot, of a job without a time column."""

    slot: int
    words: Words


class Held(NamedTuple):
    """Rows of a group in a bucket of a minute, when there were most."""

    rows: int
    values: tuple[Value | None, ...]
    """Value of each measure."""
    left_out: Mapping[str, int] = {}
    """Number of values that Carbon cannot hold, by column."""


class Minute(NamedTuple):
    """Content of the table in a minute, of a job along a time."""

    rows: int
    """Number of rows at the last look, conditions ignored."""
    checksum: int
    """Checksum of their times."""
    groups: Mapping[tuple[int, Group], Held]
    """Rows by bucket and group."""


class JobSnapshot(NamedTuple):
    """Data of a job without its totals, at one moment."""

    offsets: Offsets
    progress: Progress
    names: list[Name]
    """Names of all series that it ever had."""
    slots: list[Slot]
    """Slots of a span of time, in order."""
    pruned: list[Span]
    """Parts of that span whose slots were pruned."""
    late: Sequence[LateIds] = ()
    """Late ids, of a job without a time column."""
    lacking: Sequence[Span] = ()
    """Slots of that span whose indivisible measures lack rows."""
    position: Position | None = None
    """The ids that are counted; None to take all rows up to captured for counted."""
    minutes: Mapping[int, tuple[int, int]] = {}
    """Number of rows and checksum of each minute that is kept, along a time."""


class RecordUpdate(NamedTuple):
    """Progress to store with a transaction; None leaves a field unchanged."""

    position: Position
    """Ids that are counted or rejected now; its version is that with which the look began."""
    rejected: Mapping[Rejection, int] = {}
    complete_until: int | None = None
    zero_filled_until: int | None = None
    low: int | None = None
    ids_within: Window | None = None
    """Window of the ids of the stored slots; None: the recorded window, if there is one."""
    since: int | None = None
    """First slot that is complete, by the job's present definition."""
    not_before: int | None = None
    """First bucket to which rows of a job without a time column still go."""
    is_recounted: bool = False
    bucket: int | None = None
    """Longest bucket of the job's slots, in seconds."""
    is_lookback: bool = False
    """Whether rejected rows are all of the span, also those that an earlier look has rejected."""
    fingerprint: Fingerprint | None = None
    late_rows: int = 0
    """Number of rows that came at or below captured."""
    late: LateIds | None = None
    """Ids of these rows, of a job without a time column."""
    shows: Mapping[RejectReason, Span] = {}
    """Spans whose rejected rows, by reason, are shown now and leave the counters."""
    outside: Mapping[RejectReason, int] = {}
    """Number of rows of the table that no window holds now, by reason."""
    minutes: Mapping[int, Minute] = {}
    """Minutes that were counted, by their start, of a job along a time; those below the floor are forgotten."""


@dataclass(slots=True)
class RecordResult:
    """Result of a transaction."""

    rejected: Counter[Rejection] = field(default_factory=Counter)
    other_rows: int = 0
    """Rows that went to OTHER."""
    other: Group | None = None
    """First group of these rows."""
    others: set[Group] = field(default_factory=set)
    """All groups of these rows, until the transaction ends."""
    sanitized_series: int = 0
    """Number of new paths that differ from their group's values; of several measures the first counts."""
    sanitized: list[tuple[str, Group]] = field(default_factory=list)
    """The first few of them."""
    nameless: Group | None = None
    """First group whose path Carbon could not hold."""
    rejected_values: list[RejectedValue] = field(default_factory=list)
    """Values that Carbon could not hold."""
    totals: int = 0
    """Number of totals that replaced others."""

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to log."""
        return not (self.rejected or self.other_rows or self.sanitized or self.rejected_values)
