"""Core. How counts become totals: added by a capture, replaced by a recount; what capture needs of the state.

Strategy: each of these is one transaction that begins where the job's `captured` stands, so a process killed at any
instruction has either counted a window or not. Nothing else changes what a total comes to.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from shipper.errors import BadMetric
from shipper.fold import MOST, Folded, total
from shipper.model import (
    ALWAYS,
    Cause,
    Fingerprint,
    Group,
    Job,
    Key,
    Kind,
    Measure,
    Moment,
    Progress,
    RecordedWindow,
    Refusal,
    Span,
    Value,
    Window,
)
from shipper.render import brief, is_clean, own_path
from shipper.retention import floor, is_ripe, placed

OTHER = "_other"
"""The group of all groups beyond `limits.series`."""


class Recording(Protocol):
    """One open transaction on a job; all of it becomes durable, or nothing."""

    def is_pruned(self, time: int) -> bool:
        """Was the slot that holds time pruned?"""

    def has_gone(self, slot: int, step: int) -> bool:
        """Does the job have a total in this slot of a coarser archive?"""

    def has_group(self, group: Group) -> bool:
        """Does the group have series?"""

    def count_groups(self) -> int:
        """Return how many groups have series."""

    def claim(self, path: str, group: Group, measure: Measure) -> bool:
        """Make the path this job's group's measure's if it is nobody's; return whether it is that now.

        Raises:
            ConfigError: it belongs to another job.
        """

    def take(self, key: Key) -> list[Value]:
        """Return the total of a key, whose path is claimed, and take away those of finer slots within it."""

    def stored(self, span: Span, measures: Iterable[str]) -> list[Key]:
        """Return the keys of counts and sums of the job's measures in the slots of a span, and claim their paths."""

    def put(self, key: Key, value: Value, *, is_ripe: bool) -> None:
        """Store a total whose path is claimed; one that is not ripe is not sent yet. An equal one changes nothing."""

    def see(self, bucket: int, paths: Iterable[str]) -> None:
        """Remember that the series had rows in a bucket."""

    def mark(self, slot: int, step: int) -> None:
        """Remember that the slot holds this window's rows, though there may be none."""

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
        """Return the oldest slot of the span that has totals, and the id above which the rows of all are."""

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

    def counted_unshown(self, job: str, window: Window) -> "CountedUnshown":
        """Return what the job has counted as unshown in its windows that overlap one."""

    def fingerprint(self, job: str) -> Fingerprint | None:
        """Return by what the table was known when the job last captured."""

    def distrust(self, job: str) -> None:
        """Remember that the table went back, until the job captures again or is reset."""

    def reset(self, job: Job, captured: int, *, low: int, recount_from: int | None) -> None:
        """Let the job go on from another id, with nothing known of the table; slots hold rows above low."""

    def horizon_at(self, job: str, time: int) -> int:
        """Return the newest horizon known to have stood at a time of the source, 0 when none is."""


class Slot(NamedTuple):
    """A slot of a job, and the ids that its rows are among: above after, up to upto."""

    slot: int
    step: int
    after: int
    upto: int


class CountedUnshown(NamedTuple):
    """A window, put together from a job's own, and what was counted as unshown in it."""

    window: Window
    rows: Counter[Cause]


class Done(NamedTuple):
    """How far a transaction takes its job; None leaves a thing as it is."""

    unshown: Mapping[Cause, int]
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


@dataclass(slots=True)
class Tally:
    """What a transaction found out."""

    unshown: Counter[Cause] = field(default_factory=Counter)
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


def add(
    job: Job,
    window: Window | None,
    folded: Folded,
    *,
    ledger: Ledger,
    moment: Moment,
    done: Done,
    closes: Span | None,
    bucket: int | None = None,
) -> Tally:
    """Add a window to the totals, in one transaction; without a time column its rows are in one bucket."""
    with ledger.recording(job.name, window) as recording:
        tally = Tally(folded.unshown.copy(), refused=folded.refused.copy())
        if bucket is not None and (place := _place(job, bucket, recording, moment.now)):
            recording.mark(*place)
        for (key, kind), values in _keyed(job, folded, recording, tally, moment.now).items():
            value = _together(key, kind, recording.take(key), values, tally)
            if value is not None:
                _put(job, recording, key, value, moment)
        _close(job, recording, closes, moment.now)
        unshown_in = CountedUnshown(window, tally.unshown) if window else None
        closed_until = closes.end if closes else None
        recording.write(done._replace(unshown=tally.unshown, closed_until=closed_until, unshown_in=unshown_in))
    return tally


def replace(
    job: Job,
    span: Span,
    folded: Folded,
    done: Done,
    *,
    window: Window | None,
    ledger: Ledger,
    moment: Moment,
    closes: Span | None = None,
) -> Tally:
    """Set the totals of all slots of a span, in one transaction; one that nothing was found for becomes 0."""
    with ledger.recording(job.name, window) as recording:
        tally = Tally(Counter(done.unshown), refused=folded.refused.copy())
        found = _keyed(job, folded, recording, tally, moment.now)
        for (key, kind), values in found.items():
            recording.take(key)
            value = _together(key, kind, [], values, tally)
            if value is not None:
                _put(job, recording, key, value, moment)
        measures = [measure.name for measure in job.query.measures]
        for key in set(recording.stored(span, measures)) - {key for key, _ in found}:
            _put(job, recording, key, 0, moment)
        if not done.replaces:  # what cannot be shown was counted when it was captured
            tally.unshown = Counter(done.unshown)
        _close(job, recording, closes, moment.now)
        recording.write(done._replace(unshown=tally.unshown, closed_until=closes.end if closes else None))
    return tally


def amend(job: Job, present: Folded, before: CountedUnshown, done: Done, *, ledger: Ledger, moment: Moment) -> Tally:
    """Set what is counted as unshown in a window to what it is by now, in one transaction."""
    with ledger.recording(job.name, None) as recording:
        tally = Tally(present.unshown.copy())
        _keyed(job, present, recording, tally, moment.now)
        unshown_in = CountedUnshown(before.window, tally.unshown.copy())
        tally.unshown.subtract(before.rows)
        recording.write(done._replace(unshown=tally.unshown, unshown_in=unshown_in))
    return tally


def close(job: Job, progress: Progress, until: int, now: int) -> Span | None:
    """Return the buckets that close when everything up to a time of the source is captured; None if none do."""
    if job.zeros is None:
        return None
    length = job.query.bucket
    first = max(progress.closed_until, floor(max(until, now) - job.keep, length))
    span = Span(first, floor(until, length))
    return span if span.start < span.end else None


def _close(job: Job, recording: Recording, closes: Span | None, now: int) -> None:
    """Store the zeros of buckets that close; an archive that is not the finest gets none."""
    if closes is None or job.zeros is None:
        return
    declared = [path for group in job.groups for path in _paths(job, group, recording, Tally(), 0) or []]
    for bucket in range(closes.start, closes.end, job.query.bucket):
        place = _place(job, bucket, recording, now)
        if place is not None and place[1] == job.archives[0].step and not recording.is_pruned(bucket):
            recording.close(*place, seen_since=bucket - job.zeros, declared=declared)


def _keyed(
    job: Job, folded: Folded, recording: Recording, tally: Tally, now: int
) -> dict[tuple[Key, Kind], list[Value]]:
    """Find the totals that cells belong to; count what has none."""
    keyed: dict[tuple[Key, Kind], list[Value]] = {}
    named: dict[Group, list[str] | None] = {}
    seen: dict[int, set[str]] = {}
    for (group, bucket), cell in folded.cells.items():
        place = _place(job, bucket, recording, now)
        if place is None or recording.is_pruned(bucket):
            tally.unshown[Cause.TOO_OLD if place is None else Cause.TOO_LATE] += cell.rows
            continue
        if group not in named:
            named[group] = _paths(job, group, recording, tally, cell.rows)
        paths = named[group]
        if paths is None:
            tally.unshown[Cause.REFUSED] += cell.rows
            continue
        for path, measure, value in zip(paths, job.query.measures, cell.values, strict=True):
            if value is not None:
                keyed.setdefault((Key(path, *place), measure.kind), []).append(value)
        seen.setdefault(bucket, set()).update(paths)
    for bucket, seen_paths in seen.items():
        recording.see(bucket, seen_paths)
    return keyed


def _place(job: Job, bucket: int, recording: Recording, now: int) -> tuple[int, int] | None:
    """Return the slot and step of a bucket; what has gone to a coarser archive once stays there."""
    for archive in reversed(job.archives[1:]):
        slot = floor(bucket, archive.step)
        if recording.has_gone(slot, archive.step):
            return slot, archive.step
    return placed(job.archives, bucket, now)


def _paths(job: Job, group: Group, recording: Recording, tally: Tally, rows: int) -> list[str] | None:
    """Return the path of each measure of a group; None when Carbon could not hold one."""
    is_new = not recording.has_group(group)
    if is_new and recording.count_groups() >= job.max_groups:
        tally.other_rows += rows
        tally.other = group if tally.other is None else tally.other
        group, is_new = (OTHER,) * len(group), False
    try:
        paths = [own_path(job, group, measure, claim=recording.claim) for measure in job.query.measures]
    except BadMetric:
        tally.nameless = group if tally.nameless is None else tally.nameless
        return None
    if is_new and not is_clean(group):
        tally.cleaned.append((paths[0], group))
    return paths


def _together(key: Key, kind: Kind, before: list[Value], values: list[Value], tally: Tally) -> Value | None:
    """Put values together with what was there; without them, and told, where Carbon could not hold that."""
    value = total(kind, [*before, *values])
    if -MOST <= value <= MOST:
        return value
    tally.refused.append(Refusal(key.path, len(values), brief(value)))
    return total(kind, before) if before else None


def _put(job: Job, recording: Recording, key: Key, value: Value, moment: Moment) -> None:
    # by a clock that may be wrong no slot has left an archive for certain
    now = moment.now if moment.is_trusted else 0
    ripe = is_ripe(job.archives, key.slot, key.step, bucket=job.query.bucket, now=now)
    recording.put(key, value, is_ripe=ripe)
