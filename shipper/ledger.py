"""Core. What captures and recounts need of the state, and what they tell it."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from shipper.model import (
    ALWAYS,
    Cause,
    Fingerprint,
    Group,
    Job,
    Key,
    Measure,
    Position,
    Progress,
    Reason,
    RecordedWindow,
    Refusal,
    Span,
    Value,
    Window,
)


class Recording(Protocol):
    """One open transaction on a job; all of it becomes durable, or nothing."""

    def is_pruned(self, time: int) -> bool:
        """Was the slot that holds time pruned?"""

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

    def unshown_in(self, window: Window) -> Counter[Reason]:
        """Return what the job has counted as unshown in a window of unshown_window."""

    def own(self, paths: Collection[str]) -> set[str]:
        """Return those of the paths that are counts and sums of the job, and claim them."""

    def stored(self, span: Span, measures: Iterable[str]) -> list[Key]:
        """Return the keys of counts and sums of the job's measures in the slots of a span, and claim their paths."""

    def put(self, totals: Iterable["Total"], *, resends: bool = False) -> None:
        """Store totals whose paths are claimed. An equal one changes nothing, or is sent again all the same."""

    def see(self, bucket: int, paths: Iterable[str]) -> None:
        """Remember that the series had rows in a bucket."""

    def mark(self, slot: int, step: int) -> None:
        """Remember that the slot holds this window's rows, though there may be none."""

    def first_seen(self) -> int | None:
        """Return the oldest bucket in which a series of the job had rows."""

    def close(self, slot: int, step: int, *, seen_since: int, declared: Iterable[str]) -> None:
        """Store a 0 for counts and sums without a total there: those seen since then and before it, or declared."""

    def write(self, done: "Done") -> None:
        """Store how far the job has come. The last call."""


class Ledger(Protocol):
    """What captures need of the state."""

    def progress(self, job: str) -> Progress | None:
        """Return what the job goes on from; None when it is new."""

    def begin(self, job: Job, progress: Progress) -> None:
        """Store a new job that stands at captured, delivered."""

    def reshape(self, job: str, progress: Progress) -> None:
        """Store a changed shape, and what follows from it."""

    def lowest(self, job: str, span: Span) -> tuple[int, int] | None:
        """Return the oldest slot of the span that has totals, and the id above which the rows of all are.

        So are those that are counted as unshown, and may be shown there one day.
        """

    def slots(self, job: str, *, span: Span = ALWAYS, window: Window | None = None) -> list["Slot"]:
        """Return the job's slots that overlap a span, with rows that overlap a window, in order."""

    def recording(self, job: str, window: Window | None) -> AbstractContextManager[Recording]:
        """Open the transaction that records a window, or none; it commits at the end of the block.

        Raises:
            StateCorrupt: captured is not where the window begins.
            StateBusy: the state cannot be written now.
        """

    def hold(self, job: str, since: int) -> None:
        """Remember since when a row in flight holds the job up, until it records a window."""

    def recorded_upto(self, job: Job, window: Window) -> int:
        """Return how far recorded windows of the job's table cover a window from its beginning: window.after at least.

        Any answer between is right: it only saves recording it again.
        """

    def due(self, job: Job, now: int, *, early: int, late: int) -> list[RecordedWindow]:
        """Return the recorded windows of the job's table that are old enough for their next look, in order of ids.

        That is early for the first, late for the last; nothing, until one is older than that by early again.
        """

    def rechecked(self, job: Job, before: RecordedWindow, then: RecordedWindow | None, *, late_rows: int) -> bool:
        """Store what becomes of a recorded window; with late rows, all jobs on the table are to repair it.

        Return False, having done nothing, if it has changed since.
        """

    def repairs(self, job: str) -> list[Window]:
        """Return the windows whose rows the job is to count again."""

    def unshown_window(self, job: str, window: Window) -> Window:
        """Return a window, extended by those of the job's that overlap it and for which it counts rows as unshown."""

    def fingerprint(self, job: str) -> Fingerprint | None:
        """Return by what the table was known when the job last captured."""

    def distrust(self, job: str) -> None:
        """Remember that the table went back, until the job captures again or is reset."""

    def reset(self, job: Job, captured: int, *, low: int, recount_from: int | None, since: int) -> None:
        """Let the job go on from another id, with nothing known of the table; slots hold rows above low.

        Those from since on are whole, once recount_from is done.
        """

    def horizon_at(self, job: str, time: int) -> int:
        """Return the newest horizon known to have stood at a time of the source, 0 when none is."""


class Name(NamedTuple):
    """A path, and whose it is or shall be."""

    path: str
    group: Group
    measure: Measure


class Total(NamedTuple):
    """What a key's total is now; one that is not ripe is not sent yet."""

    key: Key
    value: Value
    is_ripe: bool = True


class Slot(NamedTuple):
    """A slot of a job, and the ids that its rows are among: above after, up to upto."""

    slot: int
    step: int
    after: int
    upto: int


def outermost(slots: Sequence[Slot]) -> Iterator[Slot]:
    """Yield the slots that are not part of one of a coarser archive, which has their rows, too."""
    places = {(slot.slot, slot.step) for slot in slots}
    steps = {slot.step for slot in slots}
    for slot in slots:
        if not any((slot.slot - slot.slot % step, step) in places for step in steps if step > slot.step):
            yield slot


class Book(NamedTuple):
    """What is known of a job without its totals, all of one moment."""

    position: Position
    progress: Progress
    names: list[Name]
    """Of all series that it ever had."""
    slots: list[Slot]
    """Those in a span of time, in order."""
    pruned: list[Span]
    """What of that is no longer known."""


class CountedUnshown(NamedTuple):
    """A window, put together from a job's own, and what was counted as unshown in it."""

    window: Window
    rows: Counter[Reason]


class Done(NamedTuple):
    """How far a transaction takes its job; None leaves a thing as it is."""

    unshown: Mapping[Reason, int]
    complete_until: int | None = None
    closed_until: int | None = None
    low: int | None = None
    seen_from: int | None = None
    """The rows of the slots that were put have ids above this one: the window's lower end, where None."""
    is_recounted: bool = False
    replaces: frozenset[Cause] = frozenset()
    """The counters of these causes are set instead of added to."""
    recorded: RecordedWindow | None = None
    """What is to be rechecked."""
    fingerprint: Fingerprint | None = None
    repaired: Window | None = None
    """The window that was repaired by this."""
    unshown_in: CountedUnshown | None = None
    """What is counted as unshown in a window, from now on."""
    shows: Mapping[Cause, Span] = {}
    """Rows of these causes with buckets in these spans are shown now: they are counted as unshown no more."""


@dataclass(slots=True)
class Tally:
    """What a transaction found out."""

    unshown: Counter[Reason] = field(default_factory=Counter)
    other_rows: int = 0
    """Rows that went to OTHER."""
    other: Group | None = None
    """The first group that they were of."""
    cleaned: list[tuple[str, Group]] = field(default_factory=list)
    """New paths that do not show their group as it is."""
    nameless: Group | None = None
    """The first group whose path Carbon could not hold."""
    refused: list[Refusal] = field(default_factory=list)
    """Values that Carbon could not hold."""
    totals: int = 0
    """How many totals took the place of others."""

    @property
    def is_plain(self) -> bool:
        """Is there nothing to be told?"""
        return not (self.unshown or self.other_rows or self.cleaned or self.refused)
