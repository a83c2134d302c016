"""What captures and recounts need of the state, and what they tell it."""

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
    """One open transaction on a job; all of it becomes durable, or nothing."""

    def is_pruned(self, time: int) -> bool:
        """Was the slot that holds time pruned, or is it from before the job began?"""

    def has_gone(self, slot: int, step: int) -> bool:
        """Does the job have a total in this slot of a coarser archive?"""

    def adopt(self, names: Collection["Name"]) -> set["Name"]:
        """Return the names whose path is their group's measure's already; it counts as claimed from here on."""

    def known(self, groups: Collection[Group]) -> set[Group]:
        """Return those of the groups that have series."""

    def count_groups(self) -> int:
        """Return how many groups have series."""

    def claim(self, names: Sequence["Name"]) -> set["Name"]:
        """Claim paths: those of nobody, the first name of each, and those that are theirs already; return these names.

        Raises:
            ConfigError: one belongs to another job.
        """

    def take(self, keys: Collection[Key]) -> dict[Key, list[Value]]:
        """Return the totals of keys, whose paths are claimed, and take away those of finer slots within them."""

    def revive(self, span: Span) -> None:
        """Take notice of slots again that were pruned."""

    def begin_at(self, slot: int) -> None:
        """Hold slots from this one on for the job's own: they are whole."""

    def own(self, paths: Collection[str]) -> set[str]:
        """Return those of the paths that are counts and sums of the job, and claim them."""

    def stored(self, span: Span, measures: Iterable[str]) -> list[Key]:
        """Return the keys of counts and sums of the job's measures in the slots of a span, and claim their paths."""

    def put(self, totals: Iterable["Total"], *, resends: bool = False) -> None:
        """Store totals whose paths are claimed. An equal one changes nothing, or is sent again all the same."""

    def mark(self, slot: int, step: int) -> None:
        """Remember that the slot holds this window's rows, though there may be none."""

    def see(self, bucket: int, paths: Iterable[str]) -> None:
        """Remember that the series had rows in a bucket."""

    def rejected(self, reason: RejectReason) -> int:
        """Return how many rows are counted as rejected for that cause."""

    def hold(self, slot: int, step: int, window: Window) -> None:
        """Remember that the slot's rows are among these ids, closer than `ids_within`."""

    def first_seen(self) -> int | None:
        """Return the oldest bucket in which a series of the job had rows."""

    def zero_fill(self, slot: int, step: int, *, seen_since: int, declared: Iterable[str]) -> None:
        """Store a 0 for counts and sums without a total there: those seen since then and before it, or declared."""

    def write(self, done: "RecordUpdate") -> None:
        """Store how far the job has come. The last call."""


class Ledger(Protocol):
    """What captures need of the state."""

    def progress(self, job: str) -> Progress | None:
        """Return what the job goes on from; None when it is new."""

    def position(self, job: str) -> Position:
        """Return which ids a job that has begun has counted."""

    def note_look(self, job: str, position: Position) -> None:
        """Remember, for the next look and record only, that a look found nothing."""

    def begin(self, job: Job, progress: Progress, position: Position) -> None:
        """Store a new job that stands at captured, delivered."""

    def redefine(self, job: str, progress: Progress) -> None:
        """Store a changed definition, and what follows from it."""

    def lowest(self, job: str, span: Span) -> tuple[int, int] | None:
        """Return the oldest slot of the span that has totals, and the id above which the rows of all are.

        So are those that are counted as rejected, and may be shown there one day; without a slot their oldest bucket.
        """

    def slots(self, job: str, *, span: Span = ALWAYS) -> list["Slot"]:
        """Return the job's slots that overlap a span, in order."""

    def settled(self, job: str) -> list["Settled"]:
        """Return how many ids were counted at or below the floor of the job's position, by ranges, in order."""

    def late_ids(self, job: str) -> list["LateIds"]:
        """Return which ids of a job without a time column came late, by the slot in which they were counted."""

    def recording(self, job: str, window: Window | None) -> AbstractContextManager[Recording]:
        """Open the transaction that records a window, or none; it commits at the end of the block.

        Raises:
            StateCorrupt: captured is not where the window begins, or the position is another by now.
            StateBusy: the state cannot be written now.
        """

    def fingerprint(self, job: str) -> Fingerprint | None:
        """Return by what the table was known when the job last captured."""

    def distrust(self, job: str) -> None:
        """Remember that the table went back, until the job captures again or is reset."""


class Name(NamedTuple):
    """A path, and whose it is or shall be."""

    path: str
    group: Group
    measure: Measure


class Total(NamedTuple):
    """What a key's total is now; one that is not due is not sent yet."""

    key: Key
    value: Value
    is_due: bool = True


class Slot(NamedTuple):
    """A slot of a job, and the ids that its rows are among: above after, up to upto."""

    slot: int
    step: int
    after: int
    upto: int


class Settled(NamedTuple):
    """How many ids above after, up to upto, were counted: all that is known of them since they are old."""

    after: int
    upto: int
    rows: int


class LateIds(NamedTuple):
    """Ids at or below captured that were counted in a slot; of a job without a time column."""

    slot: int
    words: Words


class JobSnapshot(NamedTuple):
    """What is known of a job without its totals, all of one moment."""

    offsets: Offsets
    progress: Progress
    names: list[Name]
    """Of all series that it ever had."""
    slots: list[Slot]
    """Those in a span of time, in order."""
    pruned: list[Span]
    """What of that is no longer known."""
    late: Sequence[LateIds] = ()
    """Of a job without a time column."""


class RecordUpdate(NamedTuple):
    """How far a transaction takes its job; None leaves a thing as it is."""

    position: Position
    """Of which ids all is in the totals now, or counted by cause; its version is that with which the look began."""
    rejected: Mapping[Rejection, int] = {}
    complete_until: int | None = None
    zero_filled_until: int | None = None
    low: int | None = None
    ids_within: Window | None = None
    """Among which ids the rows of the slots are that were put; None for those of the window, if there is one."""
    since: int | None = None
    """Slots from here on are whole, by the job's present definition."""
    not_before: int | None = None
    """Of a job without a time column: its rows go to no earlier bucket any more."""
    is_recounted: bool = False
    bucket: int | None = None
    """How long the buckets are that its slots begin with."""
    replaces: frozenset[RejectReason] = frozenset()
    """The counters of these causes are set instead of added to."""
    fingerprint: Fingerprint | None = None
    late_rows: int = 0
    """How many rows came below captured."""
    late: LateIds | None = None
    """Which they are; of a job without a time column."""
    shows: Mapping[RejectReason, Span] = {}
    """Rows of these causes with buckets in these spans are shown now: they are counted as rejected no more."""
    without_id: int | None = None
    """How many rows of the table no window holds, because their id is none."""


@dataclass(slots=True)
class RecordResult:
    """What a transaction found out."""

    rejected: Counter[Rejection] = field(default_factory=Counter)
    other_rows: int = 0
    """Rows that went to OTHER."""
    other: Group | None = None
    """The first group that they were of."""
    sanitized: list[tuple[str, Group]] = field(default_factory=list)
    """New paths that do not show their group as it is."""
    nameless: Group | None = None
    """The first group whose path Carbon could not hold."""
    rejected_values: list[RejectedValue] = field(default_factory=list)
    """Values that Carbon could not hold."""
    totals: int = 0
    """How many totals took the place of others."""

    @property
    def is_plain(self) -> bool:
        """Is there nothing to be told?"""
        return not (self.rejected or self.other_rows or self.sanitized or self.rejected_values)
